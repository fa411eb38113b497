"""The user's command: what it leaves behind, how it stops and goes on, and what it refuses to begin."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from ray.exceptions import RayError, RayTaskError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hil_rllib import train
from hil_rllib.config import load_config
from hil_rllib.data.journal_format import FILE_HEADER, FILE_MAGIC
from hil_rllib.devices.gamepad_maps import SHIPPED

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ROOT / "tuned_configs" / "panda_sac_smoke.yaml"
REFERENCE = ROOT / "tuned_configs" / "panda_sac.yaml"
BUNDLED = ROOT / "hil_rllib" / "models" / "bundled" / "resnet10.safetensors"


def command(run_dir: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "hil_rllib.train", str(SMOKE), f"run.dir={run_dir}", *arguments]


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory) -> dict[str, str]:
    """An environment whose caches are not the user's."""
    return os.environ | {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, surroundings) -> tuple[Path, subprocess.CompletedProcess[str]]:
    run_dir = tmp_path_factory.mktemp("runs") / "smoke"
    arguments = command(run_dir, "stop.env_steps=250", "evaluation.every_steps=100")
    done = subprocess.run(
        arguments, env=surroundings, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return run_dir, done


@pytest.mark.timeout(500)
def test_a_run_leaves_config_summary_checkpoint_and_curves(finished):
    run_dir, done = finished
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["env_steps"] == 250  # lockstep: reports, and so the end, are at the same steps each time
    assert summary["updates"] == 2 * (250 - 100)
    assert summary["greedy_episodes"] == 2
    assert summary["greedy_success"] in (0.0, 0.5, 1.0)
    assert summary["human_seconds"] == 0
    assert summary["seed"] == 0
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["stop"]["env_steps"] == 250
    assert list(run_dir.glob("trial/checkpoint_*/hil_state.json"))

    rows = (run_dir / "trial" / "result.json").read_text().splitlines()
    assert not any("config" in json.loads(row) for row in rows)  # once, in config.yaml, is enough

    curves = EventAccumulator(str(run_dir / "trial")).Reload()
    tags = set(curves.Tags()["scalars"])
    hil = "env_steps updates human_seconds env_steps_per_s updates_per_s online_ring demo_ring success_rate"
    hil += " intervention_rate weights_staleness q_mean temperature entropy"
    assert {f"ray/tune/hil/{name}" for name in hil.split()} <= tags
    assert "ray/tune/evaluation/success" in tags
    assert curves.Scalars("ray/tune/hil/env_steps")[-1].step >= 250  # drawn over env steps

    output = done.stdout + done.stderr
    assert "step " in output  # progress was shown
    for noise in ("Traceback", "Exception ignored", "new API stack", "Deprecat", "core_worker"):
        assert noise not in output


@pytest.mark.timeout(500)
def test_a_run_goes_on_where_it_stopped_and_ctrl_c_leaves_a_checkpoint(finished, surroundings, tmp_path):
    run_dir = tmp_path / "continued"
    shutil.copytree(finished[0], run_dir)
    before = json.loads((run_dir / "summary.json").read_text())
    (run_dir / "summary.json").unlink()
    process = subprocess.Popen(
        command(run_dir, "--resume", "stop.env_steps=100000"),
        env=surroundings, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    results = run_dir / "trial_2" / "result.json"
    deadline = time.monotonic() + 240
    while not (results.exists() and results.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.5)
    time.sleep(4)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to Ray's processes too
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 128 + signal.SIGINT, output
    assert "Stopping with a last checkpoint" in output
    assert "Traceback" not in output, output
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["env_steps"] > before["env_steps"], output
    assert summary["updates"] > before["updates"]
    states = [json.loads(f.read_text()) for f in run_dir.glob("trial_2/checkpoint_*/hil_state.json")]
    assert max(state["env_steps"] for state in states) == summary["env_steps"]


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    """Calls the command; it must end with status 2 and one clear error, and never reach Ray."""
    monkeypatch.setattr(train, "start_ray", lambda config: pytest.fail("work began"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(config: Path, *arguments: str) -> str:
        assert train.main([str(config), f"run.dir={tmp_path / 'run'}", *arguments]) == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        lines = [line for line in error.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, error
        assert error.endswith(lines[0] + "\n")  # one line, the last
        return error

    return call


@pytest.fixture
def copied_demos(real_demos, tmp_path) -> Path:
    return Path(shutil.copytree(real_demos, tmp_path / "demos"))


LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def test_unknown_key_names_the_nearest(refused):
    assert "Did you mean 'utd_ratio'?" in refused(SMOKE, "sac.utd_raito=2")


def test_wrong_type_says_what_came(refused):
    error = refused(SMOKE, "sac.batch_size=many")
    assert "sac.batch_size" in error
    assert "many" in error


def test_missing_dataset_folder(refused, tmp_path):
    assert "nowhere" in refused(REFERENCE, f"demos.source={tmp_path / 'nowhere'}", "demos.fallback=none")


def test_lfs_pointers_in_place_of_data(refused, copied_demos):
    for file in copied_demos.glob("data/**/*.parquet"):
        file.write_text(LFS_POINTER)
    error = refused(REFERENCE, f"demos.source={copied_demos}")
    assert "episode_000000.parquet" in error
    assert "git lfs pull" in error


def test_missing_video_is_named(refused, copied_demos):
    next(copied_demos.glob("videos/**/observation.images.wrist/episode_000007.mp4")).unlink()
    error = refused(REFERENCE, f"demos.source={copied_demos}", "demos.frames=recorded")
    assert "episode_000007.mp4" in error


def test_actions_of_another_dimension(refused, copied_demos):
    info = copied_demos / "meta" / "info.json"
    content = json.loads(info.read_text())
    content["features"]["action"]["shape"] = [6]
    info.write_text(json.dumps(content))
    assert "6" in refused(REFERENCE, f"demos.source={copied_demos}")


def test_environment_of_another_action_or_unknown(refused, monkeypatch, tmp_path):
    error = refused(SMOKE, "env.id=hil/PandaPickCubeBase-v0")
    assert "takes actions of shape (7,), the policy gives (4,)" in error
    monkeypatch.delenv("DISPLAY", raising=False)
    others = "hil/PandaPickCub-v0", "CartPole-v1", "hil/PandaPickCubeViewer-v0", "hil/PandaArrangeBoxes-v0"
    for name in others:  # the last has no random_block_position
        error = refused(SMOKE, f"env.id={name}", "env.random_block_position=true")
        assert f"env.id '{name}' cannot be made" in error
        assert "Choose from hil/PandaPickCube-v0 and, with env.random_block_position=false, hil/Pa" in error
    assert not (tmp_path / "run" / "config.yaml").exists()  # so that the corrected command can use the folder


def test_no_opengl_says_what_to_install(monkeypatch, refused):
    monkeypatch.setattr("envs.gl.find_backend", lambda: None)
    assert "apt-get install" in refused(REFERENCE, "demos.source=scripted")


def test_a_controller_map_that_cannot_be_used(refused, tmp_path):
    broken = tmp_path / "pad.json"
    broken.write_text('{"default": {"axes": {"left_x": "one"}}}')
    for device, file, says in (
        ("gamepad", tmp_path / "none.json", "none.json"),
        ("gamepad", broken, "axes lacks left_y"),
        ("none", broken, "'controller_config' of device 'none'"),
    ):
        error = refused(
            SMOKE, "run.mode=async", f"operator.device={device}", f"operator.controller_config={file}"
        )
        assert says in error


def test_names_of_features_that_rename_nothing(refused):
    assert "'front' renames no feature" in refused(SMOKE, "demos.features=[front]")


def test_missing_encoder_weights(refused, tmp_path):
    error = refused(REFERENCE, "demos.source=scripted", f"encoder.weights={tmp_path / 'none.safetensors'}")
    assert "bundled, random" in error


def test_files_are_found_from_any_working_directory(real_demos, tmp_path, monkeypatch):
    """Workers have others."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    shutil.copy(BUNDLED, tmp_path / "mine")
    (tmp_path / "demos").symlink_to(real_demos)
    shutil.copy(SHIPPED, tmp_path / "pad.json")
    options = ["demos.source=demos", "demos.frames=rerendered", "demos.episodes=1"]
    options += ["run.mode=async", "operator.device=auto", "operator.controller_config=pad.json"]
    for given, needed in (
        ("mine", str(tmp_path / "mine")),
        (f"mine/{BUNDLED.name}", str(tmp_path / "mine" / BUNDLED.name)),
        ("bundled", "bundled"),
    ):
        config = load_config(SMOKE, [*options, f"encoder.weights={given}"])
        ready = train.check_ingredients(config, tmp_path / "run")
        assert ready.encoder.weights == needed
        assert ready.demos.source == str(tmp_path / "demos")
        assert ready.operator.controller_config == str(tmp_path / "pad.json")


def test_a_device_that_is_not_there_yet(refused):
    error = refused(SMOKE, "run.mode=async", "operator.device=gamepad")
    assert "scripted" in error


@pytest.mark.parametrize("device", ["gamepad", "keyboard", "auto"])
def test_two_robots_are_not_driven_by_one_gamepad_or_keyboard(device, monkeypatch):
    """A gamepad's device opens the first one that fits: two would open the same."""
    monkeypatch.setattr("hil_rllib.devices.gamepad.GamepadDevice.missing", lambda: None)
    monkeypatch.setattr("hil_rllib.devices.keyboard.KeyboardDevice.missing", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    two = load_config(SMOKE, ["run.mode=async", "operator.count=2", f"operator.device={device}"])
    with pytest.raises(train.ConfigError, match="have the same one in their hands"):
        train.check_operator(two)
    train.check_operator(replace(two, operator=replace(two.operator, device=("gamepad", "keyboard"))))
    monkeypatch.setenv("RAY_ADDRESS", "auto")  # each at a machine of their own
    train.check_operator(two)


@pytest.mark.timeout(500)
def test_a_run_is_not_overwritten_nor_resumed_with_another_config(finished, refused, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    assert "already holds a run" in refused(SMOKE)
    error = refused(SMOKE, "--resume", "sac.hidden=[32,32]")
    assert "sac.hidden was [64, 64], now [32, 32]" in error


def test_what_people_did_is_not_cut_off_by_resuming_in_lockstep():
    lockstep, people = load_config(SMOKE), load_config(SMOKE, ["run.mode=async"])
    assert train.config_differences(people, lockstep) == ["run.mode was 'async', now 'lockstep'"]
    assert train.config_differences(lockstep, people) == []


def test_in_lockstep_a_run_goes_on_with_the_runners_it_had_only():
    """Their snapshots are in the checkpoint."""
    for override in ("record.operator=true", "runners.autonomous=1", "operator.device=scripted"):
        begun, now = load_config(SMOKE), load_config(SMOKE, [override])
        assert any(override.partition("=")[0] in said for said in train.config_differences(begun, now))
        begun, now = (replace(c, run=replace(c.run, mode="async")) for c in (begun, now))
        assert train.config_differences(begun, now) == []


def test_what_must_not_change_is_told_in_the_configs_order_the_seed_too():
    other = load_config(SMOKE, ["run.seed=7", "sac.tau=0.1", "env.max_episode_steps=7", "stop.env_steps=777"])
    told = [
        difference.partition(" was ")[0] for difference in train.config_differences(load_config(SMOKE), other)
    ]
    assert told == ["run.seed", "env.max_episode_steps", "sac.tau"]


def test_a_run_of_a_later_release_or_without_its_journals_is_refused(refused, tmp_path):
    run_dir = tmp_path / "run"
    checkpoint, journal = (
        run_dir / "trial" / "checkpoint_000000",
        run_dir / "replay" / "online-000000000000.journal",
    )
    for folder in (checkpoint, journal.parent):
        folder.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(f"base: {SMOKE}\n")
    state = {"version": 99, "env_steps": 1, "journals": {"online": {"records": 3, "needed": 0}}}
    (checkpoint / "hil_state.json").write_text(json.dumps(state))
    assert "version 99, this program reads 1 and 2" in refused(SMOKE, "--resume")
    (checkpoint / "hil_state.json").write_text(json.dumps(state | {"version": 2}))
    assert "saw 3 records of the online ring, none are there. Copy all" in refused(SMOKE, "--resume")
    journal.write_bytes(FILE_HEADER.pack(FILE_MAGIC, 99))
    assert "version 99, this program reads 1" in refused(SMOKE, "--resume")
    journal.write_bytes(b"PK and so on")
    assert "is no journal" in refused(SMOKE, "--resume")


def test_a_cluster_that_is_not_there_is_said_at_once(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    started = time.monotonic()
    assert train.main([str(SMOKE), f"run.dir={tmp_path / 'run'}"]) == 2
    assert time.monotonic() - started < 60  # Ray would try for a quarter of an hour
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: No cluster answers at RAY_ADDRESS=127.0.0.1:1 (")
    assert not (tmp_path / "run" / "config.yaml").exists()  # the folder is not claimed


def test_a_ring_too_small_for_what_comes_at_once(refused):
    error = refused(SMOKE, "sac.batch_size=8", "sac.demo_capacity=8", "runners.fragment=3")
    assert "sac.demo_capacity 8 is too small: 4 demonstrations of 106 steps have 110 observations" in error
    error = refused(SMOKE, "sac.batch_size=8", "sac.online_capacity=8", "runners.fragment=8")
    assert "sac.online_capacity 8 is too small: a fragment of 8 steps has 9 observations" in error


def test_an_error_in_the_trial_is_told_without_its_traceback():
    for raised, said in ((ValueError("what is wrong"), "what is wrong"), (KeyError("x"), "KeyError: 'x'.")):
        told = RayTaskError("train", "Traceback (most recent call last): …", raised).as_instanceof_cause()
        assert train.said_of(RayTaskError("train", "Traceback", told)) == said
    in_setup = RayError("The actor died … its creation task\n  File …\nValueError: what is wrong")
    assert train.said_of(in_setup) == "ValueError: what is wrong"


def test_nothing_to_resume(refused, tmp_path):
    assert "holds no run" in refused(SMOKE, "--resume")


@pytest.mark.timeout(500)
def test_a_run_killed_before_it_saved_anything_begins_anew(surroundings, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(
        f"base: {SMOKE}\nrun: {{algorithm: bc}}\noffline: {{updates: 2}}\n"
    )
    few = ("run.algorithm=bc", "offline.updates=2", "evaluation.episodes=1", "operator.device=none")
    done = subprocess.run(
        command(tmp_path / "run", *few, "--resume"),
        env=surroundings, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "has no checkpoint yet: learning begins anew" in done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["updates"] == 2


def test_the_checkpoint_with_most_steps_is_resumed_whatever_session_wrote_it(tmp_path):
    (tmp_path / "config.yaml").write_text(f"base: {SMOKE}\n")
    checkpoints = {"trial/checkpoint_000004": 400, "trial_2/checkpoint_000000": 500}
    for name, steps in (checkpoints | {"trial_2/checkpoint_000001": 600}).items():
        (tmp_path / name).mkdir(parents=True)
        state = {"version": 2, "env_steps": steps}
        (tmp_path / name / "hil_state.json").write_text(json.dumps(state))
    config = load_config(SMOKE)
    assert train.checkpoint_to_resume(tmp_path, config) == tmp_path / "trial_2" / "checkpoint_000001"


@pytest.mark.parametrize(
    ("there", "follows"),
    [
        ([], "trial"),
        (["trial"], "trial_2"),
        (["trial", "trial_2"], "trial_3"),
        (["trial_9", "trial_10", "trial_old"], "trial_11"),  # the first ones were removed
    ],
)
def test_a_session_writes_over_no_other_ones_folder(tmp_path, there, follows):
    for name in there:
        (tmp_path / name).mkdir()
    assert train.next_session(tmp_path) == follows
