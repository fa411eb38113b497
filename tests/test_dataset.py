"""The `dataset` command tells what is in a dataset and what is wrong with it, and repairs what it can."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from hil_rllib import dataset
from hil_rllib.data import lerobot_format as fmt
from hil_rllib.data.alignment import align
from hil_rllib.data.lerobot_reader import open_dataset
from hil_rllib.data.lerobot_writer import LeRobotWriter

STEPS, SIZE = 24, 48


def run(*arguments: object) -> int:
    return dataset.main([str(argument) for argument in arguments])


Change = Callable[[int, list[dict[str, np.ndarray]]], None]


def write(folder: Path, change: Change = lambda _, __: None, episodes: int = 3, success: bool = True) -> Path:
    """Episodes of a hand that answers its commands, with a picture that follows it; `change` spoils rows."""
    with LeRobotWriter(
        folder, cameras=("front",), environment_state=False, image_size=(SIZE, SIZE)
    ) as writer:
        for index in range(episodes):
            rng = np.random.default_rng(index)
            actions = np.ones((STEPS, 4), np.float32)
            actions[:, :3] = np.repeat(rng.uniform(-0.9, 0.9, (STEPS // 3, 3)), 3, axis=0)
            actions[STEPS // 2, 3] = 2
            state = np.zeros((STEPS, 18), np.float32)
            answer = np.array([0.5, 0.3, 0.2]) * 0.025
            for axis in range(3):
                moved = np.convolve(actions[:, axis], answer)[: STEPS - 1]
                state[1:, 15 + axis] = np.cumsum(moved)
            state[STEPS // 2 + 1 :, 14] = 255
            ramp = np.arange(SIZE) / 3
            frames = np.empty((STEPS, SIZE, SIZE, 3), np.uint8)
            for t, (x, y, z) in enumerate(state[:, 15:]):  # waves that move with the hand
                waves = np.sin(ramp + 100 * x)[None] + np.sin(ramp + 100 * y)[:, None] + np.sin(100 * z)
                frames[t] = (128 + 40 * waves)[..., None]
            rows = [{"state": state[t], "action": actions[t], "frame": frames[t]} for t in range(STEPS)]
            change(index, rows)
            for t, row in enumerate(rows):
                last = t == STEPS - 1
                writer.add_step(
                    {"agent_pos": row["state"], "pixels": {"front": row["frame"]}},
                    row["action"],
                    reward=float(last and success),
                    terminated=last and success,
                    truncated=last and not success,
                    success=last and success,
                    intervention=True,
                )
            writer.end_episode(seed=index)
    return folder


def frozen(index: int, rows: list[dict[str, np.ndarray]]) -> None:
    if index == 1:
        for row in rows:
            row["frame"] = rows[0]["frame"]


def stuttering(index: int, rows: list[dict[str, np.ndarray]]) -> None:
    if index == 2:
        moves = [np.linalg.norm(b["state"][15:] - a["state"][15:]) for a, b in pairwise(rows)]
        t = int(np.argmax(moves))
        rows[t + 1]["frame"] = rows[t]["frame"]


def in_metres(_: int, rows: list[dict[str, np.ndarray]]) -> None:
    for row in rows:
        row["action"] = row["action"] * np.float32([0.025, 0.025, 0.025, 1])


def too_far(index: int, rows: list[dict[str, np.ndarray]]) -> None:
    if index == 0:
        rows[4]["action"] = np.float32([1.4, 0, 0, 1])


def not_a_number(index: int, rows: list[dict[str, np.ndarray]]) -> None:
    if index == 1:
        rows[4]["action"] = np.float32([np.nan, 0, 0, 1])


def inverted_gripper(_: int, rows: list[dict[str, np.ndarray]]) -> None:
    for row in rows:
        row["action"] = np.append(row["action"][:3], 2 - row["action"][3])


def resting(_: int, rows: list[dict[str, np.ndarray]]) -> None:
    for row in rows:
        row["action"] = np.float32([0, 0, 0, 1])


def copied(index: int, rows: list[dict[str, np.ndarray]]) -> None:
    if index == 2:
        for row, action in zip(
            rows, np.random.default_rng(0).uniform(-0.9, 0.9, (8, 3)).repeat(3, 0), strict=True
        ):
            row["action"] = np.append(action, row["action"][3]).astype(np.float32)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (frozen, 1, ["damage", "camera front is frozen", "(1 episodes: 1)"]),
        (stuttering, 1, ["damage", "camera front repeats frames", "(1 episodes: 2)"]),
        (not_a_number, 1, ["damage", "file-001.parquet: 'action' is NaN", "(1 episodes: 1)"]),
        (in_metres, 0, ["repairable", "motion is in metres"]),
        (too_far, 0, ["repairable", "motion beyond [-1, 1] is clipped (1 episodes: 0)"]),
        (inverted_gripper, 0, ["repairable", "the gripper is commanded by 0/1/2 = close/hold/open"]),
        (copied, 0, ["note", "the same actions as in an earlier episode (1 episodes: 2)"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_check_names_what_is_wrong_and_fails_on_what_it_cannot_repair(
    change: Change, code: int, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", write(tmp_path / "set", change)) == code
    said = capsys.readouterr().out
    for word in words:
        assert word in said, said


def test_check_passes_a_sound_dataset_and_fails_one_without_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", write(tmp_path / "good")) == 0
    assert "nothing to remark" in capsys.readouterr().out
    assert run("check", write(tmp_path / "bad", success=False)) == 1
    assert "no episode succeeds" in capsys.readouterr().out
    write(tmp_path / "good", episodes=1, success=False)  # one more, a failure
    assert run("check", tmp_path / "good") == 0
    assert "no success in these episodes (1 episodes: 3)" in capsys.readouterr().out


def pushing(index: int, rows: list[dict[str, np.ndarray]]) -> None:
    """All but the first episode: down onto the table, long before and all the time."""
    if index > 0:
        for row in rows:
            row["action"] = np.float32([0, 0, -1, row["action"][3]])
            row["state"] = np.append(row["state"][:15], np.float32([0, 0, 0]))


def without_statement(folder: Path) -> Path:
    """As earlier versions wrote it."""
    file = folder / "meta" / "info.json"
    info = json.loads(file.read_text())
    del info[fmt.STATEMENT]
    file.write_text(json.dumps(info))
    return folder


@pytest.mark.parametrize("stated", [True, False])
def test_episodes_of_a_hand_that_only_pushes_do_no_harm(
    stated: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "set", pushing)
    if not stated:
        without_statement(folder)
    assert run("check", folder) == 0
    assert ("info.json states this" in capsys.readouterr().out) == stated
    assert run("convert", folder, tmp_path / "new", "--repair") == 0
    assert run("plot", folder, tmp_path / "set.png") == 0
    for old, new in zip(
        open_dataset(str(folder)).read(), open_dataset(str(tmp_path / "new")).read(), strict=True
    ):
        np.testing.assert_array_equal(new.column("action"), old.column("action"))


def test_a_copy_states_its_terms_where_they_are_known(tmp_path: Path) -> None:
    own, older = write(tmp_path / "own"), without_statement(write(tmp_path / "older"))

    def states(name: str, command: str, *arguments: object) -> bool:
        assert run(command, *arguments[:-1], tmp_path / name, *arguments[-1:]) == 0
        info = open_dataset(str(tmp_path / name)).info
        assert (fmt.STATEMENT in info.raw) == info.in_our_terms
        return info.in_our_terms

    assert states("copy", "convert", own, "--episodes=0,2")
    assert states("repaired", "convert", older, "--repair")
    assert states("twice", "merge", own, own, "--common")
    assert not states("older_copy", "convert", older, "--episodes=0,2")
    assert not states("both", "merge", own, older, "--common")


@pytest.mark.parametrize("change", [not_a_number, None], ids=["NaN", "cut off"])
def test_what_cannot_be_repaired_can_be_left_out_of_a_repair(
    change: Change | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "set", change) if change else write(tmp_path / "set")
    if change is None:
        data = folder / "data" / "chunk-000" / "file-001.parquet"
        data.write_bytes(data.read_bytes()[:500])
    assert run("convert", folder, tmp_path / "all", "--repair") == 2
    assert run("plot", folder, tmp_path / "all.png") == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: ") and "file-001.parquet" in line for line in said] == [True, True]
    assert run("convert", folder, tmp_path / "good", "--repair", "--episodes", "0,2") == 0
    assert run("check", tmp_path / "good") == 0
    assert run("plot", folder, tmp_path / "good.png", "--episodes", "0,2") == 0


def test_a_repair_of_another_robots_dataset_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LeRobotWriter(
        tmp_path / "arm", cameras=(), environment_state=False, state_names=("x", "y"), action_names=("x", "y")
    ) as writer:
        for t in range(4):
            row = np.full(2, t, np.float32)
            ended = {"terminated": t == 3, "truncated": False, "success": t == 3}
            writer.add_step({"agent_pos": row}, row, reward=float(t == 3), **ended)
        writer.end_episode()
    assert not open_dataset(str(tmp_path / "arm")).info.in_our_terms
    assert run("convert", tmp_path / "arm", tmp_path / "new", "--repair") == 2
    assert run("plot", tmp_path / "arm", tmp_path / "arm.png") == 2
    assert capsys.readouterr().err.count("(18,) fits") == 2


def test_a_hand_that_only_trembles_is_no_frozen_camera(tmp_path: Path) -> None:
    """It travels far, but ever about one place, so that what the camera shows hardly changes."""

    def trembling(index: int, rows: list[dict[str, np.ndarray]]) -> None:
        if index == 1:
            for t, row in enumerate(rows):
                row["action"] = np.array([0, 0, -0.5 if t % 2 else 0.5, row["action"][3]], np.float32)
                row["state"] = np.append(row["state"][:15], np.float32([0, 0, 0.006 * (t % 2)]))
                row["frame"] = rows[0]["frame"] + np.uint8(t % 2)

    assert run("check", write(tmp_path / "set", trembling)) == 0


def test_check_names_each_damaged_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "set")
    path = folder / "videos/observation.images.front/chunk-000/file-001.mp4"
    path.write_bytes(path.read_bytes()[:500])
    assert run("check", folder) == 1
    assert capsys.readouterr().out.count(f"damage     {path}: cannot be decoded") == 1
    assert run("convert", folder, tmp_path / "copy") == 2
    assert not (tmp_path / "copy").exists()
    assert run("convert", folder, tmp_path / "copy", "--episodes", "0,2") == 0
    assert run("check", tmp_path / "copy") == 0


def test_converted_and_repaired_real_demos_check_clean_and_hold_the_same_demos(
    real_demos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", real_demos) == 0
    assert "shifted by one" in capsys.readouterr().out
    assert run("convert", real_demos, tmp_path / "copy", "--episodes", "0-4") == 0
    assert not open_dataset(str(tmp_path / "copy")).info.in_our_terms
    assert run("convert", real_demos, tmp_path / "set", "--repair", "--episodes", "0-4") == 0
    capsys.readouterr()
    assert run("check", tmp_path / "set") == 0
    assert "nothing to remark" in capsys.readouterr().out
    expected, _ = align(open_dataset(str(real_demos)), episodes=range(5), frames=True)
    found, report = align(open_dataset(str(tmp_path / "set")), frames=True)
    assert not report.shifted
    assert report.stated
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got.actions, want.actions, atol=1e-7)
        np.testing.assert_array_equal(got.agent_pos[: len(got)], want.agent_pos[: len(want)])
        np.testing.assert_array_equal(got.frames["wrist"][: len(got)], want.frames["wrist"][: len(want)])
        np.testing.assert_array_equal(got.terminated, want.terminated)
        np.testing.assert_array_equal(got.penalties, want.penalties)


def test_merge_needs_agreement_and_shows_both_feature_lists(
    real_demos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = write(tmp_path / "own")
    assert run("merge", own, own, tmp_path / "twice") == 0
    indices = [i for e in open_dataset(str(tmp_path / "twice")).read() for i in e.column("index")]
    assert indices == list(range(6 * STEPS))

    assert run("merge", own, real_demos, tmp_path / "both") == 2
    said = capsys.readouterr().err
    assert "observation.images.front video(48, 48, 3)" in said
    assert "observation.images.wrist video(3, 128, 128)" in said
    assert run("merge", own, real_demos, tmp_path / "both", "--common") == 2
    assert "holds rows (o[t+1], a[t])" in capsys.readouterr().err
    assert run("merge", own, real_demos, tmp_path / "both", "--common", "--repair") == 0
    both = open_dataset(str(tmp_path / "both"))
    assert len(both) == 33
    assert set(both.tasks.values()) == {"Pick up the cube", "PandaPickCubeGamepad-v0"}
    assert both.cameras == ()
    assert not align(both)[1].shifted
    assert run("merge", own, own, tmp_path / "both") == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (in_metres, "holds rows (o[t], a[t]), motion in metres, gripper 0/1/2 = open/hold/close; "),
        (inverted_gripper, "gripper 0/1/2 = close/hold/open; "),
    ],
)
def test_merge_refuses_rows_that_mean_something_else(
    change: Change, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, other = write(tmp_path / "own"), write(tmp_path / "other", change)
    assert run("merge", own, other, tmp_path / "both") == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Use --repair" in told
    assert not (tmp_path / "both").exists()
    assert run("merge", own, other, tmp_path / "both", "--repair") == 0
    assert run("check", tmp_path / "both") == 0


def test_merge_copies_what_it_cannot_judge_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own, quiet = write(tmp_path / "own"), write(tmp_path / "quiet", resting)
    assert run("merge", own, quiet, tmp_path / "both") == 0
    assert "cannot be told, they are copied as they are" in caplog.text
    assert len(open_dataset(str(tmp_path / "both"))) == 6


def test_info_as_text_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "set")
    assert run("info", folder) == 0
    assert "rewarded        3 of 3 episodes" in capsys.readouterr().out
    assert run("info", folder, "--json", "--feature", "observation.images.front=wrist") == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["version"], about["episodes"], about["frames"]) == ("v3.0", 3, 72)
    assert about["features"]["observation.images.wrist"] == "video 48x48, called observation.images.front"
    assert run("info", tmp_path / "nowhere") == 2
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["demos", "demos.txt"])
def test_plot_refuses_a_name_that_is_no_pictures(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "set", episodes=1)
    assert run("plot", folder, tmp_path / name) == 2
    assert f"{name}: the name must end in .png." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [folder]


def test_plot_draws_one_row_of_panels_per_episode(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    heights = []
    for episodes in ("0", "0-2"):
        assert run("plot", folder, tmp_path / "picture.png", "--episodes", episodes) == 0
        with av.open(str(tmp_path / "picture.png")) as container:
            image = next(container.decode(video=0)).to_ndarray(format="rgb24")
        heights.append(image.shape[0])
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20  # lines in several colours
    assert heights[1] > 1.5 * heights[0]
