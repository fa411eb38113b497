"""A shifted set that `convert --repair` has put right replays as its original does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from envs.expert import make_expert
from hil_rllib import contract, dataset
from hil_rllib.contract import DISCRETE_PENALTY, SUCCESS
from hil_rllib.data import scripted_demos
from hil_rllib.data.alignment import align
from hil_rllib.data.demo import Recording
from hil_rllib.data.demos import load_demos
from hil_rllib.data.env_replay import EnvSpec, make_replay_env, replay
from hil_rllib.data.lerobot_episodes import Dropped
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.lerobot_reader import LeRobotDataset, open_dataset
from hil_rllib.data.lerobot_writer import LeRobotWriter
from hil_rllib.data.rerender import cache_key
from hil_rllib.replay import main as replay_command

SPEC = EnvSpec()
FIRST = (  # the first action of each episode, and the gripper at its reset
    (np.array([1, -1, 1, 1], np.float32), 0.0),
    (np.array([-1, 1, 0.5, 0], np.float32), contract.GRIPPER_CLOSED),
)


def run(*arguments: object) -> int:
    return dataset.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes as old recorders wrote them, rows (o[t+1], a[t]), that begin with full motion."""
    folder = tmp_path_factory.mktemp("shifted") / "set"
    env = SPEC.make(image_obs=False, max_episode_steps=100)
    with LeRobotWriter(folder, cameras=(), environment_state=False) as writer:
        for first, gripper in FIRST:
            env.reset(options={"gripper": gripper})
            expert, action, ended = make_expert(env), first, False
            while not ended:
                observation, reward, terminated, truncated, info = env.step(action)
                ended = terminated or truncated
                writer.add_step(
                    observation,
                    action,
                    reward=float(reward),
                    terminated=terminated,
                    truncated=truncated,
                    success=info[SUCCESS],
                    penalty=info[DISCRETE_PENALTY],
                )
                action = expert.action()
            writer.end_episode()
    env.close()
    return folder


@pytest.fixture(scope="module")
def repaired(shifted: Path) -> Path:
    assert run("convert", shifted, shifted.parent / "repaired", "--repair") == 0
    return shifted.parent / "repaired"


@pytest.fixture
def of_earlier_version(repaired: Path, tmp_path: Path) -> Path:
    assert run("convert", repaired, tmp_path / "earlier") == 0
    rewrite(tmp_path / "earlier", lambda table: table.drop_columns(["dropped_action", "reset_gripper"]))
    return tmp_path / "earlier"


