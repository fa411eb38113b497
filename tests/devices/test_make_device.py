"""Devices by name, and what a wrong name says."""

from __future__ import annotations

import logging
import re

import pytest

from hil_rllib.contract import IDLE
from hil_rllib.devices import check_device, device_class, make_device
from hil_rllib.devices.browser.device import BrowserDevice


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


def test_auto_without_gamepad_and_display_is_a_page_and_says_so(caplog, monkeypatch, sdl_library):
    monkeypatch.delenv("DISPLAY", raising=False)
    with caplog.at_level(logging.INFO), make_device("auto") as device:
        assert isinstance(device, BrowserDevice)
    assert caplog.messages == ["Input device 'auto' is the browser."]


def test_auto_takes_the_options_of_whatever_it_may_be(monkeypatch, sdl_library):
    monkeypatch.delenv("DISPLAY", raising=False)
    device = make_device("auto", port=7, controller_config="a gamepad's.json")
    assert isinstance(device, BrowserDevice)
    assert device.port == 7
    with pytest.raises(ValueError, match=r"Unknown option 'prot' of device 'auto'. Did you mean 'port'\?"):
        check_device("auto", prot=7)


def test_nobody_never_intervenes():
    assert make_device("none").read() == IDLE


@pytest.mark.parametrize(
    ("name", "realtime"),
    [
        ("none", False),
        ("scripted", False),
        ("gamepad", True),
        ("hid", True),
        ("keyboard", True),
        ("browser", True),
    ],
)
def test_a_person_needs_real_time_and_nobody_else(name, realtime):
    assert device_class(name).realtime == realtime
