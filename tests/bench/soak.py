"""A long training on two cores: does memory, handles or speed drift?

    python tests/bench/soak.py --minutes 60 --out soak

Trains for so long with rings small enough to be full early: an operator's runner that records, an
autonomous one, evaluations and checkpoints on schedule. Every few seconds it notes the anonymous memory
(heaps and stacks; unlike USS it does not change with what else the machine runs), open file descriptors and
threads of each of the run's processes, and the run's rates.

Leaves soak.csv (a row for each process and sample, written as it is taken), rates.csv, soak.png and a verdict
on the time with full rings: every process's memory in its last sixth within 2 % of its first, no more
handles, no lower rates in its second half. Ctrl-C or SIGTERM ends it early, with the verdict on what it saw.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[2]
EVERY_S = 5.0  # [s] between samples
MEMORY_TOLERANCE, RATE_TOLERANCE = 0.02, 0.1  # of the mean; rates of a shared machine wander
SMALL_MB = 2.0  # [MB] growth below which no percentage counts: an allocator's step
OVERRIDES = [
    "stop.env_steps=100000000",
    "stop.success=null",
    "sac.online_capacity=2000",
    "sac.demo_capacity=1000",
    "sac.hidden=[64,64]",
    "sac.batch_size=128",
    "sac.bc_start_updates=100",
    "demos.scripted_episodes=10",
    "operator.device=scripted",
    "operator.realtime=true",
    "operator.scripted.budget_s=1000000",
    "runners.autonomous=1",
    "record.operator=true",
    "evaluation.every_steps=2000",
    "evaluation.episodes=5",
    "checkpoint.every_steps=1000",
]


@dataclass
class Process:
    """One process of the run: what was seen of it."""

    name: str
    at: list[float] = field(default_factory=list)  # [s] since the start
    memory_mb: list[float] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)


def name_of(process: psutil.Process) -> str:
    """What it is, in short: `ray::HILSAC.train` -> `HILSAC`."""
    command = process.cmdline()
    text = command[0] if command and command[0].startswith("ray::") else process.name()
    if any("hil_rllib.train" in part for part in command):
        return "driver"
    return text.removeprefix("ray::").split(".")[0]


def sample(run: psutil.Process, seen: dict[int, Process], now: float) -> list[list[Any]]:
    """Add what is seen now to every process of the run. Returns it as rows of soak.csv."""
    rows = []
    for process in [run, *run.children(recursive=True)]:
        try:
            with process.oneshot():
                memory, handles, threads = (
                    anonymous_mb(process.pid),
                    process.num_fds(),
                    process.num_threads(),
                )
                name = name_of(process)
        except (psutil.Error, OSError):  # it has just ended
            continue
        if name in ("sh", "bash"):
            continue
        known = seen.setdefault(process.pid, Process(name))
        known.name = name  # an idle worker becomes an actor
        known.at.append(now)
        known.memory_mb.append(memory)
        known.handles.append(handles)
        known.threads.append(threads)
        rows.append([process.pid, name, round(now, 2), round(memory, 2), handles, threads])
    return rows


def anonymous_mb(pid: int) -> float:
    """Memory of the process that no file backs."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) * 1024 / 1e6


def results(run_dir: Path) -> dict[str, np.ndarray]:
    """The run's reports: time [s since 1970], steps, updates, and how full the rings are."""
    files = sorted(run_dir.glob("trial*/result.json"))
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    hil = [row["hil"] for row in rows]
    columns = {
        name: np.array([h[name] for h in hil])
        for name in ("env_steps", "updates", "online_ring", "demo_ring")
    }
    return columns | {"time": np.array([row["timestamp"] for row in rows], np.float64)}


def verdict(processes: list[Process], rates: dict[str, np.ndarray], full_at: float) -> list[tuple[str, bool]]:
    """(what, whether it holds) of each process that lived through the time with full rings."""
    last = max(p.at[-1] for p in processes)
    middle, sixth = (full_at + last) / 2, (last - full_at) / 6
    lines: list[tuple[str, bool]] = []
    for process in processes:
        at = np.array(process.at)
        first, second = (at >= full_at) & (at < middle), at >= middle
        if at[0] > full_at or at[-1] < last - 3 * EVERY_S or first.sum() < 3:
            continue
        ends = (at >= full_at) & (at < full_at + sixth), at >= last - sixth
        memory = [float(np.median(np.array(process.memory_mb)[end])) for end in ends]
        growth = memory[1] - memory[0]
        flat = growth <= max(MEMORY_TOLERANCE * memory[0], SMALL_MB)
        lines.append(
            (
                f"{process.name:24} memory {memory[0]:7.1f} -> {memory[1]:7.1f} MB {growth / memory[0]:+.1%}",
                flat,
            )
        )
        for what, values in (("handles", process.handles), ("threads", process.threads)):
            counts = [int(np.median(np.array(values)[half])) for half in (first, second)]
            if counts[1] > counts[0]:
                lines.append(
                    (f"{process.name:24} {what} {counts[0]} -> {counts[1]}", counts[1] - counts[0] <= 2)
                )
    since = rates["time"]
    for name in ("env_steps", "updates"):
        halves = [(since >= full_at) & (since < middle), since >= middle]
        speeds = [
            float((rates[name][h][-1] - rates[name][h][0]) / np.ptp(since[h])) for h in halves if h.sum() > 1
        ]
        if len(speeds) == 2:
            change = speeds[1] / speeds[0] - 1
            lines.append(
                (
                    f"{name + '/s':24} {speeds[0]:.1f} -> {speeds[1]:.1f} {change:+.1%}",
                    change > -RATE_TOLERANCE,
                )
            )
    return lines


