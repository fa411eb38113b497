"""Kill the whole program, again and again: is all that it had acknowledged there, once, in order?

    python tests/bench/program_kills.py --kills 100 [--seed 0]

Where `tests/data/driver_kills.py` kills what stores, this kills `python -m hil_rllib.train` itself: driver
and learner at the same instant, at a random moment of its start, its way back, or its learning, amid
checkpoints (two a second) and evaluations. A synthetic person in real time takes over again and again, so
that episodes are held back until they end. Acknowledged is every journal entry that was in its file just
before the kill.

After each kill: what was known before is still there, bit by bit and in order; no step is there twice; and
the rings that `Experience` rebuilds hold every step, and every one of the person's, once and in order. In
the end the run is resumed once more and ended properly: its own counts must be the same.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from journal_witness import Witness

from hil_rllib.data.journal import Journal

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ROOT / "tuned_configs" / "panda_sac_smoke.yaml"
LIGHT = (
    "run.mode=async",
    "env.image_obs=false",
    "env.max_episode_steps=30",
    "demos.source=scripted",
    "demos.scripted_episodes=2",
    "operator.device=scripted",
    "operator.realtime=true",
    "operator.hz=40",
    "operator.scripted.start_after_step=1",
    "operator.scripted.takeover_probability=0.2",
    "operator.scripted.reaction_s=0.1",
    "operator.scripted.budget_s=1000000",
    "sac.batch_size=8",
    "sac.hidden=[8,8]",
    "sac.learning_starts=20",
    "sac.utd_ratio=1",
    "sac.bc_start_updates=0",
    "evaluation.episodes=1",
    "evaluation.every_steps=100",
    "checkpoint.every_steps=20",
    "stop.success=null",
)
ENDLESS = "stop.env_steps=1000000"
EARLY = 0.4  # of the kills: during the start, before anything new is stored
LONGEST_S = 4.0  # [s] after the first new entries that a later kill waits
NEW = 2000  # [bytes] in the journal that are new entries, not those of the way back: three fragments
PATIENCE_S = 300.0  # [s] for a start on a machine that has other work


class Program:
    """The command, on one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run_dir, self.replay = folder, folder / "run", folder / "run" / "replay"
        self.log = folder / "log"
        self.environment = os.environ | {
            "XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(folder / "t"), "RAY_TMPDIR": str(folder),
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip

    def start(self, *overrides: str) -> subprocess.Popen[bytes]:
        """Begin, or resume what is there."""
        (self.folder / "t").mkdir(exist_ok=True)
        begun = (self.run_dir / "config.yaml").exists()
        command = [sys.executable, "-m", "hil_rllib.train", str(SMOKE), f"run.dir={self.run_dir}", *LIGHT]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [*command, *overrides, *["--resume"] * begun],
                cwd=ROOT, env=self.environment, stdout=log, stderr=log,
            )  # fmt: skip

    def stored(self) -> int:
        """[bytes] of the online journal."""
        return sum(file.stat().st_size for _, file in Journal(self.replay, "online").segments())

    def learner(self, process: subprocess.Popen[bytes]) -> psutil.Process | None:
        """The process that has the journals open, once it has."""
        with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
            pid = int((self.replay / "owner").read_text().split()[1])  # may be that of the one before
            started = psutil.Process(process.pid).children(recursive=True)
            return next((child for child in started if child.pid == pid), None)
        return None

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Driver and learner at once; then wait until what they had started is gone."""
        learner = self.learner(process)
        started = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        if learner is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                learner.kill()
        process.wait()
        _, alive = psutil.wait_procs(started, timeout=3)
        for child in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(alive, timeout=10)
        for leftover in (*self.folder.glob("ray/session_*"), self.folder / "t"):
            shutil.rmtree(leftover, ignore_errors=True)

    def cut_checkpoints(self) -> int:
        """Checkpoints that were being copied, or removed, when a kill came."""
        folders = self.run_dir.glob("trial*/checkpoint_*")
        return sum(not (folder / "hil_state.json").exists() for folder in folders)


@dataclass
class Kills:
    """One kill after another. start_s: what the last start took, to its first new entry."""

    program: Program
    witness: Witness
    rng: random.Random
    start_s: float = 20.0

    def once(self, name: str) -> None:
        """One start, one kill, one look at what is left."""
        began, replay = time.monotonic(), self.program.replay
        process, phase = self._run_until_moment(name)
        if replay.is_dir():
            self.witness.see(replay, f"{name}, before", dead=False)
        acknowledged = len(self.witness.interventions)
        self.program.kill(process)
        if replay.is_dir():
            self.witness.see(replay, f"{name}, after", dead=True)
        sys.stdout.write(
            f"{name} during {phase}: {acknowledged} interventions acknowledged, "
            f"{len(self.witness.interventions)} on disk, {self.program.cut_checkpoints()} checkpoints cut, "
            f"{self.witness.torn} records torn, {len(self.witness.wrong)} wrong; "
            f"{time.monotonic() - began:.1f} s\n"
        )
        sys.stdout.flush()

    def _run_until_moment(self, name: str) -> tuple[subprocess.Popen[bytes], str]:
        """Start, and wait for the moment that chance chose; returns the process and what it is at."""
        program, rng = self.program, self.rng
        had, began, phase = program.stored(), time.monotonic(), "start"
        process = program.start(ENDLESS)
        early = rng.random() < EARLY
        kill_at = began + (rng.uniform(0, self.start_s) if early else PATIENCE_S)
        while time.monotonic() < kill_at:
            time.sleep(0.05)
            if process.poll() is not None:
                self._why_it_ended(name)
                process = program.start(ENDLESS)
            elif phase == "start" and program.learner(process):
                phase = "set-up"
            elif phase == "set-up" and program.stored() > had + NEW:
                phase, self.start_s = "learning", time.monotonic() - began
                kill_at = kill_at if early else time.monotonic() + rng.uniform(0, LONGEST_S)
        if phase != "learning" and not early:
            raise RuntimeError(f"{name}: nothing new in {PATIENCE_S:.0f} s:\n{program.log.read_text()}")
        return process, phase

    def _why_it_ended(self, name: str) -> None:
        """Return where it may be started again; RuntimeError with its output where it should have gone on."""
        said = self.program.log.read_text()
        if "timed out during startup" in said:
            sys.stdout.write(f"{name}: Ray did not start in time on this busy machine; again\n")
        else:
            raise RuntimeError(f"{name}: the program ended by itself:\n{said}")


def ended_properly(program: Program, witness: Witness) -> None:
    """Resume a last time, let it end, and compare its own counts."""
    had = {name: len(entries) for name, entries in witness.known.items()}
    process = program.start("stop.env_steps=21")  # past its warm-up: at once
    if process.wait(PATIENCE_S):
        raise RuntimeError(f"The last run ended with {process.returncode}:\n{program.log.read_text()}")
    witness.see(program.replay, "the end", dead=True)
    newest = max(program.run_dir.glob("trial*/result.json"), key=lambda file: file.stat().st_mtime)
    hil = json.loads(newest.read_text().splitlines()[-1])["hil"]
    online = sum(len(e.human) for e in witness.known["online"][: had["online"]])
    demo = sum(len(e.human) for e in witness.known["demo"][: had["demo"]])
    if hil["online_ring"] < online or hil["demo_ring"] < demo:
        witness.wrong.append(f"the end: {hil['online_ring']} and {hil['demo_ring']} steps in the rings, "
                             f"{online} and {demo} were on disk")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=600.0, help="stop earlier, with fewer kills")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    witness, began = Witness(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills") as folder:
        program = Program(Path(folder))
        kills = Kills(program, witness, random.Random(args.seed))
        number = 0
        while number < args.kills and time.monotonic() < began + 60 * args.minutes:
            number += 1
            kills.once(f"kill {number}")
        ended_properly(program, witness)
    steps = sum(len(entry.human) for entry in witness.known["online"])
    sys.stdout.write(
        f"{number} kills in {time.monotonic() - began:.0f} s: {steps} steps stored, "
        f"{len(witness.interventions)} of them a person's, {witness.torn} records torn; "
        f"wrong: {len(witness.wrong)}\n"
    )
    sys.stdout.write("".join(f"{line}\n" for line in witness.wrong[:20]))
    return 1 if witness.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
