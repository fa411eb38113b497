"""A reward run from labelled frames to a checkpoint, and a SAC run that is rewarded by it."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from hil_rllib import record
from hil_rllib.collect.classifier_reward import ClassifierRewardWrapper, SuccessClassifier
from hil_rllib.config import ConfigError
from hil_rllib.contract import CAMERAS, CLASSIFIED, SUCCESS
from hil_rllib.data.demos import load_demos
from hil_rllib.data.offline_input import END_SEEN, to_episode
from hil_rllib.data.replay import Fragment
from hil_rllib.models.calibration import choose_threshold
from hil_rllib.reward import algorithm as reward_algorithm
from hil_rllib.reward.algorithm import CURVE_FILE, MISTAKES_FILE, TEST_FILE
from hil_rllib.reward.config import HILRewardConfig
from hil_rllib.reward.frames import load_labelled
from hil_rllib.reward_sources import local_sources
from hil_rllib.sac.classifier import find_classifier, judged, read_classifier
from hil_rllib.sac.config import HILSACConfig, demo_options, make_env
from hil_rllib.sac.init_from import check_policy
from hil_rllib.trained import read_config

IMAGES = (
    "env.image_obs=true",
    "env.render_quality=fast",
    "env.random_block_position=false",
    "encoder.weights=bundled",
)
REWARD = (*IMAGES, "run.algorithm=reward", "demos.source=none", "offline.batch_size=32", "offline.updates=40",
          "evaluation.every_steps=40", "checkpoint.every_steps=40", "reward.held_out=0.3",
          "reward.precision=0.5", "stop.success=null")  # fmt: skip


@pytest.fixture(scope="module")
def labelled(cache, tmp_path_factory):
    """A dataset of the synthetic human's, both kinds of episode in it."""
    out = tmp_path_factory.mktemp("labelled") / "set"
    arguments = ["--label", "--device", "scripted", "--headless", "--quality", "fast", "--episodes", "8"]
    arguments += ["--seed", "8", "--episode-steps", "60"]  # six with success, two without
    assert record.main([str(out), *arguments]) == 0
    return out


@pytest.fixture(scope="module")
def trained(cluster, configure, labelled):
    """(config, checkpoint, results) of a reward run."""
    config = local_sources(configure(*REWARD, f"reward.sources=[{labelled}]"))
    Path(config.run.dir).mkdir(parents=True)
    algorithm = HILRewardConfig.from_config(config).build_algo()
    results = [algorithm.train() for _ in range(2)]
    path = algorithm.save_to_path(f"{config.run.dir}/trial/checkpoint_000000")
    algorithm.stop()
    return config, Path(path), results


def test_a_run_reports_what_it_does_on_episodes_it_never_saw(trained):
    config, _, results = trained
    losses = [r["learners"]["default_policy"]["policy_loss"] for r in results]
    assert losses[1] < losses[0] < 1.0
    result = results[1]["classifier"]
    frames = json.loads((Path(config.run.dir) / TEST_FILE).read_text())
    assert result["frames"] == len(frames)
    assert result["positives"] == sum(frame["label"] for frame in frames)
    called = np.array([frame["probability"] >= result["threshold"] for frame in frames])
    labels = np.array([frame["label"] for frame in frames])
    assert result["recall"] == pytest.approx((called & labels).sum() / labels.sum())
    assert result["f1"] > 0.5
    for name in (CURVE_FILE, MISTAKES_FILE):
        assert (Path(config.run.dir) / name).read_bytes()[:4] == b"\x89PNG"


def test_a_resumed_run_has_the_same_classifier_and_a_finished_one_ends_as_it_did(trained):
    config, path, results = trained
    rllib = HILRewardConfig.from_config(config)
    rllib.restore_from = str(path)
    resumed = rllib.build_algo()
    assert resumed.updates == 40
    for name, value in read_classifier(str(path)).state.items():
        assert torch.equal(resumed._policy.head.state_dict()[name], torch.from_numpy(value))
    again = resumed.train()
    assert again["hil"]["updates"] == 40
    assert again["classifier"] == results[1]["classifier"]
    resumed.stop()


