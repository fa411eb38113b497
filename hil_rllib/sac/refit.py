"""`reward.refit_every_episodes`: the classifier goes on learning from what operators say of final frames.

When an operator ends an episode as success or failure, its last observation becomes a labelled frame; so
does, as a failure, that of an episode which the classifier ended and the operator appeals against. Every so
many of them a process of its own trains the classifier on, with these and frames it was made from, and
chooses its threshold anew; runners take it over at a reset.

Verdicts are a person's: each goes to a journal beside the replay's as it is given. Whoever learns from them
can be killed and begins again from all of them.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayError
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from torch.nn import functional as F

from hil_rllib.collect.classifier_reward import ClassifierSpec, State, SuccessClassifier
from hil_rllib.config import Config, ConfigError
from hil_rllib.contract import CAMERAS, VERDICT
from hil_rllib.data.journal import Journal
from hil_rllib.data.journal_format import Record
from hil_rllib.data.replay import stacked
from hil_rllib.models.calibration import choose_threshold, fit_scale_and_shift
from hil_rllib.sac.classifier import FRAMES_FILE, read_classifier, same_encoder

if TYPE_CHECKING:
    from hil_rllib.sac.config import HILSACConfig

logger = logging.getLogger(__name__)

NICENESS = 19  # everything else on the machine goes first
UPDATES, BATCH, LEARNING_RATE = 100, 64, 1e-4  # of one refit; ours: two seconds of a core
ROWS = 512  # frames judged at once
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
        self._version = self._verdicts = 0

    def refit(self, features: list[Maps], labels: list[bool]) -> None:
        """Go on with all frames (each camera (512, 4, 4)) and labels that there are from operators."""
        judged = {camera: np.stack([maps[camera] for maps in features]) for camera in CAMERAS}
        said = np.array(labels)
        self._verdicts = len(labels)
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
        self._version = len(labels)

    @torch.no_grad()
    def _calibrate(self, judged: Maps, said: NDArray[np.bool_]) -> None:
        """On the frames set aside for it, and on the operator's, which a threshold must not contradict."""
        aside = ~self._base["train"]
        labels = np.concatenate([self._base["labels"][aside], said])
        maps = {c: torch.from_numpy(np.concatenate([self._base[c][aside], judged[c]])) for c in CAMERAS}
        self._head.eval()
        starts = range(0, len(labels), ROWS)
        logits = [self._head({c: m[i : i + ROWS] for c, m in maps.items()}).double() for i in starts]
        scores = torch.cat(logits).numpy()
        scale, shift = fit_scale_and_shift(scores, labels)
        probabilities = 1 / (1 + np.exp(-(scale * scores + shift)))
        threshold = choose_threshold(probabilities, labels, self._precision)
        self._head.set_calibration(scale, shift, threshold)

    def newest(self, version: int) -> tuple[int, State] | None:
        """The classifier's state and its version, if it is newer than `version`: the verdicts it learned."""
        if self._version <= version:
            return None
        return self._version, {name: value.numpy().copy() for name, value in self._head.state_dict().items()}

    def get_state(self) -> dict[str, NDArray[Any]]:
        """What a checkpoint keeps. verdicts: looked at, of which the last may have been of no use."""
        state = {f"head.{name}": value.numpy().copy() for name, value in self._head.state_dict().items()}
        return {**state, "verdicts": np.array(self._verdicts), "version": np.array(self._version)}

    def set_state(self, state: dict[str, NDArray[Any]]) -> None:
        head = {
            name.removeprefix("head."): value for name, value in state.items() if name.startswith("head.")
        }
        self._head.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in head.items()})
        self._verdicts, self._version = int(state["verdicts"]), int(state["version"])

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


