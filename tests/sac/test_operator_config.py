"""Operators' runners: how each is clocked, by who sits at the device, and what each has of their own."""

from __future__ import annotations

import pytest

from hil_rllib.config import Config, OperatorSection, RecordSection, RunnersSection
from hil_rllib.sac.config import QUEUED_S, HILSACConfig, device_options
from hil_rllib.sac.recorder import operator_names


@pytest.mark.parametrize(("realtime", "hz"), [(False, None), (True, 20.0)])
def test_a_synthetic_operator_keeps_to_the_clock_only_where_told(realtime: bool, hz: float | None) -> None:
    section = OperatorSection(device="scripted", hz=20.0, realtime=realtime)
    hil = Config(operator=section, runners=RunnersSection(fragment=5))
    operator = HILSACConfig.from_config(hil).operator()
    assert operator.env_config["operator_hz"] == hz
    queued = operator.max_requests_in_flight_per_env_runner
    assert queued == (QUEUED_S * 20 / 5 if realtime else 2)


def test_each_operator_has_a_seat_a_device_a_seed_and_a_dataset_of_their_own() -> None:
    section = OperatorSection(count=2, device=("scripted", "none"), realtime=False)
    hil = Config(operator=section, record=RecordSection(operator=True))
    rllib = HILSACConfig.from_config(hil)
    first, second = (rllib.operator(seat) for seat in range(2))
    assert operator_names(hil) == ["operator_1", "operator_2"]
    assert first.custom_resources_per_env_runner == {"operator_1": 1}
    assert second.custom_resources_per_env_runner == {"operator_2": 1}
    assert first.num_env_runners == second.num_env_runners == 1
    assert first.seed != second.seed
    assert device_options(hil, 0)["seed"] == hil.run.seed
    assert device_options(hil, 1) == {}


def test_one_operator_is_called_operator_and_several_share_one_kind_of_device() -> None:
    assert operator_names(Config()) == ["operator"]
    one = HILSACConfig.from_config(Config(operator=OperatorSection(device="none"))).operator()
    assert one.custom_resources_per_env_runner == {"operator": 1}
    assert OperatorSection(count=3, device="scripted").devices == ("scripted",) * 3
    assert OperatorSection(count=0).devices == ()
