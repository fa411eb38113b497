"""One run's configuration: a section per place of the loop, defaults with their sources, and its rules.

    config = load_config(Path("tuned_configs/panda_sac.yaml"), ["sac.batch_size=128", "run.seed=1"])
    config.sac.batch_size  # 128

A YAML file states only how it differs from these defaults, or from the file it names as `base:` (relative to
its own folder). `key=value` overrides come last, in order. All errors are `ConfigError`.

Sources: "LeRobot" is its HIL-SERL actor/learner configuration for this task, "RLPD" Ball et al. 2023, "SAC"
Haarnoja et al. 2018, "ours" was tuned here.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from hil_rllib import strict_yaml
from hil_rllib.strict_yaml import ConfigError, NotEmpty, Range

__all__ = ["CONFIG_FILE", "Config", "ConfigError", "load_config"]

CONFIG_FILE = "config.yaml"  # in a run's folder: what it was begun with
SUMMARY_FILE = "summary.json"  # in the folder of a run that ended

# What may name a file or folder, and words in its place.
PATHS = (
    ("run", "init_from"), ("encoder", "weights"), ("demos", "source"), ("reward", "classifier"),
    ("operator", "controller_config"),
)  # fmt: skip
FOLDERS = (("run", "dir"), ("record", "dir"))  # that a run writes
NO_PATHS = ("bundled", "none", "random", "scripted")

VERSION = 1  # of configuration files; one that does not say it is read as it stands
# {version: what makes its nested values those of the next one}
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}

Count = Annotated[int, Range(low=0)]
Positive = Annotated[int, Range(low=1)]
Seed = Annotated[int, Range(low=0, high=2**31 - 1)]  # runners count on from it, and torch ends at 2³² - 1
Fraction = Annotated[float, Range(low=0, high=1)]
Weight = Annotated[float, Range(low=0)]
LearningRate = Annotated[float, Range(above=0, high=1)]
Name = Annotated[str, NotEmpty()]
Indices = Annotated[tuple[int, ...], Range(low=0), NotEmpty()]
Device = Literal["auto", "browser", "gamepad", "hid", "keyboard", "none", "scripted"]


@dataclass(frozen=True)
class RunSection:
    seed: Seed = 0
    dir: Name = "runs/panda_sac"
    # bc, iql, act: on the demonstrations alone; dagger: on corrections too; reward: a classifier of success
    algorithm: Literal["sac", "bc", "iql", "act", "dagger", "reward"] = "sac"
    init_from: Name | None = None  # a run or checkpoint whose policy to begin with; skips the BC start
    mode: Literal["async", "lockstep"] = "async"  # lockstep: same seed, same run


@dataclass(frozen=True)
class EnvSection:
    id: Name = "hil/PandaPickCube-v0"
    image_obs: bool = True  # false: the cube's position instead of two cameras
    random_block_position: bool = False
    reward_type: Literal["sparse", "dense"] = "sparse"
    render_quality: Literal["full", "fast"] = "full"  # full: as recorded videos; fast: no shadows
    max_episode_steps: Positive = 100  # gym-hil


@dataclass(frozen=True)
class EncoderSection:
    """ResNet10 per camera; has no effect without images."""

    weights: Name = "bundled"  # bundled | random | a file | a hub id
    frozen: bool = True  # frozen: features are computed once per step, and replay holds them, not frames
    latent_dim: Positive = 64  # per camera; LeRobot uses 64…256
    embeddings_per_channel: Positive = 8  # spatial learned embeddings; LeRobot
    dropout: Annotated[float, Range(low=0, high=0.9)] = 0.1  # LeRobot, there a draw a row, here a batch
    shift_pad: Count = 4  # [px] DrQ random shift of the frames; only where the encoder is trained


@dataclass(frozen=True)
class DemosSection:
    source: Name = "aractingi/franka_sim_pick_lift_6"  # hub id | local folder | scripted | none
    frames: Literal["recorded", "rerendered"] = "recorded"  # rerendered: drawn again at this run's quality
    fallback: Literal["none", "scripted"] = "none"  # what to do where the hub cannot be reached
    scripted_episodes: Positive = 30  # as many as the reference dataset has
    episodes: Positive | Indices | None = None  # the first N | these | all
    revision: Name | None = None  # branch, tag or commit of a hub id
    features: tuple[str, ...] = ()  # its names = ours, such as observation.images.top=front


@dataclass(frozen=True)
class ScriptedOperatorSection:
    """The synthetic human: an expert with noise, a reaction delay and limited patience."""

    reaction_s: Weight = 0.3  # [s] from the decision to take over to the first action
    noise: Weight = 0.1  # standard deviation per axis, in motion units
    takeover_probability: Fraction = 0.02  # per step, from `start_after_step` on
    error_rate: Fraction = 0.0  # fraction of its steps with a random action
    budget_s: Weight = 600.0  # [s] of human time it will spend in the whole run
    start_after_step: Count = 20  # a solved episode takes about 18
    help_steps: Positive = 15  # length of one intervention
    stuck_after_steps: Count = 0  # steps without progress after which it takes over for sure; 0: never


@dataclass(frozen=True)
class OperatorSection:
    count: Count = 1  # people, each with a runner on a seat of its own; 0: nobody
    device: Device | tuple[Device, ...] = "auto"  # of all, or a list of `count`, one for each
    mode: Literal["hold", "toggle", "auto"] = "hold"
    hz: Annotated[float, Range(above=0, high=100)] = 10.0  # the environment's own control rate
    realtime: bool = False  # keep to `hz` with a synthetic device too; with a person it is always kept
    controller_config: str | None = None  # gamepad: a JSON map of your own; null: the one that fits its name
    bind: Name = "127.0.0.1"  # browser: the address its page is served at; 0.0.0.0: all of this machine's
    port: Annotated[int, Range(low=0, high=65535)] | None = None  # 0: any; null: the first free from 8642 on
    attention: bool = False  # one person beside all operators' robots goes where they are needed; by browser
    scripted: ScriptedOperatorSection = field(default_factory=ScriptedOperatorSection)

    @property
    def devices(self) -> tuple[Device, ...]:
        """Each operator's."""
        return self.device if isinstance(self.device, tuple) else (self.device,) * self.count


