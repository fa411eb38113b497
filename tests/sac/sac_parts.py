"""Small networks and made-up batches for the tests beside this file."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from hil_rllib.collect.encode import encoded_space
from hil_rllib.contract import (
    ACTION_DIM,
    AGENT_POS_DIM,
    CAMERAS,
    DISCRETE_PENALTY,
    IMAGE_SIZE,
    IS_INTERVENTION,
    MOTION_DIM,
)
from hil_rllib.sac.module import HILSACModule

ACTIONS = gym.spaces.Box(np.array([-1, -1, -1, 0], np.float32), np.array([1, 1, 1, 2], np.float32))
_AGENT = gym.spaces.Box(-np.inf, np.inf, (AGENT_POS_DIM,), np.float32)
_FRAME = gym.spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
PIXELS = gym.spaces.Dict({"agent_pos": _AGENT, "pixels": gym.spaces.Dict(dict.fromkeys(CAMERAS, _FRAME))})
SPACES = {
    "state": gym.spaces.Dict(
        {"agent_pos": _AGENT, "environment_state": gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)}
    ),
    "pixels": PIXELS,
    "features": encoded_space(PIXELS),
}
MODEL = {
    "latent_dim": 16,
    "embeddings_per_channel": 2,
    "dropout": 0.1,
    "weights": "random",
    "seed": 0,
    "hidden": (32, 32),
    "num_critics": 2,
    "initial_temperature": 0.01,
}


def make_module(
    kind: str = "state", *, inference_only: bool = False, seed: int = 0, **model: Any
) -> HILSACModule:
    """A module as the learner (with its targets) or a runner has it, of the given observations."""
    torch.manual_seed(seed)
    module = RLModuleSpec(
        module_class=HILSACModule,
        observation_space=SPACES[kind],
        action_space=ACTIONS,
        inference_only=inference_only,
        model_config=MODEL | model,
    ).build()
    if not inference_only:
        module.make_target_networks()
        module.train()
        for _, target in module.get_target_network_pairs():
            target.eval()
    return module


def make_obs(kind: str, size: int, seed: int = 0) -> dict[str, Any]:
    """Random observations, (size, …) tensors."""
    rng = np.random.default_rng(seed)

    def draw(space: gym.Space) -> Any:
        if isinstance(space, gym.spaces.Dict):
            return {name: draw(part) for name, part in space.spaces.items()}
        if space.dtype == np.uint8:
            return torch.from_numpy(rng.integers(0, 256, (size, *space.shape), np.uint8))
        return torch.from_numpy(rng.normal(size=(size, *space.shape)).astype(space.dtype))

    return draw(SPACES[kind])


def make_batch(kind: str = "state", size: int = 32, seed: int = 0) -> dict[str, Any]:
    """A batch in the layout of the rings: random, with terminations, rewards and penalties."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (size, ACTION_DIM)).astype(np.float32)
    actions[:, MOTION_DIM] = rng.integers(-1, 2, size)
    columns = {
        Columns.ACTIONS: actions,
        Columns.REWARDS: rng.random(size, np.float32),
        Columns.TERMINATEDS: rng.random(size) < 0.2,
        DISCRETE_PENALTY: -0.02 * (rng.random(size) < 0.3).astype(np.float32),
        IS_INTERVENTION: np.ones(size, np.float32),
    }
    batch = {name: torch.from_numpy(column) for name, column in columns.items()}
    obs = {Columns.OBS: make_obs(kind, size, seed), Columns.NEXT_OBS: make_obs(kind, size, seed + 1)}
    return batch | obs


def parameters(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every parameter and buffer by name."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Names of what differs."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}
