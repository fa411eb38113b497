"""Which frames show success, by a person's word or by the reward; and that no episode is in two parts."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hil_rllib import record
from hil_rllib.config import load_config
from hil_rllib.contract import CAMERAS, Command, EpisodeEnd
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.lerobot_reader import open_dataset
from hil_rllib.data.lerobot_writer import LeRobotWriter
from hil_rllib.reward import data
from hil_rllib.reward.config import HILRewardConfig
from hil_rllib.reward.data import CachedEncoder, LabelledFrames, Part
from hil_rllib.reward.frames import LabelledEpisode, _by_rewards, has_labels, load_labelled, split
from hil_rllib.sac.config import demo_options

sys.path.append(str(Path(__file__).parents[1]))
from puppet import Puppet, move

CONFIG = Path(__file__).parents[2] / "tuned_configs" / "panda_reward.yaml"


def options(**changes):
    return demo_options(load_config(CONFIG)) | changes


def labelled(dataset, index, flags):
    flags = np.array(flags, bool)
    frames = {camera: np.zeros((len(flags), 2, 2, 3), np.uint8) for camera in CAMERAS}
    return LabelledEpisode(dataset, index, frames, flags)


# -- the label key ---------------------------------------------------------------------------------


def test_the_label_key_marks_the_frame_it_is_held_at_and_the_env_ends_nothing(tmp_path, monkeypatch, capsys):
    """Each row's label is about the row's own images, from the key to the classifier's frames."""
    held = Command(motion=(0.0, 1.0, 0.0), intervening=True, label=True)
    commands = [move(x=1), held, held, move(x=1), Command(end=EpisodeEnd.FAILURE, label=True)]
    monkeypatch.setattr("hil_rllib.session._device", lambda *_: Puppet(*commands))
    out = tmp_path / "set"
    arguments = ["--label", "--device", "scripted", "--episodes", "1", "--quality", "fast", "--seed", "3"]
    assert record.main([str(out), *arguments]) == 0
    assert "3 frames labelled success in 5 steps" in capsys.readouterr().out
    assert has_labels(str(out))
    (episode,) = load_labelled(str(out), options())
    assert episode.labels.tolist() == [False, True, True, False, True]
    (stored,) = open_dataset(str(out)).read(frames=True)
    np.testing.assert_array_equal(episode.frames["wrist"], stored.frames["wrist"])
    assert not stored.column("next.reward").any()  # the env's own reward is hidden
    assert stored.column("next.done").ravel().tolist() == [False] * 4 + [True]


def test_the_synthetic_human_shows_both_and_says_what_the_env_thinks(tmp_path):
    out = tmp_path / "set"
    arguments = ["--label", "--device", "scripted", "--episodes", "3", "--quality", "fast", "--headless"]
    assert record.main([str(out), *arguments]) == 0
    for episode in open_dataset(str(out)).read():
        heights = episode.column("observation.environment_state")[:, 2]
        labels = np.ravel(episode.column("complementary_info.success_label")).astype(bool)
        np.testing.assert_array_equal(labels, heights - heights[0] > 0.1)  # [m] before the step
    assert sum(e.labels.any() for e in load_labelled(str(out), options())) in (1, 2, 3)


def test_labels_are_about_images(tmp_path, capsys):
    arguments = ["--label", "--device", "scripted", "--episodes", "1", "--no-images"]
    assert record.main([str(tmp_path / "set"), *arguments]) == 2
    assert "--label is about images" in capsys.readouterr().err


def write_labelled(folder, lengths, cameras=CAMERAS):
    """Episodes of these many steps, the last of each labelled success."""
    with LeRobotWriter(folder, cameras=cameras, environment_state=False, labels=True) as writer:
        for steps in lengths:
            for t in range(steps):
                pixels = {camera: np.full((128, 128, 3), 10 * t, np.uint8) for camera in cameras}
                writer.add_step(
                    {"agent_pos": np.zeros(18), "pixels": pixels}, np.zeros(4), reward=0.0,
                    terminated=t == steps - 1, truncated=False, success=True, label=t == steps - 1,
                )  # fmt: skip
            writer.end_episode()


@pytest.mark.parametrize(("chosen", "lengths"), [(None, [3, 4, 5]), (2, [3, 4]), ((2, 0), [5, 3])])
def test_of_a_labelled_set_the_episodes_are_chosen_and_the_features_named(tmp_path, chosen, lengths):
    write_labelled(tmp_path / "set", (3, 4, 5), cameras=("top", "wrist"))
    names = {"observation.images.top": "front"}
    episodes = load_labelled(str(tmp_path / "set"), options(episodes=chosen, features=names))
    assert [len(episode) for episode in episodes] == lengths
    assert all(set(episode.frames) == set(CAMERAS) for episode in episodes)


def test_choice_and_names_are_of_the_demonstrations_alone(monkeypatch):
    """demos.episodes and demos.features say nothing about reward.sources."""
    asked = {}

    def load(source, options):
        asked[source] = options["episodes"], options["features"]
        return [labelled(source, i, [0, 1]) for i in range(5)]

    monkeypatch.setattr(data, "load_labelled", load)
    monkeypatch.setattr(data, "encode", lambda part, _: data.Part({}, np.array([False, True]), []))
    demos = ["demos.source=a", "demos.episodes=2", "demos.features=[observation.images.top=front]"]
    config = load_config(CONFIG, [*demos, "reward.sources=[b,c]"])
    data.LabelledFrames(HILRewardConfig.from_config(config))
    named = {"observation.images.top": "front"}
    assert asked == {"a": (2, named), "b": (None, None), "c": (None, None)}


# -- datasets without labels -----------------------------------------------------------------------


