"""A ResNet10 with the weights a configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hil_rllib.contract import CAMERAS
from hil_rllib.models.resnet10 import ResNet10
from hil_rllib.models.weights import find_weights, fit_weights, read_weights


def load_encoder(weights: str, seed: int = 0, hub_timeout_s: float = 15.0) -> ResNet10:
    """A ResNet10 with the weights asked for, float32, on the CPU, in evaluation mode.

    weights: `bundled` (trained in this simulator, ships with the package), `random` (drawn from `seed`
    alone), a local file or folder, or a hub id such as `lerobot/resnet10`.
    Raises FileNotFoundError, ConnectionError or ValueError, each saying what to use instead.
    """
    with torch.random.fork_rng(devices=[]):  # the layers' own initialisation is overwritten below
        model = ResNet10()
    if weights == "random":
        _draw_weights(model, seed)
    else:
        path = find_weights(weights, hub_timeout_s)
        expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        model.load_state_dict(fit_weights(read_weights(path), expected, source=str(path)))
    return model.eval()


def with_features(obs: Mapping[str, Any], trunk: nn.Module | None) -> Mapping[str, Any]:
    """The observation with its cameras' feature maps, made of its frames by `trunk` if it has frames."""
    if trunk is None or "pixels" not in obs:
        return obs
    frames: Tensor = torch.cat([obs["pixels"][camera] for camera in CAMERAS])  # one pass for all cameras
    maps = trunk(frames.permute(0, 3, 1, 2).float() / 255).chunk(len(CAMERAS))
    return {**obs, "features": dict(zip(CAMERAS, maps, strict=True))}


def _draw_weights(model: ResNet10, seed: int) -> None:
    """He's normal initialisation (2015, fan-out) from a generator of its own; norms start as identity."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.GroupNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
