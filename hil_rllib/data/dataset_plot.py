"""Pictures of a dataset, for eyes: one row of panels per episode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hil_rllib import contract
from hil_rllib.data.demo import Recording

WIDTH_IN, ROW_IN, DPI = 13.0, 1.7, 100
AXES = ("x", "y", "z")


def plot(recordings: Sequence[Recording], path: Path, title: str) -> None:
    """Writes a PNG: per episode the TCP's way, the motion commanded, the gripper, and reward and penalty.

    Steps with a person's action are shaded.
    """
    figure, axes = _panels(len(recordings))
    figure.suptitle(title)
    for row, recording in zip(axes, recordings, strict=True):
        _episode(row, recording)
    for axis, name in zip(
        axes[0], ("TCP [m]", "motion command [-1, 1]", "gripper, 1 is closed", "reward, penalty"), strict=True
    ):
        axis.set_title(name, fontsize=9)
        axis.legend(fontsize=6, loc="upper left", framealpha=0.6)
    for axis in axes[-1]:
        axis.set_xlabel("step")
    figure.savefig(path, dpi=DPI)


def _panels(rows: int) -> tuple[Any, Any]:
    figure = Figure(figsize=(WIDTH_IN, 1.0 + ROW_IN * rows), layout="constrained")
    FigureCanvasAgg(figure)  # no window, whatever the user's settings
    return figure, figure.subplots(rows, 4, squeeze=False)


def _episode(axes: Any, recording: Recording) -> None:
    steps = np.arange(len(recording))
    observed = np.arange(len(recording) + 1)  # observation t is before action t
    tcp, motion, gripper, reward = axes
    for i, name in enumerate(AXES):
        tcp.plot(observed, recording.tcp_pos[:, i], color=f"C{i}", label=name)
        motion.step(steps, recording.actions[:, i], where="post", color=f"C{i}", label=name)
    motion.set_ylim(-1.1, 1.1)
    closed = recording.agent_pos[:, contract.AGENT_POS["gripper"].start] / contract.GRIPPER_CLOSED
    gripper.plot(observed, closed, color="black", label="observed")
    command = recording.actions[:, contract.MOTION_DIM] - float(contract.Gripper.HOLD)
    for sign, marker, name in ((1, "^", "close"), (-1, "v", "open")):
        at = steps[np.sign(np.round(command)) == sign]
        gripper.plot(at, np.full(len(at), 0.5 + 0.2 * sign), marker, markersize=3, color="C3", label=name)
    gripper.set_ylim(-0.1, 1.1)
    reward.plot(steps, recording.rewards, color="C2", label="reward")
    reward.plot(steps, recording.penalties, color="C3", label="penalty")
    outcome = {True: "success", False: "no success", None: "outcome unknown"}[recording.success]
    end = "terminated" if recording.terminated else "truncated"
    tcp.set_ylabel(f"episode {recording.episode_index}\n{outcome}\n{end}", fontsize=8)
    for axis in axes:
        acted = np.append(recording.interventions, recording.interventions[-1:]) > 0  # to the last step's end
        axis.fill_between(
            observed,
            0,
            1,
            where=acted,
            step="post",
            transform=axis.get_xaxis_transform(),
            color="C1",
            alpha=0.12,
            linewidth=0,
        )
        axis.set_xlim(0, len(recording))
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        axis.locator_params(axis="x", integer=True)
