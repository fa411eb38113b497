"""RLlib's Learner around the update of `sac/update.py`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.rl_module.apis import QNetAPI, TargetNetworkAPI
from ray.rllib.utils.metrics import MODULE_TRAIN_BATCH_SIZE_MEAN

from hil_rllib.data.replay import Nested, nested_map, rows_of
from hil_rllib.models.augment import random_shift
from hil_rllib.sac.skipping import NotFiniteError, SkippedUpdates
from hil_rllib.sac.update import clone_update, make_optimizers, update


class HILSACLearner(TorchLearner):
    """Takes blocks of UTD batches and makes one update of each, without the generic path around it.

    RLlib's own `Learner.update` spends about 10 ms a call on connectors, minibatch iterators and metrics;
    here a block is one call, its tensors share memory with the replay's, and only asked-for metrics are read.
    """

    def build(self) -> None:
        super().build()
        # RLlib's seeding asks torch for determinism, which by default also fills all memory it allocates:
        # 3 to 5 ms of an update. Nothing here reads what it has not written.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        self._hil = self.config.hil
        self.skips = SkippedUpdates(self._hil.sac.skip_limit, Path(self._hil.run.dir))
        self._policy = self.module[DEFAULT_MODULE_ID].unwrapped()
        self._policy.make_target_networks()
        self._optimizers = {
            name.removeprefix(f"{DEFAULT_MODULE_ID}_"): optimizer
            for name, optimizer in self._named_optimizers.items()
        }

    def configure_optimizers_for_module(self, module_id: str, config: AlgorithmConfig | None = None) -> None:
        for name, optimizer in make_optimizers(
            self.module[module_id].unwrapped(), self.config.hil.sac
        ).items():
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=optimizer,
                params=optimizer.param_groups[0]["params"],
                lr_or_lr_schedule=optimizer.param_groups[0]["lr"],
            )

    def update(
        self,
        *,
        training_data: TrainingData,
        n_demo: int,
        anchor: float = 1.0,
        train_actor: bool = True,
        cloning: bool = False,
        with_metrics: bool = True,
        **_: Any,
    ) -> dict[str, Any]:
        """Updates on a block of stacked batches, see `ReplayMix.sample`; the last one trains the actor.

        n_demo: demo rows each batch starts with. anchor: factor of the demo terms. cloning: behaviour
        cloning instead of SAC. Returns the last update's scalars under the module's id, if asked for.
        """
        self._check_is_built()
        cfg = self._hil.sac
        block = self._to_tensors(training_data.batch[DEFAULT_MODULE_ID])
        batches, scalars = len(block["rewards"]) // cfg.batch_size, {}
        self._policy.train()
        for target in self._policy.get_target_network_pairs():
            target[1].eval()
        for i in range(batches):
            batch = self._augmented(rows_of(block, i * cfg.batch_size, (i + 1) * cfg.batch_size))
            last = train_actor and i == batches - 1
            try:
                if cloning:
                    scalars = clone_update(self._policy, self._optimizers, batch, cfg)
                else:
                    scalars = update(
                        self._policy, self._optimizers, batch, cfg,
                        n_demo=n_demo, train_actor=last, anchor=anchor,
                    )  # fmt: skip
                self.skips.made()
            except NotFiniteError:
                self.skips.skipped(batch)
        self._weights_seq_no += 1
        if not with_metrics:
            return {}
        for name, value in scalars.items():
            if math.isfinite(scalar := value.item()):
                self.metrics.log_value((DEFAULT_MODULE_ID, name), scalar, window=1)
        self.metrics.log_value((DEFAULT_MODULE_ID, MODULE_TRAIN_BATCH_SIZE_MEAN), cfg.batch_size)
        return self.metrics.reduce()

    def set_state(self, state: dict[str, Any]) -> None:
        """Learning rates stay the configuration's: a sweep's trial may go on with others."""
        super().set_state(state)
        for name, optimizer in self._optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = getattr(self._hil.sac, f"{name}_lr")

    def acting_state(self) -> dict[str, Any]:
        """What runners and evaluations act with."""
        return self._policy.acting_state()

    def appraise(self, observations: Nested) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Value and disagreement (N,) of observations (N, …), see `HILSACModule.appraise`."""
        value, disagreement = self._policy.appraise(self._to_tensors(observations))
        return value.cpu().numpy(), disagreement.cpu().numpy()

    def _to_tensors(self, block: Nested) -> Nested:
        return nested_map(lambda x: torch.from_numpy(x).to(self._device, non_blocking=True), dict(block))

    def _augmented(self, batch: Nested) -> Nested:
        """DrQ shift of s and s' where frames, not cached features, are stored."""
        for obs in (batch["obs"], batch["new_obs"]):
            if "pixels" in obs:
                pad = self._hil.encoder.shift_pad
                obs["pixels"] = {
                    camera: random_shift(frames, pad) for camera, frames in obs["pixels"].items()
                }
        return batch

    def compute_loss_for_module(self, **_: Any) -> torch.Tensor:
        raise NotImplementedError("The losses are composed in hil_rllib/sac/update.py; call `update`.")

    @classmethod
    def rl_module_required_apis(cls) -> list[type]:
        return [QNetAPI, TargetNetworkAPI]
