"""A person in the loop of any env: who acts, what `info` says, how an episode ends."""

from __future__ import annotations

import inspect
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from puppet import FAILURE, RERECORD, SUCCESS, Puppet, move

import envs  # noqa: F401  # registers the ids
from hil_rllib import factory, wrappers
from hil_rllib.contract import Gripper
from hil_rllib.devices import DeviceUnavailable
from hil_rllib.factory import make_env, wrap_env
from hil_rllib.wrappers import InputsControlWrapper

BASE = "hil/PandaPickCubeBase-v0"
POLICY = np.array([0.5, 0.0, 0.0, 1.0], np.float32)


def make(*commands, **options):
    """The pick-cube env with a `Puppet` that gives `commands`, and its first observation taken."""
    env = make_env(BASE, use_inputs_control=True, reset_delay_seconds=0, device=Puppet(*commands), **options)
    env.reset(seed=0)
    return env


def test_the_policy_acts_until_the_person_does_and_info_tells():
    env = make(wrappers.IDLE, move(y=-1.0, gripper=Gripper.CLOSE))
    start = env.unwrapped.tcp_pos
    _, _, _, _, info = env.step(POLICY)
    assert info["is_intervention"] is False
    np.testing.assert_array_equal(info["teleop_action"], POLICY)
    after_policy = env.unwrapped.tcp_pos
    assert after_policy[0] > start[0] + 0.001
    _, _, _, _, info = env.step(POLICY)
    assert info["is_intervention"] is True
    for key in ("teleop_action", "action_intervention"):
        np.testing.assert_array_equal(info[key], [0.0, -1.0, 0.0, 2.0])
    assert env.unwrapped.gripper == 255.0  # 2 closes
    assert env.unwrapped.tcp_pos[1] < after_policy[1] - 0.001
    assert (info["rerecord_episode"], info["next.success"], info["succeed"]) == (False, False, False)
    assert info["discrete_penalty"] == -0.02  # it closed while open
    assert info["command_latency_ms"] > 0
    env.close()


@pytest.mark.parametrize(
    ("verdict", "reward", "terminated", "truncated", "success", "rerecord"),
    [
        (SUCCESS, 1.0, True, False, True, False),
        (FAILURE, 0.0, True, False, False, False),
        (RERECORD, 0.0, False, True, False, True),
    ],
)
def test_the_person_ends_the_episode(verdict, reward, terminated, truncated, success, rerecord):
    env = make(verdict)
    _, *outcome, info = env.step(POLICY)
    assert outcome == [reward, terminated, truncated]
    assert (info["next.success"], info["rerecord_episode"]) == (success, rerecord)
    env.close()


def test_a_time_limit_truncates_and_does_not_terminate():
    env = make(max_episode_steps=2)
    env.step(POLICY)
    _, _, terminated, truncated, info = env.step(POLICY)
    assert (terminated, truncated, info["next.success"]) == (False, True, False)
    env.close()


def test_auto_reset_begins_the_next_episode_and_keeps_the_last_observation():
    env = make(*[move(x=1.0)] * 2, SUCCESS, auto_reset=True, max_episode_steps=2)
    start = env.unwrapped.tcp_pos
    env.step(POLICY)
    observation, _, _, truncated, info = env.step(POLICY)
    assert truncated
    np.testing.assert_allclose(observation["agent_pos"][15:], start, atol=1e-6)
    assert info["final_obs"]["agent_pos"][15] > start[0] + 0.005
    _, _, terminated, _, info = env.step(POLICY)  # the limit counts anew
    assert terminated
    assert info["succeed"] is True  # of the episode that ended, not of the one that begins
    env.close()


def test_a_policy_that_leaves_the_box_is_told_of_as_it_was_executed():
    env = make()
    _, _, _, _, info = env.step(np.array([3.0, -3.0, 0.0, 1.0], np.float32))
    np.testing.assert_array_equal(info["teleop_action"], [1.0, -1.0, 0.0, 1.0])
    env.close()


class Resetting(gymnasium.Wrapper):
    """Calls `meanwhile` while the env resets."""

    def __init__(self, env, meanwhile):
        super().__init__(env)
        self.meanwhile = meanwhile

    def reset(self, **options):
        self.meanwhile()
        return self.env.reset(**options)


def test_a_verdict_given_while_the_env_resets_is_not_about_the_episode_that_begins():
    class Keys(Puppet):
        def reset(self):
            self.commands.clear()

    keys = Keys()
    base = Resetting(gymnasium.make(BASE), lambda: keys.commands.append(SUCCESS))
    env = InputsControlWrapper(wrap_env(base, reset_delay_seconds=0), use_gripper=True, device=keys)
    env.reset(seed=0)
    _, reward, terminated, _, _ = env.step(POLICY)
    assert (reward, terminated) == (0.0, False)
    env.close()


