"""What the README, the Makefile, the run configurations and cluster.yaml promise is there."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from hil_rllib.config import load_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CONFIGS = sorted(path for path in (ROOT / "tuned_configs").glob("*.yaml") if "sweep" not in path.stem)


def shell_lines(text: str) -> str:
    """Code blocks and inline code of a Markdown text."""
    return "\n".join(re.findall(r"```.*?\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text))


@pytest.mark.parametrize("target", ["setup", "train", "seat", "test", "check", "clean"])
def test_make_target_exists_and_is_in_the_help(target: str) -> None:
    dry = subprocess.run(
        ["make", "--dry-run", "--always-make", target], cwd=ROOT, capture_output=True, text=True
    )
    assert dry.returncode == 0, dry.stderr
    assert f"make {target} " in subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True).stdout


def test_make_train_runs_the_reference_with_the_given_overrides() -> None:
    dry = subprocess.run(
        ["make", "--dry-run", "train", "ARGS=run.seed=3"], cwd=ROOT, capture_output=True, text=True
    )
    assert "-m hil_rllib.train tuned_configs/panda_sac.yaml run.seed=3" in dry.stdout


def test_set_up_with_an_old_python_says_which_one_is_needed(tmp_path: Path) -> None:
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        old = tmp_path / name
        old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n')
        old.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": ""}
    done = subprocess.run(
        ["bash", ROOT / "hil_rllib" / "setup.sh", tmp_path / "venv"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Set-up stopped: Python 3.11 or newer is needed, but Python 3.9.2 was found." in done.stderr
    assert not (tmp_path / "venv").exists()


def test_every_command_of_the_readme_exists() -> None:
    shell = shell_lines(README)
    targets = set(re.findall(r"\bmake (\w+)", shell))
    modules = set(re.findall(r"-m (\w+(?:\.\w+)*)", shell))
    assert targets
    assert modules
    makefile = (ROOT / "Makefile").read_text()
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


def test_every_file_named_in_the_readme_exists() -> None:
    names = re.findall(r"\b((?:tuned_configs|hil_rllib|envs|tests)/[\w/.]+|cluster\.yaml)", README)
    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_every_override_in_the_readme_is_accepted() -> None:
    lines = re.findall(r"-m hil_rllib\.train (\S+\.yaml)(.*)", README.replace("\\\n", ""))
    assert lines
    folders = []
    for config, rest in lines:
        words = shlex.split(rest)
        loaded = load_config(ROOT / config, [word for word in words if not word.startswith("--")])
        folders += [loaded.run.dir] * ("--resume" not in words)
    assert len(set(folders)) == len(folders), "a folder takes one run"
    assert "runs/panda_sac" not in folders, "that of `make train`"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_tuned_config_loads_and_survives_saving(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    (tmp_path / "resolved.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "resolved.yaml") == config
    assert config.run.dir == f"runs/{path.stem}", "two configurations must not write to one folder"


def test_cluster_and_constraints_agree_with_the_project_on_exact_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    exact = dict(
        re.fullmatch(r"([\w-]+)(?:\[.*\])?==(.+)", requirement).groups()
        for requirement in project["dependencies"]
        if "==" in requirement
    )
    assert set(exact) == {"ray", "torch", "gym-hil"}
    constraints = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    assert {name: constraints[name] for name in exact} == exact
    told = (ROOT / "cluster.yaml").read_text() + (ROOT / "pyproject.toml").read_text()
    assert set(re.findall(r"ray(?:\[[\w,]+\]==|:)(\d[\d.]+\d)", told)) == {exact["ray"]}


def test_files_hold_no_address_of_a_machine_or_registry() -> None:
    """A clone must work wherever it lies."""
    addresses = re.compile(r"/home/(?!ray/)\w+|/Users/\w+|index-url|pypi\.org|pythonhosted|pytorch\.org/whl")
    kinds = {".py", ".sh", ".yaml", ".toml", ".txt", ".md", ".html", ".json", ""}
    folders = [ROOT / name for name in (".ci", "envs", "hil_rllib", "tests", "tuned_configs")]
    files = [*ROOT.iterdir(), *(file for folder in folders for file in folder.rglob("*"))]
    texts = [file for file in files if file.is_file() and file.suffix in kinds and file != Path(__file__)]
    assert len(texts) > 30
    assert [str(file) for file in texts if addresses.search(file.read_text(errors="ignore"))] == []
