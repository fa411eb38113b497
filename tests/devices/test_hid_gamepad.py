"""HID gamepads byte by byte: reports as the controllers send them, fed in below hidapi's module."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import gymnasium
import pytest
from operator_rig import BACKWARDS, Rig, assert_drives

from hil_rllib.contract import IDLE, EpisodeEnd, Gripper
from hil_rllib.devices import DeviceUnavailable, check_present, make_device
from hil_rllib.devices.controls import CONTROLS, PLAYSTATION

ENV = gymnasium.Env()


class FakeHid:
    """Stands in for the module `hid`: one device, whose reports are queued by the test."""

    def __init__(self, vendor, product, **info):
        self.info = {"vendor_id": vendor, "product_id": product, "path": b"7", **info}
        self.info = {"usage_page": 1, "usage": 5, **self.info}
        self.plugged, self.reports, self.opened, self.nonblocking = True, [], 0, False

    def enumerate(self):
        return [{"vendor_id": 1, "product_id": 2, "path": b"1"}, self.info] if self.plugged else []

    def device(self):
        return self

    def open_path(self, path):
        assert path == b"7"
        self.opened += 1

    def set_nonblocking(self, value):
        self.nonblocking = bool(value)

    def read(self, size):
        assert self.nonblocking
        if not self.plugged:
            raise OSError("read error")
        return self.reports.pop(0)[:size] if self.reports else []

    def close(self):
        self.reports.clear()


def sony(first, buttons, length, report_id):
    """A DualShock 4's or DualSense's: byte `first` is the left stick's x, byte `buttons` has Square etc."""
    rest = bytearray(length)
    rest[0] = report_id
    rest[first : first + 4] = [128] * 4
    rest[buttons] = 8  # D-pad at rest
    bits = {"x": 4, "a": 5, "b": 6, "y": 7}
    low = {"lb": 0, "rb": 1, "lt": 2, "rt": 3}
    changes = {pad: {buttons: 8 | 1 << bit} for pad, bit in bits.items()}
    changes |= {pad: {buttons + 1: 1 << bit} for pad, bit in low.items()}
    return bytes(rest), changes | eight_bit_sticks(first)


def eight_bit_sticks(first):
    return {
        "left_stick_left": {first: 0},
        "left_stick_right": {first: 255},
        "left_stick_up": {first + 1: 0},
        "left_stick_down": {first + 1: 255},
        "right_stick_up": {first + 3: 0},
        "right_stick_down": {first + 3: 255},
    }


def logitech(first, rest):
    face = {"x": 0x18, "a": 0x28, "b": 0x48, "y": 0x88}
    low = {"lb": 1, "rb": 2, "lt": 4, "rt": 8}
    changes = {pad: {first + 4: value} for pad, value in face.items()}
    return bytes.fromhex(rest), changes | {pad: {first + 5: value} for pad, value in low.items()} | (
        eight_bit_sticks(first)
    )


def xbox(length, buttons):
    rest = bytearray(length)
    rest[0] = 1
    rest[1:9] = b"\x00\x80" * 4
    changes = {pad: {14: value} for pad, value in buttons.items()}
    changes |= {"lt": {9: 0xFF, 10: 0x03}, "rt": {11: 0xFF, 12: 0x03}}
    for stick, at in {"left_stick": 1, "right_stick": 5}.items():
        for end, (offset, value) in {
            "left": (0, 0),
            "right": (0, 255),
            "up": (2, 0),
            "down": (2, 255),
        }.items():
            changes[f"{stick}_{end}"] = {at + offset: value, at + offset + 1: value}
    return bytes(rest), changes


CONTROLLERS = {  # name: ids, then the report at rest and what each control changes in it
    "F310": ((0x046D, 0xC216), logitech(0, "80 7f 80 7f 08 00 04 ff")),
    "RumblePad 2": ((0x046D, 0xC218), logitech(0, "80 7f 80 7f 08 00 04 ff")),
    "F710": ((0x046D, 0xC219), logitech(1, "01 80 7f 80 7f 08 00 06")),
    "DualShock 4 USB": ((0x054C, 0x09CC), sony(1, 5, 64, 0x01)),
    "DualShock 4 Bluetooth, short": ((0x054C, 0x05C4), sony(1, 5, 10, 0x01)),
    "DualShock 4 Bluetooth, long": ((0x054C, 0x05C4), sony(3, 7, 78, 0x11)),
    "DualSense USB": ((0x054C, 0x0CE6), sony(1, 8, 64, 0x01)),
    "DualSense Bluetooth, short": ((0x054C, 0x0CE6), sony(1, 5, 10, 0x01)),
    "DualSense Bluetooth, long": ((0x054C, 0x0CE6), sony(2, 9, 78, 0x31)),
    "Xbox One S Bluetooth, first firmware": (
        (0x045E, 0x02E0),
        xbox(16, {"a": 1, "b": 2, "x": 4, "y": 8, "lb": 16, "rb": 32}),
    ),
    "Xbox Series Bluetooth": (
        (0x045E, 0x0B13),
        xbox(17, {"a": 1, "b": 2, "x": 8, "y": 16, "lb": 64, "rb": 128}),
    ),
}
EXPECTED = {
    "open": {"gripper": Gripper.OPEN},
    "close": {"gripper": Gripper.CLOSE},
    "intervene": {"intervening": True},
    "toggle": {"intervening": True},
    "success": {"end": EpisodeEnd.SUCCESS},
    "failure": {"end": EpisodeEnd.FAILURE},
    "rerecord": {"end": EpisodeEnd.RERECORD},
    "label": {"label": True},
}


