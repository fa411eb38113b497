"""HG-DAgger: what a person does while the policy acts is recorded, learned once, and nothing else."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from browser_visitor import Visitor
from ray.rllib.core.columns import Columns
from test_act_runs import ACT

from hil_rllib.algorithms import ALGORITHMS
from hil_rllib.config import ConfigError
from hil_rllib.contract import IS_INTERVENTION, RERECORD
from hil_rllib.data.demos import load_demos
from hil_rllib.devices.browser import device as browser
from hil_rllib.offline.dagger import PICTURE_FILE
from hil_rllib.sac.config import demo_options
from hil_rllib.sac.recorder import recorded_episodes

DAGGER = (*ACT, "run.algorithm=dagger", "run.mode=async", "offline.updates=10", "dagger.rounds=2",
          "dagger.episodes=2", "dagger.updates=10", "env.max_episode_steps=12", "operator.device=scripted",
          "record.operator=true", "operator.scripted.takeover_probability=1",
          "operator.scripted.start_after_step=4", "operator.scripted.reaction_s=0.1",
          "operator.scripted.help_steps=3")  # fmt: skip
BY_HAND = 6  # steps of an episode of 12: from step 4 on, each fourth is spent on deciding


def build_dagger(config, restore_from=None, resume=False):
    rllib = ALGORITHMS["dagger"].from_config(config)
    rllib.restore_from, rllib.resume = restore_from, resume
    return rllib.build_algo()


def run_to(algorithm, done):
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline, "the rounds do not get on"
        result = algorithm.train()
    return result


def learned_from(algorithm) -> np.ndarray:
    """Actions of all steps to learn from, sorted: the demonstrations' and the person's."""
    ring = algorithm.offline_data.ring
    actions = ring.steps[Columns.ACTIONS][ring.is_start(np.arange(ring.capacity))]
    return actions[np.lexsort(actions.T)]


@pytest.fixture(scope="module", params=["act", "bc"])
def corrected(request, cluster, configure):
    """(config, algorithm after both rounds, checkpoint after the first, last result)."""
    config = configure(*DAGGER, f"dagger.policy={request.param}")
    algorithm = build_dagger(config)
    run_to(algorithm, lambda: len(algorithm.rounds) > 1)
    path = algorithm.save_to_path(f"{config.run.dir}/trial/checkpoint_000000")
    result = run_to(algorithm, lambda: len(algorithm.rounds) > 2)
    yield config, algorithm, Path(path), result
    algorithm.stop()


def test_each_round_corrects_learns_and_is_measured(corrected):
    config, algorithm, _, result = corrected
    assert [r["round"] for r in result["rounds"]] == [0, 1, 2]
    assert [r["episodes"] for r in result["rounds"]] == [0, 2, 4]
    assert [r["human_seconds"] for r in result["rounds"]] == pytest.approx([0, 0.2 * BY_HAND, 0.4 * BY_HAND])
    assert algorithm.updates == 30
    assert result["evaluation"]["at_updates"] == 30
    assert result["should_checkpoint"]
    assert (Path(config.run.dir) / PICTURE_FILE).stat().st_size > 5000


def test_only_the_persons_steps_are_learned(corrected):
    _, algorithm, *_ = corrected
    ring = algorithm.offline_data.ring
    learned = ring.steps[IS_INTERVENTION][ring.is_start(np.arange(ring.capacity))]
    assert learned.all()
    first, *_, last = algorithm.rounds
    assert 0 < last["learned_from"] - first["learned_from"] <= 4 * BY_HAND


def test_the_robot_waits_while_the_policy_learns(corrected):
    _, algorithm, *_ = corrected
    time.sleep(0.5)  # for the steps that were asked for
    algorithm._collect(hold_back=True)
    before = algorithm.stats.human_steps, dict(algorithm.stats._running)
    time.sleep(0.5)
    algorithm._collect(hold_back=True)
    assert (algorithm.stats.human_steps, dict(algorithm.stats._running)) == before
    assert sum(running.steps for running in before[1].values()) <= 2


def test_the_episodes_are_a_dataset_that_says_who_acted(corrected):
    config, *_ = corrected
    folder = Path(config.run.dir) / "recordings" / "operator"
    deadline = time.monotonic() + 60  # they are written beside the run
    while recorded_episodes(config) != {"operator": 4}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    demos = load_demos(str(folder), **demo_options(config) | {"episodes": None}).demos
    assert len(demos) == 4
    # One less than was done: an episode that is cut off has no observation after its last step.
    assert [int(demo.interventions.sum()) for demo in demos] == [BY_HAND - 1] * 4


def test_a_resumed_run_has_all_corrections_and_does_not_ask_for_them_again(corrected, configure):
    """From the checkpoint after the first round, with what is on disk after the second."""
    config, algorithm, path, _ = corrected
    killed = configure(*DAGGER, f"dagger.policy={config.dagger.policy}", "record.operator=false")
    algorithm.experience.cursor()  # all is safe
    shutil.copytree(Path(config.run.dir) / "replay", Path(killed.run.dir) / "replay")
    resumed = build_dagger(killed, restore_from=str(path))
    assert (resumed.updates, resumed.stats.episodes) == (20, 4)
    assert resumed.rounds == algorithm.rounds[:2]
    np.testing.assert_array_equal(learned_from(resumed), learned_from(algorithm))
    run_to(resumed, lambda: len(resumed.rounds) > 2)
    assert (resumed.updates, resumed.stats.episodes) == (30, 4)  # it had only to learn
    resumed.stop()


def test_an_episode_cut_off_by_a_kill_is_learned_and_one_thrown_away_is_not(cluster, configure):
    config = configure(*DAGGER, "dagger.policy=bc", "record.operator=false")
    algorithm = build_dagger(config)
    run_to(algorithm, lambda: algorithm.rounds)
    known = len(learned_from(algorithm))
    store, hands = algorithm._store, {}  # episode's id → steps by hand

    def first_is_thrown_away(episode):
        flags = np.asarray(episode.get_extra_model_outputs(IS_INTERVENTION))
        hands[episode.id_] = hands.get(episode.id_, 0) + int((flags > 0).sum())
        if episode.is_done and len(hands) == 1:
            episode.get_infos(-1)[RERECORD] = True
        store(episode)

    algorithm._store = first_is_thrown_away
    deadline = time.monotonic() + 60
    while len(hands) < 2 or not 1 < list(hands.values())[1] < BY_HAND:
        assert time.monotonic() < deadline
        algorithm._collect(hold_back=False)
    assert algorithm.stats.episodes == 0
    under_way = list(hands.values())[1]
    time.sleep(1)  # the most that a kill may cost
    left = configure(*DAGGER, "dagger.policy=bc", "record.operator=false")
    shutil.copytree(Path(config.run.dir) / "replay", Path(left.run.dir) / "replay")
    algorithm.stop()

    resumed = build_dagger(left, resume=True)
    assert len(learned_from(resumed)) == known + under_way
    resumed.stop()


def test_a_person_at_the_page_corrects_in_real_time(cluster, configure, monkeypatch):
    monkeypatch.setattr(browser, "new_token", lambda: "token")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    page = ("record.operator=false", "operator.device=browser", f"operator.port={port}")
    config = configure(*DAGGER, "dagger.policy=bc", "dagger.rounds=1", "dagger.episodes=8", *page)
    algorithm = build_dagger(config)
    over = threading.Event()

    async def visit():
        async with Visitor(f"http://127.0.0.1:{port}/?token=token") as visitor:
            await visitor.hold(hands=["+z"])
            while not over.is_set():
                await asyncio.sleep(0.1)

    with ThreadPoolExecutor(1) as elsewhere:
        person = elsewhere.submit(asyncio.run, visit())
        try:
            result = run_to(algorithm, lambda: len(algorithm.rounds) > 1)
        finally:
            over.set()
        person.result()
        algorithm.stop()
    before, after = result["rounds"]
    assert after["human_seconds"] > 0
    assert after["learned_from"] > before["learned_from"]
    assert 90 < result["hil"]["step_interval_ms_p50"] < 200  # as with SAC: a step hurries for nobody


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("operator.device=none", "learns from who corrects it"),
        ("runners.autonomous=1", "one operator's runner only"),
        ("run.mode=lockstep", "never learns while the robot moves"),
    ],
)
def test_without_a_person_or_with_other_runners_it_is_refused(configure, override, message):
    with pytest.raises(ConfigError, match=message):
        configure(*DAGGER, override)
