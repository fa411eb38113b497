"""Trainable network parts: what sits between an observation and the SAC heads.

Layout and sizes follow LeRobot's SAC policy and HIL-SERL (see each class); B is the batch size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hil_rllib.contract import ACTION_DIM, AGENT_POS, AGENT_POS_DIM, CAMERAS, GRIPPER_CLOSED

Observation = Mapping[str, Any]  # tensors by name, the cameras' one level down
FEATURE_SHAPE = (512, 4, 4)  # ResNet10's map for a 128×128 frame
BASE_ACTION = "base_action"  # observation: what a base policy would do, (4,) in module space
RESIDUAL_STD = 0.2  # of a residual policy's correction at first, before squash and scale; ours


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear → LayerNorm → SiLU per hidden layer, no output layer. Source: LeRobot `MLP`, SERL."""
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.LayerNorm(n_out), nn.SiLU()]
    return nn.Sequential(*layers)


class CameraHead(nn.Module):
    """One camera's feature map (B, 512, 4, 4) → latent (B, latent_dim) in (-1, 1).

    Spatial learned embeddings (per channel, K weighted sums over space), dropout, linear, LayerNorm, tanh.
    Source: HIL-SERL `SpatialLearnedEmbeddings`, K = 8; LeRobot's SAC encoder.

    Nothing between the two linear maps depends on the observation, as dropout draws one mask a batch, not one
    a row: so their product meets the batch, and an update takes a quarter less time on a CPU.
    """

    def __init__(self, latent_dim: int, per_channel: int, dropout: float) -> None:
        super().__init__()
        channels, height, width = FEATURE_SHAPE
        self.kernel = nn.Parameter(torch.empty(channels, height * width, per_channel))
        nn.init.normal_(self.kernel, std=1 / math.sqrt(height * width))  # LeCun, as in SERL's JAX code
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels * per_channel, latent_dim)
        self.squash = nn.Sequential(nn.LayerNorm(latent_dim), nn.Tanh())

    def forward(self, features: Tensor) -> Tensor:
        flat = features.flatten(1).to(self.linear.weight.dtype)
        return self.squash(torch.addmm(self.linear.bias, flat, self.matrix()))

    def matrix(self) -> Tensor:
        """Embeddings, dropout and linear layer in one: (C·H·W, latent_dim)."""
        channels, _, per_channel = self.kernel.shape
        kept = self.dropout(self.kernel.new_ones(channels, 1, per_channel))
        weight = self.linear.weight.view(-1, channels, per_channel)  # (latent_dim, C, K)
        return torch.bmm(self.kernel * kept, weight.permute(1, 2, 0)).flatten(0, 1)


# Affine scaling of the state to about [-1, 1]: (value - centre) / scale. Joint ranges are the Panda's,
# positions those of the pick-cube workspace (envs/pick_cube.py); outside it the values just exceed 1.
_CENTRE = torch.zeros(AGENT_POS_DIM + 3)
_SCALE = torch.ones(AGENT_POS_DIM + 3)
_SCALE[AGENT_POS["joint_pos"]] = 2.9  # [rad]
_CENTRE[AGENT_POS["gripper"]] = _SCALE[AGENT_POS["gripper"]] = GRIPPER_CLOSED / 2
for _position in (AGENT_POS["tcp_pos"], slice(AGENT_POS_DIM, AGENT_POS_DIM + 3)):
    _CENTRE[_position] = torch.tensor([0.4, 0.0, 0.15])  # [m]
    _SCALE[_position] = torch.tensor([0.2, 0.2, 0.15])  # [m]


class StateScaling(nn.Module):
    """The first `dim` entries of agent_pos and environment_state to about [-1, 1] each."""

    centre: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("centre", _CENTRE[:dim].clone(), persistent=False)
        self.register_buffer("scale", _SCALE[:dim].clone(), persistent=False)

    def forward(self, state: Tensor) -> Tensor:
        return (state - self.centre) / self.scale


class StateHead(nn.Module):
    """agent_pos (B, 18), with environment_state (B, 3) appended where there is one → latent.

    Linear → LayerNorm → tanh as in LeRobot, beside the scaled state itself: through the squashed
    latent alone millimetres are hard to tell.
    """

    def __init__(self, dim: int, latent_dim: int) -> None:
        super().__init__()
        self.scaling = StateScaling(dim)
        self.net = nn.Sequential(nn.Linear(dim, latent_dim), nn.LayerNorm(latent_dim), nn.Tanh())
        self.out_dim = latent_dim + dim

    def forward(self, state: Tensor) -> Tensor:
        state = self.scaling(state)
        return torch.cat([self.net(state), state], -1)


def float_features(obs: Observation) -> Observation:
    """The same observation, cached features (stored in half precision) as float32."""
    if "features" not in obs:
        return obs
    return {**obs, "features": {camera: features.float() for camera, features in obs["features"].items()}}


