"""The command, killed without warning and resumed: the same run, and nothing that a person did is lost."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tree
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hil_rllib.data.journal import Journal
from hil_rllib.sac.checkpoint import newest_checkpoint

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ROOT / "tuned_configs" / "panda_sac_smoke.yaml"
RUN = (  # a synthetic person who helps often
    "demos.source=scripted",
    "demos.scripted_episodes=2",
    "operator.device=scripted",
    "operator.scripted.start_after_step=3",
    "operator.scripted.takeover_probability=0.2",
    "evaluation.episodes=1",
    "sac.learning_starts=50",
    "sac.utd_ratio=1",
    "stop.success=null",
)
PATIENCE_S = 400  # of a machine that has other work


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Begins the command in a folder of `tmp_path`; what still runs in the end is killed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    running: list[subprocess.Popen[str]] = []

    def start(name: str, *arguments: str) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "hil_rllib.train",
            str(SMOKE),
            f"run.dir={tmp_path / name}",
            *RUN,
        ]
        log = (tmp_path / f"{name}.log").open("a")
        running.append(subprocess.Popen([*command, *arguments], cwd=ROOT, stdout=log, stderr=log, text=True))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def reports(run_dir: Path, session: int) -> list[dict]:
    """Results of a run's nth session, as Tune wrote them down so far."""
    folder = run_dir / (f"trial_{session}" if session > 1 else "trial")
    lines = (folder / "result.json").read_text().splitlines() if (folder / "result.json").exists() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:  # the last one, half written
            break
    return found


