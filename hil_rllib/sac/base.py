"""The base policy of a residual one: a trained policy whose action SAC observes and corrects.

Its action is part of the observation, `base_action`: replay holds it for every state, the critics rate what
was executed, whoever did it, and no update ever runs the base policy.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.connectors.env_to_module.observation_preprocessor import SingleAgentObservationPreprocessor
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from hil_rllib.contract import ACTION_DIM, IS_INTERVENTION
from hil_rllib.data.replay import Fragment, nested_map
from hil_rllib.models.heads import BASE_ACTION
from hil_rllib.sac.checkpoint_files import MODULE_FILE
from hil_rllib.sac.module import AveragedModule, acting_part

BASE_FILE = "hil_base.pkl"  # in a residual policy's checkpoints: nothing else is needed to act


@dataclass(frozen=True)
class Base:
    """What builds the module that acts, and its weights."""

    kind: type[AveragedModule]
    arguments: dict[str, Any]
    state: dict[str, NDArray[np.float32]]

    @classmethod
    def of(cls, checkpoint: Path) -> Base:
        """The policy in a checkpoint; of a residual policy the one it corrects."""
        kept = checkpoint / BASE_FILE
        if kept.is_file():
            base = pickle.loads(kept.read_bytes())
            assert isinstance(base, cls)
            return base
        module = checkpoint / MODULE_FILE
        made = pickle.loads(module.with_name(AveragedModule.CLASS_AND_CTOR_ARGS_FILE_NAME).read_bytes())
        kind, (_, arguments) = made["class"], made["ctor_args_and_kwargs"]
        state = acting_part(pickle.loads(module.read_bytes()), kind.acting)
        return cls(kind, {**arguments, "inference_only": True}, state)

    def save(self, checkpoint: Path) -> None:
        (checkpoint / BASE_FILE).write_bytes(pickle.dumps(self))

    def build(self) -> AveragedModule:
        module = self.kind(**self.arguments)
        module.set_state(self.state)
        return module


class Acting:
    """A module's actions, one observation at a time, with the state it keeps within an episode."""

    def __init__(self, module: RLModule, explore: bool = False) -> None:
        self.module, self._explore = module, explore
        self.reset()

    def reset(self) -> None:
        self.state = nested_map(lambda x: x[None], self.module.get_initial_state())

    def __call__(self, obs: dict[str, Any]) -> NDArray[np.float32]:
        """One observation, features in place of frames → action (4,) in module space."""
        rank = (1, 1) if self.state else (1,)  # RLlib gives modules with a state a rank of time
        tensors = nested_map(lambda x: torch.from_numpy(np.asarray(x)).expand(*rank, *np.shape(x)), obs)
        forward = self.module.forward_exploration if self._explore else self.module.forward_inference
        out = forward({Columns.OBS: tensors, Columns.STATE_IN: self.state})
        self.state = out.get(Columns.STATE_OUT, {})
        return out[Columns.ACTIONS].flatten().numpy()


class AddBaseAction(SingleAgentObservationPreprocessor):
    """env-to-module connector: writes the base policy's action into each observation.

    base: None only in the driver, which observes nothing.
    """

    def __init__(
        self, input_observation_space: Any = None, input_action_space: Any = None, *, base: Base | None
    ) -> None:
        self._base = base
        self._module: RLModule | None = None  # built when it is first needed, in the runner
        self._episodes: dict[str, Acting] = {}
        super().__init__(input_observation_space, input_action_space)

    def recompute_output_observation_space(
        self, input_observation_space: Any, input_action_space: Any
    ) -> Any:
        return with_base_action(input_observation_space)

    def preprocess(self, observation: Any, episode: SingleAgentEpisode) -> Any:
        acting = self._episodes.pop(episode.id_, None) or Acting(self._built())
        if not episode.is_done:
            self._episodes[episode.id_] = acting
        if len(episode) and episode.get_extra_model_outputs(IS_INTERVENTION, -1) > 0:
            acting.reset()  # what it planned before a person acted is void
        return {**observation, BASE_ACTION: acting(observation)}

    def get_state(self, components: Any = None, **_: Any) -> dict[str, Any]:
        """What the base policy remembers of the episodes under way."""
        return {episode: acting.state for episode, acting in self._episodes.items()}

    def set_state(self, state: dict[str, Any]) -> None:
        self._episodes = {episode: Acting(self._built()) for episode in state}
        for episode, remembered in state.items():
            self._episodes[episode].state = remembered

    def _built(self) -> RLModule:
        if self._module is None:
            assert self._base is not None
            self._module = self._base.build()
        return self._module


def with_base_action(space: gym.spaces.Dict) -> gym.spaces.Dict:
    """The observation space with `base_action`."""
    return gym.spaces.Dict({**space.spaces, BASE_ACTION: gym.spaces.Box(-1, 1, (ACTION_DIM,), np.float32)})


def add_base_actions(fragment: Fragment, module: RLModule) -> Fragment:
    """A demonstration with the base policy's actions, each planned afresh: a person did the step before."""
    acting, actions = Acting(module), []
    for t in range(len(fragment) + 1):
        acting.reset()
        actions.append(acting(nested_map(lambda x, t=t: x[t], fragment.obs)))
    return replace(fragment, obs={**fragment.obs, BASE_ACTION: np.stack(actions)})