class ObservationHead(nn.Module):
    """Observation, cached features instead of frames, → latent (B, out_dim).

    obs: agent_pos (B, 18); environment_state (B, 3) or features.<camera> (B, 512, 4, 4), any float type.
    base: base_action (B, 4) is observed too, and the latent ends with it.
    """

    def __init__(
        self,
        *,
        cameras: bool,
        state_dim: int,
        latent_dim: int,
        per_channel: int,
        dropout: float,
        base: bool = False,
    ) -> None:
        super().__init__()
        self.state = StateHead(state_dim, latent_dim)
        self.cameras = nn.ModuleDict(
            {name: CameraHead(latent_dim, per_channel, dropout) for name in CAMERAS if cameras}
        )
        self.out_dim = self.state.out_dim + latent_dim * len(self.cameras) + ACTION_DIM * base

    def forward(self, obs: Observation) -> Tensor:
        state = obs["agent_pos"]
        if "environment_state" in obs:
            state = torch.cat([state, obs["environment_state"]], -1)
        latents = [self.state(state.float())]
        latents += [head(obs["features"][name]) for name, head in self.cameras.items()]
        latents += [obs[BASE_ACTION]] if BASE_ACTION in obs else []
        return torch.cat(latents, -1)


class Critics(nn.Module):
    """An ensemble of E Q-functions of (latent, action), evaluated together: → (E, B).

    Every layer is one batched product over the ensemble, so ten critics cost little more than two.
    """

    def __init__(self, count: int, in_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        sizes = [in_dim, *hidden, 1]
        self.weights, self.biases, self.gains, self.shifts = (nn.ParameterList() for _ in range(4))
        for n_in, n_out in itertools.pairwise(sizes):
            bound = 1 / math.sqrt(n_in)  # nn.Linear's own initialisation
            self.weights.append(nn.Parameter(torch.empty(count, n_in, n_out).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(count, 1, n_out).uniform_(-bound, bound)))
        for width in hidden:  # LayerNorm's gain and shift, one per critic
            self.gains.append(nn.Parameter(torch.ones(count, 1, width)))
            self.shifts.append(nn.Parameter(torch.zeros(count, 1, width)))

    def forward(self, latent: Tensor, action: Tensor) -> Tensor:
        x = torch.cat([latent, action], -1).expand(len(self.weights[0]), -1, -1)
        for layer, (gain, shift) in enumerate(zip(self.gains, self.shifts, strict=True)):
            x = torch.baddbmm(self.biases[layer], x, self.weights[layer])
            x = F.silu(torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), gain))
        return torch.baddbmm(self.biases[-1], x, self.weights[-1]).squeeze(-1)


class GaussianActor(nn.Module):
    """latent (B, D) → mean and standard deviation (B, action_dim) before the tanh squash.

    std = exp(·) clipped to [1e-5, 5]; last layer initialised within ±0.05. Source: LeRobot SAC.
    """

    def __init__(self, in_dim: int, hidden: Sequence[int], action_dim: int) -> None:
        super().__init__()
        self.trunk = mlp([in_dim, *hidden])
        self.out = nn.Linear(hidden[-1], 2 * action_dim)
        nn.init.uniform_(self.out.weight, -0.05, 0.05)
        nn.init.uniform_(self.out.bias, -0.05, 0.05)

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.out(self.trunk(latent)).chunk(2, -1)
        return mean, log_std.exp().clamp(1e-5, 5.0)

    def sample(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """A motion (B, action_dim) in [-1, 1] and its log-density (B,)."""
        return squashed_sample(*self(latent))

    def greedy(self, latent: Tensor) -> Tensor:
        """The mean motion."""
        return torch.tanh(self(latent)[0])


class ResidualActor(GaussianActor):
    """What the base policy does, with which the latent ends, plus a correction of at most `scale`.

    Densities are the correction's, so its entropy is what SAC holds. At first the mean correction is zero.
    Source: residual policy learning (Silver 2018, Johannink 2019).
    """

    def __init__(self, in_dim: int, hidden: Sequence[int], action_dim: int, scale: float) -> None:
        super().__init__(in_dim, hidden, action_dim)
        self.scale = scale
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        nn.init.constant_(self.out.bias[action_dim:], math.log(RESIDUAL_STD))

    def sample(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        correction, log_prob = super().sample(latent)
        return self._corrected(latent, correction), log_prob

    def greedy(self, latent: Tensor) -> Tensor:
        return self._corrected(latent, super().greedy(latent))

    def _corrected(self, latent: Tensor, correction: Tensor) -> Tensor:
        base = base_action(latent)[..., : correction.shape[-1]]
        return (base + self.scale * correction).clamp(-1, 1)


def base_action(latent: Tensor) -> Tensor:
    """Of a latent (B, D) that ends with it: (B, 4)."""
    return latent[..., -ACTION_DIM:]


def squashed_sample(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Reparametrised sample of tanh(N(mean, std)) and its log-density: (B, A), (B,).

    log|d tanh| in the overflow-free form 2(log 2 - x - softplus(-2x)). Source: SAC, appendix C.
    """
    noise = torch.randn_like(mean)
    x = mean + std * noise
    log_normal = -0.5 * noise.square() - std.log() - 0.5 * math.log(2 * math.pi)
    log_tanh = 2 * (math.log(2) - x - F.softplus(-2 * x))
    return torch.tanh(x), (log_normal - log_tanh).sum(-1)


def gripper_head(in_dim: int, hidden: Sequence[int]) -> nn.Sequential:
    """latent (B, D) → Q (B, 3) of opening, holding, closing."""
    return nn.Sequential(*mlp([in_dim, *hidden]), nn.Linear(hidden[-1], 3))
