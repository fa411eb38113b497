"""A trial is the run that `hil_rllib.train` would make of its config.yaml."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hil_rllib import sweep
from hil_rllib.config import ConfigError, load_config
from hil_rllib.console import INTERRUPTED
from hil_rllib.data import shared
from hil_rllib.run_lock import RunLock
from hil_rllib.sac.checkpoint import newest_checkpoint, replay_folder, run_folder, write_state
from hil_rllib.sac.checkpoint_files import find_checkpoint
from hil_rllib.sac.config import HILSACConfig, demo_options
from hil_rllib.sweeping import trial
from hil_rllib.sweeping.begun import SEARCH_FILE
from hil_rllib.sweeping.plan import load_plan
from hil_rllib.sweeping.trial import Trial
from hil_rllib.train import checkpoint_to_resume

CONFIGS = Path(__file__).resolve().parents[2] / "tuned_configs"
SMOKE = CONFIGS / "panda_sac_smoke.yaml"


def saved(checkpoint: Path, env_steps: int, **files: str) -> Path:
    """A checkpoint as far as one is looked for; files: by name without .json."""
    checkpoint.mkdir(parents=True)
    for name, text in files.items():
        (checkpoint / f"{name}.json").write_text(text)
    write_state(checkpoint, load_config(SMOKE), {"env_steps": env_steps})
    return checkpoint


@pytest.fixture
def set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Sets a trial of a sweep up as Tune does, without Ray; returns the trial and its RLlib configuration."""
    built: list[Any] = []
    monkeypatch.setattr(HILSACConfig, "build_algo", lambda config: built.append(config) or "algorithm")
    monkeypatch.setattr(trial.torch, "set_num_threads", lambda count: built.append(count))
    monkeypatch.chdir(tmp_path)

    def set_up(space: str, *overrides: str, **values: Any) -> tuple[Trial, HILSACConfig]:
        file = tmp_path / "sweep.yaml"
        file.write_text(f"sweep: {{base: {SMOKE}}}\nspace: {space}")
        plan = load_plan(Path("sweep.yaml"), overrides)
        made = Trial.__new__(Trial)
        made._trial_info = SimpleNamespace(trial_id="abc_00003")
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        with monkeypatch.context() as tune:
            tune.chdir(elsewhere)  # Tune does
            made.setup(values, plan=plan, sweep_dir=str(tmp_path / "sweep"), library="library")
        return made, built[0]

    return set_up


def test_a_trial_learns_from_its_own_demonstrations(set_up, tmp_path: Path) -> None:
    values = {"run.seed": 1, "env.random_block_position": False, "demos.scripted_episodes": 6}
    space = "{run.seed: {grid: [0, 1]}, env.random_block_position: {grid: [true, false]}, "
    _, rllib = set_up(space + "demos.scripted_episodes: {grid: [4, 6]}}", **values)
    config = load_config(tmp_path / "sweep" / "trial_00003" / "config.yaml")
    assert (config.run.seed, config.demos.scripted_episodes) == (1, 6)
    trained = HILSACConfig.from_config(config)
    assert rllib.input_ == trained.input_ == "scripted"
    assert rllib.input_read_method_kwargs == trained.input_read_method_kwargs | {"library": "library"}
    assert rllib.hil.demos == config.demos


def test_paths_of_a_sweep_are_relative_to_where_it_was_started(set_up, tmp_path: Path) -> None:
    (tmp_path / "demos").mkdir()
    (tmp_path / "scripted").mkdir()  # the word has priority
    (tmp_path / "weights.pt").touch()
    space = "{demos.source: {grid: [demos, scripted, owner/name]}}"
    changes = ("demos.frames=rerendered", "encoder.weights=weights.pt")
    _, rllib = set_up(space, *changes, **{"demos.source": "demos"})
    assert rllib.input_ == str(tmp_path / "demos")
    assert rllib.hil.encoder.weights == str(tmp_path / "weights.pt")
    plan = load_plan(Path("sweep.yaml"), changes)
    assert [c.demos.source for c in plan.configs()] == [str(tmp_path / "demos"), "scripted", "owner/name"]


