"""`python -m hil_rllib.record`: what is kept, what is thrown away, and what survives Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from puppet import FAILURE, RERECORD, SUCCESS, Puppet, move

from hil_rllib import record
from hil_rllib.contract import CAMERAS, IDLE
from hil_rllib.data import lerobot_format as fmt
from hil_rllib.data.lerobot_reader import open_dataset
from hil_rllib.data.lerobot_writer import LeRobotWriter
from hil_rllib.replay import main as replay

ROOT = Path(__file__).resolve().parents[1]
SCRIPTED = ["--device", "scripted", "--random"]
sys.path.append(str(ROOT / "tests" / "devices"))  # its X server without a screen


def spawn(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hil_rllib.record", *arguments],
        cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def lines_until(process: subprocess.Popen[str], pattern: str) -> list[str]:
    """The process's lines up to the first that matches."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return lines
    raise AssertionError(f"no line matches {pattern!r}: {lines}")


def with_puppet(monkeypatch, out: Path, commands, arguments) -> int:
    """Record with a device that gives `commands`."""
    monkeypatch.setattr("hil_rllib.session.make_device", lambda name, **_: Puppet(*commands))
    return record.main([str(out), "--device", "scripted", *arguments])


def episodes(folder: Path):
    return list(open_dataset(str(folder)).read())


def seeds(folder: Path) -> list[int | None]:
    return [meta.seed for meta in open_dataset(str(folder)).episodes]


def test_ctrl_c_keeps_every_finished_episode_and_only_those(tmp_path):
    out = tmp_path / "set"
    process = spawn(str(out), "--episodes", "1000", *SCRIPTED, "--no-images", "--hz", "60")
    begun = lines_until(process, "episode 2/1000")
    time.sleep(0.1)  # within the third
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    output = "".join(begun) + rest
    assert process.returncode == record.INTERRUPTED, output
    assert "Traceback" not in output
    finished = output.count("on disk\n")
    assert finished >= 2
    assert f"{finished} of 1000 episodes recorded; {out} holds {finished}." in output
    dataset = open_dataset(str(out))
    assert len(dataset.episodes) == finished
    assert seeds(out) == list(range(finished))
    assert replay([str(out)]) == 0  # every recorded action leads to success again


def test_a_person_at_the_keyboard_throws_an_episode_away_and_drives_the_next(tmp_path):
    """Real keys, through an X server, to a real process."""
    from xvfb import Fingers, Xvfb

    server = Xvfb()
    out = tmp_path / "set"
    process = spawn(
        str(out), "--episodes", "1", "--env", "hil/PandaPickCubeKeyboard-v0", "--headless",
        "--quality", "fast", DISPLAY=server.name,
    )  # fmt: skip
    fingers = Fingers(server.name)
    pressed = threading.Event()

    def type_until(key: str) -> None:
        while not pressed.wait(0.3):  # pynput hears nothing in its first moments
            fingers.key("Left", True)
            time.sleep(0.5)
            fingers.key("Left", False)
            fingers.key(key, True)
            fingers.key(key, False)

    try:
        lines_until(process, "A motion or gripper key takes over while held")
        for key, line in (("r", "episode 1/1: thrown away, again"), ("Return", "on disk")):
            pressed.clear()
            typing = threading.Thread(target=type_until, args=[key])
            typing.start()
            try:
                lines_until(process, line)
            finally:
                pressed.set()
                typing.join()
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        fingers.close()
        server.stop()
    assert process.returncode == 0, rest
    (episode,) = episodes(out)
    by_hand = episode.column("complementary_info.is_intervention").ravel() > 0
    actions = episode.column("action")
    assert actions[by_hand, 1].max() == 1.0  # left is +y
    assert not actions[~by_hand, :3].any()  # nobody moved it otherwise
    assert episode.column("next.success").ravel()[-1]


def test_thrown_away_and_undriven_episodes_start_again_and_failures_go_by_the_flag(
    tmp_path, monkeypatch, capsys
):
    commands = [move(x=1), RERECORD, *[IDLE] * 3, move(x=1), move(), FAILURE, move(z=1), SUCCESS]
    arguments = ["--episodes", "1", "--no-images", "--episode-steps", "3"]
    assert with_puppet(monkeypatch, tmp_path / "a", commands, arguments) == 0
    said = [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()[:4]]
    assert said == [
        "thrown away, again",
        "nobody drove, again",
        "not solved, left out (--keep-failures keeps such)",
        "solved in 2 steps, seed 1, on disk",
    ]
    assert seeds(tmp_path / "a") == [1]
    assert with_puppet(monkeypatch, tmp_path / "b", commands, [*arguments, "--keep-failures"]) == 0
    assert seeds(tmp_path / "b") == [0]
    (failed,) = episodes(tmp_path / "b")
    assert not failed.column("next.success").any()
    np.testing.assert_array_equal(failed.column("action")[:, 0], [1, 0, 0])


def test_images_are_of_the_states_before_the_actions_and_append_goes_on_with_the_seeds(tmp_path, monkeypatch):
    out = tmp_path / "set"
    arguments = ["--episodes", "1", "--quality", "fast", "--random", "--seed", "5"]
    commands = [move(y=1), move(y=1), SUCCESS]
    assert with_puppet(monkeypatch, out, commands, arguments) == 0
    assert with_puppet(monkeypatch, out, commands, ["--append", *arguments[:-2]]) == 0
    assert seeds(out) == [5, 6]
    env = gymnasium.make("hil/PandaPickCube-v0", random_block_position=True, render_quality="fast")
    for episode in open_dataset(str(out)).read(frames=True):
        observation, _ = env.reset(seed=episode.meta.seed)
        for t, action in enumerate(episode.column("action")):
            np.testing.assert_array_equal(episode.column("observation.state")[t], observation["agent_pos"])
            for camera, frame in env.unwrapped.render_cameras().items():
                off = np.abs(episode.frames[camera][t].astype(float) - frame).mean()
                assert off < 2.5, (t, camera)  # the codec's loss is 1.7; a neighbour's frame is 3.5 off
            observation, *_ = env.step(action)
    env.close()


