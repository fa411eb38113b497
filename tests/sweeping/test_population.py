"""Trials that go on as copies of others: the copy is whole, and what changes stays within its range."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray import tune
from ray.rllib.core.columns import Columns
from ray.tune.experiment import Trial
from ray.tune.schedulers.pbt import _explore

from hil_rllib.config import load_config
from hil_rllib.console import INTERRUPTED
from hil_rllib.contract import DISCRETE_PENALTY, IS_INTERVENTION
from hil_rllib.data.experience import Experience
from hil_rllib.data.replay import Fragment, Ring
from hil_rllib.sac.checkpoint import STATE_FILE, newest_checkpoint, read_state, write_state
from hil_rllib.sac.run_copy import COPY, STAGED, UNFINISHED, finish_take_over, take_over
from hil_rllib.sweeping.plan import dirname, load_plan
from hil_rllib.sweeping.population import COPIES_FILE, kept_checkpoints
from hil_rllib.sweeping.search import scheduler, space
from hil_rllib.train import checkpoint_to_resume

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ROOT / "tuned_configs" / "panda_sac_smoke.yaml"
SPACE = gym.spaces.Dict({"x": gym.spaces.Box(-1e9, 1e9, (1,), np.float32)})


def fragment(episode: int, length: int = 4) -> Fragment:
    """Of an episode whose rewards are its number."""
    steps = {
        Columns.ACTIONS: np.zeros((length, 4), np.float32),
        Columns.REWARDS: np.full(length, episode, np.float32),
        DISCRETE_PENALTY: np.zeros(length, np.float32),
        Columns.TERMINATEDS: np.zeros(length, np.bool_),
        IS_INTERVENTION: np.ones(length, np.float32),  # a person's: in both rings
    }
    return Fragment(str(episode), 0, {"x": np.zeros((length + 1, 1), np.float32)}, steps)


def opened(folder: Path) -> Experience:
    return Experience(Ring(1000, SPACE), Ring(1000, SPACE), folder / "replay")


def rewards(experience: Experience) -> list[set[float]]:
    """In the online ring and in that of the demonstrations."""
    rings = (track.ring for track in experience._tracks.values())
    return [set(r.steps[Columns.REWARDS][r._starts[np.arange(len(r))]].tolist()) for r in rings]


def run(folder: Path, *episodes: int, checkpoint: str) -> Experience:
    """A trial's folder: episodes lived through, then a checkpoint. What it goes on with is open."""
    experience = opened(folder)
    experience.recover(exact=True)
    experience.begin()
    for episode in episodes:
        experience.add(fragment(episode), {})
    (folder / checkpoint).mkdir()
    config = load_config(SMOKE, [f"run.dir={folder}"])
    (folder / "config.yaml").write_text(config.to_yaml())
    state = {"journals": experience.cursor(), "env_steps": experience.env_steps}
    write_state(folder / checkpoint, config, state)
    return experience


@pytest.fixture
def plan(tmp_path: Path):
    def plan(text: str):
        file = tmp_path / "sweep.yaml"
        file.write_text(f"sweep: {{base: {SMOKE}, scheduler: pbt, samples: 4}}\nspace: {{{text}}}")
        return load_plan(file)

    return plan


