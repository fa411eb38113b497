"""Where the arm held still in place of a broken command, the hold is what is stored, recorded and counted."""

from __future__ import annotations

import gymnasium
import numpy as np
from episodes import fragment
from ray.rllib.core.columns import Columns

import envs  # noqa: F401  # registers the ids
from hil_rllib.collect.recording import RecordingWrapper
from hil_rllib.collect.statistics import Statistics
from hil_rllib.contract import HELD_COMMANDS
from hil_rllib.data.replay import Fragment
from hil_rllib.wrappers import InputsControlWrapper

BROKEN, HOLD = np.array([0.5, np.nan, 0.0, 2.0], np.float32), np.array([0, 0, 0, 1], np.float32)


def broken_episode():
    """Three steps whose policy gave NaN in the second."""
    episode = fragment("a", 0, 3)
    episode.actions[1] = np.array([0.5, np.nan, 0.0, 1.0], np.float32)
    episode.infos[2] = {HELD_COMMANDS: 1}
    return episode


def test_replay_stores_the_hold():
    actions = Fragment.from_episode(broken_episode()).steps[Columns.ACTIONS]
    np.testing.assert_array_equal(actions, np.zeros((3, 4)))


def test_the_metric_counts_it():
    stats = Statistics()
    stats.add(broken_episode(), 0)
    stats.add(fragment("b", 0, 3), 0)
    assert stats.metrics(env_steps=0, updates=0, online=0, demo=0)["held_commands"] == 1


def test_datasets_record_the_hold():
    kept = []

    class Sink:
        put, close = kept.append, staticmethod(lambda: None)

    env = RecordingWrapper(gymnasium.make("hil/PandaPickCube-v0", max_episode_steps=2), Sink())
    env.reset(seed=0)
    for action in (BROKEN, np.ones(4, np.float32)):
        env.step(action)
    env.close()
    np.testing.assert_array_equal(kept[0].actions, [HOLD, np.ones(4)])


def test_a_driver_of_the_env_is_told_what_was_executed():
    env = InputsControlWrapper(gymnasium.make("hil/PandaPickCube-v0"), use_gripper=True, device="none")
    env.reset(seed=0)
    *_, info = env.step(BROKEN)
    env.close()
    np.testing.assert_array_equal(info["teleop_action"], HOLD)
    assert info[HELD_COMMANDS] == 1