@pytest.mark.parametrize("append", [[], ["--append"]])
@pytest.mark.parametrize("left", ["its head", "half a head", "half an episode", "its head, with cameras"])
def test_a_recording_killed_before_its_first_episode_goes_on_as_if_new(
    tmp_path, monkeypatch, capsys, left, append
):
    out = tmp_path / "set"
    LeRobotWriter(out, cameras=CAMERAS if "cameras" in left else ())
    assert (out / ".lock").exists()
    if left == "half a head":
        (out / "meta" / "info.json").rename(out / "meta" / ".info.json.tmp")
    if left == "half an episode":
        for name in ("data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/.file-000.parquet.tmp"):
            (out / name).parent.mkdir(parents=True)
            (out / name).write_bytes(b"PAR1")
    arguments = ["--episodes", "1", "--no-images", *append]
    if left == "half a head" and append:
        assert with_puppet(monkeypatch, out, [move(), SUCCESS], arguments) == 2
        assert "there is no dataset" in capsys.readouterr().err
        return
    assert with_puppet(monkeypatch, out, [move(), SUCCESS], arguments) == 0
    assert seeds(out) == [0]
    (episode,) = episodes(out)
    assert not any("images" in key for key in open_dataset(str(out)).info.features)
    assert len(episode) == 2
    assert with_puppet(monkeypatch, out, [move(), SUCCESS], arguments[:3]) == 2
    assert "holds a dataset already" in capsys.readouterr().err


@pytest.mark.parametrize("append", [[], ["--append"]])
def test_a_dataset_that_lost_its_episode_table_is_not_written_over(tmp_path, monkeypatch, append):
    out = tmp_path / "set"
    arguments = ["--episodes", "1", "--no-images", *append]
    assert with_puppet(monkeypatch, out, [move(), SUCCESS], arguments[:3]) == 0
    next(out.glob("meta/episodes/*/*.parquet")).unlink()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert with_puppet(monkeypatch, out, [move(), SUCCESS], arguments) == 2
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_dataset_without_the_cubes_place_is_continued_without_it(tmp_path, monkeypatch):
    out = tmp_path / "set"
    with LeRobotWriter(out, cameras=(), environment_state=False) as writer:
        last = {"reward": 1.0, "terminated": True, "truncated": False, "success": True}
        observation, action = {"agent_pos": np.zeros(18, np.float32)}, np.ones(4, np.float32)
        writer.add_step(observation, action, penalty=0.0, intervention=True, **last)
        writer.end_episode()
    arguments = ["--episodes", "1", "--no-images", "--append"]
    assert with_puppet(monkeypatch, out, [move(), SUCCESS], arguments) == 0
    dataset = open_dataset(str(out))
    assert len(dataset) == 2
    assert fmt.ENVIRONMENT_STATE not in dataset.info.features


def test_ctrl_c_before_the_first_episode_empties_a_linked_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "disk").mkdir()
    (tmp_path / "set").symlink_to(tmp_path / "disk")
    asked = contextlib.nullcontext(SimpleNamespace(asked=True))
    monkeypatch.setattr(record, "Interrupt", lambda: asked)
    arguments = ["--episodes", "1", "--no-images"]
    assert with_puppet(monkeypatch, tmp_path / "set", [move()], arguments) == record.INTERRUPTED
    assert "error" not in capsys.readouterr().err


def test_two_recordings_into_one_folder_are_told_apart(tmp_path, monkeypatch, capsys):
    out = tmp_path / "set"
    with LeRobotWriter(out, cameras=()):
        assert with_puppet(monkeypatch, out, [move(), SUCCESS], ["--episodes", "1", "--no-images"]) == 2
    assert f"is being written by process {os.getpid()} on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["there"], "holds a dataset already. Add to it with --append"),
        (["other"], "exists and is no dataset"),
        (["new", "--append"], "there is no dataset in"),
        (["there", "--append", "--task", "Dance"], "or record into another folder"),
        (["new", "--env", "hil/PandaPickCubeBas-v0"], "Did you mean hil/PandaPickCubeBase-v0?"),
        (["new", "--push", "my-demos"], "my-demos: is no name on the hub. Write owner/name."),
        (["new", "--device", "none"], "With nobody at the controls there is nothing to record"),
        (["new", "--device", "gamepad"], "No gamepad is plugged in"),
        (["new", "--episodes", "0"], "--episodes must be at least 1"),
        (["new", "--viewer"], "Here: --headless."),
    ],
)
def test_what_cannot_be_recorded_is_said_before_any_work(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DISPLAY", raising=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    there = tmp_path / "there"
    assert with_puppet(monkeypatch, there, [move(), SUCCESS], ["--episodes", "1", "--no-images"]) == 0
    monkeypatch.undo()
    monkeypatch.delenv("DISPLAY", raising=False)
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    name, *rest = arguments
    options = ["--episodes", "1", "--no-images", *SCRIPTED[:2], *rest]
    assert record.main([str(tmp_path / name), *options]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert sorted(tmp_path.rglob("*")) == before  # nothing was made, nothing removed
