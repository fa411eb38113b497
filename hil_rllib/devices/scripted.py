"""A synthetic human: helps now and then, late, inexactly, and not for ever.

For runs without anybody at the controls, for tests, and for measuring what a given amount of human help
buys. It sees the simulator's state and acts as the scripted expert would.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import gymnasium
import numpy as np

from hil_rllib.contract import CONTROL_DT, IDLE, MOTION_DIM, Command, Gripper
from hil_rllib.devices.base import TeleopDevice

_REMEMBERED = (
    "_used_steps",
    "_step",
    "_until_takeover",
    "_help_left",
    "_look_afresh",
    "_best_progress",
    "_best_step",
)

PROGRESS_M = 0.005  # [m] nearer to the object, or object nearer to its goal, that counts as getting on; ours


class ScriptedHuman(TeleopDevice):
    """Decides to help, takes over a reaction time later, acts for `help_steps`, lets go.

    It decides at random, and, if `stuck_after_steps` is set, also when the policy gets nowhere for so long.
    While in control it knows its own motion, as people do, so its commands fit the present state; only the
    decision is late. The same seed and the same states give the same commands.

    reaction_s            from deciding to the first command [s], rounded to control steps
    noise                 standard deviation of the expert's motion, in units of full deflection
    takeover_probability  of deciding to help, per step from `start_after_step` of the episode on
    error_rate            of a random action in place of the right one, per step of help
    budget_s              attention in total [s]; once used up it never intervenes again
    help_steps            steps of help before it lets go (the end of the episode ends it too)
    stuck_after_steps     steps without progress after which it decides to help; 0: never for this reason
    """

    realtime: ClassVar[bool] = False

    def __init__(
        self,
        *,
        reaction_s: float = 0.3,
        noise: float = 0.1,
        takeover_probability: float = 0.02,
        error_rate: float = 0.0,
        budget_s: float = 600.0,
        start_after_step: int = 20,
        help_steps: int = 15,
        stuck_after_steps: int = 0,
        seed: int = 0,
    ) -> None:
        for name, value in {"takeover_probability": takeover_probability, "error_rate": error_rate}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is a probability, in [0, 1]; got {value}.")
        at_least_zero = {
            "reaction_s": reaction_s,
            "noise": noise,
            "budget_s": budget_s,
            "start_after_step": start_after_step,
            "stuck_after_steps": stuck_after_steps,
        }
        for name, value in at_least_zero.items():
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0; got {value}.")
        if help_steps < 1:
            raise ValueError(f"help_steps must be at least 1; got {help_steps}.")
        self.noise = noise
        self.takeover_probability = takeover_probability
        self.error_rate = error_rate
        self.start_after_step = start_after_step
        self.help_steps = help_steps
        self.stuck_after_steps = stuck_after_steps
        self._reaction_steps = round(reaction_s / CONTROL_DT)
        self._budget_steps = math.floor(budget_s / CONTROL_DT + 1e-6)  # 0.3 / 0.1 is 2.9999…
        self._used_steps = 0
        self._rng = np.random.default_rng(seed)

    @property
    def human_seconds(self) -> float:
        """Attention spent so far [s]: steps with an intervention × `CONTROL_DT`."""
        return self._used_steps * CONTROL_DT

    def start(self, env: gymnasium.Env) -> None:
        """Watch `env`, of a task that an expert knows (wrapped or not). Raises TypeError for others."""
        from envs.expert import make_expert  # here: it brings the simulator, which `none` does without

        self._expert = make_expert(env, noise=self.noise, rng=self._rng)
        self.reset()

    def reset(self) -> None:
        """An episode begins: hands off."""
        self._step = 0
        self._until_takeover: int | None = None  # steps, None while it has not decided to help
        self._help_left = 0
        self._look_afresh = True
        self._best_progress = -math.inf
        self._best_step = 0

    def read(self) -> Command:
        """The command for this control step."""
        step, self._step = self._step, self._step + 1
        self._watch(step)
        if self._used_steps >= self._budget_steps:
            return IDLE
        if self._help_left == 0:
            if self._until_takeover is None and self._decides(step):
                self._until_takeover = self._reaction_steps
            if self._until_takeover is None:
                return IDLE
            if self._until_takeover > 0:
                self._until_takeover -= 1
                return IDLE
            self._until_takeover = None
            self._help_left = self.help_steps
            self._look_afresh = True
        self._help_left -= 1
        self._used_steps += 1
        if self._help_left == 0:  # letting go: the policy gets as long again before it counts as stuck
            self._best_step = step
        return self._help()

    def get_state(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in _REMEMBERED}
        return own | {"expert": self._expert.get_state(), "random": self._rng.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        for name in _REMEMBERED:
            setattr(self, name, state[name])
        self._expert.set_state(state["expert"])
        self._rng.bit_generator.state = state["random"]

    def begin_apart(self, seed: int, human_steps: int) -> None:
        self._rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        self._used_steps = human_steps

    def close(self) -> None:
        """Nothing is held."""

    def _decides(self, step: int) -> bool:
        stuck = 0 < self.stuck_after_steps <= step - self._best_step
        return stuck or (step >= self.start_after_step and self._rng.random() < self.takeover_probability)

    def _watch(self, step: int) -> None:
        if self.stuck_after_steps:
            progress = self._expert.progress
            if progress >= self._best_progress + PROGRESS_M:
                self._best_progress, self._best_step = progress, step

    def _help(self) -> Command:
        if self._rng.random() < self.error_rate:
            self._look_afresh = True  # who knows what that did
            wrong = self._rng.uniform(-1.0, 1.0, MOTION_DIM)
            return _command(wrong, Gripper(int(self._rng.integers(len(Gripper)))))
        if self._look_afresh:
            self._look_afresh = False
            self._expert.look()
        action = self._expert.action()
        return _command(action[:MOTION_DIM], Gripper(round(float(action[MOTION_DIM]))))


def _command(motion: np.ndarray, gripper: Gripper) -> Command:
    x, y, z = map(float, motion)
    return Command((x, y, z), gripper, intervening=True)
