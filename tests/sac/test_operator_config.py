"""Who sits at the device decides how the operator's runner is clocked, unless the config insists."""

from __future__ import annotations

import pytest

from hil_rllib.config import Config, OperatorSection, RunnersSection
from hil_rllib.sac.config import QUEUED_S, HILSACConfig


@pytest.mark.parametrize(("realtime", "hz"), [(False, None), (True, 20.0)])
def test_a_synthetic_operator_keeps_to_the_clock_only_where_told(realtime: bool, hz: float | None) -> None:
    section = OperatorSection(device="scripted", hz=20.0, realtime=realtime)
    hil = Config(operator=section, runners=RunnersSection(fragment=5))
    operator = HILSACConfig.from_config(hil).operator()
    assert operator.env_config["operator_hz"] == hz
    queued = operator.max_requests_in_flight_per_env_runner
    assert queued == (QUEUED_S * 20 / 5 if realtime else 2)
