"""From our `Config` to RLlib's: which classes, runners, spaces and resources a run is made of."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import gymnasium as gym
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.connectors.env_to_module.observation_preprocessor import SingleAgentObservationPreprocessor
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune.registry import register_env

from hil_rllib.collect.classifier_reward import ClassifierRewardWrapper, ClassifierSpec, SuccessClassifier
from hil_rllib.collect.encode import EncodeFrames, encoded_space
from hil_rllib.collect.intervention import InterventionConnector, is_realtime, operator_connector
from hil_rllib.collect.pacing import OperatorWrapper, claim_priority
from hil_rllib.collect.recording import RecordingWrapper
from hil_rllib.config import Config, EnvSection
from hil_rllib.contract import ACTION_DIM
from hil_rllib.data.lerobot_format import parse_names
from hil_rllib.data.offline_input import LeRobotOfflineData
from hil_rllib.sac.base import AddBaseAction, Base, with_base_action
from hil_rllib.sac.classifier import read_classifier
from hil_rllib.sac.learner import HILSACLearner
from hil_rllib.sac.module import HILSACModule
from hil_rllib.sac.recorder import Outbox, operator_names
from hil_rllib.sac.refit import Newest

OPERATOR_RESOURCE = "operator"  # Ray resource of the machine where the person sits
LOCKSTEP_REPORT_STEPS = 50  # [env steps] between reports in lockstep; otherwise there is one a second
QUEUED_S = 20.0  # [s] of steps queued on a person's runner: more than a checkpoint takes on a busy machine


class HILSACConfig(SACConfig):
    """RLlib's SAC configuration as `HILSAC` needs it; everything of ours is in `.hil`.

    It has no remote env runners: `HILSAC` makes groups of its own, by `autonomous()` and `operator()`.
    """

    def __init__(self, algo_class: type | None = None) -> None:
        from hil_rllib.sac.algorithm import HILSAC

        super().__init__(algo_class=algo_class or HILSAC)
        self.hil = Config()
        self.restore_from: str | None = None  # checkpoint folder to continue from
        self.refitter: str | None = None  # name of the actor that trains it on, if one does
        self.seated = (
            True  # operators' runners lie where their seats are; a sweep's, without a person, anywhere
        )
        self.resume = False  # without one: continue from what the run stored before its first checkpoint
        # Our rings take the place of RLlib's buffer; this passes SACConfig.validate and builds none.
        self.replay_buffer_config = {
            "type": "EpisodeReplayBuffer",
            "capacity": 1,
            "no_local_replay_buffer": True,
        }
        self._dont_auto_sync_env_runner_states = True  # runners pull from the state server
        self.delay_between_env_runner_restarts_s = 1.0
        self.min_time_s_per_iteration = 1  # one report a second
        self.min_sample_timesteps_per_iteration = 0

    @classmethod
    def from_config(cls, hil: Config) -> Self:
        """The RLlib configuration of a run: learner, offline input, and what its runners have in common."""
        config = cls()
        config.hil = hil
        if hil.reward.refit_every_episodes is not None:
            config.refitter = f"refitter-{uuid.uuid4().hex}"
        register_env(hil.env.id, make_env)
        config.environment(hil.env.id, env_config={"hil_env": hil.env})
        config.env_runners(
            num_env_runners=0,
            rollout_fragment_length=hil.runners.fragment,
            max_requests_in_flight_per_env_runner=2,  # one runs, one waits: no runner idles
            validate_env_runners_after_construction=False,  # it would wait for all; `RunnerGroup` does not
            env_to_module_connector=lambda env, spaces, device: observation_pieces(hil),
            module_to_env_connector=lambda env, spaces: InterventionConnector(),
        )
        config.learners(num_learners=0, num_gpus_per_learner=int(torch.cuda.is_available()))
        config.fault_tolerance(restart_failed_env_runners=True, max_num_env_runner_restarts=-1)  # any number
        config.debugging(seed=hil.run.seed, log_level="ERROR")
        config.reporting(metrics_num_episodes_for_smoothing=20)
        if hil.run.mode == "lockstep":  # reports, hence checkpoints and the end, always at the same steps
            steps = LOCKSTEP_REPORT_STEPS
            config.reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=steps)
        if hil.demos.source != "none":
            config.offline_data(
                input_=hil.demos.source,
                input_read_method_kwargs=demo_options(hil),
                offline_data_class=LeRobotOfflineData,
            )
        return config

    @property
    def classifier(self) -> ClassifierSpec | None:
        """What rewards in place of the env, if anything does. Read where runners need it, not to evaluate."""
        reward = self.hil.reward
        return None if reward.classifier is None else read_classifier(reward.classifier, reward.consecutive)

    @property
    def base(self) -> Base | None:
        """The policy to correct, if this one is to be residual."""
        where = self.restore_from or self.hil.run.init_from
        return Base.of(Path(where)) if where and self.hil.sac.residual else None

    def env_config_of(self, **more: Any) -> dict[str, Any]:
        """`make_env`'s argument."""
        reward = {"classifier": self.classifier, "refitter": self.refitter}
        return {"hil_env": self.hil.env, **reward, **more}

    def autonomous(self, writers: Sequence[str] = ()) -> AlgorithmConfig:
        """The configuration of the runners that the policy drives alone.

        writers: names of their `recorder.EpisodeWriter`s, one each, or none.
        """
        config = self._acting()
        config.environment(env_config=self.env_config_of(writers=list(writers)))
        config.env_runners(
            num_env_runners=self.hil.runners.autonomous,
            num_envs_per_env_runner=self.hil.runners.envs_per_runner,
            create_local_env_runner=False,
        )
        return config

    def operator(self, seat: int = 0, writers: Sequence[str] = ()) -> AlgorithmConfig:
        """The configuration of an operator's runner group: one runner, bound to their input device.

        It goes where the Ray resource of its name is: `operator`, or of several `operator_1`, `operator_2`, …

        seat: which of the operators, from 0. writers: the name of its `recorder.EpisodeWriter`, if recorded.
        """
        hil = self.hil
        device = hil.operator.devices[seat]
        realtime = hil.operator.realtime or is_realtime(device)
        config = self._acting()
        config.env_runners(
            num_env_runners=1,
            num_envs_per_env_runner=1,
            create_local_env_runner=False,
            num_cpus_per_env_runner=0,
            custom_resources_per_env_runner={operator_names(hil)[seat]: 1} if self.seated else {},
            max_requests_in_flight_per_env_runner=(
                max(2, round(QUEUED_S * hil.operator.hz / hil.runners.fragment)) if realtime else 2
            ),
            module_to_env_connector=operator_connector(
                device, mode=hil.operator.mode, options=device_options(hil, seat)
            ),
        )
        hz = hil.operator.hz if realtime else None
        config.environment(
            env_config=self.env_config_of(operator_hz=hz, operator=True, writers=list(writers))
        )
        config.debugging(seed=hil.run.seed + (seat + 1) * 1_000_000)  # apart from all other runners' seeds
        return config

    def _acting(self) -> AlgorithmConfig:
        """A copy for runners, which need the base policy itself."""
        config, hil, base = self.copy(copy_frozen=False), self.hil, self.base
        config.env_runners(env_to_module_connector=lambda env, spaces, device: observation_pieces(hil, base))
        return config

    def get_default_learner_class(self) -> type:
        return HILSACLearner

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        sac = self.hil.sac
        own = {"num_critics": sac.num_critics, "initial_temperature": sac.initial_temperature}
        own |= {"residual_scale": sac.residual_scale, "residual_margin": sac.residual_margin}
        return RLModuleSpec(module_class=HILSACModule, model_config=policy_config(self.hil) | own)


