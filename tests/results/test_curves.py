"""A run's curves are what its TensorBoard files say, joined over sessions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written import write_run

from hil_rllib import plot
from hil_rllib.results.curves import NoCurvesError, find_runs, read_run
from hil_rllib.results.figures import band, on_one_grid, panels
from hil_rllib.results.groups import common_name, group


def test_each_evaluation_appears_once_at_the_step_of_its_weights(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", [0.02, 0.5, 0.98]))
    assert run.evaluations.steps.tolist() == [1000, 2000, 3000]
    assert run.evaluations.success.tolist() == [0.02, 0.5, 0.98]
    seconds = run.scalars["hil/human_seconds"]
    assert np.interp(1250.0, seconds.steps, seconds.values) == pytest.approx(12.5)
    assert set(run.scalars) == {
        *(f"hil/{name}" for name in ("env_steps", "human_seconds", "intervention_rate")),
        *(f"evaluation/{name}" for name in ("success", "episodes", "at_env_steps")),
    }


def test_a_resumed_run_takes_the_place_of_what_the_first_session_did_after_the_checkpoint(
    tmp_path: Path,
) -> None:
    write_run(tmp_path / "a", [0.1, 0.2, 0.9])
    run = read_run(write_run(tmp_path / "a", [0.3, 0.4], session="trial_2", first=3, begin=9000.0))
    assert run.evaluations.steps.tolist() == [1000, 2000, 3000, 4000]
    assert run.evaluations.success.tolist() == [0.1, 0.2, 0.3, 0.4]
    assert np.all(np.diff(run.scalars["hil/env_steps"].steps) > 0)


def test_a_run_that_kept_what_it_did_after_the_checkpoint_has_each_evaluation_once(tmp_path: Path) -> None:
    """Its first reports, at a later step, repeat the checkpoint's evaluation: others came after it."""
    folder = write_run(tmp_path / "a", [0.1, 0.2, 0.9])
    write_run(folder, [0.1], session="trial_2", begin=9000.0, reported_at=3600)
    write_run(folder, [0.4], session="trial_3", first=4, begin=9500.0)
    run = read_run(folder)
    assert run.evaluations.steps.tolist() == [1000, 2000, 3000, 4000]
    assert run.evaluations.success.tolist() == [0.1, 0.2, 0.9, 0.4]


def test_runs_are_found_in_a_folder_and_what_is_none_is_said(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "runs" / name, [0.5]) for name in ("a", "b")]
    assert find_runs([tmp_path / "runs"]) == find_runs([*runs, runs[0]]) == runs
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoCurvesError, match="is no run and holds none"):
        find_runs([tmp_path / "empty"])
    with pytest.raises(NoCurvesError, match="no such folder"):
        find_runs([tmp_path / "nowhere"])


def test_seeds_of_one_configuration_are_one_group_named_by_what_sets_it_apart(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / f"{name}_{seed}", [0.5], f"run.seed={seed}", f"operator.device={name}")
        for name in ("none", "scripted")
        for seed in (0, 1)
    ]
    groups = group([read_run(folder) for folder in folders])
    assert {label: [run.folder.name for run in runs] for label, runs in groups.items()} == {
        "operator.device=none": ["none_0", "none_1"],
        "operator.device=scripted": ["scripted_0", "scripted_1"],
    }
    assert list(group([read_run(folder) for folder in folders[:2]])) == ["none"]
    assert common_name(["run-seed3", "run-seed10"]) == "run"


def test_a_run_that_ended_keeps_its_last_value_in_the_median(tmp_path: Path) -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0])
    grid, values = on_one_grid([(x, x), (x[:2], x[:2] * 10)])
    assert grid.tolist() == [1, 2, 3, 4]
    assert values.tolist() == [[1, 2, 3, 4], [10, 20, 20, 20]]


def test_the_median_ends_where_nobody_knows_yet_how_a_run_goes_on() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0])
    curves = [(x, x), (x[:2], x[:2] * 10), (x[:3], x[:3] * 5)]
    for going_on, until in (([False] * 3, 4), ([False, False, True], 3), ([True] * 3, 2), (None, 4)):
        _, axes = panels(1, 1)
        band(axes[0, 0], curves, "black", "all", going_on)
        *thin, median = axes[0, 0].lines
        assert [len(line.get_xdata()) for line in thin] == [4, 2, 3]  # each as far as it has come
        assert median.get_xdata()[-1] == until


def test_plot_draws_what_has_curves_and_says_what_has_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "runs" / "s_0", [0.2, 0.6], "run.seed=0")
    write_run(tmp_path / "runs" / "s_1", [0.4, 0.8], "run.seed=1")
    waiting = tmp_path / "runs" / "later"
    waiting.mkdir()
    (waiting / "config.yaml").write_text("run: {seed: 2}\n")
    picture = tmp_path / "curves.png"
    assert plot.main([str(tmp_path / "runs"), "--out", str(picture)]) == 0
    said = capsys.readouterr()
    assert "s: s_0, s_1" in said.out
    assert "later has no TensorBoard curves yet" in said.err
    assert picture.stat().st_size > 10_000
    assert plot.main([str(tmp_path / "runs"), "--out", str(picture)]) == 2
    assert "exists already. Write over it with --force" in capsys.readouterr().err
    assert plot.main([str(tmp_path / "runs"), "--out", str(picture), "--force"]) == 0
