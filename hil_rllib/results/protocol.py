"""What the benchmark compares: settings (task and demonstrations), arms (who helps), seeds.

The constants that all runs share, such as the synthetic human's delay and the evaluations, are in
`tuned_configs/benchmark/*.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CONFIGS = Path("tuned_configs/benchmark")
REAL_DEMOS = "aractingi/franka_sim_pick_lift_6"
MOST_STEPS = 15_000  # env steps of a run, as `stop.env_steps` in the configurations
MOST_SEEDS = 100  # a report looks for no others
THRESHOLDS = (0.9, 1.0)  # greedy success whose first reach is reported

NO_OPERATOR = "operator.device=none"
NO_DEMOS = ("demos.source=none", "sac.bc_start_updates=0")
NO_ANCHORS = ("sac.bc_weight=0", "sac.gripper_margin_weight=0")


@dataclass(frozen=True)
class Arm:
    """Who helps. demos: whether it uses demonstrations, so that it differs between demo sets."""

    title: str
    overrides: tuple[str, ...]
    demos: bool = True


@dataclass(frozen=True)
class Setting:
    """A task with one demo set. task: where runs without demonstrations are shared between settings."""

    task: str
    title: str
    config: str
    demos: tuple[str, ...]
    arms: tuple[str, ...]
    seeds: int


@dataclass(frozen=True)
class Job:
    """One run of the benchmark."""

    setting: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """The run's folder; runs without demonstrations have one for all settings of a task."""
        place = self.setting if ARMS[self.arm].demos else SETTINGS[self.setting].task
        return f"{place}-{self.arm}-{self.seed}"

    def overrides(self, demos: str | None = None) -> list[str]:
        """What differs from the config. demos: a local folder in place of the hub's real demonstrations."""
        arm, setting = ARMS[self.arm], SETTINGS[self.setting]
        source = [item.format(real=demos or REAL_DEMOS) for item in setting.demos] if arm.demos else []
        return [f"run.seed={self.seed}", *source, *arm.overrides]

    @property
    def config(self) -> Path:
        return CONFIGS / SETTINGS[self.setting].config


ARMS: dict[str, Arm] = {
    "both": Arm("demos and interventions", ()),
    "demos": Arm("demos only", (NO_OPERATOR,)),
    "interventions": Arm("interventions only", NO_DEMOS, demos=False),
    "none": Arm("neither", (NO_OPERATOR, *NO_DEMOS, *NO_ANCHORS, "sac.demo_fraction=0"), demos=False),
    # One evaluation, after the last update: the best of several would flatter it.
    "cloning": Arm(
        "cloning alone",
        ("run.algorithm=bc", NO_OPERATOR, "offline.updates=2000", "evaluation.every_steps=2000"),
    ),
    "unanchored": Arm("both, not anchored", NO_ANCHORS),
    "untrained": Arm("both, random encoder", ("encoder.weights=random",)),
}

_REAL = ("demos.source={real}", "demos.frames=rerendered")
_ALL = ("both", "demos", "interventions", "none", "cloning", "unanchored")
SETTINGS: dict[str, Setting] = {
    "state-real": Setting(
        "state", "cube anywhere, its position told; 30 real demos of one place", "state.yaml", _REAL, _ALL, 5
    ),
    "state-scripted": Setting(
        "state", "cube anywhere, its position told; 30 scripted demos", "state.yaml", (), _ALL, 5
    ),
    "images-real": Setting(
        "images",
        "cube anywhere, seen by cameras; 30 real demos of one place",
        "images.yaml",
        _REAL,
        ("both", "demos", "untrained"),
        3,
    ),
    "images-fixed": Setting(
        "fixed",
        "cube at the demos' place, seen by cameras; 30 real demos",
        "fixed.yaml",
        _REAL,
        ("both", "demos"),
        3,
    ),
}


def jobs(
    settings: Sequence[str] | None = None,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> Iterator[Job]:
    """The runs to be made, each folder once: all arms with one seed before any with the next."""
    seen = set()
    for seed in range(max(setting.seeds for setting in SETTINGS.values())) if seeds is None else seeds:
        for name in settings or SETTINGS:
            for arm in SETTINGS[name].arms:
                job = Job(name, arm, seed)
                wanted = (arms is None or arm in arms) and (seeds is not None or seed < SETTINGS[name].seeds)
                if wanted and job.name not in seen:
                    seen.add(job.name)
                    yield job


def of_setting(name: str, seeds: Sequence[int]) -> Iterator[Job]:
    """All runs that a setting's table and figure show, those shared with other settings too."""
    for arm in SETTINGS[name].arms:
        yield from (Job(name, arm, seed) for seed in seeds)
