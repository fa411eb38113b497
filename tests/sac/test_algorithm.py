"""The loop as a whole: real runners, a synthetic human, rings, learner and weights back."""

from __future__ import annotations

import time
from collections import defaultdict
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO
from ray.rllib.utils.spaces.space_utils import unsquash_action

from hil_rllib.collect.encode import FrameEncoder
from hil_rllib.collect.statistics import Statistics
from hil_rllib.contract import DISCRETE_PENALTY, IS_INTERVENTION, RERECORD, env_action
from hil_rllib.data.experience import Experience
from hil_rllib.data.replay import Fragment, Ring, nested_map
from hil_rllib.sac.algorithm import HILSAC
from hil_rllib.sac.appeals import Appeals
from hil_rllib.sac.config import LOCKSTEP_REPORT_STEPS, build_env

# A person who helps now and then, from the first step on, without hesitation.
HELPFUL = (
    "operator.device=scripted",
    "operator.scripted.start_after_step=0",
    "operator.scripted.reaction_s=0",
    "operator.scripted.takeover_probability=0.3",
    "operator.scripted.help_steps=4",
)
LOOP = (*HELPFUL, "runners.autonomous=1", "env.max_episode_steps=40", "env.random_block_position=false")
STEPS = 120  # of all runners together; an episode ends within, so one crosses fragments and a reset


def record_fragments(algorithm):
    """[(group name, fragment)] of everything that arrives from now on."""
    arrived, store = [], algorithm._store

    def recording(group, episode):
        arrived.append((group.name, Fragment.from_episode(episode)))
        store(group, episode)

    algorithm._store = recording
    return arrived


