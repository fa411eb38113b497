"""A driver killed at any moment; `driver_kills.py --kills 100` does it a hundred times."""

from __future__ import annotations

import pytest
from driver_kills import kill_drivers


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_after_each_kill_every_acknowledged_intervention_is_there_once(tmp_path, kills):
    witness = kill_drivers(kills, tmp_path, seed=kills)
    assert witness.wrong == []
    assert witness.resumes == kills + 1
    assert len(witness.human) > 5 * kills
