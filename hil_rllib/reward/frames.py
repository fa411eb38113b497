"""Frames of LeRobot datasets with a label each, and their split by episode."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil_rllib.contract import CAMERAS, IMAGE_SIZE
from hil_rllib.data import lerobot_format as fmt
from hil_rllib.data.demo import Demo
from hil_rllib.data.demos import load_demos, positions
from hil_rllib.data.lerobot_format import DatasetError, DatasetInfo
from hil_rllib.data.lerobot_reader import open_dataset
from hil_rllib.data.video import Frames

logger = logging.getLogger(__name__)

PARTS = ("train", "calibration", "test")


@dataclass
class LabelledEpisode:
    """N frames of both cameras, uint8 (N, H, W, 3) each, and which of them show success, bool (N,)."""

    dataset: str
    index: int
    frames: dict[str, Frames]
    labels: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)


def load_labelled(source: str, demo_options: Mapping[str, Any]) -> list[LabelledEpisode]:
    """Episodes of a dataset (hub id, local folder, or what else `load_demos` takes) with their labels.

    A dataset recorded with labels says of each row what its own images show. In others, the reward of a step
    says it of the observation that follows: a recorded one where the file has it, see `repair.to_demo`.

    demo_options: keyword arguments of `load_demos`. Raises DatasetError, `hub.HubUnreachable`.
    """
    names = demo_options.get("features")
    if has_labels(source, names):
        dataset = open_dataset(source, features=names)
        chosen = positions(dataset, demo_options.get("episodes"))
        found = [
            LabelledEpisode(
                dataset.root.name, e.meta.index, e.frames, np.ravel(e.column(fmt.LABEL)).astype(bool)
            )
            for e in dataset.read(chosen, frames=True, cameras=CAMERAS, size=(IMAGE_SIZE, IMAGE_SIZE))
        ]
    else:
        demos = load_demos(source, **demo_options)
        found = [_by_rewards(demo, demos.source.name) for demo in demos.demos]
    frames, positives = sum(map(len, found)), sum(int(episode.labels.sum()) for episode in found)
    logger.info("Labelled frames of %s: %d, of which %d show success.", source, frames, positives)
    return found


def has_labels(source: str, names: Mapping[str, str] | None = None) -> bool:
    """Whether this is a folder of a dataset with labels of its own. names: see `lerobot_format.renamed`."""
    return Path(source).is_dir() and fmt.LABEL in DatasetInfo.load(Path(source), names).features


def _by_rewards(demo: Demo, dataset: str) -> LabelledEpisode:
    """Observation t + 1 shows success where step t was rewarded. A last one that repeats is left out."""
    assert demo.frames is not None
    if not np.isin(demo.rewards, (0.0, 1.0)).all():
        raise DatasetError(
            dataset,
            f"episode {demo.episode_index} has rewards of {demo.rewards.min():g} to {demo.rewards.max():g}; "
            "which frames show success is read off rewards of 0 and 1.",
            "Record a set with labels: python -m hil_rllib.record OUT --label.",
        )
    labels = np.append(False, demo.rewards > 0)
    kept = len(labels) - (not demo.end_seen)
    frames = {camera: rows[:kept] for camera, rows in demo.frames.items()}
    return LabelledEpisode(dataset, demo.episode_index, frames, labels[:kept])


def split(
    episodes: Sequence[LabelledEpisode], held_out: float, seed: int
) -> dict[str, list[LabelledEpisode]]:
    """By episode, never by frame: neighbouring frames are nearly the same.

    Of each dataset, of its episodes with success and of those without, the fraction `held_out` goes to the
    test and as much to the calibration, rounded. Raises ValueError where a part would have no success or no
    failure.
    """
    rng = np.random.default_rng(seed)
    parts: dict[str, list[LabelledEpisode]] = {name: [] for name in PARTS}
    kinds: dict[tuple[str, bool], list[LabelledEpisode]] = {}
    for episode in episodes:
        kinds.setdefault((episode.dataset, bool(episode.labels.any())), []).append(episode)
    for kind in sorted(kinds):
        order = rng.permutation(len(kinds[kind]))
        count = round(held_out * len(order))
        for name, chosen in zip(
            PARTS, np.split(order, [len(order) - 2 * count, len(order) - count]), strict=True
        ):
            parts[name] += [kinds[kind][i] for i in chosen]
    for name, part in parts.items():
        labels = np.concatenate([episode.labels for episode in part]) if part else np.zeros(0, bool)
        if not labels.any() or labels.all():
            what = "success" if not labels.any() else "failure"
            have = sum(bool(episode.labels.any()) for episode in episodes)
            raise ValueError(
                f"The {name} part has no frame of {what}: of {len(episodes)} episodes {have} show success at "
                "some frame. A classifier needs both, in several episodes: record more with "
                "`python -m hil_rllib.record OUT --label --episodes N`. A file that lacks the observation "
                "after the last action shows its success only with demos.frames=rerendered."
            )
    return parts
