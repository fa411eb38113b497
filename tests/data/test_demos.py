"""Demonstrations as a run receives them: complete, replayed where needed, cached, never silently fewer."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from envs.expert import make_expert
from hil_rllib.contract import TASKS
from hil_rllib.data import scripted_demos
from hil_rllib.data.alignment import align
from hil_rllib.data.demo import Demo, Recording
from hil_rllib.data.demos import load_demos
from hil_rllib.data.env_replay import EnvSpec, make_replay_env, replay
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.lerobot_reader import open_dataset
from hil_rllib.data.lerobot_writer import LeRobotWriter
from hil_rllib.data.rerender import cache_key, replayed_demos

FIXED = EnvSpec(kwargs={"render_quality": "fast"})
RANDOM = EnvSpec(kwargs={"render_quality": "fast", "random_block_position": True})


def test_state_run_gets_the_cube_from_a_replay_of_the_real_demos(real_demos: Path, tmp_path: Path):
    options = {"env": FIXED, "image_obs": False, "episodes": 2, "cache_dir": tmp_path}
    demos = load_demos(str(real_demos), **options).demos
    assert [len(demo) for demo in demos] == [38, 23]  # every recorded row is a transition
    for demo in demos:
        assert set(demo.observations) == {"agent_pos", "environment_state"}
        assert demo.environment_state[-1, 2] - demo.environment_state[0, 2] > 0.1
        assert demo.terminated[-1]
        assert demo.rewards.tolist() == [0] * (len(demo) - 1) + [1]
        assert demo.recording is not None
        np.testing.assert_array_equal(demo.penalties, demo.recording.penalties)  # the file's own


def test_rerendered_frames_are_the_recorded_scene_and_come_from_the_cache_afterwards(
    real_demos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    options = {"env": EnvSpec(), "image_obs": True, "episodes": [5], "cache_dir": tmp_path}
    (recorded,) = load_demos(str(real_demos), **options).demos
    (drawn,) = load_demos(str(real_demos), **options, frames="rerendered").demos
    assert len(recorded) == 18
    assert len(drawn) == 19
    assert set(drawn.observations) == {"agent_pos", "pixels.front", "pixels.wrist"}
    np.testing.assert_allclose(drawn.agent_pos[1:, 15:], recorded.agent_pos[:, 15:], atol=1e-4)
    for camera in ("front", "wrist"):
        # Row by row: a frame of another step would differ more than the same step drawn and filmed.
        a, b = (f.frames[camera].astype(float) for f in (drawn, recorded))
        distance = np.array([[np.abs(x - y).mean() for y in b] for x in a[1:]])
        moving = distance[8:, 8:]
        assert (moving.argmin(axis=1) == np.arange(len(moving))).mean() > 0.8

    caplog.clear()
    (again,) = load_demos(str(real_demos), **options, frames="rerendered").demos
    assert "from the cache" in caplog.text
    np.testing.assert_array_equal(again.frames["front"], drawn.frames["front"])
    np.testing.assert_array_equal(again.agent_pos, drawn.agent_pos)


def test_replays_are_kept_by_how_the_set_was_read(tmp_path: Path):
    """Where the cube is known by a mapped name it is put there, else where the environment puts it."""
    spec = EnvSpec(kwargs={"random_block_position": True})
    scripted_demos.record(tmp_path / "set", spec, episodes=2, seed=0, cameras=False)
    keys = []
    for features in ({}, {}, {"observation.environment_state": "cube"}):
        dataset = open_dataset(str(tmp_path / "set"), features=features)
        recordings = [demo.recording for demo in align(dataset)[0] if demo.recording is not None]
        keys.append(cache_key(dataset, recordings, spec, render=True))
    assert keys[0] == keys[1] != keys[2]


def test_scripted_demos_are_human_like_repeatable_and_replay_exactly(tmp_path: Path):
    first = load_demos(
        "scripted", env=RANDOM, image_obs=False, fallback_episodes=4, seed=3, cache_dir=tmp_path / "a"
    )
    again = load_demos(
        "scripted", env=RANDOM, image_obs=False, fallback_episodes=4, seed=3, cache_dir=tmp_path / "b"
    )
    other = load_demos(
        "scripted", env=RANDOM, image_obs=False, fallback_episodes=4, seed=4, cache_dir=tmp_path / "a"
    )
    for one, two in zip(first.demos, again.demos, strict=True):
        np.testing.assert_array_equal(one.actions, two.actions)
    assert any(len(a) != len(b) for a, b in zip(first.demos, other.demos, strict=True))
    lengths = [len(demo) for demo in first.demos]
    assert min(lengths) >= 15
    assert max(lengths) <= 60
    assert len(set(lengths)) > 2
    cubes = np.stack([demo.environment_state[0, :2] for demo in first.demos])
    assert np.ptp(cubes, axis=0).min() > 0.01

    env = make_replay_env(RANDOM, [demo.recording for demo in first.demos])
    for demo in first.demos:
        result = replay(env, demo.recording)
        assert result.end_frame == len(demo) - 1
        assert result.tcp_error_mm_median < 0.01
    env.close()


def test_two_who_record_the_same_demos_at_once_get_whole_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads of one process, as the benchmark has them."""
    both = threading.Barrier(2)

    def record(folder: Path, *_: object, **__: object) -> None:
        folder.mkdir()
        (folder / "first").touch()
        both.wait(10)
        (folder / "last").touch()

    monkeypatch.setattr(scripted_demos, "record", record)
    with ThreadPoolExecutor(2) as pool:
        calls = [
            pool.submit(scripted_demos.recorded, FIXED, episodes=1, seed=0, cameras=False, cache_dir=tmp_path)
            for _ in range(2)
        ]
        folders = {call.result() for call in calls}
    assert len(folders) == 1
    assert sorted(file.name for file in folders.pop().iterdir()) == ["first", "last"]
    assert len(list((tmp_path / "scripted").iterdir())) == 1  # nothing half done is left