def test_weights_without_a_threshold_are_kept_but_reward_nobody(trained, tmp_path, monkeypatch):
    """The run goes on: later weights may reach the precision."""
    config = trained[0]
    config = replace(config, run=replace(config.run, dir=str(tmp_path)))
    unreachable = functools.partial(choose_threshold, precision=2)
    monkeypatch.setattr(reward_algorithm, "choose_threshold", lambda p, labels, _: unreachable(p, labels))
    algorithm = HILRewardConfig.from_config(config).build_algo()
    first, second = (algorithm.train() for _ in range(2))
    assert (first["hil"]["updates"], second["hil"]["updates"]) == (20, 40)
    assert second["classifier"]["threshold"] is None
    unfit = algorithm.save_to_path(tmp_path / "trial" / "checkpoint_000000")
    with pytest.raises(ConfigError, match=r"has no threshold\. No threshold reaches precision 2 .*; at best"):
        find_classifier(unfit)
    monkeypatch.undo()
    algorithm.train()
    assert algorithm.updates == 60  # no evaluation was due
    assert find_classifier(algorithm.save_to_path(tmp_path / "trial" / "checkpoint_000001"))
    assert 0 < algorithm._policy.head.threshold < 1
    algorithm.stop()


def test_what_travels_to_the_runners_judges_as_the_run_did(trained, labelled):
    config, _, results = trained
    classifier = SuccessClassifier(read_classifier(config.run.dir))
    assert classifier.threshold == pytest.approx(results[1]["classifier"]["threshold"])
    frames = json.loads((Path(config.run.dir) / TEST_FILE).read_text())
    episode = load_labelled(str(labelled), demo_options(config))[frames[0]["episode"]]
    mine = classifier({"pixels": episode.frames})
    theirs = [frame["probability"] for frame in frames if frame["episode"] == frames[0]["episode"]]
    np.testing.assert_allclose(mine, theirs, atol=5e-3)


def test_it_is_no_policy(trained, configure):
    config, path, _ = trained
    with pytest.raises(ConfigError, match="is a classifier of success, not a policy"):
        check_policy(config.run.dir, configure(*IMAGES))
    with pytest.raises(ValueError, match=r"not a policy.*summary\.json"):
        read_config(path)


def test_a_sac_runs_envs_are_rewarded_by_it(trained, configure):
    config = configure(*IMAGES, f"reward.classifier={trained[0].run.dir}", "reward.consecutive=3")
    rllib = HILSACConfig.from_config(config)
    for group in (rllib.operator(), rllib.autonomous()):
        env = make_env(group.env_config)
        layers = []
        while hasattr(env, "env"):
            layers.append(env)
            env = env.env
        (wrapper,) = [layer for layer in layers if isinstance(layer, ClassifierRewardWrapper)]
        assert wrapper._consecutive == 3
    layers[0].reset(seed=0)
    _, reward, terminated, _, info = layers[0].step(np.array([0, 0, 0, 1], np.float32))
    assert (reward, terminated, info[SUCCESS], info[CLASSIFIED]) == (0.0, False, False, False)
    layers[0].close()


def test_what_a_verdict_teaches_reaches_the_runners(trained, configure, build):
    alone = ("demos.source=none", "sac.demo_fraction=0", "sac.bc_weight=0", "sac.gripper_margin_weight=0")
    short = (*alone, "env.max_episode_steps=5", "sac.learning_starts=1000")
    config = configure(*IMAGES, *short, f"reward.classifier={trained[0].run.dir}")
    algorithm = build(replace(config, reward=replace(config.reward, refit_every_episodes=1)))

    def probability_of_nothing(runner):
        env = runner.env.unwrapped.envs[0]
        while not isinstance(env, ClassifierRewardWrapper):
            env = env.env
        nothing = {camera: np.zeros((512, 4, 4), np.float16) for camera in CAMERAS}
        return float(env.classifier({"features": nothing}))

    runners = algorithm.collector.groups[0].runners
    algorithm.train()  # the runner enters service
    (before,) = runners.foreach_env_runner(probability_of_nothing, local_env_runner=False)
    algorithm.refits._keep({camera: np.zeros((512, 4, 4), np.float16) for camera in CAMERAS}, True)
    algorithm.refits._order_if_due()
    ray.get(algorithm.refits.actor.get_state.remote())  # once the refit is done
    algorithm.train()  # 50 steps, ten resets
    (after,) = runners.foreach_env_runner(probability_of_nothing, local_env_runner=False)
    assert after != before