class Refits:
    """The learner's side: keeps verdicts, orders refits without waiting for them."""

    def __init__(self, config: HILSACConfig) -> None:
        self._every = config.hil.reward.refit_every_episodes or 1
        self._features: list[Maps] = []  # of all verdicts, as their labels
        self._labels: list[bool] = []
        self._ordered = 0  # of these, given to the actor
        self._journal = Journal(Path(config.hil.run.dir) / "replay", "verdicts")
        actor = ray.remote(num_cpus=0, max_restarts=-1, name=config.refitter)(Refitter)
        self.actor = actor.remote(config.classifier, config.hil.run.seed)

    @property
    def verdicts(self) -> int:
        """Of all operators, in the run's lifetime."""
        return len(self._labels)

    def add(self, fragment: SingleAgentEpisode, refuted: SingleAgentEpisode | None = None) -> None:
        """Look at an operator's fragment. refuted: the end of an episode that it says was no success."""
        if refuted is not None:
            self._label(refuted, False)
        if fragment.is_done and VERDICT in (last := fragment.get_infos(-1)):
            self._label(fragment, bool(last[VERDICT]))

    def _label(self, fragment: SingleAgentEpisode, success: bool) -> None:
        maps = stacked(fragment.get_observations(slice(-1, None)))["features"]
        self._keep({camera: np.array(maps[camera][-1]) for camera in CAMERAS}, success)
        self._order_if_due()

    def _keep(self, features: Maps, success: bool) -> None:
        self._features.append(features)
        self._labels.append(success)
        self._journal.append({"success": success}, features)

    def _order_if_due(self) -> None:
        if self.verdicts - self._ordered >= self._every:
            self._ordered = self.verdicts
            self.actor.refit.remote(self._features, self._labels)

    def recover(self, checkpoint: Path | None = None) -> None:
        """Take over the verdicts on disk, each once, and the classifier of a checkpoint.

        The run's folder must be this process's own, see `Experience.claim`.
        """
        self._journal.close()
        self._features, self._labels, self._ordered = [], [], 0

        def take(record: Record) -> None:
            self._features.append({camera: np.array(maps) for camera, maps in record.arrays.items()})
            self._labels.append(record.meta["success"])

        for what in self._journal.recover(take):
            logger.warning("%s", what)
        saved = checkpoint / SAVED if checkpoint else None
        if saved is not None and saved.is_file():  # it is not while the actor was gone
            with np.load(saved) as file:
                state = dict(file)
            if "labels" in state:  # of an earlier release, which kept verdicts here
                labels = state["labels"].tolist()
                for i in range(self.verdicts, len(labels)):
                    self._keep({camera: state[camera][i] for camera in CAMERAS}, labels[i])
                state["verdicts"] = state["version"] = np.array(len(labels))
            self._ordered = int(state["verdicts"])
            if self.verdicts < self._ordered:
                missing = f"{self._ordered - self.verdicts} of {self._ordered} verdicts are gone"
                logger.warning("%s: %s; the classifier keeps what it learned from them.", saved, missing)
                self._ordered = self.verdicts
            ray.get(self.actor.set_state.remote(state))
        self._order_if_due()

    def save(self, checkpoint: Path) -> None:
        """Without the classifier while its process is gone: who resumes from there has it made again."""
        self._journal.wait_safe()
        try:
            state = ray.get(self.actor.get_state.remote())
        except RayActorError:
            state = None
        if state is None or state["verdicts"] < self._ordered:  # Ray has started it again
            logger.warning("The process that refits was lost; it learns from all verdicts again.")
            self._ordered = 0
            self._order_if_due()
        else:
            np.savez(checkpoint / SAVED, **state)

    def close(self) -> None:
        ray.kill(self.actor)
        self._journal.close()


class Newest:
    """What a runner's wrapper asks at each reset: the answer to its last question; it never waits."""

    def __init__(self, actor: str) -> None:
        self._actor = ray.get_actor(actor)
        self._version = 0
        self._asked = self._ask()

    def __call__(self) -> State | None:
        if not ray.wait([self._asked], timeout=0)[0]:
            return None
        try:
            answer = ray.get(self._asked)
        except RayError:  # its process is gone, and may come back: what the runner has goes on
            self._asked = self._ask()
            return None
        if answer is not None:
            self._version = answer[0]
        self._asked = self._ask()
        return None if answer is None else answer[1]

    def _ask(self) -> ray.ObjectRef:
        return self._actor.newest.remote(self._version)