def test_the_real_demonstrations_show_success_at_their_last_frame(real_demos):
    recorded = load_labelled(str(real_demos), options(frames="recorded", episodes=(0, 1)))
    for episode in recorded:  # shifted rows: the file has the last observation, and lacks the first
        assert np.flatnonzero(episode.labels).tolist() == [len(episode) - 1]


def test_rewards_that_are_no_labels_are_refused():
    demo = SimpleNamespace(
        episode_index=4, rewards=np.array([0.1, 0.9, 1.0]), end_seen=True, frames=dict.fromkeys(CAMERAS)
    )
    with pytest.raises(DatasetError, match=r"shaped: episode 4 has rewards of 0\.1 to 1; .* --label"):
        _by_rewards(demo, "shaped")


def kept_of(successes, failures):
    """What a refit keeps of frames whose features tell their number."""
    frames = LabelledFrames.__new__(LabelledFrames)
    frames.rng = np.random.default_rng(0)
    labels = np.repeat([True, False], [successes, failures])
    part = Part(dict.fromkeys(CAMERAS, np.arange(len(labels))), labels, [])
    frames.parts = {"train": part, "calibration": part}
    frames._successes, frames._failures = np.flatnonzero(labels), np.flatnonzero(~labels)
    return frames.keepsake(100, 400)


@pytest.mark.parametrize(
    ("successes", "failures", "train", "calibration"),
    [(30, 170, (30, 50), (30, 170)), (200, 1800, (50, 50), (None, 400))],
)
def test_frames_for_a_refit_are_even_to_learn_from_and_as_they_come_to_calibrate_on(
    successes, failures, train, calibration
):
    kept = kept_of(successes, failures)
    of_train = kept["labels"][kept["train"]]
    assert (of_train.sum(), (~of_train).sum()) == train
    aside = kept["labels"][~kept["train"]]
    if calibration[0] is not None:
        assert (aside.sum(), (~aside).sum()) == calibration
    else:  # a tenth of 400
        assert len(aside) == calibration[1]
        assert 20 <= aside.sum() <= 60
    numbers = kept["front"][~kept["train"]]
    assert len(set(numbers)) == len(numbers)
    assert ((numbers < successes) == aside).all()


def test_cached_features_are_those_of_the_very_weights(tmp_path):
    frames = dict.fromkeys(CAMERAS, np.random.default_rng(0).integers(0, 255, (1, 128, 128, 3), np.uint8))
    first, again, other = (CachedEncoder("random", seed, tmp_path)(frames)["front"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 0.1
    assert len(list(tmp_path.iterdir())) == 2


def write_unlabelled(folder, cameras=CAMERAS):
    """One episode of (o[t], a[t]) rows: what its last action led to is not in the file."""
    sys.path.append(str(Path(__file__).parents[1] / "data"))
    from lerobot_samples import env_episode

    states, actions = env_episode(np.random.default_rng(0), 12)
    with LeRobotWriter(folder, cameras=cameras, environment_state=False) as writer:
        for t, action in enumerate(actions):
            pixels = {camera: np.full((128, 128, 3), 10 * t, np.uint8) for camera in cameras}
            last = t == len(actions) - 1
            writer.add_step(
                {"agent_pos": states[t], "pixels": pixels}, action,
                reward=float(last), terminated=last, truncated=False, success=last,
            )  # fmt: skip
        writer.end_episode()


def test_a_last_observation_that_is_only_a_repetition_is_no_success(tmp_path):
    write_unlabelled(tmp_path / "set")
    (episode,) = load_labelled(str(tmp_path / "set"), options(frames="recorded"))
    assert (len(episode), episode.labels.any()) == (12, False)
    with pytest.raises(ValueError, match=r"no frame of success.*--label.*rerendered"):
        split([episode], 0.2, seed=0)


def test_a_dataset_without_images_is_refused(tmp_path):
    write_unlabelled(tmp_path / "set", cameras=())
    with pytest.raises(DatasetError, match=r"no camera \['front', 'wrist'\]"):
        load_labelled(str(tmp_path / "set"), options(frames="recorded"))


# -- the split -------------------------------------------------------------------------------------


def test_every_episode_is_in_one_part_and_each_part_has_its_share_of_every_dataset():
    episodes = [labelled("a", i, [0, 1]) for i in range(10)]
    episodes += [labelled("b", i, [0, 0, i % 2]) for i in range(20)]
    parts = split(episodes, 0.2, seed=0)
    placed = [(e.dataset, e.index) for part in parts.values() for e in part]
    assert sorted(placed) == sorted((e.dataset, e.index) for e in episodes)
    for name, share in {"train": 0.6, "calibration": 0.2, "test": 0.2}.items():
        counts = {d: sum(e.dataset == d for e in parts[name]) for d in "ab"}
        assert counts == {"a": 10 * share, "b": 20 * share}
        assert sum(e.labels.any() for e in parts[name]) == (10 + 10) * share
    again, other = split(episodes, 0.2, seed=0), split(episodes, 0.2, seed=1)
    assert [e.index for e in again["test"]] == [e.index for e in parts["test"]]
    assert [e.index for e in other["test"]] != [e.index for e in parts["test"]]


@pytest.mark.parametrize(
    ("episodes", "message"),
    [
        ([labelled("a", i, [0, 0]) for i in range(9)], "no frame of success: of 9 episodes 0 show success"),
        ([labelled("a", i, [1, 1]) for i in range(9)], "no frame of failure"),
        ([labelled("a", i, [0, i == 0]) for i in range(9)], "of 9 episodes 1 show success"),
        ([], "no frame of success: of 0 episodes"),
    ],
)
def test_too_little_to_learn_or_to_test_is_said(episodes, message):
    with pytest.raises(ValueError, match=message):
        split(episodes, 0.2, seed=0)
