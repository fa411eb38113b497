"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

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


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """Ray of two processors for one module, which leaves none to the next."""
    ray.shutdown()  # that of tests/sac lives on: its folder is no package, so its fixtures are the session's
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
    yield
    ray.shutdown()
