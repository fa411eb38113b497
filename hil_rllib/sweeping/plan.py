"""A sweep's YAML file: what is varied, how it is searched, and what all trials have in common."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from hil_rllib import strict_yaml
from hil_rllib.config import Config, ConfigError, absolute, load_config
from hil_rllib.console import nearest
from hil_rllib.strict_yaml import NotEmpty, Range

SECTIONS = ("sweep", "config", "space")
CONTINUOUS = ("uniform", "loguniform")
SEATED = ("none", "scripted")  # devices that many trials can have at once

# Keys of which a run under way can take another value, as pbt gives it: networks, rings and counts still fit.
# Not utd_ratio: its budget counts from the first step.
MUTABLE = frozenset(
    f"sac.{key}"
    for key in (
        "batch_size", "demo_fraction", "gamma", "tau", "actor_lr", "critic_lr", "temperature_lr",
        "target_entropy", "critic_subsample", "grad_clip", "entropy_backup",
        "gripper_margin", "gripper_margin_weight", "bc_weight", "q_normalised_actor", "anchor_decay_steps",
    )
)  # fmt: skip

Positive = Annotated[int, Range(low=1)]


@dataclass(frozen=True)
class SweepSection:
    base: Annotated[str, NotEmpty()]  # a run's configuration, relative to the sweep's file
    dir: Annotated[str, NotEmpty()] = "runs/panda_sac_sweep"
    samples: Positive = 1  # draws of the keys that are not a grid; each grid point gets as many
    objective: Literal["success", "human_seconds_to_90"] = "success"
    search: Literal["random", "optuna"] = "random"
    scheduler: Literal["none", "asha", "pbt"] = "none"
    parallel: Positive | None = None  # trials at a time; null: as many as the cluster holds
    cpus: Positive = 1  # of a trial; with runners.autonomous at least 1 more than those
    gpus: Annotated[float, Range(low=0, high=8)] = 0.0  # of a trial; 0.25 puts four on one GPU
    seed: Annotated[int, Range(low=0)] = 0  # of the search


@dataclass(frozen=True)
class Draw:
    """How a key is varied. values: of a grid or choice, all of them; of a range, its ends."""

    kind: str
    values: tuple[Any, ...]

    @property
    def tried(self) -> tuple[Any, ...]:
        """Values that can be drawn; of a range both ends and, unless it is randint, one that is not whole."""
        if self.kind == "randint":
            return (self.values[0], self.values[1] - 1)  # the end is not drawn
        if self.kind in CONTINUOUS:
            low, high = self.values
            return (low, low + (high - low) / math.pi, high)  # irrational: not whole between whole ends
        return self.values


@dataclass(frozen=True)
class Plan:
    """A checked sweep. overrides: of the base, as text, for all trials; here: where relative paths begin."""

    sweep: SweepSection
    base: Path
    overrides: tuple[str, ...]
    space: dict[str, Draw] = field(default_factory=dict)
    here: Path = Path()

    def config(self, values: dict[str, Any], folder: str | None = None) -> Config:
        """A trial's configuration, with absolute paths. values: of the varied keys. Raises ConfigError."""
        chosen = [as_override(key, value) for key, value in values.items()]
        place = [f"run.dir={folder}"] if folder else []
        return absolute(load_config(self.base, [*self.overrides, *chosen, *place]), self.here)

    def configs(self) -> Iterator[Config]:
        """Of all points of the grid, and of what is drawn as far as `Draw.tried`. Raises ConfigError."""
        grid = {key: draw.values for key, draw in self.space.items() if draw.kind == "grid"}
        first = {key: draw.values[0] for key, draw in self.space.items()}
        for combination in itertools.product(*grid.values()):
            point = first | dict(zip(grid, combination, strict=True))
            yield self.config(point)
            for key, draw in self.space.items():
                for value in draw.tried if draw.kind != "grid" else ():
                    yield self.config(point | {key: value})

    @property
    def first(self) -> Config:
        """One of the trials' configurations, for what all have in common."""
        return self.config({key: draw.values[0] for key, draw in self.space.items()})

    @property
    def cpus(self) -> int:
        """What a trial reserves: one at least for its learner and for each autonomous runner beside it."""
        varied = self.space.get("runners.autonomous")
        runners = max(varied.values) if varied else self.first.runners.autonomous
        return max(self.sweep.cpus, 1 + runners)

    @property
    def trials(self) -> int:
        grid = math.prod(len(draw.values) for draw in self.space.values() if draw.kind == "grid")
        return grid * self.sweep.samples