@dataclass(frozen=True)
class RunnersSection:
    autonomous: Count = 0  # runners beside the operators'; those without a place yet join once there is one
    envs_per_runner: Positive = 1
    fragment: Positive = 5  # steps per sample request; short ones keep the operator's clock steady


@dataclass(frozen=True)
class RecordSection:
    """Episodes as LeRobot datasets with raw frames: `operator`, `autonomous_1`, … in `dir`."""

    operator: bool = False  # of the operator's runner, whoever acts at a step
    autonomous: bool = False  # of the runners the policy drives alone
    dir: Name | None = None  # null: recordings/ in run.dir; a dataset that is there already is continued
    task: Name = "Pick up the cube"  # in words, for policies that read


@dataclass(frozen=True)
class SACSection:
    batch_size: Annotated[int, Range(low=2)] = 256  # SAC, LeRobot
    utd_ratio: Annotated[float, Range(above=0, high=64)] = 2.0  # updates per env step; LeRobot
    demo_fraction: Fraction = 0.5  # of every batch; RLPD
    gamma: Annotated[float, Range(low=0, high=0.9999)] = 0.97  # LeRobot
    tau: Annotated[float, Range(above=0, high=1)] = 0.005  # target networks' step; SAC
    actor_lr: LearningRate = 3e-4  # SAC
    critic_lr: LearningRate = 3e-4  # SAC
    temperature_lr: LearningRate = 3e-4  # SAC
    initial_temperature: Annotated[float, Range(above=0)] = 0.01  # LeRobot
    target_entropy: float | None = None  # null: −|A|/2, gripper counted; LeRobot
    num_critics: Positive = 2  # SAC
    # Critics in the target's minimum, a random choice; the actor then climbs the mean of all. RLPD: 2 of 10.
    critic_subsample: Positive | None = None  # null: the minimum of all, for both
    hidden: Annotated[tuple[int, ...], Range(low=1), NotEmpty()] = (256, 256)  # SAC
    online_capacity: Positive = 100_000  # [steps]; LeRobot
    demo_capacity: Positive = 100_000  # [steps]; LeRobot
    learning_starts: Count = 100  # [env steps]; LeRobot
    weight_push_every: Positive = 4  # [updates] at most between two; lockstep: after every round; LeRobot
    grad_clip: Annotated[float, Range(above=0)] = 10.0  # norm; LeRobot
    skip_limit: Positive = 10  # updates in a row, not finite and so skipped, that end a run of any kind; ours
    entropy_backup: bool = False  # HIL-SERL; SAC has it: with α rising it costs a step 0.04 of value here
    gripper_margin: Weight = 0.1  # large-margin term of the gripper head on demos; DQfD; value ours
    gripper_margin_weight: Weight = 1.0  # Hester et al. 2018; 0 switches the term off
    bc_weight: Weight = 10.0  # cloning term on demos; Nair et al. 2018; value ours; 0 is off
    q_normalised_actor: bool = True  # actor loss over mean |Q|; TD3+BC, Fujimoto & Gu 2021
    anchor_decay_steps: Positive | None = None  # [env steps] over which both anchors fade; null: never
    bc_start_updates: Count = 0  # behaviour cloning before the first env step
    critic_warmup_updates: Count = 0  # critic-only updates after the BC start
    residual: bool = False  # correct the policy of run.init_from, ACT's or another, not train it on
    residual_scale: Annotated[float, Range(above=0, high=2)] = 0.5  # most it adds to a motion; ours
    residual_margin: Weight = 0.05  # by which another choice of the gripper must beat the base's; ours


