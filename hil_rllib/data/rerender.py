"""Demonstrations with the observations of a replay, and the cache of replays on disk.

The replay is exact to hundredths of a millimetre, so it gives what a file lacks: the reset and the final
observation, the cube's position, and frames drawn as the run itself draws them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import uuid
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import envs
from hil_rllib.data.demo import Demo, Recording, end_flags
from hil_rllib.data.env_replay import NOT_FROM_RESET, EnvSpec, Replay, make_replay_env, replay
from hil_rllib.data.lerobot_reader import LeRobotDataset

logger = logging.getLogger(__name__)

CACHE_VERSION = "1"  # raise when the frames' layout on disk changes
# Of an episode's median. The real set stays below 0.011 mm; a single step in which the fingers touch
# something may be off by a millimetre and recover (1.1 mm at most there).
TCP_TOLERANCE_MM = 1.0
CUBE_TOLERANCE_MM = 5.0  # of all rows; ours: a cube that slips or stays is off by centimetres


def replayed_demos(
    recordings: list[Recording], spec: EnvSpec, *, cache: Path, render: bool, log: logging.Logger
) -> tuple[list[Demo], dict[int, str]]:
    """Demos with T = N transitions, and for each episode left out the reason.

    render: with frames. cache: a file that holds the replays of an earlier call, or will hold these.
    """
    replays = _load(cache, log) or _replay_all(recordings, spec, cache, render, log)
    demos: list[Demo] = []
    excluded: dict[int, str] = {}
    for recording in recordings:
        result = replays[recording.episode_index]
        if reason := mismatch(recording, result):
            excluded[recording.episode_index] = reason
            log.warning("Demonstration %d is left out: %s.", recording.episode_index, reason)
        else:
            demos.append(_demo(recording, result))
    return demos, excluded


def mismatch(recording: Recording, result: Replay) -> str | None:
    """How the replay departs from the recording, or None where it does not."""
    if len(result.rewards) < len(recording):
        reason = f"the environment ends it after {len(result.rewards)} of {len(recording)} actions"
    elif result.tcp_error_mm_median > TCP_TOLERANCE_MM:
        reason = f"the replay is off by {result.tcp_error_mm_median:.2f} mm (median TCP error)"
    elif recording.success and result.end_frame is None and not overruled(recording, result):
        reason = "it succeeded when recorded and does not when replayed"
    else:
        return None
    return reason if result.from_reset else f"{reason}, and {NOT_FROM_RESET}"


def overruled(recording: Recording, result: Replay) -> bool:
    """Whether the file's end and last reward hold, not the environment's: a person ended the episode.

    Only where the file knows the cube and the replay moved it alike; else the replay itself may have failed.
    """
    cube = recording.environment_state
    if cube is None or not recording.terminated or len(result.rewards) < len(recording):
        return False
    other = recording.success is not None and recording.success != (result.end_frame is not None)
    if result.terminated and not other:
        return False
    off = np.linalg.norm(result.environment_state - cube, axis=1)
    return bool(np.nanmax(off) * 1e3 <= CUBE_TOLERANCE_MM)


def cache_key(dataset: LeRobotDataset, recordings: list[Recording], spec: EnvSpec, render: bool) -> str:
    """Changes with the dataset's contents, how they were read, and the environment's arguments and code."""
    ignored = {"image_obs"} if render else {"image_obs", "render_quality"}
    kwargs = {key: value for key, value in spec.kwargs.items() if key not in ignored}
    indices = [recording.episode_index for recording in recordings]
    digest = hashlib.sha256(
        json.dumps([CACHE_VERSION, spec.id, kwargs, indices, render], sort_keys=True).encode()
    )
    files = [dataset.root / "meta" / "info.json", *sorted({meta.data_path for meta in dataset.episodes})]
    files += sorted(Path(envs.__file__).parent.glob("*.py"))
    for file in files:
        digest.update(file.read_bytes())
    for recording in recordings:  # files alone do not tell: features are mapped, conventions decided
        start = np.float64(recording.start_gripper)
        for part in (start, recording.actions, recording.agent_pos, recording.environment_state):
            digest.update(b"none" if part is None else part.tobytes())
        if recording.dropped_action is not None:
            digest.update(recording.dropped_action.tobytes())
    return digest.hexdigest()[:16]


def _demo(recording: Recording, result: Replay) -> Demo:
    terminated, truncated = end_flags(len(recording), result.terminated or recording.terminated)
    rewards = result.rewards
    if overruled(recording, result):
        rewards = np.append(rewards[:-1], recording.rewards[-1:])
    return Demo(
        episode_index=recording.episode_index,
        agent_pos=result.agent_pos,
        environment_state=result.environment_state,
        frames=result.frames,
        actions=recording.actions,
        rewards=rewards,
        penalties=result.penalties,
        interventions=recording.interventions,
        terminated=terminated,
        truncated=truncated,
        recording=recording,
    )


def _replay_all(
    recordings: list[Recording], spec: EnvSpec, cache: Path, render: bool, log: logging.Logger
) -> dict[int, Replay]:
    rows = sum(len(recording) + 1 for recording in recordings)
    log.info(
        "Replaying %d demonstrations%s.",
        len(recordings),
        f" and drawing {rows} observations" if render else "",
    )
    began = time.monotonic()
    replays = {}
    env = make_replay_env(spec, recordings)
    try:
        for recording in recordings:
            replays[recording.episode_index] = replay(env, recording, render=render)
            if len(replays) % 10 == 0:
                log.info(
                    "Replayed %d of %d in %.0f s.", len(replays), len(recordings), time.monotonic() - began
                )
    finally:
        env.close()
    _store(cache, replays, log)
    return replays


# On disk each replay is a group of arrays, `<episode>/<field>`, with `<episode>/frames/<camera>`.


def _store(path: Path, replays: dict[int, Replay], log: logging.Logger) -> None:
    arrays: dict[str, Any] = {}
    for index, result in replays.items():
        fields = {**vars(result), "end_frame": -1 if result.end_frame is None else result.end_frame}
        frames = fields.pop("frames") or {}
        fields |= {f"frames/{camera}": rows for camera, rows in frames.items()}
        arrays |= {f"{index}/{name}": value for name, value in fields.items()}
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")  # of this call, as others may write it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        temporary.replace(path)
    except OSError as error:
        log.warning("Cannot keep the replays in %s (%s); the next run repeats them.", path, error)
    finally:
        temporary.unlink(missing_ok=True)


def _load(path: Path, log: logging.Logger) -> dict[int, Replay] | None:
    if not path.exists():
        return None
    groups: dict[int, dict[str, Any]] = {}
    try:
        with np.load(path) as file:
            for key in file.files:
                index, name = key.split("/", 1)
                groups.setdefault(int(index), {})[name] = file[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        log.warning("The replays kept in %s cannot be read (%s); they are repeated.", path, error)
        return None
    log.info("Replays of %d demonstrations from the cache in %s.", len(groups), path)
    return {index: _to_replay(fields) for index, fields in groups.items()}


def _to_replay(fields: dict[str, Any]) -> Replay:
    frames = {name.split("/")[1]: fields.pop(name) for name in list(fields) if name.startswith("frames/")}
    end_frame, terminated = int(fields.pop("end_frame")), bool(fields.pop("terminated"))
    return Replay(
        **fields, frames=frames or None, terminated=terminated, end_frame=None if end_frame < 0 else end_frame
    )
