"""The quick forms of the camera head say the same as the formulas they come from."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hil_rllib.models.heads import FEATURE_SHAPE, CameraHead


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_camera_head_is_embeddings_then_linear_then_norm_then_tanh(training: bool, dtype: torch.dtype):
    torch.manual_seed(0)
    head = CameraHead(latent_dim=16, per_channel=8, dropout=0.0).train(training)
    features = torch.randn(5, *FEATURE_SHAPE).to(dtype)
    kernel = head.kernel.view(FEATURE_SHAPE[0], *FEATURE_SHAPE[1:], 8)
    embedded = torch.einsum("bchw,chwk->bck", features.float(), kernel).flatten(1)
    expected = torch.tanh(head.squash[0](F.linear(embedded, head.linear.weight, head.linear.bias)))
    torch.testing.assert_close(head(features), expected, rtol=1e-5, atol=1e-5)


def test_dropout_leaves_out_its_share_of_embeddings_for_the_whole_batch():
    """In training a head is itself with some embedding units left out and the rest scaled up."""
    torch.manual_seed(0)
    head = CameraHead(latent_dim=16, per_channel=8, dropout=0.1).train()
    head.squash = torch.nn.Identity()
    with torch.no_grad():
        head.kernel.fill_(1 / 16)  # every embedding of a map of ones is 1
        head.linear.bias.zero_()
        head.linear.weight.zero_()
        head.linear.weight[:, : 16 * 32] = torch.eye(16).repeat_interleave(32, 1)  # an output sums 32 units
    head.requires_grad_(False)
    ones = torch.ones(3, *FEATURE_SHAPE)
    outputs = head(ones)
    torch.testing.assert_close(outputs, outputs[:1].expand(3, -1))  # one mask a batch
    left_out = 32 - torch.cat([head(ones)[0] for _ in range(200)]) * 0.9
    torch.testing.assert_close(left_out, left_out.round(), rtol=0, atol=1e-3)  # whole units
    assert left_out.mean().item() == pytest.approx(3.2, abs=5 * (32 * 0.1 * 0.9 / len(left_out)) ** 0.5)
    assert left_out.var().item() == pytest.approx(32 * 0.1 * 0.9, rel=0.15)  # each by a lot of its own
    torch.testing.assert_close(head.eval()(ones), torch.full((3, 16), 32.0))
