"""The hybrid action as an RLlib distribution: what `-log π` means for it, in BC's and IQL's own losses."""

from __future__ import annotations

from typing import Any, Self

import torch
from ray.rllib.core.distribution.torch.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal

from hil_rllib.contract import MOTION_DIM, Gripper

# Of tanh(mean): below, a likelihood is all precision and no longer about which action; above, about nothing.
MIN_STD, MAX_STD = 0.1, 1.0  # ours
CHOICES = len(Gripper)


class HybridDistribution(TorchDistribution):
    """Motion (3) normal around tanh(mean), as IQL's policy is, and the gripper's choice categorical.

    Built from (B, 9): mean (3) and standard deviation (3) as `GaussianActor` gives them, gripper logits (3).
    Actions (B, 4) are in module space, the gripper's index minus one. What is not finite is no error here:
    the learner counts it, see `SkippingLearner`.
    """

    def __init__(self, mean: Tensor, std: Tensor, logits: Tensor) -> None:
        super().__init__(mean, std, logits)
        self.choice = Categorical(logits=logits, validate_args=False)

    def _get_torch_distribution(self, mean: Tensor, std: Tensor, logits: Tensor) -> Distribution:
        motion = Normal(torch.tanh(mean), std.clamp(MIN_STD, MAX_STD), validate_args=False)
        return Independent(motion, 1, validate_args=False)

    @classmethod
    def from_logits(cls, logits: Tensor, **_: Any) -> Self:
        return cls(*logits.split([MOTION_DIM, MOTION_DIM, CHOICES], -1))

    @staticmethod
    def required_input_dim(space: Any, **_: Any) -> int:
        return 2 * MOTION_DIM + CHOICES

    def logp(self, value: Tensor, **_: Any) -> Tensor:
        """Log-density (B,) of the motion plus log-probability of the choice."""
        choice = value[..., MOTION_DIM]
        index = choice.nan_to_num(0.0, 0.0, 0.0).round().long() + int(Gripper.HOLD)
        motion = self._dist.log_prob(value[..., :MOTION_DIM])
        return motion + self.choice.log_prob(index) + 0.0 * choice  # NaN stays NaN

    def entropy(self) -> Tensor:
        return self._dist.entropy() + self.choice.entropy()

    def sample(self, *, sample_shape: Any = None, **_: Any) -> Tensor:
        shape = torch.Size() if sample_shape is None else torch.Size(sample_shape)
        choice = self.choice.sample(shape) - int(Gripper.HOLD)
        return torch.cat([self._dist.sample(shape), choice[..., None].to(self._dist.mean.dtype)], -1)
