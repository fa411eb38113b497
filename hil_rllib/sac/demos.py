"""Demonstrations from RLlib's offline input to what the learner's ring holds."""

from __future__ import annotations

from collections.abc import Iterator

from hil_rllib.collect.encode import FrameEncoder
from hil_rllib.config import Config
from hil_rllib.data.offline_input import LeRobotOfflineData
from hil_rllib.data.replay import Fragment


def demo_fragments(offline_data: LeRobotOfflineData, hil: Config) -> Iterator[Fragment]:
    """Every demonstration once, one fragment an episode, frames encoded where the encoder is frozen."""
    encoder: FrameEncoder | None = None
    for episode in offline_data.episodes():
        fragment = Fragment.from_episode(episode)
        if hil.env.image_obs and hil.encoder.frozen:
            encoder = encoder or FrameEncoder(hil.encoder.weights, hil.run.seed)
            fragment = Fragment(
                fragment.episode_id, fragment.first_step, encoder(fragment.obs), fragment.steps
            )
        yield fragment
