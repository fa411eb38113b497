"""Imported before the test modules, so that headless OpenGL is chosen before any of them imports MuJoCo."""

import envs  # noqa: F401
