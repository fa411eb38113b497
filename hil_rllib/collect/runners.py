"""A group of remote env runners that come and go while the run goes on."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, RayTaskError
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.env_runner_group import EnvRunnerGroup

logger = logging.getLogger(__name__)

RETRY_S = 1.0  # [s] between calls to a runner that does not answer
REPLACE_S = 10.0  # [s] until another try where one could not be made: its node may be half set up
SAY_PENDING_S = 20.0  # [s] without a place or an answer until that is said; a start takes about 5
STOP_S = 150.0  # [s] for all runners to close their envs: more than `recorder.FLUSH_S`, in which they write

Greeting = Callable[[EnvRunner], str]  # called in a runner that has started; returns its node's address
Greet = Callable[[int], Greeting]  # the greeting for a runner's nth start, from 0


class RunnerError(RuntimeError):
    """A runner that the run cannot do without: it cannot be made, or a lockstep run has lost it."""


@dataclass
class _Runner:
    """What the driver knows of one runner, beside RLlib's manager, which holds its handle and health."""

    name: str
    requests: deque[ray.ObjectRef] = field(default_factory=deque)  # oldest first
    greeting: ray.ObjectRef | None = None
    greet_at: float = 0.0  # monotonic [s]
    pending_since: float = math.inf  # monotonic [s]; not before it was asked for
    absence_told: bool = False
    starts: int = 0  # how often it came into service
    node: str = ""


