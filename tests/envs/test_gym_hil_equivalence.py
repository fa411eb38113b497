"""The environment against gym-hil itself: the same physics model, the same torques, the same trajectories."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

import envs  # noqa: F401  # registers the ids
from envs.expert import PickCubeExpert
from envs.opspace import SINGULAR_DET, OpSpaceController
from envs.pick_cube import PandaPickCubeEnv
from envs.wrappers import EE_STEP_SIZE

BEFORE_CONTACT, THROUGHOUT = 1e-6, 1e-4  # [rad]; contact amplifies rounding
# What is drawn may differ: names and addresses of meshes, the frames of visual geoms, bounding volumes.
DRAWN = re.compile(
    "mesh_|tex_|name|nmesh|nnames|npaths|ntex|nbvh|bvh_|nbuffer|signature|dof_length|light_(diffuse|specular|castshadow)|"
    "geom_(aabb|dataid|pos|quat|rbound|sameframe|size)"
)


@pytest.fixture(scope="module")
def theirs() -> Iterator[Any]:
    gym_hil = pytest.importorskip("gym_hil.envs")
    env = gym_hil.PandaPickCubeGymEnv(reward_type="dense")
    env._n_substeps = 50  # as recorded; 0.1 // 0.002 is 49 in floating point
    yield env
    env.close()


@pytest.fixture(scope="module", params=["full", "fast"])
def ours(request: pytest.FixtureRequest) -> PandaPickCubeEnv:
    env = gymnasium.make("hil/PandaPickCubeBase-v0", reward_type="dense", render_quality=request.param)
    base = env.unwrapped
    assert isinstance(base, PandaPickCubeEnv)
    return base


def test_physics_of_the_model_is_theirs_bit_by_bit(ours: PandaPickCubeEnv, theirs: Any) -> None:
    compared = 0
    for name in dir(theirs.model):
        value = getattr(theirs.model, name)
        if name.startswith("_") or DRAWN.match(name) or callable(value):
            continue
        if isinstance(value, int | float | np.ndarray):
            np.testing.assert_array_equal(getattr(ours.model, name), value, err_msg=name)
            compared += 1
    assert compared > 200
    colliding = theirs.model.geom_contype != 0
    for name in ("geom_pos", "geom_quat", "geom_rbound", "geom_aabb"):
        np.testing.assert_array_equal(
            getattr(ours.model, name)[colliding], getattr(theirs.model, name)[colliding]
        )
    for geom in np.flatnonzero(colliding & (theirs.model.geom_type == mujoco.mjtGeom.mjGEOM_MESH)):
        np.testing.assert_array_equal(
            collision_vertices(ours.model, geom), collision_vertices(theirs.model, geom)
        )


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


@pytest.mark.parametrize("seed", range(4))
def test_grasps_and_lifts_are_theirs(ours: PandaPickCubeEnv, theirs: Any, seed: int) -> None:
    """A noisy expert: free motion, then fingers on the cube, then the cube in the air."""
    ours.reset(seed=seed)
    theirs.reset(seed=seed)
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
        assert reward == pytest.approx(expected[1], abs=100 * tolerance)
        assert (terminated, truncated, info["succeed"]) == (expected[2], False, bool(expected[4]["succeed"]))
    assert info["succeed"]
    assert tolerance == THROUGHOUT


@pytest.mark.slow
def test_hard_contact_differs_no_more_than_rounding_does(theirs: Any) -> None:
    """Random pushing and snapping, one control step at a time from the same state.

    Squeezed contacts now and then amplify the last bit of a joint angle to 1e-4 rad within one control step.
    So the yardstick is a twin of ours, one rounding error apart.
    """
    ours, twin = (gymnasium.make("hil/PandaPickCubeBase-v0").unwrapped for _ in range(2))
    assert isinstance(ours, PandaPickCubeEnv)
    assert isinstance(twin, PandaPickCubeEnv)
    differences = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ours.reset(seed=seed)
        for _ in range(60):
            copy_state(ours, theirs)
            twin.set_state(ours.get_state())
            twin.data.qpos[0] += 2e-15
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


def copy_state(ours: PandaPickCubeEnv, theirs: Any) -> None:
    """Bring their simulation, kinematics included, to where ours is; see `PandaEnv.get_state`."""
    how, state = ours.get_state()[0], ours.get_state()[1:]
    mujoco.mj_setState(theirs.model, theirs.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
    (mujoco.mj_step if how else mujoco.mj_forward)(theirs.model, theirs.data)
    np.testing.assert_array_equal(ours.data.qpos, theirs.data.qpos)


def touches(env: PandaPickCubeEnv) -> bool:
    """Something other than the cube on the floor is in contact."""
    resting = {env.model.geom("block").id, env.model.geom("floor").id}
    return any(set(env.data.contact.geom[i]) != resting for i in range(env.data.ncon))