def report_of(controller, *pads):
    rest, changes = CONTROLLERS[controller][1]
    report = bytearray(rest)
    for pad in pads:
        for at, value in changes[pad].items():
            report[at] ^= rest[at] ^ value  # buttons that share a byte add up
    return list(report)


@pytest.fixture
def hid_with(monkeypatch):
    def put(controller, **info):
        fake = FakeHid(*CONTROLLERS[controller][0], **info)
        monkeypatch.setitem(sys.modules, "hid", fake)
        fake.reports.append(report_of(controller))
        return fake

    return put


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_every_control_of_every_known_report(hid_with, controller):
    fake = hid_with(controller)
    with make_device("hid") as device:
        device.start(ENV)
        fake.reports.append(report_of(controller))
        assert device.read() == IDLE
        assert device.labels == (PLAYSTATION if "Dual" in controller else {})
        for control in CONTROLS:
            fake.reports.append(report_of(controller, control.pad))
            command = device.read()
            if control.name in EXPECTED:
                expected = EXPECTED[control.name]
                assert {key: getattr(command, key) for key in expected} == expected
                assert command.motion == (0.0, 0.0, 0.0)
            else:
                expected = [0.0, 0.0, 0.0]
                expected["xyz".index(control.name[1])] = 1.0 if control.name[0] == "+" else -1.0
                assert command.motion == pytest.approx(expected, abs=1e-3)
                assert not command.intervening
            fake.reports.append(report_of(controller))
            if control.name == "toggle":
                fake.reports += [report_of(controller, control.pad), report_of(controller)]
            assert device.read() == IDLE


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_every_control_drives_the_arm(hid_with, vector_env, control):
    controller = "DualSense Bluetooth, long"
    fake = hid_with(controller)
    alone = control.name in ("toggle", "success", "failure", "rerecord", "label", "intervene")

    def press(pressed):
        fake.reports.append(report_of(controller, pressed.pad, *([] if alone else ["rb"])))

    with make_device("hid") as device:
        rig = Rig(vector_env, device)
        assert_drives(rig, control, press, lambda _: fake.reports.append(report_of(controller)))


def test_all_reports_are_read_in_order_so_no_tap_is_lost(hid_with):
    fake = hid_with("F710")
    with make_device("hid") as device:
        device.start(ENV)
        device.read()
        fake.reports += [report_of("F710", "y"), *([report_of("F710")] * 50)]
        assert device.read().end is EpisodeEnd.SUCCESS
        assert not fake.reports


def test_other_and_truncated_reports_are_ignored(hid_with):
    fake = hid_with("DualShock 4 USB")
    with make_device("hid") as device:
        device.start(ENV)
        fake.reports.append(report_of("DualShock 4 USB", "rb"))
        assert device.read().intervening
        fake.reports += [[0x05] + [255] * 63, [0x01, 255, 255]]
        assert device.read().intervening


def test_what_is_down_when_opened_was_not_pressed(hid_with):
    fake = hid_with("F710")
    fake.reports[:] = [report_of("F710", "x")]
    with make_device("hid") as device:
        device.start(ENV)
        assert device.read() == IDLE


def test_unplugged_while_intervening_hands_over_at_once_with_one_message_and_resumes(
    hid_with, vector_env, caplog
):
    fake = hid_with("F310")
    held = report_of("F310", "rb", "left_stick_up")
    with make_device("hid") as device, caplog.at_level(logging.WARNING, "hil_rllib"):
        rig = Rig(vector_env, device)
        fake.reports.append(held)
        assert [rig.step(BACKWARDS)[1] for _ in range(3)] == [True] * 3
        fake.plugged = False
        assert not any(rig.step(BACKWARDS)[1] for _ in range(30))
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "was unplugged (read error). Plug it in again" in caplog.text
        fake.plugged = True
        for _ in range(25):
            rig.step(BACKWARDS)
        assert fake.opened == 2
        fake.reports.append(held)
        assert rig.step(BACKWARDS)[1]
        assert "is back" in caplog.records[-1].message
        assert len(caplog.records) == 2


def test_without_a_known_gamepad_it_names_those_it_knows(hid_with, monkeypatch):
    hid_with("F310", vendor_id=0x1234)
    for attempt in (lambda: check_present("hid"), lambda: make_device("hid").start(ENV)):
        with pytest.raises(DeviceUnavailable, match=r"Known: Logitech F310.*DualSense.*browser or gamepad"):
            attempt()
    hid_with("DualShock 4 USB", usage=6)  # the keyboard-like part of the same controller
    with pytest.raises(DeviceUnavailable, match="No gamepad that hidapi can read"):
        check_present("hid")
    monkeypatch.setitem(sys.modules, "hid", None)
    with pytest.raises(DeviceUnavailable, match=r"needs hidapi, which does not load.*pip install hidapi"):
        check_present("hid")


def test_one_that_cannot_be_opened_says_what_to_allow(hid_with, monkeypatch):
    fake = hid_with("F310")
    refuse = SimpleNamespace(open_path=lambda path: (_ for _ in ()).throw(OSError("open failed")))
    monkeypatch.setattr(fake, "device", lambda: refuse)
    with pytest.raises(DeviceUnavailable, match=r"cannot be opened \(open failed\). On macOS .* on Linux"):
        make_device("hid").start(ENV)
