"""Packed convolutions give what plain ones give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hil_rllib.models.encoder import load_encoder
from hil_rllib.models.packed import PackedConv2d, pack_convolutions

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")


def test_features_of_two_frames_are_the_plain_network_s_to_the_last_bit() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    plain, packed = load_encoder("random", seed=3), pack_convolutions(load_encoder("random", seed=3))
    assert not any(isinstance(part, nn.Conv2d) for part in packed.modules())
    found = packed.encode(frames)
    assert torch.equal(found, plain.encode(frames))
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "options", [{"padding": (1, 2)}, {"stride": (2, 1)}, {"dilation": 2, "padding": 1}, {"groups": 2}]
)
def test_any_convolution_can_be_packed(options, memory_format, bias) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, bias=bias, **options)
    x = torch.randn(3, 4, 9, 8).to(memory_format=memory_format)
    found = PackedConv2d(conv)(x)
    torch.testing.assert_close(found, conv(x).detach(), rtol=1e-5, atol=1e-5)
    assert not found.requires_grad
