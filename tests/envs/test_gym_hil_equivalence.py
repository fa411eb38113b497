"""The environments against gym-hil itself: same physics model, torques, trajectories, rewards and endings.

Free motion agrees to rounding. Contact amplifies rounding: an environment of ours that starts one rounding
error away now and then ends 1e-3 rad from its twin. So that is the yardstick where 1e-4 rad is exceeded.
"""

from __future__ import annotations

import re
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

import envs
from envs.expert import PickCubeExpert
from envs.opspace import SINGULAR_DET, OpSpaceController
from envs.panda import PandaEnv
from envs.pick_cube import PandaPickCubeEnv
from envs.scene import load_scene
from envs.snapshot import AFTER_FORWARD
from envs.wrappers import EE_STEP_SIZE

BEFORE_CONTACT, THROUGHOUT = 1e-6, 1e-4  # [rad]
NUDGES = (2e-15, -2e-15, 5e-15)  # [rad] of one joint: the rounding errors that the twins start with
SEEDS = [pytest.param(seed, marks=[] if seed in (0, 7) else pytest.mark.slow) for seed in range(20)]
# What is drawn may differ: names and addresses of meshes, the frames of visual geoms, bounding volumes.
DRAWN = re.compile(
    "mesh_|tex_|name|nmesh|nnames|npaths|ntex|nbvh|bvh_|nbuffer|signature|dof_length|light_(diffuse|specular|castshadow)|"
    "geom_(aabb|dataid|pos|quat|rbound|sameframe|size)"
)


@pytest.fixture(scope="module", params=envs.TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def theirs(task: str) -> Any:
    gym_hil = pytest.importorskip("gym_hil.envs")
    if task == "pick_cube":
        env = gym_hil.PandaPickCubeGymEnv(random_block_position=True)
    else:
        env = gym_hil.PandaArrangeBoxesGymEnv()
    env._n_substeps = 50  # as recorded; 0.1 // 0.002 is 49 in floating point
    env._viewer.close()  # its context and ours, freed in any order, complain to each other
    return env


@pytest.fixture(scope="module")
def ours(task: str) -> PandaEnv:
    base = gymnasium.make(f"hil/{envs.TASKS[task]}Base-v0").unwrapped
    assert isinstance(base, PandaEnv)
    return base


@pytest.mark.parametrize("quality", ["full", "fast"])
def test_physics_of_the_model_is_theirs_bit_by_bit(ours: PandaEnv, theirs: Any, quality: str) -> None:
    model, compared = load_scene(ours.scene_file, quality), 0
    for name in dir(theirs.model):
        value = getattr(theirs.model, name)
        if name.startswith("_") or DRAWN.match(name) or callable(value):
            continue
        if isinstance(value, int | float | np.ndarray):
            np.testing.assert_array_equal(getattr(model, name), value, err_msg=name)
            compared += 1
    assert compared > 200
    colliding = theirs.model.geom_contype != 0
    for name in ("geom_pos", "geom_quat", "geom_rbound", "geom_aabb"):
        np.testing.assert_array_equal(getattr(model, name)[colliding], getattr(theirs.model, name)[colliding])
    for geom in np.flatnonzero(colliding & (theirs.model.geom_type == mujoco.mjtGeom.mjGEOM_MESH)):
        np.testing.assert_array_equal(collision_vertices(model, geom), collision_vertices(theirs.model, geom))


def collision_vertices(model: mujoco.MjModel, geom: int) -> np.ndarray:
    mesh = model.geom_dataid[geom]
    return model.mesh_vert[model.mesh_vertadr[mesh] :][: model.mesh_vertnum[mesh]]


def test_torques_are_theirs_also_where_the_arm_is_singular(theirs: Any) -> None:
    from gym_hil.controllers import opspace

    model, data = theirs.model, mujoco.MjData(theirs.model)
    site = model.site("pinch").id
    controller = OpSpaceController(model, data, site, theirs._home_position)
    rng = np.random.default_rng(0)
    singular = 0
    for trial in range(60):
        mujoco.mj_resetData(model, data)
        data.qpos[:7] = theirs._home_position + rng.normal(0, 0.3, 7)
        if trial % 2:
            data.qpos[:7] = rng.normal(0, 0.02, 7)  # stretched out: J M⁻¹ Jᵀ loses rank
        data.qvel[:] = rng.normal(0, 0.5, model.nv)
        data.qvel[13:] = 0
        mujoco.mj_forward(model, data)
        singular += abs(np.linalg.det(task_inverse_inertia(model, data, site))) < SINGULAR_DET
        pos = data.site_xpos[site] + rng.normal(0, 0.05, 3)
        quat = rng.normal(size=4)
        quat /= np.linalg.norm(quat)
        expected = opspace(
            model, data, site, np.arange(7), pos, quat, theirs._home_position, gravity_comp=True
        )
        actual = controller.torque(pos.tolist(), quat.tolist())
        np.testing.assert_allclose(actual, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())
    assert 10 < singular < 50  # both branches ran


def task_inverse_inertia(model: mujoco.MjModel, data: mujoco.MjData, site: int) -> np.ndarray:
    jacobian, mass = np.zeros((6, model.nv)), np.zeros((model.nv, model.nv))
    mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], site)
    mujoco.mj_fullM(model, mass, data.qM)
    return jacobian[:, :7] @ np.linalg.solve(mass[:7, :7], jacobian[:, :7].T)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_hundred_random_actions_lead_where_theirs_do(ours: PandaEnv, theirs: Any, seed: int) -> None:
    """Any motion of the 4-D action space, the gripper thrown about, turns ignored, from a start of theirs."""
    np.random.seed(seed)  # theirs draws from it
    theirs.reset()
    ours.reset(options={"block_xy": object_positions(theirs)})
    np.testing.assert_array_equal(ours.data.qpos, theirs.data.qpos)
    start, touched = ours.get_state(), False
    rng = np.random.default_rng(seed)
    actions = np.zeros((100, 7))
    actions[:, :3] = rng.uniform(-EE_STEP_SIZE, EE_STEP_SIZE, (100, 3))
    actions[:, 3:] = rng.uniform(-1.0, 1.0, (100, 4))
    path, error = np.zeros((100, 7)), np.zeros(100)
    for t, action in enumerate(actions):
        result, expected = ours.step(action), theirs.step(action)
        touched = touched or touches(ours)
        path[t] = ours.data.qpos[:7]
        error[t] = np.abs(path[t] - theirs.data.qpos[:7]).max()
        assert error[t] < BEFORE_CONTACT or touched
        assert result[1:4] == expected[1:4]
        assert result[4] == expected[4]
    if error.max() > THROUGHOUT:
        spread = divergence_of_twins(ours, start, actions, path)
        assert (error <= np.maximum(THROUGHOUT, 10 * spread)).all(), f"{error.max():.1e}, {spread.max():.1e}"


