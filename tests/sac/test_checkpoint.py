"""N steps, save, restore: everything that the next update depends on is as it was."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import tree
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import LEARNER_RESULTS

from hil_rllib.data.replay import nested_map
from hil_rllib.sac import checkpoint as checkpoint_module
from hil_rllib.sac.checkpoint import STATE_FILE, newest_checkpoint, restore_random, restore_run

STEPS = 60


def learned(algorithm):
    """Networks, targets and temperature, and what Adam remembers of each: {name: array}."""
    learner = algorithm.learner_group._learner
    state = {"module": learner._policy.state_dict()}
    state |= {name: optimizer.state_dict()["state"] for name, optimizer in learner._optimizers.items()}
    return {"/".join(map(str, path)): value.numpy().copy() for path, value in tree.flatten_with_path(state)}


def rings(algorithm):
    """Both rings' rows, in the order of sampling."""
    held = {}
    for name in ("online", "demo"):
        ring = getattr(algorithm, name)
        starts = ring._starts[(ring._head + np.arange(len(ring))) % ring.capacity]
        held[name] = {
            "starts": starts - ring.rows_written,
            "steps": nested_map(lambda x, at=starts % ring.capacity: x[at], ring.steps),
            "obs": nested_map(lambda x, at=starts % ring.capacity: x[at], ring.obs),
            "next": nested_map(lambda x, at=(starts + 1) % ring.capacity: x[at], ring.obs),
        }
    return {"/".join(map(str, path)): np.array(value) for path, value in tree.flatten_with_path(held)}


def rest(algorithm):
    statistics = algorithm.stats.get_state()
    statistics["running"] = list(statistics["running"].values())  # RLlib draws episodes' names anew
    return {
        "counters": (algorithm.env_steps, algorithm.updates),
        "sampler": algorithm.mix.rng.bit_generator.state,
        "statistics": statistics,
        "evaluations": asdict(algorithm.evaluations),
        "skips": algorithm.skips.get_state(),
        "torch": torch.get_rng_state().tolist(),
    }


def snapshot(algorithm):
    return SimpleNamespace(learned=learned(algorithm), rings=rings(algorithm), rest=rest(algorithm))


def assert_same(a, b):
    for part in ("learned", "rings"):
        first, second = getattr(a, part), getattr(b, part)
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    assert a.rest == b.rest


@pytest.fixture(scope="module")
def saved(build, configure):
    """A lockstep run of STEPS steps, saved; beside it an algorithm that goes on from a copy of its folder."""
    config = configure(
        "run.seed=1",
        "sac.online_capacity=50",  # the oldest steps have left the ring
        "evaluation.every_steps=40",
        "evaluation.episodes=1",
        "env.max_episode_steps=25",
        "operator.device=scripted",
        "operator.scripted.start_after_step=3",
        "operator.scripted.takeover_probability=0.3",
        "runners.fragment=4",  # STEPS falls into the middle of an episode
    )
    original = build(config)
    while original.env_steps < STEPS:
        original.training_step()
    original.skips.total = 3
    checkpoint = original.save_to_path(f"{config.run.dir}/trial/checkpoint_000000")
    before = snapshot(original)
    copy = Path(config.run.dir).with_name("copy")
    shutil.copytree(config.run.dir, copy)
    elsewhere = replace(config, run=replace(config.run, dir=str(copy)))
    restored = build(elsewhere, restore_from=copy / "trial" / "checkpoint_000000")
    after = snapshot(restored)
    return SimpleNamespace(
        config=config, path=checkpoint, original=original, before=before, restored=restored, after=after
    )


def losses(algorithm, steps):
    """Losses, values and entropy that the learner tells until so many steps are stored."""
    given, aggregate = [], algorithm.metrics.aggregate

    def listening(results, key=None, **how):
        if key == LEARNER_RESULTS:
            scalars = algorithm.metrics.peek_results(results[0])[DEFAULT_MODULE_ID]
            told = [name for name in scalars if name.endswith(("_loss", "_mean", "entropy", "temperature"))]
            given.append({name: float(scalars[name]) for name in sorted(told)})
        aggregate(results, key=key, **how)

    algorithm.metrics.aggregate = listening
    while algorithm.env_steps < steps:
        algorithm.training_step()
    del algorithm.metrics.aggregate
    return given


