"""The synthetic human: when it helps, for how long, how well."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

import envs  # noqa: F401 - registers the ids
from hil_rllib.contract import CONTROL_DT, SUCCESS, Gripper
from hil_rllib.devices.scripted import ScriptedHuman

STILL = np.array([0.0, 0.0, 0.0, 1.0], np.float32)  # a policy that does nothing
AT_ONCE = {"takeover_probability": 1.0, "start_after_step": 0, "reaction_s": 0.0}


@pytest.fixture(scope="module")
def env():
    env = gymnasium.make("hil/PandaPickCube-v0", image_obs=False, random_block_position=True)
    yield env
    env.close()


def episode(env, human, steps, seed=0, policy=STILL):
    """One episode in which the human takes over from `policy`: its commands, whether the cube was lifted."""
    env.reset(seed=seed)
    human.reset()
    commands = []
    for _ in range(steps):
        command = human.read()
        commands.append(command)
        action = (*command.motion, command.gripper) if command.intervening else policy
        *_, terminated, truncated, info = env.step(np.array(action, np.float32))
        if terminated or truncated:
            return commands, info[SUCCESS]
    return commands, False


def started(env, **options):
    human = ScriptedHuman(**options)
    human.start(env)
    return human


def when(commands):
    return [k for k, command in enumerate(commands) if command.intervening]


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_it_can_pick_up_the_cube(env, noise):
    human = started(env, **AT_ONCE, help_steps=100, noise=noise)
    assert sum(episode(env, human, 100, seed)[1] for seed in range(10)) >= (10 if noise == 0 else 8)


def test_it_takes_over_a_reaction_time_after_deciding_and_lets_go(env):
    human = started(env, takeover_probability=1.0, start_after_step=20, reaction_s=0.3, help_steps=5)
    commands, _ = episode(env, human, 40)
    assert when(commands) == [*range(23, 28), *range(31, 36), 39]


def test_attention_is_spent_step_by_step_until_the_budget_is_gone(env):
    human = started(env, **AT_ONCE, help_steps=15, budget_s=2.0)
    used = 0
    for seed in range(3):
        used += len(when(episode(env, human, 12, seed)[0]))
        assert human.human_seconds == pytest.approx(used * CONTROL_DT)
    assert used == 20


def test_the_end_of_the_episode_ends_the_help(env):
    human = started(env, takeover_probability=1.0, start_after_step=5, reaction_s=0.0)
    assert when(episode(env, human, 8)[0]) == [5, 6, 7]
    assert when(episode(env, human, 8)[0]) == [5, 6, 7]


def test_it_intervenes_as_often_as_told(env):
    human = started(env, takeover_probability=0.1, start_after_step=0, reaction_s=0.0, help_steps=1)
    env.reset(seed=0)
    took_over = sum(human.read().intervening for _ in range(3000))
    assert 240 < took_over < 360


def test_errors_are_rare_random_actions(env):
    def commands(error_rate):
        human = started(env, **AT_ONCE, help_steps=10_000, noise=0.0, error_rate=error_rate, seed=1)
        env.reset(seed=0)
        return [human.read() for _ in range(500)]

    right, *others = commands(0.0)
    assert all(other == right for other in others)  # nobody steps the env: one state, one right action
    wrong = [c for c in commands(0.2) if c != right]
    assert 60 < len(wrong) < 140
    assert {c.gripper for c in wrong} == set(Gripper)
    assert np.abs([c.motion for c in wrong]).max() <= 1.0


def test_it_helps_a_policy_that_is_stuck_not_one_that_gets_on(env):
    def first_help(policy):
        human = started(env, takeover_probability=0.0, stuck_after_steps=10, reaction_s=0.2)
        env.reset(options={"block_xy": (0.5, 0.0)})
        human.reset()
        for k in range(30):
            if human.read().intervening:
                return k
            env.step(policy)
        return None

    down = np.array([0.0, 0.0, -0.15, 1.0], np.float32)
    assert first_help(STILL) == 10 + 2
    assert first_help(down) > 25  # 3.75 mm nearer a step, slow but progress, until it meets the cube


def test_it_lifts_a_cube_that_is_already_in_the_hand(env):
    human = started(env, **AT_ONCE, help_steps=100, noise=0.0)
    env.reset(seed=0)
    human.reset()
    while env.unwrapped.block_pos[2] < 0.06:  # half-way up
        command = human.read()
        env.step(np.array([*command.motion, command.gripper], np.float32))
    other = started(env, **AT_ONCE, noise=0.0)
    commands = []
    for _ in range(15):
        commands.append(other.read())
        *_, terminated, _, info = env.step(np.array([*commands[-1].motion, commands[-1].gripper], np.float32))
        if terminated:
            break
    assert info[SUCCESS]
    assert all(c.gripper == Gripper.HOLD for c in commands)


def test_same_seed_same_human(env):
    options = {"takeover_probability": 0.2, "start_after_step": 0, "error_rate": 0.1}
    runs = [episode(env, started(env, **options, seed=seed), 60)[0] for seed in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]


def test_it_helps_to_arrange_boxes():
    env = gymnasium.make("hil/PandaArrangeBoxes-v0", max_episode_steps=600)
    human = started(env, takeover_probability=0.0, start_after_step=0, stuck_after_steps=10, help_steps=40)
    commands, success = episode(env, human, 600)  # a policy that does nothing
    assert success
    assert 0.6 < len(when(commands)) / len(commands) < 0.9  # it waits, sees that nothing happens, goes on


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("takeover_probability", 1.5, "in \\[0, 1\\]; got 1.5"),
        ("error_rate", -0.1, "in \\[0, 1\\]; got -0.1"),
        ("budget_s", -1.0, "at least 0; got -1.0"),
        ("help_steps", 0, "at least 1; got 0"),
    ],
)
def test_impossible_options_are_refused(option, value, says):
    with pytest.raises(ValueError, match=f"{option} .*{says}"):
        ScriptedHuman(**{option: value})


def test_an_env_it_does_not_know_is_refused():
    with pytest.raises(TypeError, match="No expert knows the task of CartPoleEnv"):
        ScriptedHuman().start(gymnasium.make("CartPole-v1"))
