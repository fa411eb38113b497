"""The quick forms of the camera head say the same as the formulas they come from."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hil_rllib.models.heads import FEATURE_SHAPE, CameraHead, Dropout


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_camera_head_is_embeddings_then_linear_then_norm_then_tanh(training: bool, dtype: torch.dtype):
    torch.manual_seed(0)
    head = CameraHead(latent_dim=16, per_channel=8, dropout=0.0).train(training)
    features = torch.randn(5, *FEATURE_SHAPE).to(dtype)
    kernel = head.embeddings.kernel.view(FEATURE_SHAPE[0], *FEATURE_SHAPE[1:], 8)
    embedded = torch.einsum("bchw,chwk->bck", features.float(), kernel).flatten(1)
    expected = torch.tanh(head.squash[0](F.linear(embedded, head.linear.weight, head.linear.bias)))
    torch.testing.assert_close(head(features), expected, rtol=1e-5, atol=1e-5)


def test_dropout_zeroes_its_share_of_every_element_and_keeps_the_mean():
    torch.manual_seed(0)
    dropout, shape = Dropout(0.1), (3, 5, 7)  # 105 elements: no multiple of those that share a draw
    kept = torch.stack([dropout(torch.ones(shape)) for _ in range(4000)])
    torch.testing.assert_close(kept.unique(), torch.tensor([0.0, 256 / 230]))
    dropped = (kept == 0).float().mean(0)  # by element: none is favoured by its place in a draw
    assert (dropped - 26 / 256).abs().max() < 5 * (0.1 * 0.9 / 4000) ** 0.5
    assert kept.mean() == pytest.approx(1.0, abs=0.003)
    pairs = torch.corrcoef(kept.flatten(1).T)  # nor do neighbours fall together
    assert (pairs - torch.eye(105)).abs().max() < 0.1


def test_dropout_passes_gradients_where_it_passes_values_and_rests_in_evaluation():
    x = torch.randn(4, 8, 8, requires_grad=True)
    dropout = Dropout(0.5)
    y = dropout(x.transpose(1, 2))
    assert y.is_contiguous()
    y.sum().backward()
    torch.testing.assert_close(y, x.transpose(1, 2) * x.grad.transpose(1, 2))
    assert dropout.eval()(x) is x
