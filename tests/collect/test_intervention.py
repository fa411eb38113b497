"""The person's action in RLlib's own env runner: executed, stored and marked, step by step."""

from __future__ import annotations

import logging
import math
import threading

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.cloudpickle import dumps, loads
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

import envs  # noqa: F401 - registers the ids
from hil_rllib.collect.intervention import InterventionConnector, operator_connector
from hil_rllib.collect.pacing import OperatorWrapper
from hil_rllib.contract import IDLE, IS_INTERVENTION, RERECORD, SUCCESS, Command, EpisodeEnd, Gripper
from hil_rllib.devices import InterventionMode, TeleopDevice

ACTIONS = spaces.Box(np.array([-1, -1, -1, 0], np.float32), np.array([1, 1, 1, 2], np.float32))
EPISODE_STEPS = 7
HUMAN = Command(motion=(0.5, -0.25, 2.0), gripper=Gripper.CLOSE, intervening=True)  # z is out of range
HUMAN_MODULE_ACTION = [0.5, -0.25, 1.0, 1.0]
HUMAN_ENV_ACTION = [0.5, -0.25, 1.0, 2.0]


class Toy(gymnasium.Env):
    """Ends every `EPISODE_STEPS` steps; the info tells what was executed."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = ACTIONS

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        observation = np.full(2, self.t, np.float32)
        return observation, 0.25, self.t == EPISODE_STEPS, False, {"executed": action.copy()}


class Uneven(Toy):
    """Each env made has episodes of its own length, so that only one of two is being reset at a time."""

    made = 0

    def __init__(self):
        type(self).made += 1
        self.length = 3 + 2 * (type(self).made % 2)

    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, self.t == self.length, truncated, info


class RandomModule(TorchRLModule):
    def setup(self):
        self.generator = torch.Generator().manual_seed(0)

    def _forward(self, batch, **_):
        observation = batch[Columns.OBS]
        rows = len(observation["agent_pos"] if isinstance(observation, dict) else observation)
        return {Columns.ACTIONS: torch.rand((rows, 4), generator=self.generator) * 1.8 - 0.9}

    def _forward_train(self, batch, **_):
        raise NotImplementedError


class Script(TeleopDevice):
    """Plays what `command(read count)` gives, or raises it; remembers what was called, in order."""

    def __init__(self, command):
        self.command = command
        self.calls: list[str] = []
        self.reads = 0

    def start(self, env):
        self.calls.append("start")
        self.env = env

    def reset(self):
        self.calls.append("reset")

    def read(self):
        command = self.command(self.reads)
        self.reads += 1
        if isinstance(command, Exception):
            raise command
        return command

    def close(self):
        self.calls.append("close")


def make_runner(connector, *, num_envs=1, env=Toy):
    config = (
        SACConfig()
        .environment(lambda _: OperatorWrapper(env()))
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=num_envs,
            rollout_fragment_length=5,
            batch_mode="truncate_episodes",
            module_to_env_connector=connector,
        )
        .rl_module(rl_module_spec=RLModuleSpec(module_class=RandomModule))
    )
    return SingleAgentEnvRunner(config=config)


def with_device(device, **options):
    return lambda env, spaces: InterventionConnector(env=env, device=device, **options)


def every_step(runner, steps=40):
    """(stored action, executed action, flag, info) of `steps` steps in order, from fragments of five."""
    rows = []
    for _ in range(steps // 5):
        for episode in runner.sample():
            flags = episode.get_extra_model_outputs(IS_INTERVENTION)
            assert len(flags) == len(episode)
            for t in range(len(episode)):
                info = episode.get_infos(t + 1)
                rows.append((episode.get_actions(t), info["executed"], float(flags[t]), info))
    assert len(rows) == steps
    return rows


def env_action(module_action):
    return ACTIONS.low + (module_action + 1) / 2 * (ACTIONS.high - ACTIONS.low)


def test_human_action_replaces_policy_action_in_episode():
    device = Script(lambda k: HUMAN if k % 3 == 1 else IDLE)
    for k, (stored, executed, flag, _) in enumerate(every_step(make_runner(with_device(device)))):
        assert flag == (k % 3 == 1)
        assert np.array_equal(stored, HUMAN_MODULE_ACTION) == bool(flag)
        assert np.array_equal(executed, HUMAN_ENV_ACTION) == bool(flag)
    assert device.reads == 40  # once per step: not on the forward pass between a done step and its reset


def test_the_executed_action_is_the_stored_one_unsquashed():
    device = Script(lambda k: HUMAN if k % 2 else IDLE)
    for stored, executed, _, _ in every_step(make_runner(with_device(device))):
        assert stored.dtype == executed.dtype == np.float32
        np.testing.assert_allclose(executed, env_action(stored), atol=1e-6)


@pytest.mark.parametrize("gripper", list(Gripper))
def test_the_gripper_command_reaches_the_env_exactly(gripper):
    device = Script(lambda _: Command(gripper=gripper, intervening=True))
    assert {row[1][3] for row in every_step(make_runner(with_device(device)), 10)} == {float(gripper)}


def test_autonomous_runner_writes_zero_flags():
    rows = every_step(make_runner(lambda env, spaces: InterventionConnector()))
    assert [row[2] for row in rows] == [0.0] * 40


def test_the_device_drives_the_first_env_only():
    runner = make_runner(with_device(Script(lambda _: HUMAN)), num_envs=2, env=Uneven)
    steps = {0.0: 0, 1.0: 0}
    lengths = {0.0: set(), 1.0: set()}
    for episode in runner.sample(num_timesteps=200):
        (flag,) = {float(f) for f in episode.get_extra_model_outputs(IS_INTERVENTION)}
        assert all(np.array_equal(a, HUMAN_MODULE_ACTION) == bool(flag) for a in episode.get_actions())
        steps[flag] += len(episode)
        if episode.is_done:
            lengths[flag].add(len(episode))
    assert min(steps.values()) > 50
    assert sorted(map(sorted, lengths.values())) == [[3], [5]]  # each env is either always driven or never


def test_nan_command_is_ignored_and_the_policy_keeps_control(caplog):
    nan = Command(motion=(math.nan, 0.0, 0.0), intervening=True, end=EpisodeEnd.SUCCESS)
    with caplog.at_level(logging.WARNING, "hil_rllib"):
        rows = every_step(make_runner(with_device(Script(lambda _: nan))), 10)
    assert all(flag == 0.0 and np.isfinite(executed).all() for _, executed, flag, _ in rows)
    assert len([r for r in caplog.records if r.name.startswith("hil_rllib")]) == 1


def test_failing_device_hands_back_control_and_reconnects():
    now = [0.0]

    def command(k):
        now[0] += 0.1
        return OSError("unplugged") if k == 10 else HUMAN

    device = Script(command)
    rows = every_step(make_runner(with_device(device, retry_s=0.0, clock=lambda: now[0])), 20)
    assert [row[2] for row in rows] == [1.0] * 10 + [0.0] + [1.0] * 9
    calls = [call for call in device.calls if call != "reset"]
    assert calls == ["start", "close", "start"]


def test_control_is_not_kept_by_a_toggle_whose_device_was_lost():
    press = [IDLE, HUMAN, IDLE, OSError("unplugged")]
    device = Script(lambda k: press[k] if k < len(press) else IDLE)
    now = iter(range(1000))  # [s], so every release is past the debounce
    runner = make_runner(
        with_device(device, mode=InterventionMode("toggle"), retry_s=0.0, clock=lambda: float(next(now)))
    )
    assert [row[2] for row in every_step(runner, 10)] == [0.0, 1.0, 1.0] + [0.0] * 7


def test_each_episode_is_announced_to_the_device_once():
    device = Script(lambda _: IDLE)
    every_step(make_runner(with_device(device)), 3 * EPISODE_STEPS // 5 * 5)  # in fragments, across resets
    assert device.calls == ["start"] + ["reset"] * 3


@pytest.mark.parametrize(
    ("end", "terminated", "reward", "key", "value"),
    [
        (EpisodeEnd.SUCCESS, True, 1.0, SUCCESS, True),
        (EpisodeEnd.FAILURE, True, 0.0, SUCCESS, False),
        (EpisodeEnd.RERECORD, False, 0.25, RERECORD, True),
    ],
)
def test_the_operator_ends_the_episode_at_that_very_step(end, terminated, reward, key, value):
    device = Script(lambda k: Command(end=end if k == 3 else EpisodeEnd.NONE))
    first, second = make_runner(with_device(device)).sample(num_timesteps=6)
    assert (len(first), first.is_terminated, first.is_truncated) == (4, terminated, not terminated)
    assert (first.get_rewards(-1), first.get_infos(-1)[key]) == (reward, value)
    assert (len(second), second.is_done) == (2, False)


def test_stopping_the_runner_closes_the_device():
    device = Script(lambda _: IDLE)
    runner = make_runner(with_device(device))
    runner.stop()
    assert device.calls == ["start", "close"]


def test_checkpoint_of_the_pipeline_leaves_the_device_out():
    device = Script(lambda _: HUMAN)
    device.handle = threading.Lock()  # cannot be pickled, like real hardware
    connector = make_runner(with_device(device))._module_to_env[InterventionConnector][0]
    args, kwargs = loads(dumps(connector.get_ctor_args_and_kwargs()))
    copy = InterventionConnector(*args, **kwargs)
    assert copy(batch={Columns.ACTIONS: {("e",): [0]}}, episodes=[])[IS_INTERVENTION] == {("e",): [0.0]}


def test_the_connector_sits_between_unbatching_and_unsquashing():
    pipeline = make_runner(lambda env, spaces: InterventionConnector())._module_to_env
    names = [type(c).__name__ for c in pipeline]
    at = names.index("InterventionConnector")
    assert names[at - 1] == "RemoveSingleTsTimeRankFromBatch"
    assert names[at + 1] == "NormalizeAndClipActions"


def test_the_synthetic_human_lifts_the_cube_in_place_of_a_random_policy():
    options = {"takeover_probability": 1.0, "start_after_step": 5, "reaction_s": 0.2, "help_steps": 90}
    runner = make_runner(
        operator_connector("scripted", options=options),
        env=lambda: gymnasium.make("hil/PandaPickCube-v0", image_obs=False),
    )
    (episode,) = runner.sample(num_episodes=1)
    flags = np.asarray(episode.get_extra_model_outputs(IS_INTERVENTION))
    assert not flags[:7].any()
    assert flags[7:].all()
    assert episode.is_terminated
    assert episode.get_return() == 1.0
    human = episode.get_actions(slice(7, None))
    assert set(human[:, 3]) <= {-1.0, 0.0, 1.0}
    assert np.abs(human).max() <= 1.0


def test_wrong_device_mode_or_option_is_refused_in_the_driver():
    for wrong in [("gampad", {}), ("scripted", {"mode": "press"}), ("scripted", {"options": {"nois": 1}})]:
        with pytest.raises(ValueError, match="Choose from"):
            operator_connector(wrong[0], **wrong[1])


def test_operator_connector_travels_to_the_runner_and_needs_no_env_where_there_is_none():
    build = loads(dumps(operator_connector("none")))
    assert isinstance(build(None, {}), InterventionConnector)
    assert {row[2] for row in every_step(make_runner(build), 5)} == {0.0}


def test_env_without_the_operator_wrapper_is_refused():
    env = gymnasium.vector.SyncVectorEnv([Toy])
    with pytest.raises(ValueError, match="must be wrapped in OperatorWrapper"):
        InterventionConnector(env=env, device=Script(lambda _: IDLE))
