"""A sweep's file is as strict as a run's, and what it means is what Tune is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.tune.search.sample import Categorical, Float, Integer

from hil_rllib import strict_yaml
from hil_rllib.config import Config, ConfigError
from hil_rllib.sweeping.objective import Objective
from hil_rllib.sweeping.plan import as_override, load_plan
from hil_rllib.sweeping.search import scheduler, searcher, space

CONFIGS = Path(__file__).resolve().parents[2] / "tuned_configs"
BASE = CONFIGS / "panda_sac_state.yaml"


@pytest.fixture
def plan(tmp_path: Path):
    def plan(text: str, *overrides: str):
        file = tmp_path / "sweep.yaml"
        file.write_text(text.replace("BASE", str(BASE)))
        return load_plan(file, overrides)

    return plan


WHOLE = """
sweep: {base: BASE, samples: 3, seed: 4}
config: {run: {mode: lockstep}, stop: {env_steps: 900}}
space:
  sac.utd_ratio: {grid: [1, 2]}
  sac.hidden: {grid: [[64, 64], [256]]}
  sac.actor_lr: {loguniform: [1e-4, 1e-3]}
  sac.num_critics: {randint: [2, 5]}
  env.reward_type: {choice: [sparse, dense]}
"""


def test_the_shipped_sweep_has_eight_trials_of_two_cores() -> None:
    shipped = load_plan(CONFIGS / "panda_sac_sweep.yaml")
    assert shipped.trials == 8
    assert shipped.sweep.cpus == 1
    assert shipped.first.run.mode == "lockstep"


def test_a_trial_is_the_base_with_what_is_common_and_what_is_varied(plan) -> None:
    made = plan(WHOLE, "sac.batch_size=64", "sweep.dir=elsewhere")
    assert made.trials == 2 * 2 * 3
    assert made.sweep.dir == "elsewhere"
    config = made.config({"sac.utd_ratio": 2, "sac.hidden": [256], "sac.actor_lr": 3.3e-4}, "a/b")
    assert (config.sac.utd_ratio, config.sac.hidden, config.sac.actor_lr) == (2.0, (256,), 3.3e-4)
    assert (config.sac.batch_size, config.stop.env_steps, config.run.dir) == (64, 900, "a/b")
    assert config.env.random_block_position  # the base's


def test_draws_are_tunes(plan) -> None:
    found = space(plan(WHOLE))
    assert found["sac.utd_ratio"] == {"grid_search": [1, 2]}
    lr, critics, reward = found["sac.actor_lr"], found["sac.num_critics"], found["env.reward_type"]
    assert isinstance(lr, Float)
    assert isinstance(critics, Integer)
    assert isinstance(reward, Categorical)
    assert all(1e-4 <= value <= 1e-3 for value in lr.sample(size=50))
    assert set(critics.sample(size=60)) == {2, 3, 4}
    assert set(reward.sample(size=40)) == {"sparse", "dense"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sweep: {base: BASE}\nspace: {sac.utd_raito: {grid: [1]}}", "Did you mean 'utd_ratio'"),
        (
            "sweep: {base: BASE}\nspace: {sac.tau: {grid: [0.1, 2.0]}}",
            "sac.tau must be above 0 and at most 1",
        ),
        (
            "sweep: {base: BASE}\nspace: {sac.tau: {uniform: [0.1, 2.0]}}",
            "sac.tau must be above 0 and at most 1",
        ),
        ("sweep: {base: BASE}\nspace: {sac.tau: {uniforn: [0.1, 0.2]}}", "Did you mean uniform"),
        ("sweep: {base: BASE}\nspace: {sac.tau: {loguniform: [0, 0.2]}}", "low above 0"),
        ("sweep: {base: BASE}\nspace: {sac.tau: {uniform: [0.2, 0.1]}}", r"uniform needs \[low, high\]"),
        ("sweep: {base: BASE}\nspace: {sac.tau: 0.1}", "must be one of grid, choice"),
        ("sweep: {base: BASE}", "space must name the keys to vary"),
        ("sweep: {bse: BASE}\nspace: {sac.tau: {grid: [0.1]}}", "Did you mean 'base'"),
        ("sweap: {base: BASE}\nspace: {sac.tau: {grid: [0.1]}}", "Did you mean sweep"),
        ("space: {sac.tau: {grid: [0.1]}}", "sweep.base must name"),
        (
            "sweep: {base: BASE, scheduler: pbt}\nspace: {sac.tau: {grid: [0.1, 1]}}",
            "and a grid's stay. Make",
        ),
        ("sweep: {base: BASE, scheduler: pbt}\nspace: {sac.tau: {choice: [0.1]}}", "and there is one"),
        (
            "sweep: {base: BASE, scheduler: pbt, samples: 4}\nspace: {sac.utd_ratio: {choice: [1, 2]}}",
            "sac.utd_ratio cannot: make it a grid. Those that can: sac.actor_lr, ",
        ),
        (
            "sweep: {base: BASE, scheduler: pbt, samples: 4, search: optuna}"
            "\nspace: {sac.tau: {uniform: [0.1, 1]}}",
            "so sweep.search must be random",
        ),
        (
            "sweep: {base: BASE, scheduler: pbt, samples: 4, parallel: 2}"
            "\nspace: {sac.tau: {uniform: [0.1, 1]}}",
            "compares all 4 trials, which take turns",
        ),
        (
            "sweep: {base: BASE, scheduler: pbt, samples: 4}\nconfig: {run: {algorithm: bc}}"
            "\nspace: {sac.tau: {uniform: [0.1, 1]}}",
            "for run.algorithm sac, got bc",
        ),
        (
            "sweep: {base: BASE, scheduler: pbt, samples: 4}"
            "\nconfig: {operator: {device: scripted}, record: {operator: true}}"
            "\nspace: {sac.tau: {uniform: [0.1, 1]}}",
            "would have recorded what it did not learn from",
        ),
        ("sweep: {base: BASE, scheduler: ahsa}\nspace: {sac.tau: {grid: [0.1]}}", "Did you mean 'asha'"),
        ("sweep: {base: BASE, search: optuna}\nspace: {sac.tau: {grid: [0.1]}}", "a grid has no choice"),
        ("sweep: {base: BASE, samples: 2}\nspace: {sac.tau: {grid: [0.1]}}", "so many times alike"),
        ("sweep: {base: BASE}\nspace: {run.dir: {grid: [a, b]}}", "a run.dir of its own"),
        ("sweep: {base: BASE}\nspace: {run.algorithm: {grid: [sac, bc]}}", "a sweep of each run.algorithm"),
        (
            "sweep: {base: BASE}\nconfig: {run: {algorithm: reward}, env: {image_obs: true}}"
            "\nspace: {offline.lr: {grid: [1e-3]}}",
            "no greedy success to compare",
        ),
        (
            "sweep: {base: BASE}\nconfig: {operator: {device: gamepad}}\nspace: {sac.tau: {grid: [0.1]}}",
            "a person's, who cannot help 1 trials",
        ),
        (
            "sweep: {base: BASE}\nconfig: {record: {operator: true, dir: shared}}"
            "\nspace: {sac.tau: {grid: [0.1]}}",
            "record.dir shared would take the episodes of all trials",
        ),
        (
            "sweep: {base: BASE}\nspace: {sac.num_critics: {grid: [2]}, sac.critic_subsample: {grid: [3]}}",
            "exceeds sac.num_critics",
        ),
        (
            "sweep: {base: BASE}\nspace: {operator.device: {grid: [none, browser]}}",
            "'browser' is a person's, who cannot help 2 trials",
        ),
        (
            "sweep: {base: BASE, samples: 3}\nspace: {operator.device: {choice: [none, [browser]]}}",
            "'browser' is a person's, who cannot help 3 trials",
        ),
        (
            "sweep: {base: BASE}\nconfig: {record: {operator: true}}"
            "\nspace: {record.dir: {grid: [null, shared]}}",
            "record.dir shared would take the episodes of all trials",
        ),
        (
            "sweep: {base: BASE}\nconfig: {record: {dir: shared}}"
            "\nspace: {record.operator: {grid: [false, true]}}",
            "record.dir shared would take the episodes of all trials",
        ),
        (
            "sweep: {base: BASE}\nspace: {sac.batch_size: {uniform: [32, 64]}}",
            r"sac.batch_size must be a whole number .* got 42\..* uniform draws such numbers. Use randint or",
        ),
        (
            "sweep: {base: BASE}\nspace: {run.seed: {uniform: [0.5, 3]}}",
            "got 0.5 .* uniform draws such numbers. Use randint or choice",
        ),
        (
            "sweep: {base: BASE}\nspace: {sac.tau: {grid: [1]}, sac.critic_subsample: {loguniform: [1, 2]}}",
            r"a whole number .* or null, got 1\..* loguniform draws such numbers. Use randint or choice",
        ),
        (
            "sweep: {base: BASE}\nconfig: {run: {dir: a}}\nspace: {sac.tau: {grid: [0.1]}}",
            r"its own folder; the sweep's is sweep\.dir=PATH",
        ),
        (
            "sweep: {base: BASE}\nconfig: {sac: {tau: 0.2, gamma: 0.9}}\nspace: {sac.tau: {grid: [0.1]}}",
            "sac.tau is varied by space and fixed too. Remove one",
        ),
        (
            "sweep: {base: BASE}\nconfig: {sac: {tau: 0.2}}\nspace: {sac: {choice: [{tau: 0.1}]}}",
            "sac.tau is varied by space and fixed too. Remove one",
        ),
    ],
)
def test_what_cannot_be_swept_is_said_before_anything_runs(plan, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(text)


@pytest.mark.parametrize(
    "value",
    [
        (64, 64),
        ["my demos", "other, more", "ü: [x]", "#5", "null"],
        [1e-05, 0.5],
        [True, None],
        "a, b: c",
        1e-7,
        None,
    ],
)
def test_values_come_through_as_they_are(value: object) -> None:
    key, _, text = as_override("a.key", value).partition("=")
    assert key == "a.key"
    found = strict_yaml.parse(text, "here")
    assert found == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.dir=a", r"run\.dir=a: each trial has its own folder; the sweep's is sweep\.dir=PATH"),
        ("run={dir: a}", "each trial has its own folder"),
        ("sac.tau=0.2", "sac.tau is varied by space and fixed too. Remove one"),
        (" sac.tau =0.1", "sac.tau is varied by space and fixed too. Remove one"),
        ("sac={gamma: 0.9, tau: 0.2}", "sac.tau is varied by space and fixed too. Remove one"),
        ("sac.tau", "expected section.key=value"),
    ],
)
def test_what_the_trials_would_ignore_is_refused(plan, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan("sweep: {base: BASE}\nspace: {sac.tau: {grid: [0.1]}}", override)


def test_the_base_may_say_what_is_varied_and_its_folder(plan, tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(f"base: {BASE}\nrun: {{dir: a}}\nsac: {{tau: 0.2}}")
    made = plan(f"sweep: {{base: {base}}}\nspace: {{sac.tau: {{grid: [0.1]}}}}", "sac={gamma: 0.9}")
    assert (made.first.sac.tau, made.first.sac.gamma) == (0.1, 0.9)


def test_a_range_of_any_numbers_may_have_whole_ends(plan) -> None:
    made = plan("sweep: {base: BASE}\nspace: {sac.bc_weight: {uniform: [1, 10]}}")
    assert [config.sac.bc_weight for config in made.configs()][1:] == [1, pytest.approx(3.865, abs=1e-3), 10]


def test_optuna_and_asha_are_taken_by_name(plan) -> None:
    text = "sweep: {base: BASE, search: optuna, scheduler: asha}\nspace: {sac.tau: {uniform: [0.001, 0.1]}}"
    made = plan(text, "stop.env_steps=9000", "evaluation.every_steps=500")
    chooser = searcher(made)
    assert type(chooser).__name__ == "OptunaSearch"
    chooser.set_search_properties("objective", "max", space(made) | {"plan": made})
    assert 0.001 <= chooser.suggest("first")["sac.tau"] <= 0.1
    assert searcher(plan(text, "sweep.parallel=2")).max_concurrent == 2
    assert searcher(plan(WHOLE, "sweep.parallel=3")).max_concurrent == 3
    rungs = scheduler(made)._brackets[0]._rungs
    assert [steps for steps, _ in rungs] == [9000, 3000, 1000]


def test_every_report_carries_the_objective() -> None:
    def report(success: float | None, human: float) -> dict:
        return {"hil": {"demo_seconds": 80.0, "human_seconds": human}} | (
            {} if success is None else {"evaluation": {"success": success}}
        )

    score, human = (Objective(name, Config()) for name in ("success", "human_seconds_to_90"))
    assert (score.mode, human.mode) == ("max", "min")
    seen = []
    for success, human_s in ((None, 0.0), (0.5, 10.0), (0.95, 20.0), (0.4, 40.0)):
        results = [report(success, human_s) for _ in range(2)]
        score.add_to(results[0])
        human.add_to(results[1])
        seen.append((results[0]["objective"], results[1]["objective"], results[1]["human_seconds_to_90"]))
    assert [s[0] for s in seen] == [0.0, 0.5, 0.95, 0.4]
    assert [s[2] for s in seen] == [None, None, 100.0, 100.0]  # both together
    assert seen[0][1] > seen[1][1] > 100.0 == seen[2][1] == seen[3][1]
    again = Objective("human_seconds_to_90", Config())
    again.restore(human.state())
    assert again.reached_at_s == 100.0
