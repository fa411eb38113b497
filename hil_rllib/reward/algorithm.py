"""RLlib's BC on labelled frames: instead of acting, the classifier is held against unseen episodes."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.bc import BC

from hil_rllib.models.calibration import choose_threshold, fit_scale_and_shift, scores
from hil_rllib.offline.algorithm import OfflineRun
from hil_rllib.reward.config import HILRewardConfig
from hil_rllib.reward.data import Part
from hil_rllib.reward.report import draw_curve, draw_mistakes
from hil_rllib.sac.checkpoint import read_state
from hil_rllib.sac.classifier import CLASSIFIER, FRAMES_FILE, THRESHOLD

logger = logging.getLogger(__name__)

CURVE_FILE, MISTAKES_FILE, TEST_FILE = "precision_recall.png", "mistakes.png", "held_out_frames.json"
KEPT = 1000  # frames of training that a refit goes on from
KEPT_CALIBRATION = 4000  # and of calibration at most; 33 kB each
ROWS = 512  # frames judged at once
NEVER = 2.0  # the threshold of weights that have none: nothing is called success


class HILReward(OfflineRun, BC):
    """Binary success from both cameras. An evaluation calibrates on some episodes and tests on others."""

    @classmethod
    def get_default_config(cls) -> HILRewardConfig:
        return HILRewardConfig()

    def begin(self) -> None:
        """There is no policy to prepare, and nobody to act."""
        self._result: dict[str, Any] = {}  # of the last evaluation
        self._folder = Path(self.hil.run.dir)

    def save_to_path(self, path: Any = None, **kwargs: Any) -> str:
        """With the frames that a refit goes on from, beside the checkpoints.

        Runners take its calibration and threshold, so these are made for the weights that it holds.
        """
        if self._result.get("at_updates") != self.updates:
            self.evaluate_greedily()
        file = self._folder / FRAMES_FILE
        if not file.exists():
            unfinished = file.with_suffix(".partial.npz")
            np.savez(unfinished, **self.offline_data.keepsake(KEPT, KEPT_CALIBRATION))
            unfinished.replace(file)
        return super().save_to_path(path, **kwargs)

    def average(self) -> None:
        """The last weights are those that count."""

    def evaluate_greedily(self) -> None:
        """Calibrate, test, and draw what a person wants to look at."""
        calibration, test = (self.offline_data.parts[name] for name in ("calibration", "test"))
        head = self._policy.head
        head.set_calibration(1.0, 0.0, 0.5)
        logits = self.logits(calibration)
        scale, shift = fit_scale_and_shift(logits, calibration.labels)
        probabilities = sigmoid(scale * logits + shift)
        tested = sigmoid(scale * self.logits(test) + shift)
        try:
            threshold = choose_threshold(probabilities, calibration.labels, self.hil.reward.precision)
        except ValueError as error:  # later weights may reach it
            logger.warning("No classifier after %d updates yet. %s", self.updates, error)
            head.set_calibration(scale, shift, NEVER)
            self._result = {THRESHOLD: None, "reason": str(error), "at_updates": self.updates}
            draw_curve(self._folder / CURVE_FILE, tested, test.labels, NEVER)
            return
        head.set_calibration(scale, shift, threshold)
        result = scores(tested >= threshold, test.labels)
        on_calibration = scores(probabilities >= threshold, calibration.labels)
        self._result = {
            **asdict(result),  # on the test's episodes
            THRESHOLD: threshold,
            "calibration_f1": on_calibration.f1,
            "calibration_precision": on_calibration.precision,
            "at_updates": self.updates,
        }
        draw_curve(self._folder / CURVE_FILE, tested, test.labels, threshold)
        draw_mistakes(self._folder / MISTAKES_FILE, test, tested, threshold)
        rows = [
            {"dataset": where[0], "episode": where[1], "frame": where[2], "label": label, "probability": p}
            for where, label, p in zip(test.where, test.labels.tolist(), tested.tolist(), strict=True)
        ]
        (self._folder / TEST_FILE).write_text(json.dumps(rows))

    @torch.no_grad()
    def logits(self, part: Part) -> NDArray[np.float64]:
        """Of every frame of the part, raw (N,)."""
        head = self._policy.eval().head
        found = []
        for first in range(0, len(part), ROWS):
            rows = {c: torch.from_numpy(maps[first : first + ROWS]) for c, maps in part.features.items()}
            found.append(head({c: maps.to(head.shift.device) for c, maps in rows.items()}).cpu())
        return torch.cat(found).double().numpy()

    def step(self) -> dict[str, Any]:
        result = super().step()
        if self._result:
            result[CLASSIFIER] = dict(self._result)
        return result

    def state_of_run(self) -> dict[str, Any]:
        return super().state_of_run() | {CLASSIFIER: self._result}

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        super().restore_from_path(path, *args, **kwargs)
        self._result = read_state(Path(path)).get(CLASSIFIER, {})

    def transitions(self) -> int:
        return len(self.offline_data.train)


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))
