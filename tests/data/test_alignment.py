"""The alignment check finds out how a dataset was written, whatever that was, and undoes it."""

from __future__ import annotations

from pathlib import Path

import lerobot_samples as samples
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil_rllib.data.alignment import StatedEpisode, align, decide
from hil_rllib.data.evidence import CONVENTIONS, GripperConvention
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.lerobot_reader import open_dataset
from hil_rllib.data.repair import to_demo, to_recording


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shifted=st.booleans(),
    metres=st.booleans(),
    gripper=st.sampled_from(CONVENTIONS),
    episodes=st.integers(2, 5),
)
def test_every_convention_is_recognised_and_undone(seed, shifted, metres, gripper, episodes):
    rng = np.random.default_rng(seed)
    originals = [samples.env_episode(rng) for _ in range(episodes)]
    stored = [
        samples.in_memory(i, *samples.encode(*original, shifted, metres, gripper))
        for i, original in enumerate(originals)
    ]

    report = decide(stored)

    assert report.shifted == shifted
    assert report.motion_unit == ("metres" if metres else "[-1, 1]")
    assert report.reading.gripper == gripper
    for episode, (states, actions) in zip(stored, originals, strict=True):
        recording = to_recording(episode, report.reading, samples.STEP, report.note)
        np.testing.assert_allclose(recording.actions, actions, atol=1e-6)
        demo = to_demo(recording, episode, shifted)
        # A shifted file lacks the reset observation, so the demo starts at the second action.
        first = 1 if shifted else 0
        np.testing.assert_allclose(demo.actions, actions[first:], atol=1e-6)
        known = states[first:] if shifted else np.vstack([states[:-1], states[-2:-1]])
        np.testing.assert_array_equal(demo.agent_pos, known.astype(np.float32))
        assert demo.terminated.tolist() == [False] * (len(demo) - 1) + [True]
        assert demo.rewards[-1] == 1
        assert not demo.truncated.any()


@pytest.mark.parametrize("broken", ["motion", "gripper", "gripper against motion", "scale", "nothing"])
def test_data_that_no_convention_explains_is_refused(broken):
    rng = np.random.default_rng(1)
    stored = []
    for index in range(4):
        states, actions = samples.encode(*samples.env_episode(rng), False, False, CONVENTIONS[0])
        if broken == "motion":
            actions[:, :3] = rng.permutation(actions[:, :3])
        elif broken == "gripper":
            actions[:, 3] = rng.permutation(actions[:, 3])
        elif broken == "gripper against motion":
            actions[1:, 3], actions[0, 3] = actions[:-1, 3].copy(), 1
        elif broken == "scale":
            actions[:, :3] *= 7
        else:
            actions[:, :3] = 0
        stored.append(samples.in_memory(index, states, actions))
    with pytest.raises(DatasetError, match="Check that it holds") as error:
        decide(stored, name="the dataset")
    expected = {
        "motion": "do not explain how the hand moves",
        "gripper": "do not explain the gripper",
        "gripper against motion": "disagree",
        "scale": "moves the hand by 0.00",
        "nothing": "No motion is commanded",
    }[broken]
    assert expected in str(error.value)
    assert "the dataset" in str(error.value)


