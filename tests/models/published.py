"""`lerobot/resnet10` written out a second time, from its published layout alone, to check ours against."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published file, written out from its layout alone."""
    shapes: dict[str, tuple[int, ...]] = {
        "embedder.0.weight": (64, 3, 7, 7),
        "embedder.1.weight": (64,),
        "embedder.1.bias": (64,),
    }
    for stage, (inputs, outputs) in enumerate([(64, 64), (64, 128), (128, 256), (256, 512)]):
        block = f"encoder.stages.{stage}"
        shapes[f"{block}.conv1.conv.weight"] = (outputs, inputs, 3, 3)
        shapes[f"{block}.conv2.conv.weight"] = (outputs, outputs, 3, 3)
        norms = ["norm1", "norm2"]
        if inputs != outputs:
            shapes[f"{block}.shortcut.0.conv.weight"] = (outputs, inputs, 1, 1)
            norms.append("shortcut.1")
        for norm in norms:
            shapes[f"{block}.{norm}.weight"] = shapes[f"{block}.{norm}.bias"] = (outputs,)
    return shapes


def state_dict(seed: int = 0) -> dict[str, Tensor]:
    """A file's content: every tensor random, norms' gains and biases too, so that each one matters."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * (0.05 if len(shape) == 4 else 0.3)
        for name, shape in published_shapes().items()
    }


def reference(w: dict[str, Tensor], images: Tensor) -> Tensor:
    """The published network in double precision, paddings written out. images (B, 3, 128, 128) in [0, 1]."""
    w = {name: value.double() for name, value in w.items()}
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(1, 3, 1, 1)

    def norm(x: Tensor, name: str) -> Tensor:
        groups = x.reshape(len(x), 4, -1)
        groups = (groups - groups.mean(-1, keepdim=True)) / (
            groups.var(-1, unbiased=False, keepdim=True) + 1e-5
        ).sqrt()
        return groups.reshape(x.shape) * w[f"{name}.weight"].view(1, -1, 1, 1) + w[f"{name}.bias"].view(
            1, -1, 1, 1
        )

    x = F.pad((images.double() - mean) / std, (3, 3, 3, 3))
    x = norm(F.conv2d(x, w["embedder.0.weight"], stride=2), "embedder.1").clamp(min=0)
    assert x.shape[1:] == (64, 64, 64)
    x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, stride=2)
    for stage, (stride, size) in enumerate([(1, 32), (2, 16), (2, 8), (2, 4)]):
        block = f"encoder.stages.{stage}"
        pad = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)
        y = F.conv2d(F.pad(x, pad), w[f"{block}.conv1.conv.weight"], stride=stride)
        y = F.pad(norm(y, f"{block}.norm1").clamp(min=0), (1, 1, 1, 1))
        y = norm(F.conv2d(y, w[f"{block}.conv2.conv.weight"]), f"{block}.norm2")
        if stride == 2:
            x = norm(F.conv2d(x, w[f"{block}.shortcut.0.conv.weight"], stride=2), f"{block}.shortcut.1")
        x = (x + y).clamp(min=0)
        assert x.shape[2:] == (size, size)
    return x
