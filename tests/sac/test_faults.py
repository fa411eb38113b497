"""One training that much happens to: it goes on, loses nothing and counts nothing twice.

The tests share an asynchronous run of an operator's and an autonomous runner; faults come while it trains.
Recovery times go to the log: `pytest tests/sac/test_faults.py -o log_cli=true --log-cli-level=INFO`.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from hil_rllib.collect.intervention import InterventionConnector
from hil_rllib.contract import CONTROL_DT, IS_INTERVENTION
from hil_rllib.data.replay import Fragment
from hil_rllib.sac import config as sac_config

logger = logging.getLogger(__name__)

GROUPS = ("operator", "autonomous")
WARM_UP, UTD = 30, 0.05  # so few updates that the learner keeps up and no runner is held back
PATIENCE_S = 200.0  # a busy machine; about the start of a process on an idle one
CONFIG = (
    "run.mode=async",
    f"sac.learning_starts={WARM_UP}",
    f"sac.utd_ratio={UTD}",
    "sac.skip_limit=1000000",
    "env.max_episode_steps=40",
    "runners.autonomous=1",
    # A person who helps now and then, on a clock of their own, five times as fast as a real one.
    "operator.device=scripted",
    "operator.realtime=true",
    "operator.hz=50",
    "operator.scripted.start_after_step=0",
    "operator.scripted.reaction_s=0",
    "operator.scripted.takeover_probability=0.3",
    "operator.scripted.help_steps=4",
    "operator.scripted.budget_s=1000000",
)


class Training:
    """The run, and everything that came from its runners."""

    def __init__(self, algorithm: Any) -> None:
        self.algorithm = algorithm
        self.arrived: list[tuple[str, Fragment]] = []
        self.acted_with: dict[str, int] = {}  # weights, of each group's last fragment
        store = algorithm._store

        def recording(group: Any, episode: Any) -> None:
            self.arrived.append((group.name, Fragment.from_episode(episode)))
            self.acted_with[group.name] = int(episode.get_extra_model_outputs(WEIGHTS_SEQ_NO, -1))
            store(group, episode)

        algorithm._store = recording

    def go_on(self, until: Callable[[], bool]) -> float:
        """Train until so; [s] it took."""
        started = time.monotonic()
        while not until():
            assert time.monotonic() - started < PATIENCE_S, "the training does not get on"
            self.algorithm.restore_env_runners(self.algorithm.env_runner_group)  # as RLlib, before each step
            self.algorithm.training_step()
            assert self.algorithm.updates <= max(0, self.algorithm.env_steps - WARM_UP) * UTD
        return time.monotonic() - started

    def after(self, fault: str, inject: Callable[[], None], loses: str | None = None) -> float:
        """Inject, and train until both runners contribute new episodes; [s] until the lost one does."""
        started = time.monotonic()
        inject()
        if loses:
            self.go_on(lambda: self.group(loses).runners.alive == 0)
        before = {fragment.episode_id for _, fragment in self.arrived}

        def contributes(name: str) -> bool:
            return any(g == name and f.episode_id not in before for g, f in self.arrived)

        self.go_on(lambda: contributes(loses or "operator"))
        seconds = time.monotonic() - started
        self.go_on(lambda: all(map(contributes, GROUPS)))
        logger.info("%s: new episodes after %.1f s", fault, seconds)
        self.check_counts()
        return seconds

    def check_counts(self) -> None:
        """No step came twice; all that came is stored, but for episodes of the operator without an end."""
        steps = Counter((f.episode_id, f.first_step + t) for _, f in self.arrived for t in range(len(f)))
        assert max(steps.values()) == 1
        assert self.algorithm.env_steps <= len(steps)
        held = len(steps) - self.algorithm.env_steps
        assert held <= 40 * self.lost_or_running()
        assert len(self.algorithm.online) == self.algorithm.env_steps  # each transition once

    def lost_or_running(self) -> int:
        """Episodes of the operator without an end."""
        ended = {f.episode_id for g, f in self.arrived if g == "operator" and self.is_end(f)}
        return len({f.episode_id for g, f in self.arrived if g == "operator"} - ended)

    def is_end(self, fragment: Fragment) -> bool:
        last = fragment.first_step + len(fragment) == 40
        return bool(last or fragment.steps[Columns.TERMINATEDS].any())

    def group(self, name: str) -> Any:
        return next(group for group in self.algorithm.collector.groups if group.name == name)

    def on(self, group: str, what: Callable[[Any], Any]) -> Any:
        """Call in the group's runner; waits for what is queued there."""
        (answer,) = self.group(group).runners.foreach_env_runner(what, local_env_runner=False)
        return answer

    def weights(self) -> dict[str, torch.Tensor]:
        return {k: v.clone() for k, v in self.algorithm.learner_group._learner._policy.state_dict().items()}


def pid_of(actor: Any) -> int:
    return int(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())))


@pytest.fixture(scope="module")
def training(build, configure):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sac_config, "QUEUED_S", 0.5)  # or calls from here would wait for 20 s of steps
        training = Training(build(configure(*CONFIG)))
    training.go_on(lambda: training.algorithm.updates > 2)
    return training


@pytest.mark.parametrize("group", GROUPS)
def test_a_killed_runner_comes_back_and_contributes(training, group):
    pid = training.on(group, lambda _: os.getpid())
    training.after(f"{group} runner killed", lambda: os.kill(pid, signal.SIGKILL), group)
    assert training.on(group, lambda _: os.getpid()) != pid