def test_a_trial_begins_with_the_checkpoint_that_init_from_stands_for(
    set_up, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tmp_path / "before" / "trial" / "checkpoint_000000"
    found.mkdir(parents=True)
    monkeypatch.setattr("hil_rllib.train.check_policy", lambda where, config: Path(where) / found.parent.name)
    _, rllib = set_up("{sac.tau: {grid: [0.1]}}", "run.init_from=before", **{"sac.tau": 0.1})
    assert rllib.hil.run.init_from == str(found.parent)


def test_a_trials_runners_lie_in_what_it_reserved(set_up) -> None:
    """They wait for places for ever where the trials have reserved all of them."""
    made = {"runners.autonomous": 2}
    space = "{runners.autonomous: {grid: [0, 2]}}"
    _, rllib = set_up(space, **made)
    assert rllib.autonomous().num_cpus_per_env_runner == 0
    assert load_plan(Path("sweep.yaml")).cpus == 3
    assert load_plan(Path("sweep.yaml"), ["sweep.cpus=4"]).cpus == 4
    set_up("{sac.tau: {grid: [0.1]}}", **{"sac.tau": 0.1})
    assert load_plan(Path("sweep.yaml")).cpus == 1


def test_a_trials_folder_is_a_run_also_where_train_went_on_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "sweep" / "trial_00000"
    first = saved(folder / "checkpoint_000001", 400)
    config = load_config(SMOKE, [f"run.dir={folder}"])
    (folder / "config.yaml").write_text(config.to_yaml())
    assert checkpoint_to_resume(folder, config) == find_checkpoint(folder) == first
    assert replay_folder(first) == folder / "replay"
    assert newest_checkpoint(folder.parent) is None  # a sweep is no run
    second = saved(folder / "trial" / "checkpoint_000000", 600)
    assert checkpoint_to_resume(folder, config) == second
    assert run_folder(second) == run_folder(first) == folder


def test_a_trial_goes_on_from_its_newest_whole_checkpoint(set_up, tmp_path: Path) -> None:
    folder, space, values = tmp_path / "sweep" / "trial_00003", "{sac.tau: {grid: [0.1]}}", {"sac.tau": 0.1}
    whole = saved(folder / "checkpoint_000001", 100, objective='{"best": 0.5, "reached_at_s": 7.0}')
    (
        saved(folder / "checkpoint_000002", 200, objective="{}") / "objective.json"
    ).unlink()  # killed while copied
    made, rllib = set_up(space, **values)
    assert rllib.resume
    assert rllib.restore_from == str(whole)
    assert (made.objective.best, made.objective.reached_at_s) == (0.5, 7.0)
    made.algorithm = SimpleNamespace(
        save_to_path=lambda where: write_state(Path(where), rllib.hil, {"env_steps": 300})
    )
    third = folder / "checkpoint_000003"
    third.mkdir()
    made.save_checkpoint(str(third))
    assert newest_checkpoint(folder) == third
    (third / "objective.json").write_text("")
    assert newest_checkpoint(folder) == whole


def test_trials_do_not_go_on_with_another_configuration(set_up, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    space = "{sac.tau: {grid: [0.1, 0.2]}, sac.actor_lr: {loguniform: [1.0e-4, 1.0e-3]}}"
    set_up(space, **{"sac.tau": 0.1, "sac.actor_lr": 3.3e-4})
    again = load_plan(Path("sweep.yaml"), ["stop.env_steps=9000"])  # longer is fine
    sweep.check_begun(again, folder)
    with pytest.raises(ConfigError, match=r"trial_00003 was begun with .*: sac.gamma was 0.97, now 0.9\."):
        sweep.check_begun(load_plan(Path("sweep.yaml"), ["sac.gamma=0.9"]), folder)


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The file and folder of a sweep that was begun and interrupted before any trial ran."""
    file, folder = tmp_path / "sweep.yaml", tmp_path / "sweep"
    file.write_text(
        f"sweep: {{base: {SMOKE}, dir: {folder}, search: optuna, seed: 3, samples: 4}}\n"
        "space: {sac.hidden: {choice: [[32, 32], [64]]}, sac.tau: {loguniform: [1e-5, 0.1]}}"
    )
    monkeypatch.setattr(sweep, "check_trials", lambda plan, folder: None)
    monkeypatch.setattr(sweep, "write_outcome", lambda found, plan, folder: "done")

    def interrupted(plan: Any, folder: Path, *, resume: bool) -> None:
        (folder / "tuner.pkl").write_text("Tune's")
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "run", interrupted)
    assert sweep.main([str(file)]) == INTERRUPTED
    monkeypatch.setattr(sweep, "run", lambda plan, folder, *, resume: [])
    return file, folder


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        (
            "[64]]",
            "[64], [128]]",
            "space: sac.hidden was choice [[32, 32], [64]], now choice [[32, 32], [64], ",
        ),
        ("[1e-5,", "[1e-6,", "space: sac.tau was loguniform [1e-05, 0.1], now loguniform [1e-06, 0.1]."),
        (
            "sac.tau",
            "sac.gamma",
            "sac.tau was loguniform [1e-05, 0.1], now not varied; space: sac.gamma was not",
        ),
        ("samples: 4", "samples: 6", "sweep.samples was 4, now 6."),
        ("search: optuna, ", "", "sweep.search was 'optuna', now 'random'."),
        ("search: optuna", "scheduler: asha, search: optuna", "sweep.scheduler was 'none', now 'asha'."),
        ("search", "objective: human_seconds_to_90, search", "now 'human_seconds_to_90'."),
        ("seed: 3", "seed: 4", "sweep.seed was 3, now 4."),
        ("seed: 3", "seed: 3, parallel: 2", "sweep.parallel was None, now 2."),
    ],
)
def test_a_sweep_does_not_go_on_with_another_search(
    begun, capsys: pytest.CaptureFixture[str], was: str, now: str, said: str
) -> None:
    """Tune would go on with the old one, and its end be told as that of the new one."""
    file, folder = begun
    file.write_text(file.read_text().replace(was, now))
    capsys.readouterr()
    assert sweep.main([str(file), "--resume"]) == 2
    refused = capsys.readouterr().err
    assert f"{folder} was begun with another search: " in refused
    assert said in refused
    assert "Give the values it was begun with, or a new sweep.dir." in refused


def test_a_sweep_goes_on_with_the_same_search_on_another_machine(begun, tmp_path: Path) -> None:
    file, folder = begun
    assert sweep.main([str(file), "sweep.cpus=2", "sweep.gpus=0.5", "--resume"]) == 0
    other = file.rename(folder.rename(tmp_path / "moved") / "sweep.yaml")
    (tmp_path / "base.yaml").write_text(f"base: {SMOKE}")
    elsewhere = ["sweep.base=../base.yaml", f"sweep.dir={tmp_path / 'moved'}"]
    assert sweep.main([str(other), *elsewhere, "--resume"]) == 0


def test_a_sweep_of_an_earlier_release_goes_on(begun) -> None:
    file, folder = begun
    (folder / SEARCH_FILE).unlink()
    assert sweep.main([str(file), "--resume"]) == 0


def test_a_sweep_that_did_not_come_to_its_trials_can_be_begun_as_another(begun) -> None:
    file, folder = begun
    (folder / "tuner.pkl").unlink()
    assert sweep.main([str(file), "sweep.samples=6"]) == 0
    (folder / "tuner.pkl").touch()
    assert sweep.main([str(file), "sweep.samples=6", "--resume"]) == 0


@pytest.mark.parametrize("text", ["", "sweep: {base: x}", "[1, 2]", "space: {sac.tau: {grid: [1]}}"])
def test_a_damaged_search_is_named(begun, capsys: pytest.CaptureFixture[str], text: str) -> None:
    file, folder = begun
    (folder / SEARCH_FILE).write_text(text)
    assert sweep.main([str(file), "--resume"]) == 2
    assert str(folder / SEARCH_FILE) in capsys.readouterr().err


def test_a_sweep_that_runs_is_not_started_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, folder = tmp_path / "sweep.yaml", tmp_path / "sweep"
    file.write_text(f"sweep: {{base: {SMOKE}, dir: {folder}}}\nspace: {{sac.tau: {{grid: [0.1]}}}}")
    with RunLock(folder):
        assert sweep.main([str(file), "--resume"]) == 2
    said = capsys.readouterr().err
    assert f"is in use by process {os.getpid()}" in said
    assert "choose another sweep.dir" in said


class Loaded:
    """Stands in for `load_demos`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def __call__(self, source: str, **options: Any) -> SimpleNamespace:
        self.calls.append((source, options["seed"]))
        return SimpleNamespace(scripted=source in ("scripted", "unreachable"), seed=options["seed"])


def test_recorded_demonstrations_are_read_once_scripted_ones_once_a_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = Loaded()
    monkeypatch.setattr(shared, "load_demos", loaded)
    monkeypatch.setattr(shared.ray, "put", lambda demos: demos)
    library = shared.DemoLibrary()
    for _ in range(2):
        for seed in (0, 1):
            options = demo_options(load_config(SMOKE, [f"run.seed={seed}", "demos.fallback=scripted"]))
            assert library.get("folder", options)[0].seed == 0
            assert library.get("scripted", options)[0].seed == seed
            assert library.get("unreachable", options)[0].seed == seed
    every = [(source, seed) for seed in (0, 1) for source in ("folder", "scripted", "unreachable")]
    assert loaded.calls == [call for call in every if call != ("folder", 1)]
    others = demo_options(load_config(SMOKE, ["env.random_block_position=false"]))
    library.get("folder", others)
    assert len(loaded.calls) == 6


def test_what_trials_need_is_looked_for_before_they_start(
    set_up, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Loaded()
    monkeypatch.setattr(sweep, "load_demos", loaded)
    checked: list[Any] = []
    monkeypatch.setattr(sweep, "check_ingredients", lambda config, folder: checked.append(config))
    values = {"run.seed": 0, "sac.tau": 0.1, "env.reward_type": "dense"}
    space = "{run.seed: {grid: [0, 1]}, sac.tau: {grid: [0.1, 0.2]}, env.reward_type: {choice: [dense]}}"
    set_up(space, **values)
    sweep.check_trials(load_plan(Path("sweep.yaml")), tmp_path)
    assert loaded.calls == [("scripted", 0), ("scripted", 1)]
    assert [config.run.seed for config in checked] == [0, 1]
    assert {config.demos.source for config in checked} == {"none"}  # read once, not by both
