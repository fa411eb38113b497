"""The benchmark's protocol, its report, and which runs it still has to make."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tensorboardX import SummaryWriter
from written import write_run

from hil_rllib import benchmark
from hil_rllib.config import load_config
from hil_rllib.data.hub import HubUnreachable
from hil_rllib.results import runner
from hil_rllib.results.outcomes import elapsed
from hil_rllib.results.protocol import SETTINGS, Job, jobs
from hil_rllib.results.report import spread
from hil_rllib.results.scores import NEVER

ROOT = Path(__file__).resolve().parents[2]


def test_the_protocol_is_the_one_that_is_published() -> None:
    assert {name: (setting.seeds, len(setting.arms)) for name, setting in SETTINGS.items()} == {
        "state-real": (5, 6),
        "state-scripted": (5, 6),
        "images-real": (3, 3),
        "images-fixed": (3, 2),
    }
    every = list(jobs())
    assert len({job.name for job in every}) == len(every) == 5 * (6 + 4) + 3 * (3 + 2)
    for job in every:
        config = load_config(ROOT / job.config, job.overrides("a_folder"))
        assert config.run.mode == "lockstep"
        assert (config.evaluation.episodes, config.stop.env_steps) == (50, 15_000)
        assert config.run.seed == job.seed
        assert config.env.random_block_position == (job.setting != "images-fixed")
        assert (config.demos.source == "none") == (job.arm in ("interventions", "none"))
        assert (config.operator.device == "none") == (job.arm in ("demos", "none", "cloning"))
        human = config.operator.scripted
        assert (human.reaction_s, human.noise, human.budget_s) == (0.3, 0.1, 600)


def test_runs_without_demonstrations_are_made_once_for_both_demo_sets() -> None:
    names = [Job(setting, "none", 3).name for setting in ("state-real", "state-scripted")]
    assert names == ["state-none-3", "state-none-3"]
    assert Job("state-real", "both", 3).name != Job("state-scripted", "both", 3).name


def finished(out: Path, job: Job, successes: list[float], **record: object) -> None:
    """A run of the benchmark as it lies there in the end: its reports begin 30 s after its start."""
    write_run(out / job.name, successes, f"run.seed={job.seed}", begin=1030.0)
    whole = {"job": vars(job), "started": [1000.0], "finished": 1500.0, "demo_seconds": 80.0, "steps": None}
    runner.write_record(out / job.name, whole | {"made": 3500, "commit": "abc", "machine": "m"} | record)


def test_the_report_says_what_each_threshold_took(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path, Job("state-real", "both", 0), [0.5, 0.9, 1.0])
    finished(tmp_path, Job("state-real", "both", 1), [0.92, 0.5, 0.6])
    finished(tmp_path, Job("state-real", "none", 0), [0.0, 0.0, 0.0], demo_seconds=0.0)
    (tmp_path / "state-real-both-2").mkdir()  # under way
    assert benchmark.main([str(tmp_path), "--collect"]) == 0
    table = capsys.readouterr().out
    both = next(line for line in table.splitlines() if line.startswith("| demos and interventions"))
    assert both.split("|")[2:5] == [" 2 ", " 1500 (1250 … 1750) ", " 95 (92 … 98) "]  # 10 s a 1,000 steps
    assert "3000, 1 of 2" not in both
    assert both.count("never (never … never), 1 of 2") == 3
    with (tmp_path / "report" / "runs.csv").open() as file:
        rows = {(row["setting"], row["arm"], row["seed"]): row for row in csv.DictReader(file)}
    assert len(rows) == 4  # the run without demonstrations belongs to both demo sets
    first = rows["state-real", "both", "0"]
    assert (first["env_steps_to_90"], first["wall_s_to_90"], first["human_s_to_90"]) == (
        "2000.0",
        "50.0",
        "100.0",
    )
    assert (first["env_steps_to_100"], first["wall_s"]) == ("3000.0", "500.0")
    assert rows["state-scripted", "none", "0"]["env_steps_to_90"] == "never"
    assert (tmp_path / "report" / "curves.png").stat().st_size > 10_000


def test_runs_of_several_machines_make_one_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there, whole = (tmp_path / name for name in ("here", "there", "whole"))
    for seed, out in enumerate((there, here, here)):
        finished(out, Job("state-real", "both", seed), [0.5, 0.9, 1.0][seed:], jobs=seed or None)
        finished(whole, Job("state-real", "both", seed), [0.5, 0.9, 1.0][seed:], jobs=seed or None)
    finished(there, Job("state-real", "both", 1), [0.0])  # also here, which counts
    for out in (there, whole):
        finished(out, Job("images-fixed", "demos", 0), [0.8], machine='a "quoted", one')
        finished(out, Job("state-scripted", "none", 0), [0.0])
        finished(out, Job("state-scripted", "unanchored", 0), [])
        with SummaryWriter(str(out / "state-scripted-unanchored-0" / "trial")) as writer:
            for tag in ("hil/env_steps", "hil/human_seconds"):
                writer.add_scalar(f"ray/tune/{tag}", 500, 500, walltime=1040.0)
    for out in (there, whole):
        assert benchmark.main([str(out), "--collect"]) == 0
    assert benchmark.main([str(here), "--collect", "--add", str(there / "report")]) == 0
    for name in ("runs.csv", "curves.csv", "tables.md"):
        assert (here / "report" / name).read_bytes() == (whole / "report" / name).read_bytes(), name

    made = []
    monkeypatch.setattr(benchmark, "check_real_demos", lambda *_: None)
    monkeypatch.setattr(benchmark, "make_runs", lambda missing, *_: made.extend(missing) or [])
    words = ["--settings", "state-real", "--arms", "both", "none", "--seeds", "0", "3"]
    assert benchmark.main([str(tmp_path / "new"), *words, "--add", str(there / "report")]) == 0
    assert [job.name for job in made] == ["state-real-both-3", "state-none-3"]


def test_a_report_is_not_replaced_by_one_that_lacks_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there, published = tmp_path / "here", tmp_path / "there", tmp_path / "published"
    finished(there, Job("state-real", "both", 0), [0.5])
    finished(here, Job("state-real", "both", 1), [0.6])
    assert benchmark.main([str(there), "--collect", "--report", str(published)]) == 0
    before = (published / "runs.csv").read_bytes()
    monkeypatch.setattr(benchmark, "make_runs", lambda *_: pytest.fail("refused too late"))
    assert benchmark.main([str(here), "--report", str(published)]) == 2
    assert f"would lose 1 runs that are not in {here}, such as state-real-both-0" in capsys.readouterr().err
    assert (published / "runs.csv").read_bytes() == before
    words = ["--collect", "--report", str(published), "--add", str(published)]
    assert benchmark.main([str(here), *words]) == 0
    assert len((published / "runs.csv").read_text().splitlines()) == 3


def test_a_run_cut_short_elsewhere_is_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "there"
    finished(there, Job("state-real", "none", 0), [0.5, 0.4], steps=2500, made=2500)
    finished(there, Job("state-real", "none", 1), [1.0, 1.0], steps=5000, made=2500)  # solved before
    assert benchmark.main([str(there), "--collect"]) == 0
    made = []
    monkeypatch.setattr(benchmark, "make_runs", lambda missing, *_: made.extend(missing) or [])
    words = [
        "--settings",
        "state-real",
        "--arms",
        "none",
        "--seeds",
        "0",
        "1",
        "--add",
        str(there / "report"),
    ]
    for more, expected in ((["--steps", "2000"], []), ([], ["state-none-0"])):
        made.clear()
        assert benchmark.main([str(tmp_path / "new"), *words, *more]) == 0
        assert [job.name for job in made] == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seeds", "100"], "must be a whole number of 0 to 99, got 100"),
        (["--seeds", "-1"], "must be a whole number of 0 to 99, got -1"),
        (["--steps", "0"], "must be a whole number of 1 to 15000, got 0"),
        (["--steps", "20000"], "must be a whole number of 1 to 15000, got 20000"),
    ],
)
def test_numbers_that_no_report_could_show_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        benchmark.main([str(tmp_path), *words])
    assert said in capsys.readouterr().err


def test_demonstrations_that_are_not_there_are_missed_before_other_runs_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(benchmark, "make_runs", lambda *_: pytest.fail("refused too late"))
    words = ["--settings", "state-scripted", "images-real", "--demos", str(tmp_path / "nowhere")]
    assert benchmark.main([str(tmp_path / "out"), *words]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_each_run_is_noted_with_the_commit_that_it_was_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, noted = iter(["first", "second"]), []
    monkeypatch.setattr(runner, "commit", lambda: next(commits))
    monkeypatch.setattr(runner, "make_run", lambda *how: noted.append(how[3]["commit"]) or True)
    chosen = [Job("state-real", "none", seed) for seed in (0, 1)]
    runner.make_runs(chosen, runner.Plan(tmp_path), lambda job: 0.0, lambda text: None)
    assert noted == ["first", "second"]


def test_a_run_that_another_benchmark_makes_is_left_to_it(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-c",
        "import time; time.sleep(60)",
        "hil_rllib.benchmark",
        f"run.dir={tmp_path}",
    ]
    with subprocess.Popen(words) as other:
        while "run.dir=" not in runner.command_of(other.pid):
            time.sleep(0.01)
        runner.write_record(tmp_path, {"pid": other.pid, "benchmark": other.pid})
        with pytest.raises(OSError, match=f"is being made by another benchmark, process {other.pid}"):
            runner.end_leftover(tmp_path)
        assert other.poll() is None
        other.kill()


SPOILT = [
    "no runs.csv",
    "another arm",
    "a column less",
    "no number",
    "half a row",
    "rows twice",
    "half a curve",
]


@pytest.mark.parametrize("spoil", SPOILT)
def test_what_is_no_report_is_not_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: str
) -> None:
    finished(tmp_path, Job("state-real", "both", 0), [0.4, 0.5])
    assert benchmark.main([str(tmp_path), "--collect"]) == 0
    runs, curves = tmp_path / "report" / "runs.csv", tmp_path / "report" / "curves.csv"
    if spoil == "no runs.csv":
        runs.unlink()
    elif spoil == "half a row":
        runs.write_text(runs.read_text()[:-40])
    elif spoil == "rows twice":
        curves.write_text(curves.read_text() + curves.read_text().splitlines()[-1] + "\n")
    elif spoil == "half a curve":
        curves.write_text("\n".join(curves.read_text().splitlines()[:-1]))
    else:
        words = {
            "another arm": ("both", "two"),
            "a column less": ("human_s_to_90", "x"),
            "no number": ("500.0", "many"),
        }
        assert words[spoil][0] in runs.read_text()
        runs.write_text(runs.read_text().replace(*words[spoil]))
    assert benchmark.main([str(tmp_path), "--collect", "--add", str(tmp_path / "report")]) == 2
    assert "is no report of the benchmark" in capsys.readouterr().err


def test_real_demonstrations_that_cannot_be_had_are_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(source: str) -> None:
        raise HubUnreachable(f"No answer for {source}.")

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(benchmark, "locate", unreachable)
    with pytest.raises(HubUnreachable, match=r"No answer for aractingi.* Here: --demos FOLDER"):
        benchmark.demo_seconds(Job("state-real", "both", 0), None)
    assert benchmark.demo_seconds(Job("state-real", "none", 0), None) == 0


def test_time_between_sessions_does_not_count() -> None:
    reports = np.array([10.0, 20.0, 110.0, 120.0])
    assert elapsed(np.array([15.0, 20.0, 110.0, 130.0]), [0.0, 100.0], reports).tolist() == [15, 20, 30, 50]


def test_a_median_that_was_never_reached_is_said_with_how_many_did() -> None:
    assert spread([100.0, 200.0, 300.0]) == "200 (150 … 250)"
    assert spread([100.0, 200.0, NEVER]) == "200 (150 … never), 2 of 3"
    assert spread([NEVER, NEVER]) == "never"


def test_a_run_is_made_until_it_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert not runner.is_finished(folder)
    runner.write_record(folder.mkdir() or folder, {"steps": 3000, "made": 3000})
    assert not runner.is_finished(folder)  # cut off
    runner.write_record(folder, {"steps": 3000, "made": 3000, "finished": 1.0})
    assert runner.is_finished(folder, 3000)
    assert not runner.is_finished(folder)  # a first look, now wanted whole
    runner.write_record(folder, {"steps": 3000, "made": 2000, "finished": 1.0})
    assert runner.is_finished(folder)  # it was solved before


def test_runs_that_all_failed_are_named_and_no_arm_at_all_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "make_runs", lambda chosen, *_: chosen)
    assert benchmark.main([str(tmp_path), "--settings", "state-real", "--arms", "none", "--seeds", "0"]) == 1
    assert "failed: state-none-0, see" in capsys.readouterr().err
    assert benchmark.main([str(tmp_path), "--collect"]) == 2
    assert "holds no finished run" in capsys.readouterr().err
    assert benchmark.main([str(tmp_path), "--settings", "images-real", "--arms", "none"]) == 2
    assert "No setting of images-real has an arm of none." in capsys.readouterr().err


def test_side_by_side_runs_share_the_cores_evenly() -> None:
    cores = sorted(os.sched_getaffinity(0))
    dealt = runner.shares(len(cores))
    assert sorted(core for share in dealt for core in share) == cores
    assert {len(share) for share in dealt} == {1}
    with pytest.raises(ValueError, match="--jobs must be 1 to"):
        runner.shares(len(cores) + 1)


def test_the_report_says_how_long_all_runs_took_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path, Job("state-real", "both", 0), [0.5], finished=4600.0, jobs=2)
    finished(tmp_path, Job("state-real", "none", 0), [0.0], finished=8200.0)  # of both demo sets, not noted
    assert benchmark.main([str(tmp_path), "--collect"]) == 0
    table = capsys.readouterr().out
    line = "Wall-clock time of the 2 runs: 3.0 h; some side by side, so 2.5 h by the clock."
    made_by = "Commits: `abc` (2 runs). Machines: m (2 runs)."
    assert table.splitlines()[-4:] == [line, "", made_by, ""]
    assert next(row for row in table.splitlines() if row.startswith("| neither")).split("|")[10] == " 120.0 "
    with (tmp_path / "report" / "runs.csv").open() as file:
        assert [(row["jobs"], row["wall_s"]) for row in csv.DictReader(file)] == [
            ("2", "3600.0"),
            ("", "7200.0"),
            ("", "7200.0"),
        ]


def test_a_run_too_short_for_an_evaluation_is_reported_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job("state-real", "none", 0)
    finished(tmp_path, job, [])
    with SummaryWriter(str(tmp_path / job.name / "trial")) as writer:
        for tag in ("hil/env_steps", "hil/human_seconds"):
            writer.add_scalar(f"ray/tune/{tag}", 500, 500, walltime=1040.0)
    assert benchmark.main([str(tmp_path), "--collect"]) == 0
    row = next(row for row in capsys.readouterr().out.splitlines() if row.startswith("| neither"))
    assert [cell.strip() for cell in row.split("|")[3:-1]] == ["never"] * 6 + ["500", "8.3", "none", "none"]


def test_demonstrations_are_counted_for_one_run_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs of one seed would record the same set at once."""
    counting, most = [], []

    def demo_seconds(job: Job) -> float:
        counting.append(job)
        most.append(len(counting))
        time.sleep(0.05)
        counting.pop()
        return 1.0

    monkeypatch.setattr(runner, "shares", lambda parallel: [[0]] * parallel)
    monkeypatch.setattr(runner, "make_run", lambda *_: True)
    plan = runner.Plan(tmp_path, parallel=2)
    runner.make_runs(list(jobs(seeds=[0]))[:4], plan, demo_seconds, lambda _: None)
    assert most == [1] * 4


def test_a_run_that_a_killed_benchmark_left_is_ended_though_nobody_reaps_it(tmp_path: Path) -> None:
    """Where the first process of a container reaps no children, a killed one stays as a zombie."""
    words = [sys.executable, "-c", "import time; time.sleep(60)", f"run.dir={tmp_path}"]
    with subprocess.Popen(words) as left:
        while "run.dir=" not in runner.command_of(left.pid):
            time.sleep(0.01)
        runner.write_record(tmp_path, {"pid": left.pid})
        runner.end_leftover(tmp_path)
        assert Path(f"/proc/{left.pid}").exists()  # only `wait` reaps it
        assert left.wait() == -signal.SIGKILL