def rewrite(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    path = folder / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def recordings(data: LeRobotDataset, step_size: float = contract.EE_STEP_SIZE) -> list[Recording]:
    return [demo.recording for demo in align(data, step_size=step_size)[0] if demo.recording is not None]


def check_replays(folder: Path) -> None:
    found = recordings(open_dataset(str(folder)))
    env = make_replay_env(SPEC, found)
    for recording in found:
        result = replay(env, recording)
        assert result.end_frame == len(recording) - 1
        assert result.tcp_error_mm_median < 0.1
        assert result.from_reset
    env.close()


def dropped(folder: Path) -> list[Dropped | None]:
    return [meta.dropped for meta in open_dataset(str(folder)).episodes]


EXPECTED = [Dropped(tuple(action.tolist()), gripper) for action, gripper in FIRST]


def test_a_repaired_set_replays_and_gives_a_state_run_its_demonstrations(
    shifted: Path, repaired: Path, tmp_path: Path
):
    check_replays(shifted)
    check_replays(repaired)
    options = {"env": SPEC, "image_obs": False, "cache_dir": tmp_path}
    whole, less = (load_demos(str(folder), **options).demos for folder in (shifted, repaired))
    assert len(whole) == len(less) == 2
    for demo, rest in zip(whole, less, strict=True):
        np.testing.assert_allclose(rest.agent_pos, demo.agent_pos[1:], atol=1e-5)
        np.testing.assert_allclose(rest.environment_state, demo.environment_state[1:], atol=1e-5)
        np.testing.assert_array_equal(rest.rewards, demo.rewards[1:])


def test_the_dropped_action_lasts_through_copies_repairs_and_merges(
    shifted: Path, repaired: Path, tmp_path: Path
):
    scripted_demos.record(tmp_path / "own", SPEC, episodes=1, seed=0, cameras=False)
    assert dropped(shifted) == [None, None]
    assert dropped(repaired) == EXPECTED
    assert run("convert", repaired, tmp_path / "copy", "--episodes", "1") == 0
    assert dropped(tmp_path / "copy") == EXPECTED[1:]
    assert run("convert", repaired, tmp_path / "twice", "--repair") == 0
    for file in ("data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"):
        assert pq.read_table(tmp_path / "twice" / file).equals(pq.read_table(repaired / file))
    assert run("merge", tmp_path / "own", repaired, tmp_path / "both", "--common") == 0
    assert dropped(tmp_path / "both") == [None, *EXPECTED]
    assert run("merge", shifted, tmp_path / "own", tmp_path / "mended", "--common", "--repair") == 0
    assert dropped(tmp_path / "mended") == [*EXPECTED, None]
    check_replays(tmp_path / "mended")


def test_a_recording_goes_on_in_a_repaired_set(repaired: Path, tmp_path: Path):
    folder = tmp_path / "set"
    assert run("convert", repaired, folder) == 0
    with LeRobotWriter(folder, cameras=(), environment_state=False) as writer:
        (demo,) = recordings(open_dataset(str(repaired)))[:1]
        for t, action in enumerate(demo.actions):
            ends = t == len(demo) - 1
            row = {"agent_pos": demo.agent_pos[t]}
            writer.add_step(row, action, reward=0.0, terminated=ends, truncated=False, success=ends)
        writer.end_episode(seed=3)
    assert dropped(folder) == [*EXPECTED, None]
    assert open_dataset(str(folder)).episodes[2].seed == 3


def test_the_dropped_action_follows_the_environments_step_size(repaired: Path):
    for recording, (action, gripper) in zip(
        recordings(open_dataset(str(repaired)), step_size=0.05), FIRST, strict=True
    ):
        np.testing.assert_allclose(recording.dropped_action, [*action[:3] / 2, action[3]])
        assert recording.start_gripper == gripper


def test_a_set_of_an_earlier_repair_says_what_to_do(
    repaired: Path, of_earlier_version: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    remedy = "earlier `convert --repair` made: repair the original again"
    with pytest.raises(DatasetError, match=rf"only 0 of 2 .*{re.escape(remedy)}.*demos\.frames=recorded"):
        load_demos(str(of_earlier_version), env=SPEC, image_obs=False, cache_dir=tmp_path)
    caplog.clear()
    assert replay_command([str(of_earlier_version)]) == 1
    assert "2 of 2 episodes: the first row is not where a reset leads" in caplog.text
    assert f"{remedy}, or train with demos.frames=recorded" in caplog.text
    caplog.clear()
    assert replay_command([str(repaired)]) == 0
    assert remedy not in caplog.text


def test_replays_without_the_dropped_action_are_not_taken_for_those_with_it(
    repaired: Path, of_earlier_version: Path
):
    keys = set()
    for folder in (repaired, of_earlier_version):
        data = open_dataset(str(folder))
        found = recordings(data)
        for recording in found:
            recording.start_gripper = 0.0
        keys.add(cache_key(data, found, SPEC, render=False))
    assert len(keys) == 2


@pytest.mark.parametrize("action", [[1.0, 0.0], [1.0, 0.0, float("nan"), 1.0]])
def test_a_damaged_entry_is_named(action: list[float], repaired: Path, tmp_path: Path):
    assert run("convert", repaired, tmp_path / "set") == 0

    def spoil(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index("dropped_action")
        field = table.schema.field(at)
        return table.set_column(at, field, pa.array([action] * 2, field.type))

    rewrite(tmp_path / "set", spoil)
    with pytest.raises(DatasetError, match=r"file-000\.parquet.*dropped_action is .* four finite numbers"):
        open_dataset(str(tmp_path / "set"))
