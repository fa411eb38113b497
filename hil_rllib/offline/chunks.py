"""Chunks of demonstrations, as ACT learns them: an observation, and what was done from there on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from hil_rllib.contract import AGENT_POS, GRIPPER_CLOSED, MOTION_DIM
from hil_rllib.data.replay import take
from hil_rllib.offline.act_module import PADDED
from hil_rllib.offline.data import DemoBatches
from hil_rllib.sac.losses import NO_OP


class ChunkBatches(DemoBatches):
    """Uniform batches of observations, each with its chunk: obs, actions (B, K, 4), padded (B, K).

    A chunk is what was done from that observation on; past the end of its stretch it is zero and padded. Its
    gripper entries say where the hand is after the step, as `ACTModule` wants it.

    Steps in which the person did nothing (`offline.leave_out_idle`) are passed over, not only left out as
    first steps: within a chunk they would teach to stand still just the same. Nothing moved in them, so what
    is before and after them fits together.
    """

    @property
    def size(self) -> int:
        return len(self._rows)

    def indexed(self) -> None:
        written = self.ring.rows_written
        starts = self.ring.is_start(np.arange(written))
        actions = self.ring.steps[Columns.ACTIONS][:written]
        closed = self.ring.obs["agent_pos"][:written, AGENT_POS["gripper"]][:, 0] > GRIPPER_CLOSED / 2
        self._rows, self._actions = to_learn(actions, closed, starts, self.hil.offline.leave_out_idle)
        self._ends = ends_of_stretches(self._rows, starts)

    def sample(
        self,
        num_samples: int,
        return_iterator: bool = False,
        num_shards: int = 0,
        module_state: dict[str, Any] | None = None,
    ) -> MultiAgentBatch:
        """`num_samples` observations drawn with replacement, with their chunks."""
        self.check_local(return_iterator, num_shards)
        drawn = self.rng.integers(0, self.size, num_samples)
        obs = self.ring.empty_batch(num_samples)[Columns.OBS]
        take(self.ring.obs, self._rows[drawn], obs)
        actions, padded = chunks(self._actions, drawn, self._ends[drawn], self.hil.act.chunk)
        batch = {Columns.OBS: self.shifted(obs), Columns.ACTIONS: actions, PADDED: padded}
        return MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(batch)}, env_steps=num_samples)


def to_learn(
    actions: NDArray[np.float32], closed: NDArray[np.bool_], starts: NDArray[np.bool_], leave_out_idle: bool
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Which of a ring's rows (N,) are learned, (M,), and what was done there, (M, 4).

    actions: (N, 4) as executed; closed: what the hand was told when the row was observed; starts: whether the
    row begins a step. The gripper entry becomes 1 where the hand is told to be closed after the step, else
    -1. Steps that neither move the arm nor change what the hand is told can be left out.
    """
    after = np.append(closed[1:], False)
    kept = starts
    if leave_out_idle:
        kept = starts & ((np.abs(actions[:, :MOTION_DIM]).max(-1) > NO_OP) | (after != closed))
    rows = np.flatnonzero(kept)
    done = actions[rows]
    done[:, MOTION_DIM] = np.where(after[rows], 1, -1)
    return rows, done


def ends_of_stretches(rows: NDArray[np.int64], starts: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each learned row, (M,), where among them its stretch ends. A row that begins no step divides."""
    stretch = np.cumsum(~starts)[rows]
    return np.searchsorted(stretch, stretch, side="right")


def chunks(
    actions: NDArray[np.float32], first: NDArray[np.int64], ends: NDArray[np.int64], length: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The actions (M, A) from each of `first` (B,) on: (B, K, A), and which are past its end, (B, K)."""
    index = first[:, None] + np.arange(length)
    padded = index >= ends[:, None]
    chosen = actions[np.where(padded, 0, index)]
    chosen[padded] = 0
    return chosen, padded
