"""Demonstrations for a run, from the hub, a folder or a script, as its own environment would show them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from envs.scene import cache_dir as default_cache_dir
from hil_rllib import contract
from hil_rllib.data import hub, scripted_demos
from hil_rllib.data.alignment import AlignmentReport, align
from hil_rllib.data.demo import Demo
from hil_rllib.data.env_replay import EnvSpec, make_replay_env
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.lerobot_reader import LeRobotDataset, open_dataset
from hil_rllib.data.rerender import cache_key, replayed_demos

logger = logging.getLogger(__name__)

SCRIPTED = "scripted"  # a source that is no dataset: record the expert
MIN_REPLAYED = 0.5  # of the episodes; fewer mean that the environment is not the one they were recorded in


@dataclass
class DemoSet:
    """Demos ready for learning. source: the dataset's folder. excluded: episode → reason."""

    demos: list[Demo]
    report: AlignmentReport
    source: Path
    scripted: bool
    excluded: dict[int, str] = field(default_factory=dict)

    @property
    def transitions(self) -> int:
        return sum(map(len, self.demos))

    @property
    def by_hand(self) -> int:
        """How many of them are a person's."""
        return sum(int((demo.interventions > 0).sum()) for demo in self.demos)

    def __str__(self) -> str:
        kind = "scripted" if self.scripted else "recorded"
        left_out = f", {len(self.excluded)} episodes left out" if self.excluded else ""
        by_whom = "" if self.by_hand == self.transitions else f", {self.by_hand} of them by a person"
        counts = f"{len(self.demos)} {kind} demonstrations, {self.transitions} transitions{by_whom}"
        return f"{counts}{left_out} ({self.source})"


def load_demos(
    source: str,
    *,
    env: EnvSpec | Mapping[str, Any],
    image_obs: bool,
    frames: Literal["recorded", "rerendered"] = "recorded",
    fallback: Literal["none", "scripted"] = "none",
    fallback_episodes: int = 30,
    episodes: int | Sequence[int] | None = None,
    seed: int = 0,
    cache_dir: Path | None = None,
    hub_timeout_s: float = hub.DEFAULT_TIMEOUT_S,
    revision: str | None = None,
    features: Mapping[str, str] | None = None,
    log: logging.Logger = logger,
) -> DemoSet:
    """Reads, aligns and completes demonstrations.

    Args:
        source: hub id (owner/name), local folder, or "scripted".
        env: the run's environment, an `EnvSpec` or {"id": …, "kwargs": {…}}.
        image_obs: frames (agent_pos and pixels) or state (agent_pos and environment_state).
        frames: recorded: decoded from the videos. rerendered: every episode is replayed in `env` and drawn at
            its render quality, reset and final observation included. Without images an episode is replayed
            where the file does not know the cube's position.
        fallback: what to do where the hub cannot be reached: fail, or record scripted demonstrations.
        fallback_episodes: how many of those (also for source "scripted").
        episodes: the first N, these, or all.
        seed: of the scripted demonstrations.
        revision: branch, tag or commit of a dataset on the hub.
        features: the dataset's names of features → ours, such as {"observation.images.top": "front"}.
        cache_dir: for datasets, scripted demonstrations and drawn frames; None: the user's cache folders.

    Raises:
        hub.HubUnreachable: and no fallback allowed.
        DatasetError: the dataset cannot be used, or most of its episodes do not replay.
        ValueError: `env` is not one to replay in, or to record a script in.
    """
    spec = env if isinstance(env, EnvSpec) else EnvSpec(env["id"], dict(env.get("kwargs", {})))
    cache = cache_dir or default_cache_dir()
    draw = image_obs and frames == "rerendered"
    decode = image_obs and not draw

    def record() -> LeRobotDataset:
        return open_dataset(
            str(
                scripted_demos.recorded(
                    spec, episodes=fallback_episodes, seed=seed, cameras=decode, cache_dir=cache, log=log
                )
            )
        )

    if draw:
        make_replay_env(spec, []).close()  # before anything is recorded or fetched
    scripted = source == SCRIPTED
    if scripted:
        dataset = record()
    else:
        try:
            hub_cache = cache_dir and cache_dir / "hub"
            dataset = open_dataset(source, hub_cache, hub_timeout_s, revision=revision, features=features)
        except hub.HubUnreachable as error:
            if fallback != SCRIPTED:
                raise hub.HubUnreachable(
                    f"{error} Or set demos.fallback=scripted, to record an expert."
                ) from error
            scripted = True
            log.warning(
                "%s\nRecording %d scripted demonstrations instead, as demos.fallback allows.",
                error,
                fallback_episodes,
            )
            dataset = record()
    chosen = positions(dataset, episodes)
    if decode:
        _check_frames(dataset)
    demos, report = align(
        dataset,
        episodes=chosen,
        frames=decode,
        cameras=contract.CAMERAS,
        image_size=contract.IMAGE_SIZE,
        step_size=spec.step_size,
    )
    excluded: dict[int, str] = {}
    if draw or (not image_obs and any(demo.environment_state is None for demo in demos)):
        recordings = [demo.recording for demo in demos if demo.recording is not None]
        stored = cache / "replays" / f"{cache_key(dataset, recordings, spec, draw)}.npz"
        demos, excluded = replayed_demos(recordings, spec, cache=stored, render=draw, log=log)
        if len(demos) < MIN_REPLAYED * len(recordings):
            index, reason = next(iter(excluded.items()))
            share = f"{len(demos)} of {len(recordings)}"
            problem = f"only {share} episodes replay in {spec.id}; episode {index}: {reason}."
            raise DatasetError(
                dataset.root,
                problem,
                "Use demos.frames=recorded with env.image_obs=true, or an "
                "environment like the one it was recorded in.",
            )
    elif spec.kwargs.get("reward_type", "sparse") != "sparse":
        log.warning(
            "Demonstrations keep the rewards of their file, while env.reward_type is '%s'; demos.frames="
            "rerendered computes them anew.",
            spec.kwargs["reward_type"],
        )
    for demo in demos:  # as the environment shows it: either pixels or the cube's position
        if image_obs:
            demo.environment_state = None
        else:
            demo.frames = None
    result = DemoSet(demos, report, dataset.root, scripted, excluded)
    log.info("Demonstrations: %s.", result)
    if not any(demo.rewards.any() for demo in demos):
        log.warning("No demonstration is rewarded: none shows what success is.")
    if not result.by_hand:
        log.warning(
            "No step of the demonstrations is a person's: SAC learns values from them, and clones none."
        )
    return result


def positions(dataset: LeRobotDataset, episodes: int | Sequence[int] | None) -> Sequence[int] | None:
    """Of the first N episodes, or of these; None: all."""
    return range(min(episodes, len(dataset))) if isinstance(episodes, int) else episodes


def _check_frames(dataset: LeRobotDataset) -> None:
    where = dataset.root / "meta" / "info.json"
    missing = set(contract.CAMERAS) - set(dataset.cameras)
    if missing:
        raise DatasetError(
            where,
            f"no camera {sorted(missing)}; it has {list(dataset.cameras)}.",
            "Map its names to ours with demos.features=[observation.images.top=front], set "
            "demos.frames=rerendered to draw them, or env.image_obs=false.",
        )


def module_actions(demo: Demo) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(T, 4) in the policy's own space [-1, 1]: motion, and the gripper's value minus one."""
    actions = demo.actions.copy()
    actions[:, contract.MOTION_DIM] -= float(contract.Gripper.HOLD)
    return actions
