"""Decides, from the data, what the rows of a LeRobot dataset mean, and puts them right.

Three questions, none of which LeRobot's metadata answers:

1. Do rows hold (o_t, a_t), or, as every LeRobot recorder before v0.6 wrote them, (o_{t+1}, a_t)?
2. Is motion in metres, or in [-1, 1] times the step size?
3. Which gripper values mean open, hold and close?

The evidence is causal. The gripper's actuator command (agent_pos[14]) follows each action exactly, so of all
shifts and conventions only the true one predicts every change. The hand follows its commands with a lag of
several steps, so its displacement is regressed on the commands at lags 0…5: a command explains the
displacement up to its own row only if the row's observation was taken after it (lag 0 has half of the gain in
the Panda scene, else nothing), and the gain says the unit: 1 for metres, the step size for unit motion.

Our recordings state the answers in info.json. There the data may contradict, and need not prove them: a hand
that only pushes against something shows nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hil_rllib import contract
from hil_rllib.data import lerobot_format as fmt
from hil_rllib.data.demo import Demo
from hil_rllib.data.evidence import (
    CONVENTIONS,
    GripperEvidence,
    MotionEvidence,
    Track,
    gripper_evidence,
    motion_evidence,
)
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.lerobot_reader import Episode, LeRobotDataset
from hil_rllib.data.repair import Reading, to_demo, to_recording

logger = logging.getLogger(__name__)

MIN_R2 = 0.5  # of motion by commands; 0.98 on the real demonstrations
SURE_R2 = 0.9  # from which on the gain may contradict a statement; ours: 0.97 with half of them pushing
# Share of lag 0 above or below which motion speaks; half and nothing in the Panda scene.
LEAD_SHIFTED, LEAD_ALIGNED = 0.2, 0.08
GAIN_TOLERANCE = 2.5  # a gain fits a unit within this factor; metres and unit motion lie 40 apart
MIN_EXPLAINED = 0.9  # of the gripper's events
MIN_MARGIN = 0.05  # by which the better shift must explain more of them
UNITS = {"metres": 1.0, "[-1, 1]": contract.EE_STEP_SIZE}  # name → metres at 1
STATED = Reading(False, contract.EE_STEP_SIZE, CONVENTIONS[0])  # by `lerobot_format.statement`


@dataclass
class StatedEpisode(Episode):
    """An episode of a dataset which states that its rows are in our terms."""


@dataclass
class AlignmentReport:
    """What was found and what was done about it; `str()` gives the block that is logged once.

    stated: the reading is the one that info.json states.
    """

    dataset: str
    version: str
    episodes: int
    rows: int
    reading: Reading
    motion: MotionEvidence
    gripper: GripperEvidence
    stated: bool = False
    transitions: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def shifted(self) -> bool:
        return self.reading.shifted

    @property
    def motion_unit(self) -> str:
        """'metres' or '[-1, 1]'."""
        return next(name for name, metres in UNITS.items() if metres == self.reading.metres_per_unit)

    @property
    def terms(self) -> str:
        """What the rows mean, for a sentence."""
        rows = "(o[t+1], a[t])" if self.shifted else "(o[t], a[t])"
        return f"rows {rows}, motion in {self.motion_unit}, gripper {self.reading.gripper.name}"

    def agrees(self, other: AlignmentReport) -> bool:
        """Whether rows of both mean the same; a gripper that never changes contradicts none."""
        ours, theirs = self.reading, other.reading
        silent = not (self.gripper.events and other.gripper.events)
        return ours == (replace(theirs, gripper=ours.gripper) if silent else theirs)

    def note(self, sentence: str) -> None:
        """Adds a sentence to the block, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def __str__(self) -> str:
        rows = (
            "(o[t+1], a[t]), the observation after the action: shifted back"
            if self.shifted
            else "(o[t], a[t])"
        )
        seen = f"{self.gripper.explained:.0%} of {self.gripper.events} changes explained"
        lines = [
            f"Alignment of {self.dataset}",
            f"  dataset  LeRobot {self.version}, {self.episodes} episodes, {self.rows} rows",
            f"  rows     {rows}",
            f"  motion   in {self.motion_unit}; gain {self.motion.gain:.3g} m per unit, "
            f"{abs(self.motion.lead):.0%} of it at lag 0, R² {self.motion.r2:.2f}",
            f"  gripper  {self.reading.gripper.name}; {seen if self.gripper.events else 'it never changes'}",
        ]
        if self.stated:
            lines.append("  source   info.json states this, and the data do not contradict it")
        if self.transitions:
            lines.append(f"  result   {self.transitions} transitions have both observations in the file")
        return "\n".join(lines + [f"  note     {note}" for note in self.notes])


