"""Runs of the benchmark as processes: each in its own folder, made once, on its share of the cores.

A run that was cut off goes on from its last checkpoint, and one made with fewer steps is prolonged.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hil_rllib.config import SUMMARY_FILE
from hil_rllib.results.protocol import Job
from hil_rllib.sac.checkpoint import newest_checkpoint

RECORD_FILE = "benchmark.json"
ENDING_S = 60.0  # [s] that a run has to end after Ctrl-C


@dataclass(frozen=True)
class Plan:
    """How runs are made. demos: local copy of the real ones; steps: at most so many, None: the protocol's."""

    out: Path
    demos: str | None = None
    steps: int | None = None
    parallel: int = 1


def make_runs(
    jobs: Sequence[Job], plan: Plan, demo_seconds: Callable[[Job], float], say: Callable[[str], None]
) -> list[Job]:
    """Make every run that is not finished, `parallel` at a time; returns those that failed.

    demo_seconds: of a person's time in the run's demonstrations.
    """
    waiting = [job for job in jobs if not is_finished(plan.out / job.name, plan.steps)]
    say(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are there, {len(waiting)} to make.")
    failed: list[Job] = []
    seats: queue.Queue[list[int]] = queue.Queue()
    for cores in shares(plan.parallel):
        seats.put(cores)
    running: set[subprocess.Popen[bytes]] = set()
    stopped, reading = threading.Event(), threading.Lock()

    def make(job: Job) -> None:
        if stopped.is_set():
            return
        cores = seats.get()
        try:
            say(f"{time.strftime('%H:%M:%S')}  {job.name}")
            begun = time.monotonic()
            with reading:  # one at a time: the first that needs a set may have to record it
                record = {"demo_seconds": demo_seconds(job), "jobs": plan.parallel, **origin()}
            if stopped.is_set():
                return
            if make_run(job, plan, cores, record, running):
                say(f"{time.strftime('%H:%M:%S')}  {job.name} took {time.monotonic() - begun:.0f} s")
            elif not stopped.is_set():
                failed.append(job)
                say(f"{time.strftime('%H:%M:%S')}  {job.name} FAILED, see {log_file(plan.out / job.name)}")
        finally:
            seats.put(cores)

    with ThreadPoolExecutor(plan.parallel) as pool:
        try:
            for future in [pool.submit(make, job) for job in waiting]:
                future.result()
        except BaseException:
            stopped.set()
            end(list(running))
            raise
    return failed


def make_run(
    job: Job, plan: Plan, cores: list[int], record: dict[str, Any], running: set[subprocess.Popen[bytes]]
) -> bool:
    """One run by the user's own command, or the rest of one that was cut off; False where it failed."""
    folder = plan.out / job.name
    end_leftover(folder)
    before = read_record(folder)
    words = ["-m", "hil_rllib.train", str(job.config), f"run.dir={folder}", *job.overrides(plan.demos)]
    if plan.steps is not None:
        words.append(f"stop.env_steps={plan.steps}")
    if newest_checkpoint(folder):
        words.append("--resume")
    else:
        shutil.rmtree(folder, ignore_errors=True)
        before = {}
    folder.mkdir(parents=True, exist_ok=True)
    record |= {
        "job": vars(job),
        "command": " ".join(["python", *words]),
        "started": [*before.get("started", []), time.time()],  # of every session
        "commit": " ".join(dict.fromkeys([*before.get("commit", "").split(), record["commit"]])),
        "steps": plan.steps,
    }
    with log_file(folder).open("a") as log:
        process = subprocess.Popen(
            [sys.executable, *words],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for this process, which passes it on
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        running.add(process)
        write_record(folder, record | {"pid": process.pid, "benchmark": os.getpid()})
        status = process.wait()
        running.discard(process)
    if status != 0:
        return False
    made = json.loads((folder / SUMMARY_FILE).read_text())["env_steps"]
    write_record(folder, record | {"finished": time.time(), "made": made})
    return True


def is_finished(folder: Path, steps: int | None = None) -> bool:
    """Whether the run is there. steps: that it was to make at most; None: as many as it did."""
    record = read_record(folder)
    return "finished" in record and is_enough(record["made"], record["steps"], steps)


def is_enough(made: int, limit: int | None, wanted: int | None) -> bool:
    """Whether a run of at most `limit` env steps serves where at most `wanted` are; None: the protocol's."""
    return limit is None or made < limit or (wanted is not None and wanted <= limit)


def read_record(folder: Path) -> dict[str, Any]:
    """Where a run came from and what it took; empty where there is none."""
    file = folder / RECORD_FILE
    record: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return record


def write_record(folder: Path, record: dict[str, Any]) -> None:
    unfinished = folder / f".{RECORD_FILE}"
    unfinished.write_text(json.dumps(record, indent=1) + "\n")
    unfinished.replace(folder / RECORD_FILE)


def log_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")


def end_leftover(folder: Path) -> None:
    """End what a benchmark that was killed left running in this folder.

    Raises OSError where it stays, or where the benchmark is not killed at all.
    """
    record = read_record(folder)
    pid, owner = record.get("pid"), record.get("benchmark")
    if owner not in (None, os.getpid()) and "hil_rllib.benchmark" in command_of(owner):
        raise OSError(f"{folder} is being made by another benchmark, process {owner}: choose other runs.")
    deadline = time.monotonic() + ENDING_S
    while pid is not None and f"run.dir={folder}" in command_of(pid):
        if time.monotonic() > deadline:
            raise OSError(f"Process {pid} still works in {folder} and cannot be killed.")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # its Ray processes end with it
        time.sleep(0.1)


def command_of(pid: int) -> str:
    """How a process was called; empty where it has ended, also of a zombie that its parent does not reap."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ctrl-C twice is what ends a run at once; what does not end then is killed."""
    for _ in range(2):
        for process in processes:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGINT)
        time.sleep(1.0)
    deadline = time.monotonic() + ENDING_S
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def shares(parallel: int) -> list[list[int]]:
    """The cores of this process dealt out to so many runs. Raises ValueError where there are too few."""
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= parallel <= len(cores):
        raise ValueError(f"--jobs must be 1 to {len(cores)}, one core for each run at least; got {parallel}.")
    return [cores[i::parallel] for i in range(parallel)]


def origin() -> dict[str, Any]:
    """The commit and machine that a result comes from."""
    return {"commit": commit(), "machine": machine(), "python": platform.python_version()}


def commit() -> str:
    """Of the code that runs, with `+` if files differ from it; `unknown` outside a git checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> str:
    """Processor and how many cores of it, as far as the system tells."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        name = names[0] if names else name
    return f"{name}, {len(os.sched_getaffinity(0))} cores"
