"""What an env's episodes were, step by step, for whoever writes them down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from hil_rllib.collect.pacing import APPEAL_STEPS
from hil_rllib.contract import (
    ACTION_DIM,
    APPEAL,
    CLASSIFIED,
    DISCRETE_PENALTY,
    HELD_COMMANDS,
    IS_INTERVENTION,
    RERECORD,
    SUCCESS,
    VERDICT,
    env_action,
)

PIXELS, WORLD = "pixels", "environment_state"


@dataclass
class Episode:
    """A finished episode of T steps as columns (T, …): the observation before each action, what came of it.

    observations: agent_pos, environment_state, and pixels.<camera> where the env shows frames. actions: in
    the env's space. interventions: 1.0 where a person's action was executed. seed: of the reset, if given.
    """

    seed: int | None
    observations: dict[str, NDArray[Any]]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    penalties: NDArray[np.float32]
    interventions: NDArray[np.float32]
    successes: NDArray[np.bool_]
    terminated: bool
    truncated: bool

    def __len__(self) -> int:
        return len(self.actions)


class Sink(Protocol):
    """Where episodes go."""

    def put(self, episode: Episode) -> None:
        """Take an episode without making the caller wait longer than it can."""

    def flush(self) -> None:
        """Return once everything taken is on disk."""

    def close(self) -> None:
        """Return once everything taken is safe."""


def recording_of(env: gymnasium.Env) -> RecordingWrapper | None:
    """The env's, where it has one."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, RecordingWrapper):
            return env
        env = env.env
    return None


class RecordingWrapper(gymnasium.Wrapper):
    """Hands every finished episode to `sink`, but for those that the operator threw away.

    It must be the outermost wrapper: it records what comes of a step, the operator's verdict included. A step
    costs a copy of its frames; what is slow happens at the end of an episode, when nobody's clock runs.
    Frames are the env's own, before any encoder. The objects' positions are kept too where the env tells
    them beside the observation (`environment_state()`): they let an episode be replayed and drawn again.

    An episode that a classifier ended waits until nobody can say any more that it was no success: who does
    takes its reward and its end back here too.
    """

    STATE: ClassVar[tuple[str, ...]] = ("_seed", "_observation", "_steps")

    def __init__(self, env: gymnasium.Env, sink: Sink) -> None:
        super().__init__(env)
        self._sink = sink
        self._world = getattr(env.unwrapped, WORLD, None)
        self._seed: int | None = None
        self._observation: dict[str, NDArray[Any]] = {}
        self._steps: list[tuple[dict[str, NDArray[Any]], NDArray[np.float32], float, Mapping[str, Any]]] = []
        self._claimed: Episode | None = None  # a success by a classifier's word

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._seed, self._steps = seed, []  # an episode cut off by a reset is dropped
        self._observation = self._columns(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        executed = np.array(action, np.float32)
        observation, reward, terminated, truncated, info = self.env.step(action)
        if HELD_COMMANDS in info:
            executed = env_action(np.zeros(ACTION_DIM, np.float32))
        self._steps.append((self._observation, executed, float(reward), info))
        if APPEAL in info and self._claimed is not None:
            self._claimed.rewards[-1] = 0.0
            self._claimed.terminated, self._claimed.truncated = False, True
        if APPEAL in info or len(self._steps) >= APPEAL_STEPS:
            self._put_claimed()
        if terminated or truncated:
            self._put_claimed()
            if not info.get(RERECORD):
                self._claimed = self._episode(terminated, truncated)
                if not info.get(CLASSIFIED) or VERDICT in info:
                    self._put_claimed()
            self._steps = []
        self._observation = self._columns(observation)
        return observation, reward, terminated, truncated, info

    def flush(self) -> None:
        self._put_claimed()
        self._sink.flush()

    def close(self) -> None:
        self._put_claimed()
        self._sink.close()
        super().close()

    def _put_claimed(self) -> None:
        if self._claimed is not None:
            self._sink.put(self._claimed)
            self._claimed = None

    def _columns(self, observation: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """One observation by the names of `Episode.observations`, copied."""
        columns = {name: np.array(value) for name, value in observation.items() if name != PIXELS}
        if WORLD not in columns and self._world is not None:
            columns[WORLD] = np.array(self._world(), np.float32)
        for camera, frame in observation.get(PIXELS, {}).items():
            columns[f"{PIXELS}.{camera}"] = np.array(frame)
        return columns

    def _episode(self, terminated: bool, truncated: bool) -> Episode:
        observations, actions, rewards, infos = zip(*self._steps, strict=True)
        return Episode(
            seed=self._seed,
            observations={name: np.stack([obs[name] for obs in observations]) for name in observations[0]},
            actions=np.stack(actions),
            rewards=np.array(rewards, np.float32),
            penalties=np.array([info.get(DISCRETE_PENALTY, 0.0) for info in infos], np.float32),
            interventions=np.array([info.get(IS_INTERVENTION, 0.0) for info in infos], np.float32),
            successes=np.array([info.get(SUCCESS, False) for info in infos], np.bool_),
            terminated=terminated,
            truncated=truncated and not terminated,
        )
