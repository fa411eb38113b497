"""What a checkpoint holds beside RLlib's own state: rings, counters, random state.

RLlib saves networks, targets, temperature (a module parameter) and optimisers. The rings are shards in
the run's folder, `replay/`; the checkpoint holds the cursor into them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hil_rllib.collect.statistics import Evaluations
from hil_rllib.config import Config
from hil_rllib.data.replay_store import load_ring, save_ring

if TYPE_CHECKING:
    from hil_rllib.sac.algorithm import HILSAC

VERSION = 1
STATE_FILE = "hil_state.json"
RANDOM_FILE = "hil_torch_random.pt"
RINGS = ("online", "demo")
COUNTERS = ("env_steps", "updates", "pushes")


def save_run(algorithm: HILSAC, checkpoint: Path) -> None:
    """Add our part to a checkpoint that RLlib has just written."""
    replay = Path(algorithm.hil.run.dir) / "replay"
    for name in RINGS:
        saved = algorithm.saved_rings.get(name)
        algorithm.saved_rings[name] = save_ring(getattr(algorithm, name), replay, name, saved)
    save_random(checkpoint)
    state: dict[str, Any] = {
        "replay": str(replay),
        "rings": algorithm.saved_rings,
        "sampler": algorithm.mix.rng.bit_generator.state,
        "statistics": algorithm.stats.get_state(),
        "evaluations": vars(algorithm.evaluations),
        **{name: getattr(algorithm, name) for name in COUNTERS},
    }
    write_state(checkpoint, algorithm.hil, state)


def restore_run(algorithm: HILSAC, checkpoint: Path) -> None:
    """Take over our part of a checkpoint.

    Raises FileNotFoundError where a replay shard is missing, ValueError where the version is unknown.
    """
    state = read_state(checkpoint)
    for name in RINGS:
        load_ring(getattr(algorithm, name), replay_folder(checkpoint, state), state["rings"][name])
    algorithm.saved_rings = state["rings"]
    algorithm.mix.rng.bit_generator.state = state["sampler"]
    algorithm.stats.set_state(state["statistics"])
    algorithm.evaluations = Evaluations(**state["evaluations"])
    for name in COUNTERS:
        setattr(algorithm, name, state[name])
    restore_random(checkpoint)


def save_random(checkpoint: Path) -> None:
    """Torch's random state."""
    torch.save(torch.get_rng_state(), checkpoint / RANDOM_FILE)


def restore_random(checkpoint: Path) -> None:
    torch.set_rng_state(torch.load(checkpoint / RANDOM_FILE, weights_only=True))


def write_state(checkpoint: Path, hil: Config, state: dict[str, Any]) -> None:
    """Our part of a checkpoint, with what it was made by; `read_state` reads it."""
    state = {"version": VERSION, "config": hil.to_dict(), **state}
    (checkpoint / STATE_FILE).write_text(json.dumps(state, indent=1))


def newest_checkpoint(run_dir: Path) -> Path | None:
    """That of a run's checkpoints which saw most steps or updates: Tune numbers every session's from 0."""

    def progress(file: Path) -> tuple[int, int, float]:
        state = json.loads(file.read_text())
        return state.get("env_steps", 0), state.get("updates", 0), file.stat().st_mtime

    states = list(run_dir.glob(f"*/checkpoint_*/{STATE_FILE}"))
    return max(states, key=progress).parent if states else None


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Our part of a checkpoint folder, version checked."""
    file = checkpoint / STATE_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{checkpoint} is not a checkpoint of this project: it has no {STATE_FILE}.")
    state = json.loads(file.read_text())
    if state.get("version") != VERSION:
        raise ValueError(
            f"{file} has version {state.get('version')}, this program reads {VERSION}. "
            "Use the release that wrote it, or begin a new run."
        )
    return state


def replay_folder(checkpoint: Path, state: dict[str, Any]) -> Path:
    """Where the shards lie: in the run's folder, also if that was moved, else where they were written."""
    beside = checkpoint.parent.parent / "replay"
    return beside if beside.is_dir() else Path(state["replay"])
