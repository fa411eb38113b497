"""The real env and the real intervention connector around a device, one step at a time."""

from __future__ import annotations

from types import SimpleNamespace

import gymnasium
import numpy as np
from ray.rllib.core.columns import Columns

import envs  # noqa: F401 - registers the ids
from hil_rllib.collect.intervention import InterventionConnector
from hil_rllib.collect.pacing import OperatorWrapper
from hil_rllib.contract import IS_INTERVENTION, LABEL, RERECORD, SUCCESS, env_action

POLICY = np.zeros(4, np.float32)  # in module space: stay, hold the gripper
BACKWARDS = np.array([-0.5, 0.0, 0.0, 0.0], np.float32)


def make_env():
    return gymnasium.vector.SyncVectorEnv(
        [lambda: OperatorWrapper(gymnasium.make("hil/PandaPickCube-v0", image_obs=False))]
    )


class Rig:
    """`step` does what RLlib's env runner does at a control step: connector, then env."""

    def __init__(self, vector_env, device, *, mode="hold", **options) -> None:
        self.now = 0.0
        self.env = vector_env.envs[0]
        self.connector = InterventionConnector(
            env=vector_env,
            device=device,
            mode=device.intervention_mode(mode),
            clock=lambda: self.now,
            **options,
        )
        self.episodes = 0
        self.reset()

    def reset(self, gripper=127.5):
        self.env.reset(options={"block_xy": (0.3, 0.14), "gripper": gripper})
        self.episodes += 1

    def step(self, policy=POLICY):
        """(the action executed, in module space; whether it was the person's; what the env returned)."""
        batch = {Columns.ACTIONS: {("e",): [policy]}}
        episode = SimpleNamespace(is_reset=True, id_=self.episodes)
        batch = self.connector(batch=batch, episodes=[episode])
        action, flag = batch[Columns.ACTIONS][("e",)][0], batch[IS_INTERVENTION][("e",)][0]
        self.now += 0.1
        return action, bool(flag), self.env.step(env_action(action))

    def tcp(self):
        return np.array(self.env.unwrapped.tcp_pos)

    def gripper(self):
        return self.env.unwrapped.gripper


def assert_drives(rig, control, press, release, settle=lambda: None):
    """Pressing the control does to the arm or the episode what its name says; letting go ends it."""
    name = control.name
    rig.reset(gripper={"open": 255.0, "close": 0.0}.get(name, 127.5))
    rig.step()
    before, gripper = rig.tcp(), rig.gripper()
    press(control)
    settle()
    taken = []
    for _ in range(4):
        _, flag, outcome = rig.step()
        taken.append(flag)
        if outcome[2] or outcome[3]:
            break
    moved = rig.tcp() - before
    if name[1:] in ("x", "y", "z"):
        axis = "xyz".index(name[1:])
        assert all(taken)
        assert moved[axis] * (1 if name[0] == "+" else -1) > 0.02
        assert np.abs(np.delete(moved, axis)).max() < 0.01
    elif name in ("open", "close"):
        assert all(taken)
        assert (rig.gripper() < gripper) if name == "open" else (rig.gripper() > gripper)
        assert np.abs(moved).max() < 0.005
    elif name in ("intervene", "toggle"):
        assert all(taken)
        assert np.abs(moved).max() < 0.005
    elif name == "label":
        assert not any(taken)
        assert outcome[4][LABEL]
    else:
        _, reward, terminated, truncated, info = outcome
        assert len(taken) == 1
        assert (terminated, truncated) == ((True, False) if name != "rerecord" else (False, True))
        assert (reward, info.get(SUCCESS)) == {"success": (1.0, True)}.get(name, (0.0, False))
        assert info.get(RERECORD, False) == (name == "rerecord")
        rig.reset()
    release(control)
    settle()
    rig.now += 1.0  # past the debounce
    assert rig.step()[1] == (name == "toggle")
    if name == "toggle":
        press(control)
        settle()
        rig.step()
        release(control)
        settle()
        rig.now += 1.0
        assert not rig.step()[1]