def align(
    dataset: LeRobotDataset,
    *,
    episodes: Sequence[int] | None = None,
    frames: bool = False,
    cameras: Sequence[str] | None = None,
    image_size: int | None = None,
    step_size: float = contract.EE_STEP_SIZE,
) -> tuple[list[Demo], AlignmentReport]:
    """Episodes (positions in the dataset; None: all) as `Demo`s in env terms, and the report, also logged.

    All sound episodes are evidence, also those not asked for. frames: decode the videos, of all cameras or
    those named, at their own size or resized to image_size² [px]. step_size: [m] at motion 1 in the
    environment. Which transitions a file can give without its environment: see `repair.to_demo`;
    `Demo.recording` keeps all actions for a replay.

    Raises:
        DatasetError: wrong dimensions, an episode asked for is damaged, or no convention explains the data.
    """
    dataset.choose(episodes)
    chosen = range(len(dataset)) if episodes is None else episodes
    sound = sound_episodes(dataset, chosen)
    report = decide(list(sound.values()), str(dataset.root), dataset.info.version)
    demos = []
    size = None if image_size is None else (image_size, image_size)
    stream: Iterable[Episode] = (sound[i] for i in chosen)
    if frames:
        stream = dataset.read(chosen, frames=True, cameras=cameras, size=size)
    for episode in stream:
        recording = to_recording(episode, report.reading, step_size, report.note)
        demo = to_demo(recording, episode, report.shifted) if len(recording) > 1 else None
        if demo is None:
            report.note(f"episode {recording.episode_index} has one row and gives no transition")
        else:
            demos.append(demo)
    report.transitions = sum(map(len, demos))
    logger.info("%s", report)
    return demos, report


def decide(episodes: Sequence[Episode], name: str = "dataset", version: str = "") -> AlignmentReport:
    """Answers this module's three questions from states and actions alone.

    Raises:
        DatasetError: no answer explains the data, or there is too little in it to tell. Not where they are
            stated to be in our terms and do not contradict.
    """
    tracks = [
        (np.asarray(e.column(fmt.STATE), np.float64), np.asarray(e.column(fmt.ACTION), np.float64))
        for e in episodes
    ]
    motion = motion_evidence(tracks)
    gripper = gripper_evidence(tracks, STATED.gripper, STATED.shifted)
    stated = all(isinstance(episode, StatedEpisode) for episode in episodes)
    if stated and not _contradict(motion, gripper):
        reading = STATED
    else:
        stated = False
        reading, gripper = _explain(tracks, motion, name)
    report = AlignmentReport(
        dataset=name,
        version=version,
        episodes=len(episodes),
        rows=sum(map(len, episodes)),
        reading=reading,
        motion=motion or MotionEvidence(0.0, 0.0, 0.0),
        gripper=gripper,
        stated=stated,
    )
    if not (stated or gripper.events):
        report.note("the gripper never changes: its convention is guessed from the values")
    return report


def _contradict(motion: MotionEvidence | None, gripper: GripperEvidence) -> bool:
    """Whether the data speak against `STATED`. gripper: of that reading."""
    if gripper.explained < MIN_EXPLAINED:
        return True
    return motion is not None and motion.r2 >= SURE_R2 and not _fits(motion.gain, STATED.metres_per_unit)


def _explain(
    tracks: Sequence[Track], motion: MotionEvidence | None, name: str
) -> tuple[Reading, GripperEvidence]:
    """The only reading that explains the data. Raises DatasetError where none does."""
    gripper, gripper_votes = _best_gripper(tracks, motion, name)
    said = f"Gripper: at best {gripper.explained:.0%} of {gripper.events} changes explained."

    def fail(problem: str) -> DatasetError:
        remedy = (
            "Check that it holds this scene's observations (18 numbers) and delta actions, or choose "
            "episodes in which the hand moves freely."
        )
        return DatasetError(name, f"{problem} {said}", remedy)

    if motion is None:
        raise fail("No motion is commanded anywhere, so its unit and timing are unknown.")
    said = f"Motion: R² {motion.r2:.2f}, {motion.lead:.0%} of the gain {motion.gain:.3g} at lag 0. {said}"
    if motion.r2 < MIN_R2:
        raise fail("The actions do not explain how the hand moves, shifted or not.")
    if gripper.explained < MIN_EXPLAINED:
        raise fail("The actions do not explain the gripper's changes, shifted or not.")
    votes = {gripper.shifted} if gripper_votes else set()
    if motion.lead > LEAD_SHIFTED or motion.lead < LEAD_ALIGNED:
        votes.add(motion.lead > LEAD_SHIFTED)
    if len(votes) != 1:
        raise fail(
            "Motion and gripper disagree on the rows' shift."
            if votes
            else "Too little happens to see a shift."
        )
    return Reading(votes.pop(), _metres_per_unit(motion, fail), gripper.convention), gripper