def pushing_episode(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """In env terms: as `samples.env_episode`, but the hand pushes down at a table that it reaches soon."""
    states, actions = samples.env_episode(rng, steps=60)
    actions[:, :3] = (0, 0, -0.9)
    states[:, 15:18] = (0.4, 0.0, 0.2)
    fall = np.cumsum(np.convolve(actions[:, 2] * samples.STEP, samples.RESPONSE)[:60])
    states[1:, 17] = np.maximum(0.2 + fall, 0.12)
    states[:, 15:18] += rng.normal(0, 2e-5, (61, 3))
    return states, actions


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("metres", [False, True])
def test_a_hand_that_pushes_at_something_hides_no_terms(shifted: bool, metres: bool):
    rng = np.random.default_rng(4)
    made = [samples.env_episode(rng) for _ in range(3)] + [pushing_episode(rng) for _ in range(6)]
    made.append(samples.env_episode(rng, steps=1))
    stored = [
        samples.in_memory(i, *samples.encode(*episode, shifted, metres, CONVENTIONS[0]))
        for i, episode in enumerate(made)
    ]
    report = decide(stored)
    assert report.shifted == shifted
    assert report.motion_unit == ("metres" if metres else "[-1, 1]")
    assert report.motion.r2 > 0.9


def test_absolute_actions_are_refused():
    rng = np.random.default_rng(5)
    stored = []
    for index in range(6):
        states, actions = pushing_episode(rng) if index > 2 else samples.env_episode(rng)
        actions[:, :3] = states[1:, 15:18]
        rows = samples.encode(states, actions, False, False, CONVENTIONS[0])
        stored.append(samples.in_memory(index, *rows))
    with pytest.raises(DatasetError, match="Check that it holds"):
        decide(stored)


@pytest.mark.parametrize("metres", [False, True])
@pytest.mark.parametrize("gripper", CONVENTIONS[::2])
def test_a_statement_needs_no_proof_but_data_may_contradict_it(metres: bool, gripper: GripperConvention):
    rng = np.random.default_rng(6)

    def stated(*made: tuple[np.ndarray, np.ndarray]) -> list[StatedEpisode]:
        written = [samples.encode(*episode, False, metres, gripper) for episode in made]
        return [StatedEpisode(**vars(samples.in_memory(i, *rows))) for i, rows in enumerate(written)]

    report = decide(stated(*(samples.env_episode(rng) for _ in range(3))))
    assert report.stated == (not metres and gripper == CONVENTIONS[0])
    assert report.motion_unit == ("metres" if metres else "[-1, 1]")
    assert report.reading.gripper == gripper
    if report.stated:
        states, actions = pushing_episode(rng)
        actions[:], states[:, 14:] = (-0.9, -0.9, -0.9, 1), 0
        states[10:, 15:18] -= 0.02  # it slips once
        report = decide(stated((states, actions)))
        assert report.stated
        assert (report.shifted, report.motion_unit) == (False, "[-1, 1]")
        assert "info.json states this" in str(report)
        assert not report.notes


def test_without_gripper_changes_motion_decides_and_the_report_says_so():
    rng = np.random.default_rng(2)
    stored = []
    for index in range(3):
        states, actions = samples.env_episode(rng)
        states[:, 14], actions[:, 3] = 0, 1
        stored.append(samples.in_memory(index, *samples.encode(states, actions, True, True, CONVENTIONS[0])))
    report = decide(stored)
    assert report.shifted
    assert report.motion_unit == "metres"
    assert "the gripper never changes" in str(report)


@pytest.mark.parametrize(
    ("penalty", "start"),
    [(-0.02, 0.0), (0.0, 255.0)],
)
def test_gripper_before_the_first_close_command_is_told_by_its_penalty(penalty, start):
    rng = np.random.default_rng(3)
    states, actions = samples.env_episode(rng)
    actions[0, 3], states[1:, 14] = 2, 255
    actions[1:, 3] = 1
    episode = samples.in_memory(0, *samples.encode(states, actions, True, True, CONVENTIONS[0]))
    penalties = np.zeros(len(actions), np.float32)
    penalties[0] = penalty
    episode.columns["complementary_info.discrete_penalty"] = penalties
    others = [samples.in_memory(1, *samples.encode(*samples.env_episode(rng), True, True, CONVENTIONS[0]))]
    report = decide([episode, *others])
    assert to_recording(episode, report.reading, samples.STEP, report.note).start_gripper == start


def test_real_demonstrations_are_shifted_and_in_metres(real_demos: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "hil_rllib")
    demos, report = align(open_dataset(str(real_demos)))
    assert report.shifted
    assert report.motion_unit == "metres"
    assert report.reading.gripper.name.startswith("0/1/2 = open/hold/close")
    assert report.transitions == sum(map(len, demos)) == 772
    assert sum(record.getMessage().startswith("Alignment of") for record in caplog.records) == 1
    motion = np.concatenate([demo.actions[:, :3] for demo in demos])
    assert np.abs(motion).max() == pytest.approx(0.4, abs=1e-5)  # 0.01 m of a 0.025 m step