def test_demonstrations_are_rewarded_by_it_too_and_end_at_the_first_frame_called_success():
    class Says:
        threshold = 0.5

        def __call__(self, obs):
            return obs["shown"]

    def demo(*probabilities):
        steps = {
            "rewards": np.ones(len(probabilities) - 1, np.float32),
            "terminateds": np.array([False] * (len(probabilities) - 2) + [True]),
        }
        return Fragment("demo", 0, {"shown": np.array(probabilities)}, steps)

    found = judged(demo(0.9, 0.1, 0.7, 0.8), Says())
    assert (len(found), found.steps["rewards"].tolist()) == (2, [0.0, 1.0])
    assert found.steps["terminateds"].tolist() == [False, True]
    missed = judged(demo(0.1, 0.1, 0.2), Says())
    assert (missed.steps["rewards"].tolist(), missed.steps["terminateds"].tolist()) == (
        [0, 0],
        [False, False],
    )
    # No frame shows the end, and the last but one, which stands there again, may look like success or not.
    unseen = judged(demo(0.1, 0.1, 0.1), Says(), end_seen=False)
    assert unseen.steps["rewards"].tolist() == [0.0, 1.0]
    assert unseen.steps["terminateds"].tolist() == [False, True]
    failed = replace(demo(0.1, 0.1, 0.8), steps={**missed.steps})
    assert judged(failed, Says(), end_seen=False).steps["rewards"].tolist() == [0, 0]


def test_scripted_demonstrations_with_recorded_frames_are_rewarded_at_their_ends(tmp_path):
    """Their files hold no frame of the end."""
    options = {"env": {"id": "hil/PandaPickCube-v0", "kwargs": {"render_quality": "fast"}}, "image_obs": True}
    demos = load_demos("scripted", **options, fallback_episodes=2, cache_dir=tmp_path).demos
    assert [demo.end_seen for demo in demos] == [False, False]
    assert [to_episode(demo).get_infos(-1)[END_SEEN] for demo in demos] == [False, False]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nowhere", "is no folder. Train one"),
        ("empty", "has no checkpoint in it"),
        ("policy", "is of a run of 'bc', not of 'reward'"),
        ("torn", "is not whole"),
    ],
)
def test_what_is_no_classifier_is_said(tmp_path, where, message):
    (tmp_path / "empty").mkdir()
    for name, kind in (("policy", "bc"), ("torn", "reward")):
        folder = tmp_path / name / "trial" / "checkpoint_000000"
        folder.mkdir(parents=True)
        state = {"version": 1, "config": {"run": {"algorithm": kind}}, "env_steps": 0, "updates": 1}
        (folder / "hil_state.json").write_text(json.dumps(state))
    with pytest.raises(ConfigError, match=message):
        find_classifier(str(tmp_path / where))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("run.algorithm=reward", "demos.source=none"), "no labelled frames"),
        (("run.algorithm=reward",), "frames through a frozen encoder"),
        (("reward.classifier=runs/x",), "env.image_obs true"),
        ((*IMAGES, "run.algorithm=reward", "run.init_from=x"), "has none"),
        ((*IMAGES, "run.algorithm=reward", "env.reward_type=dense"), "dense' rewards every"),
        (("reward.clasifier=x",), "Did you mean 'classifier'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(configure, overrides, message):
    with pytest.raises(ConfigError, match=message):
        configure(*overrides)


def test_a_source_named_twice_is_refused(configure, labelled, tmp_path):
    (tmp_path / "link").symlink_to(labelled)
    for twice in (
        [f"demos.source={labelled}", f"reward.sources=[{tmp_path / 'link'}]"],
        ["demos.source=none", f"reward.sources=[{labelled}, {tmp_path / 'link'}]"],
    ):
        with pytest.raises(ConfigError, match=r"is named twice.*be tested on"):
            local_sources(configure(*REWARD, *twice))


def test_a_source_that_is_not_there_is_said(configure, tmp_path):
    with pytest.raises(Exception, match=r"no such folder|not found"):
        local_sources(configure(*REWARD, f"reward.sources=[{tmp_path / 'x'}]"))
