"""Recording: every step as it was executed, whole episodes only, none that was thrown away."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from hil_rllib.collect.pacing import APPEAL_STEPS, OperatorWrapper
from hil_rllib.collect.recording import RecordingWrapper
from hil_rllib.contract import CLASSIFIED, DISCRETE_PENALTY, IS_INTERVENTION, SUCCESS, EpisodeEnd

STEPS = 4


class Room(gymnasium.Env):
    """Shows the step's number in everything; reuses its frame, as a renderer may; truncates after STEPS."""

    observation_space = spaces.Dict({"agent_pos": spaces.Box(0, 99, (1,), np.float32)})
    action_space = spaces.Box(-1, 2, (4,), np.float32)

    def __init__(self) -> None:
        self.t, self.frame = 0, np.zeros((2, 2, 3), np.uint8)

    def environment_state(self):
        return np.full(3, self.t, np.float64)

    def observe(self):
        self.frame[:] = self.t
        return {"agent_pos": np.full(1, self.t, np.float32), "pixels": {"front": self.frame}}

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self.observe(), {}

    def step(self, action):
        self.t += 1
        info = {DISCRETE_PENALTY: -0.1 * self.t, SUCCESS: False}
        return self.observe(), 0.5, False, self.t == STEPS, info


class Kept:
    """A sink in memory."""

    def __init__(self) -> None:
        self.episodes, self.closed = [], False

    def put(self, episode):
        assert not self.closed
        self.episodes.append(episode)

    def flush(self):
        pass

    def close(self):
        self.closed = True


@pytest.fixture
def sink() -> Kept:
    return Kept()


@pytest.fixture
def operator(sink) -> tuple[OperatorWrapper, RecordingWrapper]:
    operator = OperatorWrapper(Room(), hz=None)
    return operator, RecordingWrapper(operator, sink)


def play(env, steps, seed=None):
    env.reset(seed=seed)
    action = np.zeros(4, np.float32)
    for t in range(steps):
        action[:] = t  # reused, as a policy's buffer may be
        env.step(action)


def test_an_episode_holds_what_was_seen_before_each_action_and_what_came_of_it(sink, operator):
    play(operator[1], STEPS, seed=7)
    (episode,) = sink.episodes
    before = np.arange(STEPS)
    np.testing.assert_array_equal(episode.observations["agent_pos"][:, 0], before)
    np.testing.assert_array_equal(episode.observations["environment_state"][:, 2], before)
    np.testing.assert_array_equal(episode.observations["pixels.front"][:, 1, 1, 2], before)
    np.testing.assert_array_equal(episode.actions[:, 0], before)
    np.testing.assert_allclose(episode.penalties, -0.1 * (before + 1))
    assert (episode.seed, episode.terminated, episode.truncated) == (7, False, True)
    assert not episode.successes.any()


def test_every_step_says_who_acted(sink, operator):
    pacing, env = operator
    env.reset()
    for person in (False, True, True, False):
        pacing.declare(intervening=person)
        *_, info = env.step(np.zeros(4, np.float32))
        assert info[IS_INTERVENTION] == float(person)
    assert sink.episodes[0].interventions.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_the_operators_verdict_is_what_is_recorded(sink, operator):
    pacing, env = operator
    play(env, 2)
    pacing.request_end(EpisodeEnd.SUCCESS)
    env.step(np.zeros(4, np.float32))
    (episode,) = sink.episodes
    assert (episode.terminated, episode.truncated) == (True, False)
    assert episode.rewards.tolist() == [0.5, 0.5, 1.0]
    assert episode.successes.tolist() == [False, False, True]


def test_a_rerecorded_or_unfinished_episode_reaches_no_dataset(sink, operator):
    pacing, env = operator
    play(env, 2)
    pacing.request_end(EpisodeEnd.RERECORD)
    env.step(np.zeros(4, np.float32))
    play(env, STEPS - 1)
    play(env, STEPS)
    assert [len(episode) for episode in sink.episodes] == [STEPS]
    play(env, STEPS - 1)
    env.close()
    assert len(sink.episodes) == 1
    assert sink.closed


class Claimed(Room):
    """A classifier calls the last of `length` steps success."""

    length = STEPS

    def step(self, action):
        observation, _, _, _, info = super().step(action)
        ended = self.t == self.length
        return observation, float(ended), ended, False, {**info, CLASSIFIED: ended}


@pytest.fixture
def claimed(sink):
    operator = OperatorWrapper(Claimed(), hz=None)
    return operator, RecordingWrapper(operator, sink)


def ends_of(sink):
    return [(float(e.rewards[-1]), e.terminated, e.truncated) for e in sink.episodes]


def test_what_the_operator_takes_back_is_taken_back_in_the_recording_too(claimed, sink):
    operator, env = claimed
    play(env, STEPS)
    assert sink.episodes == []  # it can still be said
    env.reset()
    operator.request_end(EpisodeEnd.FAILURE)
    env.step(np.zeros(4, np.float32))
    assert ends_of(sink) == [(0.0, False, True)]


@pytest.mark.parametrize("how", ["the next one ends", "time passes", "flush", "close", "own verdict"])
def test_a_classifiers_success_is_handed_on_once_nobody_can_object(claimed, sink, how):
    operator, env = claimed
    env.reset()
    for _ in range(STEPS - 1):
        env.step(np.zeros(4, np.float32))
    if how == "own verdict":
        operator.request_end(EpisodeEnd.SUCCESS)
    env.step(np.zeros(4, np.float32))
    if how == "the next one ends":
        env.reset()
        operator.request_end(EpisodeEnd.RERECORD)
        env.step(np.zeros(4, np.float32))
    elif how == "time passes":
        env.unwrapped.length = 2 * APPEAL_STEPS
        env.reset()
        for _ in range(APPEAL_STEPS):
            assert sink.episodes == []
            env.step(np.zeros(4, np.float32))
    elif how == "flush":
        env.flush()
    elif how == "close":
        env.close()
    assert ends_of(sink) == [(1.0, True, False)]
