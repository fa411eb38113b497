"""`LeRobotOfflineData` whose batches are ready: frames encoded once, rows gathered from one ring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from hil_rllib.contract import IS_INTERVENTION, MOTION_DIM
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.offline_input import LeRobotOfflineData
from hil_rllib.data.replay import Fragment, Nested, Ring
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
        self.hil = config.hil
        self.rng = np.random.default_rng(config.hil.run.seed)
        demonstrations = self._held()
        rows = sum(len(episode) + 1 for episode in demonstrations)
        if config.clones and not any(
            np.any(episode.get_extra_model_outputs(IS_INTERVENTION)) for episode in demonstrations
        ):
            raise DatasetError(
                self.demos.source,
                "no step of it is a person's, so there is nothing to clone.",
                "Name demonstrations that a person gave, or learn from these by run.algorithm=sac or iql.",
            )
        self.ring = Ring(rows + config.rows_to_come, config.observation_space)

    @property
    def size(self) -> int:
        """How many transitions are drawn from."""
        return len(self.ring)

    def fill(self) -> None:
        """Put the demonstrations into the ring."""
        for fragment in self.fragments():
            self.ring.add(fragment)
        self.indexed()

    def fragments(self) -> Iterator[Fragment]:
        """What is learned of the demonstrations, once, as the ring holds it."""
        for demonstration in demo_fragments(self, self.hil):
            if not self.config.clones:
                yield demonstration
            elif self.hil.offline.leave_out_idle:  # those that `by_hand` adds are not drawn
                yield from by_hand(demonstration)
            else:
                yield from demonstration.interventions()

    def indexed(self) -> None:
        """Settle what of the ring is drawn, whenever something was added."""
        if self.hil.offline.leave_out_idle:
            starts = self.ring.is_start(np.arange(self.ring.rows_written))
            written = self.ring.steps[Columns.ACTIONS][: self.ring.rows_written]
            self.ring.restore(self.ring.rows_written, starts & ~idle(written))

    def gripper_counts(self) -> NDArray[np.int64]:
        """How often each choice of the gripper (3,) occurs among the transitions that are drawn."""
        drawn = self.ring.is_start(np.arange(self.ring.rows_written))
        choices = self.ring.steps[Columns.ACTIONS][: len(drawn), MOTION_DIM][drawn].round() + 1
        return np.bincount(choices.astype(np.int64), minlength=3)

    def sample(
        self,
        num_samples: int,
        return_iterator: bool = False,
        num_shards: int = 0,
        module_state: dict[str, Any] | None = None,
    ) -> MultiAgentBatch:
        """`num_samples` transitions drawn with replacement, for one learner in this process."""
        self.check_local(return_iterator, num_shards)
        batch = self.ring.empty_batch(num_samples)
        self.ring.sample(self.rng, batch)
        for name in (Columns.OBS, Columns.NEXT_OBS):
            batch[name] = self.shifted(batch[name])
        return MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(batch)}, env_steps=num_samples)

    @staticmethod
    def check_local(return_iterator: bool, num_shards: int) -> None:
        if return_iterator or num_shards > 1:
            raise ValueError("DemoBatches feeds one local learner, a batch an update. Set num_learners=0.")

    def shifted(self, obs: Nested) -> Nested:
        """Frames, which are there where the encoder is trained, by DrQ's shift, as in SAC's learner."""
        if "pixels" not in obs:
            return obs
        pad = self.hil.encoder.shift_pad
        frames = {
            camera: random_shift(torch.from_numpy(frames), pad).numpy()
            for camera, frames in obs["pixels"].items()
        }
        return {**obs, "pixels": frames}


def by_hand(demonstration: Fragment) -> list[Fragment]:
    """The stretches that a person gave. A pause ends none: between two keys nobody is in charge, and nothing
    is done that another could have done.
    """
    flags = (demonstration.steps[IS_INTERVENTION] > 0) | idle(demonstration.steps[Columns.ACTIONS])
    steps = {**demonstration.steps, IS_INTERVENTION: flags.astype(np.float32)}
    return replace(demonstration, steps=steps).interventions()


def idle(actions: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the module-space actions (N, 4) neither move nor open nor close."""
    return (np.abs(actions[:, :MOTION_DIM]).max(-1) <= NO_OP) & (actions[:, MOTION_DIM] == 0)
