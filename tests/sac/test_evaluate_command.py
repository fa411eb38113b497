"""`python -m hil_rllib.evaluate`: the policy that it measures is the checkpoint's."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pygame
import pytest
import ray
from ray.rllib.core import DEFAULT_MODULE_ID

from hil_rllib import evaluate, sheet
from hil_rllib.collect.encode import encoded_space
from hil_rllib.sac.checkpoint import STATE_FILE, VERSION
from hil_rllib.sac.checkpoint_files import MODULE_FILE
from hil_rllib.sac.config import HILSACConfig, build_env
from hil_rllib.sac.evaluation import EpisodeResult, Evaluator

ROOT = Path(__file__).resolve().parents[2]
# Dense rewards tell weights apart.
SHORT = ("env.max_episode_steps=5", "env.reward_type=dense", "evaluation.seed=77")


@pytest.fixture(scope="module")
def run(build, configure):
    """A run's folder with two checkpoints, and what its own evaluator says of the newer one."""
    config = configure("run.seed=3", *SHORT)
    folder = Path(config.run.dir)
    algorithm = build(config)
    algorithm.save_to_path(folder / "trial" / "checkpoint_000001")
    while algorithm.env_steps < 40:  # learns from step 20 on
        algorithm.train()
    algorithm.save_to_path(folder / "trial" / "checkpoint_000000")  # Tune numbers each session from 0
    weights = algorithm.policy_state()[DEFAULT_MODULE_ID]
    return folder, ray.get(algorithm.evaluator.run.remote(weights)), algorithm.env_steps


def measured(*arguments, capsys):
    assert evaluate.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_is_measured_as_its_own_evaluator_does(run, capsys):
    folder, own, steps = run
    result = measured(folder, capsys=capsys)
    assert result["episodes"] == [asdict(episode) for episode in own]
    assert [episode["seed"] for episode in result["episodes"]] == [77, 78]
    assert result["env_steps"] == steps
    assert result["success"] == sum(episode.success for episode in own) / 2
    older = measured(folder / "trial" / "checkpoint_000001", capsys=capsys)
    assert older["env_steps"] == 0
    assert older["episodes"] != result["episodes"]


def test_the_command_prints_a_line_per_episode_and_films(run, tmp_path):
    film = tmp_path / "a.mp4"
    command = [sys.executable, "-m", "hil_rllib.evaluate", run[0]]
    command += ["--episodes", "3", "--seed", "5", "--video", film]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *episodes, verdict, source = done.stdout.splitlines()
    assert [line.split()[:2] for line in episodes] == [["seed", str(seed)] for seed in (5, 6, 7)]
    assert verdict.startswith("0/3 episodes solved, 0% (95 %: 0% to 56%), gripper penalty")
    assert source.startswith(f"by the policy after {run[2]} steps, in ")
    assert film.stat().st_size > 10_000


def test_the_same_command_gives_the_same_numbers_by_however_many_workers(run, tmp_path, capsys):
    command = [sys.executable, "-m", "hil_rllib.evaluate", run[0], "--json", "--sampled", "--episodes", "5"]
    command += ["--workers", "2", "--sheet", tmp_path / "sheet.png"]
    several = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert several.returncode == 0, several.stderr
    again = [measured(run[0], "--sampled", "--episodes", "5", capsys=capsys) for _ in range(2)]
    assert again[0] == again[1] == json.loads(several.stdout)
    assert again[0]["episodes"] != measured(run[0], "--episodes", "5", capsys=capsys)["episodes"]
    image = pygame.image.load(tmp_path / "sheet.png")
    assert image.get_size()[1] == pytest.approx(5 * sheet.SIDE, rel=0.1)
    assert len(np.unique(pygame.surfarray.array3d(image).reshape(-1, 3), axis=0)) > 1000  # a picture


