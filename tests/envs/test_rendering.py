"""Drawing: deterministic, off screen, light, and only when asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest

import envs
from envs import gl, scene
from envs.decimate import decimate

IMAGES = {"image_obs": True, "render_quality": "fast"}


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter at the repository root."""
    root = Path(envs.__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("quality", ["full", "fast"])
def test_the_same_state_is_drawn_the_same(quality: str) -> None:
    env = gymnasium.make("hil/PandaPickCube-v0", image_obs=True, render_quality=quality)
    other = gymnasium.make("hil/PandaPickCube-v0", image_obs=True, render_quality=quality)
    first, _ = env.reset(seed=0)
    moved, *_ = env.step(np.array([1, 1, 1, 2], np.float32))
    second, _ = other.reset(seed=0)  # drawn in another context, with the first still open
    for camera in ("front", "wrist"):
        np.testing.assert_array_equal(first["pixels"][camera], second["pixels"][camera])
        assert not np.array_equal(first["pixels"][camera], moved["pixels"][camera])
        assert first["pixels"][camera].std() > 20  # something is there
    env.close()
    again, _ = other.reset(seed=0)  # closing one leaves the other's drawing alone
    np.testing.assert_array_equal(again["pixels"]["wrist"], first["pixels"]["wrist"])
    other.close()


def test_cube_is_where_it_belongs_in_the_front_image() -> None:
    env = gymnasium.make("hil/PandaPickCube-v0", **IMAGES)
    centres = []
    for y in (-0.1, 0.1):
        observation, _ = env.reset(options={"block_xy": (0.5, y)})
        red, green, blue = np.moveaxis(observation["pixels"]["front"].astype(int), -1, 0)
        rows, columns = np.nonzero((red > green + 50) & (blue > green + 50))  # purple
        assert 20 < rows.size < 300
        assert rows.mean() > 64  # on the floor: in the lower half
        centres.append(columns.mean())
    assert centres[0] < 64 < centres[1]  # the camera looks back along -x, so +y is to its right
    env.close()


def test_images_on_request_from_a_state_environment() -> None:
    env = gymnasium.make("hil/PandaPickCube-v0", render_quality="fast")
    env.reset(seed=0)
    frames = env.unwrapped.render_cameras()
    assert {name: (frame.shape, frame.dtype.name) for name, frame in frames.items()} == {
        "front": ((128, 128, 3), "uint8"),
        "wrist": ((128, 128, 3), "uint8"),
    }
    np.testing.assert_array_equal(env.render(), np.hstack([frames["front"], frames["wrist"]]))
    env.close()


def test_process_ends_quietly_with_an_environment_left_open() -> None:
    code = (
        "import envs, gymnasium\n"
        "make = lambda: gymnasium.make('hil/PandaPickCube-v0', image_obs=True, render_quality='fast')\n"
        "a, b = make(), make()\n"
        "a.reset(seed=0); b.reset(seed=0); a.close()\n"
    )
    result = run_python(code)
    assert (result.returncode, result.stderr) == (0, "")


def test_without_opengl_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gl, "find_backend", lambda: None)
    for attempt in (gl.require_headless_gl, lambda: gymnasium.make("hil/PandaPickCube-v0", **IMAGES)):
        with pytest.raises(gl.HeadlessGLError, match=r"libegl1 .*libosmesa6"):
            attempt()


def test_state_only_makes_no_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(width: int, height: int) -> None:
        pytest.fail("an OpenGL context was made")

    monkeypatch.setattr(gl, "make_context", refuse)
    env = gymnasium.make("hil/PandaPickCube-v0", image_obs=False)
    env.reset(seed=0)
    env.step(np.ones(4, np.float32))
    env.close()


def test_backend_that_does_not_work_is_named() -> None:
    code = "from envs import gl; gl.require_headless_gl()"
    result = run_python(code, MUJOCO_GL="egl", MUJOCO_EGL_DEVICE_ID="99")
    assert "HeadlessGLError: OpenGL through 'egl' is installed but does not work" in result.stderr
    assert "libosmesa6" in result.stderr


def test_processes_that_start_at_once_share_one_cache(tmp_path: Path) -> None:
    code = "from envs.scene import load_scene; print(load_scene('scene.xml', 'fast').nmeshface)"
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: run_python(code, XDG_CACHE_HOME=str(tmp_path)), range(2)))
    assert [result.stderr for result in results] == ["", ""]
    assert results[0].stdout == results[1].stdout
    assert [path.suffix for path in (tmp_path / "hil_rllib").iterdir()] == [
        ".mjb"
    ]  # no temporary file is left


@pytest.fixture
def quick_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caching alone is under test: what is cached may be small."""
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
    monkeypatch.setattr(scene, "build_scene", lambda xml, quality: model)


@pytest.mark.usefixtures("quick_build")
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    scene.load_scene("scene.xml", "fast")
    (cached,) = (tmp_path / "hil_rllib").iterdir()
    intact = cached.read_bytes()
    cached.write_bytes(intact[: len(intact) // 2])
    assert scene.load_scene("scene.xml", "fast").ngeom == 1
    assert cached.read_bytes() == intact


@pytest.mark.usefixtures("quick_build")
def test_an_unwritable_cache_is_reported_and_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "hil_rllib").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert scene.load_scene("scene.xml", "fast").ngeom == 1
    assert "Cannot cache the scene" in caplog.text


def test_decimation_keeps_the_shape_of_a_sphere() -> None:
    theta, phi = np.meshgrid(np.linspace(0, np.pi, 40), np.linspace(0, 2 * np.pi, 80), indexing="ij")
    vertices = 0.05 * np.stack(
        [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1
    ).reshape(-1, 3)
    corner = (np.arange(39)[:, None] * 80 + np.arange(79)).ravel()
    faces = np.concatenate(
        [np.stack([corner, corner + 80, corner + 1], 1), np.stack([corner + 1, corner + 80, corner + 81], 1)]
    )
    torn = vertices[faces.ravel()]  # each face with vertices of its own, as files with normals have
    points, triangles = decimate(torn, np.arange(len(torn)).reshape(-1, 3), max_faces=300)
    assert 200 < len(triangles) <= 330
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 0.05, rtol=0.02)
    a, b, c = points[triangles].transpose(1, 0, 2)
    volume = abs(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 0.05**3, rel=0.05)  # closed: no seam tore open
