"""Looks for what is wrong with a dataset: its conventions, its actions, its frames, its outcomes.

Three grades. `note`: worth knowing, nothing wrong. `repairable`: reading it here puts it right, and
`convert --repair` does so for good. `damage`: neither can; the episodes named should be left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hil_rllib import contract
from hil_rllib.data import lerobot_format as fmt
from hil_rllib.data.alignment import AlignmentReport, check_features, decide, sound_episode
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.lerobot_reader import Episode, LeRobotDataset
from hil_rllib.data.repair import to_recording
from hil_rllib.data.video import Frames

Grade = Literal["note", "repairable", "damage"]

# A camera's picture changes when the hand moves: in the real demonstrations by 0.48 grey levels at least from
# one row to the next, and by 10 over an episode. A picture that stays changes by its coding
# alone: by 0.07 and 3.2 at most in H.264 of crf 10 … 30.
MOVED_M = 3e-3  # [m] of the TCP from row to row
STRAYED_M = 0.05  # [m] of the TCP from where the episode began; so far it changes the picture by 4.6 at least
SAME_FRAME = 0.15  # mean absolute difference to the frame before [grey levels]
SEES = 0.5  # likewise, the median of a camera in whose view the hand moves
SAME_VIEW = 4.0  # likewise of the frame that differs most from the episode's first
MANY = 8  # episodes named one by one


@dataclass(frozen=True)
class Finding:
    """One kind of thing found. episodes: their indices, empty where it concerns all of the dataset."""

    grade: Grade
    what: str
    episodes: tuple[int, ...] = ()

    def __str__(self) -> str:
        named = ", ".join(map(str, self.episodes[:MANY])) + (" …" if len(self.episodes) > MANY else "")
        where = f" ({len(self.episodes)} episodes: {named})" if self.episodes else ""
        return f"{self.grade:10s} {self.what}{where}"


@dataclass
class CheckReport:
    """alignment: None where the data did not allow to decide it (a finding says why)."""

    alignment: AlignmentReport | None
    findings: list[Finding]

    @property
    def usable(self) -> bool:
        """Nothing is wrong that cannot be repaired."""
        return all(finding.grade != "damage" for finding in self.findings)


@dataclass
class _Seen:
    """What one pass over the episodes collects: per kind of finding the episodes it was seen in."""

    where: dict[tuple[Grade, str], list[int]] = field(default_factory=dict)
    broken: list[Finding] = field(default_factory=list)
    actions: dict[str, int] = field(default_factory=dict)  # digest → first episode with it
    lacking_success: list[int] = field(default_factory=list)

    def add(self, grade: Grade, what: str, episode: int) -> None:
        self.where.setdefault((grade, what), []).append(episode)

    def findings(self) -> Iterator[Finding]:
        yield from self.broken
        yield from (Finding(grade, what, tuple(of)) for (grade, what), of in self.where.items())


def check(dataset: LeRobotDataset, step_size: float = contract.EE_STEP_SIZE) -> CheckReport:
    """Reads everything once, videos included, one episode at a time.

    step_size: [m] at motion 1 in the environment.
    """
    seen = _Seen()
    sound = list(_sound_episodes(dataset, seen))
    alignment: AlignmentReport | None = None
    try:
        check_features(dataset)
        alignment = decide(sound, str(dataset.root), dataset.info.version) if sound else None
    except DatasetError as error:
        seen.broken.append(Finding("damage", str(error)))
    if alignment is not None:
        seen.broken += _conventions(alignment)
        for episode in sound:
            _check_rows(episode, alignment, step_size, seen)
        _check_outcomes(len(sound), seen)
    positions = {meta.index: i for i, meta in enumerate(dataset.episodes)}
    for episode in sound:
        _check_frames(dataset, positions[episode.meta.index], seen)
    order: Sequence[Grade] = ("damage", "repairable", "note")
    return CheckReport(alignment, sorted(seen.findings(), key=lambda finding: order.index(finding.grade)))


def _sound_episodes(dataset: LeRobotDataset, seen: _Seen) -> Iterator[Episode]:
    """Episodes whose rows can be read and are finite; the others are findings."""
    for position, meta in enumerate(dataset.episodes):
        try:
            yield sound_episode(dataset, position)
        except DatasetError as error:
            seen.broken.append(Finding("damage", str(error), (meta.index,)))


def _conventions(report: AlignmentReport) -> Iterator[Finding]:
    if report.shifted:
        yield Finding("repairable", "rows hold the observation after the action: shifted by one")
    if report.motion_unit != "[-1, 1]":
        yield Finding("repairable", f"motion is in {report.motion_unit}, not in [-1, 1] steps")
    convention = report.reading.gripper
    if (convention.hold, convention.sign) != (1, 1):
        yield Finding("repairable", f"the gripper is commanded by {convention.name}")
    for note in report.notes:
        yield Finding("note", note)


def _check_rows(episode: Episode, report: AlignmentReport, step_size: float, seen: _Seen) -> None:
    index = episode.meta.index
    raw = np.asarray(episode.column(fmt.ACTION), np.float64)
    motion = raw[:, : contract.MOTION_DIM] * (report.reading.metres_per_unit / step_size)
    if np.any(np.abs(motion) > 1 + 1e-6):
        seen.add("repairable", "motion beyond [-1, 1] is clipped", index)
    try:
        recording = to_recording(episode, report.reading, step_size, lambda _: None)
    except DatasetError as error:
        seen.broken.append(Finding("damage", str(error), (index,)))
        return
    if not recording.success:
        seen.lacking_success.append(index)
    if len(recording) == 1:
        seen.add("repairable", "episodes of one row give no transition and are left out", index)
    digest = hashlib.sha256(np.ascontiguousarray(raw).tobytes()).hexdigest()
    if seen.actions.setdefault(digest, index) != index:
        seen.add("note", "the same actions as in an earlier episode", index)
    if fmt.INTERVENTION in episode.columns and not np.any(recording.interventions):
        seen.add("note", "no step of these is a person's", index)


def _check_outcomes(episodes: int, seen: _Seen) -> None:
    failed = tuple(seen.lacking_success)
    if failed and len(failed) == episodes:
        seen.broken.append(Finding("damage", "no episode succeeds: there is nothing to learn from"))
    elif failed:
        seen.broken.append(Finding("note", "no success in these episodes", failed))


def _check_frames(dataset: LeRobotDataset, position: int, seen: _Seen) -> None:
    """Damaged, frozen and repeating frames of one episode."""
    for camera, frames in _readable_frames(dataset, position, seen).items():
        (episode,) = dataset.read([position])
        index, state = episode.meta.index, episode.columns.get(fmt.STATE)
        if state is None or state.shape[1:] != (contract.AGENT_POS_DIM,) or len(episode) < 2:
            continue
        tcp_pos = state[:, contract.AGENT_POS["tcp_pos"]]
        moved = np.linalg.norm(np.diff(tcp_pos, axis=0), axis=1)
        strayed = np.linalg.norm(tcp_pos - tcp_pos[0], axis=1).max()
        from_first, from_last = changes(frames)
        if strayed > STRAYED_M and from_first.max() < SAME_VIEW:
            seen.add("damage", f"camera {camera} is frozen while the hand moves", index)
            continue
        seeing = from_last[moved > MOVED_M]  # a camera that mostly does not see the hand move is left alone
        if seeing.size and np.median(seeing) > SEES and seeing.min() < SAME_FRAME:
            seen.add("damage", f"camera {camera} repeats frames while the hand moves", index)


def _readable_frames(dataset: LeRobotDataset, position: int, seen: _Seen) -> dict[str, Frames]:
    frames: dict[str, Frames] = {}
    for cameras in dict.fromkeys([dataset.cameras, *((camera,) for camera in dataset.cameras)]):
        try:  # all at once, in parallel; one by one where that fails, to name each damaged file
            (episode,) = dataset.read([position], frames=True, cameras=cameras)
        except DatasetError as error:
            if len(cameras) == 1:
                seen.broken.append(Finding("damage", str(error), (dataset.episodes[position].index,)))
            continue
        frames |= episode.frames
        if len(frames) == len(dataset.cameras):
            break
    return frames


def changes(frames: Frames) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean absolute difference [grey levels] of frames 1 … N−1 to the first one, and to the one before."""
    first = frames[0].astype(np.int16)
    before = first
    to_first, to_before = [], []
    for frame in frames[1:]:
        now = frame.astype(np.int16)
        to_first.append(np.abs(now - first).mean())
        to_before.append(np.abs(now - before).mean())
        before = now
    return np.array(to_first), np.array(to_before)