@dataclass(frozen=True)
class OfflineSection:
    """What every `run.algorithm` but sac has in common; network sizes are those of `sac` and `encoder`."""

    updates: Positive = 2000  # gradient updates, then the run ends
    batch_size: Positive = 256  # as SAC's
    lr: LearningRate = 3e-4  # of the policy; as SAC's
    leave_out_idle: bool = True  # steps in which the person did nothing teach to stand still; OpenVLA


@dataclass(frozen=True)
class IQLSection:
    """Implicit Q-learning, Kostrikov et al. 2022."""

    expectile: Annotated[float, Range(above=0, high=0.999)] = 0.7  # IQL, locomotion
    # Inverse temperature of the advantage weights; IQL has 3, RLlib 2.60 takes 1 at most (MARWIL's rule).
    beta: Annotated[float, Range(above=0, high=1)] = 1.0
    gamma: Annotated[float, Range(low=0, high=0.9999)] = 0.97  # as SAC's
    tau: Annotated[float, Range(above=0, high=1)] = 0.005  # IQL
    critic_lr: LearningRate = 3e-4  # IQL
    value_lr: LearningRate = 3e-4  # IQL


@dataclass(frozen=True)
class ACTSection:
    """Action chunking with transformers, Zhao et al. 2023 ("ACT": its appendix C or its code)."""

    chunk: Positive = 20  # [steps] 2 s, as ACT's 100 at 50 Hz
    # m of the weights exp(-m·i), i = 0 for the oldest prediction; ACT's 0.01. Below 0 the newest count most.
    ensemble_decay: Annotated[float, Range(low=-10, high=10)] = 0.01
    kl_weight: Weight = 10.0  # ACT
    latent: Positive = 32  # of z; ACT's code
    width: Positive = 128  # of a token; ACT has 512 for two arms and a GPU
    heads: Positive = 8  # ACT
    feedforward: Positive = 512  # ACT 3200
    encoder_layers: Positive = 2  # of each of the two encoders; ACT 4
    decoder_layers: Positive = 1  # ACT says 7, but its code takes what the first gives and drops the others
    dropout: Annotated[float, Range(low=0, high=0.9)] = 0.1  # ACT
    weight_decay: Weight = 1e-4  # AdamW; ACT's code


@dataclass(frozen=True)
class DAggerSection:
    """HG-DAgger, Kelly et al. 2019: `offline.updates`, then rounds of correcting and learning; sizes ours."""

    policy: Literal["act", "bc"] = "act"
    rounds: Positive = 5
    episodes: Positive = 10  # a round, in the operator's runner
    updates: Positive = 150  # a round, on the demonstrations and all corrections


@dataclass(frozen=True)
class RewardSection:
    """Success told from both cameras: how a classifier is trained, and whether one rewards a SAC run."""

    sources: tuple[str, ...] = ()  # labelled datasets beside demos.source; scripted: a synthetic human's
    scripted_episodes: Positive = 200  # of the synthetic human
    held_out: Annotated[float, Range(above=0, high=0.4)] = 0.2  # of episodes, to test; as many calibrate
    precision: Annotated[float, Range(above=0, high=1)] = 0.98  # wanted; a policy finds false positives; ours
    hidden: Positive = 256  # units; HIL-SERL
    classifier: Name | None = None  # a run or checkpoint of run.algorithm reward that rewards this SAC run
    consecutive: Positive = 1  # frames called success before an episode ends and is rewarded
    refit_every_episodes: Positive | None = None  # of the operator's verdicts; null: the classifier stays