KINDS = {  # how each is written, and what it needs
    "grid": "a list; every value with every other",
    "choice": "a list; one drawn at random",
    "uniform": "[low, high]",
    "loguniform": "[low, high], low above 0",
    "randint": "[low, high], whole numbers, high excluded",
}


def load_plan(path: Path, overrides: Sequence[str] = ()) -> Plan:
    """The sweep of a YAML file, and `section.key=value` overrides of its `sweep` and `config` sections.

    Raises ConfigError for what cannot be used, any value of the space included.
    """
    values = strict_yaml.parse(strict_yaml.read_text(path), str(path)) or {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a sweep has the sections {', '.join(SECTIONS)}.")
    for name in values:
        if name not in SECTIONS:
            raise ConfigError(f"{path}: Unknown section '{name}'.{nearest(name, list(SECTIONS))}")
    section = values.get("sweep", {})
    leaves = strict_yaml.flatten(SweepSection, section, f"{path}: sweep")
    common: list[str] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if equals and key.startswith("sweep."):
            given = {key.removeprefix("sweep."): strict_yaml.parse(text, f"override '{override}'")}
            leaves |= strict_yaml.flatten(SweepSection, given, f"override '{override}'")
        else:
            common.append(override)
    if "base" not in leaves:
        raise ConfigError(f"{path}: sweep.base must name the configuration that is varied.")
    sweep = strict_yaml.build(SweepSection, leaves)
    fixed = strict_yaml.flatten(Config, values.get("config", {}), f"{path}: config")
    plan = Plan(
        sweep,
        path.parent.resolve() / sweep.base,
        (*(as_override(key, value) for key, value in fixed.items()), *common),
        read_space(values.get("space"), str(path)),
        Path.cwd(),
    )
    check(plan, str(path))
    return plan


def read_space(values: Any, origin: str) -> dict[str, Draw]:
    """key: {kind: values} → draws. Raises ConfigError."""
    if not isinstance(values, dict) or not values:
        raise ConfigError(
            f"{origin}: space must name the keys to vary, such as sac.utd_ratio: {{grid: [1, 2]}}."
        )
    space: dict[str, Draw] = {}
    for key, how in values.items():
        where = f"{origin}: space: {key}"
        if not isinstance(how, dict) or len(how) != 1:
            raise ConfigError(f"{where} must be one of {', '.join(KINDS)} with its values, got {how!r}.")
        ((kind, drawn),) = how.items()
        if kind not in KINDS:
            raise ConfigError(f"{where}: unknown kind '{kind}'.{nearest(kind, list(KINDS))}")
        if not isinstance(drawn, list) or not drawn:
            raise ConfigError(f"{where}: {kind} needs {KINDS[kind]}, got {drawn!r}.")
        if kind not in ("grid", "choice"):
            numbers = all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in drawn)
            whole = kind != "randint" or all(isinstance(end, int) for end in drawn)
            if not (len(drawn) == 2 and numbers and whole and drawn[0] < drawn[1]) or (
                kind == "loguniform" and drawn[0] <= 0
            ):
                raise ConfigError(f"{where}: {kind} needs {KINDS[kind]}, got {drawn!r}.")
        space[key] = Draw(kind, tuple(drawn))
    return space


def check(plan: Plan, origin: str) -> None:
    """Every value of the space makes a configuration; what cannot be searched or shared is refused."""
    for key in plan.space:
        if key == "run.dir":
            raise ConfigError(f"{origin}: space: each trial has a run.dir of its own; it cannot be varied.")
    if "run.algorithm" in plan.space:
        raise ConfigError(
            f"{origin}: space: algorithms count differently; make a sweep of each run.algorithm."
        )
    try:
        configs = list(plan.configs())
    except ConfigError as error:
        for key, draw in plan.space.items():
            if draw.kind in CONTINUOUS and f"{key} must be a whole number" in str(error):
                raise ConfigError(
                    f"{origin}: space: {error} {draw.kind} draws such numbers. Use randint or choice."
                ) from None
        raise
    check_fixed(plan, origin)
    for config in configs:
        check_shared(config, plan, origin)
    grid = [key for key, draw in plan.space.items() if draw.kind == "grid"]
    drawn = [key for key in plan.space if key not in grid]
    if plan.sweep.search == "optuna" and grid:
        raise ConfigError(
            f"{origin}: sweep.search optuna chooses values itself, and a grid has no choice: "
            f"{', '.join(grid)}. Make it a choice, or set sweep.search=random."
        )
    if plan.sweep.samples > 1 and not drawn:
        raise ConfigError(
            f"{origin}: sweep.samples {plan.sweep.samples} would make each point of the grid so many times "
            "alike. Vary run.seed instead."
        )
    if plan.sweep.scheduler == "pbt":
        check_population(plan, configs, drawn, origin)


