"""Devices by name, and what a wrong name says."""

from __future__ import annotations

import logging
import re

import pytest

from hil_rllib.contract import IDLE
from hil_rllib.devices import DeviceUnavailable, check_device, device_class, make_device
from hil_rllib.devices.none import NoDevice


def test_unknown_device_names_the_nearest_and_all():
    whole = (
        "Unknown device 'gampad'. Did you mean 'gamepad'? "
        "Choose from auto, browser, gamepad, hid, keyboard, none, scripted."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(whole)}$"):
        make_device("gampad")


def test_unknown_option_names_the_nearest():
    with pytest.raises(
        ValueError, match=r"Unknown option 'nois' of device 'scripted'. Did you mean 'noise'\?"
    ):
        check_device("scripted", nois=0.1)


def test_option_of_a_device_without_any():
    with pytest.raises(ValueError, match=r"Unknown option 'seed' of device 'none'. It takes none."):
        make_device("none", seed=1)


def test_device_of_a_later_version_is_refused_before_work_starts():
    with pytest.raises(
        DeviceUnavailable,
        match=r"'browser' is not part of this version. Choose from auto, gamepad, hid, keyboard, none, scr",
    ):
        check_device("browser")


def test_auto_without_gamepad_and_display_is_nobody_and_says_so(caplog, monkeypatch, sdl_library):
    monkeypatch.delenv("DISPLAY", raising=False)
    with caplog.at_level(logging.WARNING), make_device("auto") as device:
        assert isinstance(device, NoDevice)
    assert len(caplog.records) == 1
    assert "no gamepad is plugged in and there is no display" in caplog.text
    assert "('none')" in caplog.text


def test_nobody_never_intervenes():
    assert make_device("none").read() == IDLE


@pytest.mark.parametrize(
    ("name", "realtime"),
    [("none", False), ("scripted", False), ("gamepad", True), ("hid", True), ("keyboard", True)],
)
def test_a_person_needs_real_time_and_nobody_else(name, realtime):
    assert device_class(name).realtime == realtime
