"""What every input device offers: `start`, `read`, `close`.

A device turns whatever a person does into one `Command` per control step. It knows nothing of RLlib; the
intervention connector reads it just before each env step, so a command is as fresh as it can be.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import gymnasium
from numpy.typing import NDArray

from hil_rllib.contract import Command
from hil_rllib.devices.mode import InterventionMode


class DeviceUnavailable(RuntimeError):  # noqa: N818 - reads as a condition, like FileNotFoundError's kin
    """The device cannot be used: not built, not plugged in, no display. The message says what to do."""


@dataclass(frozen=True)
class Moment:
    """What came of one step of the env, or of a reset, for devices that show it.

    action: as the env took it; None at a reset. info: the env's, with what `collect.pacing` knows before the
    wait. interval_ms: between the ends of the two steps before; None where there are none.
    """

    observation: Mapping[str, Any]
    action: NDArray[Any] | None
    intervening: bool
    reward: float
    terminated: bool
    truncated: bool
    info: Mapping[str, Any]
    missed_deadlines: int
    interval_ms: float | None


class TeleopDevice(abc.ABC):
    """An input device, real or synthetic.

    It is made in the process that steps the env, never sent there, and used as
    `start(env)`, then per episode `reset()` and one `read()` per control step, then `close()`.
    `close` may be followed by another `start`; that is how a lost device comes back.
    """

    realtime: ClassVar[bool] = True
    """A person at a real clock is behind it: the env must be paced, the trigger debounced."""

    one_per_machine: ClassVar[bool] = False
    """Two of them on one machine would be the same hardware in the same hands."""

    @classmethod
    def missing(cls) -> str | None:
        """Why the device cannot be used here and now, and what to do; None where it can."""
        return None

    def blocked(self) -> str | None:
        """The same of this one, with the options it was made with."""
        return None

    @classmethod
    def lasting_options(cls) -> dict[str, Any]:
        """Options made once for a run, so that a runner started anew has the same device as before."""
        return {}

    @property
    def input_age_s(self) -> float | None:
        """[s] from the arrival of the newest input to the last `read`; None where nobody can tell."""
        return None

    def intervention_mode(self, kind: str) -> InterventionMode:
        """Who is in charge with this device, in mode `kind` (hold, toggle, auto).

        A device with a toggle of its own settles here what mode `toggle` makes of its trigger.
        """
        return InterventionMode(kind)

    @abc.abstractmethod
    def start(self, env: gymnasium.Env) -> None:
        """Open the device. env: the single env being driven; only the synthetic human looks at it.

        Raises `DeviceUnavailable` if the device is not there now; it may be tried again later.
        """

    @abc.abstractmethod
    def read(self) -> Command | None:
        """The command for this control step. Never blocks; called once per step.

        `Command.intervening` is the raw trigger (button or key held); `InterventionMode` decides from it.
        None: nobody is there, so the policy gets control back at once, without the mode's debounce.
        """

    def show(self, moment: Moment) -> None:  # noqa: B027 - most devices have no screen
        """Show what came of a step. Never blocks; called once per step and reset, before the wait."""

    def share(self, news: Mapping[str, Any]) -> None:  # noqa: B027 - likewise
        """Show the run's newest metrics, by their names under `hil/`. Never blocks.

        `robots`: rows of `sac.attention` with the `url` of each robot's page, where one person minds several.
        """

    @property
    def presence(self) -> tuple[str | None, str | None]:
        """Which of several robots this device drives, and the address of its page, if any."""
        return None, None

    def reset(self) -> None:  # noqa: B027 - most devices keep nothing between episodes
        """An episode begins: forget what belonged to the last one, such as an unread end-of-episode key."""

    def get_state(self) -> dict[str, Any]:
        """What a synthetic device continues from in another process; a person remembers by themselves."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Continue from `get_state`, after `start`."""

    def begin_apart(self, seed: int, human_steps: int) -> None:  # noqa: B027
        """A run goes on without `set_state`: a synthetic device draws other numbers, and has acted before."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release the hardware. Calling it twice is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
