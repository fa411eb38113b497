"""Replay: contiguous preallocated rings, and batches mixed from two of them.

Every observation is stored once: row t + 1 holds the next observation of row t. A row that only ends
an episode or a fragment starts no transition; `starts` lists the rows that do, oldest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from hil_rllib.contract import ACTION_DIM, DISCRETE_PENALTY, HELD_COMMANDS, IS_INTERVENTION

Nested = Any  # array or dict of Nested
STEP_COLUMNS: dict[str, tuple[tuple[int, ...], type]] = {
    Columns.ACTIONS: ((ACTION_DIM,), np.float32),  # module space
    Columns.REWARDS: ((), np.float32),
    DISCRETE_PENALTY: ((), np.float32),
    Columns.TERMINATEDS: ((), np.bool_),
    IS_INTERVENTION: ((), np.float32),
}


@dataclass(frozen=True)
class Fragment:
    """A stretch of one episode: L steps, L + 1 observations.

    obs: nested dict of (L + 1, …); steps: the columns of `STEP_COLUMNS`, each (L, …).
    episode_id, first_step: where in which episode it begins.
    """

    episode_id: str
    first_step: int
    obs: Nested
    steps: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.steps[Columns.REWARDS])

    @classmethod
    def from_episode(cls, episode: SingleAgentEpisode) -> Fragment:
        """Columns of an RLlib episode (fragment). Missing flags or penalties count as zero."""
        length = len(episode)
        infos = episode.get_infos()[1:]
        steps = {
            Columns.ACTIONS: np.asarray(episode.get_actions(), np.float32).reshape(length, ACTION_DIM),
            Columns.REWARDS: np.asarray(episode.get_rewards(), np.float32),
            DISCRETE_PENALTY: np.array([info.get(DISCRETE_PENALTY, 0.0) for info in infos], np.float32),
            Columns.TERMINATEDS: np.zeros(length, np.bool_),
            IS_INTERVENTION: np.zeros(length, np.float32),
        }
        if length and episode.is_terminated:
            steps[Columns.TERMINATEDS][-1] = True
        held = [HELD_COMMANDS in info for info in infos]
        if any(held):  # what was executed, in module space
            steps[Columns.ACTIONS] = np.where(
                np.array(held)[:, None], np.float32(0.0), steps[Columns.ACTIONS]
            )
        if IS_INTERVENTION in episode.extra_model_outputs:
            flags = episode.get_extra_model_outputs(IS_INTERVENTION)
            steps[IS_INTERVENTION] = np.asarray(flags, np.float32).reshape(length)
        return cls(str(episode.id_), int(episode.t_started), stacked(episode.get_observations()), steps)

    def interventions(self) -> list[Fragment]:
        """The maximal stretches in which a person acted."""
        flags = np.concatenate([[0.0], self.steps[IS_INTERVENTION] > 0, [0.0]])
        edges = np.flatnonzero(np.diff(flags))
        return [self[start:stop] for start, stop in zip(edges[::2], edges[1::2], strict=True)]

    def __getitem__(self, part: slice) -> Fragment:
        start, stop, _ = part.indices(len(self))
        return Fragment(
            self.episode_id,
            self.first_step + start,
            nested_map(lambda x: x[start : stop + 1], self.obs),
            {name: column[start:stop] for name, column in self.steps.items()},
        )


class Ring:
    """First-in-first-out store of `capacity` rows, preallocated; memory is touched only as rows fill.

    observation_space: what the learner sees of a step (features, not frames, with a frozen encoder).
    """

    def __init__(self, capacity: int, observation_space: gym.Space) -> None:
        self.capacity = capacity
        self.obs: Nested = allocate(observation_space, capacity)
        self.steps: dict[str, NDArray[Any]] = {
            name: np.zeros((capacity, *shape), dtype) for name, (shape, dtype) in STEP_COLUMNS.items()
        }
        self.rows_written = 0  # in its lifetime; the next row goes to rows_written % capacity
        self._starts = np.zeros(capacity, np.int64)  # circular queue of lifetime row numbers
        self._head, self._count = 0, 0
        self._open: tuple[str, int] | None = None  # episode and step whose observation the last row holds

    def __len__(self) -> int:
        """How many transitions can be sampled."""
        return self._count

    def add(self, fragment: Fragment) -> None:
        """Append; a fragment that continues the last one shares the observation between them."""
        length = len(fragment)
        if not length:
            return
        if length + 1 > self.capacity:
            raise ValueError(f"A fragment of {length} steps does not fit a ring of {self.capacity} rows.")
        if self._open == (fragment.episode_id, fragment.first_step):
            self.rows_written -= 1
        first = self.rows_written
        self._write(self.obs, fragment.obs, first)
        self._write(self.steps, fragment.steps, first)
        self.rows_written = first + length + 1
        self._open = (fragment.episode_id, fragment.first_step + length)

        oldest = self.rows_written - self.capacity
        while self._count and self._starts[self._head] < oldest:
            self._head = (self._head + 1) % self.capacity
            self._count -= 1
        self._starts[(self._head + self._count + np.arange(length)) % self.capacity] = first + np.arange(
            length
        )
        self._count += length

    def withdraw(self, row: int) -> None:
        """Take back reward and end of the lifetime row, if it is still here: its episode was only cut off."""
        if row >= self.rows_written - self.capacity:
            self.steps[Columns.REWARDS][row % self.capacity] = 0.0
            self.steps[Columns.TERMINATEDS][row % self.capacity] = False

    def sample(self, rng: np.random.Generator, out: Nested) -> None:
        """Fill `out`, a batch as `empty_batch` makes it (or views of its rows), with uniform transitions."""
        count = len(out[Columns.REWARDS])
        picks = (self._head + rng.integers(0, self._count, count)) % self.capacity
        rows = self._starts[picks] % self.capacity
        take(self.obs, rows, out[Columns.OBS])
        take(self.obs, (rows + 1) % self.capacity, out[Columns.NEXT_OBS])
        take(self.steps, rows, {name: out[name] for name in STEP_COLUMNS})

    def empty_batch(self, size: int) -> dict[str, Nested]:
        """An uninitialised batch of `size` transitions in this ring's layout."""

        def like(column: NDArray[Any]) -> NDArray[Any]:
            return np.empty((size, *column.shape[1:]), column.dtype)

        batch = {Columns.OBS: nested_map(like, self.obs), Columns.NEXT_OBS: nested_map(like, self.obs)}
        return batch | nested_map(like, self.steps)

    def is_start(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of the lifetime rows begins a transition."""
        queue = self._starts[(self._head + np.arange(self._count)) % self.capacity]
        return np.isin(rows, queue, assume_unique=True)

    def restore(self, rows_written: int, is_start: NDArray[np.bool_]) -> None:
        """Take over columns that were filled from outside. is_start: (capacity,), by position in the ring."""
        lifetime = np.arange(max(0, rows_written - self.capacity), rows_written)
        starts = lifetime[is_start[lifetime % self.capacity]]
        self.rows_written, self._head, self._count = rows_written, 0, len(starts)
        self._starts[: len(starts)] = starts
        self._open = None

    def clear(self) -> None:
        """Forget everything."""
        self.rows_written = self._head = self._count = 0
        self._open = None

    def _write(self, columns: Nested, values: Nested, first: int) -> None:
        for name, column in columns.items():
            if isinstance(column, dict):
                self._write(column, values[name], first)
                continue
            start, length = first % self.capacity, len(values[name])
            until_end = min(length, self.capacity - start)
            column[start : start + until_end] = values[name][:until_end]
            column[: length - until_end] = values[name][until_end:]


class ReplayMix:
    """Blocks of batches, each batch `demo_fraction` demonstrations (first rows) and the rest own experience.

    While one ring is empty the other gives all rows. Source: RLPD (Ball 2023), symmetric sampling.
    """

    def __init__(self, online: Ring, demo: Ring, batch_size: int, demo_fraction: float, seed: int) -> None:
        self.online, self.demo = online, demo
        self.batch_size, self.demo_fraction = batch_size, demo_fraction
        self.rng = np.random.default_rng(seed)
        self._block: dict[str, Nested] = {}

    def sample(self, batches: int, *, demo_only: bool = False) -> tuple[dict[str, Nested], int]:
        """`batches` batches stacked in rows, and how many demo rows each starts with.

        The arrays are reused by the next call: fresh pages would cost as much as the gather.
        """
        size = self.batch_size
        if len(self._block.get(Columns.REWARDS, ())) != batches * size:
            self._block = self.demo.empty_batch(batches * size)
        n_demo = size if demo_only or not len(self.online) else round(size * self.demo_fraction)
        n_demo = n_demo if len(self.demo) else 0
        for start in range(0, batches * size, size):
            for ring, first, last in ((self.demo, 0, n_demo), (self.online, n_demo, size)):
                if last > first:
                    ring.sample(self.rng, rows_of(self._block, start + first, start + last))
        return self._block, n_demo


def rows_of(batch: Nested, first: int, last: int) -> Nested:
    """Views of rows first … last - 1."""
    return nested_map(lambda x: x[first:last], batch)


def allocate(space: gym.Space, rows: int) -> Nested:
    """Zeroed arrays (rows, …) in the layout of a Dict or Box space."""
    if isinstance(space, gym.spaces.Dict):
        return {name: allocate(part, rows) for name, part in space.spaces.items()}
    return np.zeros((rows, *(space.shape or ())), space.dtype)


def stacked(observations: Nested) -> Nested:
    """RLlib gives observations as a list of dicts or as a dict of arrays; this gives the latter."""
    if isinstance(observations, list):
        first = observations[0]
        if isinstance(first, Mapping):
            return {name: stacked([obs[name] for obs in observations]) for name in first}
        return np.stack(observations)
    return observations


def nested_map(f: Any, x: Nested) -> Nested:
    return {name: nested_map(f, part) for name, part in x.items()} if isinstance(x, dict) else f(x)


def flat(columns: Nested, prefix: str = "") -> dict[str, Any]:
    """Arrays (or tensors) of a nested dict by their path, such as `obs/pixels/front`."""
    arrays: dict[str, Any] = {}
    for name, column in columns.items():
        key = f"{prefix}{name}"
        arrays |= flat(column, f"{key}/") if isinstance(column, dict) else {key: column}
    return arrays


def unflattened(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Nested]:
    """The inverse of `flat`."""
    columns: dict[str, Nested] = {}
    for key, column in arrays.items():
        *path, name = key.split("/")
        inner = columns
        for part in path:
            inner = inner.setdefault(part, {})
        inner[name] = column
    return columns


def take(source: Nested, rows: NDArray[np.int64], out: Nested) -> None:
    """out[i] = source[rows[i]] for every array; by torch, which uses all of the learner's threads."""
    for name, column in source.items():
        if isinstance(column, dict):
            take(column, rows, out[name])
        else:
            index, target = torch.from_numpy(rows), torch.from_numpy(out[name])
            torch.index_select(torch.from_numpy(column), 0, index, out=target)
