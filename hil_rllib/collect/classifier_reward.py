"""Reward and end of an episode by a classifier of camera frames, in place of the env's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from hil_rllib.collect.encode import shared_encoder
from hil_rllib.collect.own_end import OwnEndHidden
from hil_rllib.contract import CLASSIFIED, SUCCESS_PROBABILITY
from hil_rllib.models.success import SuccessHead

State = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class ClassifierSpec:
    """A trained classifier as it travels to the runners.

    sizes: arguments of `SuccessHead`; state: its tensors. weights, seed: of its encoder. consecutive: frames
    in a row that it must call success. precision: wanted of its threshold. frames: the file of features and
    labels it was made from, if there is one.
    """

    sizes: dict[str, Any]
    state: State
    weights: str
    seed: int
    consecutive: int = 1
    precision: float = 0.98
    frames: str | None = None


class SuccessClassifier:
    """Observations → calibrated probability of success; the frozen encoder is this process's one."""

    def __init__(self, spec: ClassifierSpec) -> None:
        with torch.random.fork_rng(devices=[]):  # its initialisation is overwritten
            self.head = SuccessHead(**spec.sizes).eval().requires_grad_(False)
        self.encoder = shared_encoder(spec.weights, spec.seed)
        self.load(spec.state)

    def load(self, state: State) -> None:
        """Take over weights, calibration and threshold."""
        self.head.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})

    @property
    def threshold(self) -> float:
        return float(self.head.threshold)

    @torch.inference_mode()
    def __call__(self, obs: Mapping[str, Any]) -> NDArray[np.float32]:
        """(B,) of observations in a batch, or () of one, with pixels, or features of the same encoder."""
        features = obs["features"] if "features" in obs else self.encoder(dict(obs))["features"]
        maps = {camera: torch.from_numpy(np.asarray(rows)) for camera, rows in features.items()}
        single = next(iter(maps.values())).ndim == 3
        if single:
            maps = {camera: rows[None] for camera, rows in maps.items()}
        found = self.head.probability(maps).numpy()
        return found[0] if single else found


class ClassifierRewardWrapper(gymnasium.Wrapper):
    """Reward 1 and the end come when the classifier has called `consecutive` frames in a row success.

    What the env itself thinks neither rewards nor ends an episode; it stays in info["succeed"], for whoever
    measures. `info` also tells the probability, and whether the classifier ended the episode. A time limit
    below still truncates; an operator's verdict, above, outweighs all.

    newest: asked at each reset for a newer state of the classifier, or None; must not block.
    """

    STATE: ClassVar[tuple[str, ...]] = ("_in_row",)

    def __init__(
        self,
        env: gymnasium.Env,
        classifier: SuccessClassifier,
        consecutive: int = 1,
        newest: Callable[[], State | None] | None = None,
    ) -> None:
        if consecutive < 1:
            raise ValueError(f"consecutive must be at least 1 frame, got {consecutive}.")
        super().__init__(OwnEndHidden(env))
        self.classifier = classifier
        self._consecutive, self._newest = consecutive, newest
        self._in_row = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        self._in_row = 0
        if self._newest is not None and (state := self._newest()) is not None:
            self.classifier.load(state)
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, _, _, truncated, info = self.env.step(action)
        probability = float(self.classifier(observation))
        self._in_row = self._in_row + 1 if probability >= self.classifier.threshold else 0
        solved = self._in_row >= self._consecutive
        info = {**info, CLASSIFIED: solved, SUCCESS_PROBABILITY: probability}
        return observation, float(solved), solved, truncated and not solved, info
