"""Runs as training leaves them behind, written in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tensorboardX import SummaryWriter

from hil_rllib.config import load_config

STATE = Path(__file__).resolve().parents[2] / "tuned_configs" / "panda_sac_state.yaml"


def write_run(
    folder: Path,
    successes: Sequence[float],
    *overrides: str,
    session: str = "trial",
    first: int = 1,
    every: int = 1000,
    begin: float = 1000.0,
    human_s_per_step: float = 0.01,
    reported_at: int | None = None,
) -> Path:
    """Reports every 500 steps, an evaluation of 50 episodes every 1,000: its result shows in the next report.

    first: number of the first evaluation; begin: Unix time [s] of the first report, others follow in 10 s.
    reported_at: the step of the first report, where that is not the evaluation's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = load_config(STATE, [f"run.dir={folder}", *overrides])
    (folder / "config.yaml").write_text(config.to_yaml())
    writer = SummaryWriter(str(folder / session))
    wall, late = begin, 0 if reported_at is None else reported_at - first * every
    for number, success in enumerate(successes, first):
        for step in (number * every + late, number * every + every // 2 + late):
            values = {
                "hil/env_steps": step,
                "hil/human_seconds": step * human_s_per_step,
                "hil/intervention_rate": 0.25,
                "evaluation/success": success,
                "evaluation/episodes": 50,
                "evaluation/at_env_steps": number * every,
                "timers/whatever": 1.0,
            }
            for tag, value in values.items():
                writer.add_scalar(f"ray/tune/{tag}", value, step, walltime=wall)
            wall += 10
    writer.close()
    return folder
