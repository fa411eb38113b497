"""Recording while training: datasets that hold what the runners did, whoever dies."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import ray

from hil_rllib.collect.recording import Episode
from hil_rllib.contract import CAMERAS, IMAGE_SIZE, IS_INTERVENTION, env_action
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.lerobot_reader import open_dataset
from hil_rllib.data.lerobot_writer import LeRobotWriter
from hil_rllib.data.replay import Fragment
from hil_rllib.sac.config import build_env
from hil_rllib.sac.recorder import EpisodeWriter, Outbox, check_datasets, recordings_dir, start_writer

HELPFUL = (
    "operator.device=scripted",
    "operator.scripted.start_after_step=0",
    "operator.scripted.reaction_s=0",
    "operator.scripted.takeover_probability=0.3",
    "operator.scripted.help_steps=4",
)


def made_up(steps: int = 6, cameras: tuple[str, ...] = (), seed: int = 0) -> Episode:
    rng = np.random.default_rng(seed)
    observations = {
        "agent_pos": rng.normal(size=(steps, 18)).astype(np.float32),
        "environment_state": rng.normal(size=(steps, 3)).astype(np.float32),
        **{
            f"pixels.{name}": rng.integers(0, 255, (steps, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
            for name in cameras
        },
    }
    return Episode(
        seed=seed,
        observations=observations,
        actions=rng.uniform(-1, 1, (steps, 4)).astype(np.float32),
        rewards=np.zeros(steps, np.float32),
        penalties=np.zeros(steps, np.float32),
        interventions=np.ones(steps, np.float32),
        successes=np.zeros(steps, np.bool_),
        terminated=False,
        truncated=True,
    )


def recorded(folder, frames=False):
    return list(open_dataset(str(folder)).read(frames=frames))


def trained(build, config, steps):
    """Run for so many steps, then stop; per group the episodes that the runners sent, whole."""
    algorithm, whole = build(config), {"operator": [], "autonomous": []}
    store = algorithm._store

    def keeping(group, episode):
        whole[group.name].append(Fragment.from_episode(episode))
        store(group, episode)

    algorithm._store = keeping
    while algorithm.env_steps < steps:
        algorithm.training_step()
    algorithm.stop()
    return whole


@pytest.fixture(scope="module")
def run(build, configure):
    images = (
        "env.image_obs=true",
        "env.render_quality=fast",
        "demos.source=none",
        "sac.learning_starts=1000",
    )
    kept = ("record.operator=true", "record.autonomous=true")
    config = configure(*HELPFUL, *images, *kept, "runners.autonomous=1", "env.max_episode_steps=8")
    return SimpleNamespace(config=config, sent=trained(build, config, 40))


@pytest.mark.parametrize(("group", "name"), [("operator", "operator"), ("autonomous", "autonomous_1")])
def test_datasets_hold_what_the_runners_did_and_say_who(run, group, name):
    episodes = recorded(recordings_dir(run.config) / name, frames=True)
    steps = {key: np.concatenate([f.steps[key] for f in run.sent[group]]) for key in run.sent[group][0].steps}
    count = sum(len(episode) for episode in episodes)
    assert count >= 16
    flags = np.concatenate([e.column("complementary_info.is_intervention").ravel() for e in episodes])
    np.testing.assert_array_equal(flags, steps[IS_INTERVENTION][:count])
    assert flags.any() == (group == "operator")
    actions = np.concatenate([e.column("action") for e in episodes])
    np.testing.assert_allclose(actions, [env_action(a) for a in steps["actions"][:count]], atol=1e-6)
    for episode in episodes:
        assert set(episode.frames) == set(CAMERAS)
        assert all(frames.std() > 5 for frames in episode.frames.values())


def test_a_lockstep_run_that_goes_back_to_a_checkpoint_records_each_episode_once(build, configure):
    config = configure(*HELPFUL, "record.operator=true", "env.max_episode_steps=8", "demos.source=none")
    folder = recordings_dir(config) / "operator"

    def until(algorithm, steps):
        while algorithm.env_steps < steps:
            algorithm.training_step()

    algorithm = build(config)
    until(algorithm, 30)  # amid the fourth episode
    checkpoint = algorithm.save_to_path(f"{config.run.dir}/trial/checkpoint_000000")
    at_checkpoint = len(recorded(folder))
    until(algorithm, 70)
    algorithm.stop()
    whole = recorded(folder)
    assert 2 <= at_checkpoint < len(whole) - 2

    resumed = build(config, restore_from=checkpoint)
    assert len(recorded(folder)) == at_checkpoint
    until(resumed, 70)
    resumed.stop()
    again = recorded(folder)
    assert len(again) == len(whole)
    for a, b in zip(again, whole, strict=True):
        for name in ("action", "observation.state", "next.reward", "complementary_info.is_intervention"):
            np.testing.assert_array_equal(a.column(name), b.column(name), err_msg=name)


def test_a_dataset_of_another_kind_is_refused_before_the_run(run, configure):
    config = configure(
        "env.image_obs=false", "record.operator=true", f"record.dir={run.config.run.dir}/recordings"
    )
    env = build_env(config.env)
    with pytest.raises(DatasetError, match=r"observation\.images\.front"):
        check_datasets(config, env)
    env.close()


def test_a_dataset_that_another_run_writes_is_refused_before_the_run_and_left_as_it_is(
    configure, tmp_path, monkeypatch
):
    """Two runs with one record.dir."""
    monkeypatch.setattr("os.nice", lambda _: 0)
    monkeypatch.setattr("hil_rllib.sac.recorder.OWNER_WAIT_S", 0.2)
    config = configure("env.image_obs=false", "record.operator=true", f"record.dir={tmp_path}")
    other = EpisodeWriter(tmp_path / "operator", config.record.task)
    other.write(made_up(), "a")
    unfinished = tmp_path / "operator" / "data" / ".file-001.parquet.tmp"
    unfinished.touch()
    env = build_env(config.env)
    with pytest.raises(DatasetError, match=f"is being written by process {os.getpid()} "):
        check_datasets(config, env)
    other._writer.close()
    check_datasets(config, env)
    env.close()
    assert unfinished.exists()
    assert len(recorded(tmp_path / "operator")) == 1


def test_a_killed_writer_or_run_leaves_a_dataset_that_loads_and_the_next_one_appends(cluster, tmp_path):
    name, writer = start_writer(tmp_path / "operator", "Pick")
    outbox = Outbox(name, realtime=True)
    outbox.put(made_up(seed=1))
    outbox.close()
    pid = ray.get(writer.__ray_call__.remote(lambda self: os.getpid()))
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    assert [len(e) for e in recorded(tmp_path / "operator")] == [6]
    for seed in (2, 3):
        outbox.put(made_up(seed=seed))  # Ray starts it again
    outbox.close()
    ray.kill(writer)
    name, writer = start_writer(tmp_path / "operator", "Pick")  # a resumed run
    outbox = Outbox(name, realtime=True)
    outbox.put(made_up(seed=4))
    outbox.close()
    seeds = {made_up(seed=seed).actions[0].tobytes(): seed for seed in (1, 2, 3, 4)}
    came = [seeds[np.asarray(e.column("action")[0]).tobytes()] for e in recorded(tmp_path / "operator")]
    assert came in ([1, 2, 3, 4], [1, 3, 2, 4])  # what reached the dead one Ray asks for once more, later
    ray.kill(writer)


def test_an_episode_that_ray_asks_for_twice_is_written_once(tmp_path, monkeypatch):
    """A writer that is killed after its work, before it could say so, is asked again."""
    monkeypatch.setattr("os.nice", lambda _: 0)  # this process's own priority stays

    def writer():
        return EpisodeWriter(tmp_path / "operator", "Pick")

    def killed(*_, **__):
        raise KeyboardInterrupt

    assert [writer().write(made_up(seed=i), name) for i, name in enumerate("abacb")] == [0, 1, 0, 2, 1]
    amid = writer()
    monkeypatch.setattr(LeRobotWriter, "end_episode", killed)
    with pytest.raises(KeyboardInterrupt):
        amid.write(made_up(seed=5), "d")
    amid._writer._lock.release()  # as the kernel does
    monkeypatch.undo()
    monkeypatch.setattr("os.nice", lambda _: 0)
    assert writer().write(made_up(seed=6), "e") == 3  # another one comes between
    assert writer().write(made_up(seed=5), "d") == 4
    assert len(recorded(tmp_path / "operator")) == 5


def test_only_runners_without_a_person_wait_for_their_writer(cluster, tmp_path):
    @ray.remote(num_cpus=0, name="slow-writer")
    class Slow:
        def write(self, episode, name):
            time.sleep(0.3)

    writer = Slow.remote()
    ray.get(writer.__ray_ready__.remote())
    waited = {}
    for realtime in (True, False):
        outbox, started = Outbox("slow-writer", realtime=realtime), time.monotonic()
        for _ in range(5):
            outbox.put(made_up(1))
        waited[realtime] = time.monotonic() - started
        outbox.close()
        assert not outbox._sent
    assert waited[True] < 0.3
    assert waited[False] > 0.6
    ray.kill(writer)


def test_what_cannot_be_written_is_told_and_training_goes_on(cluster, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    name, writer = start_writer(tmp_path / "file", "Pick")
    outbox = Outbox(name, realtime=False)
    outbox.put(made_up())
    outbox.close()
    assert "was not written" in caplog.text
    ray.kill(writer)
