"""`python -m hil_rllib.sweep`: it finishes, survives a kill, and its trials are runs like any other."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from full_disk import small_disk

from hil_rllib.config import ConfigError
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.shared import DemoLibrary, shared_demos
from hil_rllib.disk_full import DISK_FULL
from hil_rllib.results.curves import read_run
from hil_rllib.sac.checkpoint import newest_checkpoint, read_state
from hil_rllib.sweep import check_folder

ROOT = Path(__file__).resolve().parents[2]
SMALL = """
sweep: {base: BASE, dir: DIR}
config:
  sac: {batch_size: 32, hidden: [32, 32], bc_start_updates: 0, learning_starts: 20}
  env: {max_episode_steps: 10}
  evaluation: {every_steps: 100, episodes: 2}
  checkpoint: {every_steps: 100}
  stop: {env_steps: 200}
space:
  sac.utd_ratio: {grid: [1, 2]}
"""


def start(file: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "hil_rllib.sweep", str(file), *more]
    environment = os.environ | {"RAY_worker_niceness": "0"}
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def trials(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_its_trials_are_runs(tmp_path: Path) -> None:
    file, folder = tmp_path / "sweep.yaml", tmp_path / "sweep"
    base = ROOT / "tuned_configs" / "panda_sac_smoke.yaml"
    file.write_text(SMALL.replace("BASE", str(base)).replace("DIR", str(folder)))
    first = start(file, "stop.env_steps=2000")
    deadline = time.monotonic() + 600
    while not list(folder.glob("trial_*/checkpoint_*/hil_state.json")):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(12)  # Tune's next snapshot
    first.send_signal(signal.SIGKILL)
    first.communicate()
    cut_off = [read_run(trial).scalars["hil/env_steps"].values[-1] for trial in folder.glob("trial_*")]
    assert min(cut_off) < 2000  # or the kill came too late to show anything
    out, err = start(file, "stop.env_steps=2000", "--resume").communicate(timeout=900)
    assert "Train the best again" in out, err
    rows = trials(folder)
    assert sorted(float(row["sac.utd_ratio"]) for row in rows) == [1.0, 2.0]
    assert {row["env_steps"] for row in rows} == {"2000"}
    for row in rows:
        run = read_run(folder / row["trial"])
        assert run.evaluations.steps.tolist() == list(range(100, 2001, 100))
        assert run.scalars["hil/updates"].values[-1] == (2000 - 20) * float(row["sac.utd_ratio"])
    assert (folder / "objective.png").is_file()
    again = start(file)
    assert again.wait(120) == 2
    assert "already holds a sweep" in again.stderr.read()


@pytest.mark.slow
def test_the_best_trial_made_again_by_train_gives_the_same_score(tmp_path: Path) -> None:
    file, folder = tmp_path / "sweep.yaml", tmp_path / "sweep"
    base = ROOT / "tuned_configs" / "panda_sac_smoke.yaml"
    small = SMALL.replace("BASE", str(base)).replace("DIR", str(folder)).replace("[1, 2]", "[2]")
    file.write_text(f"{small}  run.seed: {{grid: [1]}}\n")  # not the base's: its demonstrations are others
    out, err = start(file).communicate(timeout=900)
    assert "Train the best again" in out, err
    command = [sys.executable, "-m", "hil_rllib.train", folder / "trial_00000" / "config.yaml"]
    subprocess.run([*command, f"run.dir={tmp_path / 'best'}"], cwd=ROOT, check=True, capture_output=True)
    made, again = read_run(folder / "trial_00000"), read_run(tmp_path / "best")
    assert made.evaluations.steps.tolist() == again.evaluations.steps.tolist()
    assert made.evaluations.success.tolist() == again.evaluations.success.tolist()
    summary = json.loads((tmp_path / "best" / "summary.json").read_text())
    assert summary["greedy_success"] == float(trials(folder)[0]["success"])
    assert made.scalars["hil/updates"].values.tolist() == again.scalars["hil/updates"].values.tolist()
    first = [run.scalars["hil/q_mean"].values[0] for run in (made, again)]
    assert first[0] == pytest.approx(first[1], rel=1e-3)  # the number of threads may differ


@pytest.mark.slow
def test_a_sweep_outlives_a_full_disk_or_ends_with_one_line_and_goes_on_once_there_is_room(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", megabytes=24) as disk:
        file, folder = tmp_path / "sweep.yaml", disk.folder / "sweep"
        base = ROOT / "tuned_configs" / "panda_sac_smoke.yaml"
        small = SMALL.replace("BASE", str(base)).replace("DIR", str(folder)).replace("[1, 2]", "[1]")
        file.write_text(small)
        end = "stop.env_steps=1500"
        with start(file, end) as sweep:
            said = []

            def read_until(text: str) -> None:
                for line in sweep.stderr:
                    said.append(line)
                    if text in line:
                        return
                raise AssertionError("".join(said))

            def wait_for_checkpoint_after(other: Path | None) -> Path:
                while (newest := newest_checkpoint(folder / "trial_00000")) in (None, other):
                    assert sweep.poll() is None, sweep.communicate()
                    time.sleep(0.1)
                return newest

            first = wait_for_checkpoint_after(None)
            disk.leave(0)
            read_until("No checkpoint at env_steps")
            disk.make_room()
            read_until("can be written again; nothing is missing")
            left = wait_for_checkpoint_after(first)
            disk.leave(0)
            _, rest = sweep.communicate(timeout=900)
        assert sweep.returncode == DISK_FULL, rest
        assert "Traceback" not in rest
        assert f"What was stored in {folder} is whole: make room and go on with --resume." in rest
        assert newest_checkpoint(folder / "trial_00000") == left
        disk.make_room()
        with start(file, end, "--resume") as sweep:
            _, rest = sweep.communicate(timeout=900)
        assert sweep.returncode == 0, rest
        assert "Failed to restore" not in rest  # by which Tune says that it begins anew
        assert trials(folder)[0]["env_steps"] == "1500"
        assert read_state(newest_checkpoint(folder / "trial_00000"))["env_steps"] == 1500


def test_a_sweep_whose_state_is_damaged_is_not_begun_anew(tmp_path: Path) -> None:
    for name in ("tuner.pkl", "experiment_state-2026-01-01_00-00-00.json"):
        (tmp_path / name).write_text("{}")
    check_folder(tmp_path, resume=True)
    damaged = tmp_path / "experiment_state-2026-01-01_00-00-01.json"
    damaged.write_text('{"trial_data": [')
    with pytest.raises(ConfigError, match=f"{damaged.name} is damaged"):
        check_folder(tmp_path, resume=True)


def test_demonstrations_are_read_once_for_all_trials(local_ray: None) -> None:
    library = ray.remote(num_cpus=0)(DemoLibrary).options(name="library").remote()
    options = {
        "env": {"id": "hil/PandaPickCube-v0", "kwargs": {}},
        "image_obs": False,
        "fallback_episodes": 2,
    }
    first, second = (shared_demos("library", "scripted", **options, seed=7) for _ in range(2))
    assert first.transitions == second.transitions > 20
    assert ray.get(library.count.remote()) == 1
    shared_demos("library", "scripted", **options, seed=8)
    assert ray.get(library.count.remote()) == 2
    with pytest.raises(DatasetError, match="/nowhere: no such folder"):
        shared_demos("library", "/nowhere", **options)
