"""RLlib's offline learners, but an update whose losses or gradients are not finite is skipped and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ray.rllib.algorithms.iql.torch.iql_torch_learner import IQLTorchLearner
from ray.rllib.algorithms.marwil.torch.marwil_torch_learner import MARWILTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor

from hil_rllib.sac.skipping import NotFiniteError, SkippedUpdates


class SkippingLearner(TorchLearner):
    """To stand before a learner of RLlib's in a class's bases; the rule is SAC's.

    RLlib alone would set gradients that are NaN to zero, infinite ones to the largest number, and step.
    """

    def build(self) -> None:
        super().build()
        hil = self.config.hil
        self.skips = SkippedUpdates(hil.sac.skip_limit, Path(hil.run.dir))

    def _uncompiled_update(self, batch: dict[str, Any], **kwargs: Any) -> tuple[Any, Any, Any]:
        try:
            result = super()._uncompiled_update(batch, **kwargs)
        except NotFiniteError:
            self.skips.skipped(batch[DEFAULT_MODULE_ID])
            return None, {}, {}  # no loss to log
        self.skips.made()
        return result

    def compute_gradients(self, loss_per_module: dict[str, Tensor], **kwargs: Any) -> dict[Any, Tensor]:
        """Raises NotFiniteError, before anything was changed."""
        gradients = super().compute_gradients(loss_per_module, **kwargs)
        norms = torch._foreach_norm([gradient for gradient in gradients.values() if gradient is not None])
        if not torch.stack([*(loss.detach() for loss in loss_per_module.values()), *norms]).isfinite().all():
            raise NotFiniteError
        return gradients

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        if not self.skips.in_row:  # target networks stay too
            super().after_gradient_based_update(timesteps=timesteps)


class BCLearner(SkippingLearner, MARWILTorchLearner):
    """RLlib's learner of behaviour cloning."""


class IQLLearner(SkippingLearner, IQLTorchLearner):
    """RLlib's learner of implicit Q-learning."""
