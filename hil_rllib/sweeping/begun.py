"""What a sweep was begun to search, kept in its folder: Tune goes on with that, whatever it is told later."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hil_rllib import strict_yaml
from hil_rllib.disk import write_whole
from hil_rllib.sweeping.plan import Draw, Plan, SweepSection, read_space

SEARCH_FILE = "search.yaml"  # not sweep.yaml: somebody may keep the sweep's own file in its folder

# What may change: what the base makes is compared with every trial's configuration, and trials that go on
# reserve what the new cpus and gpus say. `parallel` is not among them: Tune would keep the old one.
FREE = ("base", "dir", "cpus", "gpus")


def store_search(plan: Plan, folder: Path) -> None:
    """Raises DiskError where there is no room."""
    values = {
        "sweep": dataclasses.asdict(plan.sweep),
        "space": {key: {draw.kind: list(draw.values)} for key, draw in plan.space.items()},
    }
    write_whole(folder / SEARCH_FILE, strict_yaml.dump(values))


def search_differences(folder: Path, plan: Plan) -> list[str]:
    """What a sweep goes on with from its folder, where the plan says something else.

    None of a sweep of an earlier release, which stored no search. Raises ConfigError where it is damaged.
    """
    file = folder / SEARCH_FILE
    if not file.exists():
        return []
    values = strict_yaml.parse(strict_yaml.read_text(file), str(file))
    stored = values if isinstance(values, dict) else {}
    leaves = strict_yaml.flatten(SweepSection, stored.get("sweep"), f"{file}: sweep")
    was = dataclasses.asdict(strict_yaml.build(SweepSection, leaves))
    now = dataclasses.asdict(plan.sweep)
    old, new = read_space(stored.get("space"), str(file)), plan.space
    return [
        f"sweep.{key} was {was[key]!r}, now {now[key]!r}"
        for key in was
        if key not in FREE and was[key] != now[key]
    ] + [
        f"space: {key} was {show(old.get(key))}, now {show(new.get(key))}"
        for key in old | new
        if old.get(key) != new.get(key)
    ]


def show(draw: Draw | None) -> str:
    return f"{draw.kind} {list(draw.values)}" if draw else "not varied"
