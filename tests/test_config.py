"""A configuration either loads exactly as written, or says what is wrong and where."""

from __future__ import annotations

import dataclasses
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hil_rllib import config as config_module
from hil_rllib import strict_yaml
from hil_rllib.config import Config, ConfigError, SACSection, load_config


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_file_states_only_how_it_differs_from_the_defaults(write) -> None:
    config = load_config(write("sac: {utd_ratio: 4}\n"))
    assert config == dataclasses.replace(Config(), sac=SACSection(utd_ratio=4.0))
    assert load_config(write("")) == Config()


def test_base_then_file_then_overrides_win_in_this_order(write) -> None:
    write("sac: {utd_ratio: 4, gamma: 0.9, tau: 0.1}\nrun: {seed: 5}\n", "base.yaml")
    path = write("base: base.yaml\nsac: {gamma: 0.8, tau: 0.2}\n")
    config = load_config(path, ["sac.tau=0.3", "sac.hidden=[8, 4]", "sac.tau=0.4"])
    assert config.run.seed == 5
    assert (config.sac.utd_ratio, config.sac.gamma, config.sac.tau) == (4.0, 0.8, 0.4)
    assert config.sac.hidden == (8, 4)


def test_scalars_mean_what_they_look_like(write) -> None:
    """YAML 1.1 would read 1e-3 as text and off as false."""
    config = load_config(
        write(
            "sac: {critic_lr: 1e-3}\nstop: {success: null, env_steps: 1e5}\n"
            "demos: {source: none}\nrun: {dir: off}\n"
        )
    )
    assert config.sac.critic_lr == 0.001
    assert config.stop.success is None
    assert config.stop.env_steps == 100_000
    assert isinstance(config.stop.env_steps, int)
    assert config.demos.source == "none"
    assert config.run.dir == "off"
    assert isinstance(load_config(write("sac: {utd_ratio: 1}")).sac.utd_ratio, float)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("sac: {utd_raito: 2}", ["Unknown key 'utd_raito' in sac. Did you mean 'utd_ratio'?"]),
        ("operator: {scripted: {nois: 1}}", ["'nois' in operator.scripted. Did you mean 'noise'?"]),
        ("sca: {}", ["Unknown key 'sca'. Did you mean 'sac'?"]),
        ("gamma: 0.9", ["Unknown key 'gamma'. Did you mean 'sac.gamma'?"]),
        ("stop: {qqqq: 1}", ["'qqqq' in stop. Choose from success, evaluations_in_row, env_steps."]),
        ("sac: {batch_size: many}", ["sac.batch_size must be a whole number", "'many' (text)"]),
        ("sac: {batch_size: 1.5}", ["sac.batch_size must be a whole number", "1.5 (a number)"]),
        ("sac: {batch_size: true}", ["sac.batch_size must be a whole number", "true (true/false)"]),
        ("sac: {gamma: '0.9'}", ["sac.gamma must be a finite number", "'0.9' (text)"]),
        ("sac: {gamma: .nan}", ["sac.gamma must be a finite number", "nan"]),
        ("sac: {hidden: [8, x]}", ["sac.hidden must be a list, each a whole number", "[8, 'x'] (a list)"]),
        ("sac: {hidden: 8}", ["sac.hidden must be a list", "8 (a whole number)"]),
        ("env: {image_obs: off}", ["env.image_obs must be true or false", "'off' (text)"]),
        ("run: {dir: 2024}", ["run.dir must be text", "2024", "Quote it"]),
        ("run: {dir: }", ["run.dir must be text", "nothing (null)"]),
        ("sac: 3", ["sac must be a section of keys, got 3"]),
        ("sac:", ["sac must be a section of keys, got nothing"]),
        ("- 1", ["the top level must be a section of keys, got [1]"]),
        ("sac: {gamma: 1.5}", ["sac.gamma must be at least 0 and at most 0.9999, got 1.5"]),
        (f"sac: {{tau: 1{'0' * 400}}}", ["sac.tau must be a finite number"]),
        (f"run: {{seed: 1{'0' * 400}}}", ["run.seed must be a whole number"]),
        ("sac: {tau: 0}", ["sac.tau must be above 0 and at most 1, got 0"]),
        ("sac: {hidden: [8, 0]}", ["sac.hidden must be at least 1, got [8, 0]"]),
        ("sac: {hidden: []}", ["sac.hidden must be not empty"]),
        ("demos: {episodes: 0}", ["demos.episodes must be at least 1, got 0"]),
        ("run: {seed: -1}", ["run.seed must be at least 0 and at most 2147483647, got -1"]),
        (
            "evaluation: {seed: 4294967296}",
            ["evaluation.seed must be at least 0 and at most 2147483647"],
        ),
        (
            "operator: {device: gampad}",
            ["unknown choice 'gampad'. Did you mean 'gamepad'?", "hid, keyboard, none"],
        ),
        ("run: {mode: qq}", ["run.mode: unknown choice 'qq'. Choose from async, lockstep."]),
        ("sac: {tau: 0.1, gamma: 0.9, tau: 0.2}", ["line 1: key 'tau' is given twice"]),
        ("run: {seed: 1}\nsac: {tau: 0.1}\nrun: {seed: 1}", ["line 3: key 'run' is given twice"]),
        ("sac: {", ["not valid YAML"]),
        ("run: {dir: !!python/name:os.system }", ["not valid YAML"]),
        ("base: 3", ["base must be the name of a YAML file, got 3"]),
        ("base: nowhere.yaml", ["nowhere.yaml: no such file.", "run.yaml"]),
        ("base: run.yaml", ["base leads back"]),
        # fine alone, not together
        ("env: {image_obs: false}", ["demos.frames 'recorded' needs env.image_obs true", "rerendered"]),
        ("runners: {envs_per_runner: 4}", ["envs_per_runner 4: an operator's runner has one env"]),
        ("sac: {critic_subsample: 3}", ["sac.critic_subsample 3 exceeds sac.num_critics 2"]),
        (
            "demos: {source: none}\nsac: {bc_start_updates: 1}",
            ["bc_start_updates needs", "=0, or name a source"],
        ),
        ("demos: {source: none}\nsac: {critic_warmup_updates: 1}", ["sac.critic_warmup_updates needs demon"]),
        ("demos: {source: none}\noperator: {device: none}", ["sac.demo_fraction 0.5 can never be met"]),
        ("sac: {demo_fraction: 0}", ["would never use the demonstrations"]),
        ("demos: {source: none}\nsac: {demo_fraction: 0}", ["act on the demo half", "Set both weights to 0"]),
        ("run: {mode: lockstep}", ["make a person wait", "'auto'"]),
        ("operator: {attention: true}", ["one person beside several robots", "operator.count", "browser"]),
        ("operator: {port: 70000}", ["operator.port", "70000"]),
        (
            "run: {mode: lockstep}\noperator: {device: scripted, realtime: true}",
            ["waits for the learner, operator.realtime for nobody"],
        ),
        (
            "operator: {count: 2, device: [gamepad, browser, none]}",
            ["lists 3 devices, but operator.count is 2"],
        ),
        ("operator: {count: 0}", ["operator.count and runners.autonomous are both 0: nobody would act"]),
        (
            "operator: {count: 0}\nrunners: {autonomous: 1}\nrecord: {operator: true}",
            ["record.operator needs operator.count"],
        ),
        ("operator: {count: 2, device: [gamepad, kyboard]}", ["operator.device must be one of auto"]),
        ("sac: {demo_capacity: 255}", ["must each hold a batch of sac.batch_size 256"]),
        ("stop: {env_steps: 100}", ["sac.learning_starts 100 must be below stop.env_steps 100"]),
    ],
)
def test_a_mistake_is_told_with_its_file_and_key(write, text: str, parts: list[str]) -> None:
    path = write(text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    for part in [str(path.parent), *parts]:
        assert part in str(error.value)


def test_a_mistake_in_a_base_names_the_base(write) -> None:
    write("sac: {tau: 2}", "base.yaml")
    with pytest.raises(ConfigError, match=r"base\.yaml: sac\.tau must be"):
        load_config(write("base: base.yaml\nsac: {tau: 0.5}"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "sac.utd_raito=2",
            "override 'sac.utd_raito=2': Unknown key 'utd_raito' in sac. Did you mean 'utd_ratio'?",
        ),
        ("sac.gamma=2", "sac.gamma must be at least 0"),
        ("sac=2", "sac must be a section"),
        ("sac.gamma.x=2", "sac.gamma must be a finite number"),
        ("sac.gamma", "expected section.key=value"),
        ("=3", "expected section.key=value"),
        ("sac.hidden=[1", "not valid YAML"),
        ("run.dir={a: 1, a: 2}", "key 'a' is given twice"),
        ("base=panda_sac.yaml", "Unknown key 'base'"),
    ],
)
def test_a_mistaken_override_is_quoted(write, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(write(""), [override])
    assert message in str(error.value)


def test_folders_of_a_run_may_lie_below_home(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somebody")
    config = load_config(write("run: {dir: ~/runs/a}"), ["record.dir=~/b"])
    assert (config.run.dir, config.record.dir) == ("/somebody/runs/a", "/somebody/b")


def test_an_unreadable_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def test_the_defaults_keep_the_rules_that_files_must_keep(tmp_path: Path) -> None:
    path = tmp_path / "resolved.yaml"
    path.write_text(Config().to_yaml())
    assert load_config(path) == Config()


words = st.text(st.sampled_from(string.ascii_letters + string.digits + "/.-_+~: #'\"[]{}!&*éß\n"), min_size=1)


@settings(max_examples=30, deadline=None)
@given(
    directory=words.filter(lambda word: not word.startswith("~")),  # which is the home folder's
    lr=st.floats(1e-12, 1),
    seed=st.integers(0, 2**31 - 1),
    episodes=st.none() | st.integers(1, 9),
)
def test_overridden_values_survive_saving_the_resolved_config(
    tmp_path_factory, directory, lr, seed, episodes
) -> None:
    path = tmp_path_factory.mktemp("round_trip") / "run.yaml"
    path.write_text("")
    limit = "null" if episodes is None else episodes
    config = load_config(path, [f"sac.actor_lr={lr!r}", f"run.seed={seed}", f"demos.episodes={limit}"])
    assert (config.sac.actor_lr, config.run.seed, config.demos.episodes) == (lr, seed, episodes)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, dir=directory))
    path.write_text(config.to_yaml())
    assert load_config(path) == config


