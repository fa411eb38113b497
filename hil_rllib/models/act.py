"""ACT: a conditional variational autoencoder of action chunks, made of transformers.

Zhao et al. 2023, "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware": section IV.B, its
figure 4, and the tables of appendix C. In training an encoder squeezes the demonstrated chunk into a style
variable z; the decoder tells the chunk from observation and z. In acting z is zero, the prior's mean.

B is the batch size, K the chunk's length, C the width of a token, A the action's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hil_rllib.contract import ACTION_DIM, AGENT_POS_DIM, CAMERAS
from hil_rllib.models.encoder import with_features
from hil_rllib.models.heads import FEATURE_SHAPE, StateScaling

WORLD_DIM = 3  # of environment_state


@dataclass(frozen=True)
class ACTSizes:
    """See `config.ACTSection`, where each number has its source."""

    chunk: int
    width: int
    heads: int
    feedforward: int
    latent: int
    encoder_layers: int
    decoder_layers: int
    dropout: float


class Attention(nn.Module):
    """Multi-head attention, (B, Q, C) and (B, N, C) → (B, Q, C)."""

    def __init__(self, sizes: ACTSizes) -> None:
        super().__init__()
        self.heads, self.dropout = sizes.heads, sizes.dropout
        self.query, self.key, self.value, self.out = (nn.Linear(sizes.width, sizes.width) for _ in range(4))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, ignored: Tensor | None = None) -> Tensor:
        """ignored: (B, N), true where a key must not be looked at."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        seen = None if ignored is None else ~ignored[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """What both layers share. Sums are normalised afterwards, as in DETR (Carion 2020)."""

    def __init__(self, sizes: ACTSizes, attentions: int) -> None:
        super().__init__()
        self.attend = nn.ModuleList(Attention(sizes) for _ in range(attentions))
        self.norms = nn.ModuleList(nn.LayerNorm(sizes.width) for _ in range(attentions + 1))
        self.widen = nn.Linear(sizes.width, sizes.feedforward)
        self.narrow = nn.Linear(sizes.feedforward, sizes.width)
        self.dropout = nn.Dropout(sizes.dropout)

    def feedforward(self, x: Tensor) -> Tensor:
        change = self.narrow(self.dropout(F.relu(self.widen(x))))
        return self.norms[-1](x + self.dropout(change))


class EncoderLayer(Block):
    """Tokens look at each other. Positions go to queries and keys only."""

    def __init__(self, sizes: ACTSizes) -> None:
        super().__init__(sizes, attentions=1)

    def forward(self, x: Tensor, positions: Tensor, ignored: Tensor | None = None) -> Tensor:
        placed = x + positions
        x = self.norms[0](x + self.dropout(self.attend[0](placed, placed, x, ignored)))
        return self.feedforward(x)


class DecoderLayer(Block):
    """The chunk's steps look at each other, then at the observation's tokens."""

    def __init__(self, sizes: ACTSizes) -> None:
        super().__init__(sizes, attentions=2)

    def forward(self, x: Tensor, steps: Tensor, memory: Tensor, positions: Tensor) -> Tensor:
        placed = x + steps
        x = self.norms[0](x + self.dropout(self.attend[0](placed, placed, x)))
        x = self.norms[1](x + self.dropout(self.attend[1](x + steps, memory + positions, memory)))
        return self.feedforward(x)


class ACT(nn.Module):
    """Observation → chunk of actions (B, K, A), in training by way of the demonstrated chunk.

    Observation tokens: z, agent_pos, then either environment_state or 16 patches per camera of ResNet10's
    map. Unlike ACT's code, which gives all cameras the same positions, each camera has a vector of its own.

    cameras, world: what there is beside agent_pos. trunk: a ResNet10 to be trained along, for frames;
    without one the observation brings its features.
    """

    def __init__(
        self, sizes: ACTSizes, *, cameras: bool, world: bool, trunk: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.sizes, self.trunk = sizes, trunk
        width = sizes.width
        self.scaling = StateScaling(AGENT_POS_DIM + WORLD_DIM * world)
        # The autoencoder's encoder: a summary token, the state, the chunk.
        self.summary = nn.Parameter(torch.randn(1, 1, width))
        self.style_state = nn.Linear(AGENT_POS_DIM, width)
        self.style_action = nn.Linear(ACTION_DIM, width)
        self.style_layers = nn.ModuleList(EncoderLayer(sizes) for _ in range(sizes.encoder_layers))
        self.style_out = nn.Linear(width, 2 * sizes.latent)
        self.register_buffer("style_positions", sinusoid(2 + sizes.chunk, width), persistent=False)
        # Its decoder: a transformer of its own.
        self.latent_in = nn.Linear(sizes.latent, width)
        self.state_in = nn.Linear(AGENT_POS_DIM, width)
        self.world_in = nn.Linear(WORLD_DIM, width) if world else None
        self.patch_in = nn.Linear(FEATURE_SHAPE[0], width) if cameras else None
        self.places = nn.Parameter(torch.randn(2 + world, width))
        self.camera_places = nn.Parameter(torch.randn(len(CAMERAS) * cameras, 1, width))
        self.register_buffer("grid", grid_positions(*FEATURE_SHAPE[1:], width), persistent=False)
        self.encoder_layers = nn.ModuleList(EncoderLayer(sizes) for _ in range(sizes.encoder_layers))
        self.decoder_layers = nn.ModuleList(DecoderLayer(sizes) for _ in range(sizes.decoder_layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.steps = nn.Parameter(torch.randn(sizes.chunk, width))
        self.action_out = nn.Linear(width, ACTION_DIM)
        for layers in (self.style_layers, self.encoder_layers, self.decoder_layers):
            for weight in layers.parameters():
                if weight.dim() > 1:
                    nn.init.xavier_uniform_(weight)  # DETR

    def forward(
        self, obs: Mapping[str, Any], actions: Tensor, padded: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The chunk as rebuilt from a sample of z (B, K, A), and z's mean and log-variance (B, Z) each.

        actions (B, K, A): what was demonstrated. padded (B, K): true past the end of the demonstration.
        """
        mean, log_var = self.style(obs, actions, padded)
        z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        return self.plan(obs, z), mean, log_var

    def style(self, obs: Mapping[str, Any], actions: Tensor, padded: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z, each (B, Z)."""
        state = self._state(obs)[:, :AGENT_POS_DIM]
        tokens = [
            self.summary.expand(len(state), -1, -1),
            self.style_state(state)[:, None],
            self.style_action(actions),
        ]  # fmt: skip
        x = torch.cat(tokens, 1)
        ignored = F.pad(padded, (2, 0))  # never the summary and the state
        for layer in self.style_layers:
            x = layer(x, self.style_positions, ignored)
        mean, log_var = self.style_out(x[:, 0]).chunk(2, -1)
        return mean, log_var

    def plan(self, obs: Mapping[str, Any], z: Tensor | None = None) -> Tensor:
        """The chunk (B, K, A) for this z (B, Z); None is the prior's mean, with which the policy acts."""
        state = self._state(obs)
        if z is None:
            z = state.new_zeros(len(state), self.sizes.latent)
        tokens = [self.latent_in(z)[:, None], self.state_in(state[:, :AGENT_POS_DIM])[:, None]]
        places: list[Tensor] = [self.places]
        if self.world_in is not None:
            tokens.append(self.world_in(state[:, AGENT_POS_DIM:])[:, None])
        if self.patch_in is not None:
            features = with_features(obs, self.trunk)["features"]
            for camera, place in zip(CAMERAS, self.camera_places, strict=True):
                patches = features[camera].flatten(2).transpose(1, 2)  # (B, 16, 512)
                tokens.append(self.patch_in(patches.to(state.dtype)))
                places.append(self.grid + place)
        memory, positions = torch.cat(tokens, 1), torch.cat(places)
        for layer in self.encoder_layers:
            memory = layer(memory, positions)
        x = memory.new_zeros(len(memory), *self.steps.shape)
        for layer in self.decoder_layers:
            x = layer(x, self.steps, memory, positions)
        return self.action_out(self.decoder_norm(x))

    def _state(self, obs: Mapping[str, Any]) -> Tensor:
        parts = [obs[name] for name in ("agent_pos", "environment_state") if name in obs]
        return self.scaling(torch.cat(parts, -1).float())


def act_losses(
    plan: Tensor, mean: Tensor, log_var: Tensor, actions: Tensor, padded: Tensor
) -> tuple[Tensor, Tensor]:
    """L1 between the chunks, and the KL divergence of z from the standard normal prior; both scalars.

    Padded steps count as 0, as in ACT's code: its mean is over all steps. The KL is summed over z's entries
    and averaged over the batch; Kingma & Welling 2014, appendix B.
    """
    l1 = ((plan - actions).abs() * ~padded[..., None]).mean()
    kl = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(-1).mean()
    return l1, kl


def sinusoid(length: int, width: int) -> Tensor:
    """Positions (length, width): sines in the even entries, cosines in the odd ones. Vaswani 2017, 3.5."""
    angles = torch.arange(length)[:, None] * _frequencies(width // 2, base=10000)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def grid_positions(height: int, width: int, channels: int) -> Tensor:
    """Positions (height·width, channels) of a map's cells, row by row: half for y, half for x, each running
    over (0, 2π]. DETR's sine embedding."""
    rows, columns = torch.meshgrid(torch.arange(1, height + 1), torch.arange(1, width + 1), indexing="ij")
    halves = []
    for index, count in ((rows, height), (columns, width)):
        angles = index.flatten()[:, None] * (2 * math.pi / count) * _frequencies(channels // 4, base=10000)
        halves.append(torch.stack([angles.sin(), angles.cos()], -1).flatten(1))
    return torch.cat(halves, -1)


def _frequencies(count: int, base: float) -> Tensor:
    return base ** (-torch.arange(count) / count)
