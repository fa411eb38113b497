"""The classifier's word in place of the env's: reward, end, and what stays to be seen."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from hil_rllib.collect.classifier_reward import ClassifierRewardWrapper, ClassifierSpec, SuccessClassifier
from hil_rllib.collect.encode import EncodeFrames, FrameEncoder, shared_encoder
from hil_rllib.collect.pacing import OperatorWrapper
from hil_rllib.contract import CAMERAS, CLASSIFIED, IMAGE_SIZE, SUCCESS, EpisodeEnd
from hil_rllib.models.success import SuccessHead

SIZES: dict[str, Any] = {"latent_dim": 8, "per_channel": 1, "dropout": 0.0, "hidden": 8}


class Script(gymnasium.Env):
    """Shows 0, 1, 2, …; by its own word solved, rewarded and over at step `solved_at`."""

    observation_space = gymnasium.spaces.Box(0, 100, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (4,))

    def __init__(self, solved_at=2):
        self.solved_at = solved_at

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(1), {}

    def step(self, action):
        self.t += 1
        own = self.t >= self.solved_at
        return np.full(1, self.t), float(own), own, False, {SUCCESS: own}


class Says:
    """A classifier that says what a test wrote down, by the number shown."""

    threshold = 0.5

    def __init__(self, *probabilities):
        self.probabilities, self.loaded = probabilities, []

    def __call__(self, obs):
        return self.probabilities[int(obs[0]) - 1]

    def load(self, state):
        self.loaded.append(state)


def run(env):
    """[(reward, terminated, truncated, own, classified)] until the end."""
    env.reset()
    rows, done = [], False
    while not done:
        _, reward, terminated, truncated, info = env.step(np.zeros(4))
        rows.append((reward, terminated, truncated, info[SUCCESS], info[CLASSIFIED]))
        done = terminated or truncated
    return rows


def test_reward_and_end_are_the_classifiers_and_the_envs_own_word_stays_visible():
    env = ClassifierRewardWrapper(Script(solved_at=2), Says(0.1, 0.2, 0.49, 0.5))
    quiet = (0.0, False, False)
    assert run(env) == [
        (*quiet, False, False),
        (*quiet, True, False),  # solved by its own word: neither rewarded nor over
        (*quiet, True, False),
        (1.0, True, False, True, True),
    ]


def test_a_false_positive_is_rewarded_and_can_be_told_from_info():
    rows = run(ClassifierRewardWrapper(Script(solved_at=9), Says(0.1, 0.9)))
    assert rows[-1] == (1.0, True, False, False, True)


def test_several_frames_in_a_row_are_needed_where_asked_for_and_counting_begins_with_the_episode():
    env = ClassifierRewardWrapper(Script(), Says(0.9, 0.1, 0.9, 0.9, 0.9), consecutive=2)
    assert [row[0] for row in run(env)] == [0, 0, 0, 1]
    env = ClassifierRewardWrapper(gymnasium.wrappers.TimeLimit(Script(), 1), Says(0.9), consecutive=2)
    for _ in range(2):
        assert run(env) == [(0.0, False, True, False, False)]
    with pytest.raises(ValueError, match="at least 1 frame"):
        ClassifierRewardWrapper(Script(), Says(), consecutive=0)


def test_success_at_the_time_limit_terminates():
    env = ClassifierRewardWrapper(gymnasium.wrappers.TimeLimit(Script(), 1), Says(0.9))
    assert run(env) == [(1.0, True, False, False, True)]


def test_the_operators_verdict_outweighs_the_classifier():
    env = OperatorWrapper(ClassifierRewardWrapper(Script(), Says(0.9)))
    env.reset()
    env.request_end(EpisodeEnd.FAILURE)
    _, reward, terminated, _, info = env.step(np.zeros(4))
    assert (reward, terminated, info[SUCCESS], info[CLASSIFIED]) == (0.0, True, False, True)


def test_newer_weights_are_taken_between_episodes():
    states = iter(["first", None, "second"])
    classifier = Says(*[0.1] * 9)
    env = ClassifierRewardWrapper(Script(), classifier, newest=lambda: next(states))
    env.reset()
    env.step(np.zeros(4))
    assert classifier.loaded == ["first"]
    env.reset()
    env.reset()
    assert classifier.loaded == ["first", "second"]


# -- the classifier itself -------------------------------------------------------------------------


@pytest.fixture
def spec():
    torch.manual_seed(0)
    head = SuccessHead(**SIZES)
    head.set_calibration(2.0, -1.0, 0.25)
    return ClassifierSpec(SIZES, {k: v.numpy() for k, v in head.state_dict().items()}, "random", 0)


def observation(seed=0, rows=()):
    rng = np.random.default_rng(seed)
    shape = (*rows, IMAGE_SIZE, IMAGE_SIZE, 3)
    return {
        "agent_pos": np.zeros((*rows, 18), np.float32),
        "pixels": {camera: rng.integers(0, 256, shape, np.uint8) for camera in CAMERAS},
    }


def test_it_gives_the_calibrated_probability_of_frames_and_of_their_features(spec):
    classifier, encoder = SuccessClassifier(spec), FrameEncoder("random", 0)
    obs = observation(rows=(3,))
    encoded = encoder(obs)
    head = SuccessHead(**SIZES)
    head.load_state_dict({name: torch.from_numpy(value) for name, value in spec.state.items()})
    head.eval()
    with torch.no_grad():
        logits = head({camera: torch.from_numpy(f) for camera, f in encoded["features"].items()}).numpy()
    expected = 1 / (1 + np.exp(-(2.0 * logits - 1.0)))
    np.testing.assert_allclose(classifier(obs), expected, rtol=1e-4)
    np.testing.assert_allclose(classifier(encoded), expected, rtol=1e-4)
    assert classifier.threshold == 0.25
    one = {"pixels": {camera: frames[1] for camera, frames in obs["pixels"].items()}}
    assert classifier(one) == pytest.approx(expected[1], rel=1e-2)


def test_a_frame_that_classifier_and_policy_both_look_at_is_encoded_once(spec, monkeypatch):
    shared_encoder.cache_clear()
    classifier, policy = SuccessClassifier(spec), EncodeFrames(weights="random", seed=0)
    encoded = []
    encode = classifier.encoder.net.encode
    monkeypatch.setattr(classifier.encoder.net, "encode", lambda f: encoded.append(len(f)) or encode(f))
    obs = observation()
    classifier(obs)
    copy = {**obs, "pixels": {camera: frames.copy() for camera, frames in obs["pixels"].items()}}
    features = policy.preprocess(copy, None)["features"]  # the vector env hands on copies
    assert encoded == [2]
    np.testing.assert_array_equal(features["front"], FrameEncoder("random", 0)(obs)["features"]["front"])
    policy.preprocess(observation(seed=1), None)
    assert encoded == [2, 2]
    shared_encoder.cache_clear()
