"""Whatever a person types or a file holds: it works, or one line says what is wrong. Nothing is half begun.

Properties over random input; what the single messages say is tested beside each reader.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hil_rllib import (
    benchmark,
    dataset,
    evaluate,
    plot,
    pretrain,
    record,
    replay,
    session,
    sweep,
    teleop,
    train,
)
from hil_rllib.config import Config, ConfigError, load_config
from hil_rllib.devices.gamepad_maps import SHIPPED, load_controller_config, load_maps
from hil_rllib.sweeping.plan import load_plan

RANDOM = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ODD = ["", " ", "-", "=", "null", "~", ".nan", "-.inf", "1e400", "0x1", "[", "{", "{a: 1, a: 2}", "*a",
       "&a x", "!!python/object:os.system x", "é", "\u2028", "\x00", "\x1b[2J", "\udcff",
       "9" * 5000]  # fmt: skip
words = st.sampled_from(ODD) | st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(words, v, max_size=3), max_leaves=6
)


class Began(BaseException):
    """The input was taken, and work would begin now."""


def begin(*_: Any, **__: Any) -> Any:
    raise Began


def mutated(draw: st.DrawFn, tree: Any) -> Any:
    """`tree` with one of its parts, at any depth, replaced, removed, renamed or joined by another."""
    if not isinstance(tree, dict) or not tree or draw(st.integers(0, 3)) == 0:
        return draw(values)
    key = draw(st.sampled_from(sorted(tree)))
    how = draw(st.sampled_from(["inside", "inside", "inside", "remove", "rename", "add"]))
    if how == "inside":
        tree[key] = mutated(draw, tree[key])
    elif how == "add":
        tree[draw(words)] = draw(values)
    else:
        value = tree.pop(key)
        if how == "rename":
            tree[draw(words)] = value
    return tree


@st.composite
def almost(draw: st.DrawFn, tree: Any) -> Any:
    """A valid tree with one or two mistakes."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 2))):
        tree = mutated(draw, tree)
    return tree


def clear(error: Exception, *parts: str) -> None:
    """The message says something, and where; `console.report` makes one line of it."""
    assert len(str(error)) > 20
    for part in parts:
        assert part in str(error)


# -- configurations --------------------------------------------------------------------------------------


def loads_or_tells(path: Path, overrides: list[str]) -> None:
    try:
        assert isinstance(load_config(path, overrides), Config)
    except ConfigError as error:
        clear(error)


@RANDOM
@given(content=st.binary(max_size=60) | words.map(lambda text: text.encode(errors="surrogatepass")))
def test_any_file_is_a_config_or_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.yaml").write_bytes(content)
    loads_or_tells(tmp_path / "run.yaml", [])


@RANDOM
@given(tree=almost(Config().to_dict()))
def test_a_config_with_a_mistake_is_a_clear_error(tmp_path: Path, tree: Any) -> None:
    with contextlib.suppress(UnicodeEncodeError):  # a lone surrogate cannot be in a file
        (tmp_path / "run.yaml").write_text(json.dumps(tree), encoding="utf-8")  # JSON is YAML
    loads_or_tells(tmp_path / "run.yaml", [])


keys = [f"{section}.{key}" for section, part in Config().to_dict().items() for key in part]
overrides = st.lists(
    st.builds("{}={}".format, st.sampled_from(keys) | words, words | st.integers() | st.floats()) | words,
    max_size=3,
)


@RANDOM
@given(overrides=overrides)
def test_any_override_works_or_is_a_clear_error(tmp_path: Path, overrides: list[str]) -> None:
    (tmp_path / "run.yaml").write_text("")
    loads_or_tells(tmp_path / "run.yaml", overrides)


# -- sweeps ----------------------------------------------------------------------------------------------

SWEEP = "sweep: {base: run.yaml, dir: sweep}\nspace: {run.seed: {grid: [0, 1]}}"


@RANDOM
@given(tree=almost(yaml.safe_load(SWEEP) | {"config": {"run": {"mode": "lockstep"}}}))
def test_a_sweep_with_a_mistake_is_a_clear_error(tmp_path: Path, tree: Any) -> None:
    (tmp_path / "run.yaml").write_text("")
    with contextlib.suppress(UnicodeEncodeError):
        (tmp_path / "sweep.yaml").write_text(json.dumps(tree), encoding="utf-8")
    try:
        assert load_plan(tmp_path / "sweep.yaml", [])
    except ConfigError as error:
        clear(error)


# -- controller maps -------------------------------------------------------------------------------------


def reads_or_tells(path: Path) -> None:
    for read in (load_maps, lambda path: load_controller_config("Some Pad", path)):
        try:
            assert isinstance(read(path), dict)
        except ValueError as error:
            clear(error, str(path))


@RANDOM
@given(content=st.binary(max_size=60) | words.map(lambda text: text.encode(errors="surrogatepass")))
def test_any_file_is_a_controller_map_or_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pad.json").write_bytes(content)
    reads_or_tells(tmp_path / "pad.json")