def policy_config(hil: Config) -> dict[str, Any]:
    """`HybridPolicy`'s model_config."""
    return {
        "latent_dim": hil.encoder.latent_dim,
        "embeddings_per_channel": hil.encoder.embeddings_per_channel,
        "dropout": hil.encoder.dropout,
        "weights": hil.encoder.weights,
        "seed": hil.run.seed,
        "hidden": tuple(hil.sac.hidden),
    }


def make_env(env_config: Any) -> gym.Env:
    """RLlib's env creator, in a runner.

    env_config: `hil_env` (EnvSection), a `classifier` that rewards or None, for the operator's env its
    pacing, where episodes are recorded the names of the group's `writers`, one for each runner in order.
    """
    hz = env_config.get("operator_hz")
    if hz is not None:
        claim_priority()  # before the env is made: the renderer's threads inherit it
    env = build_env(env_config["hil_env"])
    if (classifier := env_config.get("classifier")) is not None:
        newest = Newest(env_config["refitter"]) if env_config.get("refitter") else None
        env = ClassifierRewardWrapper(env, SuccessClassifier(classifier), classifier.consecutive, newest)
    if env_config.get("operator"):
        env = OperatorWrapper(env, hz=hz)
    if env_config.get("writers"):
        writer = env_config["writers"][env_config.worker_index - 1]
        env = RecordingWrapper(env, Outbox(writer, realtime=hz is not None))
    return env


