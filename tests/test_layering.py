"""Imports go one way: contract ← devices, data, models ← collect ← sac ← entry points; envs stands alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What each part may import of the project, besides itself. A part is `envs`, a package of hil_rllib, or a
# module right under hil_rllib. Modules not named belong to the entry points:
# they import what they like, and no part named here imports them.
MAY_IMPORT = {
    "envs": set(),
    "contract": set(),
    "strict_yaml": set(),
    "deadline": set(),
    "disk": set(),
    "file_lock": {"disk"},
    "logs": {"disk"},
    "processes": {"logs"},
    "under_tune": {"config", "disk"},
    "config": {"strict_yaml"},
    "devices": {"contract", "envs"},
    "data": {"contract", "deadline", "disk", "envs", "file_lock"},
    "models": {"contract", "deadline"},
    "collect": {"contract", "config", "envs", "devices", "models"},
    "pretraining": {"contract", "envs", "models"},
    "sac": {"contract", "config", "envs", "collect", "data", "disk", "models", "logs", "under_tune"},
    "offline": {"contract", "config", "envs", "collect", "data", "models", "sac", "under_tune"},
    "results": {"config", "disk", "sac"},
    "reward": {"contract", "config", "envs", "collect", "data", "models", "sac", "offline"},
    "console": set(),
    "overlay": {"contract"},
    "wrappers": {"contract", "envs", "collect", "devices"},
    "factory": {"console", "envs", "devices", "wrappers"},
    "session": {"console", "contract", "collect", "devices", "wrappers"},
    "video": {"console", "contract", "overlay", "wrappers"},
    "sheet": {"overlay", "video"},
}
NO_RAY = {"envs", "contract", "devices", "models", "wrappers", "factory", "session", "video", "sheet"}


def sources() -> list[Path]:
    return sorted([*(ROOT / "envs").rglob("*.py"), *(ROOT / "hil_rllib").rglob("*.py")])


def part_of(module: str) -> str:
    """`hil_rllib.data.replay` -> `data`; `envs.panda` -> `envs`; `hil_rllib` -> `hil_rllib`."""
    names = module.split(".")
    return names[1] if names[0] == "hil_rllib" and len(names) > 1 else names[0]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(code: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Absolute names of everything imported, inside functions and type-checking blocks too."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def violations(code: str, module: str, is_package: bool = False) -> list[str]:
    part = part_of(module)
    found = []
    for name in imports(code, module, is_package):
        top, target = name.split(".")[0], part_of(name)
        if top == "gym_hil" or (top == "ray" and part in NO_RAY):  # gym_hil only lends its asset folder
            found.append(f"{module} imports {name}")
        elif top in ("envs", "hil_rllib") and part in MAY_IMPORT and target not in {part} | MAY_IMPORT[part]:
            found.append(f"{module} imports {name}; {part} may import {sorted(MAY_IMPORT[part])}")
    return found


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_each_module_imports_only_what_its_layer_may(path: Path) -> None:
    assert not violations(path.read_text(), module_name(path), path.name == "__init__.py")


def test_every_part_named_here_exists() -> None:
    parts = {part_of(module_name(path)) for path in sources()}
    assert parts >= set(MAY_IMPORT)


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("envs.panda", "import ray"),
        ("envs.panda", "def f():\n    from hil_rllib.contract import CAMERAS"),
        ("hil_rllib.contract", "from hil_rllib import config"),
        ("hil_rllib.models.heads", "from ..data.replay import Ring"),
        ("hil_rllib.data.replay", "from hil_rllib.sac.losses import critic_loss"),
        ("hil_rllib.sac.learner", "import hil_rllib.devices.base"),
        ("hil_rllib.collect.encode", "from hil_rllib import train"),
        ("hil_rllib.train", "import gym_hil"),
    ],
)
def test_a_breach_is_seen(module: str, code: str) -> None:
    assert len(violations(code, module)) == 1