first_maps = dict(list(json.loads(SHIPPED.read_text()).items())[:2])


@RANDOM
@given(tree=almost(first_maps))
def test_a_controller_map_with_a_mistake_is_a_clear_error(tmp_path: Path, tree: Any) -> None:
    (tmp_path / "pad.json").write_text(json.dumps(tree), encoding="utf-8")
    reads_or_tells(tmp_path / "pad.json")


def test_a_file_nested_without_end_is_a_clear_error(tmp_path: Path) -> None:
    depth = 20_000
    for name, content in (("pad.json", "[" * depth), ("run.yaml", "run: " + "[" * depth)):
        (tmp_path / name).write_text(content)
    reads_or_tells(tmp_path / "pad.json")
    loads_or_tells(tmp_path / "run.yaml", [])


# -- commands --------------------------------------------------------------------------------------------

SESSION = ["--device", "--mode", "--viewer", "--headless", "--hz", "--controller-config", "--random",
           "--seed", "--episode-steps", "--quality"]  # fmt: skip
COMMANDS: dict[str, tuple[Callable[[list[str]], int | None], list[list[str]], list[str]]] = {
    # name: (main, how the arguments begin, options and words of its own)
    "train": (train.main, [[], ["run.yaml"]], ["--resume", "run.dir=run", *keys]),
    "record": (record.main, [[], ["out", "--episodes", "1", "--device", "scripted"]],
               [*SESSION, "--env", "--append", "--keep-failures", "--no-images", "--task", "--episodes"]),
    "teleop": (teleop.main, [["--device", "scripted"], []],
               [*SESSION, "--steps", "--episodes", "--video", "--policy", "--scene", "--calibrate"]),
    "replay": (replay.main, [["nowhere"], []], ["--episodes", "--env", "--video", "--json"]),
    "evaluate": (evaluate.main, [["nowhere"], ["run"], []], ["--episodes", "--seed", "--video", "--json"]),
    "dataset": (dataset.main, [["info"], ["check"], ["convert"], ["merge"], ["plot"], []],
                ["nowhere", "out", "--json", "--revision", "--feature", "a=b", "--repair", "--episodes",
                 "--common"]),
    "pretrain": (pretrain.main, [[]], ["--scenes", "--held-out", "--minutes", "--steps", "--batch",
                                       "--probe-steps", "--seed", "--threads", "--out", "--cache",
                                       "--resume"]),
    "sweep": (sweep.main, [["sweep.yaml"], ["run.yaml"], []],
              ["--resume", "sweep.dir=out", "sweep.objective=success", "sweep.samples=0", *keys]),
    "benchmark": (benchmark.main, [["out"], ["out", "--collect"], []],
                  ["--settings", "state-real", "--arms", "both", "--seeds", "--steps", "--jobs", "--demos",
                   "--report"]),
    "plot": (plot.main, [["nowhere"], ["run"], []], ["--out", "--force", "run.yaml", "curves.png"]),
}  # fmt: skip
NUMBERS = ["0", "1", "-1", "3.5", "nan", "inf", "1e9", "0-3", "3-0", "1,2", "x.mp4", "nowhere/x.mp4",
           "scripted", "hil/PandaPickCube-v0", "hil/PandaPickCubeKeyboard-v0"]  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, offline, where no work can begin."""
    monkeypatch.chdir(tmp_path)
    for name in ("XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(gymnasium, "make", begin)
    monkeypatch.setattr(session, "claim_priority", lambda: None)
    monkeypatch.setattr(train, "check_ingredients", begin)
    monkeypatch.setattr(sweep, "check_ingredients", begin)
    monkeypatch.setattr(benchmark, "make_runs", begin)
    monkeypatch.setattr(teleop, "open_scene", begin)
    monkeypatch.setattr(teleop, "calibrate", begin)
    monkeypatch.setattr(pretrain, "draw", begin)
    (tmp_path / "run.yaml").write_text("")
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_any_arguments_work_or_are_a_clear_error(name: str, desk: Path) -> None:
    main, starts, own = COMMANDS[name]
    word = st.sampled_from(NUMBERS) | words.filter(str.isprintable)  # argparse repeats what it does not know

    @settings(RANDOM, max_examples=60)
    @given(start=st.sampled_from(starts), rest=st.lists(st.sampled_from(own) | word, max_size=5))
    def check(start: list[str], rest: list[str]) -> None:
        before = {path for path in desk.rglob("*") if "cache" not in path.parts}
        said, written = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(written):
            try:
                status = main([*start, *rest])
            except Began:
                status = None
            except SystemExit as stop:  # argparse: 2, or 0 after --help
                status = stop.code
        if status not in (None, 0):
            assert status == 2, (status, said.getvalue())
            last = said.getvalue().splitlines()[-1]
            assert "error: " in last, said.getvalue()
            assert len(last) > 20
        assert "Traceback" not in said.getvalue()
        assert {path for path in desk.rglob("*") if "cache" not in path.parts} == before

    check()