def divergence_of_twins(
    env: PandaEnv, start: np.ndarray, actions: np.ndarray, path: np.ndarray
) -> np.ndarray:
    """(T,) how far [rad] a start one rounding error off may have led from `path` (T, 7) by each step."""
    apart = np.zeros((len(NUDGES), len(actions)))
    for twin, nudge in enumerate(NUDGES):
        env.set_state(start)
        env.data.qpos[0] += nudge
        for t, action in enumerate(actions):
            env.step(action)
            apart[twin, t] = np.abs(env.data.qpos[:7] - path[t]).max()
    return np.maximum.accumulate(apart.max(axis=0))


def test_rewards_and_endings_are_theirs_wherever_the_objects_are(ours: PandaEnv, theirs: Any) -> None:
    """Objects thrown around the thresholds: lifted or not, outside or not, on their targets or not."""
    rng = np.random.default_rng(0)
    outcomes = set()
    theirs.reset()
    for _ in range(60):
        ours.reset()
        throw_objects(ours, rng)
        copy_state(ours, theirs)
        assert ours.step(np.zeros(7))[1:] == theirs.step(np.zeros(7))[1:]
        for ours.reward_type in ("dense", "sparse"):  # type: ignore[attr-defined]
            theirs.reward_type = ours.reward_type  # type: ignore[attr-defined]
            reward, success, terminated = ours.evaluate()
            assert reward == pytest.approx(theirs._compute_reward(), abs=1e-9)
            if ours.reward_type == "dense":  # type: ignore[attr-defined]
                assert success == theirs._is_success()
        outcomes.add((success, terminated))
    assert outcomes == {(False, False), (False, True), (True, True)}


def throw_objects(env: PandaEnv, rng: np.random.Generator) -> None:
    if isinstance(env, PandaPickCubeEnv):
        env._cube_qpos[:] = rng.uniform([0.2, -0.25, 0.02], [0.6, 0.25, 0.35])
        if rng.random() < 0.3:  # in the hand
            env._cube_qpos[:] = env.tcp_pos + np.array([0.0, 0.0, rng.uniform(0.0, 0.02)])
    else:
        for address, target in zip(env._box_qpos, env.target_pos, strict=True):  # type: ignore[attr-defined]
            env.data.qpos[address : address + 3] = (*(target[:2] + rng.uniform(-0.018, 0.018, 2)), 0.02)
        if rng.random() < 0.3:
            env.data.qpos[env._box_qpos[0] :][:2] = rng.choice([-0.1, 0.4, 0.9]), rng.choice([-0.6, 0.0, 0.6])  # type: ignore[attr-defined]
    mujoco.mj_forward(env.model, env.data)
    env._snapshot.take(AFTER_FORWARD)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("task", ["pick_cube"], indirect=True)