def test_everything_comes_back(saved):
    assert_same(saved.before, saved.after)
    assert saved.before.rest["counters"] == (STEPS, 80)
    assert saved.before.rest["evaluations"]["latest"]["at_env_steps"] == 40
    assert len(saved.original.online) < STEPS
    assert 0 < saved.before.rest["statistics"]["human_steps"] < STEPS
    adam = [name for name in saved.before.learned if name.startswith(("critic/", "actor/", "temperature/"))]
    assert any(saved.before.learned[name].any() for name in adam if "exp_avg" in name)


def test_learning_rates_are_the_configurations_whatever_they_were(saved):
    learner = saved.restored.learner_group._learner
    state = learner.get_state()
    for optimizer in state["optimizer"].values():
        optimizer["state"]["param_groups"][0]["lr"] = 123.0
    learner.set_state(state)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in learner._optimizers.values()]
    assert rates == [3e-4] * 3
    assert_same(saved.before, snapshot(saved.restored))


def test_n_steps_and_m_steps_are_n_steps_a_restart_and_m_steps(saved):
    """Episodes under way, the synthetic human's mind, exploration: bit by bit as without the restart."""
    restore_random(Path(saved.path))  # both learn in this process, so they share torch's random state
    expected = losses(saved.original, STEPS + 60)  # the episode under way and two more end within
    in_the_end = snapshot(saved.original)
    restore_random(Path(saved.path))
    assert losses(saved.restored, STEPS + 60) == expected
    assert len(expected) >= 5
    assert all("critic_loss" in scalars for scalars in expected)
    assert_same(in_the_end, snapshot(saved.restored))
    moved = learned(saved.original)
    assert any((value != saved.before.learned[name]).any() for name, value in moved.items())


def test_a_run_goes_back_in_time_in_place(saved):
    algorithm = saved.restored
    path = algorithm.save_to_path(f"{algorithm.hil.run.dir}/trial_2/checkpoint_000000")
    before = snapshot(algorithm)
    algorithm.training_step()
    algorithm.restore_from_path(path)
    assert_same(before, snapshot(algorithm))
    for group in algorithm.collector.groups:
        (number,) = group.runners.foreach_env_runner(
            lambda runner: (runner.sample(), runner._weights_seq_no)[1], local_env_runner=False
        )
        assert number == algorithm.pushes
    algorithm.restore_from_path(path)


def test_what_cannot_be_resumed_is_named(saved, tmp_path):
    checkpoint = tmp_path / "run" / "trial" / "checkpoint_000000"
    shutil.copytree(saved.path, checkpoint)
    state = json.loads((checkpoint / STATE_FILE).read_text())
    (checkpoint / STATE_FILE).write_text(json.dumps(state | {"version": 99}))
    with pytest.raises(ValueError, match="version 99, this program reads 1 and 2"):
        restore_run(saved.original, checkpoint)
    (checkpoint / STATE_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {STATE_FILE}"):
        restore_run(saved.original, checkpoint)


def test_half_a_checkpoint_is_passed_over(saved, tmp_path, caplog):
    """Tune copies a checkpoint file by file; a kill may fall in between."""
    for number in (0, 1, 2):
        shutil.copytree(saved.path, tmp_path / "trial" / f"checkpoint_{number:06d}")
    assert newest_checkpoint(tmp_path).name == "checkpoint_000002"
    next((tmp_path / "trial" / "checkpoint_000002").rglob("module_state.pkl")).write_bytes(b"")
    state = tmp_path / "trial" / "checkpoint_000001" / STATE_FILE
    state.write_text(state.read_text()[:1000])
    assert newest_checkpoint(tmp_path).name == "checkpoint_000000"
    assert caplog.text.count("is not whole") == 2


def test_a_checkpoint_that_makes_room_for_a_newer_one_is_not_missed(saved, tmp_path, monkeypatch):
    """As where somebody evaluates a run under way."""
    first, second = (tmp_path / "trial" / f"checkpoint_{number:06d}" for number in (0, 1))
    shutil.copytree(saved.path, first)
    fingerprint = checkpoint_module._fingerprint

    def goes(file):
        if first.is_dir():
            shutil.copytree(saved.path, second)
            shutil.rmtree(first)
        return fingerprint(file)

    monkeypatch.setattr(checkpoint_module, "_fingerprint", goes)
    assert newest_checkpoint(tmp_path) == second
