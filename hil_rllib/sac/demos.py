"""Demonstrations from RLlib's offline input to what the learner's ring holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hil_rllib.collect.classifier_reward import ClassifierSpec, SuccessClassifier
from hil_rllib.collect.encode import FrameEncoder
from hil_rllib.config import Config
from hil_rllib.data.offline_input import END_SEEN, LeRobotOfflineData
from hil_rllib.data.replay import Fragment
from hil_rllib.sac.base import Base, add_base_actions
from hil_rllib.sac.classifier import judged, same_encoder


def demo_fragments(
    offline_data: LeRobotOfflineData,
    hil: Config,
    classifier: ClassifierSpec | None = None,
    base: Base | None = None,
) -> Iterator[Fragment]:
    """Every demonstration once, one fragment an episode, frames encoded where the encoder is frozen.

    classifier: what rewards them in place of their own rewards. base: whose actions are observed too.
    """
    encoder: FrameEncoder | None = None
    judge = SuccessClassifier(classifier) if classifier else None
    corrected = base.build() if base else None
    shares_features = classifier is not None and same_encoder(classifier, hil)
    for episode in offline_data.episodes():
        fragment, end_seen = Fragment.from_episode(episode), episode.get_infos(-1)[END_SEEN]
        if judge and not shares_features:  # by the frames, before they are gone
            fragment = judged(fragment, judge, end_seen=end_seen)
        if hil.env.image_obs and hil.encoder.frozen:
            encoder = encoder or FrameEncoder(hil.encoder.weights, hil.run.seed)
            fragment = replace(fragment, obs=encoder(fragment.obs))
        if judge and shares_features:
            fragment = judged(fragment, judge, end_seen=end_seen)
        yield add_base_actions(fragment, corrected) if corrected else fragment
