"""Who is in charge: the rule from a device's raw trigger to "the person is intervening"."""

from __future__ import annotations

from hil_rllib.contract import Command, Gripper

MODES = ("hold", "toggle", "auto")


class InterventionMode:
    """Decides at every control step whether the person's command is executed. Pure: the caller has the clock.

    hold    while the trigger is held
    toggle  from one press of the trigger to the next
    auto    from the first motion beyond the dead zone (or gripper command, or trigger) until `idle_s`
            without any

    In `hold` and `toggle` the trigger counts as released only `release_s` after it was last seen, so that
    key repeat does not flicker.

    release_s, idle_s: [s]; dead_zone: [-] on any axis of `Command.motion`, full deflection is 1.
    """

    def __init__(
        self,
        kind: str = "hold",
        *,
        release_s: float = 0.15,  # ours: longer than one control step, shorter than anyone notices
        idle_s: float = 1.0,  # ours
        dead_zone: float = 0.1,  # a worn gamepad stick rests at up to a few per cent
    ) -> None:
        if kind not in MODES:
            raise ValueError(f"Unknown intervention mode {kind!r}. Choose from {', '.join(MODES)}.")
        self.kind = kind
        self.release_s = release_s
        self.idle_s = idle_s
        self.dead_zone = dead_zone
        self.reset()

    def reset(self) -> None:
        """Give control back to the policy."""
        self._last_active_s = float("-inf")
        self._held = False
        self._latched = False

    def update(self, command: Command, now_s: float) -> bool:
        """Whether the person is in charge at this step. now_s: a monotonic clock [s]."""
        if self.kind == "auto":
            return self._active_within(self.idle_s, self._moves(command) or command.intervening, now_s)
        held = self._active_within(self.release_s, command.intervening, now_s)
        if self.kind == "hold":
            return held
        pressed, self._held = held and not self._held, held
        self._latched ^= pressed
        return self._latched

    def _active_within(self, seconds: float, active: bool, now_s: float) -> bool:
        if active:
            self._last_active_s = now_s
        return active or now_s - self._last_active_s < seconds

    def _moves(self, command: Command) -> bool:
        return command.gripper != Gripper.HOLD or max(map(abs, command.motion)) > self.dead_zone
