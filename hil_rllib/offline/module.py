"""The policy as RLlib's BC and IQL train it. Parameters of what acts are named as in `HILSACModule`."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.dqn.dqn_learner import QF_PREDS
from ray.rllib.algorithms.iql.iql_learner import QF_TARGET_PREDS, VF_PREDS_NEXT
from ray.rllib.algorithms.sac.sac_learner import QF_TWIN_PREDS
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import QNetAPI, TargetNetworkAPI, ValueFunctionAPI
from torch import Tensor, nn

from hil_rllib.contract import ACTION_DIM
from hil_rllib.models.heads import float_features, mlp
from hil_rllib.offline.distribution import CHOICES, HybridDistribution
from hil_rllib.sac.module import ACTING, HybridPolicy, TrunkAndHead

# Gripper logits are its Q-values over this: a choice that is twice as probable lies 0.035 above the next. So
# values keep the scale of SAC's, whose margin is 0.1, and SAC can go on from them.
GRIPPER_TEMPERATURE = 0.05  # ours
CRITICS = ("qf", "qf_encoder", "qf_twin", "qf_twin_encoder")  # of IQL, those with a target


class BCModule(HybridPolicy):
    """What acts, with a likelihood: RLlib's BC wants `ACTION_DIST_INPUTS` and a distribution of them."""

    gripper_log_prior: Tensor

    def setup(self) -> None:
        super().setup()
        if not self.inference_only:
            self.register_buffer("gripper_log_prior", torch.zeros(CHOICES))
        self.action_dist_cls = HybridDistribution

    def set_gripper_prior(self, counts: Tensor) -> None:
        """How often each choice occurs in the data (3,), which training then makes up for.

        A hand opens in 3 % of the steps: unbalanced, the head hardly learns to. With the log of the prior
        added to the logits in training and left out in acting, each choice counts the same.
        Source: logit adjustment (Menon 2021), eq. 10.
        """
        share = counts.float().clamp_min(1) / counts.sum()
        self.gripper_log_prior.copy_(share.log())

    def get_non_inference_attributes(self) -> list[str]:
        return ["gripper_log_prior", *super().get_non_inference_attributes()]

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        self.train()
        latent = self.encoder(float_features(batch[Columns.OBS]))
        mean, std = self.actor(latent)
        logits = self.gripper(latent) / GRIPPER_TEMPERATURE + self.gripper_log_prior
        return {Columns.ACTION_DIST_INPUTS: torch.cat([mean, std, logits], -1)}


class ValueNet(nn.Module):
    """latent (B, D), or latent and action, → (B,)."""

    def __init__(self, in_dim: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.net = nn.Sequential(mlp([in_dim, *hidden]), nn.Linear(hidden[-1], 1))

    def forward(self, *parts: Tensor) -> Tensor:
        return self.net(torch.cat(parts, -1)).squeeze(-1)


class IQLModule(BCModule, TargetNetworkAPI, QNetAPI, ValueFunctionAPI):
    """The parts RLlib's `IQLTorchLearner` optimises, by the names it looks for: pi, vf, qf, qf_twin, each
    with an observation head of its own. To Q the gripper is an action entry like the others; only the data's
    actions are ever rated."""

    averaged = (*ACTING, *CRITICS)

    def setup(self) -> None:
        super().setup()
        if self.inference_only:
            return
        hidden, wide = tuple(self.model_config["hidden"]), self.encoder.out_dim
        self.qf_encoder, self.qf_twin_encoder, self.vf_encoder = (self.make_encoder() for _ in range(3))
        self.qf, self.qf_twin = (ValueNet(wide + ACTION_DIM, hidden) for _ in range(2))
        self.vf = ValueNet(wide, hidden)

    @property
    def pi_encoder(self) -> TrunkAndHead:
        return self.encoder

    @property
    def pi(self) -> nn.ModuleList:
        return nn.ModuleList([self.actor, self.gripper])

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        out = super()._forward_train(batch)
        obs, actions = float_features(batch[Columns.OBS]), batch[Columns.ACTIONS]
        next_obs = float_features(batch[Columns.NEXT_OBS])
        targets = (
            self.target_qf(self.target_qf_encoder(obs), actions),
            self.target_qf_twin(self.target_qf_twin_encoder(obs), actions),
        )
        return out | {
            QF_PREDS: self.qf(self.qf_encoder(obs), actions),
            QF_TWIN_PREDS: self.qf_twin(self.qf_twin_encoder(obs), actions),
            QF_TARGET_PREDS: torch.minimum(*targets),
            Columns.VF_PREDS: self.vf(self.vf_encoder(obs)),
            VF_PREDS_NEXT: self.vf(self.vf_encoder(next_obs)),
        }

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        return self.vf(self.vf_encoder(batch[Columns.OBS]))

    def compute_q_values(self, batch: dict[str, Any]) -> Tensor:
        """The lower of both networks' values (B,)."""
        obs, actions = batch[Columns.OBS], batch[Columns.ACTIONS]
        twin = self.qf_twin(self.qf_twin_encoder(obs), actions)
        return torch.minimum(self.qf(self.qf_encoder(obs), actions), twin)

    def forward_target(self, batch: dict[str, Any]) -> Tensor:
        obs, actions = batch[Columns.OBS], batch[Columns.ACTIONS]
        twin = self.target_qf_twin(self.target_qf_twin_encoder(obs), actions)
        return torch.minimum(self.target_qf(self.target_qf_encoder(obs), actions), twin)

    def get_target_network_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Those that RLlib averages, at `iql.tau`; what acts is averaged with every algorithm alike."""
        return [(getattr(self, name), getattr(self, f"target_{name}")) for name in CRITICS]

    def get_non_inference_attributes(self) -> list[str]:
        return [*super().get_non_inference_attributes(), *CRITICS, "vf", "vf_encoder"]
