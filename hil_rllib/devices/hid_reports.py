"""What the bytes of a gamepad's HID input report mean.

Positions count from the report's first byte as hidapi gives it, which is the report id where the device uses
them. Sources: for Logitech gym-hil 0.1.14 and the order of its buttons in SDL 2.28.4's mappings; for
DualShock 4 and DualSense Linux's hid-playstation.c (`dualshock4_input_report_common`,
`dualsense_input_report`) and SDL_hidapi_ps5.c (`PS5SimpleStatePacket_t`); for Xbox over Bluetooth
SDL_hidapi_xboxone.c. Xbox controllers on USB speak a protocol of their own, not HID.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hil_rllib.devices.controls import PLAYSTATION

XBOX_TRIGGER_PRESSED = 512  # of 0..1023


@dataclass(frozen=True)
class PadState:
    """pressed: names of `controls.PAD_BUTTONS`; sticks in [-1, 1], up and left positive."""

    pressed: frozenset[str]
    left_x: float
    left_y: float
    right_y: float


Parser = Callable[[bytes], PadState | None]  # None: this report tells something else, such as the battery


@dataclass(frozen=True)
class HidGamepad:
    """A controller whose reports are known. products: (vendor id, product id)."""

    name: str
    products: frozenset[tuple[int, int]]
    parse: Parser
    labels: Mapping[str, str] = field(default_factory=dict)


def _logitech(report: bytes, first: int) -> PadState | None:
    """Sticks, then D-pad and X A B Y, then LB RB LT RT. first: where the sticks begin."""
    if len(report) < first + 6:
        return None
    face, shoulders = report[first + 4], report[first + 5]
    return _eight_bit(report, first, _bits(face, x=4, a=5, b=6, y=7) | _shoulders(shoulders))


def _logitech_without_id(report: bytes) -> PadState | None:
    return _logitech(report, 0)


def _logitech_with_id(report: bytes) -> PadState | None:
    return _logitech(report, 1) if report[:1] == b"\x01" else None


def _dualshock4(report: bytes) -> PadState | None:
    """Id 0x01 on USB and, short, on Bluetooth; Bluetooth's long one is 0x11, two bytes before the sticks."""
    first = {0x01: 1, 0x11: 3}.get(report[0])
    return _sony(report, first, first + 4) if first is not None else None


def _dualsense(report: bytes) -> PadState | None:
    """Id 0x01 on USB; in 10 bytes (some systems pad to 78) Bluetooth's short one, 0x31 is its long one."""
    if report[0] == 0x31:
        return _sony(report, 2, 2 + 7)
    if report[0] == 0x01:
        return _sony(report, 1, 1 + 4 if len(report) in (10, 78) else 1 + 7)
    return None


def _sony(report: bytes, sticks: int, buttons: int) -> PadState | None:
    if len(report) < buttons + 2:
        return None
    pressed = _bits(report[buttons], x=4, a=5, b=6, y=7) | _shoulders(report[buttons + 1])
    return _eight_bit(report, sticks, pressed)


def _xbox_bluetooth(report: bytes) -> PadState | None:
    """Sticks of 16 bits, triggers of 10, then the D-pad; the first firmware (16 bytes) packs the buttons."""
    if report[0] != 0x01 or len(report) < 16:
        return None
    if len(report) == 16:
        pressed = _bits(report[14], a=0, b=1, x=2, y=3, lb=4, rb=5)
    else:
        pressed = _bits(report[14], a=0, b=1, x=3, y=4, lb=6, rb=7)
    for name, at in (("lt", 9), ("rt", 11)):
        if _word(report, at) > XBOX_TRIGGER_PRESSED:
            pressed |= {name}
    sticks = [1.0 - _word(report, at) / 32767.5 for at in (1, 3, 7)]
    return PadState(pressed, *sticks)


def _eight_bit(report: bytes, first: int, pressed: frozenset[str]) -> PadState:
    """Left x, left y, right x, right y from byte `first`; 0 is left and up, 128 the middle."""
    left_x, left_y, right_y = (report[first + k] for k in (0, 1, 3))
    return PadState(pressed, _centred(left_x), _centred(left_y), _centred(right_y))


def _centred(byte: int) -> float:
    return (128 - byte) / (128.0 if byte < 128 else 127.0)


def _word(report: bytes, at: int) -> int:
    return int.from_bytes(report[at : at + 2], "little")


def _shoulders(byte: int) -> frozenset[str]:
    return _bits(byte, lb=0, rb=1, lt=2, rt=3)


def _bits(byte: int, **positions: int) -> frozenset[str]:
    return frozenset(name for name, bit in positions.items() if byte >> bit & 1)


LOGITECH, SONY, MICROSOFT = 0x046D, 0x054C, 0x045E

GAMEPADS = (
    HidGamepad(
        "Logitech F310, RumblePad 2 (switch on D)",
        frozenset({(LOGITECH, 0xC216), (LOGITECH, 0xC218)}),
        _logitech_without_id,
    ),
    HidGamepad(
        "Logitech F710, Cordless RumblePad 2 (switch on D)",
        frozenset({(LOGITECH, 0xC219)}),
        _logitech_with_id,
    ),
    HidGamepad(
        "DualShock 4",
        frozenset({(SONY, 0x05C4), (SONY, 0x09CC), (SONY, 0x0BA0)}),
        _dualshock4,
        PLAYSTATION,
    ),
    HidGamepad("DualSense", frozenset({(SONY, 0x0CE6), (SONY, 0x0DF2)}), _dualsense, PLAYSTATION),
    HidGamepad(
        "Xbox One, Series over Bluetooth",
        frozenset({(MICROSOFT, product) for product in (0x02E0, 0x02FD, 0x0B05, 0x0B13, 0x0B20, 0x0B22)}),
        _xbox_bluetooth,
    ),
)


def gamepad_of(vendor_id: int, product_id: int) -> HidGamepad | None:
    """The known gamepad with these ids, if it is one."""
    return next((pad for pad in GAMEPADS if (vendor_id, product_id) in pad.products), None)
