"""N steps, save, restore: everything that the next update depends on is as it was."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import tree

from hil_rllib.data.replay import nested_map
from hil_rllib.sac.checkpoint import STATE_FILE, read_state, replay_folder, restore_run

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
            "starts": starts,
            "rows_written": np.array(ring.rows_written),
            "steps": nested_map(lambda x, at=starts % ring.capacity: x[at], ring.steps),
            "obs": nested_map(lambda x, at=starts % ring.capacity: x[at], ring.obs),
            "next": nested_map(lambda x, at=(starts + 1) % ring.capacity: x[at], ring.obs),
        }
    return {"/".join(map(str, path)): np.array(value) for path, value in tree.flatten_with_path(held)}


def rest(algorithm):
    return {
        "counters": (algorithm.env_steps, algorithm.updates),
        "sampler": algorithm.mix.rng.bit_generator.state,
        "statistics": algorithm.stats.get_state(),
        "evaluations": vars(algorithm.evaluations),
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
    """A run of STEPS steps with one evaluation, saved; an algorithm that was restored from it beside it."""
    config = configure(
        "run.seed=1",
        "sac.online_capacity=50",  # the oldest steps have left the ring
        "evaluation.every_steps=40",
        "evaluation.episodes=1",
        "env.max_episode_steps=25",
        "operator.device=scripted",
        "operator.scripted.start_after_step=3",
        "operator.scripted.takeover_probability=1",
    )
    original = build(config)
    while original.env_steps < STEPS:
        original.training_step()
    checkpoint = original.save_to_path(f"{config.run.dir}/trial/checkpoint_000000")
    before = snapshot(original)
    restored = build(config, restore_from=checkpoint)
    after = snapshot(restored)
    return SimpleNamespace(
        config=config, path=checkpoint, original=original, before=before, restored=restored, after=after
    )


def test_everything_comes_back(saved):
    assert_same(saved.before, saved.after)
    assert saved.before.rest["counters"] == (STEPS, 80)
    assert saved.before.rest["evaluations"]["latest"]["at_env_steps"] == 40
    assert len(saved.original.online) < STEPS
    adam = [name for name in saved.before.learned if name.startswith(("critic/", "actor/", "temperature/"))]
    assert any(saved.before.learned[name].any() for name in adam if "exp_avg" in name)


def test_the_next_updates_are_those_that_would_have_come(saved):
    results = []
    for algorithm in (saved.original, saved.restored):
        torch.manual_seed(7)
        for _ in range(3):
            algorithm._learn(2)
        results.append(learned(algorithm))
    for name, value in results[0].items():
        np.testing.assert_array_equal(value, results[1][name], err_msg=name)
    assert any((value != saved.before.learned[name]).any() for name, value in results[0].items())
    saved.original.updates -= 6  # they were extra
    saved.restored.updates -= 6


def test_the_run_goes_on_and_its_next_checkpoint_holds_what_is_new_too(saved, tmp_path):
    algorithm = saved.restored
    stored = len(algorithm.saved_rings["online"]["shards"])
    algorithm.training_step()
    assert (algorithm.env_steps, algorithm.updates) == (STEPS + 5, 90)
    path = algorithm.save_to_path(f"{saved.config.run.dir}/trial_2/checkpoint_000000")
    assert len(algorithm.saved_rings["online"]["shards"]) == stored + 1
    before = snapshot(algorithm)
    algorithm.training_step()
    algorithm.restore_from_path(path)  # back in time, in place
    assert_same(before, snapshot(algorithm))
    for group in algorithm.collector.groups:
        (number,) = group.runners.foreach_env_runner(
            lambda runner: (runner.sample(), runner._weights_seq_no)[1], local_env_runner=False
        )
        assert number == algorithm.pushes


def test_a_run_folder_can_be_moved(saved, tmp_path):
    moved = shutil.copytree(saved.config.run.dir, tmp_path / "elsewhere")
    checkpoint = moved / "trial" / "checkpoint_000000"
    assert replay_folder(checkpoint, read_state(checkpoint)) == moved / "replay"


def test_a_missing_shard_and_a_foreign_folder_are_named(saved, tmp_path):
    checkpoint = tmp_path / "run" / "trial" / "checkpoint_000000"
    shutil.copytree(saved.path, checkpoint)
    (tmp_path / "run" / "replay").mkdir()
    with pytest.raises(FileNotFoundError, match=r"replay/online-\d+-\d+\.npz is missing"):
        restore_run(saved.original, checkpoint)
    state = json.loads((checkpoint / STATE_FILE).read_text())
    (checkpoint / STATE_FILE).write_text(json.dumps(state | {"version": 99}))
    with pytest.raises(ValueError, match="version 99, this program reads 1"):
        restore_run(saved.original, checkpoint)
    (checkpoint / STATE_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {STATE_FILE}"):
        restore_run(saved.original, checkpoint)
