"""The rings: every transition once, never across a boundary, oldest out first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ring_parts import SPACE, fragment

from hil_rllib.contract import DISCRETE_PENALTY, IS_INTERVENTION
from hil_rllib.data.replay import Fragment, ReplayMix, Ring


def contents(ring: Ring, draws: int = 4000) -> set[float]:
    """All observations that sampling can give, each checked to be followed by its own next one."""
    batch = ring.empty_batch(draws)
    ring.sample(np.random.default_rng(0), batch)
    np.testing.assert_array_equal(batch[Columns.NEXT_OBS]["x"], batch[Columns.OBS]["x"] + 1)
    np.testing.assert_array_equal(batch[Columns.REWARDS], batch[Columns.OBS]["x"][:, 0])
    np.testing.assert_array_equal(batch[Columns.ACTIONS][:, 0], batch[Columns.REWARDS])
    return set(batch[Columns.REWARDS].tolist())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=30), st.integers(10, 60)
)
def test_ring_holds_exactly_the_newest_transitions_of_interleaved_runners(pieces, capacity):
    ring = Ring(capacity, SPACE)
    at = dict.fromkeys(range(4), 0)
    added: list[float] = []
    for episode, length in pieces:
        ring.add(fragment(episode, at[episode], length))
        added += [1000 * episode + at[episode] + t for t in range(length)]
        at[episode] += length
    held = contents(ring)
    assert held == set(added[-len(ring) :])
    assert len(ring) <= capacity


def test_continued_fragments_share_their_common_observation():
    ring = Ring(100, SPACE)
    for first in (0, 5, 10):
        ring.add(fragment(0, first, 5))
    assert ring.rows_written == 16  # 15 steps and one last observation
    assert contents(ring) == {float(t) for t in range(15)}


def test_a_fragment_longer_than_the_ring_is_refused():
    with pytest.raises(ValueError, match="does not fit a ring of 10 rows"):
        Ring(10, SPACE).add(fragment(0, 0, 10))


def test_termination_is_not_truncation_in_what_an_episode_becomes():
    for terminated, truncated in ((True, False), (False, True)):
        episode = SingleAgentEpisode(
            observations=[{"x": np.zeros(1, np.float32)}] * 3,
            actions=[np.zeros(4, np.float32)] * 2,
            rewards=[0.0, 1.0],
            infos=[{}, {}, {DISCRETE_PENALTY: -0.02}],
            terminated=terminated,
            truncated=truncated,
            extra_model_outputs={IS_INTERVENTION: [0.0, 1.0]},
            len_lookback_buffer=0,
        )
        made = Fragment.from_episode(episode)
        assert made.steps[Columns.TERMINATEDS].tolist() == [False, terminated]
        np.testing.assert_allclose(made.steps[DISCRETE_PENALTY], [0.0, -0.02])
        assert made.steps[IS_INTERVENTION].tolist() == [0.0, 1.0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_interventions_are_the_flagged_steps_and_no_others(flags):
    parts = fragment(0, 0, len(flags), flags=[float(f) for f in flags]).interventions()
    rewards = [r for part in parts for r in part.steps[Columns.REWARDS].tolist()]
    assert rewards == [float(t) for t, flag in enumerate(flags) if flag]
    for part in parts:
        assert len(part.obs["x"]) == len(part) + 1


def test_every_batch_is_half_demonstrations_and_says_which_half():
    online, demo = Ring(100, SPACE), Ring(100, SPACE)
    mix = ReplayMix(online, demo, batch_size=8, demo_fraction=0.5, seed=0)
    demo.add(fragment(1, 0, 20))
    block, n_demo = mix.sample(3)
    assert n_demo == 8  # nothing of its own yet
    online.add(fragment(0, 0, 20))
    block, n_demo = mix.sample(3)
    assert n_demo == 4
    is_demo = block[Columns.REWARDS].reshape(3, 8) >= 1000
    assert is_demo[:, :4].all()
    assert not is_demo[:, 4:].any()
