"""`LeRobotOfflineData` whose batches are ready: frames encoded once, rows gathered from one ring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from hil_rllib.contract import MOTION_DIM
from hil_rllib.data.offline_input import LeRobotOfflineData
from hil_rllib.data.replay import Ring
from hil_rllib.models.augment import random_shift
from hil_rllib.sac.demos import demo_fragments
from hil_rllib.sac.losses import NO_OP

if TYPE_CHECKING:
    from hil_rllib.offline.config import OfflineConfig


class DemoBatches(LeRobotOfflineData):
    """Uniform batches of the demonstrations' transitions.

    The base class draws through RLlib's connectors, an episode slice a row: 20 to 30 ms a batch, beside an
    update of 40. Here a batch is one gather.
    """

    def __init__(self, config: OfflineConfig) -> None:
        super().__init__(config)
        self._hil = config.hil
        fragments = list(demo_fragments(self, config.hil))
        self.ring = Ring(sum(len(f) + 1 for f in fragments), config.observation_space)
        for fragment in fragments:
            self.ring.add(fragment)
        if config.hil.offline.leave_out_idle:
            starts = self.ring.is_start(np.arange(self.ring.rows_written))
            self.ring.restore(self.ring.rows_written, starts & ~idle(self.ring.steps[Columns.ACTIONS]))
        self.rng = np.random.default_rng(config.hil.run.seed)

    def gripper_counts(self) -> NDArray[np.int64]:
        """How often each choice of the gripper (3,) occurs among the transitions that are drawn."""
        drawn = self.ring.is_start(np.arange(self.ring.rows_written))
        choices = self.ring.steps[Columns.ACTIONS][drawn, MOTION_DIM].round().astype(np.int64) + 1
        return np.bincount(choices, minlength=3)

    def sample(
        self,
        num_samples: int,
        return_iterator: bool = False,
        num_shards: int = 0,
        module_state: dict[str, Any] | None = None,
    ) -> MultiAgentBatch:
        """`num_samples` transitions drawn with replacement, for one learner in this process."""
        if return_iterator or num_shards > 1:
            raise ValueError("DemoBatches feeds one local learner, a batch an update. Set num_learners=0.")
        batch = self.ring.empty_batch(num_samples)
        self.ring.sample(self.rng, batch)
        for name in (Columns.OBS, Columns.NEXT_OBS):
            if "pixels" in batch[name]:  # the encoder is trained: DrQ, as in SAC's learner
                pad = self._hil.encoder.shift_pad
                batch[name]["pixels"] = {
                    camera: random_shift(torch.from_numpy(frames), pad).numpy()
                    for camera, frames in batch[name]["pixels"].items()
                }
        return MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(batch)}, env_steps=num_samples)


def idle(actions: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the module-space actions (N, 4) neither move nor open nor close."""
    return (np.abs(actions[:, :MOTION_DIM]).max(-1) <= NO_OP) & (actions[:, MOTION_DIM] == 0)