def run_until(algorithm, done, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "the algorithm does not get on"
        algorithm.training_step()


def weights(algorithm):
    return {
        name: value.clone() for name, value in algorithm.learner_group._learner._policy.state_dict().items()
    }


def rows(ring):
    """The ring's transitions, oldest first: {column: array}."""
    index = ring._starts[(ring._head + np.arange(len(ring))) % ring.capacity] % ring.capacity
    return {name: column[index] for name, column in ring.steps.items()} | {
        "obs": nested_map(lambda x: x[index], ring.obs),
        "next_obs": nested_map(lambda x: x[(index + 1) % ring.capacity], ring.obs),
    }


def episodes_of(arrived, group):
    """Fragments of a group put together: {episode id: [fragment, …] in order}."""
    parts = defaultdict(list)
    for name, fragment in arrived:
        if name == group:
            parts[fragment.episode_id].append(fragment)
    return parts


@pytest.fixture(scope="module")
def trained(build, configure):
    """A lockstep run with a helpful person and one autonomous runner, and what its runners sent."""
    algorithm = build(configure(*LOOP))
    arrived, budget = record_fragments(algorithm), []
    demos = len(algorithm.demo)
    while algorithm.env_steps < STEPS:
        algorithm.training_step()
        budget.append((algorithm.env_steps, algorithm.updates))
    return SimpleNamespace(
        algorithm=algorithm, arrived=arrived, budget=budget, demos=demos, weights=weights(algorithm)
    )


def test_updates_are_exactly_what_the_steps_allow(trained):
    sac = trained.algorithm.hil.sac
    assert trained.budget == [
        (steps, int(max(0, steps - sac.learning_starts) * sac.utd_ratio)) for steps, _ in trained.budget
    ]
    assert trained.budget[-1] == (STEPS, 200)


def test_all_runners_contribute_and_every_step_is_stored_once(trained):
    counts = defaultdict(int)
    for group, fragment in trained.arrived:
        counts[group] += len(fragment)
    assert counts == {"operator": STEPS // 2, "autonomous": STEPS // 2}
    stored = rows(trained.algorithm.online)
    for name in stored.keys() - {"obs", "next_obs"}:
        np.testing.assert_array_equal(
            stored[name], np.concatenate([f.steps[name] for _, f in trained.arrived])
        )
    agent = np.concatenate([f.obs["agent_pos"] for _, f in trained.arrived])
    assert len(agent) == STEPS + len(trained.arrived)  # each fragment brings its last observation
    first = np.concatenate([f.obs["agent_pos"][:-1] for _, f in trained.arrived])
    last = np.concatenate([f.obs["agent_pos"][1:] for _, f in trained.arrived])
    np.testing.assert_array_equal(stored["obs"]["agent_pos"], first)
    np.testing.assert_array_equal(stored["next_obs"]["agent_pos"], last)


def test_demonstrations_come_first_and_interventions_join_them(trained):
    online, demo = rows(trained.algorithm.online), rows(trained.algorithm.demo)
    human = online[IS_INTERVENTION] > 0
    assert 10 < human.sum() < STEPS // 2  # the policy acted too
    assert trained.demos > 20  # two episodes of an expert
    assert demo[Columns.REWARDS][: trained.demos].sum() == 2
    assert demo[Columns.TERMINATEDS][: trained.demos].sum() == 2
    for name in demo.keys() - {"obs", "next_obs"}:
        np.testing.assert_array_equal(demo[name][trained.demos :], online[name][human])
    np.testing.assert_array_equal(
        demo["next_obs"]["agent_pos"][trained.demos :], online["next_obs"]["agent_pos"][human]
    )


def test_nobody_intervenes_on_the_autonomous_runner(trained):
    flags = {group: [] for group in ("operator", "autonomous")}
    for group, fragment in trained.arrived:
        flags[group].extend(fragment.steps[IS_INTERVENTION] > 0)
    assert any(flags["operator"])
    assert not any(flags["autonomous"])


@pytest.mark.parametrize("group", ["operator", "autonomous"])
def test_what_is_stored_is_what_was_executed(trained, group):
    """The stored actions, replayed, lead through the stored observations, bit by bit."""
    env = build_env(trained.algorithm.hil.env)
    replayed = 0
    for parts in episodes_of(trained.arrived, group).values():
        obs, _ = env.reset()  # the cube's place is fixed, so all episodes begin alike
        for part in parts:
            for t in range(len(part)):
                for name, value in obs.items():
                    np.testing.assert_array_equal(value, part.obs[name][t], err_msg=f"{name} at {t}")
                action = unsquash_action(part.steps[Columns.ACTIONS][t], env.action_space)
                np.testing.assert_allclose(action, env_action(part.steps[Columns.ACTIONS][t]), atol=1e-6)
                obs, reward, _, _, info = env.step(action)
                assert info[DISCRETE_PENALTY] == pytest.approx(part.steps[DISCRETE_PENALTY][t])
                assert reward == part.steps[Columns.REWARDS][t]
                replayed += 1
    env.close()
    assert replayed == STEPS // 2


def test_runners_act_with_the_weights_they_were_last_offered(trained):
    algorithm = trained.algorithm
    offered = algorithm.policy_state()[DEFAULT_MODULE_ID]
    for group in algorithm.collector.groups:
        group.runners.foreach_env_runner(  # these steps are not the run's, in its counts neither
            lambda runner: (runner.sample(), runner.get_metrics()), local_env_runner=False
        )
        (held,) = group.runners.foreach_env_runner(
            lambda runner: runner.module.get_state(), local_env_runner=False
        )
        assert held.keys() == offered.keys()
        for name, value in offered.items():
            np.testing.assert_array_equal(np.asarray(held[name]), np.asarray(value), err_msg=name)
    assert algorithm.stats.metrics(env_steps=0, updates=0, online=0, demo=0)["weights_staleness"] == 0


def test_a_lockstep_run_reports_its_metrics_at_the_same_steps_each_time(trained):
    before = trained.algorithm.env_steps
    for report in (1, 2):
        result = trained.algorithm.train()
        assert result["hil"]["env_steps"] == before + report * LOCKSTEP_REPORT_STEPS
    expected = {"env_steps", "updates", "human_seconds", "online_ring", "demo_ring", "weights_staleness"}
    expected |= {"success_rate", "intervention_rate", "env_steps_per_s", "updates_per_s"}
    expected |= {"q_mean", "temperature", "entropy"}
    assert expected <= result["hil"].keys()
    assert all(np.isfinite(result["hil"][name]) for name in expected)
    assert result["timesteps_total"] == result["hil"]["env_steps"]


def test_one_seed_gives_one_run_and_another_seed_another(build, configure, trained):
    for seed, same in ((0, True), (1, False)):
        algorithm = build(configure(*LOOP, f"run.seed={seed}"))
        while algorithm.env_steps < STEPS:
            algorithm.training_step()
        again = weights(algorithm)
        assert all(torch.equal(again[name], value) for name, value in trained.weights.items()) == same
        algorithm.stop()


def test_a_rerecorded_episode_of_a_person_reaches_no_ring(tmp_path):
    space = gym.spaces.Dict({"x": gym.spaces.Box(-1, 1, (1,), np.float32)})

    def fragment(episode, first, last_info, truncated):
        return SingleAgentEpisode(
            id_=episode,
            observations=[{"x": np.zeros(1, np.float32)}] * 6,
            actions=[np.zeros(4, np.float32)] * 5,
            rewards=[0.0] * 5,
            infos=[{}] * 5 + [last_info],
            truncated=truncated,
            extra_model_outputs={IS_INTERVENTION: [1.0, 1.0, 0.0, 0.0, 1.0], WEIGHTS_SEQ_NO: [0] * 5},
            t_started=first,
            len_lookback_buffer=0,
        )

    online, demo = Ring(100, space), Ring(100, space)
    experience = Experience(online, demo, tmp_path)
    loop = SimpleNamespace(
        stats=Statistics(), experience=experience, pushes=0, attention=None, appeals=Appeals(), refits=None
    )
    person = SimpleNamespace(name="operator", operator=True, realtime=True)
    for first, info, truncated in ((0, {}, False), (5, {RERECORD: True}, True)):
        HILSAC._store(loop, person, fragment("thrown away", first, info, truncated))
    assert (len(online), len(demo), experience.env_steps) == (0, 0, 0)
    assert loop.stats.human_steps == 6  # their time it was all the same
    for first, truncated in ((0, False), (5, True)):
        HILSAC._store(loop, person, fragment("kept", first, {}, truncated))
    assert (len(online), len(demo), experience.env_steps) == (10, 6, 10)
    experience.close()


def test_demo_terms_fade_linearly_where_asked():
    def factor(env_steps, over):
        section = SimpleNamespace(sac=SimpleNamespace(anchor_decay_steps=over))
        return HILSAC._anchor(SimpleNamespace(hil=section, env_steps=env_steps))

    assert [factor(steps, 1000) for steps in (0, 250, 1000, 5000)] == [1.0, 0.75, 0.0, 0.0]
    assert factor(5000, None) == 1.0


def test_images_with_a_frozen_encoder_are_stored_as_features(build, configure):
    """What the rings hold, demonstrations too, is the frozen encoder's view of frames of that very state."""
    config = configure(
        "env.image_obs=true",
        "env.render_quality=fast",
        "env.random_block_position=false",
        "demos.frames=rerendered",
        "demos.scripted_episodes=1",
        "sac.learning_starts=5",
        "sac.batch_size=8",
    )
    algorithm = build(config)
    run_until(algorithm, lambda: algorithm.env_steps >= 15)
    assert algorithm.updates == 20
    encoder = FrameEncoder("random", config.run.seed)
    env = build_env(config.env)
    for ring in (algorithm.online, algorithm.demo):
        stored = rows(ring)
        assert set(stored["obs"]) == {"agent_pos", "features"}
        obs, _ = env.reset()  # the cube's place is fixed, so every episode begins like this
        for t in range(10):
            for name, features in encoder(obs)["features"].items():
                held = stored["obs"]["features"][name][t]
                assert held.dtype == np.float16
                np.testing.assert_allclose(held, features, atol=0.05, err_msg=f"{name} {t}")
            obs, *_ = env.step(env_action(stored[Columns.ACTIONS][t]))
    env.close()