@pytest.fixture
def trials(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A good trial that has gone on since its checkpoint and still does, and a poor one, further."""
    good, poor = tmp_path / "trial_good", tmp_path / "trial_poor"
    going_on = run(good, 1, 2, checkpoint="checkpoint_000003")
    going_on.add(fragment(3), {})
    going_on.cursor()  # all of it is on disk
    run(poor, 7, 8, 9, checkpoint="checkpoint_000001").close()
    shutil.copytree(poor / "checkpoint_000001", poor / "trial" / "checkpoint_000000")  # of train --resume
    yield SimpleNamespace(good=good, poor=poor, checkpoint=good / "checkpoint_000003")
    going_on.close()


def assert_copied(trials: SimpleNamespace) -> None:
    found = newest_checkpoint(trials.poor)
    assert found == trials.poor / COPY  # not its own of before, though that saw more steps
    assert not (trials.poor / STAGED).exists()
    assert not (trials.poor / UNFINISHED).exists()
    for exact in (True, False):  # in lockstep and not
        experience = opened(trials.poor)
        assert experience.recover(read_state(found)["journals"], exact=exact)
        assert rewards(experience) == [{1.0, 2.0}, {1.0, 2.0}]
        assert experience.env_steps == 8
        experience.close()


def assert_as_before(trials: SimpleNamespace) -> None:
    experience = opened(trials.poor)
    found = newest_checkpoint(trials.poor)
    assert found.parent != trials.poor / STAGED
    assert found.parent != trials.poor / UNFINISHED
    assert experience.recover(read_state(found)["journals"], exact=True)
    assert rewards(experience) == [{7.0, 8.0, 9.0}, {7.0, 8.0, 9.0}]
    experience.close()


def test_a_copy_has_what_the_other_s_checkpoint_saw_and_nothing_of_its_own(trials) -> None:
    assert take_over(trials.checkpoint, trials.poor) == trials.poor / COPY
    assert_copied(trials)
    take_over(trials.checkpoint, trials.poor)  # again, over the copy
    assert_copied(trials)
    assert newest_checkpoint(trials.good) == trials.checkpoint


@pytest.mark.parametrize("moves", [0, 1, 2, 3])
def test_a_copy_that_is_killed_is_not_begun_or_is_finished_by_who_goes_on(
    trials, moves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, left = Path.rename, [moves]

    def killed(self: Path, target: Path) -> Path:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return rename(self, target)

    with monkeypatch.context() as context:
        context.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            take_over(trials.checkpoint, trials.poor)
    if moves:
        config = load_config(trials.poor / "config.yaml")
        assert checkpoint_to_resume(trials.poor, config) == trials.poor / COPY  # train --resume
        assert_copied(trials)
    else:
        assert_as_before(trials)
        finish_take_over(trials.poor)
        assert_as_before(trials)
        assert not (trials.poor / UNFINISHED).exists()


@pytest.mark.parametrize("gone", ["state", "checkpoint", "journal"])
def test_what_is_not_all_there_is_not_copied(trials, gone: str) -> None:
    if gone == "state":
        (trials.checkpoint / STATE_FILE).unlink()
    elif gone == "checkpoint":
        shutil.rmtree(trials.checkpoint)
    else:
        next((trials.good / "replay").glob("demo-*.journal")).unlink()
    with pytest.raises(OSError, match=r"trial_good|checkpoint"):
        take_over(trials.checkpoint, trials.poor)
    assert_as_before(trials)
    assert not (trials.poor / UNFINISHED).exists()


class FakeTrial:
    """As far as a scheduler looks at one of Tune's."""

    status, experiment_tag = Trial.RUNNING, ""

    def __init__(self, folder: Path, config: dict[str, Any], last_result: dict[str, Any]) -> None:
        self.trial_id = f"abc_{folder.name.removeprefix('trial_')}"
        self.config = config
        self.run_metadata = SimpleNamespace(
            last_result=last_result,
            checkpoint_manager=SimpleNamespace(
                checkpoint_config=tune.CheckpointConfig(), _latest_checkpoint_result=None
            ),
        )
        self.evaluated_params: dict[str, Any] = {}
        self.storage = SimpleNamespace(trial_fs_path=str(folder), experiment_fs_path=str(folder.parent))

    def __str__(self) -> str:
        return dirname(self.trial_id)

    def is_finished(self) -> bool:
        return False

    def set_config(self, config: dict[str, Any]) -> None:
        self.config = config

    def set_experiment_tag(self, tag: str) -> None:
        pass


@pytest.fixture
def compared(trials, plan, capsys: pytest.CaptureFixture[str]):
    """Compares a poor trial of that objective with the good one, of 0.5; returns it and what was said."""

    def compared(objective: float) -> tuple[FakeTrial, str]:
        made = plan("sac.tau: {uniform: [0.001, 1]}, run.seed: {grid: [0, 1]}")
        changes = scheduler(made)
        results = [{"timesteps_total": 800, "objective": value} for value in (0.5, objective)]
        good = FakeTrial(trials.good, {"sac.tau": 0.9, "run.seed": 0}, results[0])
        poor = FakeTrial(trials.poor, {"sac.tau": 0.1, "run.seed": 1}, results[1])
        controller = SimpleNamespace(
            search_alg=None, get_trials=lambda: [good, poor], pause_trial=lambda *_, **__: None
        )
        for trial in (good, poor):
            changes.on_trial_add(controller, trial)
        changes._trial_state[good].last_checkpoint = tune.Checkpoint(str(trials.checkpoint))
        changes._trial_state[good].last_result = results[0]
        changes._exploit(controller, poor, good)
        return poor, capsys.readouterr().out

    return compared


def test_a_poor_trial_goes_on_from_a_copy_in_its_own_folder(compared, trials, tmp_path: Path) -> None:
    poor, said = compared(0.2)
    assert_copied(trials)
    assert poor.run_metadata.checkpoint_manager._latest_checkpoint_result.checkpoint.path == str(
        trials.poor / COPY
    )
    assert poor.config["run.seed"] == 0  # the other's; what changes is another
    assert 0 <= poor.config["sac.tau"] <= 1
    assert poor.config["sac.tau"] != 0.9
    assert said.startswith("trial_poor goes on as a copy of trial_good  sac.tau 0.9 → ")
    with (tmp_path / COPIES_FILE).open() as file:
        (row,) = csv.DictReader(file)
    assert (row["trial"], row["copy_of"], row["env_steps"]) == ("trial_poor", "trial_good", "800")
    assert float(row["sac.tau"]) == poor.config["sac.tau"]


def test_a_trial_that_is_no_worse_stays(compared, trials) -> None:
    poor, said = compared(0.5)
    assert (poor.config, said) == ({"sac.tau": 0.1, "run.seed": 1}, "")
    assert_as_before(trials)


def test_where_there_is_nothing_to_copy_the_trial_stays(compared, trials) -> None:
    shutil.rmtree(trials.checkpoint)
    poor, said = compared(0.2)
    assert poor.config == {"sac.tau": 0.1, "run.seed": 1}
    assert poor.run_metadata.checkpoint_manager._latest_checkpoint_result is None
    assert said.startswith("trial_poor stays what it is, and no copy of trial_good: ")
    assert_as_before(trials)


def test_a_resumed_sweep_compares_when_it_would_have(trials, plan) -> None:
    changes = scheduler(plan("sac.tau: {uniform: [0.001, 1]}"))
    trial = FakeTrial(trials.good, {"sac.tau": 0.9}, {"timesteps_total": 950, "objective": 0.7})
    changes.on_trial_add(SimpleNamespace(search_alg=None), trial)
    state = changes._trial_state[trial]
    assert (state.last_train_time, state.last_perturbation_time, state.last_score) == (950, 800, 0.7)


def test_what_changes_stays_in_its_range_and_a_grid_stays_as_it_is(plan) -> None:
    made = plan(
        "sac.tau: {loguniform: [0.001, 0.01]}, sac.gamma: {uniform: [0, 0.99]}, "
        "sac.batch_size: {randint: [16, 20]}, sac.q_normalised_actor: {choice: [true, false]}, "
        "run.seed: {grid: [0, 1]}"
    )
    changes = scheduler(made)
    config = {
        "sac.tau": 0.009,
        "sac.gamma": 0.01,
        "sac.batch_size": 19,
        "sac.q_normalised_actor": True,
        "run.seed": 1,
    }
    seen = {key: set() for key in config}
    for _ in range(300):
        assert set(space(made)) == set(config)
        config, _ = _explore(
            config, changes._hyperparam_mutations, 0.25, (1.2, 0.8), changes._custom_explore_fn
        )
        made.config(config)  # or raises
        for key, value in config.items():
            seen[key].add(value)
    assert 0.001 <= min(seen["sac.tau"]) < max(seen["sac.tau"]) <= 0.01
    assert len(seen["sac.gamma"]) > 100  # not whole for ever once it was 0
    assert seen["sac.batch_size"] == {16, 17, 18, 19}
    assert seen["sac.q_normalised_actor"] == {True, False}
    assert seen["run.seed"] == {1}


def test_a_checkpoint_outlives_the_time_to_the_next_comparison() -> None:
    config = load_config(
        SMOKE, ["evaluation.every_steps=500", "checkpoint.every_steps=300", "checkpoint.keep=2"]
    )
    assert kept_checkpoints(config) == 2 + 1 + 4  # four more are made in 1,000 steps


@pytest.mark.slow
def test_a_population_is_interrupted_moved_and_goes_on_with_the_values_that_its_copies_had(
    tmp_path: Path,
) -> None:
    file, folder, moved = tmp_path / "sweep.yaml", tmp_path / "sweep", tmp_path / "moved"
    file.write_text(f"""
sweep: {{base: {SMOKE}, dir: {folder}, scheduler: pbt, samples: 2, objective: human_seconds_to_90}}
config:
  sac: {{batch_size: 32, hidden: [32, 32], bc_start_updates: 0, learning_starts: 20}}
  env: {{max_episode_steps: 10}}
  evaluation: {{every_steps: 50, episodes: 2}}
  checkpoint: {{every_steps: 50}}
  stop: {{env_steps: 500}}
space:
  demos.scripted_episodes: {{grid: [4, 6]}}  # a person's time: those with six are the poor ones
  sac.bc_weight: {{loguniform: [0.1, 10]}}
  sac.critic_lr: {{choice: [0.0001, 0.0003, 0.001]}}
""")
    command = [sys.executable, "-u", "-m", "hil_rllib.sweep", str(file)]
    how: dict[str, Any] = {"cwd": ROOT, "text": True, "env": os.environ | {"RAY_worker_niceness": "0"}}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **how) as sweep:
        lines = iter(sweep.stdout)
        copied = next(line.split()[0] for line in lines if " goes on as a copy of trial_0000" in line)
        sweep.send_signal(signal.SIGINT)
        assert "Go on with: python -m hil_rllib.sweep" in "".join(lines)
    assert sweep.returncode == INTERRUPTED
    folder.rename(moved)
    with (moved / COPIES_FILE).open() as rows:
        last = [row for row in csv.DictReader(rows) if row["trial"] == copied][-1]
    command += [f"sweep.dir={moved}", "--resume"]
    done = subprocess.run(command, capture_output=True, check=False, **how)
    assert done.returncode == 0, done.stderr
    assert f"python -m hil_rllib.evaluate {moved}" in done.stdout
    assert not folder.exists()
    later = [line.split()[0] for line in done.stdout.splitlines() if " goes on as a copy of " in line]
    for trial in moved.glob("trial_*"):
        newest, config = read_state(newest_checkpoint(trial)), load_config(trial / "config.yaml")
        assert newest["env_steps"] == 500
        assert newest["config"]["sac"]["bc_weight"] == config.sac.bc_weight
        if trial.name == copied and copied not in later:
            assert config.demos.scripted_episodes == 4  # the other's, as its experience is
            assert str(config.sac.bc_weight) == last["sac.bc_weight"]
