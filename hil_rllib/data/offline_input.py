"""LeRobot datasets as RLlib's offline data.

    config.offline_data(
        input_="aractingi/franka_sim_pick_lift_6",  # hub id, local folder, or "scripted"
        input_read_method_kwargs={"env": {"id": …}, "image_obs": True, "frames": "rerendered", …},
        offline_data_class=LeRobotOfflineData,
    )

`input_read_method_kwargs` are the keyword arguments of `demos.load_demos`, which is the read method here.
RLlib then builds `algo.offline_data`. An algorithm that mixes demonstrations with its own experience takes
`algo.offline_data.episodes()` once. RLlib's offline algorithms (BC, MARWIL, CQL, IQL) call `sample()`.
That, and `_Sampler` behind it, are for algorithms outside this project: its own draw from rings.

RLlib's default class streams rows through Ray Data, which costs seconds a pass for a set of this size.
Here the episodes stay in memory, and minibatches are drawn in this process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.env import INPUT_ENV_SPACES
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.offline.offline_data import OfflineData
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils import flatten_dict

from hil_rllib.contract import DISCRETE_PENALTY, IS_INTERVENTION
from hil_rllib.data.demo import Demo
from hil_rllib.data.demos import DemoSet, load_demos, module_actions
from hil_rllib.data.shared import shared_demos

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig


END_SEEN = "end_seen"  # in the last info, see `Demo`


def to_episode(demo: Demo) -> SingleAgentEpisode:
    """A demonstration as RLlib would have sampled it: actions in module space, columns as numpy arrays.

    Observations are the environment's (frames, not features). The id has no "_", where RLlib splits ids.
    """
    steps = len(demo)
    infos: list[dict[str, Any]] = [{}, *({DISCRETE_PENALTY: float(penalty)} for penalty in demo.penalties)]
    infos[-1][END_SEEN] = demo.end_seen
    return SingleAgentEpisode(
        id_=f"demo{demo.episode_index:06d}",
        observations=[demo.observation(t) for t in range(steps + 1)],
        infos=infos,
        actions=list(module_actions(demo)),
        rewards=[float(reward) for reward in demo.rewards],
        terminated=bool(demo.terminated[-1]),
        truncated=bool(demo.truncated[-1]),
        extra_model_outputs={IS_INTERVENTION: list(demo.interventions)},
        len_lookback_buffer=0,
        t_started=0,
    ).to_numpy()


class LeRobotOfflineData(OfflineData):
    """See the module. Attributes RLlib sets after construction: spaces, module_spec, learner_handles."""

    def __init__(self, config: AlgorithmConfig) -> None:
        """Loads everything now, so that bad input stops a run before it starts.

        Raises:
            TypeError: an unknown or missing option. See `load_demos` for what else.
        """
        # Not super().__init__: it opens the path with Ray Data.
        self.config = config
        self.is_multi_agent = config.is_multi_agent
        if self.is_multi_agent:
            raise ValueError("LeRobot datasets have one agent; this config is multi-agent.")
        self.path = config.input_
        self.iter_batches_kwargs = self.default_iter_batches_kwargs | config.iter_batches_kwargs
        self.spaces: dict[str, Any] = {}
        self.module_spec: Any = None
        self.learner_handles: list[Any] | None = None
        self.locality_hints: list[Any] | None = None
        options = dict(config.input_read_method_kwargs)
        library = options.pop("library", None)  # name of a `shared.DemoLibrary`
        read = partial(shared_demos, library) if library else load_demos
        self.demos: DemoSet = read(config.input_, **options)
        self.by_hand = self.demos.by_hand  # steps
        self._episodes: list[SingleAgentEpisode] | None = [to_episode(demo) for demo in self.demos.demos]
        self.demos.demos.clear()  # the episodes hold copies
        self._sampler: _Sampler | None = None

    def episodes(self) -> list[SingleAgentEpisode]:
        """Hands all episodes over, once: they are not kept here, frames being large."""
        episodes, self._episodes = self._held(), None
        return episodes

    def forget(self) -> None:
        """Nobody needs them any more: a run that goes on has its own copy."""
        self._episodes = None

    def sample(
        self,
        num_samples: int,
        return_iterator: bool = False,
        num_shards: int = 1,
        module_state: dict[str, Any] | None = None,
    ) -> MultiAgentBatch | list[_Sampler]:
        """A batch of `num_samples` random steps, or per learner an iterator over epochs of such batches.

        num_shards: number of remote learners; 0 or 1 give one iterator over everything.
        """
        if return_iterator:
            episodes, shards = self._held(), max(1, num_shards)
            parts = [episodes[i::shards] for i in range(shards)]
            if not all(parts):
                raise ValueError(
                    f"{len(episodes)} demonstrations cannot feed {shards} learners; use fewer learners."
                )
            # Learners wait for each other, so all must see as many batches as the smallest part has.
            steps = min(sum(map(len, part)) for part in parts)
            return [self._make_sampler(part, seed, steps, module_state) for seed, part in enumerate(parts)]
        if self._sampler is None:
            self._sampler = self._make_sampler(self._held(), 0, None, module_state)
        return self._sampler.batch(num_samples)

    def _held(self) -> list[SingleAgentEpisode]:
        if self._episodes is None:
            raise RuntimeError(
                "The demonstrations were handed over by episodes() already; each goes to one consumer."
            )
        return self._episodes

    def _make_sampler(
        self,
        episodes: Sequence[SingleAgentEpisode],
        stream: int,
        steps: int | None,
        module_state: dict[str, Any] | None,
    ) -> _Sampler:
        local = None if self.learner_handles is None else self.learner_handles[0]
        module = getattr(local, "module", None)  # a remote learner's handle has none: build it there
        if module is None and module_state is None and local is not None:
            import ray

            state = ray.get(local.get_state.remote(component=COMPONENT_RL_MODULE))
            module_state = state[COMPONENT_RL_MODULE]
        spaces = self.spaces[INPUT_ENV_SPACES]
        seed = [self.config.seed or 0, stream]
        return _Sampler(episodes, self.config, spaces, self.module_spec, module, module_state, seed, steps)


class _Sampler:
    """Draws steps from episodes and runs them through RLlib's learner connector, which makes train batches.

    Stands in for a `ray.data.DataIterator` where a Learner iterates by itself, possibly in another process.
    """

    def __init__(
        self,
        episodes: Sequence[SingleAgentEpisode],
        config: AlgorithmConfig,
        spaces: Any,
        module_spec: Any,
        module: Any,
        module_state: dict[str, Any] | None,
        seed: list[int],
        steps: int | None,
    ) -> None:
        self._episodes, self._config, self._spaces = list(episodes), config, spaces
        self._module_spec, self._module, self._module_state = module_spec, module, module_state
        self._rng = np.random.default_rng(seed)
        self._index = [(e, t) for e, episode in enumerate(self._episodes) for t in range(len(episode))]
        self._steps = steps or len(self._index)
        self._connector: Any = None

    def batch(self, size: int) -> MultiAgentBatch:
        """`size` steps drawn with replacement."""
        return _as_batch(self._columns(self._rng.integers(len(self._index), size=size)), size)

    def iter_torch_batches(self, *, batch_size: int, device: Any = None, **_: Any) -> _Epochs:
        """Every iteration over the result is one epoch of flat {column: tensor} batches, shuffled anew.

        Further arguments of Ray Data's method (prefetching …) have no meaning in one process.
        """
        return _Epochs(self, batch_size, device)

    def epoch(self, batch_size: int, device: Any) -> Iterator[dict[str, Any]]:
        order = self._rng.permutation(len(self._index))[: self._steps]
        full = max(len(order) - len(order) % batch_size, min(len(order), batch_size))
        for start in range(0, full, batch_size):
            flat = flatten_dict(self._columns(order[start : start + batch_size]))
            yield {key: value.to(device) if device is not None else value for key, value in flat.items()}

    def _columns(self, chosen: Any) -> dict[str, Any]:
        """Module id → column → tensor, as the algorithm's own learner connector makes them."""
        if self._module is None:
            self._module = self._module_spec.build()
            if self._module_state:
                self._module.set_state(self._module_state)
        if self._connector is None:
            observations, actions = self._spaces
            self._connector = self._config.build_learner_connector(
                input_observation_space=observations, input_action_space=actions
            )
        steps = [self._episodes[e][t : t + 1] for e, t in (self._index[i] for i in chosen)]
        result: dict[str, Any] = self._connector(
            rl_module=self._module, batch={}, episodes=steps, shared_data={}, metrics=None
        )
        return result


class _Epochs:
    """Iterable again and again; each time another epoch."""

    def __init__(self, sampler: _Sampler, batch_size: int, device: Any) -> None:
        self._sampler, self._batch_size, self._device = sampler, batch_size, device

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._sampler.epoch(self._batch_size, self._device)


def _as_batch(modules: dict[str, Any], steps: int) -> MultiAgentBatch:
    return MultiAgentBatch({name: SampleBatch(columns) for name, columns in modules.items()}, env_steps=steps)
