"""Recordings killed with SIGKILL at random moments keep every finished episode, and go on afterwards."""

from __future__ import annotations

import multiprocessing
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from hil_rllib.data.lerobot_reader import open_dataset
from hil_rllib.data.lerobot_writer import LeRobotWriter

STEPS, SIZE = 6, 48
ROUNDS = 12


def actions_of(episode: int) -> np.ndarray:
    return np.random.default_rng(episode).uniform(-1, 1, (STEPS, 4)).astype(np.float32)


def frame_of(episode: int, step: int) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), (30 * step + 7 * episode) % 256, np.uint8)


# Not forked from pytest's own process, whose other threads may hold locks.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["hil_rllib.data.lerobot_writer"])


def record_for_ever(root: Path, finished: Connection) -> None:
    """Appends episodes and says when one is safe by the writer's promise."""
    finished.send_bytes(b"ready")
    writer = LeRobotWriter(root, cameras=("front",), environment_state=False, image_size=(SIZE, SIZE))
    while True:
        episode = writer.episodes
        for step, action in enumerate(actions_of(episode)):
            observation = {"agent_pos": np.full(18, step), "pixels": {"front": frame_of(episode, step)}}
            last = step == STEPS - 1
            writer.add_step(observation, action, reward=last, terminated=last, truncated=False, success=last)
        writer.end_episode(seed=episode)
        finished.send_bytes(b"done")


def killed_after(delay_s: float | None, root: Path) -> tuple[int, float]:
    """Records in a process of its own and kills that after the delay, or (None) after its first episode.

    Returns how many episodes it had finished, and how long it ran [s].
    """
    heard, said = processes.Pipe(duplex=False)
    child = processes.Process(target=record_for_ever, args=(root, said), daemon=True)
    child.start()
    said.close()
    assert heard.recv_bytes() == b"ready"
    began, finished = time.monotonic(), 0
    if delay_s is None:
        heard.recv_bytes()
        finished += 1
    else:
        time.sleep(delay_s)
    ran_s = time.monotonic() - began
    child.kill()
    child.join()
    assert child.exitcode == -9, "the recording failed by itself"
    try:
        while heard.poll():
            heard.recv_bytes()
            finished += 1
    except (EOFError, OSError):  # all heard; the last word may be cut off
        pass
    return finished, ran_s


def test_every_finished_episode_survives_kills_at_random_moments(tmp_path: Path) -> None:
    root = tmp_path / "set"
    chance = random.Random(0)
    finished, episode_s = killed_after(None, root)
    kept = len(open_dataset(str(root)))
    assert finished <= kept <= finished + 1
    for _ in range(ROUNDS):
        delay_s = chance.uniform(0.0, 2.5 * episode_s)  # however slow the machine is
        finished = kept + killed_after(delay_s, root)[0]
        dataset = open_dataset(str(root))
        kept = len(dataset)
        assert finished <= kept <= finished + 1  # the one being finished may have made it
        for number, episode in enumerate(dataset.read(frames=True)):
            assert (episode.meta.index, episode.meta.seed) == (number, number)
            np.testing.assert_array_equal(episode.column("action"), actions_of(number))
            for step in range(STEPS):
                assert abs(int(episode.frames["front"][step].mean()) - int(frame_of(number, step).mean())) < 3

    with LeRobotWriter(root, cameras=("front",), environment_state=False, image_size=(SIZE, SIZE)) as writer:
        assert writer.episodes == kept
    assert not list(root.rglob("*.tmp"))
    open_dataset(str(root))
