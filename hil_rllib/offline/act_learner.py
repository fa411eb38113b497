"""RLlib's learner of behaviour cloning, with ACT's losses in place of -log π."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import POLICY_LOSS_KEY
from torch import Tensor

from hil_rllib.models.act import act_losses
from hil_rllib.offline.act_module import PADDED, PLAN, STYLE_LOG_VAR, STYLE_MEAN
from hil_rllib.offline.skipping_learner import BCLearner


class ACTLearner(BCLearner):
    """L1 of the chunk plus the style's KL divergence times `act.kl_weight`, by AdamW."""

    def configure_optimizers_for_module(self, module_id: str, config: AlgorithmConfig | None = None) -> None:
        assert config is not None
        parameters = self.get_parameters(self.module[module_id])
        optimizer = torch.optim.AdamW(parameters, weight_decay=config.hil.act.weight_decay)
        self.register_optimizer(
            module_id=module_id, optimizer=optimizer, params=parameters, lr_or_lr_schedule=config.lr
        )

    def compute_loss_for_module(
        self, *, module_id: str, config: Any = None, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        l1, kl = act_losses(
            fwd_out[PLAN], fwd_out[STYLE_MEAN], fwd_out[STYLE_LOG_VAR], batch[Columns.ACTIONS], batch[PADDED]
        )
        loss = l1 + config.hil.act.kl_weight * kl
        named = {POLICY_LOSS_KEY: loss, "l1_loss": l1, "kl_loss": kl}
        self.metrics.log_dict(named, key=module_id, window=1)
        return loss