def test_scripted_demos_with_cameras_hold_frames_of_the_run(tmp_path: Path):
    (demo,) = load_demos("scripted", env=FIXED, image_obs=True, fallback_episodes=1, cache_dir=tmp_path).demos
    env = FIXED.make()
    env.reset()
    first = env.unwrapped.render_cameras()
    env.close()
    assert set(demo.observations) == {"agent_pos", "pixels.front", "pixels.wrist"}
    for camera, frame in first.items():
        assert np.abs(demo.frames[camera][0].astype(int) - frame).mean() < 2  # coded, not redrawn


def failing_set(folder: Path, episodes: int) -> Path:
    """Demonstrations in which the hand wanders and the cube stays, though the file says success."""
    env = gymnasium.make("hil/PandaPickCube-v0", image_obs=False)
    rng = np.random.default_rng(0)
    with LeRobotWriter(folder, cameras=(), environment_state=False) as writer:
        for _ in range(episodes):
            observation, _ = env.reset()
            for t in range(12):
                action = np.array([*rng.uniform(-0.4, 0.4, 2), 0.3, rng.integers(3)], np.float32)
                done = t == 11
                following, *_ = env.step(action)
                writer.add_step(
                    observation, action, reward=float(done), terminated=done, truncated=False, success=done
                )
                observation = following
            writer.end_episode()
    env.close()
    return folder


def test_set_that_does_not_replay_is_refused_with_the_reason(tmp_path: Path):
    folder = failing_set(tmp_path / "set", 2)
    with pytest.raises(DatasetError, match=r"only 0 of 2 episodes replay.*does not when replayed"):
        load_demos(str(folder), env=FIXED, image_obs=False, cache_dir=tmp_path)


def test_single_episode_that_does_not_replay_is_left_out_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "set"
    scripted_demos.record(folder, FIXED, episodes=3, seed=0, cameras=False)
    demos, report = align(open_dataset(str(folder)))
    for demo in demos:
        demo.environment_state = None  # as in a set recorded elsewhere
    demos[1].recording.actions[:, :3] *= 0.5
    monkeypatch.setattr("hil_rllib.data.demos.align", lambda *_, **__: (demos, report))
    loaded = load_demos(str(folder), env=FIXED, image_obs=False, cache_dir=tmp_path)
    assert [demo.episode_index for demo in loaded.demos] == [0, 2]
    assert list(loaded.excluded) == [1]
    assert "1 episodes left out" in str(loaded)
    assert "Demonstration 1 is left out" in caplog.text


