"""The classifier as an RLModule that RLlib's BC trains: its action is the label."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import Tensor

from hil_rllib.models.success import SuccessHead

PROBABILITY = "probability"


class RewardModule(TorchRLModule):
    """Features of both cameras → the label, 1 for success.

    Cloning a choice of two is classification: BC's −log π(label | frame) is the cross-entropy.
    model_config: the arguments of `SuccessHead`.
    """

    def setup(self) -> None:
        self.head = SuccessHead(**self.model_config)
        self.action_dist_cls = TorchCategorical

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        self.train()
        logit = self.head(batch[Columns.OBS]["features"])
        return {Columns.ACTION_DIST_INPUTS: torch.stack([torch.zeros_like(logit), logit], -1)}

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """The calibrated probability (B,) and the decision (B,)."""
        self.eval()
        probability = self.head.probability(batch[Columns.OBS]["features"])
        return {PROBABILITY: probability, Columns.ACTIONS: (probability >= self.head.threshold).long()}

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        return self._forward_inference(batch)
