"""Operational-space control of the arm: PD on a site's pose, with joint PD towards home in the null space.

    Λ = (J M⁻¹ Jᵀ)⁻¹            task-space inertia (6, 6)
    τ = Jᵀ Λ (ẍ − J M⁻¹ q̈) + q̈ + b

ẍ (6,) is the task PD, q̈ (7,) the joint PD, b gravity and Coriolis forces. This is Khatib's law (1987) with
the dynamically consistent null space written out, so that one 6 x 6 solve serves task and null space alike.
Gains and the near-singular rule are those of gym-hil 0.1.14, whose torques it reproduces to rounding.
"""

from __future__ import annotations

import math

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dgetrf, dgetrs, dposv

TASK_STIFFNESS = 200.0  # [1/s²], position and orientation
TASK_DAMPING = 2.0 * math.sqrt(TASK_STIFFNESS)  # critical
NULL_STIFFNESS = 0.5  # [1/s²]
NULL_DAMPING = 2.0 * math.sqrt(NULL_STIFFNESS)
SINGULAR_DET = 1e-2  # below this |det J M⁻¹ Jᵀ| the pseudo-inverse takes over
SINGULAR_RCOND = 1e-2


class OpSpaceController:
    """Joint torques for one arm whose degrees of freedom are the model's first `home.size`.

    Every buffer is allocated once and every view of `data` is taken once: it runs at each physics step, where
    plain numpy with temporaries costs three times the physics itself.
    """

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, site_id: int, home: NDArray[np.float64]
    ) -> None:
        """home: (n,) joint positions [rad] that the null space pulls towards."""
        n = home.size
        self._model, self._data, self._site_id = model, data, site_id
        self._home = home.astype(np.float64)
        self._jacobian = np.zeros((6, model.nv))
        self._linear, self._angular = self._jacobian[:3], self._jacobian[3:]
        self._arm_jacobian = self._jacobian[:, :n]
        self._qpos, self._qvel, self._bias = data.qpos[:n], data.qvel[:n], data.qfrc_bias[:n]
        self._site_pos, self._site_mat = data.site_xpos[site_id], data.site_xmat[site_id]
        self._full_mass = np.zeros((model.nv, model.nv))
        self._mass = self._full_mass[:n, :n]
        self._acceleration = np.zeros(6)

    def torque(self, pos: list[float], quat: list[float]) -> NDArray[np.float64]:
        """(n,) joint torques [N m] towards the site pose `pos` [m], `quat` (w, x, y, z), in the world frame.

        Uses whatever kinematics and inertia `data` holds. Like gym-hil, the caller does not refresh them
        between physics steps, so they are those of the start of the last one.
        """
        mujoco.mj_jacSite(self._model, self._data, self._linear, self._angular, self._site_id)
        mujoco.mj_fullM(self._model, self._full_mass, self._data.qM)
        jacobian, qvel = self._arm_jacobian, self._qvel

        velocity = jacobian.dot(qvel).tolist()
        x, y, z = self._site_pos.tolist()
        rx, ry, rz = rotation_error(self._site_mat.tolist(), quat)
        self._acceleration[:] = (
            TASK_STIFFNESS * (pos[0] - x) - TASK_DAMPING * velocity[0],
            TASK_STIFFNESS * (pos[1] - y) - TASK_DAMPING * velocity[1],
            TASK_STIFFNESS * (pos[2] - z) - TASK_DAMPING * velocity[2],
            -TASK_STIFFNESS * rx - TASK_DAMPING * velocity[3],
            -TASK_STIFFNESS * ry - TASK_DAMPING * velocity[4],
            -TASK_STIFFNESS * rz - TASK_DAMPING * velocity[5],
        )
        joint = NULL_STIFFNESS * (self._home - self._qpos) - NULL_DAMPING * qvel

        _, mass_inv_jt, _ = dposv(self._mass, jacobian.T)  # M⁻¹ Jᵀ, (n, 6)
        inverse_inertia = jacobian.dot(mass_inv_jt)  # Λ⁻¹
        force = solve_inertia(inverse_inertia, self._acceleration - joint.dot(mass_inv_jt))
        return force.dot(jacobian) + joint + self._bias


def solve_inertia(inverse_inertia: NDArray[np.float64], rhs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Λ rhs (6,) from Λ⁻¹ (6, 6): an LU solve, or the pseudo-inverse where Λ⁻¹ is nearly singular."""
    lu, pivots, _ = dgetrf(inverse_inertia)
    if abs(math.prod(lu.ravel()[::7].tolist())) >= SINGULAR_DET:
        solution: NDArray[np.float64] = dgetrs(lu, pivots, rhs)[0]
        return solution
    return np.linalg.pinv(inverse_inertia, rcond=SINGULAR_RCOND).dot(rhs)


def rotation_error(mat: list[float], quat: list[float]) -> tuple[float, float, float]:
    """Axis times angle [rad, world] of the rotation from `quat` (w, x, y, z) to `mat` (9, row-major)."""
    w, x, y, z = mat_to_quat(mat)
    dw, dx, dy, dz = quat
    ew = w * dw + x * dx + y * dy + z * dz
    if ew < 0.0:  # the shorter way round
        w, x, y, z, ew = -w, -x, -y, -z, -ew
    ex = -w * dx + x * dw - y * dz + z * dy
    ey = -w * dy + x * dz + y * dw - z * dx
    ez = -w * dz - x * dy + y * dx + z * dw
    sine = math.sqrt(ex * ex + ey * ey + ez * ez)
    scale = 2.0 * math.atan2(sine, ew) / sine if sine > 1e-10 else 2.0
    return ex * scale, ey * scale, ez * scale


def mat_to_quat(mat: list[float]) -> tuple[float, float, float, float]:
    """Unit quaternion (w, x, y, z) of a rotation matrix (9, row-major). Source: Shepperd 1978."""
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = mat
    trace = m00 + m11 + m22
    if trace > 0.0:
        s = 2.0 * math.sqrt(trace + 1.0)
        return 0.25 * s, (m21 - m12) / s, (m02 - m20) / s, (m10 - m01) / s
    if m00 > m11 and m00 > m22:
        s = 2.0 * math.sqrt(1.0 + m00 - m11 - m22)
        return (m21 - m12) / s, 0.25 * s, (m01 + m10) / s, (m02 + m20) / s
    if m11 > m22:
        s = 2.0 * math.sqrt(1.0 + m11 - m00 - m22)
        return (m02 - m20) / s, (m01 + m10) / s, 0.25 * s, (m12 + m21) / s
    s = 2.0 * math.sqrt(1.0 + m22 - m00 - m11)
    return (m10 - m01) / s, (m02 + m20) / s, (m12 + m21) / s, 0.25 * s
