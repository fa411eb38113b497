"""A group of remote env runners, made as the config it was given says."""

from __future__ import annotations

from typing import Any

from ray.rllib.env.env_runner_group import EnvRunnerGroup


class RunnerGroup(EnvRunnerGroup):
    """RLlib's group, but each runner's config travels with the order to start it.

    RLlib puts the config into the object store. Ray then warns at every start that a runner may not come
    back, should the object be lost; inline it cannot be lost.
    """

    def _make_worker(self, **arguments: Any) -> Any:
        return super()._make_worker(**{**arguments, "config": self._remote_config})
