"""`run.init_from`: the policy of an earlier run, whichever algorithm trained it, to begin with."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from ray.rllib.utils.torch_utils import convert_to_torch_tensor

from hil_rllib.config import Config, ConfigError
from hil_rllib.sac.checkpoint import read_state
from hil_rllib.sac.checkpoint_files import MODULE_FILE, find_checkpoint
from hil_rllib.sac.module import AveragedModule, acting_part

# What a policy's shape depends on: ACT's, and that of all others.
ACT_SIZES = ("chunk", "width", "heads", "feedforward", "latent", "encoder_layers", "decoder_layers")
POLICY_KEYS = {
    "ACT's": tuple(f"act.{name}" for name in ACT_SIZES),
    "an actor and a gripper's head": ("encoder.latent_dim", "sac.hidden"),
}
BASE_CAMERA_KEYS = ("encoder.frozen", "encoder.weights")  # of a policy that another corrects
CAMERA_KEYS = ("encoder.frozen", "encoder.embeddings_per_channel", "encoder.weights")


def find_policy(where: str) -> Path:
    """The checkpoint that a checkpoint's or a run's folder stands for. Raises ConfigError."""
    try:
        return find_checkpoint(Path(where).expanduser().resolve())
    except FileNotFoundError as error:
        raise ConfigError(f"run.init_from: {error}") from None


def check_policy(where: str, config: Config) -> Path:
    """The checkpoint, if a run of `config` can begin with its policy. Raises ConfigError."""
    checkpoint = find_policy(where)
    try:
        before = read_state(checkpoint)["config"]
    except ValueError as error:
        raise ConfigError(f"run.init_from: {error}") from None
    if before["run"].get("algorithm") == "reward":
        raise ConfigError(f"run.init_from: {checkpoint} is a classifier of success, not a policy.")
    now = config.to_dict()
    was, here = _network(before), _network(now)
    residual = config.sac.residual
    if _value(before, "sac.residual"):
        raise ConfigError(
            f"run.init_from: the policy in {checkpoint} only corrects another. Resume its run, or begin with "
            "that other one."
        )
    if was != here and not residual:
        raise ConfigError(
            f"run.init_from: the network in {checkpoint} is {was}, run.algorithm '{config.run.algorithm}' "
            f"trains {here}. ACT's go on with act and dagger, those of bc, iql and sac with each other. With "
            "sac.residual=true SAC can correct either."
        )
    shape, cameras = ((), BASE_CAMERA_KEYS) if residual else (POLICY_KEYS[here], CAMERA_KEYS)
    keys = ["env.image_obs", *shape, *(cameras if config.env.image_obs else ())]
    if config.env.image_obs and not config.encoder.frozen:
        keys.remove("encoder.weights")  # they come with the policy
    elif config.env.image_obs and config.encoder.weights == "random":
        keys.append("run.seed")  # which draws them
    differences = [
        f"{key} was {_value(before, key)!r}, here it is {_value(now, key)!r}"
        for key in keys
        if _value(before, key) != _value(now, key)
    ]
    if differences:
        raise ConfigError(
            f"run.init_from: the policy in {checkpoint} does not fit: {'; '.join(differences)}. "
            "Give this run its values, or train a policy with these."
        )
    if not (checkpoint / MODULE_FILE).is_file():
        raise ConfigError(f"run.init_from: {checkpoint} is not whole, {MODULE_FILE} is missing.")
    return checkpoint


def load_policy(module: AveragedModule, checkpoint: Path) -> None:
    """Take over what acts; critics, values and temperature stay, targets of what changed follow.

    Raises ValueError where tensors do not fit.
    """
    with (checkpoint / MODULE_FILE).open("rb") as file:  # as RLlib reads it when a run is resumed
        tensors = acting_part(pickle.load(file), module.acting)
    own = {k: tuple(v.shape) for k, v in module.state_dict().items() if k.split(".")[0] in module.acting}
    there = {k: tuple(v.shape) for k, v in tensors.items()}
    unfit = sorted(k for k in own.keys() | there.keys() if own.get(k) != there.get(k))
    if unfit:
        first = unfit[0]
        raise ValueError(
            f"run.init_from: {len(unfit)} tensors of the policy in {checkpoint} do not fit, such as {first}: "
            f"{there.get(first)} there, {own.get(first)} here. Its environment observes something else."
        )
    module.load_state_dict(convert_to_torch_tensor(tensors), strict=False)
    for online, target in module.get_target_network_pairs():
        target.load_state_dict(online.state_dict())


def _network(config: dict[str, Any]) -> str:
    """A key of `POLICY_KEYS`: what a run of this configuration trains."""
    algorithm = config["run"].get("algorithm", "sac")
    policy = config["dagger"]["policy"] if algorithm == "dagger" else algorithm
    act, other = POLICY_KEYS
    return act if policy == "act" else other


def _value(config: dict[str, Any], key: str) -> Any:
    section, name = key.split(".")
    return config[section].get(name)
