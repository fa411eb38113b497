"""Which of several robots needs its person: value, disagreement and time without progress."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sac_parts import make_module, make_obs

from hil_rllib.contract import IS_INTERVENTION
from hil_rllib.sac.attention import EVERY_S, RISE, SILENT_S, STUCK_S, Attention


class Fragment(SimpleNamespace):
    """As much of an episode's fragment as is looked at."""

    def __len__(self):
        return self.length

    def get_observations(self, index):
        return {"value": np.float32(self.value)}

    def get_extra_model_outputs(self, name):
        assert name == IS_INTERVENTION
        return [np.float32(self.by_hand)]


def fragment(value, t, episode="a", by_hand=0.0):
    return Fragment(value=value, t=t, id_=episode, by_hand=by_hand, length=5)


@pytest.fixture
def attention():
    """Values are read off the observation; disagreement is a tenth of them."""
    made = Attention(lambda obs: (obs["value"], obs["value"] / 10), clock=lambda: made.now)
    made.now = 0.0
    return made


def report(attention, **fragments):
    for robot, one in fragments.items():
        attention.note(robot, one)
    attention.now += EVERY_S
    return {row["robot"]: row for row in attention.report()}


def test_who_gets_nowhere_for_longest_is_suggested(attention):
    stuck = round(10 * STUCK_S)
    report(attention, one=fragment(0.5, 0), two=fragment(0.5, 0), three=fragment(0.5, 0))
    rows = report(
        attention,
        one=fragment(0.5 + 2 * RISE, stuck),
        two=fragment(0.5, stuck + 5),
        three=fragment(0.4, stuck),
    )
    assert [rows[robot]["stuck_s"] for robot in ("one", "two", "three")] == [0.0, STUCK_S + 0.5, STUCK_S]
    assert [rows[robot]["suggested"] for robot in ("one", "two", "three")] == [False, True, False]
    assert rows["three"]["value"] == pytest.approx(0.4)
    assert rows["three"]["disagreement"] == pytest.approx(0.04)


def test_nobody_is_sent_where_somebody_is(attention):
    stuck = round(10 * STUCK_S)
    report(attention, one=fragment(0.5, 0), two=fragment(0.5, 0))
    rows = report(attention, one=fragment(0.5, stuck + 5, by_hand=1.0), two=fragment(0.5, stuck))
    assert rows["one"]["by_hand"]
    assert [rows[robot]["suggested"] for robot in ("one", "two")] == [False, True]


def test_an_episode_begins_anew(attention):
    report(attention, one=fragment(0.9, 0))
    rows = report(attention, one=fragment(0.1, 5, episode="b"))
    assert rows["one"]["stuck_s"] == 0.0
    assert not rows["one"]["suggested"]


def test_it_looks_once_a_second_and_values_that_are_none_do_no_harm(attention):
    first = report(attention, one=fragment(0.5, 0))
    attention.note("one", fragment(np.nan, 100))
    assert attention.report() == list(first.values())
    rows = report(attention)
    assert rows["one"]["value"] is None
    assert rows["one"]["suggested"]


def test_a_robot_whose_runner_is_gone_is_left_out(attention):
    stuck = round(10 * STUCK_S)
    report(attention, one=fragment(0.5, 0), two=fragment(0.5, 0))
    assert report(attention, one=fragment(0.5, stuck), two=fragment(0.5, 5))["one"]["suggested"]
    while attention.now < SILENT_S + 5 * EVERY_S:
        rows = report(attention, two=fragment(0.9, 10))
    assert list(rows) == ["two"]
    attention.now += SILENT_S
    assert attention.report() == []


@pytest.mark.parametrize("kind", ["state", "features"])
def test_the_critics_mean_and_spread(kind):
    module = make_module(kind, num_critics=3)
    obs = make_obs(kind, 5)
    value, disagreement = module.appraise(obs)
    latent = module.encoder(obs)
    q = module.critics(latent, module.actor(latent)[0].tanh()).detach()
    assert np.allclose(value, q.mean(0), atol=1e-6)
    assert np.allclose(disagreement, q.numpy().std(0), atol=1e-6)
    assert (disagreement > 0).all()
