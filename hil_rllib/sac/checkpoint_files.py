"""Where a run's newest checkpoint is, and in it the policy."""

from __future__ import annotations

from pathlib import Path

from hil_rllib.sac.checkpoint import STATE_FILE, newest_checkpoint

# Where RLlib's checkpoints hold the module.
MODULE_FILE = Path("learner_group/learner/rl_module/default_policy/module_state.pkl")


def find_checkpoint(source: Path) -> Path:
    """`source` if it is a checkpoint, else the newest one of the run in it. Raises FileNotFoundError."""
    if not source.is_dir():
        raise FileNotFoundError(
            f"{source}: no such folder. Name a checkpoint or a run, such as runs/panda_sac."
        )
    if (source / STATE_FILE).is_file():
        return source
    newest = newest_checkpoint(source)
    if newest is None:
        raise FileNotFoundError(
            f"{source} holds no checkpoint of this project (no checkpoint_*/{STATE_FILE}). Train longer, or "
            "name another folder."
        )
    return newest
