"""`python -m hil_rllib.replay`: what it prints and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_demos import failing_set

from hil_rllib import dataset as dataset_module
from hil_rllib import replay as replay_module
from hil_rllib.console import INTERRUPTED
from hil_rllib.replay import main, parse_episodes


def test_real_episodes_succeed_at_their_last_frame(real_demos: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(real_demos), "--episodes", "5,8-9", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["episode"] for line in lines] == [5, 8, 9]
    keys = ["episode", "success", "frames", "end_frame", "tcp_error_mm_median", "tcp_error_mm_max"]
    for line in lines:
        assert list(line) == keys
        assert line["success"] is True
        assert line["end_frame"] == line["frames"] - 1
        assert line["tcp_error_mm_median"] <= 0.1


def test_repaired_real_episodes_replay_as_exactly(
    real_demos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    repaired = str(tmp_path / "repaired")
    assert dataset_module.main(["convert", str(real_demos), repaired, "--repair", "--episodes", "5,8-9"]) == 0
    capsys.readouterr()
    assert main([repaired, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(x["end_frame"] == x["frames"] - 1 and x["tcp_error_mm_median"] <= 0.1 for x in lines)


@pytest.mark.slow
def test_all_real_episodes_succeed_at_their_last_frame(real_demos: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(real_demos), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 30
    assert all(x["end_frame"] == x["frames"] - 1 and x["tcp_error_mm_median"] <= 0.1 for x in lines)


def test_failing_episode_gives_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = failing_set(tmp_path / "set", 1)
    assert main([str(folder)]) == 1
    out = capsys.readouterr().out
    assert "no success" in out
    assert out.endswith("0/1 episodes succeed\n")


def test_unusable_dataset_gives_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/meta/info.json: not found")


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("hil/PandaPickCub-v0", "Did you mean: `PandaPickCube`?"),
        ("hil/PandaArrangeBoxes-v0", "Recordings are replayed in hil/PandaPickCube-v0."),
        ("hil/PandaPickCubeBase-v0", "takes actions of shape (7,), recordings hold (4,)."),
        ("hil/PandaPickCubeViewer-v0", "The viewer needs a display"),
    ],
)
def test_an_env_that_recordings_cannot_drive_gives_exit_code_2_and_one_line(
    env_id: str,
    message: str,
    real_demos: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("DISPLAY", raising=False)
    assert main([str(real_demos), "--episodes", "0", "--env", env_id]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ")
    assert message in said


@pytest.mark.parametrize(("module", "work"), [(replay_module, "run"), (dataset_module, "describe")])
def test_ctrl_c_ends_it_in_a_line(module, work, monkeypatch, capsys, real_demos):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, work, interrupted)
    arguments = ["info", str(real_demos)] if module is dataset_module else [str(real_demos)]
    assert module.main(arguments) == INTERRUPTED
    assert capsys.readouterr().err == "Stopped at once.\n"


@pytest.mark.parametrize(("text", "episodes"), [("3", [3]), ("0-2", [0, 1, 2]), ("0-1,7", [0, 1, 7])])
def test_episode_ranges(text: str, episodes: list[int]):
    assert parse_episodes(text) == episodes


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "1-", "1,,2"])
def test_nonsense_episode_range_gives_exit_code_2(text: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_:
        main(["anywhere", f"--episodes={text}"])
    assert exit_.value.code == 2
    assert "names no episodes" in capsys.readouterr().err
