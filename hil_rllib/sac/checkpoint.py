"""What a checkpoint holds beside RLlib's own state: place in the journals, counters, runners, random state.

RLlib saves networks, targets, temperature (a module parameter) and optimisers. What was lived through is in
the run's folder, `replay/`, written as it happens; a checkpoint only says where in it the run was. So its
cost does not grow with the rings.
"""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import torch

from hil_rllib.collect.collector import Collector
from hil_rllib.collect.snapshot import runner_state, set_runner_state
from hil_rllib.collect.statistics import Evaluations, Statistics
from hil_rllib.config import CONFIG_FILE, Config
from hil_rllib.data import replay_v1
from hil_rllib.data.experience import REMEDY, Experience
from hil_rllib.data.journal import Journal, sync_folder
from hil_rllib.data.journal_format import check_header

if TYPE_CHECKING:
    from hil_rllib.sac.algorithm import HILSAC

logger = logging.getLogger(__name__)

VERSION = 2  # 1: rings as shards of rows, no runners' state
STATE_FILE = "hil_state.json"
RANDOM_FILE = "hil_torch_random.pt"
RUNNERS_FILE = "hil_runners.pkl"  # lockstep: pickled, as RLlib's own files are
FILES = "files"  # in the state: {path: [bytes, crc32]} of all others, so that half a copy is known as such
COUNTERS = ("updates", "pushes", "_since_metrics", "_learner_metrics")


def save_run(algorithm: HILSAC, checkpoint: Path) -> None:
    """Add our part to a checkpoint that RLlib has just written."""
    algorithm.cursor = algorithm.experience.cursor()
    save_random(checkpoint)
    recorded: dict[str, int] = {}  # episodes in each dataset
    if algorithm.lockstep:
        groups = {g.name: dict(g.runners.results_of_all(runner_state)) for g in algorithm.collector.groups}
        (checkpoint / RUNNERS_FILE).write_bytes(pickle.dumps(groups))
        recorded = {name: ray.get(writer.count.remote()) for name, writer in algorithm.writers.items()}
    state: dict[str, Any] = {
        "journals": algorithm.cursor,
        "kept": [*algorithm.cursors, algorithm.cursor],  # once it is stored
        "sampler": algorithm.mix.rng.bit_generator.state,
        "statistics": algorithm.stats.get_state(),
        "evaluations": asdict(algorithm.evaluations),
        "env_steps": algorithm.env_steps,
        "recorded": recorded,
        "skips": algorithm.skips.get_state(),
        **{name: getattr(algorithm, name) for name in COUNTERS},
    }
    write_state(checkpoint, algorithm.hil, state)


def restore_run(algorithm: HILSAC, checkpoint: Path) -> None:
    """Take over our part of a checkpoint.

    In lockstep everything is as it was, and what came after is cut off: it will come again. Otherwise what
    was stored after the checkpoint stays, and new episodes begin.
    Raises FileNotFoundError or ValueError where something that is needed is missing or of another version.
    """
    state = read_state(checkpoint)
    if state["version"] == 1:
        _restore_rings_of_v1(algorithm, checkpoint, state)
    else:
        bring_journals(algorithm.experience.folder, checkpoint)
        algorithm.experience.recover(state["journals"], exact=algorithm.lockstep)
        algorithm.cursors.extend(state["kept"])
    algorithm.mix.rng.bit_generator.state = state["sampler"]
    algorithm.stats.set_state(state["statistics"])
    algorithm.evaluations = Evaluations.restored(state, algorithm.hil.stop.success)
    algorithm.skips.set_state(state.get("skips", {}))
    for name in COUNTERS:
        if name in state:
            setattr(algorithm, name, state[name])
    runners = checkpoint / RUNNERS_FILE
    if algorithm.lockstep and runners.is_file():
        algorithm.collector.await_all()
        for group in algorithm.collector.groups:
            snapshots = pickle.loads(runners.read_bytes())[group.name]
            group.runners.results_of_all(partial(_set_own_state, states=snapshots))
        keep_recorded(algorithm, state.get("recorded", {}))
    else:
        continued(algorithm.stats, algorithm.experience, algorithm.collector)
    restore_random(checkpoint)


def continued(stats: Statistics, experience: Experience, collector: Collector) -> None:
    """A run goes on without its runners' state: they begin new episodes, not those of its beginning again."""
    stats.set_totals(experience.note)
    stats.forget_running()
    collector.goes_on = True


def keep_recorded(algorithm: HILSAC, counts: Mapping[str, int]) -> None:
    """Take the recorded datasets back to so many episodes; what came after will come again."""
    for name in algorithm.writers.keys() & counts.keys():
        ray.get(algorithm.writers[name].keep.remote(counts[name]))


def save_random(checkpoint: Path) -> None:
    """Torch's random state, of the GPUs too."""
    state = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
    content = io.BytesIO()
    torch.save(state, content)  # to a file it would tell of a full disk by a RuntimeError
    (checkpoint / RANDOM_FILE).write_bytes(content.getvalue())


