"""What a gradient update costs, and what RLlib adds to it.

    python tests/bench/bench_update.py

First the update alone: the project's networks, replay and update in a plain loop. Then the same work done by
the whole algorithm (learner group, weight push, metrics, reports), in turns with the plain loop, so that a
machine that slows down slows both. Rings hold random data; nothing is rendered, nothing is sampled.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
import ray
import torch
from synthetic import build

from hil_rllib.data.replay import ReplayMix, nested_map, rows_of
from hil_rllib.logs import quiet
from hil_rllib.sac.algorithm import HILSAC
from hil_rllib.sac.update import make_optimizers, update

BLOCK = 2  # updates: a critic's, then one of critic and actor, as with utd_ratio 2
MS_TARGET, RATIO_TARGET = 40.0, 0.8


class PlainLoop:
    """The algorithm's networks, started afresh, and its batches, without the algorithm."""

    def __init__(self, algorithm: HILSAC) -> None:
        self.cfg = algorithm.hil.sac
        self.mix = ReplayMix(
            algorithm.online, algorithm.demo, self.cfg.batch_size, self.cfg.demo_fraction, seed=1
        )
        self.module = algorithm.config.get_rl_module_spec(spaces=algorithm.spaces).build()
        self.module.make_target_networks()
        self.optimizers = make_optimizers(self.module, self.cfg)
        self.module.train()
        for _, target in self.module.get_target_network_pairs():
            target.eval()

    def gather(self) -> None:
        self.mix.sample(BLOCK)

    def block(self) -> None:
        """Gather a block of batches and make an update of each."""
        arrays, n_demo = self.mix.sample(BLOCK)
        tensors = nested_map(torch.from_numpy, arrays)
        for i in range(BLOCK):
            batch = rows_of(tensors, i * self.cfg.batch_size, (i + 1) * self.cfg.batch_size)
            train_actor = i == BLOCK - 1
            update(
                self.module, self.optimizers, batch, self.cfg,
                n_demo=n_demo, train_actor=train_actor, anchor=1.0,
            )  # fmt: skip

    def updates_per_second(self, seconds: float) -> float:
        started, updates = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            self.block()
            updates += BLOCK
        return updates / (time.perf_counter() - started)


def updates_per_second(algorithm: HILSAC, seconds: float) -> float:
    """By `train()`, reports included."""
    started, before = time.perf_counter(), algorithm.updates
    while time.perf_counter() - started < seconds:
        algorithm.train()
    return (algorithm.updates - before) / (time.perf_counter() - started)


def milliseconds(work: Callable[[], None], rounds: int) -> tuple[float, float, float]:
    """Median and least time of a block, and the median of its processor time, per update [ms]."""
    work()
    times, processor = [], []
    for _ in range(rounds):
        started, spent = time.perf_counter(), time.process_time()
        work()
        times.append(1000 * (time.perf_counter() - started) / BLOCK)
        processor.append(1000 * (time.process_time() - spent) / BLOCK)
    return float(np.median(times)), min(times), float(np.median(processor))


def row(figure: str, threads: int | str, value: str, target: str = "", met: bool | None = None) -> None:
    verdict = "" if met is None else "ok" if met else "MISSED"
    print(f"{figure:44} {threads:>7} {value:>22} {target:>8}  {verdict}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30, help="blocks of two updates timed alone")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each of the turns with RLlib")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="of torch")
    parser.add_argument("--steps", type=int, default=5000, help="steps in each ring")
    args = parser.parse_args()
    quiet()

    load = os.getloadavg()[0]
    print(f"{len(os.sched_getaffinity(0))} cores, load {load:.1f}" + (": NOT IDLE" if load > 1 else ""))
    row("figure", "threads", "median (least)", "target")
    for name, config_file in (("two cameras", "panda_sac.yaml"), ("state", "panda_sac_state.yaml")):
        algorithm = build(config_file, args.steps)
        algorithm.experience.env_steps = algorithm._evaluated_at = (
            10**9
        )  # far behind its budget, it only learns
        plain = PlainLoop(algorithm)
        batch = plain.cfg.batch_size
        for threads in args.threads:
            torch.set_num_threads(threads)
            median, least, processor = milliseconds(plain.block, args.rounds)
            text = f"{median:.1f} ({least:.1f}) ms"
            if name == "state":
                row(f"update, {name}, batch {batch}", threads, text)
            else:
                row(
                    f"update, {name}, batch {batch}", threads, text, f"≤ {MS_TARGET:.0f}", median <= MS_TARGET
                )
            row("  its processor time", threads, f"{processor:.1f} ms")
            median, least, _ = milliseconds(plain.gather, args.rounds)
            row("  of which gathering the batch from replay", threads, f"{median:.2f} ({least:.2f}) ms")

            turns = [
                (updates_per_second(algorithm, args.seconds), plain.updates_per_second(args.seconds))
                for _ in range(args.turns)
            ]
            ratio = float(np.median([inside / bare for inside, bare in turns]))
            inside, bare = np.median(turns, axis=0)
            row("  updates/s inside RLlib : plain loop", threads, f"{inside:.1f} : {bare:.1f}")
            row("  their ratio", threads, f"{ratio:.2f}", f"≥ {RATIO_TARGET}", ratio >= RATIO_TARGET)
        algorithm.stop()
        ray.shutdown()


if __name__ == "__main__":
    main()