def test_grasps_and_lifts_are_theirs(ours: PandaPickCubeEnv, theirs: Any, seed: int) -> None:
    """A noisy expert: free motion, then fingers on the cube, then the cube in the air."""
    np.random.seed(seed)
    theirs.reset()
    ours.reset(options={"block_xy": object_positions(theirs)})
    expert = PickCubeExpert(ours, noise=0.5, rng=np.random.default_rng(seed))
    tolerance = BEFORE_CONTACT
    terminated = False
    while not terminated:
        motion, gripper = np.split(expert.action().astype(np.float64), [3])
        action = np.concatenate([EE_STEP_SIZE * motion, np.zeros(3), gripper - 1.0])
        observation, reward, terminated, truncated, info = ours.step(action)
        expected = theirs.step(action)
        if touches(ours):
            tolerance = THROUGHOUT
        np.testing.assert_allclose(ours.data.qpos[:7], theirs.data.qpos[:7], atol=tolerance, rtol=0)
        for key, value in expected[0].items():
            np.testing.assert_allclose(observation[key], value, atol=100 * tolerance, rtol=1e-5, err_msg=key)
        assert (reward, terminated, truncated, info["succeed"]) == (
            *expected[1:4],
            bool(expected[4]["succeed"]),
        )
    assert info["succeed"]
    assert tolerance == THROUGHOUT


@pytest.mark.slow
@pytest.mark.parametrize("task", ["pick_cube"], indirect=True)
def test_hard_contact_differs_no_more_than_rounding_does(ours: PandaPickCubeEnv, theirs: Any) -> None:
    """Random pushing and snapping, one control step at a time from the same state."""
    twin = gymnasium.make("hil/PandaPickCubeBase-v0").unwrapped
    assert isinstance(twin, PandaPickCubeEnv)
    theirs.reset()
    differences = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ours.reset(seed=seed)
        for _ in range(60):
            copy_state(ours, theirs)
            twin.set_state(ours.get_state())
            twin.data.qpos[0] += NUDGES[0]
            action = np.zeros(7)
            action[:3] = rng.uniform(-0.025, 0.025, 3) - [0, 0, 0.002]  # drifts down onto cube and floor
            action[6] = rng.choice([-1.0, 0.0, 1.0])
            for env in (ours, twin, theirs):
                env.step(action)
            arms = [env.data.qpos[:7] for env in (ours, theirs, twin)]
            differences.append([np.abs(arms[0] - other).max() for other in arms[1:]])
    median, tail = np.quantile(differences, [0.5, 0.99], axis=0)
    assert median[0] < 1e-13
    assert tail[0] < 5 * tail[1], f"99 %: {tail[0]:.1e} rad to theirs, {tail[1]:.1e} rad by rounding"


def copy_state(ours: PandaEnv, theirs: Any) -> None:
    """Bring their simulation, kinematics included, to where ours is; see `PandaEnv.get_state`."""
    which = mujoco.mjtState.mjSTATE_INTEGRATION
    how, *state = ours.get_state()[: 1 + mujoco.mj_stateSize(theirs.model, which)]
    mujoco.mj_setState(theirs.model, theirs.data, state, which)
    (mujoco.mj_step if how else mujoco.mj_forward)(theirs.model, theirs.data)
    np.testing.assert_allclose(ours.data.qpos, theirs.data.qpos, rtol=0, atol=1e-14)  # theirs never sleep


def object_joints(model: mujoco.MjModel) -> np.ndarray:
    return np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)


def object_positions(env: Any) -> np.ndarray:
    """(2,) of the cube or (5, 2) of the boxes [m]."""
    addresses = env.model.jnt_qposadr[object_joints(env.model)]
    return np.squeeze(np.array([env.data.qpos[address : address + 2] for address in addresses]))


def touches(env: PandaEnv) -> bool:
    """Something other than objects and floor among themselves is in contact."""
    loose = {0, *env.model.jnt_bodyid[object_joints(env.model)]}  # 0: the world, with the floor
    bodies = env.model.geom_bodyid[env.data.contact.geom]
    return any(not set(pair) <= loose for pair in bodies)
