"""The policy, and with it SAC's value networks, as one RLModule.

The action is hybrid: continuous motion (3) by a tanh Gaussian, the gripper by a 3-way Q head whose
argmax is executed. `Columns.ACTIONS` is their concatenation in module space, gripper index minus one.

Observations carry either `features` (frozen encoder, run once per step in the runner) or `pixels`
(trainable encoder, run here); nothing else differs between the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, QNetAPI, TargetNetworkAPI
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import Tensor, nn

from hil_rllib.contract import AGENT_POS_DIM, MOTION_DIM, Gripper
from hil_rllib.models.encoder import load_encoder, with_features
from hil_rllib.models.heads import (
    BASE_ACTION,
    Critics,
    GaussianActor,
    ObservationHead,
    ResidualActor,
    base_action,
    gripper_head,
)

ACTING = ("encoder", "actor", "gripper")

T = TypeVar("T")


def acting_part(state: Mapping[str, T], acting: Iterable[str] = ACTING) -> dict[str, T]:
    """What acts, of the state of a whole module: the averaged weights under the networks' own names.

    From one update to the next the greedy success of the online weights can fall from 20 to 13 of 20 and
    rise again; that of their average over the last 1/τ updates, which the targets are, hardly moves.
    """
    prefixes = tuple(f"target_{name}." for name in acting)
    return {name.removeprefix("target_"): value for name, value in state.items() if name.startswith(prefixes)}


class TrunkAndHead(nn.Module):
    """Observation → latent (B, D); with a trainable trunk, frames go through it first."""

    def __init__(self, head: ObservationHead, trunk: nn.Module | None) -> None:
        super().__init__()
        self.head = head
        self.trunk = trunk
        self.out_dim = head.out_dim

    def forward(self, obs: dict[str, Any]) -> Tensor:
        return self.head(with_features(obs, self.trunk))


class AveragedModule(TorchRLModule):
    """A module whose acting weights are the exponential average of the trained ones."""

    acting: ClassVar[tuple[str, ...]]  # networks that act
    averaged: ClassVar[tuple[str, ...]]  # networks with a target: their exponential average

    def get_non_inference_attributes(self) -> list[str]:
        return [f"target_{name}" for name in self.averaged]

    def make_target_networks(self) -> None:
        for name in self.averaged:
            setattr(self, f"target_{name}", make_target_network(getattr(self, name)))

    def get_target_network_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(getattr(self, name), getattr(self, f"target_{name}")) for name in self.averaged]

    def acting_state(self) -> dict[str, NDArray[np.float32]]:
        """The state of the inference-only module that acts: a copy of the averaged weights."""
        part = acting_part(self.state_dict(), self.acting)
        return {name: value.cpu().numpy().copy() for name, value in part.items()}


class HybridPolicy(AveragedModule, InferenceOnlyAPI):
    """What acts, whatever algorithm trains it: observation head, motion actor, gripper head.

    model_config keys: latent_dim, embeddings_per_channel, dropout, hidden, and for a trainable encoder its
    `weights` and `seed`.
    """

    acting: ClassVar[tuple[str, ...]] = ACTING
    averaged: ClassVar[tuple[str, ...]] = ACTING

    def setup(self) -> None:
        cfg = self.model_config
        self.encoder = self.make_encoder()
        self.actor = GaussianActor(self.encoder.out_dim, cfg["hidden"], MOTION_DIM)
        self.gripper = gripper_head(self.encoder.out_dim, cfg["hidden"])

    def make_encoder(self) -> TrunkAndHead:
        """Observation → latent, for the observations of this module's space."""
        cfg = self.model_config
        spaces = self.observation_space.spaces
        trunk = load_encoder(cfg["weights"], seed=cfg["seed"]) if "pixels" in spaces else None
        head = ObservationHead(
            cameras="features" in spaces or "pixels" in spaces,
            state_dim=AGENT_POS_DIM + (3 if "environment_state" in spaces else 0),
            latent_dim=cfg["latent_dim"],
            per_channel=cfg["embeddings_per_channel"],
            dropout=cfg["dropout"],
            base=BASE_ACTION in spaces,
        )
        return TrunkAndHead(head, trunk)

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        return self._act(batch, explore=False)

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        return self._act(batch, explore=True)

    @torch.no_grad()
    def _act(self, batch: dict[str, Any], explore: bool) -> dict[str, Tensor]:
        self.eval()
        latent = self.encoder(batch[Columns.OBS])
        motion = self.actor.sample(latent)[0] if explore else self.actor.greedy(latent)
        choice = self.choose(latent) - int(Gripper.HOLD)
        return {Columns.ACTIONS: torch.cat([motion, choice.float()], -1)}

    def choose(self, latent: Tensor) -> Tensor:
        """The gripper's class index (B, 1)."""
        return self.gripper(latent).argmax(-1, keepdim=True)


