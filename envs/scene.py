"""Builds the simulated scene: gym-hil's robot with meshes light enough to draw in software.

Only what is drawn changes. Masses, inertias, collision shapes and every other number the physics uses stay,
bit by bit, those of the scene as shipped. The result is compiled once and cached as a MuJoCo binary.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from envs.decimate import decimate

_LOG = logging.getLogger(__name__)


_FROM_MASS = (
    "body_mass",
    "body_inertia",
    "body_ipos",
    "body_iquat",
    "body_subtreemass",
    "body_invweight0",
    "body_sameframe",
    "dof_invweight0",
    "dof_M0",
    "tendon_invweight0",
    "tendon_length0",
    "actuator_acc0",
    "cam_poscom0",
    "light_poscom0",
)

# MuJoCo draws a plane as squares of this half side [m]. The shipped floor has 0.01: 80,000 triangles a pass.
_FLOOR_GRID = 0.1


@dataclass(frozen=True)
class RenderQuality:
    """How a scene is drawn.

    detail: a visual mesh gets detail * sqrt(d) faces, d [m] being the diagonal of its bounding box.
    shadow_size: side of each light's shadow map [px]; 0 draws no shadows.
    texture_gain: factor on the textures' colours.
    light_gain: factor on each light, in file order; lights beyond its end keep their strength.
    """

    detail: float
    shadow_size: int
    texture_gain: float = 1.0
    light_gain: tuple[float, ...] = ()


# Chosen by tests/bench/bench_frames.py: similarity to the recorded videos against time. Without shadows
# MuJoCo adds up the lights before it clips, so textures come out dark and the cube white; the gains of `fast`
# undo most of that (SSIM front 0.82 to 0.85, wrist 0.73 to 0.79).
QUALITIES = {
    "full": RenderQuality(detail=750, shadow_size=1024),
    "fast": RenderQuality(detail=400, shadow_size=0, texture_gain=1.4, light_gain=(0.3, 0.5)),
}


def asset_dir() -> Path:
    """The folder with scene.xml, panda.xml and meshes in the installed gym-hil, which is not imported."""
    spec = importlib.util.find_spec("gym_hil")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("The robot's meshes come with gym-hil, which is missing: pip install gym-hil")
    folder = Path(spec.submodule_search_locations[0]) / "assets"
    if not (folder / "scene.xml").is_file():
        raise FileNotFoundError(f"{folder} has no scene.xml; reinstall gym-hil 0.1.14")
    return folder


def cache_dir() -> Path:
    """Where compiled scenes, scripted demonstrations, replays, features … are kept; safe to delete."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hil_rllib"


def load_scene(scene: str = "scene.xml", quality: str = "full") -> mujoco.MjModel:
    """The compiled model of gym-hil's `scene`, drawn at `quality` ('full' or 'fast'); cached on disk."""
    if quality not in QUALITIES:
        raise ValueError(f"Unknown render_quality '{quality}'. Choose from {', '.join(QUALITIES)}.")
    folder = asset_dir()
    path = cache_dir() / f"{Path(scene).stem}-{quality}-{_content_key(folder, scene, quality)}.mjb"
    if path.is_file():
        try:
            return mujoco.MjModel.from_binary_path(str(path))
        except (ValueError, mujoco.FatalError) as error:
            _LOG.warning("%s is damaged (%s); compiling it again", path, error)
    _LOG.info("Compiling %s for render_quality '%s' (once, about 3 s) into %s", scene, quality, path)
    model = build_scene(folder / scene, QUALITIES[quality])
    _save_atomically(model, path)
    return model


def build_scene(xml: Path, quality: RenderQuality) -> mujoco.MjModel:
    """Compile `xml` with light visual meshes and the drawing settings of `quality`."""
    reference = mujoco.MjModel.from_xml_path(str(xml))
    spec = mujoco.MjSpec.from_file(str(xml))
    _lighten_meshes(spec, reference, quality.detail)
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = quality.shadow_size
    for light in spec.lights:
        light.castshadow = quality.shadow_size > 0
    for light, gain in zip(spec.lights, quality.light_gain, strict=False):
        light.diffuse, light.specular = light.diffuse * gain, light.specular * gain
    for texture in spec.textures:
        if texture.type == mujoco.mjtTexture.mjTEXTURE_2D:
            texture.rgb1 = np.minimum(texture.rgb1 * quality.texture_gain, 1.0)
            texture.rgb2 = np.minimum(texture.rgb2 * quality.texture_gain, 1.0)
    for geom in spec.geoms:
        if geom.type == mujoco.mjtGeom.mjGEOM_PLANE:
            geom.size[2] = _FLOOR_GRID
    model = spec.compile()
    _copy_physics(reference, model)
    return model


def _lighten_meshes(spec: mujoco.MjSpec, reference: mujoco.MjModel, detail: float) -> None:
    """Give each drawn-only geom a decimated copy of its mesh; meshes that collide keep their own."""
    light: dict[str, str] = {}
    for geom in spec.geoms:
        if geom.type != mujoco.mjtGeom.mjGEOM_MESH or geom.contype or geom.conaffinity:
            continue
        if geom.meshname not in light:
            mesh = reference.mesh(geom.meshname)
            vertices = reference.mesh_vert[mesh.vertadr[0] :][: mesh.vertnum[0]]
            faces = reference.mesh_face[mesh.faceadr[0] :][: mesh.facenum[0]]
            size = float(np.linalg.norm(np.ptp(vertices, axis=0)))
            vertices, faces = decimate(vertices, faces, max_faces=int(detail * size**0.5))
            # MuJoCo has moved the mesh into its principal frame; the geom's pose is in the file's frame.
            rotation = np.zeros(9)
            mujoco.mju_quat2Mat(rotation, reference.mesh_quat[mesh.id])
            vertices = vertices @ rotation.reshape(3, 3).T + reference.mesh_pos[mesh.id]
            light[geom.meshname] = f"{geom.meshname}_light"
            spec.add_mesh(
                name=light[geom.meshname],
                uservert=vertices.astype(np.float32).ravel(),
                userface=faces.astype(np.int32).ravel(),
                inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,  # it may be open: no volume to integrate
            )
        geom.meshname = light[geom.meshname]
    used = {geom.meshname for geom in spec.geoms}
    for mesh in [m for m in spec.meshes if (m.name or Path(m.file).stem) not in used]:
        spec.delete(mesh)


def _copy_physics(source: mujoco.MjModel, target: mujoco.MjModel) -> None:
    """Copy what compiling derives from mass: bodies without explicit inertia take it from visual meshes."""
    for name in _FROM_MASS:
        getattr(target, name)[:] = getattr(source, name)
    target.stat.meaninertia = source.stat.meaninertia
    target.stat.meanmass = source.stat.meanmass
    target.stat.meansize = source.stat.meansize


@functools.cache
def _content_key(folder: Path, scene: str, quality: str) -> str:
    """Changes with the assets, the settings, the code that builds and the format that stores the model."""
    digest = hashlib.blake2b(f"{mujoco.__version__} {scene} {QUALITIES[quality]}".encode(), digest_size=12)
    assets = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in [*assets, Path(__file__), Path(decimate.__code__.co_filename)]:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _save_atomically(model: mujoco.MjModel, path: Path) -> None:
    """Several processes may build the same scene at once: each writes its own file, the rename is atomic."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(suffix=".mjb", dir=path.parent)
        os.close(handle)
        mujoco.mj_saveModel(model, temporary)
        os.replace(temporary, path)
    except OSError as error:
        _LOG.warning("Cannot cache the scene in %s (%s); it is compiled anew each time.", path.parent, error)
