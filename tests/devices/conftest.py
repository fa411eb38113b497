"""Fixtures of the device tests."""

from __future__ import annotations

import pytest
from operator_rig import make_env
from virtual_joystick import VirtualJoystick, sdl

import envs  # noqa: F401 - chooses headless OpenGL before any test imports MuJoCo


@pytest.fixture(scope="session")
def sdl_library():
    return sdl()


@pytest.fixture
def plug(sdl_library):
    """Plug in a virtual joystick; what is still plugged in at the end of the test is unplugged."""
    plugged = []

    def plug_in(name="Some pad", shape=(6, 11, 1), **options):
        plugged.append(VirtualJoystick(sdl_library, name, shape, **options))
        return plugged[-1]

    yield plug_in
    for joystick in plugged:
        joystick.unplug()


@pytest.fixture(scope="session")
def vector_env():
    env = make_env()
    yield env
    env.close()