def check_population(plan: Plan, configs: Sequence[Config], drawn: Sequence[str], origin: str) -> None:
    """Raises ConfigError where trials cannot go on as copies of each other."""
    where = f"{origin}: sweep.scheduler pbt"
    if plan.sweep.search != "random":
        raise ConfigError(f"{where} chooses values itself, so sweep.search must be random.")
    if plan.sweep.parallel is not None:
        raise ConfigError(
            f"{where} compares all {plan.trials} trials, which take turns where the machine holds fewer. "
            "Leave sweep.parallel out."
        )
    if plan.trials < 2:
        raise ConfigError(f"{where} compares trials, and there is one. Set sweep.samples, 4 or more.")
    if not drawn:
        raise ConfigError(
            f"{where} changes values on the way, and a grid's stay. Make one a choice or a range."
        )
    for key in drawn:
        if key not in MUTABLE:
            raise ConfigError(
                f"{where} changes values on the way, and {key} cannot: make it a grid. "
                f"Those that can: {', '.join(sorted(MUTABLE))}."
            )
    for config in configs:
        if config.run.algorithm != "sac":
            raise ConfigError(f"{where} is for run.algorithm sac, got {config.run.algorithm}.")
        if config.record.operator or config.record.autonomous:
            raise ConfigError(
                f"{where}: a trial that goes on as a copy would have recorded what it did not learn from. "
                "Leave record.operator and record.autonomous false."
            )


def check_shared(config: Config, plan: Plan, origin: str) -> None:
    """Raises ConfigError for a trial that would need what many trials cannot all have."""
    if config.run.algorithm == "reward":
        raise ConfigError(
            f"{origin}: run.algorithm 'reward' trains no policy, so there is no greedy success to compare "
            "trials by. Train each classifier with hil_rllib.train."
        )
    for device in config.operator.devices:
        if device not in SEATED:
            raise ConfigError(
                f"{origin}: operator.device '{device}' is a person's, who cannot help {plan.trials} trials. "
                "Set operator.device to scripted or none."
            )
    recorded = config.record
    if recorded.dir and (recorded.operator or recorded.autonomous):
        raise ConfigError(
            f"{origin}: record.dir {recorded.dir} would take the episodes of all trials as one run's. "
            "Leave it out: each trial records into its own folder."
        )


def check_fixed(plan: Plan, origin: str) -> None:
    """Raises ConfigError for what is the same for all trials and would be ignored: each has its own value."""
    for override in plan.overrides:
        key, _, text = override.partition("=")
        values = strict_yaml.nest(key.strip(), strict_yaml.parse(text, origin))
        for leaf in strict_yaml.flatten(Config, values, origin):
            if leaf == "run.dir":
                raise ConfigError(
                    f"{origin}: {override}: each trial has its own folder; the sweep's is sweep.dir=PATH."
                )
            if any(leaf == varied or leaf.startswith(f"{varied}.") for varied in plan.space):
                raise ConfigError(f"{origin}: {leaf} is varied by space and fixed too. Remove one.")


def as_override(key: str, value: Any) -> str:
    """`key=value` as the command line takes it."""
    if isinstance(value, (list, tuple)):
        return f"{key}={json.dumps(value, ensure_ascii=False)}"  # YAML takes it as it is, on one line
    return f"{key}={strict_yaml.dump({'value': value}).partition(':')[2].strip()}"


def dirname(trial_id: str) -> str:
    """Of a trial; its number in the sweep is the end of its id."""
    return f"trial_{trial_id.rpartition('_')[2]}"


def show(value: Any) -> str:
    """Of a key, in tables."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