def test_a_killed_synthetic_human_has_no_more_patience_than_before(training):
    def human_seconds(runner):
        (connector,) = [c for c in runner._module_to_env.connectors if isinstance(c, InterventionConnector)]
        return connector._guard.device.human_seconds

    training.go_on(lambda: training.algorithm.stats.human_steps > 0)
    spent = training.algorithm.stats.human_steps * CONTROL_DT
    pid = training.on("operator", lambda _: os.getpid())
    training.after("operator runner killed", lambda: os.kill(pid, signal.SIGKILL), "operator")
    assert training.on("operator", human_seconds) >= spent


@pytest.mark.parametrize("group", GROUPS)
def test_an_env_that_raises_costs_its_episode_only(training, group):
    def break_env(runner):
        def evaluate():
            raise RuntimeError("the simulation blew up")

        runner.env.unwrapped.envs[0].unwrapped.evaluate = evaluate

    training.after(f"env of the {group} runner raised", lambda: training.on(group, break_env), group)


def test_runners_act_on_without_the_weight_server_and_take_new_weights_from_the_next(training):
    pid = pid_of(training.algorithm.collector._server)
    training.after("weight server killed", lambda: os.kill(pid, signal.SIGKILL))
    pushed = training.algorithm.pushes

    def newer():
        return all(training.acted_with[group] > pushed for group in GROUPS)

    logger.info("weight server killed: new weights at all runners after %.1f s", training.go_on(newer))


def test_an_evaluation_that_is_lost_is_made_again(training):
    pid = pid_of(training.algorithm.evaluator)  # now: while it evaluates it answers nobody
    training.algorithm._evaluate_when_due(now=True)
    os.kill(pid, signal.SIGKILL)
    evaluations = training.algorithm.evaluations
    seconds = training.go_on(lambda: "success" in evaluations.latest)
    logger.info("evaluator killed: evaluated after %.1f s", seconds)


def test_an_env_that_raises_amid_an_evaluation_costs_that_one_only(training):
    def break_env(evaluator):
        def evaluate():
            raise RuntimeError("the simulation blew up")

        evaluator._env.unwrapped.evaluate = evaluate

    algorithm = training.algorithm
    training.go_on(lambda: algorithm._evaluation is None)
    ray.get(algorithm.evaluator.__ray_call__.remote(break_env))
    algorithm.evaluations.latest = {}
    algorithm._evaluate_when_due(now=True)
    training.go_on(lambda: algorithm._evaluation is None)
    assert (algorithm.evaluations.failed_in_row, algorithm.evaluations.latest) == (1, {})
    algorithm._evaluate_when_due(now=True)
    training.go_on(lambda: "success" in algorithm.evaluations.latest)


def test_a_device_that_raises_gives_the_arm_to_the_policy_and_comes_back(training):
    def break_device(runner):
        (connector,) = [c for c in runner._module_to_env.connectors if isinstance(c, InterventionConnector)]
        device = connector._guard.device
        start, refusals = type(device).start, iter(range(2))

        def read():
            raise OSError("unplugged")

        def start_if_there(env):
            if next(refusals, None) is not None:
                raise OSError("not there")
            del device.read, device.start
            start(device, env)

        device.read, device.start = read, start_if_there

    training.on("operator", break_device)
    since = len(training.arrived)

    def human():
        return [f.steps[IS_INTERVENTION].any() for g, f in training.arrived[since:] if g == "operator"]

    before = 10  # fragments that were under way, at most
    training.go_on(lambda: len(human()) >= before + 10)
    assert not any(human()[before:])  # nobody took over
    seconds = training.go_on(lambda: any(human()[before:]))
    logger.info("device lost: it had gone for three tries, 2 s apart; back %.1f s later", seconds)
    training.check_counts()


def test_a_policy_that_gives_nan_holds_the_arm_still_until_it_has_new_weights(training):
    def break_policy(runner):
        runner.kept, runner._env_runner_state_server = runner._env_runner_state_server, None
        with torch.no_grad():
            for parameter in runner.module.parameters():
                parameter.fill_(math.nan)

    def mend_policy(runner):
        runner._env_runner_state_server = runner.kept

    def moves():
        return [f.steps[Columns.ACTIONS].any() for g, f in training.arrived if g == "autonomous"][-1]

    stats = training.algorithm.stats
    training.on("autonomous", break_policy)
    training.go_on(lambda: stats.held_commands > 0 and not moves())
    training.on("autonomous", mend_policy)
    training.go_on(moves)
    assert all(np.isfinite(f.steps[Columns.ACTIONS]).all() for _, f in training.arrived)
    training.check_counts()


def test_updates_on_nan_are_skipped_and_counted_and_learning_goes_on_after(training):
    algorithm, rewards = training.algorithm, training.algorithm.online.steps[Columns.REWARDS]
    training.go_on(lambda: algorithm._owed() < 1)
    kept, weights, skipped = rewards.copy(), training.weights(), algorithm.skips.total
    rewards[:] = np.nan
    training.go_on(lambda: algorithm.skips.total >= skipped + 4)
    unchanged = training.weights()
    assert all(torch.equal(weights[name], value) for name, value in unchanged.items())
    broken = np.isnan(rewards)
    rewards[broken] = kept[broken]
    training.go_on(lambda: algorithm.skips.in_row == 0)
    assert any(not torch.equal(weights[name], value) for name, value in training.weights().items())
    assert all(torch.isfinite(value).all() for value in training.weights().values())
    training.check_counts()
