"""Chunks of demonstrations, as ACT learns them: an observation, and what was done from there on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from hil_rllib.contract import AGENT_POS, GRIPPER_CLOSED, MOTION_DIM
from hil_rllib.data.replay import Fragment, nested_map, take
from hil_rllib.offline.act_module import PADDED
from hil_rllib.offline.data import DemoBatches
from hil_rllib.sac.losses import NO_OP


class ChunkBatches(DemoBatches):
    """Uniform batches of observations, each with its chunk: obs, actions (B, K, 4), padded (B, K).

    A chunk is what was done from that observation on; past the end of the fragment it is zero and padded. Its
    gripper entries say where the hand is after the step, as `ACTModule` wants it.

    Steps in which the person did nothing (`offline.leave_out_idle`) are cut out of the fragment, not only
    left out as first steps: within a chunk they would teach to stand still just the same. Nothing moved in
    them, so what is before and after them fits together.
    """

    def prepared(self, fragment: Fragment) -> Fragment:
        fragment = with_hand(fragment)
        return without_idle(fragment) if self.hil.offline.leave_out_idle else fragment

    def indexed(self) -> None:
        starts = self.ring.is_start(np.arange(self.ring.rows_written))
        self._starts = np.flatnonzero(starts)
        self._ends = end_of_run(starts)

    def sample(
        self,
        num_samples: int,
        return_iterator: bool = False,
        num_shards: int = 0,
        module_state: dict[str, Any] | None = None,
    ) -> MultiAgentBatch:
        """`num_samples` observations drawn with replacement, with their chunks."""
        self.check_local(return_iterator, num_shards)
        rows = self.rng.choice(self._starts, num_samples)
        obs = self.ring.empty_batch(num_samples)[Columns.OBS]
        take(self.ring.obs, rows, obs)
        actions, padded = chunks(self.ring.steps[Columns.ACTIONS], rows, self._ends[rows], self.hil.act.chunk)
        batch = {Columns.OBS: self.shifted(obs), Columns.ACTIONS: actions, PADDED: padded}
        return MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(batch)}, env_steps=num_samples)


def chunks(
    actions: NDArray[np.float32], rows: NDArray[np.int64], ends: NDArray[np.int64], length: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The actions (N, A) from each of the rows (B,) on: (B, K, A), and which are past its end, (B, K)."""
    index = rows[:, None] + np.arange(length)
    padded = index >= ends[:, None]
    chosen = actions[np.where(padded, 0, index)]
    chosen[padded] = 0
    return chosen, padded


def end_of_run(starts: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each row (N,) the next one that begins no transition, where its fragment ends; at most N."""
    ends = np.append(np.flatnonzero(~starts), len(starts))
    return ends[np.searchsorted(ends, np.arange(len(starts)))]


def with_hand(fragment: Fragment) -> Fragment:
    """The fragment, its actions' gripper entries 1 where the hand is to be closed after the step, else -1."""
    actions = fragment.steps[Columns.ACTIONS].copy()
    actions[:, MOTION_DIM] = np.where(_closed(fragment)[1:], 1, -1)
    return replace(fragment, steps=fragment.steps | {Columns.ACTIONS: actions})


def without_idle(fragment: Fragment) -> Fragment:
    """The fragment (with hand) without steps that neither move the arm nor change what the hand is told."""
    actions, closed = fragment.steps[Columns.ACTIONS], _closed(fragment)
    kept = (np.abs(actions[:, :MOTION_DIM]).max(-1) > NO_OP) | (closed[1:] != closed[:-1])
    rows = np.append(np.flatnonzero(kept), len(fragment))  # and the last observation
    return replace(
        fragment,
        obs=nested_map(lambda x: x[rows], fragment.obs),
        steps={name: column[kept] for name, column in fragment.steps.items()},
    )


def _closed(fragment: Fragment) -> NDArray[np.bool_]:
    """Whether the hand is told to be closed, at each of the L + 1 observations."""
    return fragment.obs["agent_pos"][:, AGENT_POS["gripper"]][:, 0] > GRIPPER_CLOSED / 2
