"""Runners in and out of service: who is asked, what is taken, and what is said."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from hil_rllib.collect import runners as module
from hil_rllib.collect.runners import REPLACE_S, RETRY_S, SAY_PENDING_S, RunnerError, RunnerGroup

GONE = ActorUnavailableError("gone", None)


class FakeRay:
    """References to answers that arrive when they are given."""

    def wait(self, refs, num_returns, timeout):
        assert timeout == 0  # the driver never waits
        return [ref for ref in refs if hasattr(ref, "value")], []

    def get(self, ref):
        if isinstance(ref.value, Exception):
            raise ref.value
        return ref.value


class Call:
    """A call of an actor; once answered it has a `value`."""

    def __init__(self, what):
        self.what = what


class FakeActor:
    """Keeps the calls, oldest first."""

    def __init__(self):
        self.calls = []
        self.apply = SimpleNamespace(remote=self._call)

    def _call(self, what):
        self.calls.append(Call(what))
        return self.calls[-1]

    def answer(self, value, call=-1):
        self.calls[call].value = value


class Manager:
    """RLlib's, as far as it is used."""

    def __init__(self, count):
        self.handles = {index: FakeActor() for index in range(1, count + 1)}
        self.healthy = set(self.handles)

    def actors(self):
        return self.handles

    def is_actor_healthy(self, index):
        return index in self.healthy

    def set_actor_state(self, index, healthy):
        (self.healthy.add if healthy else self.healthy.discard)(index)

    def healthy_actor_ids(self):
        return sorted(self.healthy)

    def num_healthy_actors(self):
        return len(self.healthy)


class Group(RunnerGroup):
    """The group without Ray; `made` are the actors that took another's place."""

    def __init__(self, count):
        self.made = []
        self._count_of = count
        super().__init__([f"autonomous_{i + 1}" for i in range(count)], lambda starts: f"greeting {starts}")

    def _make_worker(self, *, worker_index, **_):
        self.made.append(FakeActor())
        return self.made[-1]


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def make(monkeypatch, clock):
    def init(self, **_):
        self._worker_manager = Manager(self._count_of)
        self._remote_config = SimpleNamespace(max_requests_in_flight_per_env_runner=2)
        self._env_creator = None

    monkeypatch.setattr(module.EnvRunnerGroup, "__init__", init)
    monkeypatch.setattr(module, "ray", FakeRay())
    return Group


def in_service(group, *indices):
    """Let these runners answer their greeting."""
    group.welcome()
    for index in indices:
        group._handles[index].answer("10.0.0.1")
    group.welcome()
    return [group._handles[index] for index in indices]


def test_only_runners_that_answered_are_asked(make):
    group = make(3)
    first, _, third = (group._handles[i] for i in (1, 2, 3))
    in_service(group, 1, 3)
    group.request("sample")
    assert [[call.what for call in actor.calls] for actor in group._handles.values()] == [
        ["greeting 0", "sample", "sample"],
        ["greeting 0"],
        ["greeting 0", "sample", "sample"],
    ]
    assert (group.alive, len(group)) == (2, 3)
    group.request("sample")
    assert len(first.calls) == len(third.calls) == 3  # their queues are full


def test_results_come_in_the_order_of_the_requests(make):
    group = make(1)
    (actor,) = in_service(group, 1)
    group.request("sample")
    actor.answer("second", call=2)  # a small one overtakes the large one before it
    assert list(group.results()) == []
    actor.answer("first", call=1)
    assert list(group.results()) == [(1, "first"), (1, "second")]
    assert list(group.results()) == []


def test_a_lost_runner_is_greeted_until_it_answers_and_nothing_it_owed_is_taken(make, clock, caplog):
    caplog.set_level(logging.INFO)
    group = make(2)
    first, second = in_service(group, 1, 2)
    group.request("sample")
    first.answer("kept", call=1)
    first.answer(GONE, call=2)
    second.answer("also kept", call=1)
    assert sorted(group.results()) == [(1, "kept"), (2, "also kept")]
    assert (group.alive, group.take_lost(), group.take_lost()) == (1, [1], [])
    assert caplog.messages == [
        "Runner autonomous_1 on 10.0.0.1 is lost: its process or its node is gone. "
        "The run goes on: 1 of 2 runners."
    ]
    for _ in range(3):  # still not there; asked once a second
        group.welcome()
        clock.now += RETRY_S
        group.welcome()
        assert first.calls[-1].what == "greeting 1"
        first.answer(GONE)
        group.welcome()
    assert len(first.calls) == 3 + 3
    clock.now += RETRY_S
    group.request("sample")
    assert len(first.calls) == 6  # nothing is asked of it meanwhile
    in_service(group, 1)
    assert caplog.messages[1:] == ["Runner autonomous_1 is here, on 10.0.0.1: 2 of 2 runners."]
    group.request("sample")
    first.answer("a new episode", call=-2)
    assert list(group.results()) == [(1, "a new episode")]


def cannot_be_made(text):
    task = RayTaskError("__init__", "traceback", ValueError(text))
    error = ActorDiedError(task)
    assert error.actor_init_failed
    return error


def test_a_runner_that_cannot_be_made_ends_the_run_with_its_own_error(make):
    group = make(2)
    group.welcome()
    group._handles[1].answer(cannot_be_made("no such device"))
    with pytest.raises(RunnerError, match="Runner autonomous_1 cannot start: ValueError: no such device"):
        group.welcome()


def test_on_a_later_node_it_is_told_and_tried_again(make, clock, caplog):
    group = make(2)
    in_service(group, 1)
    group._handles[2].answer(cannot_be_made("no OpenGL here"))
    group.welcome()
    assert "Runner autonomous_2 cannot start, trying again: ValueError: no OpenGL here" in caplog.text
    (another,) = group.made
    group.welcome()
    assert another.calls == []
    clock.now += REPLACE_S
    in_service(group, 2)
    assert (another.calls[0].what, group.alive) == ("greeting 0", 2)


def test_runners_without_a_place_are_named_once(make, clock, caplog):
    group = make(3)
    clock.now += SAY_PENDING_S + 1  # cloning goes first, and asks for none
    in_service(group, 1)
    assert not caplog.messages
    clock.now += SAY_PENDING_S + 1
    group.welcome()
    group.welcome()
    assert caplog.messages == [
        "No free place yet, or a slow start: runner autonomous_2, autonomous_3. So far 1 of 3 runners."
    ]


def test_where_all_are_needed_one_that_cannot_be_made_ends_the_run(make):
    group = make(2)
    in_service(group, 1)
    group._handles[2].answer(cannot_be_made("no OpenGL here"))
    with pytest.raises(RunnerError, match="Runner autonomous_2 cannot start: ValueError: no OpenGL here"):
        group.welcome(all_needed=True)


def test_lockstep_ends_where_a_runner_is_lost(make):
    group = make(2)
    in_service(group, 1, 2)
    for actor in group._handles.values():
        actor.apply = SimpleNamespace(remote=lambda what: SimpleNamespace(value=GONE))  # answered at once
    with pytest.raises(RunnerError, match=r"autonomous_1 is lost: .* with --resume"):
        group.results_of_all("sample")
