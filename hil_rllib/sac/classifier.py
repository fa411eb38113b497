"""`reward.classifier`: what a reward run learned, for the runners of a SAC run and for its demonstrations."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.core.columns import Columns

from hil_rllib.collect.classifier_reward import ClassifierSpec, SuccessClassifier
from hil_rllib.config import Config, ConfigError
from hil_rllib.data.replay import Fragment
from hil_rllib.sac.checkpoint import STATE_FILE, newest_checkpoint, read_state, run_folder
from hil_rllib.sac.checkpoint_files import MODULE_FILE

FRAMES_FILE = "frames.npz"  # in a reward run's folder: features and labels to go on from
CLASSIFIER, THRESHOLD = "classifier", "threshold"  # in a reward run's results and checkpoints: how it does
HEAD = "head."  # where the classifier's module has its tensors


def find_classifier(where: str) -> Path:
    """The checkpoint that a checkpoint's or a run's folder stands for. Raises ConfigError."""
    path = Path(where).expanduser().resolve()
    checkpoint: Path | None = path if (path / STATE_FILE).is_file() else None
    if checkpoint is None and path.is_dir():
        checkpoint = newest_checkpoint(path)
    if checkpoint is None:
        what = "has no checkpoint in it" if path.is_dir() else "is no folder"
        raise ConfigError(
            f"reward.classifier: {path} {what}. Train one: python -m hil_rllib.train "
            "tuned_configs/panda_reward.yaml; then name its run.dir."
        )
    try:
        state = read_state(checkpoint)
    except ValueError as error:
        raise ConfigError(f"reward.classifier: {error}") from None
    kind = state["config"]["run"].get("algorithm", "sac")
    if kind != "reward":
        raise ConfigError(f"reward.classifier: {checkpoint} is of a run of '{kind}', not of 'reward'.")
    if not (checkpoint / MODULE_FILE).is_file():
        raise ConfigError(f"reward.classifier: {checkpoint} is not whole, {MODULE_FILE} is missing.")
    result = state.get(CLASSIFIER, {})  # earlier versions wrote none; theirs have a threshold
    if result.get(THRESHOLD, 0.5) is None:
        raise ConfigError(f"reward.classifier: {checkpoint} has no threshold. {result['reason']}")
    return checkpoint


def read_classifier(where: str, consecutive: int = 1) -> ClassifierSpec:
    """The classifier of a run or checkpoint. Raises ConfigError, see `find_classifier`."""
    checkpoint = find_classifier(where)
    with (checkpoint / MODULE_FILE).open("rb") as file:  # as RLlib reads it when a run is resumed
        state = {name: np.asarray(value) for name, value in pickle.load(file).items()}
    config = read_state(checkpoint)["config"]
    frames = run_folder(checkpoint) / FRAMES_FILE
    return ClassifierSpec(
        sizes=head_sizes(config),
        state={name.removeprefix(HEAD): value for name, value in state.items() if name.startswith(HEAD)},
        weights=config["encoder"]["weights"],
        seed=config["run"]["seed"],
        consecutive=consecutive,
        precision=config["reward"]["precision"],
        frames=str(frames) if frames.is_file() else None,
    )


def head_sizes(config: dict[str, Any]) -> dict[str, Any]:
    """`SuccessHead`'s arguments, of a config as plain values."""
    encoder = config["encoder"]
    return {
        "latent_dim": encoder["latent_dim"],
        "per_channel": encoder["embeddings_per_channel"],
        "dropout": encoder["dropout"],
        "hidden": config["reward"]["hidden"],
    }


def same_encoder(spec: ClassifierSpec, hil: Config) -> bool:
    """Whether the policy's features are the classifier's too."""
    same = hil.encoder.frozen and hil.encoder.weights == spec.weights
    return same and (spec.weights != "random" or hil.run.seed == spec.seed)


def judged(fragment: Fragment, classifier: SuccessClassifier, *, end_seen: bool = True) -> Fragment:
    """A demonstration as the classifier rewards it: up to the first frame it calls success.

    One frame is enough here, as demonstrations end with their first. Where it finds none, nothing is
    rewarded, and the demonstration's end counts as a time limit. end_seen: whether there is a frame of what
    the last action led to; else its own reward tells.
    """
    called = classifier(fragment.obs)[1:] >= classifier.threshold
    if not end_seen:
        called[-1] = fragment.steps[Columns.REWARDS][-1] > 0
    length = int(np.argmax(called)) + 1 if called.any() else len(fragment)
    part = fragment[:length]
    ends = np.zeros(length, np.bool_)
    ends[-1] = called.any()
    steps = {**part.steps, Columns.REWARDS: ends.astype(np.float32), Columns.TERMINATEDS: ends}
    return replace(part, steps=steps)