def test_summary_counts_time_only_of_what_was_solved():
    results = [EpisodeResult(1, True, 20, 1.0, -0.02), EpisodeResult(2, False, 100, 0.0, 0.0)]
    assert evaluate.summarise(results) == {
        "success": 0.5,
        "success_95": pytest.approx((0.0945, 0.9055), abs=1e-4),
        "seconds_to_success": 2.0,
        "penalty": -0.01,
    }
    assert evaluate.summarise(results[1:])["seconds_to_success"] is None


def test_of_episodes_that_are_all_the_same_there_is_one_and_no_interval():
    summary = evaluate.summarise([EpisodeResult(1, True, 21, 1.0, -0.02)], alike=True)
    assert summary["success_95"] is None
    told = evaluate.verdict(summary, 1)
    assert told.startswith("solved in 2.1 s, gripper penalty -0.020; one episode, as every reset is the same")
    failed = evaluate.summarise([EpisodeResult(1, False, 100, 0.0, 0.0)], alike=True)
    assert evaluate.verdict(failed, 1).startswith("not solved, gripper penalty 0.000; one episode")


def test_frames_are_encoded_for_a_policy_that_sees(configure, tmp_path, capsys):
    config = configure("env.image_obs=true", "env.render_quality=fast", *SHORT)
    with contextlib.closing(build_env(config.env)) as env:
        spaces = {DEFAULT_MODULE_ID: (encoded_space(env.observation_space), env.action_space)}
    settings = HILSACConfig.from_config(config)
    whole = settings.get_rl_module_spec(spaces=spaces, inference_only=False).build()
    whole.make_target_networks()
    (tmp_path / MODULE_FILE).parent.mkdir(parents=True)
    (tmp_path / MODULE_FILE).write_bytes(pickle.dumps(whole.get_state()))
    state = {"version": VERSION, "config": config.to_dict(), "env_steps": 1}
    (tmp_path / STATE_FILE).write_text(json.dumps(state))
    spec = settings.get_rl_module_spec(spaces=spaces, inference_only=True)
    own = [asdict(episode) for episode in Evaluator(config, spec).run(whole.acting_state())]
    assert measured(tmp_path, capsys=capsys)["episodes"] == own


def other_configuration(checkpoint: Path) -> None:
    state = json.loads((checkpoint / STATE_FILE).read_text())
    state["config"]["sac"]["hidden"] = [16]
    (checkpoint / STATE_FILE).write_text(json.dumps(state))


def other_version(checkpoint: Path) -> None:
    state = json.loads((checkpoint / STATE_FILE).read_text()) | {"version": 0}
    (checkpoint / STATE_FILE).write_text(json.dumps(state))


def no_weights(checkpoint: Path) -> None:
    (checkpoint / MODULE_FILE).unlink()


def cut_weights(checkpoint: Path) -> None:
    file = checkpoint / MODULE_FILE
    file.write_bytes(file.read_bytes()[:1000])


def no_checkpoint(checkpoint: Path) -> None:
    (checkpoint / STATE_FILE).unlink()


def nothing(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (other_configuration, "no weights of this version's policy"),
        (other_version, "has version 0, this program reads"),
        (no_weights, "No such file or directory"),
        (cut_weights, "no weights of this version's policy"),
        (no_checkpoint, "holds no checkpoint of this project"),
        (nothing, "no such folder"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(run, spoil, message, tmp_path, capsys):
    checkpoint = tmp_path / "checkpoint_000000"
    shutil.copytree(run[0] / "trial" / "checkpoint_000000", checkpoint)
    spoil(checkpoint)
    assert evaluate.main([str(checkpoint)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert message in said.err
    assert said.err.count("\n") == 1


def test_bad_options_are_refused_before_any_episode(run, tmp_path, capsys):
    assert evaluate.main([str(run[0]), "--episodes", "0"]) == 2
    (tmp_path / "a.mp4").touch()
    assert evaluate.main([str(run[0]), "--video", str(tmp_path / "a.mp4")]) == 2
    said = capsys.readouterr()
    assert "--episodes must be at least 1, got 0." in said.err
    assert "a.mp4 exists already" in said.err
    assert said.out == ""