def build_env(cfg: EnvSection) -> gym.Env:
    """The environment of the `env` section.

    Raises ValueError for an unknown id, and for an env whose actions are not the 4-D ones of
    `hil_rllib.contract`.
    """
    import envs  # noqa: F401  (registers the ids in this process)
    from envs.viewer import NoDisplayError

    # tests/envs run the checker; here it would cost the first step of every runner.
    options: dict[str, Any] = {"max_episode_steps": cfg.max_episode_steps, "disable_env_checker": True}
    try:
        env = gym.make(cfg.id, **options, **env_options(cfg))
    except (gym.error.Error, TypeError, NoDisplayError) as error:  # TypeError: it takes other options
        raise ValueError(
            f"env.id '{cfg.id}' cannot be made: {error} Choose from hil/PandaPickCube-v0 and, with "
            "env.random_block_position=false, hil/PandaArrangeBoxes-v0."
        ) from error
    if env.action_space.shape != (ACTION_DIM,):
        raise ValueError(
            f"env.id '{cfg.id}' takes actions of shape {env.action_space.shape}, the policy gives "
            f"({ACTION_DIM},): 3 of motion and the gripper. Use the wrapped id, such as hil/PandaPickCube-v0."
        )
    return env


def env_options(cfg: EnvSection) -> dict[str, Any]:
    """The environment's own keyword arguments."""
    random = {"random_block_position": True} if cfg.random_block_position else {}  # not all tasks have it
    return {
        "image_obs": cfg.image_obs,
        "reward_type": cfg.reward_type,
        "render_quality": cfg.render_quality,
        **random,
    }


def device_options(hil: Config, seat: int = 0) -> dict[str, Any]:
    """Arguments of an operator's device."""
    operator = hil.operator
    if operator.devices[seat] == "scripted":
        return {**vars(operator.scripted), "seed": hil.run.seed + seat}
    options: dict[str, Any] = {}
    if operator.devices[seat] in ("auto", "browser"):
        options |= {"bind": operator.bind, "port": operator.port and operator.port + seat}
        if operator.attention:
            options["robot"] = operator_names(hil)[seat]
    if operator.controller_config is not None:
        options["controller_config"] = operator.controller_config
    return options


def demo_options(hil: Config) -> dict[str, Any]:
    """Keyword arguments of `load_demos`, beside the source."""
    return {
        "env": {"id": hil.env.id, "kwargs": env_options(hil.env)},
        "image_obs": hil.env.image_obs,
        "frames": hil.demos.frames,
        "fallback": hil.demos.fallback,
        "fallback_episodes": hil.demos.scripted_episodes,
        "episodes": hil.demos.episodes,
        "revision": hil.demos.revision,
        "features": parse_names(hil.demos.features),
        "seed": hil.run.seed,
    }


def observation_pieces(hil: Config, base: Base | None = None) -> list[SingleAgentObservationPreprocessor]:
    """env-to-module connectors: the frozen encoder where there are frames, the base policy of a residual one.

    They make of the env's observation space what `observed` says.
    """
    pieces: list[SingleAgentObservationPreprocessor] = []
    if hil.env.image_obs and hil.encoder.frozen:
        pieces.append(EncodeFrames(weights=hil.encoder.weights, seed=hil.run.seed))
    if hil.sac.residual:
        pieces.append(AddBaseAction(base=base))
    return pieces


def observed(hil: Config, space: Any) -> Any:
    """The space of what the policy sees of an environment's observations."""
    if hil.env.image_obs and hil.encoder.frozen:
        space = encoded_space(space)
    return with_base_action(space) if hil.sac.residual else space