class HILSACModule(HybridPolicy, TargetNetworkAPI, QNetAPI):
    """The policy with SAC's critics and temperature. Where it observes a base policy's action it corrects it.

    model_config: also num_critics, initial_temperature, residual_scale, residual_margin.
    """

    averaged = (*ACTING, "critics")

    def setup(self) -> None:
        super().setup()
        cfg = self.model_config
        self.residual = BASE_ACTION in self.observation_space.spaces
        if self.residual:
            self.actor = ResidualActor(self.encoder.out_dim, cfg["hidden"], MOTION_DIM, cfg["residual_scale"])
            for parameter in self.gripper[-1].parameters():
                nn.init.zeros_(parameter)
        if not self.inference_only:
            self.critics = Critics(cfg["num_critics"], self.encoder.out_dim + MOTION_DIM, cfg["hidden"])
            # A parameter of the module, so that checkpoints hold the temperature.
            self.log_alpha = nn.Parameter(torch.tensor(float(cfg["initial_temperature"])).log())

    def choose(self, latent: Tensor) -> Tensor:
        """Of a residual policy the base's choice, unless another one is worth more by the margin."""
        if not self.residual:
            return super().choose(latent)
        base = base_action(latent)[..., MOTION_DIM:].round().long() + int(Gripper.HOLD)
        lead = self.model_config["residual_margin"]
        q = self.gripper(latent)
        return q.scatter_add(-1, base, torch.full_like(q[..., :1], lead)).argmax(-1, keepdim=True)

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """Q-values (E, B) of the batch's actions and a fresh policy sample; RLlib's generic entry.

        The learner composes its losses from the parts directly (`sac/update.py`).
        """
        latent = self.encoder(batch[Columns.OBS])
        motion, log_prob = self.actor.sample(latent)
        q = self.critics(latent, batch[Columns.ACTIONS][:, :MOTION_DIM])
        return {"q": q, Columns.ACTIONS: motion, Columns.ACTION_LOGP: log_prob}

    def get_non_inference_attributes(self) -> list[str]:
        return ["critics", "log_alpha", *super().get_non_inference_attributes()]

    @torch.no_grad()
    def appraise(self, obs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B,) over the critics of the policy's own action's value."""
        self.eval()
        latent = self.encoder(obs)
        q = self.critics(latent, self.actor.greedy(latent))
        return q.mean(0), q.std(0, correction=0)

    def compute_q_values(self, batch: dict[str, Any]) -> Tensor:
        """Pessimistic value (B,) of the batch's motions."""
        latent = self.encoder(batch[Columns.OBS])
        return self.critics(latent, batch[Columns.ACTIONS][:, :MOTION_DIM]).min(0).values

    def forward_target(self, batch: dict[str, Any]) -> Tensor:
        """The same by the target networks."""
        latent = self.target_encoder(batch[Columns.OBS])
        return self.target_critics(latent, batch[Columns.ACTIONS][:, :MOTION_DIM]).min(0).values
