"""Who is asked for more, and when."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hil_rllib.collect import collector as collector_module
from hil_rllib.collect.collector import AskedAhead, Collector, Group

IN_FLIGHT = 2


class FakeRunners:
    """Runners 0 … n - 1; `work` finishes the oldest request of each, `lose` takes one out of service."""

    def __init__(self, count=1):
        self.waiting = dict.fromkeys(range(count), 0)
        self.alive = 0
        self._done, self._lost = [], []

    def __len__(self):
        return len(self.waiting)

    def welcome(self, all_needed=False):
        self.alive = min(self.alive + 1, len(self))  # they start one after the other

    def results_of_all(self, what):
        assert self.alive == len(self)
        return [(runner, ([episode(runner)], {})) for runner in self.waiting]

    def request(self, what):
        self.waiting = {r: IN_FLIGHT if r < self.alive else 0 for r in self.waiting}

    def results(self):
        done, self._done = self._done, []
        return iter(done)

    def take_lost(self):
        lost, self._lost = self._lost, []
        return lost

    def work(self, is_done=False):
        for runner, waiting in self.waiting.items():
            if waiting:
                self.waiting[runner] -= 1
                self._done.append((runner, ([episode(runner, is_done)], {})))

    def lose(self, runner):
        self.waiting[runner] = 0
        self._lost.append(runner)


def beginning():
    """Env steps and human steps of a run that begins."""
    return 0, 0


def episode(runner, is_done=False):
    return SimpleNamespace(id_=f"episode of {runner}", is_done=is_done)


@pytest.fixture
def groups(monkeypatch):
    monkeypatch.setattr(
        collector_module.ray, "remote", lambda **_: lambda _: SimpleNamespace(remote=lambda: None)
    )
    return [
        Group("operator", FakeRunners(), realtime=True, operator=True),
        Group("autonomous", FakeRunners(2), realtime=False),
    ]


def collected(collector, hold_back=False):
    return [
        (group.name, *(e.id_ for e in episodes))
        for group, episodes, _ in collector.collect(hold_back=hold_back)
    ]


def test_every_runner_keeps_its_queue_full_and_finished_work_is_taken_once(groups):
    collector = Collector(lambda greet: groups, False, beginning)
    assert collected(collector) == []
    assert [group.runners.waiting for group in groups] == [{0: 2}, {0: 2, 1: 0}]  # the last is not there yet
    assert collector.counts() == {"runners_alive": 2, "operators_alive": 1}
    assert collected(collector) == []
    assert collector.counts() == {"runners_alive": 3, "operators_alive": 1}
    groups[1].runners.work()
    assert collected(collector) == [("autonomous", "episode of 0"), ("autonomous", "episode of 1")]
    assert groups[1].runners.waiting == {0: 2, 1: 2}
    assert collected(collector) == []


def test_a_learner_that_is_behind_holds_back_all_but_the_person(groups):
    collector = Collector(lambda greet: groups, False, beginning)
    collected(collector)
    collected(collector)
    for group in groups:
        group.runners.work()
    assert len(collected(collector, hold_back=True)) == 3  # what is done is taken all the same
    assert groups[0].runners.waiting == {0: 2}
    assert groups[1].runners.waiting == {0: 1, 1: 1}
    collected(collector)
    assert groups[1].runners.waiting == {0: 2, 1: 2}


def test_lockstep_waits_for_all_and_takes_one_fragment_of_each_in_order(groups):
    collector = Collector(lambda greet: groups, True, beginning)
    for _ in range(3):
        assert collected(collector) == [
            ("operator", "episode of 0"),
            ("autonomous", "episode of 0"),
            ("autonomous", "episode of 1"),
        ]


def test_no_two_environments_of_several_runners_share_a_seed(groups):
    """RLlib gives runner w of n the seed + w, Gymnasium its environment i that + i."""
    greet = Collector(lambda greet: groups, True, beginning)._greeting(0)
    seeds = []
    for index in range(1, 5):
        runner = SimpleNamespace(_seed=7 + index, worker_index=index, num_envs=4)
        greet(runner)
        seeds += [runner._seed + i for i in range(4)]
    assert seeds == list(range(8, 24))


@pytest.mark.parametrize(("is_done", "cut_off"), [(False, ["episode of 1"]), (True, [])])
def test_a_lost_runner_cuts_off_the_episode_it_was_in(groups, is_done, cut_off):
    collector = Collector(lambda greet: groups, False, beginning)
    collected(collector)
    collected(collector)
    groups[1].runners.work(is_done)
    collected(collector)
    assert collector.cut_off() == []
    groups[1].runners.lose(1)
    assert collector.cut_off() == cut_off
    assert collector.cut_off() == []


class FakeRay:
    """References to values; those in `missing` have not arrived, an Exception is raised by `get`."""

    def __init__(self):
        self.missing = []

    def put(self, value):
        return SimpleNamespace(value=value)

    def wait(self, refs, timeout):
        assert timeout == 0  # the runner never waits
        return [ref for ref in refs if ref not in self.missing], []

    def get(self, ref):
        assert ref not in self.missing, "would wait"
        if isinstance(ref.value, Exception):
            raise ref.value
        return ref.value


class FakeServer:
    """A state server that gives these answers and notes the questions. over: what it says beside them."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []
        self.over = SimpleNamespace(value=False)
        self.ask = SimpleNamespace(options=lambda num_returns: SimpleNamespace(remote=self._ask))

    def _ask(self, seq_no):
        self.asked.append(seq_no)
        return self.answers[len(self.asked) - 1], self.over


