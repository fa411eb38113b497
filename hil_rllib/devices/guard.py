"""Keeps a run going when its input device misbehaves."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium

from hil_rllib.contract import Command
from hil_rllib.devices.base import DeviceUnavailable, Moment, TeleopDevice

logger = logging.getLogger(__name__)

RETRY_S = 2.0  # [s] between attempts to open a lost device


class DeviceGuard:
    """A device that never raises while it is read, and comes back when it was lost.

    `read` gives None where there is no usable command, and the policy keeps control:
    - the device raised: it is closed, said once, and `start` is tried again every `retry_s`; why it does
      not come back is said when that changes;
    - the device says that nobody is there;
    - the command holds NaN or infinity: said once per burst, the device stays open.
    """

    def __init__(
        self, device: TeleopDevice, *, retry_s: float = RETRY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.device = device
        self._name = type(device).__name__
        self._retry_s = retry_s
        self._clock = clock
        self._env: gymnasium.Env | None = None
        self._retry_at: float | None = None  # None while the device is open
        self._told = ""  # why it is lost, as last said
        self._in_nan_burst = False

    def start(self, env: gymnasium.Env) -> None:
        """Open the device for `env`. One that is not there now is awaited; any other error is raised."""
        self._env = env
        try:
            self.device.start(env)
        except DeviceUnavailable as error:
            self._lose(error)

    def reset(self) -> None:
        """An episode begins."""
        self._try(self.device.reset)

    def read(self) -> Command | None:
        """The command for this step, or None if there is none to use."""
        if self._retry_at is not None and not self._reopen():
            return None
        try:
            command = self.device.read()
            if command is None:
                return None
            finite = all(map(math.isfinite, (*command.motion, command.gripper)))
        except Exception as error:
            self._lose(error)
            return None
        if not finite and not self._in_nan_burst:
            logger.warning("%s gave a non-finite command %s: ignored, the policy acts.", self._name, command)
        self._in_nan_burst = not finite
        return command if finite else None

    def show(self, moment: Moment) -> None:
        """Let an open device show what came of a step."""
        self._try(lambda: self.device.show(moment))

    def share(self, news: Mapping[str, Any]) -> None:
        """Let an open device show the run's metrics."""
        self._try(lambda: self.device.share(news))

    def _try(self, use: Callable[[], None]) -> None:
        if self._retry_at is None:
            try:
                use()
            except Exception as error:
                self._lose(error)

    def close(self) -> None:
        """Release the device, whatever state it is in."""
        try:
            self.device.close()
        except Exception:
            logger.warning("Closing %s failed.", self._name, exc_info=True)

    def _lose(self, error: Exception) -> None:
        self._told = f"{type(error).__name__}: {error}"
        logger.warning(
            "%s is lost (%s). The policy acts; trying again every %g s.",
            self._name,
            self._told,
            self._retry_s,
        )
        logger.debug("Where %s failed:", self._name, exc_info=error)
        self._retry_at = self._clock() + self._retry_s
        with contextlib.suppress(Exception):  # it is broken already; the reason above is the one that matters
            self.device.close()

    def _reopen(self) -> bool:
        assert self._env is not None, "read() before start()"
        assert self._retry_at is not None
        if self._clock() < self._retry_at:
            return False
        try:
            self.device.start(self._env)
        except Exception as error:
            self._tell_news(error)
            self._retry_at = self._clock() + self._retry_s
            return False
        self._retry_at = None
        logger.warning("%s is back.", self._name)
        return True

    def _tell_news(self, error: Exception) -> None:
        """Say why it is still lost, unless that was said or is only that nothing is there."""
        reason = f"{type(error).__name__}: {error}"
        if reason == self._told:
            return
        self._told = reason
        with contextlib.suppress(Exception):  # of a device that misbehaves
            if str(error) == self.device.missing():
                return
        logger.warning("%s is still lost (%s).", self._name, reason)
