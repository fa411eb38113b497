"""Episodes from all runners, weights to all runners: what `training_step` calls "collect" and "push"."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import ray
from ray.exceptions import RayError
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from hil_rllib.collect.news import NewsPoster, NewsServer, reader_for
from hil_rllib.collect.runners import Greet, Greeting, RunnerGroup
from hil_rllib.collect.snapshot import begin_apart

RESEED = 7919  # between a runner's seeds before and after a restart: more than there are runners
# [s] that each version of the weights is held here. Of one that a runner lets go of after its owner, Ray 2.60
# keeps 0.5 kB for ever: 1 MB a minute of a quick run.
HELD_S = 5.0
FINISH_S = 10.0  # [s] for runners to end the fragment they are in, and to hear that there is no other


@dataclass
class Group:
    """A group of runners.

    operator: it has an input device. realtime: a person paces it, so it is never held back for the learner.
    """

    name: str
    runners: RunnerGroup
    realtime: bool
    operator: bool = False


class AskedAhead:
    """The state server as RLlib's runner calls it, without the wait for its answer.

    A runner asks for newer weights before each fragment, and on a busy machine waits tens of milliseconds,
    which the person feels. This gives it the answer to the question before, once all of it is here, and until
    then "nothing newer". Only the first answer, the weights to begin with, is waited for. `over` comes with
    the answers: whether the run has ended.

    also: called each time a runner asks.
    """

    def __init__(self, server: Any, also: Callable[[], None] = lambda: None) -> None:
        self._server, self._also = server, also
        self._asked: ray.ObjectRef | None = None
        self._end: ray.ObjectRef | None = None  # the part of the newest answer that tells whether it is over
        self._over = False
        self._begun = False  # the first answer is here
        self._nothing = ray.put(None)

    @property
    def pull_if_newer(self) -> Self:
        """RLlib calls `server.pull_if_newer.remote(seq_no)`."""
        return self

    def remote(self, seq_no: int) -> ray.ObjectRef:
        """A reference to the newer state, or to None. seq_no: of the weights the runner has."""
        self._also()
        if self._asked is None:  # the first time, and after a server was lost
            self._asked = self._ask(seq_no)
        first, self._begun = not self._begun, True
        if not first and not _is_here(self._asked):
            return self._nothing
        answer, self._asked = self._asked, None
        state = ray.get(answer)  # raises where the server was lost: the next call asks anew
        if state and not first and not _is_here(state[COMPONENT_RL_MODULE]):
            self._asked = answer
            return self._nothing
        self._asked = self._ask(state[WEIGHTS_SEQ_NO] if state else seq_no)
        return answer

    @property
    def over(self) -> bool:
        """Whether the run has ended, by the newest answer that is here."""
        if not self._over and self._end is not None and _is_here(self._end):
            with contextlib.suppress(RayError):  # the server was lost
                self._over = ray.get(self._end)
        return self._over

    def _ask(self, seq_no: int) -> ray.ObjectRef:
        state, self._end = self._server.ask.options(num_returns=2).remote(seq_no)
        return state


def _is_here(ref: ray.ObjectRef) -> bool:
    """Whether it can be had without waiting."""
    return bool(ray.wait([ref], timeout=0)[0])


class Collector:
    """Samples the groups, asynchronously or in lockstep, and serves them weights.

    Asynchronous: every runner that is there has its requests queued, finished ones are fetched without
    waiting. Runners that nobody paces wait while the learner is behind, so the UTD ratio holds from both
    sides.
    Lockstep: one fragment of every runner, in order; a run is then a function of its seed.

    make_groups: is given what every runner is to be greeted with (see `RunnerGroup`).
    so_far: (env steps, a person's steps at each device) of the run, for runners that do not begin with it.
    """

    def __init__(
        self,
        make_groups: Callable[[Greet], list[Group]],
        lockstep: bool,
        so_far: Callable[[], tuple[int, int]],
    ) -> None:
        self._lockstep = lockstep
        self._so_far = so_far
        self.goes_on = False  # the run, without the runners it had
        server = ray.remote(num_cpus=0, max_restarts=-1, max_concurrency=16)(NewsServer)
        self._server = server.remote()
        self.post = NewsPoster(self._server)  # for those who look at the run from a runner
        self.groups = make_groups(self._greeting)
        self._running: dict[tuple[str, int], set[str]] = defaultdict(set)  # each runner's episodes
        self._offered: deque[tuple[float, ray.ObjectRef]] = deque()  # (when, weights)

    def collect(self, *, hold_back: bool) -> Iterator[tuple[Group, list[SingleAgentEpisode], Any]]:
        """(group, episode fragments, metrics) of every finished request.

        hold_back: ask only real-time runners for more. Raises RunnerError where the run cannot go on.
        """
        for group in self.groups:
            if self._lockstep:
                self.await_all()
                results = iter(group.runners.results_of_all(_sample))
            else:
                group.runners.welcome()
                results = self._fetched(group, hold_back)
            yield from self._noted(group, results)

    def finish(self) -> Iterator[tuple[Group, list[SingleAgentEpisode], Any]]:
        """As `collect`, what runners did until they heard that the run is over: then they do nothing more.

        In lockstep nothing is under way.
        """
        self._server.end.remote()
        deadline = time.monotonic() + FINISH_S
        while any(group.runners.busy for group in self.groups) and time.monotonic() < deadline:
            for group in self.groups:
                yield from self._noted(group, group.runners.results())
            time.sleep(0.002)

    def await_all(self) -> None:
        """Return once every runner is in service. Raises RunnerError where one cannot be made."""
        for group in self.groups:
            while group.runners.alive < len(group.runners):
                time.sleep(0.02)
                group.runners.welcome(all_needed=True)

    def cut_off(self) -> list[str]:
        """Ids of episodes that will not go on, since last asked: their runners were lost."""
        ids: list[str] = []
        for group in self.groups:
            for index in group.runners.take_lost():
                ids += self._running.pop((group.name, index), ())
        return ids

    def counts(self) -> dict[str, float]:
        """How many runners are in service."""
        alive = {group.name: group.runners.alive for group in self.groups}
        return {
            "runners_alive": sum(alive.values()),  # operators' among them
            "operators_alive": sum(alive[group.name] for group in self.groups if group.operator),
        }

    def push(self, weights: dict[str, Any], seq_no: int) -> None:
        """Offer new weights; runners take them at their next `sample`. weights: an RLModule state."""
        offered, now = ray.put(weights), time.monotonic()
        pushed = self._server.push.remote({COMPONENT_RL_MODULE: offered, WEIGHTS_SEQ_NO: seq_no})
        self._offered.append((now, offered))
        while now - self._offered[0][0] > HELD_S:
            self._offered.popleft()
        if self._lockstep:
            ray.get(pushed)

    def _greeting(self, starts: int) -> Greeting:
        """What a runner is told when it has started. starts: how often it had before."""
        server, lockstep = self._server, self._lockstep
        env_steps, human_steps = self._so_far()
        begins = not self.goes_on and starts == 0

        def greet(runner: EnvRunner) -> str:
            runner._env_runner_state_server = (
                server if lockstep else AskedAhead(server, reader_for(runner, server))
            )
            # A runner cut off and found again alive: some of its episode was lost on the way.
            runner._needs_initial_reset = True
            # RLlib and Gymnasium both count up from one seed: no two environments may live the same episodes.
            if runner._seed is not None:
                runner._seed += (runner.worker_index - 1) * (runner.num_envs - 1)
            if not begins:
                begin_apart(runner, env_steps + RESEED * starts, human_steps)
            return ray.util.get_node_ip_address()

        return greet

    def _noted(
        self, group: Group, results: Iterator[tuple[int, Any]]
    ) -> Iterator[tuple[Group, list[SingleAgentEpisode], Any]]:
        """The results, while it is kept in mind which episodes each runner is in."""
        for index, (episodes, metrics) in results:
            running = self._running[group.name, index]
            for episode in episodes:
                (running.discard if episode.is_done else running.add)(str(episode.id_))
            yield group, episodes, metrics

    def _fetched(self, group: Group, hold_back: bool) -> Iterator[tuple[int, Any]]:
        """Finished requests; the queues are full before and after, unless the group is held back."""
        ask = group.realtime or not hold_back
        if ask:
            group.runners.request(_sample)
        yield from group.runners.results()
        if ask:
            group.runners.request(_sample)


def _sample(runner: EnvRunner) -> tuple[list[SingleAgentEpisode], Any]:
    # A plain return value belongs to the driver and outlives the runner; a ray.put in the runner would not.
    over = getattr(runner._env_runner_state_server, "over", False)
    return [] if over else runner.sample(), runner.get_metrics()