@settings(max_examples=200, deadline=None)
@given(
    text=words
    | st.sampled_from(["none", "off", "1e-3", "08", "1:30", "null", "2024-01-01", "=", "<<", "0x1", ".5"])
)
def test_text_survives_dumping(text: str) -> None:
    assert strict_yaml.parse(strict_yaml.dump({"key": text}), "dumped") == {"key": text}


def test_a_saved_file_says_its_version_and_an_older_one_is_migrated(tmp_path, monkeypatch):
    file = tmp_path / "config.yaml"
    file.write_text(Config().to_yaml())
    assert yaml.safe_load(file.read_text())["version"] == config_module.VERSION
    assert load_config(file) == Config()

    def renamed(values):  # as if `seed` had been called `random_seed` in version 1
        values["run"]["seed"] = values["run"].pop("random_seed")
        return values

    monkeypatch.setattr(config_module, "VERSION", 2)
    monkeypatch.setattr(config_module, "MIGRATIONS", {1: renamed})
    file.write_text("version: 1\nrun: {random_seed: 7}\n")
    assert load_config(file).run.seed == 7
    file.write_text("version: 2\nrun: {seed: 7}\n")
    assert load_config(file).run.seed == 7


def test_a_file_of_a_later_version_is_refused(tmp_path):
    file = tmp_path / "config.yaml"
    for version, says in ((99, "version 99, this program reads up to 1"), ("new", "whole number from 1")):
        file.write_text(f"version: {version}\n")
        with pytest.raises(ConfigError, match=says):
            load_config(file)
