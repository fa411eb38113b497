"""Frames become features once, and the same ones everywhere."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from hil_rllib.collect.encode import BATCH, EncodeFrames, FrameEncoder, encoded_space
from hil_rllib.contract import CAMERAS, IMAGE_SIZE
from hil_rllib.models.encoder import load_encoder
from hil_rllib.models.heads import FEATURE_SHAPE

FRAME = gym.spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
SPACE = gym.spaces.Dict(
    {
        "agent_pos": gym.spaces.Box(-1, 1, (18,), np.float32),
        "pixels": gym.spaces.Dict(dict.fromkeys(CAMERAS, FRAME)),
    }
)


@pytest.fixture(scope="module")
def encoder():
    return FrameEncoder("random", seed=0)


def frames(count, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 256, (count, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8) for name in CAMERAS}


def test_features_fit_the_space_and_the_rest_of_the_observation_stays(encoder):
    obs = {"agent_pos": np.zeros(18, np.float32), "pixels": {n: f[0] for n, f in frames(1).items()}}
    encoded = encoder(obs)
    assert encoded_space(SPACE).contains(encoded)
    assert encoded["agent_pos"] is obs["agent_pos"]
    assert "pixels" in obs  # the caller's observation is left alone


def test_each_camera_gets_its_own_features_as_the_encoder_gives_them(encoder):
    obs = frames(2)
    encoded = encoder({"pixels": obs})["features"]
    net = load_encoder("random", seed=0)
    for name in CAMERAS:
        with torch.no_grad():
            maps = net(torch.from_numpy(obs[name]).permute(0, 3, 1, 2).float() / 255)
        assert encoded[name].shape == (2, *FEATURE_SHAPE)
        assert encoded[name].flags.c_contiguous
        np.testing.assert_allclose(encoded[name], maps.numpy(), rtol=2e-3, atol=2e-3)
    assert not np.allclose(encoded["front"], encoded["wrist"])


def test_an_episode_at_once_gives_the_features_of_its_frames_one_by_one(encoder):
    length = BATCH // 2 + 1  # two cameras: more than one batch, the last one short
    pixels = frames(length)
    together = encoder({"pixels": pixels})["features"]
    for t in (0, length // 2, length - 1):
        alone = encoder({"pixels": {name: f[t] for name, f in pixels.items()}})["features"]
        for name in CAMERAS:
            np.testing.assert_allclose(together[name][t], alone[name], rtol=2e-3, atol=2e-3)


def test_connector_says_what_it_gives_and_loads_the_encoder_only_to_use_it(encoder):
    connector = EncodeFrames(SPACE, FRAME, weights="random", seed=0)
    assert connector.observation_space == encoded_space(SPACE)
    assert connector._encoder is None
    obs = {"agent_pos": np.zeros(18, np.float32), "pixels": {n: f[0] for n, f in frames(1).items()}}
    written = connector.preprocess(obs, None)
    for name in CAMERAS:
        np.testing.assert_array_equal(written["features"][name], encoder(obs)["features"][name])
