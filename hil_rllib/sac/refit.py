"""`reward.refit_every_episodes`: the classifier goes on learning from what operators say of final frames.

When an operator ends an episode as success or failure, its last observation becomes a labelled frame; so
does, as a failure, that of an episode which the classifier ended and the operator appeals against. Every so
many of them a process of its own trains the classifier on, with these and frames it was made from, and
chooses its threshold anew; runners take it over at a reset. The reward that an appeal is about is taken back
in the replay; all others stay as they were given.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import RayError
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from torch.nn import functional as F

from hil_rllib.collect.classifier_reward import ClassifierSpec, State, SuccessClassifier
from hil_rllib.config import Config, ConfigError
from hil_rllib.contract import APPEAL, CAMERAS, CLASSIFIED, RERECORD, VERDICT
from hil_rllib.data.replay import stacked
from hil_rllib.models.calibration import choose_threshold, fit_scale_and_shift
from hil_rllib.sac.classifier import FRAMES_FILE, read_classifier, same_encoder

if TYPE_CHECKING:
    from hil_rllib.sac.config import HILSACConfig

logger = logging.getLogger(__name__)

NICENESS = 19  # everything else on the machine goes first
UPDATES, BATCH, LEARNING_RATE = 100, 64, 1e-4  # of one refit; ours: two seconds of a core
SAVED = "refit.npz"  # in a checkpoint

Maps = dict[str, NDArray[np.float16]]  # camera → (N, 512, 4, 4)


def check_refit(hil: Config) -> None:
    """Raises ConfigError where a run cannot refit its classifier."""
    if hil.reward.refit_every_episodes is None:
        return
    assert hil.reward.classifier is not None, "config's own rules"
    spec = read_classifier(hil.reward.classifier)
    if not same_encoder(spec, hil):
        raise ConfigError(
            "reward.refit_every_episodes learns from the features that runners send, so the policy's "
            f"encoder must be the classifier's: encoder.weights={spec.weights}, encoder.frozen=true."
        )
    if spec.frames is None:
        raise ConfigError(
            f"reward.refit_every_episodes: {hil.reward.classifier} has no {FRAMES_FILE}, the frames to go on "
            "from. Train it again, and name the run's folder."
        )


class Refitter:
    """A Ray actor: the classifier, the frames it was made from, and those the operator has judged since."""

    def __init__(self, spec: ClassifierSpec, seed: int) -> None:
        os.nice(NICENESS - os.nice(0))
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        self._rng = np.random.default_rng(seed)
        self._head = SuccessClassifier(spec).head.requires_grad_(True)
        assert spec.frames is not None
        with np.load(spec.frames) as stored:
            self._base = dict(stored)
        self._precision = spec.precision
        self._judged: tuple[list[Maps], list[bool]] = ([], [])
        self._version = 0

    def refit(self, features: list[Maps], labels: list[bool]) -> None:
        """Go on with these frames (each camera (512, 4, 4)) and labels beside all before."""
        self._judged[0].extend(features)
        self._judged[1].extend(labels)
        judged = {camera: np.stack([maps[camera] for maps in self._judged[0]]) for camera in CAMERAS}
        said = np.array(self._judged[1])
        before = {name: value.clone() for name, value in self._head.state_dict().items()}
        optimizer = torch.optim.Adam(self._head.parameters(), lr=LEARNING_RATE)
        self._head.train()
        for _ in range(UPDATES):
            batch, target = self._batch(judged, said)
            loss = F.binary_cross_entropy_with_logits(self._head(batch), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        try:
            self._calibrate(judged, said)
        except ValueError as error:  # the verdicts contradict each other, say: what there was goes on
            logger.warning("The reward classifier stays as it was after %d verdicts. %s", len(said), error)
            self._head.load_state_dict(before)
            return
        self._version += 1

    @torch.no_grad()
    def _calibrate(self, judged: Maps, said: NDArray[np.bool_]) -> None:
        """On the frames set aside for it, and on the operator's, which a threshold must not contradict."""
        aside = ~self._base["train"]
        labels = np.concatenate([self._base["labels"][aside], said])
        maps = {c: torch.from_numpy(np.concatenate([self._base[c][aside], judged[c]])) for c in CAMERAS}
        self._head.eval()
        logits = self._head(maps).double().numpy()
        scale, shift = fit_scale_and_shift(logits, labels)
        probabilities = 1 / (1 + np.exp(-(scale * logits + shift)))
        threshold = choose_threshold(probabilities, labels, self._precision)
        self._head.set_calibration(scale, shift, threshold)

    def newest(self, version: int) -> tuple[int, State] | None:
        """The classifier's state and its version, if it is newer than `version`."""
        if self._version <= version:
            return None
        return self._version, {name: value.numpy().copy() for name, value in self._head.state_dict().items()}

    def get_state(self) -> dict[str, NDArray[Any]]:
        """What a checkpoint keeps."""
        state = {f"head.{name}": value.numpy().copy() for name, value in self._head.state_dict().items()}
        for camera in CAMERAS:
            maps = [judged[camera] for judged in self._judged[0]]
            state[camera] = np.stack(maps) if maps else np.zeros((0, 512, 4, 4), np.float16)
        return {**state, "labels": np.array(self._judged[1], bool), "version": np.array(self._version)}

    def set_state(self, state: dict[str, NDArray[Any]]) -> None:
        head = {
            name.removeprefix("head."): value for name, value in state.items() if name.startswith("head.")
        }
        self._head.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in head.items()})
        count = len(state["labels"])
        frames = [{camera: state[camera][i] for camera in CAMERAS} for i in range(count)]
        self._judged = (frames, state["labels"].tolist())
        self._version = int(state["version"])

    def _batch(self, judged: Maps, said: NDArray[np.bool_]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Half of the operator's frames, half of those before; of these as many successes as failures."""
        labels, train = self._base["labels"], self._base["train"]
        new = self._rng.integers(0, len(said), BATCH // 2)
        kinds = [np.flatnonzero(train & (labels == kind)) for kind in (False, True)]
        old = np.concatenate([self._rng.choice(rows, BATCH // 4) for rows in kinds])
        batch = {
            camera: torch.from_numpy(np.concatenate([judged[camera][new], self._base[camera][old]]))
            for camera in CAMERAS
        }
        return batch, torch.from_numpy(np.concatenate([said[new], labels[old]])).float()


@dataclass
class _Claim:
    """A final frame that the classifier called success, and of which episode."""

    features: Maps
    episode_id: str


class Refits:
    """The learner's side: collects verdicts, orders refits without waiting for them."""

    def __init__(self, config: HILSACConfig) -> None:
        self.verdicts = 0
        self._every = config.hil.reward.refit_every_episodes or 1
        self._features: list[Maps] = []
        self._labels: list[bool] = []
        self._claims: dict[str, _Claim] = {}  # operator → the last episode that the classifier ended for them
        actor = ray.remote(num_cpus=0, name=config.refitter)(Refitter)
        self.actor = actor.remote(config.classifier, config.hil.run.seed)

    def add(self, operator: str, episode: SingleAgentEpisode, withdraw: Callable[[str], None]) -> None:
        """Look at an operator's fragment. withdraw: takes back the reward at the end of a stored episode."""
        if any(APPEAL in info for info in episode.get_infos()[1:]) and operator in self._claims:
            claim = self._claims.pop(operator)
            withdraw(claim.episode_id)
            self._label(claim.features, False)
        if not episode.is_done:
            return
        self._claims.pop(operator, None)
        last = episode.get_infos(-1)
        maps = stacked(episode.get_observations(slice(-1, None)))["features"]
        features = {camera: np.array(maps[camera][-1]) for camera in CAMERAS}
        if VERDICT in last:
            self._label(features, bool(last[VERDICT]))
        elif last.get(CLASSIFIED) and not last.get(RERECORD):
            self._claims[operator] = _Claim(features, str(episode.id_))

    def _label(self, features: Maps, success: bool) -> None:
        self._features.append(features)
        self._labels.append(success)
        self.verdicts += 1
        if len(self._labels) >= self._every:
            self.actor.refit.remote(self._features, self._labels)
            self._features, self._labels = [], []

    def save(self, checkpoint: Path) -> None:
        np.savez(checkpoint / SAVED, **ray.get(self.actor.get_state.remote()))

    def restore(self, checkpoint: Path) -> None:
        with np.load(checkpoint / SAVED) as file:
            ray.get(self.actor.set_state.remote(dict(file)))


class Newest:
    """What a runner's wrapper asks at each reset: the answer to its last question; it never waits."""

    def __init__(self, actor: str) -> None:
        self._actor = ray.get_actor(actor)
        self._version = 0
        self._asked: ray.ObjectRef | None = self._ask()

    def __call__(self) -> State | None:
        if self._asked is None or not ray.wait([self._asked], timeout=0)[0]:
            return None
        try:
            answer = ray.get(self._asked)
        except RayError:  # its process is gone: what the runner has goes on
            self._asked = None
            return None
        if answer is not None:
            self._version = answer[0]
        self._asked = self._ask()
        return None if answer is None else answer[1]

    def _ask(self) -> ray.ObjectRef:
        return self._actor.newest.remote(self._version)