def judged_set(folder: Path, success: bool, end: int = 0, *, cube: bool = True) -> list[Recording]:
    """Two episodes that a person ends by a key as this: `end` steps before the cube is lifted, or with it."""
    env = gymnasium.make("hil/PandaPickCube-v0", image_obs=False)
    with LeRobotWriter(folder, cameras=(), environment_state=cube) as writer:
        for seed in range(2):
            before, _ = env.reset(seed=seed)
            expert, steps, lifted = make_expert(env), [], False
            while not lifted:
                action = expert.action()
                observation, _, lifted, _, _ = env.step(action)
                steps.append((before, action))
                before = observation
            for t, step in enumerate(kept := steps[: len(steps) - end]):
                last = t == len(kept) - 1
                won = last and success
                writer.add_step(*step, reward=float(won), terminated=last, truncated=False, success=won)
            writer.end_episode()
    env.close()
    return [demo.recording for demo in align(open_dataset(str(folder)))[0] if demo.recording is not None]


def rerendered(recordings: list[Recording], cache: Path) -> tuple[list[Demo], dict[int, str]]:
    log = logging.getLogger(__name__)
    return replayed_demos(recordings, FIXED, cache=cache / "replays.npz", render=False, log=log)


@pytest.mark.parametrize("cube", [True, False])
def test_an_episode_that_a_person_ends_as_failure_terminates_when_rerendered(cube: bool, tmp_path: Path):
    demos, excluded = rerendered(judged_set(tmp_path / "set", False, 3, cube=cube), tmp_path)
    assert not excluded
    for demo in demos:
        assert demo.terminated.tolist() == [False] * (len(demo) - 1) + [True]
        assert not demo.truncated.any()
        assert not demo.rewards.any()


@pytest.mark.parametrize(("success", "end"), [(True, 3), (False, 0)])
def test_a_persons_word_outweighs_the_simulators_when_rerendered(success: bool, end: int, tmp_path: Path):
    demos, excluded = rerendered(judged_set(tmp_path / "set", success, end), tmp_path)
    assert not excluded
    assert len(demos) == 2
    for demo in demos:
        assert demo.terminated[-1]
        assert demo.rewards.tolist() == [0] * (len(demo) - 1) + [float(success)]


@pytest.mark.parametrize("cube", [True, False])
def test_a_persons_word_counts_only_where_the_cube_is_known_to_move_alike(cube: bool, tmp_path: Path):
    recordings = judged_set(tmp_path / "set", True, 3, cube=cube)
    for recording in recordings if cube else []:
        recording.environment_state[-4:, 2] += 0.1  # lifted, where the replay leaves it on the table
    demos, excluded = rerendered(recordings, tmp_path)
    assert not demos
    assert list(excluded.values()) == ["it succeeded when recorded and does not when replayed"] * 2


BOXES = EnvSpec("hil/PandaArrangeBoxes-v0")


def test_a_script_arranges_boxes_which_cannot_be_replayed(tmp_path: Path):
    with pytest.raises(ValueError, match=r"cannot replay recordings.* set demos\.frames=recorded"):
        load_demos(
            "scripted",
            env=BOXES,
            image_obs=True,
            frames="rerendered",
            fallback_episodes=1,
            cache_dir=tmp_path,
        )
    assert not list(tmp_path.iterdir())  # nothing was recorded first
    loaded = load_demos("scripted", env=BOXES, image_obs=False, fallback_episodes=1, cache_dir=tmp_path)
    (demo,) = loaded.demos
    assert 200 < len(demo) <= TASKS[BOXES.id].steps  # more than the cube's limit
    assert demo.rewards[-1] == 1.0
    assert demo.terminated[-1]
    assert (loaded.source / "meta" / "tasks.parquet").read_bytes().count(b"Arrange the boxes") > 0


def test_an_env_without_script_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"No script knows CartPole-v1\. Choose from hil/PandaPickCube-v0"):
        load_demos("scripted", env=EnvSpec("CartPole-v1"), image_obs=False, cache_dir=tmp_path)


def test_unit_of_motion_follows_the_environment(real_demos: Path):
    dataset = open_dataset(str(real_demos))
    small, _ = align(dataset, episodes=[0], step_size=0.0125)
    usual, _ = align(dataset, episodes=[0])
    np.testing.assert_allclose(small[0].actions[:, :3], 2 * usual[0].actions[:, :3], rtol=1e-6)
    np.testing.assert_array_equal(small[0].actions[:, 3], usual[0].actions[:, 3])