def _best_gripper(
    tracks: Sequence[Track], motion: MotionEvidence | None, name: str
) -> tuple[GripperEvidence, bool]:
    """The reading that explains most, and whether it speaks for its shift: the other one explains less."""
    values = np.concatenate([actions[:, contract.MOTION_DIM] for _, actions in tracks])
    fitting = [convention for convention in CONVENTIONS if convention.fits(values)]
    if not fitting:
        span = f"[{values.min():g}, {values.max():g}]"
        raise DatasetError(
            name,
            f"gripper commands span {span}; [0, 2] or [-1, 1] fit.",
            "Convert them to commands that open, hold or close.",
        )
    readings = [gripper_evidence(tracks, c, shifted) for c in fitting for shifted in (True, False)]
    # Among equals the shift that motion favours, then the order of CONVENTIONS (`max` keeps the first).
    favoured = motion is not None and motion.lead > LEAD_SHIFTED
    best = max(readings, key=lambda r: (r.explained, r.shifted == favoured))
    rival = max(r.explained for r in readings if r.shifted != best.shifted)
    return best, best.events > 0 and rival < best.explained - MIN_MARGIN


def _metres_per_unit(motion: MotionEvidence, fail: Callable[[str], DatasetError]) -> float:
    for metres in UNITS.values():
        if _fits(motion.gain, metres):
            return metres
    fitting = " or ".join(f"{metres:g} m ({name})" for name, metres in UNITS.items())
    raise fail(f"A command of 1 moves the hand by {motion.gain:.3g} m; {fitting} fit.")


def _fits(gain: float, metres: float) -> bool:
    return 1 / GAIN_TOLERANCE < gain / metres < GAIN_TOLERANCE


def sound_episodes(dataset: LeRobotDataset, chosen: Sequence[int]) -> dict[int, Episode]:
    """Episodes by position: those chosen, and as further evidence for `decide` what else can be read.

    The others are left out where nothing explains the data with them.

    Raises:
        DatasetError: not of this task, or a chosen episode is damaged or not finite.
    """
    check_features(dataset)
    sound = {}
    for position in range(len(dataset)):
        try:
            sound[position] = sound_episode(dataset, position)
        except DatasetError:
            if position in chosen:
                raise
    only = {position: episode for position, episode in sound.items() if position in chosen}
    if 0 < len(only) < len(sound):
        try:
            decide(list(sound.values()))
        except DatasetError:
            return only
    return sound


def sound_episode(dataset: LeRobotDataset, position: int) -> Episode:
    """One episode, as evidence. Raises DatasetError where it is damaged or not finite."""
    (episode,) = dataset.read([position])
    check_finite(episode)
    return StatedEpisode(**vars(episode)) if dataset.info.in_our_terms else episode


def check_features(dataset: LeRobotDataset) -> None:
    info = dataset.root / "meta" / "info.json"
    for key, size in (
        (fmt.STATE, contract.AGENT_POS_DIM),
        (fmt.ACTION, contract.ACTION_DIM),
        (fmt.REWARD, 1),
    ):
        feature = dataset.info.features.get(key)
        if feature is None:
            raise DatasetError(info, f"no feature {key!r}.", f"Record it, shape ({size},).")
        if feature.size != size:
            raise DatasetError(
                info,
                f"{key!r} has shape {feature.shape} {feature.names or ''}; ({size},) fits.",
                "Use a dataset of the 4-D Panda task: action = motion x, y, z and gripper; "
                "state = 7 joint positions, 7 velocities, gripper, TCP x, y, z.",
            )


def check_finite(episode: Episode) -> None:
    for key in (fmt.STATE, fmt.ACTION, fmt.REWARD):
        rows = np.asarray(episode.column(key), np.float64).reshape(len(episode), -1)
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if bad.size:
            which = f"{bad.size} rows of episode {episode.meta.index}, first {bad[0]}"
            raise DatasetError(
                episode.meta.data_path,
                f"{key!r} is NaN or infinite in {which}.",
                "Leave that episode out of the dataset.",
            )
