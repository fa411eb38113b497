"""ResNet10 computes what `lerobot/resnet10` computes, on floats and on camera bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from published import published_shapes, reference, state_dict

from hil_rllib.models.encoder import load_encoder
from hil_rllib.models.resnet10 import ResNet10


@pytest.fixture(scope="module")
def model() -> ResNet10:
    model = ResNet10().eval()
    model.load_state_dict(state_dict())
    return model


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), np.uint8)


def test_has_the_published_names_shapes_and_size() -> None:
    found = {name: tuple(value.shape) for name, value in ResNet10().state_dict().items()}
    assert found == published_shapes()
    assert len(found) == 36
    assert sum(p.numel() for p in ResNet10().parameters()) == 4_905_792


def test_forward_equals_the_published_network(model: ResNet10, frames: np.ndarray) -> None:
    images = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    expected = reference(state_dict(), images)
    found = model(images)
    assert found.shape == (3, 512, 4, 4)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_encode_takes_camera_bytes_and_equals_forward(model: ResNet10, frames: np.ndarray) -> None:
    expected = model(torch.from_numpy(frames).permute(0, 3, 1, 2) / 255).detach()
    for given in (frames, torch.from_numpy(frames)):
        found = model.encode(given)
        torch.testing.assert_close(found.clone(), expected, rtol=1e-4, atol=1e-4)
        assert not found.requires_grad


def test_a_frame_s_features_do_not_depend_on_its_batch(model: ResNet10, frames: np.ndarray) -> None:
    torch.testing.assert_close(model.encode(frames)[1:2], model.encode(frames[1:2]), rtol=1e-4, atol=1e-5)


def test_every_parameter_gets_a_gradient(frames: np.ndarray) -> None:
    model = load_encoder("random")
    model(torch.from_numpy(frames).permute(0, 3, 1, 2) / 255).square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize(
    ("shape", "dtype", "error"),
    [
        ((1, 3, 128, 128), np.uint8, r"\(B, H, W, 3\).*got \(1, 3, 128, 128\)"),
        ((1, 100, 128, 3), np.uint8, "multiples of 32"),
        ((1, 128, 128, 3), np.float32, "uint8"),
    ],
)
def test_encode_refuses_frames_it_would_misread(
    model: ResNet10, shape: tuple[int, ...], dtype: type, error: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=error):
        model.encode(np.zeros(shape, dtype))
