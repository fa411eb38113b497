"""ResNet10, layer for layer and name for name as published in `lerobot/resnet10`.

The network is HIL-SERL's (Luo 2024; `resnetv1-10-frozen`), converted from JAX. Two things are kept from
there so that published weights mean the same here: stride-2 layers pad as JAX's "SAME" does (nothing
left and above, one right and below; torch's symmetric padding would shift the map by a pixel), and
every normalisation is GroupNorm with 4 groups, so there are no batch statistics and the features of
a frame never depend on its neighbours in a batch.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB of frames in [0, 1], as torchvision
IMAGENET_STD = (0.229, 0.224, 0.225)
WIDTHS = (64, 128, 256, 512)
GROUPS = 4
TOTAL_STRIDE = 32  # 128 × 128 frames become 4 × 4 maps


class Conv(nn.Module):
    """Bias-free convolution with JAX's "SAME" padding, for inputs whose sides divide by the stride."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        # SAME pads kernel − stride in all, the larger half right and below: 1 + 1 for 3×3 at stride 1,
        # 0 + 1 at stride 2, none for the 1×1 shortcut.
        self.pad_after = 1 if kernel > stride > 1 else 0
        padding = (kernel - 1) // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.pad_after:
            x = F.pad(x, (0, self.pad_after, 0, self.pad_after))
        return self.conv(x)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, projected where the width changes (He 2016, fig. 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Conv(inputs, outputs, 3, stride)
        self.norm1 = nn.GroupNorm(GROUPS, outputs)
        self.conv2 = Conv(outputs, outputs, 3, 1)
        self.norm2 = nn.GroupNorm(GROUPS, outputs)
        self.shortcut = None
        if inputs != outputs:
            self.shortcut = nn.Sequential(Conv(inputs, outputs, 1, stride), nn.GroupNorm(GROUPS, outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(x)).relu_()
        y = self.norm2(self.conv2(y))
        y += x if self.shortcut is None else self.shortcut(x)
        return y.relu_()


class Encoder(nn.Module):
    """Four blocks, 64 to 512 channels; the wrapper exists for the published key names."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (WIDTHS[0], *WIDTHS[:-1])
        strides = (1, 2, 2, 2)
        self.stages = nn.Sequential(
            *(BasicBlock(i, o, s) for i, o, s in zip(inputs, WIDTHS, strides, strict=True))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(x)


class ResNet10(nn.Module):
    """4,905,792 parameters in 36 tensors; frames (B, 3, H, W) to maps (B, 512, H/32, W/32).

    `forward` takes floats in [0, 1] and is differentiable; `encode` takes camera frames as they are and
    is the path for frozen use. Both apply ImageNet normalisation. Weights and activations are kept
    channels-last, which a CPU runs about a third faster, and which is how frames arrive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedder = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 7, stride=2, padding=3, bias=False),
            nn.GroupNorm(GROUPS, WIDTHS[0]),
        )
        self.encoder = Encoder()
        # Not saved: the published file holds parameters only.
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD), persistent=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 512, H/32, W/32) of images (B, 3, H, W), RGB in [0, 1]; H and W divide by 32."""
        _check_shape(tuple(images.shape), channels_at=1)
        x = (images - self.mean[:, None, None]) / self.std[:, None, None]
        return self._features(x.contiguous(memory_format=torch.channels_last))

    @torch.inference_mode()
    def encode(self, frames: Tensor | NDArray[np.uint8]) -> Tensor:
        """Features (B, 512, H/32, W/32), float32, without gradients, of frames (B, H, W, 3) uint8 RGB.

        The bytes are read once: subtracting the mean is also their conversion to float.
        """
        if isinstance(frames, np.ndarray):
            frames = torch.from_numpy(frames)
        if frames.dtype != torch.uint8:
            raise TypeError(
                f"encode takes uint8 frames in 0..255, got {frames.dtype}. "
                "For floats in [0, 1] call the module itself with (B, 3, H, W)."
            )
        _check_shape(tuple(frames.shape), channels_at=3)
        frames = frames.to(self.mean.device)
        x = (frames - 255.0 * self.mean).div_(255.0 * self.std)
        return self._features(x.permute(0, 3, 1, 2))  # a view: NHWC memory is channels-last

    def _features(self, x: Tensor) -> Tensor:
        x = self.embedder(x).relu_()
        # ceil_mode drops what hangs over the right and lower edge, as padding with −inf would.
        x = F.max_pool2d(x, 3, stride=2, ceil_mode=True)
        return self.encoder(x)


def _check_shape(shape: tuple[int, ...], channels_at: int) -> None:
    layout = "(B, 3, H, W)" if channels_at == 1 else "(B, H, W, 3)"
    sides = [n for i, n in enumerate(shape) if i not in (0, channels_at)]
    if len(shape) != 4 or shape[channels_at] != 3 or any(n % TOTAL_STRIDE for n in sides):
        raise ValueError(
            f"ResNet10 takes RGB frames {layout} with H and W multiples of {TOTAL_STRIDE}, got {shape}."
        )
