"""The files for `ray up`, and every `ray` command that we tell people to type, as Ray itself reads them."""

from __future__ import annotations

import copy
import json
import re
import shlex
from pathlib import Path

import click
import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli

from hil_rllib.config import load_config
from hil_rllib.sac.config import OPERATOR_RESOURCE

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "cluster.yaml", ROOT / "docs" / "cluster_own_network.yaml"]
STARTS = ("head_start_ray_commands", "worker_start_ray_commands")


def parse_ray(command: str) -> click.Context:
    """The command as Ray's own command line takes it, not carried out. Raises click.UsageError."""
    name, *arguments = shlex.split(command)
    return cli.commands[name].make_context(name, arguments)


def told_commands() -> list[str]:
    """What follows `.venv/bin/ray` in comments of the cluster files, README and Makefile."""
    told = []
    for file in (*FILES, ROOT / "README.md", ROOT / "Makefile"):
        text = (
            file.read_text()
            .replace("$(VENV)", ".venv")
            .replace("$(HEAD)", "10.0.0.5")
            .replace("$(SEAT)", "operator")
        )
        told += re.findall(
            r"^(?:#\s+|\t|)\.venv/bin/ray (.+?)(?:\s+# .*| >/dev/null.*|; do .*)?$", text, re.M
        )
    return told


@pytest.fixture(params=FILES, ids=lambda file: file.name)
def cluster(request: pytest.FixtureRequest) -> dict:
    return yaml.safe_load(request.param.read_text())


def test_ray_accepts_the_cluster_file(cluster: dict) -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    filled = prepare_config(copy.deepcopy(cluster))  # as `ray up` does before it asks the provider
    validate_config(filled)
    kinds = filled["available_node_types"]
    assert filled["head_node_type"] in kinds
    assert any(kind["max_workers"] > 0 for kind in kinds.values())


def test_nodes_start_ray_of_the_project_behind_a_token(cluster: dict) -> None:
    home = next(target for target, source in cluster["file_mounts"].items() if source == ".")
    assert cluster["file_mounts"][f"{Path(home).parent}/.ray/auth_token"] == "~/.ray/auth_token"
    assert any(f"make -C {home} setup" in command for command in cluster["setup_commands"])
    assert "runs" in cluster["rsync_exclude"]
    assert ".venv" in cluster["rsync_exclude"]
    for start in STARTS:
        stop, begin = cluster[start]
        assert stop == f"{home}/.venv/bin/ray stop"
        _, ray_start = begin.split(f"RAY_AUTH_MODE=token {home}/.venv/bin/ray ")
        options = parse_ray(ray_start.replace("$RAY_HEAD_IP", "10.0.0.5")).params
        assert options["head"] == (start == STARTS[0])
        assert options["address"] == (None if options["head"] else "10.0.0.5:6379")


def test_only_the_learner_takes_a_processor_of_the_head() -> None:
    aws, own = (yaml.safe_load(file.read_text()) for file in FILES)
    assert aws["available_node_types"]["head"]["resources"] == {"CPU": 1, OPERATOR_RESOURCE: 1}
    assert "--num-cpus=1 " in own["head_start_ray_commands"][1]


def test_every_ray_command_we_tell_is_one_of_rays() -> None:
    told = told_commands()
    assert {command.split()[0] for command in told} >= {"up", "exec", "attach", "rsync-down", "down", "start"}
    for command in told:
        parse_ray(command)
    with pytest.raises(click.UsageError):
        parse_ray("attach --port 8642 cluster.yaml")


def test_the_seat_is_the_operators_and_nothing_else() -> None:
    (seat,) = (c for c in told_commands() if c.startswith("start") and OPERATOR_RESOURCE in c)
    options = parse_ray(seat).params
    assert json.loads(options["resources"]) == {OPERATOR_RESOURCE: 1}
    assert (options["num_cpus"], options["block"]) == (0, True)


def test_the_head_of_ones_own_network_becomes_a_seat_as_told() -> None:
    text = FILES[1].read_text()
    (option,) = re.findall(r"--resources='.*?'", text)
    start = yaml.safe_load(text)["head_start_ray_commands"][1].split("/.venv/bin/ray ")[1]
    options = parse_ray(start.replace("--num-cpus=1", f"--num-cpus=1 {option}")).params
    assert json.loads(options["resources"]) == {OPERATOR_RESOURCE: 1}
    assert options["num_cpus"] == 1


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_runs_told_in_the_cluster_files_are_configured_right(file: Path) -> None:
    runs = re.findall(r"RAY_ADDRESS=auto (?:nohup )?make train ARGS=\"(.*?)\"", file.read_text())
    assert runs
    for arguments in runs:
        load_config(ROOT / "tuned_configs" / "panda_sac.yaml", arguments.split())
