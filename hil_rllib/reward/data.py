"""Labelled frames as RLlib's offline data: encoded once, drawn half and half."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.offline.offline_data import OfflineData
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from envs.scene import cache_dir
from hil_rllib.collect.encode import FrameEncoder
from hil_rllib.contract import CAMERAS
from hil_rllib.data.video import Frames
from hil_rllib.models.encoder import load_encoder
from hil_rllib.reward.frames import LabelledEpisode, load_labelled, split

if TYPE_CHECKING:
    from hil_rllib.reward.config import HILRewardConfig

Features = dict[str, NDArray[np.float16]]  # camera → (N, 512, 4, 4)


@dataclass
class Part:
    """The frames of some episodes. where: (dataset, episode, frame) of each; frames: only where kept."""

    features: Features
    labels: NDArray[np.bool_]
    where: list[tuple[str, int, int]]
    frames: dict[str, Frames] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


class LabelledFrames(OfflineData):
    """Frames of the config's datasets in three parts; RLlib draws from `train`.

    A batch holds as many successes as failures, whatever their number. Frames are neither shifted nor
    brightened: whether the cube is high enough is a matter of one pixel, and to light the frozen encoder has
    been made indifferent already.
    """

    by_hand = 0  # steps of a person's; whose frames these are says nothing

    def __init__(self, config: HILRewardConfig) -> None:
        """Raises DatasetError, `hub.HubUnreachable`, ValueError; see `load_labelled` and `split`."""
        # Not super().__init__: it opens the path with Ray Data.
        self.config, self.path = config, config.input_
        self.is_multi_agent = False
        self.iter_batches_kwargs = self.default_iter_batches_kwargs | config.iter_batches_kwargs
        self.spaces: dict[str, Any] = {}
        self.module_spec: Any = None
        self.learner_handles: list[Any] | None = None
        self.locality_hints: list[Any] | None = None
        hil = config.hil
        self.rng = np.random.default_rng(hil.run.seed)
        encoder = CachedEncoder(hil.encoder.weights, hil.run.seed, cache_dir() / "features")
        of_demos = config.input_read_method_kwargs
        of_others = of_demos | {"episodes": None, "features": None, "revision": None}
        episodes = [
            episode
            for source in config.input_
            for episode in load_labelled(source, of_demos if source == hil.demos.source else of_others)
        ]
        parts = split(episodes, hil.reward.held_out, hil.run.seed)
        self.parts = {name: encode(part, encoder) for name, part in parts.items()}
        self.train = self.parts["train"]
        for name in ("train", "calibration"):  # their pictures are not looked at again
            self.parts[name].frames = {}
        self._successes, self._failures = (
            np.flatnonzero(self.train.labels),
            np.flatnonzero(~self.train.labels),
        )

    def sample(
        self,
        num_samples: int,
        return_iterator: bool = False,
        num_shards: int = 0,
        module_state: dict[str, Any] | None = None,
    ) -> MultiAgentBatch:
        """`num_samples` frames and labels, half of them successes, for one learner in this process."""
        if return_iterator or num_shards > 1:
            raise ValueError("LabelledFrames feeds one local learner, a batch an update. Set num_learners=0.")
        half = num_samples // 2
        rows = np.concatenate(
            [self.rng.choice(self._successes, half), self.rng.choice(self._failures, num_samples - half)]
        )
        batch = {
            Columns.OBS: {"features": {camera: maps[rows] for camera, maps in self.train.features.items()}},
            Columns.ACTIONS: self.train.labels[rows].astype(np.int64),
        }
        return MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(batch)}, env_steps=num_samples)

    def keepsake(self, train: int, calibration: int) -> dict[str, NDArray[Any]]:
        """Up to so many frames of either part, by camera, with `labels` and whether they are of `train`.

        Half of those of training are successes, if there are so many. Those of calibration are drawn whatever
        they show: among fewer failures than there are a threshold would look too precise.
        """
        columns: dict[str, list[NDArray[Any]]] = {name: [] for name in (*CAMERAS, "labels", "train")}
        halves = [self.rng.permutation(rows)[: train // 2] for rows in (self._successes, self._failures)]
        any_of = self.rng.permutation(len(self.parts["calibration"]))[:calibration]
        for name, chosen in (("train", np.concatenate(halves)), ("calibration", any_of)):
            part = self.parts[name]
            for camera in CAMERAS:
                columns[camera].append(part.features[camera][chosen])
            columns["labels"].append(part.labels[chosen])
            columns["train"].append(np.full(len(chosen), name == "train"))
        return {name: np.concatenate(parts) for name, parts in columns.items()}


class CachedEncoder:
    """Features of whole episodes, kept on disk: encoding takes minutes where learning takes seconds.

    A file's name tells the frames and the encoder's weights, so it is never out of date.
    """

    def __init__(self, weights: str, seed: int, folder: Path) -> None:
        self._encoder, self._folder = FrameEncoder(weights, seed), folder
        digest = hashlib.blake2b()
        for tensor in load_encoder(weights, seed=seed).state_dict().values():  # packed ones are no state
            digest.update(tensor.numpy().tobytes())
        self._weights = digest.digest()

    def __call__(self, frames: dict[str, Frames]) -> Features:
        """camera → uint8 (N, H, W, 3) to camera → float16 (N, 512, 4, 4)."""
        digest = hashlib.blake2b(self._weights, digest_size=16)
        for camera in CAMERAS:
            digest.update(frames[camera].tobytes())
        file = self._folder / f"{digest.hexdigest()}.npz"
        unreadable = contextlib.suppress(OSError, ValueError, EOFError, zipfile.BadZipFile)
        with unreadable, np.load(file) as stored:
            return {camera: stored[camera] for camera in CAMERAS}
        features: dict[str, Any] = self._encoder({"pixels": frames})["features"]
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.stem}.{os.getpid()}.npz")
        np.savez(temporary, **features)
        temporary.replace(file)
        return features


def encode(episodes: list[LabelledEpisode], encoder: CachedEncoder) -> Part:
    """The episodes' frames by the frozen encoder."""
    features = [encoder(episode.frames) for episode in episodes]
    return Part(
        {camera: np.concatenate([f[camera] for f in features]) for camera in CAMERAS},
        np.concatenate([episode.labels for episode in episodes]),
        [(episode.dataset, episode.index, t) for episode in episodes for t in range(len(episode))],
        {camera: np.concatenate([episode.frames[camera] for episode in episodes]) for camera in CAMERAS},
    )