class RunnerGroup(EnvRunnerGroup):
    """RLlib's group of remote runners, of which the driver never waits for one that is not there.

    A runner is in service from its answer to a greeting until one of its requests fails; then it is greeted
    until it answers again, from whatever node Ray has restarted it on. The runners lie outside the trial's
    placement group: a run begins with those that find a place, an autoscaler sees what the others ask for,
    and a node that comes later gets them.

    names: of the runners in order, for messages.
    """

    def __init__(self, names: Sequence[str], greet: Greet, **arguments: Any) -> None:
        super().__init__(local_env_runner=False, **arguments)
        self._greet = greet
        self._limit = self._remote_config.max_requests_in_flight_per_env_runner
        self._runners = {index: _Runner(name) for index, name in zip(self._handles, names, strict=True)}
        self._lost: list[int] = []
        for index in self._runners:
            self._worker_manager.set_actor_state(index, healthy=False)  # not in service yet

    def __len__(self) -> int:
        return len(self._runners)

    @property
    def alive(self) -> int:
        """How many runners are in service."""
        return self.num_healthy_remote_env_runners()

    @property
    def busy(self) -> bool:
        """Whether requests are under way, or done and not fetched."""
        return any(runner.requests for runner in self._runners.values())

    def welcome(self, *, all_needed: bool = False) -> None:
        """Take runners that have started into service. Does not wait for any.

        Raises RunnerError where one cannot be made, and all are needed or none of the group ever was. Other
        failures are their node's: they are told, and tried again.
        """
        now = time.monotonic()
        absent = {i: r for i, r in self._runners.items() if not self._worker_manager.is_actor_healthy(i)}
        for index, runner in absent.items():
            if runner.greeting is None and now >= runner.greet_at:
                runner.greeting = self._handles[index].apply.remote(self._greet(runner.starts))
                runner.pending_since = min(runner.pending_since, now)
        greeted = {r.greeting: i for i, r in absent.items() if r.greeting is not None}
        answered = ray.wait(list(greeted), num_returns=len(greeted), timeout=0)[0] if greeted else []
        for greeting in answered:
            index = greeted[greeting]
            absent[index].greeting = None
            try:
                self._enters(index, ray.get(greeting))
            except RayError as error:
                self._not_started(index, error, all_needed)
        self._tell_pending()

    def request(self, what: Callable[[EnvRunner], Any]) -> None:
        """Fill the queue of every runner in service, up to `max_requests_in_flight_per_env_runner`."""
        for index in self.healthy_env_runner_ids():
            requests = self._runners[index].requests
            while len(requests) < self._limit:
                requests.append(self._handles[index].apply.remote(what))

    def results(self) -> Iterator[tuple[int, Any]]:
        """(runner's index, result) of every request that is done, a runner's in the order of its requests.

        Of a runner only the oldest is looked at: from another machine a small result may be here before a
        larger one that it follows. A request that failed takes its runner, and what it still had to do, out.
        """
        while oldest := {r.requests[0]: index for index, r in self._runners.items() if r.requests}:
            done, _ = ray.wait(list(oldest), num_returns=len(oldest), timeout=0)
            if not done:
                return
            for request in done:
                index = oldest[request]
                try:
                    result = ray.get(request)
                except RayError as error:
                    self._leaves(index, error)
                else:
                    self._runners[index].requests.popleft()
                    yield index, result

    def results_of_all(self, what: Callable[[EnvRunner], Any]) -> list[tuple[int, Any]]:
        """Make the same request to every runner and wait. Raises RunnerError where one is lost."""
        requests = {index: handle.apply.remote(what) for index, handle in self._handles.items()}
        results = []
        for index, request in requests.items():
            try:
                results.append((index, ray.get(request)))
            except RayError as error:
                raise RunnerError(
                    f"Runner {self._runners[index].name} is lost: {_cause(error)} A lockstep run is a "
                    "function of its seed and cannot go on with another. Continue from its last checkpoint "
                    "with --resume, or use run.mode=async."
                ) from error
        return results

    def take_lost(self) -> list[int]:
        """The runners that went out of service since the last call."""
        lost, self._lost = self._lost, []
        return lost

    def stop(self) -> None:
        """Have the runners in service close their envs (device, recording), then end all."""
        alive = [self._handles[index] for index in self.healthy_env_runner_ids()]
        closing = [handle.apply.remote(lambda runner: runner.stop()) for handle in alive]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=STOP_S)
        self._worker_manager.clear()

    @property
    def _handles(self) -> dict[int, Any]:
        return self._worker_manager.actors()

    def _make_worker(self, **arguments: Any) -> Any:
        """As RLlib does, but outside the placement group, and with the config in the order to start it.

        RLlib puts the config into the object store; Ray then warns at every start that a runner may not come
        back, should the object be lost. Inline it cannot be lost.
        """
        self._remote_args["scheduling_strategy"] = "DEFAULT"
        return super()._make_worker(**{**arguments, "config": self._remote_config})

    def _enters(self, index: int, node: str) -> None:
        runner = self._runners[index]
        self._worker_manager.set_actor_state(index, healthy=True)
        runner.starts, runner.node = runner.starts + 1, node
        if runner.absence_told:
            runner.absence_told = False
            logger.info("Runner %s is here, on %s: %s.", runner.name, node, self._count())

    def _leaves(self, index: int, error: RayError) -> None:
        """Out of service. What is queued there, or done but not fetched yet, is nobody's any more."""
        runner = self._runners[index]
        self._worker_manager.set_actor_state(index, healthy=False)
        runner.requests.clear()
        runner.greet_at, runner.pending_since = time.monotonic() + RETRY_S, time.monotonic()
        runner.absence_told = True
        self._lost.append(index)
        logger.warning(
            "Runner %s on %s is lost: %s The run goes on: %s.",
            *(runner.name, runner.node, _cause(error), self._count()),
        )

    def _not_started(self, index: int, error: RayError, all_needed: bool) -> None:
        """It did not answer the greeting: greet it again, or another in its place if Ray gave it up."""
        runner = self._runners[index]
        runner.greet_at = time.monotonic() + RETRY_S
        if not isinstance(error, ActorDiedError):
            return
        if all_needed or not any(r.starts for r in self._runners.values()):
            raise RunnerError(f"Runner {runner.name} cannot start: {_cause(error)}") from error
        logger.warning("Runner %s cannot start, trying again: %s", runner.name, _cause(error))
        runner.greet_at, runner.absence_told = time.monotonic() + REPLACE_S, True
        self._handles[index] = self._make_worker(
            env_creator=self._env_creator,
            validate_env=None,
            worker_index=index,
            num_workers=len(self),
            config=self._remote_config,
        )

    def _tell_pending(self) -> None:
        """Say once of each runner that it is late."""
        late = [
            runner
            for index, runner in self._runners.items()
            if not self._worker_manager.is_actor_healthy(index)
            and not runner.absence_told
            and time.monotonic() - runner.pending_since > SAY_PENDING_S
        ]
        if late:
            names = ", ".join(runner.name for runner in late)
            logger.warning("No free place yet, or a slow start: runner %s. So far %s.", names, self._count())
        for runner in late:
            runner.absence_told = True

    def _count(self) -> str:
        return f"{self.alive} of {len(self)} {'runner' if len(self) == 1 else 'runners'}"


def _cause(error: RayError) -> str:
    """Why, in one sentence."""
    if error.args and isinstance(error.args[0], RayTaskError):  # its constructor raised
        raised = error.args[0].cause
        return f"{type(raised).__name__}: {raised}"
    if isinstance(error, ActorDiedError | ActorUnavailableError):
        return "its process or its node is gone."
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