def draw(processes: list[Process], rates: dict[str, np.ndarray], full_at: float, file: Path) -> None:
    """Memory, handles and threads of the processes and the rates, over time."""
    figure, axes = plt.subplots(4, 1, figsize=(9, 12), sharex=True)
    lived = [p for p in processes if p.at[-1] - p.at[0] > 6 * EVERY_S]
    for axis, (title, values) in zip(
        axes,
        (("anonymous memory [MB]", "memory_mb"), ("open handles", "handles"), ("threads", "threads")),
        strict=False,
    ):
        for process in lived:
            axis.plot(np.array(process.at) / 60, getattr(process, values), label=process.name)
        axis.set_ylabel(title)
    axes[0].legend(fontsize=7, ncols=3)
    minutes = rates["time"] / 60
    for name in ("env_steps", "updates"):
        if len(minutes) > 20:
            window = 10
            speed = (rates[name][window:] - rates[name][:-window]) / np.maximum(
                1e-6, 60 * (minutes[window:] - minutes[:-window])
            )
            axes[3].plot(minutes[window:], speed, label=f"{name}/s")
    axes[3].legend()
    axes[3].set(xlabel="minutes", ylabel="rates [1/s]", ylim=(0, None))
    for axis in axes:
        axis.axvline(full_at / 60, color="grey", linestyle=":")
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, dpi=100)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=Path("soak"), help="a new folder")
    parser.add_argument("--config", default=str(ROOT / "tuned_configs" / "panda_sac_state.yaml"))
    parser.add_argument("overrides", nargs="*", help="more key=value")
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    run_dir = args.out / "run"
    command = [
        sys.executable,
        "-m",
        "hil_rllib.train",
        args.config,
        *OVERRIDES,
        *args.overrides,
        f"run.dir={run_dir}",
    ]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        open(args.out / "train.log", "w", encoding="utf-8") as log,
        open(args.out / "soak.csv", "w", newline="", encoding="utf-8", buffering=1) as samples,
    ):
        rows = csv.writer(samples)
        rows.writerow(["pid", "process", "seconds", "memory_mb", "handles", "threads"])
        training = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
        )
        seen: dict[int, Process] = {}
        started = time.time()
        run = psutil.Process(training.pid)
        try:
            while time.time() - started < 60 * args.minutes and training.poll() is None:
                rows.writerows(sample(run, seen, time.time() - started))
                time.sleep(EVERY_S)
        except KeyboardInterrupt:
            print(f"Stopped after {(time.time() - started) / 60:.1f} minutes.")
        finally:
            ended_early = training.poll() is not None
            if not ended_early:
                training.send_signal(signal.SIGTERM)
            status = training.wait(300)
    processes = list(seen.values())
    if not any(file.stat().st_size for file in run_dir.glob("trial*/result.json")):
        print(f"The run ended with status {status} before its first report: see {args.out / 'train.log'}")
        return 1
    rates = results(run_dir)
    rates["time"] -= started
    with open(args.out / "rates.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([list(rates), *zip(*rates.values(), strict=True)])
    full = (rates["online_ring"] >= 0.99 * rates["online_ring"].max()) & (
        rates["demo_ring"] >= 0.97 * rates["demo_ring"].max()
    )
    full_at = float(rates["time"][np.argmax(full)]) if full.any() else 0.0
    draw(processes, rates, full_at, args.out / "soak.png")
    lines = verdict(processes, rates, full_at)
    print(
        f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[1]:.1f}; "
        f"rings full after {full_at / 60:.1f} min"
    )
    for text, holds in lines:
        print(f"{'ok    ' if holds else 'MISSED'} {text}")
    if ended_early or status != 143:
        print(f"MISSED the run ended with status {status}: see {args.out / 'train.log'}")
    return int(ended_early or status != 143 or not all(holds for _, holds in lines))


if __name__ == "__main__":
    sys.exit(main())
