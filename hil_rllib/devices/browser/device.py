"""The browser as an input device: the runner's side, which never waits for the page's."""

from __future__ import annotations

import importlib.util
import logging
import math
import subprocess
import time
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from hil_rllib.contract import RERECORD, SUCCESS, Command, Gripper
from hil_rllib.devices.base import DeviceUnavailable, Moment, TeleopDevice
from hil_rllib.devices.browser.access import new_token
from hil_rllib.devices.browser.address import PORTS, is_loopback, page_url, why_not_at
from hil_rllib.devices.browser.link import Link, LinkClosed
from hil_rllib.devices.browser.process import launch
from hil_rllib.devices.controls import GRIPPER, MOTION
from hil_rllib.devices.held import Held
from hil_rllib.devices.mode import InterventionMode

logger = logging.getLogger(__name__)

DEAD_MAN_S = 0.3  # [s] without input after which nobody counts as there; a page sends 25 a second
START_S = 20.0  # [s] for the server to come up before the first step; it takes one, more when busy
_MOVES = frozenset({f"{sign}{axis}" for axis in MOTION for sign in "+-"} | set(GRIPPER))


class BrowserDevice(TeleopDevice):
    """A web page with both cameras; keyboard, gamepad and touch on it drive the arm.

    A process of its own serves it, so that whatever happens there, this one's clock runs on. If it ends, the
    device is lost, and comes back with the same port and token when it is started again.

    Dead man: without input for `DEAD_MAN_S`, or when the page that drives is closed, `read` gives None, and
    the policy acts in that very step.

    bind: address to listen on. port: None takes the first free one of `PORTS`, 0 any. token: None makes one.
    idle: who acts where no person does, for the page. robot: which of several this one is.
    """

    def __init__(
        self,
        *,
        bind: str = "127.0.0.1",
        port: int | None = None,
        token: str | None = None,
        idle: str = "policy",
        robot: str | None = None,
    ) -> None:
        if port is not None and not 0 <= port <= 65535:
            raise ValueError(f"port must lie in 0 … 65535; got {port}.")
        self.bind, self.port, self.token, self.idle = bind, port, token or new_token(), idle
        self.robot = robot
        self.url: str | None = None
        self._mode = "hold"
        self._link: Link | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._keys = Held(motion_intervenes=True)  # keyboard and touch
        self._pad = Held(motion_intervenes=False)  # a gamepad, and what is no motion
        self._input_at: float | None = None  # [s, monotonic] the server had the newest input
        self._input_age_s: float | None = None
        self._episode = self._step = 0
        self._total = 0.0
        self._cameras: list[str] = []

    @classmethod
    def missing(cls) -> str | None:
        """Why no page can be served, and what to do."""
        for module in ("aiohttp", "PIL"):
            if importlib.util.find_spec(module) is None:
                return f"The browser device needs {module}: pip install aiohttp pillow."
        return None

    @classmethod
    def lasting_options(cls) -> dict[str, Any]:
        return {"token": new_token()}

    def blocked(self) -> str | None:
        """Why the address cannot be listened on now."""
        return why_not_at(self.bind, self.port)

    @property
    def presence(self) -> tuple[str | None, str | None]:
        return self.robot, self.url

    @property
    def input_age_s(self) -> float | None:
        return self._input_age_s

    def intervention_mode(self, kind: str) -> InterventionMode:
        """`toggle` makes RB a second toggle; keys and touch take over while held, as on a keyboard."""
        self._mode = kind
        self._pad.trigger_toggles = kind == "toggle"
        return super().intervention_mode("hold" if kind == "toggle" else kind)

    def start(self, env: gymnasium.Env) -> None:
        """Start the server. Only the first time wait until it listens, and tell where.

        Raises `DeviceUnavailable` if it cannot be had at this address.
        """
        if reason := self.missing():
            raise DeviceUnavailable(reason)
        self.close()
        hello, array_bytes = self._hello(env)
        self._link, self._server = launch(array_bytes)
        self._forget_input()
        self._link.send(hello)
        if self.url is None:
            self._wait_until_ready()

    def read(self) -> Command | None:
        """What the page's driver commands; None where nobody is there. Raises `DeviceUnavailable`."""
        self._receive()
        now = time.monotonic()
        if self._input_at is None or now - self._input_at > DEAD_MAN_S:
            self._forget_input()
            return None
        self._input_age_s = now - self._input_at
        keys, pad = self._keys.read(), self._pad.read()
        x, y, z = (max(-1.0, min(1.0, a + b)) for a, b in zip(keys.motion, pad.motion, strict=True))
        grips = {command.gripper for command in (keys, pad)} - {Gripper.HOLD}
        return Command(
            motion=(x, y, z),
            gripper=grips.pop() if len(grips) == 1 else Gripper.HOLD,
            intervening=keys.intervening or pad.intervening,
            end=pad.end,
            label=pad.label,
        )

    def show(self, moment: Moment) -> None:
        """Hand what the page shows to the server; dropped where it has not taken the last ones."""
        if self._link is None:
            return
        if moment.action is None:
            self._episode += 1
            self._step, self._total = 0, 0.0
        else:
            self._step += 1
            self._total += moment.reward
        arrays = (
            [np.asarray(moment.observation["pixels"][camera]) for camera in self._cameras]
            if self._cameras
            else [self._snapshot()]
        )
        done = moment.terminated or moment.truncated
        info = moment.info
        message = {
            "kind": "step",
            "slot": self._link.put(arrays) if arrays[0].size else None,
            "episode": self._episode,
            "step": self._step,
            "who": "human" if moment.intervening else self.idle,
            "action": None if moment.action is None else [_shown(v) for v in moment.action],
            "reward": _shown(moment.reward),
            "total": _shown(self._total),
            "end": _outcome(info) if done else None,
            "interval_ms": moment.interval_ms,
            "latency_ms": info.get("latency_ms"),
            "input_latency_ms": info.get("input_latency_ms"),
            "missed": moment.missed_deadlines,
        }
        self._send(message)

    def share(self, news: Mapping[str, Any]) -> None:
        """Hand the run's newest metrics to the page."""
        self._send({"kind": "run", "values": dict(news)})

    def reset(self) -> None:
        """What was tapped before the episode belonged to the last one. What is held or toggled stays."""
        self._receive()
        self._keys.forget()
        self._pad.forget()

    def close(self) -> None:
        """End the server, which keeps nothing that could be lost."""
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def _receive(self) -> None:
        if self._link is None:
            raise DeviceUnavailable("The page is not served.")
        try:
            for message in self._link.receive():
                self._take(message)
        except LinkClosed as error:
            raise DeviceUnavailable(f"The page's server has ended: {error}") from error

    def _take(self, message: Mapping[str, Any]) -> None:
        """One message of the server."""
        kind = message["kind"]
        if kind == "input":
            hands, pad = set(message["hands"]), set(message["pad"])
            first = self._input_at is None  # what is down already was not pressed now
            _hold(self._keys, hands & _MOVES, message["touch"], first)
            _hold(self._pad, pad | (hands - _MOVES), message["sticks"], first)
            self._input_at = message["at"]
        elif kind == "left":
            self._forget_input()
        elif kind == "ready":
            self.port, first = message["port"], self.url is None
            self.url = page_url(self.bind, message["port"], self.token)
            if first:
                logger.warning("Drive %s from %s", self.robot or "the arm", self.url)
                if not is_loopback(self.bind):
                    logger.warning("Whoever has that address drives it too. It is sent in the clear.")
        elif kind == "failed":
            raise DeviceUnavailable(message["reason"])

    def _wait_until_ready(self) -> None:
        assert self._server is not None
        until = time.monotonic() + START_S
        while self.url is None:
            try:
                self._receive()
            except DeviceUnavailable:
                self.close()
                raise
            if time.monotonic() > until:
                self.close()
                raise DeviceUnavailable(f"The page's server did not come up in {START_S:.0f} s.")
            time.sleep(0.01)

    def _forget_input(self) -> None:
        """Nobody is there: nothing is held, nothing toggled."""
        self._input_at = self._input_age_s = None
        self._keys.clear()
        self._pad.clear()

    def _send(self, message: dict[str, Any]) -> None:
        if self._link is not None:
            try:
                self._link.send(message)
            except LinkClosed as error:
                raise DeviceUnavailable(f"The page's server has ended: {error}") from error

    def _hello(self, env: gymnasium.Env) -> tuple[dict[str, Any], int]:
        """What the server must know of the env, and how large the arrays of a step are [bytes]."""
        base: Any = env.unwrapped
        self._snapshot = getattr(base, "get_state", lambda: np.zeros(0))
        pixels = getattr(env.observation_space, "spaces", {}).get("pixels")
        spaces = {} if pixels is None else pixels.spaces
        self._cameras = list(spaces)
        draw: list[str] | None = None
        if self._cameras:
            arrays = [(list(spaces[camera].shape), spaces[camera].dtype.str) for camera in self._cameras]
        else:
            state = self._snapshot()
            drawn = type(base).__module__.partition(".")[0] == "envs"  # ours can be drawn from their state
            arrays = [([state.size], "<f8")] if state.size and drawn else []
            draw = [type(base).__module__, type(base).__qualname__] if arrays else None
            if not arrays:
                self._snapshot = lambda: np.zeros(0)
        hello = {
            "kind": "hello",
            "bind": self.bind,
            "ports": list(PORTS) if self.port is None else [self.port],
            "token": self.token,
            "mode": self._mode,
            "idle": self.idle,
            "robot": self.robot,
            "cameras": self._cameras,
            "arrays": arrays,
            "draw": draw,
        }
        return hello, sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in arrays)


def _hold(held: Held, names: set[str], motion: list[float], first: bool) -> None:
    """Bring what is held to `names` and `motion`. first: they are held without having been pressed."""
    if first:
        held.clear(names)
    before = held.down()
    for name in before - names:
        held.release(name)
    for name in names - before:
        held.press(name)
    held.deflect(*motion)


def _shown(value: float) -> float | None:
    """As the page shows it; JSON has no NaN."""
    return round(float(value), 3) if math.isfinite(value) else None


def _outcome(info: Mapping[str, Any]) -> str:
    if info.get(RERECORD):
        return "rerecord"
    return "success" if info.get(SUCCESS) else "failure"
