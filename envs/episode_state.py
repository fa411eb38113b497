"""An env in the middle of an episode as plain values, wrappers and random state included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

# What Gymnasium's own wrappers count. Others say it themselves: a class attribute `STATE`, () where nothing
# changes from step to step.
_STATE: dict[type, tuple[str, ...]] = {
    TimeLimit: ("_elapsed_steps",),
    OrderEnforcing: ("_has_reset",),
    PassiveEnvChecker: (),
}


def env_state(env: gymnasium.Env) -> dict[str, Any]:
    """What `set_env_state` continues from, in this or another env that was made alike.

    Raises TypeError where a part of the env does not tell its state.
    """
    base: Any = env.unwrapped
    if not hasattr(base, "get_state"):
        raise TypeError(
            f"{type(base).__name__} cannot be saved in mid-episode: it has no get_state/set_state."
        )
    layers = [[getattr(layer, name) for name in names] for layer, names in _layers(env)]
    return {"layers": layers, "base": base.get_state(), "random": base.np_random.bit_generator.state}


def set_env_state(env: gymnasium.Env, state: dict[str, Any]) -> None:
    """Continue from `env_state`; the env need not have been reset."""
    for (layer, names), values in zip(_layers(env), state["layers"], strict=True):
        for name, value in zip(names, values, strict=True):
            setattr(layer, name, value)
    base: Any = env.unwrapped
    base.set_state(state["base"])
    base.np_random.bit_generator.state = state["random"]


def _layers(env: gymnasium.Env) -> Iterator[tuple[gymnasium.Wrapper, tuple[str, ...]]]:
    while isinstance(env, gymnasium.Wrapper):
        names = _STATE.get(type(env), getattr(type(env), "STATE", None))
        if names is None:
            raise TypeError(
                f"{type(env).__name__} cannot be saved in mid-episode: give it STATE, the names of its "
                "attributes that change from step to step, () if none does."
            )
        yield env, names
        env = env.env