@pytest.mark.parametrize("use_gripper", [False, True])
@pytest.mark.parametrize("use_orientation", [False, True])
def test_actions_have_the_entries_that_were_asked_for(use_gripper, use_orientation):
    size = 3 + 3 * use_orientation + use_gripper
    command = move(z=1.0, gripper=Gripper.CLOSE)
    env = make(command, use_gripper=use_gripper, use_orientation=use_orientation)
    assert env.action_space.shape == (size,)
    _, _, _, _, info = env.step(env.action_space.sample())
    expected = np.zeros(size)
    expected[2] = 1.0
    if use_gripper:
        expected[-1] = 2.0
    np.testing.assert_array_equal(info["teleop_action"], expected)
    assert env.unwrapped.gripper == (255.0 if use_gripper else 0.0)
    env.close()


def test_step_sizes_scale_the_person_and_use_gripper_false_holds():
    base = wrap_env(gymnasium.make(BASE), reset_delay_seconds=0)
    env = InputsControlWrapper(base, 0.5, 0.25, 0.1, device=Puppet(move(1, -1, 1, Gripper.CLOSE)))
    env.reset(seed=0)
    _, _, _, _, info = env.step(POLICY)
    np.testing.assert_allclose(info["teleop_action"], [0.5, -0.25, 0.1, 1.0])
    env.close()
    motion_only = wrap_env(gymnasium.make(BASE), use_gripper=False, reset_delay_seconds=0)
    with pytest.raises(ValueError, match="use_gripper=True needs an env whose actions have a gripper"):
        InputsControlWrapper(motion_only, use_gripper=True, device=Puppet())
    motion_only.close()


def test_a_device_lost_in_mid_intervention_leaves_that_very_step_to_the_policy(caplog):
    env = make(move(y=1.0), DeviceUnavailable("unplugged"), move(y=1.0))
    assert env.step(POLICY)[4]["is_intervention"]
    for _ in range(3):
        info = env.step(POLICY)[4]
        assert not info["is_intervention"]
        np.testing.assert_array_equal(info["teleop_action"], POLICY)
    assert len([r for r in caplog.records if "unplugged" in r.getMessage()]) == 1
    env.close()
    assert env.device.closed


@pytest.mark.parametrize(("kind", "message"), [("Gamepad", "No gamepad"), ("Keyboard", "DISPLAY is not set")])
@pytest.mark.parametrize("task", ["PickCube", "ArrangeBoxes"])
def test_ids_for_people_work_with_nobody_there(task, kind, message, caplog, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    env_id = f"hil/Panda{task}{kind}-v0"
    env = gymnasium.make(env_id, use_viewer=False, reset_delay_seconds=0, hz=None)
    assert len([r for r in caplog.records if message in r.getMessage()]) == 1
    env.reset(seed=3)
    plain = gymnasium.make(f"hil/Panda{task}-v0")
    plain.reset(seed=3)
    for _ in range(3):
        observation, _, _, _, info = env.step(POLICY)
        assert info["is_intervention"] is False
        np.testing.assert_array_equal(observation["agent_pos"], plain.step(POLICY)[0]["agent_pos"])
    env.close()
    plain.close()


def test_make_env_names_the_id_that_was_meant():
    with pytest.raises(ValueError, match=r"'hil/PandaPickCube-v0'\. Did you mean hil/PandaPickCubeBase-v0\?"):
        make_env("hil/PandaPickCube-v0")


def test_arguments_are_those_of_gym_hil():
    """Names, order and defaults, so that its users change one import."""
    hil_wrappers = pytest.importorskip("gym_hil.wrappers.hil_wrappers")
    their_factory = pytest.importorskip("gym_hil.wrappers.factory")

    def theirs(function):
        return {
            name: parameter.default
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name != "self"
        }

    for ours, reference in [
        (factory.wrap_env, their_factory.wrap_env),
        (wrappers.InputsControlWrapper, hil_wrappers.InputsControlWrapper),
    ]:
        expected = theirs(reference)
        found = theirs(ours)
        if "input_threshold" in expected:  # which gym-hil takes and never reads
            assert found.pop("input_threshold") == 0.1
            del expected["input_threshold"]
        assert list(found.items()) == list(expected.items())
    for name in ("EEActionWrapper", "GripperPenaltyWrapper", "ResetDelayWrapper"):
        assert hasattr(hil_wrappers, name)
        assert hasattr(wrappers, name)


def test_the_wrapper_needs_neither_ray_nor_torch():
    code = "import sys, hil_rllib.factory; print({'ray', 'torch', 'pygame'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
