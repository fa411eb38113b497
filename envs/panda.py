"""The Franka Panda with a Robotiq gripper, moved by its TCP in Cartesian steps; tasks derive from it."""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from envs.opspace import OpSpaceController
from envs.render import CameraRenderer
from envs.rotation import turned, within
from envs.safety import HELD_COMMANDS, CommandLimits, clipped
from envs.scene import load_scene
from envs.snapshot import AFTER_FORWARD, AFTER_STEP, Snapshot, let_objects_sleep

# All numbers: gym-hil 0.1.14, so that its datasets replay exactly.
CONTROL_DT = 0.1  # [s]
PHYSICS_STEPS = 50  # per control step, of 0.002 s each
GRIPPER_CLOSED = 255.0  # actuator command; 0 is open
IMAGE_SIZE = 128  # [px]
CAMERAS = {"front": "front", "wrist": "handcam_rgb"}  # observation key -> camera in the scene
ARM_JOINTS = 7
MAX_TURN = np.pi / 2  # [rad] ours: far from π, where the shorter way round flips; joint limits may come first


class PandaEnv(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """Base of the tasks. Action (7,): TCP motion x, y, z [m, world], turn x, y, z [rad, world], gripper.

    The motion moves a target that the TCP is servoed to. The turn, axis times angle, turns that target, to at
    most `MAX_TURN` from where the hand points down; like gym-hil the environment ignores it, unless
    `use_orientation`. The gripper entry moves its command by that fraction of the whole range: -1 opens,
    1 closes, 0 holds. What the arm may do of an action, `envs.safety` decides.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  # Gymnasium declares it as an instance variable
        "render_modes": ["rgb_array"],
        "render_fps": 10,
    }
    scene_file = "scene.xml"
    home = np.array([0, 0.195, 0, -2.43, 0, 2.62, 0.785])  # [rad]
    workspace = np.array([[0.2, -0.3, 0.0], [0.6, 0.3, 0.5]])  # [m] the TCP target is clipped to it

    def __init__(
        self,
        image_obs: bool = False,
        render_quality: str = "full",
        render_mode: str | None = "rgb_array",
        use_orientation: bool = False,
        environment_size: int = 3,
    ) -> None:
        """image_obs: put both cameras' frames into the observation. render_quality: 'full' or 'fast'.

        environment_size: how many numbers the task's `environment_state` has.
        """
        if render_mode not in (None, "rgb_array"):
            raise ValueError(
                f"Unknown render_mode '{render_mode}'. Choose 'rgb_array' or None; for a window make an id "
                "named Viewer."
            )
        self.image_obs, self.render_mode, self.use_orientation = image_obs, render_mode, use_orientation
        self.model = load_scene(self.scene_file, render_quality)
        let_objects_sleep(self.model)
        self.data = mujoco.MjData(self.model)
        site = self.model.site("pinch").id
        self._controller = OpSpaceController(self.model, self.data, site, self.home)
        self._tcp = self.data.site_xpos[site]
        self._down_quat = self.model.body("target").quat
        self._gripper_id = self.model.actuator("fingers_actuator").id
        self._renderer: CameraRenderer | None = None
        if image_obs:  # now, not at the first frame: a machine without OpenGL should say so before any work
            self._renderer = CameraRenderer(self.model, CAMERAS, IMAGE_SIZE)
        self.limits = CommandLimits(self.workspace)
        self._snapshot = Snapshot(self.model, self.data)
        self._action_box = spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.action_space = self._action_box
        agent = spaces.Box(-np.inf, np.inf, (2 * ARM_JOINTS + 1 + 3,), np.float32)
        if image_obs:
            image = spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
            self.observation_space = spaces.Dict(
                {"pixels": spaces.Dict(dict.fromkeys(CAMERAS, image)), "agent_pos": agent}
            )
        else:
            world = spaces.Box(-np.inf, np.inf, (environment_size,), np.float32)
            self.observation_space = spaces.Dict({"agent_pos": agent, "environment_state": world})

    # What a task adds.

    def place_objects(self, options: dict[str, Any]) -> None:
        """Put the task's objects where the episode starts; `options` holds what is left for the task."""
        raise NotImplementedError

    def environment_state(self) -> NDArray[np.float64]:
        """(environment_size,) the object positions that state observations hold [m]."""
        raise NotImplementedError

    def evaluate(self) -> tuple[float, bool, bool]:
        """(reward, success, terminated) of the present state."""
        raise NotImplementedError

    # Gymnasium.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """options: `gripper` (0..255, open..closed, fingers placed accordingly) and those of the task."""
        super().reset(seed=seed)
        self.limits.reset()
        options = dict(options or {})
        gripper = float(options.pop("gripper", 0.0))
        if not 0.0 <= gripper <= GRIPPER_CLOSED:
            raise ValueError(f"options['gripper'] is {gripper}; it must lie in 0 (open) .. 255 (closed).")
        mujoco.mj_resetData(self.model, self.data)
        self._home_robot()
        if gripper > 0.0:
            self._place_fingers(gripper)
        self.place_objects(options)
        mujoco.mj_forward(self.model, self.data)
        self._snapshot.take(AFTER_FORWARD)
        _, success, _ = self.evaluate()
        return self._observation(), {"succeed": success}

    def step(self, action: ArrayLike) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step of 0.1 s; `info` counts held commands. Raises ValueError on another shape."""
        held = self.limits.held
        command = self.limits(clipped(action, self._action_box))
        self._move_target(command[:3])
        if self.use_orientation and command[3:6].any():  # else not a bit of the target changes
            self._turn_target(command[3:6])
        self._move_gripper(float(command[6]))
        self._advance(PHYSICS_STEPS)
        reward, success, terminated = self.evaluate()
        info: dict[str, Any] = {"succeed": success}
        if self.limits.held > held:
            info[HELD_COMMANDS] = self.limits.held
        return self._observation(), reward, terminated, False, info

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]
        """uint8 (128, 256, 3): the cameras side by side."""
        return np.concatenate(list(self.render_cameras().values()), axis=1)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    # State.

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{type(self).__name__} shares memory with MuJoCo: a copy, or what a pickle gives, would not "
            "move. Make another, and call its set_state with this one's get_state()."
        )

    @property
    def tcp_pos(self) -> NDArray[np.float64]:
        """(3,) tool centre point [m, world]."""
        return self._tcp.copy()

    @property
    def gripper(self) -> float:
        """The gripper's command, 0 (open) .. 255 (closed)."""
        return float(self.data.ctrl[self._gripper_id])

    def render_cameras(self) -> dict[str, NDArray[np.uint8]]:
        """camera -> uint8 (128, 128, 3); the renderer is made on first use."""
        if self._renderer is None:
            self._renderer = CameraRenderer(self.model, CAMERAS, IMAGE_SIZE)
        return self._renderer.render(self.data)

    def get_state(self) -> NDArray[np.float64]:
        """A snapshot that `set_state` continues from bit by bit; see `envs.snapshot`."""
        return self._snapshot.values.copy()

    def set_state(self, state: NDArray[np.float64]) -> None:
        """Return to a snapshot of `get_state`, of this or another environment of the same task."""
        self._snapshot.restore(state)

    # Inside.

    def _observation(self) -> dict[str, Any]:
        agent = np.empty(2 * ARM_JOINTS + 4, np.float32)
        agent[:7], agent[7:14] = self.data.qpos[:ARM_JOINTS], self.data.qvel[:ARM_JOINTS]
        agent[14], agent[15:] = self.data.ctrl[self._gripper_id], self._tcp
        if self.image_obs:
            return {"pixels": self.render_cameras(), "agent_pos": agent}
        return {"agent_pos": agent, "environment_state": self.environment_state().astype(np.float32)}

    def _home_robot(self) -> None:
        self.data.qpos[:ARM_JOINTS] = self.home
        mujoco.mj_forward(self.model, self.data)
        self.data.mocap_pos[0] = self._tcp

    def _place_fingers(self, gripper: float) -> None:
        """Let the fingers move to where `gripper` holds them, then put everything else back."""
        free = np.flatnonzero(self.model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)
        fingers = slice(ARM_JOINTS, self.model.jnt_qposadr[free[0]])  # between arm and first loose object
        start = self.data.qpos.copy()
        self.data.ctrl[self._gripper_id] = gripper
        self._advance(5 * PHYSICS_STEPS)
        start[fingers] = self.data.qpos[fingers]
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = start
        self._home_robot()
        self.data.ctrl[self._gripper_id] = gripper

    def _move_target(self, motion: NDArray[np.float64]) -> None:
        self.data.mocap_pos[0] = self.limits.target(self.data.mocap_pos[0], motion)

    def _turn_target(self, turn: NDArray[np.float64]) -> None:
        target = turned(self.data.mocap_quat[0], turn)
        self.data.mocap_quat[0] = within(target, self._down_quat, MAX_TURN)

    def _move_gripper(self, change: float) -> None:
        closed = self.data.ctrl[self._gripper_id] / GRIPPER_CLOSED + change
        self.data.ctrl[self._gripper_id] = min(max(closed, 0.0), 1.0) * GRIPPER_CLOSED

    def _advance(self, physics_steps: int) -> None:
        model, data, torque = self.model, self.data, self._controller.torque
        arm = data.ctrl[:ARM_JOINTS]
        pos, quat = data.mocap_pos[0].tolist(), data.mocap_quat[0].tolist()
        for _ in range(physics_steps - 1):
            arm[:] = torque(pos, quat)
            mujoco.mj_step(model, data)
        arm[:] = torque(pos, quat)
        self._snapshot.take(AFTER_STEP)
        mujoco.mj_step(model, data)