@pytest.fixture
def fake_ray(monkeypatch):
    fake = FakeRay()
    monkeypatch.setattr(collector_module, "ray", fake)
    return fake


def state(seq_no):
    return {"weights_seq_no": seq_no, "rl_module": SimpleNamespace(weights=seq_no)}


def test_a_runner_gets_new_weights_once_they_are_here_and_never_waits(fake_ray):
    answers = [fake_ray.put(value) for value in (state(3), state(4), None, None)]
    server = FakeServer(*answers)
    ahead = AskedAhead(server)
    assert ahead.pull_if_newer.remote(0) is answers[0]
    fake_ray.missing = [answers[1]]
    assert ahead.pull_if_newer.remote(3).value is None
    fake_ray.missing = [answers[1].value["rl_module"]]  # the answer has come, the weights it names have not
    assert ahead.pull_if_newer.remote(3).value is None
    fake_ray.missing = []
    assert ahead.pull_if_newer.remote(3) is answers[1]
    assert ahead.pull_if_newer.remote(4).value is None
    assert server.asked == [0, 3, 4, 4]


def test_a_runner_hears_that_the_run_is_over_without_waiting(fake_ray):
    server = FakeServer(*(fake_ray.put(None) for _ in range(3)))
    ahead = AskedAhead(server)
    assert not ahead.over
    ahead.pull_if_newer.remote(0)
    assert not ahead.over
    server.over = SimpleNamespace(value=True)
    assert not ahead.over  # by the question before
    ahead.pull_if_newer.remote(0)
    fake_ray.missing = [server.over]
    assert not ahead.over
    fake_ray.missing = []
    assert ahead.over
    server.over = SimpleNamespace(value=RuntimeError("never asked again"))
    assert ahead.over


def test_a_runner_asks_anew_after_the_server_died_and_does_not_wait_for_the_next(fake_ray):
    answers = [fake_ray.put(value) for value in (state(1), RuntimeError("dead"), state(9), None)]
    ahead = AskedAhead(FakeServer(*answers))
    ahead.pull_if_newer.remote(0)
    with pytest.raises(RuntimeError, match="dead"):
        ahead.pull_if_newer.remote(1)
    fake_ray.missing = [answers[2]]  # it takes seconds to come back
    assert ahead.pull_if_newer.remote(1).value is None
    fake_ray.missing = []
    assert ahead.pull_if_newer.remote(1) is answers[2]
