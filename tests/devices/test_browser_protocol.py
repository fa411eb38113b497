"""What a page may say, how often, and who is heard."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil_rllib.devices.browser.access import Access, new_token, same_origin
from hil_rllib.devices.browser.address import is_loopback, page_url
from hil_rllib.devices.browser.board import CURVES, POINTS, Board
from hil_rllib.devices.browser.protocol import MAX_BYTES, NAMES, Allowance, BadMessage, Freshness, parse
from hil_rllib.devices.browser.seat import ASKING_S, IDLE_S, Seat

INPUT = {
    "type": "input",
    "hands": ["+x", "success"],
    "touch": [0, 0.5, -1],
    "pad": [],
    "sticks": [0, 0, 0],
    "seen": 12.5,
    "held_ms": 3,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def test_what_the_page_sends_is_understood():
    for message in (
        INPUT,
        {"type": "seen", "seen": 1, "held_ms": 0.5},
        {"type": "ask"},
        {"type": "give"},
        {"type": "answer", "accept": False},
    ):
        assert parse(json.dumps(message)) == message
    everything = INPUT | {"hands": sorted(NAMES), "pad": sorted(NAMES), "touch": [-0.123456789012345] * 3}
    assert len(json.dumps(everything)) < MAX_BYTES / 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hands": ["+w"]}, "hands is out of range"),
        ({"hands": ["+x", "+x"]}, "hands"),
        ({"hands": [["+x"]]}, "hands"),
        ({"hands": "+x"}, "hands"),
        ({"touch": [0, 0]}, "touch"),
        ({"touch": [0, 0, 1.01]}, "touch"),
        ({"touch": [0, 0, True]}, "touch"),
        ({"sticks": [0, 0, 10**300]}, "sticks"),
        ({"seen": -1}, "seen"),
        ({"seen": "1"}, "seen"),
        ({"extra": 1}, "must have type, hands"),
        ({"type": "reboot"}, "type must be one of input, seen"),
        ({"type": ["input"]}, "type"),
    ],
)
def test_anything_else_is_refused_with_the_reason(change, reason):
    with pytest.raises(BadMessage, match=reason):
        parse(json.dumps(INPUT | change))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "NaN",
        json.dumps(INPUT).replace("0.5", "Infinity"),
        json.dumps(INPUT).replace("0.5", "1e999"),
        json.dumps(INPUT)[:-1] + ', "seen": 1}',
        json.dumps({"type": "ask", "x": "y" * MAX_BYTES}),
        "[" * 1000,
        "\ud800",
    ],
)
def test_what_is_no_such_json_is_refused(text):
    with pytest.raises(BadMessage):
        parse(text)


@given(JSON, st.sampled_from(sorted(INPUT)))
def test_no_value_gets_past_the_checks(value, field):
    try:
        message = parse(json.dumps(INPUT | {field: value}))
    except BadMessage:
        return
    assert message["type"] == "input"
    assert set(message["hands"]) | set(message["pad"]) <= NAMES
    assert all(-1 <= v <= 1 and math.isfinite(v) for v in (*message["touch"], *message["sticks"]))


@given(st.text(max_size=200))
def test_no_text_does_more_than_be_refused(text):
    with pytest.raises(BadMessage):
        parse(text)


def test_allowance_is_a_rate_with_a_burst():
    allowance = Allowance(per_second=10.0, burst=5.0)
    assert [allowance.take(0.0) for _ in range(6)] == [True] * 5 + [False]
    assert [allowance.take(0.2) for _ in range(3)] == [True, True, False]
    assert sum(allowance.take(1.0 + i / 1000) for i in range(1000)) == pytest.approx(5 + 10, abs=1)


def test_age_is_bounded_without_comparing_clocks():
    fresh = Freshness()
    assert fresh.note(seen=5.0, held_ms=0.0, now=5.1) == math.inf  # was never sent
    fresh.sent_at = 10.0
    assert fresh.note(seen=9.0, held_ms=950.0, now=10.0) == pytest.approx(1.0)
    assert fresh.round_trip_ms == pytest.approx(50.0)
    assert fresh.note(seen=10.5, held_ms=0.0, now=10.6) == math.inf
    assert fresh.acknowledged == 9.0


def test_token_and_cookie():
    token = new_token()
    access = Access(token, 8642)
    assert access.admits(token)
    assert access.knows(Access(token, 8642).session)
    for wrong in ("", token[:-1], token + "x", "é", "\ud800"):
        assert not access.admits(wrong)
        assert not access.knows(wrong)
    assert token not in access.session
    assert Access(token, 1).cookie != access.cookie


def test_only_a_page_of_this_server_may_connect():
    assert same_origin("http://localhost:8642", "localhost:8642")
    assert same_origin("https://robot.example", "ROBOT.example")
    for origin in (
        None,
        "null",
        "http://evil.example",
        "http://localhost:8643",
        "file://localhost:8642",
        "http://[",
    ):
        assert not same_origin(origin, "localhost:8642")
    assert not same_origin("http://localhost", None)


def test_addresses():
    assert [is_loopback(a) for a in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.1.5", "robot")] == (
        [True] * 3 + [False] * 3
    )
    assert page_url("127.0.0.1", 80, "t") == "http://127.0.0.1:80/?token=t"
    assert page_url("::1", 80, "t") == "http://[::1]:80/?token=t"
    assert "0.0.0.0" not in page_url("0.0.0.0", 80, "t")


def test_one_drives_and_the_next_is_asked_for():
    seat = Seat()
    seat.arrive(1, 0.0)
    seat.arrive(2, 0.0)
    seat.active(1, 0.0)
    seat.ask(2, 1.0)
    assert (seat.driver, seat.asker) == (1, 2)
    seat.ask(3, 1.0)  # the question is out already
    seat.answer(2, True, 1.0)  # nobody grants their own wish
    assert (seat.driver, seat.asker) == (1, 2)
    seat.answer(1, False, 1.0)
    assert (seat.driver, seat.asker) == (1, None)
    seat.ask(2, 2.0)
    seat.answer(1, True, 2.0)
    assert (seat.driver, seat.asker) == (2, None)
    seat.leave(2, 3.0)
    assert seat.driver is None
    seat.ask(3, 3.0)
    assert seat.driver == 3


def test_an_idle_driver_makes_way_and_an_active_one_need_not_answer():
    seat = Seat()
    seat.arrive(1, 0.0)
    seat.active(1, 10.0)
    seat.ask(2, 11.0)
    for now in range(11, 11 + int(ASKING_S) - 1):
        seat.active(1, now)
        seat.update(now)
        assert (seat.driver, seat.asker) == (1, 2)
    seat.active(1, 11.0 + ASKING_S)
    seat.update(11.0 + ASKING_S)
    assert (seat.driver, seat.asker) == (1, None)
    seat.ask(2, 40.0 + IDLE_S)  # idle for long
    assert seat.driver == 2


def test_whoever_asked_follows_a_driver_that_leaves():
    seat = Seat()
    seat.arrive(1, 0.0)
    seat.ask(2, 1.0)
    seat.leave(1, 2.0)
    assert (seat.driver, seat.asker) == (2, None)
    seat.ask(3, 3.0)
    seat.leave(3, 3.0)
    assert (seat.driver, seat.asker) == (2, None)


def test_board_keeps_the_episode_and_a_bounded_curve():
    board = Board()
    step = {"kind": "step", "slot": 0, "end": None}
    board.take_step(step | {"step": 0, "who": "policy"})
    board.take_step(step | {"step": 1, "who": "policy"})
    board.take_step(step | {"step": 4, "who": "human", "end": "success"})  # two were dropped on the way
    assert (board.now()["timeline"], board.now()["outcomes"]) == ("p??h", ["success"])
    for i in range(10 * POINTS):
        board.take_values({"env_steps": i, **dict.fromkeys(CURVES, 0.5)})
    assert POINTS / 2 - 1 <= len(board.points) <= POINTS
    assert board.points[0] == [0, 0.5, 0.5]
    assert board.points[-1][0] > 9 * POINTS