def restore_random(checkpoint: Path) -> None:
    state = torch.load(checkpoint / RANDOM_FILE, weights_only=True)
    if isinstance(state, torch.Tensor):  # version 1
        state = {"cpu": state, "cuda": []}
    torch.set_rng_state(state["cpu"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def write_state(checkpoint: Path, hil: Config, state: dict[str, Any]) -> None:
    """Our part of a checkpoint, with what it was made by; written last and at once. `read_state` reads it."""
    files = {str(file.relative_to(checkpoint)): _fingerprint(file) for file in _files(checkpoint)}
    state = {"version": VERSION, "config": hil.to_dict(), **state, FILES: files}
    unfinished = checkpoint / f"{STATE_FILE}.partial"
    with unfinished.open("w") as stream:
        json.dump(state, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(checkpoint / STATE_FILE)
    sync_folder(checkpoint)


def run_folder(checkpoint: Path) -> Path:
    """The folder of a checkpoint's run: two above it, in a sweep's trial one."""
    folder = checkpoint.resolve().parent
    return folder if (folder / CONFIG_FILE).is_file() else folder.parent


def newest_checkpoint(run_dir: Path) -> Path | None:
    """That of a run's whole checkpoints which saw most steps or updates; None without one.

    Tune numbers every session's from 0. One that was being copied when the run was killed is passed over. Of
    a run under way one may go meanwhile, because there is a newer one.
    """

    def progress(found: tuple[Path, dict[str, Any], float]) -> tuple[int, int, float]:
        _, state, modified = found
        return state.get("env_steps", 0), state.get("updates", 0), modified

    found: list[tuple[Path, dict[str, Any], float]] = []
    files = [*run_dir.glob(f"checkpoint_*/{STATE_FILE}"), *run_dir.glob(f"*/checkpoint_*/{STATE_FILE}")]
    for file in files:
        above = file.parent.parent
        if above != run_dir and (above / CONFIG_FILE).is_file():
            continue  # of a trial, and this is the sweep
        try:
            found.append((file, json.loads(file.read_text()), file.stat().st_mtime))
        except FileNotFoundError:
            return newest_checkpoint(run_dir)
        except ValueError:
            logger.warning("%s is not whole; passing it over.", file.parent)
    for file, state, _ in sorted(found, key=progress, reverse=True):
        broken = broken_files(file.parent, state)
        if not broken:
            return file.parent
        if not file.exists():
            return newest_checkpoint(run_dir)
        logger.warning("%s is not whole (%s); passing it over.", file.parent, broken[0])
    return None


def broken_files(checkpoint: Path, state: dict[str, Any]) -> list[str]:
    """Names of files that are not as they were written."""
    return [
        name
        for name, fingerprint in state.get(FILES, {}).items()
        if _fingerprint(checkpoint / name) != fingerprint
    ]


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Our part of a checkpoint folder, version checked; version 1 is read too."""
    file = checkpoint / STATE_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{checkpoint} is not a checkpoint of this project: it has no {STATE_FILE}.")
    state = json.loads(file.read_text())
    if state.get("version") not in (1, VERSION):
        raise ValueError(
            f"{file} has version {state.get('version')}, this program reads 1 and {VERSION}. "
            "Use the release that wrote it, or begin a new run."
        )
    return state


def replay_folder(checkpoint: Path) -> Path:
    """Where the journals lie: in the folder of the checkpoint's run."""
    return run_folder(checkpoint) / "replay"


def check_journals(folder: Path, checkpoint: Path | None) -> None:
    """Raises ValueError where a run cannot go on from here, as far as versions and names of files tell."""
    for file in folder.glob("*.journal"):
        check_header(file)
    for name, at in (read_state(checkpoint).get("journals", {}) if checkpoint else {}).items():
        if at["records"] and not Journal(folder, name).segments():
            raise ValueError(
                f"{folder}: the checkpoint saw {at['records']} records of the {name} ring, none are there. "
                f"{REMEDY}"
            )


def bring_journals(folder: Path, checkpoint: Path) -> None:
    """Copy the journals where a run goes on from another run's checkpoint."""
    source = replay_folder(checkpoint)
    if source.resolve() != folder.resolve() and not list(folder.glob("*.journal")):
        for file in source.glob("*.journal"):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, folder / file.name)


def _restore_rings_of_v1(algorithm: HILSAC, checkpoint: Path, state: dict[str, Any]) -> None:
    """Rewrite the rings' shards as journals; from then on the run is one of this version.

    Once only: journals that are complete hold, in async mode, what came after too.
    """
    folder, experience = replay_folder(checkpoint), algorithm.experience
    folder = folder if folder.is_dir() else Path(state["replay"])
    if experience.recover(exact=algorithm.lockstep):
        return
    experience.clear()
    for part in replay_v1.fragments(folder, "demo", state["rings"]["demo"], algorithm.demo.capacity):
        experience.add_demo(part)
    note = {name: state["statistics"][name] for name in ("human_steps", "episodes")}
    online = list(replay_v1.fragments(folder, "online", state["rings"]["online"], algorithm.online.capacity))
    experience.env_steps = state["env_steps"] - sum(map(len, online))
    for part in online:
        experience.add(part, note, kind="online")
    experience.cursor()  # waits until all is safe on disk
    experience.begin()
    experience.cursor()
    logger.warning("%s is of version 1: its rings were rewritten, new episodes begin.", checkpoint)


def _set_own_state(runner: Any, states: dict[int, dict[str, Any]]) -> None:
    set_runner_state(runner, states[runner.worker_index])


def _files(checkpoint: Path) -> list[Path]:
    return sorted(file for file in checkpoint.rglob("*") if file.is_file() and file.name != STATE_FILE)


def _fingerprint(file: Path) -> list[int] | None:
    """None where there is no such file."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    return [len(content), zlib.crc32(content)]
