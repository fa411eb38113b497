"""`python -m hil_rllib.teleop`: real processes where it matters, every refusal before any work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import av
import pytest

from hil_rllib import teleop
from hil_rllib.config import Config
from hil_rllib.devices.calibrate import Aborted
from hil_rllib.devices.controls import CONTROLS
from hil_rllib.session import split_id

ROOT = Path(__file__).resolve().parents[1]
SCRIPTED = ["--device", "scripted", "--quality", "fast"]


def spawn(*arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    return subprocess.Popen(
        [sys.executable, "-m", "hil_rllib.teleop", *arguments],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_ctrl_c_ends_a_paced_session_with_its_summary_and_a_whole_film(tmp_path):
    film = tmp_path / "a.mp4"
    process = spawn(*SCRIPTED, "--random", "--hz", "20", "--video", str(film))
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(0.3)  # well within the second episode
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert errors == ""
    assert first.startswith("episode 1: solved after ")
    assert "episodes 1, solved 1, " in rest
    p50 = float(rest.split("step interval p50 ")[1].split(",")[0])
    assert 49 < p50 < 60  # [ms] at 20 Hz; a busy machine may be late, never early
    steps = int(rest.split(", steps ")[1].split(",")[0])
    with av.open(str(film)) as container:
        assert sum(1 for _ in container.decode(video=0)) == (1 + steps) + 1 + 2 * 10


def test_ctrl_c_that_nobody_awaits_ends_it_in_one_line(capsys, monkeypatch):
    """While all is made ready, while a film is drawn at the end, and with the second one in a session."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(teleop, "teleoperate", interrupted)
    monkeypatch.setattr(teleop, "open_scene", interrupted)
    monkeypatch.setattr("hil_rllib.devices.calibrate.calibrate", interrupted)
    for arguments in ([], ["--scene", "panda"], ["--calibrate", "pad.json"]):
        assert teleop.main(arguments) == 130
        assert capsys.readouterr().err == "Stopped at once.\n"


def test_a_calibration_that_was_given_up_is_one_line(capsys, monkeypatch):
    def given_up(*_):
        raise Aborted("Given up; nothing was written.")

    monkeypatch.setattr("hil_rllib.devices.calibrate.calibrate", given_up)
    assert teleop.main(["--calibrate", "pad.json"]) == 1
    assert capsys.readouterr().err == "Given up; nothing was written.\n"


def test_it_stops_after_as_many_steps_as_asked(capsys):
    assert teleop.main([*SCRIPTED, "--steps", "7"]) == 0
    assert "episodes 0, solved 0, steps 7, by hand 7" in capsys.readouterr().out


def test_every_id_can_be_driven(capsys):
    stems = ("hil/PandaPickCube", "hil/PandaArrangeBoxes")
    for stem in stems:
        for kind in ("", "Base", "Viewer", "Gamepad", "Keyboard"):
            assert split_id(f"{stem}{kind}-v0") == (f"{stem}-v0", kind)
            arguments = [f"{stem}{kind}-v0", "--device", "none", "--headless", "--hz", "0", "--steps", "2"]
            assert teleop.main(arguments) == 0
            assert "steps 2, by hand 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hil/PandaPickCub-v0"], "environment 'hil/PandaPickCub-v0'. Did you mean hil/PandaPickCube-v0?"),
        (["--scene", "kitchen"], "Unknown scene 'kitchen'. Choose from pick_cube"),
        (["--scene", "panda"], "The viewer needs a display"),
        ([*SCRIPTED, "--viewer"], "Here: --headless."),
        ([*SCRIPTED, "--port", "0"], "--port is for --device browser."),
        (["--port", "70000"], "port must lie in 0 … 65535; got 70000."),
        (["--bind", "nowhere.invalid"], "The page cannot be served at 'nowhere.invalid'"),
        (["hil/PandaPickCubeGamepad-v0"], "No gamepad is plugged in."),
        (["--device", "keyboard"], "DISPLAY is not set"),
        (["hil/PandaArrangeBoxes-v0", *SCRIPTED, "--random"], "does not take the options"),
        ([*SCRIPTED, "--steps", "0"], "--steps must be at least 1"),
        ([*SCRIPTED, "--hz", "-1"], "--hz -1: choose a rate up to 100"),
        ([*SCRIPTED, "--video", "film.gif"], "must end in .mp4"),
        ([*SCRIPTED, "--policy", "nowhere"], "nowhere: no such folder"),
        (["--calibrate", "pad.json"], "No gamepad is plugged in."),
        (["--device", "gamepad", "--controller-config", "no.json"], "no.json: no such file."),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments, message, capsys, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    assert teleop.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_help_shows_every_control(capsys):
    with pytest.raises(SystemExit):
        teleop.main(["--help"])
    shown = capsys.readouterr().out
    for control in CONTROLS:
        assert control.does in shown


def test_a_policy_is_driven_beside_for_as_long_as_its_own_episodes_are(monkeypatch):
    config = replace(Config(), env=replace(Config().env, max_episode_steps=300, image_obs=False))
    monkeypatch.setattr("hil_rllib.sac.checkpoint_files.find_checkpoint", lambda path: path)
    monkeypatch.setattr("hil_rllib.trained.read_config", lambda _: (config, 0))
    monkeypatch.setattr("hil_rllib.trained.load_policy", lambda *_: None)
    for options, limit in (([], 300), (["--episode-steps", "7"], 7)):
        args = teleop.parse_args(["--policy", "run", "--device", "none", "--headless", *options])
        seat, _ = teleop._seat_beside_policy(args)
        assert seat.env.get_wrapper_attr("_max_episode_steps") == limit
        seat.env.close()
