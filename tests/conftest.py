"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

BESIDE_REPOSITORY = Path(__file__).resolve().parents[2] / "shared" / "data" / "franka_sim_pick_lift_6"


@pytest.fixture(scope="session")
def real_demos() -> Path:
    """The folder of the 30 human demonstrations, aractingi/franka_sim_pick_lift_6."""
    folder = Path(os.environ.get("HIL_DEMOS") or BESIDE_REPOSITORY)
    if not (folder / "meta" / "info.json").is_file():
        pytest.skip(
            f"no demonstrations in {folder}; set HIL_DEMOS to a copy of aractingi/franka_sim_pick_lift_6"
        )
    return folder
