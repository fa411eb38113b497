"""Imported before the test modules, so that headless OpenGL is chosen before any of them imports MuJoCo."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

import envs  # noqa: F401


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    """Name of an X display of its own, e.g. `:1`."""
    if shutil.which("Xvfb") is None:
        pytest.skip("needs Xvfb: apt-get install xvfb")
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x800x24"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as pipe:
        number = pipe.readline().strip()
    assert number, f"Xvfb ended with {server.wait()}"
    yield f":{number}"
    server.terminate()
    server.wait()