@dataclass(frozen=True)
class EvaluationSection:
    every_steps: Positive = 1000  # [env steps with sac, else updates]; dagger: after every round instead
    episodes: Positive = 20  # greedy; only one where every reset is the same, as with a fixed cube
    seed: Seed = 10_000  # apart from the run's own, so that training never saw these resets


@dataclass(frozen=True)
class CheckpointSection:
    every_steps: Positive = 2000  # LeRobot; [env steps with sac, else updates]; dagger: as evaluations
    keep: Positive = 3


@dataclass(frozen=True)
class StopSection:
    success: Fraction | None = 1.0  # greedy success rate that ends the run; null: only its length does
    evaluations_in_row: Positive = 1
    env_steps: Positive = 100_000  # sac; the others end after offline.updates, dagger after its rounds


@dataclass(frozen=True)
class Config:
    """Everything a run depends on."""

    run: RunSection = field(default_factory=RunSection)
    env: EnvSection = field(default_factory=EnvSection)
    encoder: EncoderSection = field(default_factory=EncoderSection)
    demos: DemosSection = field(default_factory=DemosSection)
    operator: OperatorSection = field(default_factory=OperatorSection)
    runners: RunnersSection = field(default_factory=RunnersSection)
    record: RecordSection = field(default_factory=RecordSection)
    sac: SACSection = field(default_factory=SACSection)
    offline: OfflineSection = field(default_factory=OfflineSection)
    iql: IQLSection = field(default_factory=IQLSection)
    act: ACTSection = field(default_factory=ACTSection)
    dagger: DAggerSection = field(default_factory=DAggerSection)
    reward: RewardSection = field(default_factory=RewardSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    checkpoint: CheckpointSection = field(default_factory=CheckpointSection)
    stop: StopSection = field(default_factory=StopSection)

    @property
    def schedule(self) -> tuple[str, int]:
        """What evaluations, checkpoints and the end count, a `hil/…` metric, and where the run ends."""
        if self.run.algorithm == "sac":
            return "env_steps", self.stop.env_steps
        if self.run.algorithm == "dagger":
            before = 0 if self.run.init_from else self.offline.updates
            return "updates", before + self.dagger.rounds * self.dagger.updates
        return "updates", self.offline.updates

    def to_dict(self) -> dict[str, Any]:
        """Plain nested values, lists in place of tuples."""
        return dataclasses.asdict(self, dict_factory=lambda items: {k: _plain(v) for k, v in items})

    def to_yaml(self) -> str:
        """The resolved configuration; `load_config` reads it back to an equal one."""
        return strict_yaml.dump({"version": VERSION, **self.to_dict()})


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a YAML file, its bases, and `section.key=value` overrides, the last one winning.

    Raises ConfigError for an unknown or repeated key, a value of the wrong type or out of range, an
    unreadable file, a cycle of bases, and settings that contradict each other.
    """
    leaves = _leaves(Path(path), ())
    for override in overrides:
        key, equals, text = override.partition("=")
        origin = f"override '{override}'"
        if not equals or not key.strip():
            raise ConfigError(f"{origin}: expected section.key=value, for example sac.batch_size=128.")
        values = strict_yaml.nest(key.strip(), strict_yaml.parse(text, origin))
        leaves |= strict_yaml.flatten(Config, values, origin)
    config = strict_yaml.build(Config, leaves)
    _check(config, str(path))
    for section, name in FOLDERS:
        part = getattr(config, section)
        if (folder := getattr(part, name)) is not None:
            part = replace(part, **{name: os.path.expanduser(folder)})
            config = replace(config, **{section: part})
    return config


def from_dict(values: dict[str, Any], origin: str) -> Config:
    """The configuration that `to_dict` gave, or its beginnings. origin: of the values, for messages."""
    return strict_yaml.build(Config, strict_yaml.flatten(Config, values, origin))


def absolute(config: Config, here: Path) -> Config:
    """The configuration with absolute paths: Tune runs each trial in a folder of its own."""
    for section, name in PATHS:
        part = getattr(config, section)
        value = getattr(part, name)
        if value is None or value in NO_PATHS:
            continue
        path = here / Path(value).expanduser()
        if path.exists():  # else it is a name on the hub
            config = replace(config, **{section: replace(part, **{name: str(path)})})
    return config


def _of_this_version(values: Any, origin: str) -> Any:
    """Values without their `version`, migrated where it is an older one."""
    if not isinstance(values, dict) or "version" not in values:
        return values
    version = values.pop("version")
    if not isinstance(version, int) or version < 1:
        raise ConfigError(f"{origin}: version must be a whole number from 1, got {version!r}.")
    if version > VERSION:
        raise ConfigError(
            f"{origin} has version {version}, this program reads up to {VERSION}. Use the release that "
            "wrote it."
        )
    for older in range(version, VERSION):
        values = MIGRATIONS[older](values)
    return values


def _leaves(path: Path, below: tuple[Path, ...]) -> strict_yaml.Leaves:
    """Checked leaves of a file over those of its base. below: the files that named this one as base."""
    resolved = path.resolve()
    if resolved in below:
        raise ConfigError(f"{path}: base leads back to a file that it is the base of. Remove one `base:`.")
    values = strict_yaml.parse(strict_yaml.read_text(path), str(path))
    values = _of_this_version({} if values is None else values, str(path))
    base: strict_yaml.Leaves = {}
    if isinstance(values, dict) and "base" in values:
        name = values.pop("base")
        if not isinstance(name, str):
            raise ConfigError(f"{path}: base must be the name of a YAML file, got {name!r}.")
        base = _leaves(path.parent / name, (*below, resolved))
    return base | strict_yaml.flatten(Config, values, str(path))


def _check(config: Config, origin: str) -> None:
    """Settings that are fine alone but not together."""
    sac, demos, operator = config.sac, config.demos, config.operator
    no_demos = demos.source == "none"
    nobody = set(operator.devices) <= {"none"}
    recorded_set = demos.source not in ("none", "scripted")
    offline = config.run.algorithm != "sac"
    reward_run, dagger = config.run.algorithm == "reward", config.run.algorithm == "dagger"
    rules = [
        (
            reward_run and no_demos and not config.reward.sources,
            "run.algorithm 'reward' has no labelled frames: demos.source is 'none', reward.sources is empty.",
        ),
        (
            reward_run and not (config.env.image_obs and config.encoder.frozen),
            "run.algorithm 'reward' looks at frames through a frozen encoder. Set env.image_obs and "
            "encoder.frozen to true.",
        ),
        (
            reward_run and config.env.reward_type != "sparse",
            "run.algorithm 'reward' takes a rewarded step for success, env.reward_type 'dense' rewards every "
            "step. Set env.reward_type=sparse.",
        ),
        (
            reward_run and config.run.init_from is not None,
            "run.init_from begins with a policy, run.algorithm 'reward' has none. Remove it.",
        ),
        (
            config.reward.classifier is not None and (offline or not config.env.image_obs),
            "reward.classifier rewards what runners do and looks at frames: it needs run.algorithm 'sac' and "
            "env.image_obs true.",
        ),
        (
            config.reward.refit_every_episodes is not None
            and (config.reward.classifier is None or set(operator.devices) <= {"none", "scripted"}),
            "reward.refit_every_episodes waits for a person's verdicts on what a classifier rewards: set "
            "reward.classifier, and an operator.device with keys for success and failure.",
        ),
        (
            offline and not reward_run and no_demos,
            f"run.algorithm '{config.run.algorithm}' learns from demonstrations, but demos.source is 'none'. "
            "Name a source.",
        ),
        (
            offline and not dagger and (config.record.operator or config.record.autonomous),
            f"record: run.algorithm '{config.run.algorithm}' has no runners to record. Set both to false.",
        ),
        (
            sac.residual and (config.run.init_from is None or offline),
            "sac.residual corrects the policy of run.init_from, by run.algorithm 'sac'. Name a trained run.",
        ),
        (
            sac.residual and config.env.image_obs and not config.encoder.frozen,
            "sac.residual needs a frozen encoder: both policies see its features. Set encoder.frozen=true.",
        ),
        (
            dagger and nobody,
            "run.algorithm 'dagger' learns from who corrects it, but operator.device is 'none'. Name one.",
        ),
        (
            dagger and (config.runners.autonomous > 0 or operator.count != 1),
            "run.algorithm 'dagger' has one operator's runner only. Set operator.count=1 and "
            "runners.autonomous=0.",
        ),
        (
            dagger and config.run.mode == "lockstep",
            "run.algorithm 'dagger' never learns while the robot moves; run.mode 'lockstep' is for SAC. Set "
            "run.mode=async.",
        ),
        (
            config.act.width % (4 * config.act.heads) != 0,
            f"act.width {config.act.width} must be a multiple of 4 times act.heads {config.act.heads}.",
        ),
        (
            config.record.autonomous and config.runners.autonomous == 0,
            "record.autonomous needs runners.autonomous of 1 or more.",
        ),
        (
            config.runners.envs_per_runner > 1 and config.runners.autonomous == 0,
            f"runners.envs_per_runner {config.runners.envs_per_runner}: an operator's runner has one env. "
            "Set it to 1, or runners.autonomous to 1 or more.",
        ),
        (
            recorded_set and demos.frames == "recorded" and not config.env.image_obs,
            "demos.frames 'recorded' needs env.image_obs true: recorded frames do not tell the cube's place. "
            "Set demos.frames=rerendered, which replays the actions.",
        ),
        (
            sac.critic_subsample is not None and sac.critic_subsample > sac.num_critics,
            f"sac.critic_subsample {sac.critic_subsample} exceeds sac.num_critics {sac.num_critics}.",
        ),
        (
            not offline and no_demos and sac.bc_start_updates > 0,
            "sac.bc_start_updates needs demonstrations, but demos.source is 'none'. Set "
            "sac.bc_start_updates=0, or name a source.",
        ),
        (
            not offline and no_demos and sac.critic_warmup_updates > 0,
            "sac.critic_warmup_updates needs demonstrations, but demos.source is 'none'. Set "
            "sac.critic_warmup_updates=0, or name a source.",
        ),
        (
            len(operator.devices) != operator.count,
            f"operator.device lists {len(operator.devices)} devices, but operator.count is {operator.count}. "
            "Give one for each operator, or a single one for all.",
        ),
        (
            not offline and operator.count == 0 and config.runners.autonomous == 0,
            "operator.count and runners.autonomous are both 0: nobody would act. Set one to 1 or more.",
        ),
        (
            operator.attention and (operator.count < 2 or set(operator.devices) != {"browser"}),
            "operator.attention is for one person beside several robots: set operator.count to 2 or more "
            f"(it is {operator.count}), and operator.device=browser.",
        ),
        (
            config.record.operator and operator.count == 0,
            "record.operator needs operator.count of 1 or more.",
        ),
        (
            not offline and no_demos and nobody and sac.demo_fraction > 0,
            f"sac.demo_fraction {sac.demo_fraction:g} can never be met: demos.source is 'none', and no "
            "operator has a device. Set sac.demo_fraction=0, or name a source or a device.",
        ),
        (
            not no_demos and sac.demo_fraction == 0 and sac.bc_start_updates == 0,
            f"sac.demo_fraction 0 would never use the demonstrations of demos.source '{demos.source}'. "
            "Set demos.source=none, or a fraction above 0.",
        ),
        (
            sac.demo_fraction == 0 and (sac.bc_weight > 0 or sac.gripper_margin_weight > 0),
            "sac.bc_weight and sac.gripper_margin_weight act on the demo half of a batch, but "
            "sac.demo_fraction is 0. Set both weights to 0, or a fraction above 0.",
        ),
        (
            config.run.mode == "lockstep" and not set(operator.devices) <= {"none", "scripted"},
            f"run.mode 'lockstep' would make a person wait for the learner. Set operator.device to none or "
            f"scripted (it is '{', '.join(operator.devices)}'), or run.mode=async.",
        ),
        (
            config.run.mode == "lockstep" and operator.realtime,
            "run.mode 'lockstep' waits for the learner, operator.realtime for nobody. Set run.mode=async or "
            "operator.realtime=false.",
        ),
        (
            min(sac.online_capacity, sac.demo_capacity) < sac.batch_size,
            f"sac.online_capacity {sac.online_capacity} and sac.demo_capacity {sac.demo_capacity} must each "
            f"hold a batch of sac.batch_size {sac.batch_size}.",
        ),
        (
            sac.learning_starts >= config.stop.env_steps,
            f"sac.learning_starts {sac.learning_starts} must be below stop.env_steps "
            f"{config.stop.env_steps}, or nothing is learned.",
        ),
    ]
    for broken, message in rules:
        if broken:
            raise ConfigError(f"{origin}: {message}")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
