"""Episodes from all runners, weights to all runners: what `training_step` calls "collect" and "push"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import ray
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.env.env_runner_state_server import EnvRunnerStateServer
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

TAG = "sample"


@dataclass
class Group:
    """A group of runners. realtime: a person paces it, so it is never held back for the learner."""

    name: str
    runners: EnvRunnerGroup
    realtime: bool


class AskedAhead:
    """The state server as RLlib's runner calls it, without the wait for its answer.

    A runner asks for newer weights before each fragment, and on a busy machine waits tens of milliseconds,
    which the person feels. This gives it the answer to the question before, once all of it is here, and until
    then "nothing newer". Only the first answer, the weights to begin with, is waited for.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self._asked: ray.ObjectRef | None = None
        self._nothing = ray.put(None)

    @property
    def pull_if_newer(self) -> Self:
        """RLlib calls `server.pull_if_newer.remote(seq_no)`."""
        return self

    def remote(self, seq_no: int) -> ray.ObjectRef:
        """A reference to the newer state, or to None. seq_no: of the weights the runner has."""
        first = self._asked is None
        if not first and not _is_here(self._asked):
            return self._nothing
        answer, self._asked = self._asked or self._ask(seq_no), None
        state = ray.get(answer)  # may raise: the next call asks anew
        if state and not first and not _is_here(state[COMPONENT_RL_MODULE]):
            self._asked = answer
            return self._nothing
        self._asked = self._ask(state[WEIGHTS_SEQ_NO] if state else seq_no)
        return answer

    def _ask(self, seq_no: int) -> ray.ObjectRef:
        return self._server.pull_if_newer.remote(seq_no)


def _is_here(ref: ray.ObjectRef) -> bool:
    """Whether it can be had without waiting."""
    return bool(ray.wait([ref], timeout=0)[0])


class Collector:
    """Samples the groups, asynchronously or in lockstep, and serves them weights.

    Asynchronous: every runner has its requests queued, finished ones are fetched without waiting. Runners
    that nobody paces wait while the learner is behind, so the UTD ratio holds from both sides.
    Lockstep: one fragment of every runner, in order; a run is then a function of its seed.
    """

    def __init__(self, groups: list[Group], lockstep: bool) -> None:
        self.groups = groups
        self._lockstep = lockstep
        server = ray.remote(num_cpus=0, max_restarts=-1, max_concurrency=16)(EnvRunnerStateServer)
        self._server = server.remote()
        for group in groups:
            self.share_server(group.runners)

    def collect(self, *, hold_back: bool) -> Iterator[tuple[Group, list[SingleAgentEpisode], Any]]:
        """(group, episode fragments, metrics) of every finished request.

        hold_back: ask only real-time runners for more.
        """
        for group in self.groups:
            if self._lockstep:
                results = group.runners.foreach_env_runner(_sample, local_env_runner=False)
            else:
                self._request(group, hold_back)
                ready = group.runners.fetch_ready_async_reqs(tags=TAG, timeout_seconds=0.0)
                self._request(group, hold_back)
                results = [result for _, result in ready]
            for episodes, metrics in results:
                yield group, episodes, metrics

    def push(self, weights: dict[str, Any], seq_no: int) -> None:
        """Offer new weights; runners take them at their next `sample`. weights: an RLModule state."""
        state = {COMPONENT_RL_MODULE: ray.put(weights), WEIGHTS_SEQ_NO: seq_no}
        pushed = self._server.push.remote(state)
        if self._lockstep:
            ray.get(pushed)

    def share_server(self, runners: EnvRunnerGroup, worker_ids: list[int] | None = None) -> None:
        """Tell runners, new or restarted ones, where weights come from."""
        server, lockstep = self._server, self._lockstep

        def share(runner: EnvRunner) -> None:
            runner._env_runner_state_server = server if lockstep else AskedAhead(server)

        runners.foreach_env_runner(
            share, local_env_runner=False, remote_worker_ids=worker_ids, timeout_seconds=60.0
        )

    def _request(self, group: Group, hold_back: bool) -> None:
        """Fill the queue of every runner in the group; each call adds at most one request a runner."""
        if hold_back and not group.realtime:
            return
        while group.runners.foreach_env_runner_async(_sample, tag=TAG):
            pass


def _sample(runner: EnvRunner) -> tuple[list[SingleAgentEpisode], Any]:
    # A plain return value belongs to the driver and outlives the runner; a ray.put in the runner would not.
    return runner.sample(), runner.get_metrics()
