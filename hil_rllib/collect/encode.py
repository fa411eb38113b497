"""Frames become features once per step, in the runner: no update ever runs the frozen encoder."""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.connectors.env_to_module.observation_preprocessor import SingleAgentObservationPreprocessor
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from hil_rllib.contract import CAMERAS
from hil_rllib.models.encoder import load_encoder
from hil_rllib.models.heads import FEATURE_SHAPE
from hil_rllib.models.packed import pack_convolutions

REMEMBERED = 16  # single observations; a runner's envs are all stepped before any is encoded for the policy
BATCH = 8  # frames encoded at once: with 64 the activations leave the cache, and each takes 1.4 times as long


def encoded_space(space: gym.spaces.Dict) -> gym.spaces.Dict:
    """The observation space with `pixels` replaced by `features`, float16 (512, 4, 4) per camera."""
    parts = dict(space.spaces)
    parts.pop("pixels")
    feature = gym.spaces.Box(-np.inf, np.inf, FEATURE_SHAPE, np.float16)
    return gym.spaces.Dict({"features": gym.spaces.Dict(dict.fromkeys(CAMERAS, feature)), **parts})


class FrameEncoder:
    """uint8 frames → float16 features by a frozen ResNet10.

    The last few single observations are remembered: where a classifier and the policy look at the same one,
    it is encoded once.
    """

    def __init__(self, weights: str, seed: int) -> None:
        self.net = pack_convolutions(load_encoder(weights, seed=seed).requires_grad_(False))
        self._seen: OrderedDict[bytes, np.ndarray] = OrderedDict()

    @torch.inference_mode()
    def __call__(self, obs: dict[str, Any]) -> dict[str, Any]:
        """obs with pixels.<camera> (128, 128, 3) or (T, 128, 128, 3) → the same with features instead."""
        pixels = [np.asarray(obs["pixels"][camera]) for camera in CAMERAS]
        single = pixels[0].ndim == 3
        frames = np.stack(pixels) if single else np.concatenate(pixels)
        if single:
            maps = self._remembered(frames)
        else:
            parts = np.array_split(frames, -(-len(frames) // BATCH))
            maps = np.concatenate([self._maps(part) for part in parts])
        named = dict(zip(CAMERAS, np.split(maps, len(CAMERAS)), strict=True))
        features = {camera: f[0] for camera, f in named.items()} if single else named
        return {"features": features, **{name: part for name, part in obs.items() if name != "pixels"}}

    def _remembered(self, frames: np.ndarray) -> np.ndarray:
        key = frames.tobytes()
        if key not in self._seen:
            self._seen[key] = self._maps(frames)
            if len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
        return self._seen[key]

    def _maps(self, frames: np.ndarray) -> np.ndarray:
        """uint8 (B, 128, 128, 3) → float16 (B, 512, 4, 4), channels first in memory."""
        return self.net.encode(frames).half().contiguous(memory_format=torch.contiguous_format).numpy()


@functools.cache
def shared_encoder(weights: str, seed: int) -> FrameEncoder:
    """This process's encoder of that name; only `random` weights depend on the seed."""
    return FrameEncoder(weights, seed) if weights == "random" or not seed else shared_encoder(weights, 0)


class EncodeFrames(SingleAgentObservationPreprocessor):
    """env-to-module connector: writes features into the episode in place of frames, final step included."""

    def __init__(
        self, input_observation_space: Any = None, input_action_space: Any = None, *, weights: str, seed: int
    ):
        self._weights, self._seed = weights, seed
        self._encoder: FrameEncoder | None = (
            None  # loaded by the first frame: the driver's copy never needs it
        )
        super().__init__(input_observation_space, input_action_space)

    def recompute_output_observation_space(
        self, input_observation_space: Any, input_action_space: Any
    ) -> Any:
        return encoded_space(input_observation_space)

    def preprocess(self, observation: Any, episode: SingleAgentEpisode) -> Any:
        if self._encoder is None:
            self._encoder = shared_encoder(self._weights, self._seed)
        return self._encoder(observation)