def wait_for(process: subprocess.Popen[str], done, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def learned(run_dir: Path) -> dict[str, np.ndarray]:
    """Weights and optimisers of the newest checkpoint."""
    checkpoint = newest_checkpoint(run_dir)
    assert checkpoint is not None
    arrays = {}
    for name in ("rl_module/default_policy/module_state.pkl", "state.pkl"):
        state = pickle.loads((checkpoint / "learner_group" / "learner" / name).read_bytes())
        state = state.get("optimizer", state)  # beside the optimisers it holds measured times
        for path, value in tree.flatten_with_path(state):
            arrays["/".join(map(str, (name, *path)))] = np.asarray(value)
    return arrays


def curves(run_dir: Path, name: str) -> dict[int, float]:
    """{TensorBoard step: value} over all sessions; where they overlap the later one counts."""
    values: dict[int, float] = {}
    for folder in sorted(run_dir.glob("trial*"), key=lambda f: int(f.name.partition("_")[2] or 1)):
        events = EventAccumulator(str(folder)).Reload()
        if f"ray/tune/{name}" in events.Tags()["scalars"]:
            values |= {event.step: event.value for event in events.Scalars(f"ray/tune/{name}")}
    return values


@pytest.mark.slow  # three starts of the whole program
@pytest.mark.timeout(3 * PATIENCE_S)
@pytest.mark.parametrize(("cameras", "steps"), [("false", 1500), ("true", 500)])
def test_in_lockstep_a_killed_and_resumed_run_is_the_run_that_was_never_killed(
    start, tmp_path, cameras, steps
):
    """N + M steps = N steps, SIGKILL, --resume, M steps: curves and weights, bit by bit."""
    short = ("run.mode=lockstep", f"stop.env_steps={steps}", "checkpoint.every_steps=100")
    short += (f"env.image_obs={cameras}", "evaluation.every_steps=150")
    short += ("runners.autonomous=1", "runners.envs_per_runner=2")
    assert start("whole", *short).wait(PATIENCE_S) == 0
    killed, log = tmp_path / "killed", tmp_path / "killed.log"
    process = start("killed", *short)
    wait_for(process, lambda: any(r["hil"]["env_steps"] >= 150 for r in reports(killed, 1)), log)
    process.kill()
    process.wait()
    resumed = start("killed", *short, "--resume")
    assert resumed.wait(PATIENCE_S) == 0, log.read_text()

    went_on = reports(killed, 2)[0]["hil"]["env_steps"]
    assert (
        100 < went_on <= reports(killed, 1)[-1]["hil"]["env_steps"] + 100
    )  # from a checkpoint, amid the run
    assert went_on < steps
    for name in ("learners/default_policy/critic_loss", "learners/default_policy/actor_loss", "hil/q_mean"):
        expected = curves(tmp_path / "whole", name)
        assert len(expected) >= 5
        assert curves(killed, name) == expected
    for name in ("hil/human_seconds", "hil/success_rate", "hil/episodes", "evaluation/reward"):
        assert curves(killed, name) == curves(tmp_path / "whole", name)
    expected, came = learned(tmp_path / "whole"), learned(killed)
    assert expected.keys() == came.keys()
    assert len(expected) > 50
    for name, value in expected.items():
        np.testing.assert_array_equal(came[name], value, err_msg=name)


SAC = ("stop.env_steps=1000000", "checkpoint.every_steps=150")
DAGGER = ("run.algorithm=dagger", "dagger.policy=bc", "dagger.rounds=1000", "dagger.episodes=1",
          "dagger.updates=5", "offline.updates=5", "env.max_episode_steps=40")  # fmt: skip


@pytest.mark.timeout(5 * PATIENCE_S)
@pytest.mark.parametrize(
    ("algorithm", "kills"),
    [
        (SAC, 1),
        pytest.param(SAC, 5, marks=pytest.mark.slow),
        pytest.param(DAGGER, 3, marks=pytest.mark.slow),
    ],
)
def test_a_driver_killed_at_any_time_goes_on_with_all_that_was_acknowledged(
    start, tmp_path, algorithm, kills
):
    """`hil/env_steps_on_disk` and `hil/human_seconds_on_disk` are what a run acknowledges."""
    rng, run_dir, log = random.Random(kills), tmp_path / "run", tmp_path / "run.log"
    endless = ("run.mode=async", *algorithm)
    acknowledged = {"env_steps": 0.0, "human_seconds": 0.0}
    process = start("run", *endless)
    for session in range(1, kills + 2):
        begun = time.monotonic()
        wait_for(process, lambda at=session: reports(run_dir, at), log)
        first = reports(run_dir, session)[0]["hil"]
        assert first["env_steps"] >= acknowledged["env_steps"]
        assert first["human_seconds"] >= acknowledged["human_seconds"] - 1e-6
        wait_for(
            process, lambda at=session: reports(run_dir, at)[-1]["hil"]["human_seconds_on_disk"] > 1, log
        )
        passed, speed = time.monotonic() - begun, first["updates_per_s"]
        sys.stdout.write(f"session {session}: first report after {passed:.1f} s, of {speed:.0f} updates/s\n")
        time.sleep(rng.uniform(0, 4))
        last = reports(run_dir, session)[-1]["hil"]
        acknowledged = {name: last[f"{name}_on_disk"] for name in acknowledged}
        process.send_signal(signal.SIGKILL)
        process.wait()
        if session <= kills:
            process = start("run", *endless, "--resume")
    # In rounds of corrections what a person did is held until the episode's end.
    everything_once(run_dir, tmp_path / "copy", acknowledged, late_at_most=10 if algorithm is SAC else 40)


def everything_once(run_dir: Path, copy: Path, acknowledged: dict[str, float], *, late_at_most: int) -> None:
    """In the journals as they lie there after a kill, read apart from the program's own way back."""
    time.sleep(3)  # what the driver left behind ends with Ray's own processes
    shutil.copytree(run_dir / "replay", copy)
    steps: dict[str, Counter[tuple[str, int]]] = {"online": Counter(), "demo": Counter()}
    human: Counter[tuple[str, int]] = Counter()
    for name, counter in steps.items():

        def take(record, counter=counter, online=name == "online"):
            flags = record.arrays.get("steps/is_intervention", ())
            for i, flag in enumerate(flags):
                step = (record.meta["episode"], record.meta["first_step"] + i)
                counter[step] += 1
                human[step] += online and flag > 0

        Journal(copy, name).recover(take)
    human = +human
    assert max(steps["online"].values()) == max(steps["demo"].values()) == 1
    assert len(steps["online"]) >= acknowledged["env_steps"]
    assert len(human) * 0.1 >= acknowledged["human_seconds"] - 1e-6
    late = set(human) - set(steps["demo"])  # of the last moment: a resumed run adds them
    assert len(late) <= late_at_most
    assert os.listdir(copy)
