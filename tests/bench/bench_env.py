"""Environment steps per second beside gym-hil, id by id, in one run on one machine.

    python tests/bench/bench_env.py                  # ids that need no display
    xvfb-run -a python tests/bench/bench_env.py      # all ten
    python tests/bench/bench_env.py --only Boxes --observation state

Both sides are driven by the same random actions, in processes of their own so that no setting reaches
another. They take turns in short bursts, each with the other processes, whose windows would go on drawing,
stopped; the best burst of each counts: what the code can do when nothing else takes the processor.
Images: two cameras of 128 x 128. `CPU ms` is processor time per step, all threads.
gym-hil's Gamepad ids fail without a gamepad, ours go on: they are measured against gym-hil's id without one.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

TASKS = ("PandaPickCube", "PandaArrangeBoxes")
WITHOUT_DISPLAY = ("Base", "", "Gamepad")
WITH_DISPLAY = ("Viewer", "Keyboard")
OBSERVATIONS: dict[str, tuple[dict[str, Any], bool, float]] = {  # our arguments, with images, wanted ratio
    "state": ({}, False, 2.5),
    "images, full": ({"render_quality": "full"}, True, 6.0),
    "images, fast": ({"render_quality": "fast"}, True, 25.0),
}
STEP_SIZE = 0.025  # [m] of actions per axis
HEADER = ("id", "observation", "steps/s", "gym-hil", "ratio", "wanted", "CPU ms", "gym-hil")
ROW = "{:32} {:13} {:>8} {:>8} {:>7} {:>7} {:>7} {:>8}"


@functools.cache
def make(ours: bool, task: str, kind: str, observation: str) -> Any:
    """One environment; made once per process."""
    import gymnasium

    import envs  # noqa: F401  # registers ours, and chooses OpenGL, which gym-hil leaves to the user

    logging.disable(logging.WARNING)  # that there is no gamepad
    gymnasium.logger.min_level = gymnasium.logger.ERROR  # gym-hil's boxes lose precision
    kwargs, image_obs, _ = OBSERVATIONS[observation]
    if ours:
        if kind == "Gamepad":
            kwargs = {**kwargs, "use_viewer": False}
        name = f"hil/{task}{kind}-v0"
    else:
        os.environ.pop("LP_NUM_THREADS", None)  # our choice of Mesa's drawing threads is not theirs
        import gym_hil  # noqa: F401  # registers theirs

        kind = "" if kind == "Gamepad" else kind
        kwargs, name = {}, f"gym_hil/{task}{kind}-v0"
    if kind in ("", "Gamepad", "Keyboard"):
        kwargs = {**kwargs, "reset_delay_seconds": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):  # gym-hil prints its keys
        env = gymnasium.make(name, image_obs=image_obs, disable_env_checker=True, **kwargs)
    if not ours:
        env.unwrapped._n_substeps = 50  # as in its recordings; it rounds 0.1 / 0.002 down to 49
    env.reset(seed=0)
    return env


def burst(steps: int, *which: Any) -> tuple[float, float]:
    """(wall, processor) seconds per step over `steps` steps of random actions."""
    env = make(*which)
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(
        -0.01, 0.01, (steps, 7)
    )  # [m], and shares of the gripper's range
    if env.action_space.shape == (4,):
        actions = np.column_stack([actions[:, :3] / STEP_SIZE, actions[:, 6] + 1.0]).astype(np.float32)
    wall, processor = time.perf_counter(), time.process_time()
    for action in actions:
        env.step(action)
    return (time.perf_counter() - wall) / steps, (time.process_time() - processor) / steps


class Worker:
    """A process that runs only while it is asked something."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        self._pid = self._pool.submit(os.getpid).result()

    def burst(self, *args: Any) -> tuple[float, float]:
        os.kill(self._pid, signal.SIGCONT)
        try:
            return self._pool.submit(burst, *args).result()
        finally:
            os.kill(self._pid, signal.SIGSTOP)

    def close(self) -> None:
        os.kill(self._pid, signal.SIGCONT)
        self._pool.shutdown()


@contextlib.contextmanager
def workers_for(sides: Sequence[tuple[bool, str]]) -> Iterator[dict[tuple[bool, str], Worker]]:
    workers: dict[tuple[bool, str], Worker] = {}
    try:
        for side in sides:
            workers[side] = Worker()
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


def compare(task: str, kind: str, names: Sequence[str], rounds: int) -> bool:
    """Print a row for each of the observations `names`; whether all ratios are as wanted."""
    theirs_of = {"state": "state", "images, full": "images, full", "images, fast": "images, full"}
    sides = [(True, name) for name in names] + [(False, name) for name in {theirs_of[n] for n in names}]
    times: dict[tuple[bool, str], list[tuple[float, float]]] = {side: [] for side in sides}
    with workers_for(sides) as workers:
        for _ in range(rounds + 1):
            for (ours, name), worker in workers.items():
                steps = 3 if not ours and name != "state" else 20
                times[ours, name].append(worker.burst(steps, ours, task, kind, name))
    # The first burst loads scenes and compiles shaders.
    best = {side: np.min(rows[1:], axis=0) for side, rows in times.items()}
    good = True
    for name in names:
        wanted = OBSERVATIONS[name][2]
        ours, theirs = best[True, name], best[False, theirs_of[name]]
        ratio = theirs[0] / ours[0]
        good = good and ratio >= wanted
        rates = (f"{1 / ours[0]:.1f}", f"{1 / theirs[0]:.1f}", f"{ratio:.1f}x", f"{wanted}x")
        cpu = (f"{ours[1] * 1e3:.1f}", f"{theirs[1] * 1e3:.1f}")
        print(ROW.format(f"hil/{task}{kind}-v0", name, *rates, *cpu), flush=True)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", metavar="TEXT", help="ids whose names contain TEXT")
    parser.add_argument("--observation", choices=OBSERVATIONS, action="append", help="may be repeated")
    args = parser.parse_args()
    kinds = WITHOUT_DISPLAY + (WITH_DISPLAY if os.environ.get("DISPLAY") else ())
    which = [(task, kind) for kind in kinds for task in TASKS if args.only in f"hil/{task}{kind}-v0"]
    print(ROW.format(*HEADER))
    results = [compare(*one, args.observation or tuple(OBSERVATIONS), args.rounds) for one in which]
    print("every ratio as wanted" if all(results) else "NOT every ratio as wanted")


if __name__ == "__main__":
    main()
