"""A person's action in place of the policy's, marked as such.

Module-to-env connector. RLlib puts it after the actions have become one numpy item per env and before
`NormalizeAndClipActions`, so what it writes is in module space [-1, 1], and both the env (unsquashed) and
the episode (as is) get the person's action. The log-probability, if any, stays the policy's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.numpy import convert_to_numpy

from hil_rllib.collect.pacing import OperatorWrapper
from hil_rllib.contract import IS_INTERVENTION, Command, EpisodeEnd
from hil_rllib.devices import InterventionMode, TeleopDevice, check_device, device_class, make_device
from hil_rllib.devices.guard import RETRY_S, DeviceGuard


class InterventionConnector(ConnectorV2):
    """Writes the operator's action over the policy's, and `is_intervention` beside every step.

    Without a device it only writes zeros, so that all runners' episodes have the same columns. With one,
    the device drives the first env of the vector env; the others get zeros.

    env: the runner's vector env, its first env wrapped in `OperatorWrapper`; needed with a device.
    device: owned from here on: started now, closed with the env.
    mode: who is in charge; None takes the device's trigger at its word.
    """

    def __init__(
        self,
        input_observation_space: gymnasium.Space | None = None,
        input_action_space: gymnasium.Space | None = None,
        *,
        env: gymnasium.vector.VectorEnv | None = None,
        device: TeleopDevice | None = None,
        mode: InterventionMode | None = None,
        retry_s: float = RETRY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(input_observation_space, input_action_space)
        self._guard: DeviceGuard | None = None
        self._closed = False
        if device is None:
            return
        self._mode = mode or InterventionMode("hold", release_s=0.0)
        self._clock = clock
        self._env = _first_operator_env(env)
        self._env.on_close(self._close)
        self._episode_id: str | None = None
        self._guard = DeviceGuard(device, retry_s=retry_s, clock=clock)
        self._guard.start(self._env)
        self._env.on_step(self._guard.show)

    def __call__(
        self,
        *,
        batch: dict[str, Any],
        episodes: list[SingleAgentEpisode],
        rl_module: RLModule | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """batch[ACTIONS]: {(episode id,): [float32 (4,)]} in env order, changed in place.

        A policy with a state gets its initial one back: what it planned before a person acted is void.
        """
        actions = batch[Columns.ACTIONS]
        flags = {key: [np.float32(0.0)] for key in actions}
        # After a done step RLlib runs the module once more and the vector env answers with a reset: the
        # action is discarded, so nobody is asked for one.
        if self._guard is not None and episodes[0].is_reset:
            command = self._intervention(episodes[0].id_)
            if command is not None:
                key = next(iter(actions))
                actions[key] = [np.clip(command.module_action(), -1.0, 1.0)]
                flags[key] = [np.float32(1.0)]
                if Columns.STATE_OUT in batch and rl_module is not None:
                    batch[Columns.STATE_OUT][key] = [convert_to_numpy(rl_module.get_initial_state())]
        batch[IS_INTERVENTION] = flags
        return batch

    @property
    def shows_news(self) -> bool:
        """Whether there is a device that shows the run's metrics."""
        return self._guard is not None and type(self._guard.device).share is not TeleopDevice.share

    @property
    def presence(self) -> tuple[str | None, str | None]:
        """Which of several robots the device drives, and the address of its page."""
        return (None, None) if self._guard is None else self._guard.device.presence

    def share(self, news: Mapping[str, Any]) -> None:
        """Hand the run's newest metrics to the device."""
        if self._guard is not None and not self._closed:
            self._guard.share(news)

    def get_state(self, components: Any = None, **_: Any) -> dict[str, Any]:
        """Of the device, where it is synthetic; empty without one."""
        if self._guard is None or not (device := self._guard.device.get_state()):
            return {}
        return {"device": device, "episode_id": self._episode_id}

    def set_state(self, state: dict[str, Any]) -> None:
        if self._guard is not None and state:
            self._guard.device.set_state(state["device"])
            self._episode_id = state["episode_id"]

    def begin_apart(self, seed: int, human_steps: int) -> None:
        """A run goes on in a new process, see `TeleopDevice.begin_apart`."""
        if self._guard is not None:
            self._guard.device.begin_apart(seed, human_steps)

    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        """A checkpoint holds no hardware: what is built from it only writes zeros."""
        return (self.input_observation_space, self.input_action_space), {}

    def _intervention(self, episode_id: str) -> Command | None:
        """The command to execute now, or None where the policy acts."""
        assert self._guard is not None
        if self._closed:
            raise RuntimeError(
                "The operator's env was replaced under its device. "
                "Keep restart_failed_sub_environments=False: then the whole runner restarts instead."
            )
        if episode_id != self._episode_id:
            self._episode_id = episode_id
            self._guard.reset()
        self._env.reading()
        command = self._guard.read()
        intervening = False
        if command is None:
            self._mode.reset()
        else:
            if command.end is not EpisodeEnd.NONE:
                self._env.request_end(command.end)
            intervening = self._mode.update(command, self._clock())
        label = command is not None and command.label
        self._env.declare(intervening, self._guard.device.input_age_s, label)
        return command if intervening else None

    def _close(self) -> None:
        if self._guard is not None and not self._closed:
            self._closed = True
            self._guard.close()


def is_realtime(device: str) -> bool:
    """Whether a person sits at the device, so that its env must keep to the clock."""
    return device_class(device).realtime


def operator_connector(
    device: str, *, mode: str = "hold", options: Mapping[str, Any] | None = None
) -> Callable[[gymnasium.vector.VectorEnv | None, Any], InterventionConnector]:
    """What to pass as `AlgorithmConfig.env_runners(module_to_env_connector=...)` for the operator's runner.

    Only names travel to the runner; the device is made there. A name or option that cannot work is an error
    here, in the driver. `mode` is for people: a synthetic device's trigger is taken at its word.
    """
    options = {**device_class(device).lasting_options(), **(options or {})}
    check_device(device, **options)
    InterventionMode(mode)

    def build(env: gymnasium.vector.VectorEnv | None, spaces: Any = None) -> InterventionConnector:
        if env is None:  # a local runner that only holds weights
            return InterventionConnector()
        made = make_device(device, **options)
        decides = made.intervention_mode(mode) if made.realtime else None
        return InterventionConnector(env=env, device=made, mode=decides)

    return build


def _first_operator_env(env: gymnasium.vector.VectorEnv | None) -> OperatorWrapper:
    envs = getattr(env.unwrapped, "envs", None) if env is not None else None
    if not envs:
        raise ValueError(
            f"A device needs its env in the same process; got {env}. Keep gym_env_vectorize_mode='sync'."
        )
    layer: Any = envs[0]
    while isinstance(layer, gymnasium.Wrapper):
        if isinstance(layer, OperatorWrapper):
            return layer
        layer = layer.env
    raise ValueError(f"The operator's env must be wrapped in OperatorWrapper; got {envs[0]}.")
