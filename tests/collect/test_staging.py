"""What a person throws away was never there."""

from __future__ import annotations

from episodes import fragment

from hil_rllib.contract import RERECORD, SUCCESS
from hil_rllib.sac.staging import Staging


def steps(fragments):
    return [(f.episode_id, f.first_step, len(f)) for f in fragments]


def test_an_episode_is_admitted_whole_and_in_order_when_it_is_over():
    staging = Staging()
    assert staging.admit(fragment("a", 0, 5)) == []
    assert staging.admit(fragment("a", 5, 5)) == []
    admitted = staging.admit(fragment("a", 10, 3, end={SUCCESS: True}))
    assert steps(admitted) == [("a", 0, 5), ("a", 5, 5), ("a", 10, 3)]


def test_a_rerecorded_episode_is_admitted_never_and_the_next_one_is_whole():
    staging = Staging()
    assert staging.admit(fragment("a", 0, 5, flags=[1.0] * 5)) == []
    assert staging.admit(fragment("a", 5, 5, end={RERECORD: True}, terminated=False)) == []
    assert staging.admit(fragment("b", 0, 5)) == []
    assert steps(staging.admit(fragment("b", 5, 1, end={}))) == [("b", 0, 5), ("b", 5, 1)]


def test_episodes_that_run_side_by_side_are_kept_apart():
    staging = Staging()
    assert staging.admit(fragment("a", 0, 5)) == []
    assert steps(staging.admit(fragment("b", 0, 2, end={}))) == [("b", 0, 2)]
    assert staging.admit(fragment("c", 0, 5)) == []
    assert staging.admit(fragment("c", 5, 1, end={RERECORD: True}, terminated=False)) == []
    assert steps(staging.admit(fragment("a", 5, 1, end={}))) == [("a", 0, 5), ("a", 5, 1)]
