"""The user's command when something goes wrong in the middle: it ends cleanly, says why, keeps all."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hil_rllib import train
from hil_rllib.sac.checkpoint import newest_checkpoint

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ROOT / "tuned_configs" / "panda_sac_smoke.yaml"

# Trains by the command's own main, with an algorithm whose rewards turn into NaN on the way.
POISONED = """
import sys
import numpy as np
from hil_rllib import train
from hil_rllib.sac.algorithm import HILSAC
from hil_rllib.sac.config import HILSACConfig

class Poisoned(HILSAC):
    def training_step(self):
        if self.updates > 40:
            self.online.steps["rewards"][:] = np.nan
        super().training_step()

class PoisonedConfig(HILSACConfig):
    def __init__(self):
        super().__init__(algo_class=Poisoned)

train.ALGORITHMS["sac"] = PoisonedConfig
sys.exit(train.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory) -> dict[str, str]:
    """An environment whose caches are not the user's."""
    return os.environ | {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "PYTHONPATH": str(ROOT)}


@pytest.fixture
def start(surroundings):
    """`start([program, …], run_dir, "key=value")`: a training under way; killed at the end if need be."""
    started = []

    def start(program: list[str], run_dir: Path, *overrides: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *program, str(SMOKE), f"run.dir={run_dir}", *overrides],
            env=surroundings, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for_steps(run_dir: Path, process: subprocess.Popen[str], seconds: float = 240) -> None:
    """Until a result counts environment steps: results come from the start, runners a while later."""
    deadline = time.monotonic() + seconds
    results = run_dir / "trial" / "result.json"
    while not (results.exists() and any(steps > 0 for steps in counted_steps(results))):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def counted_steps(results: Path) -> list[float]:
    complete = [line for line in results.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line)["hil"]["env_steps"] for line in complete]


@pytest.mark.timeout(500)
def test_losses_that_stay_nan_end_the_run_with_the_batch_and_a_good_checkpoint(start, tmp_path):
    run_dir = tmp_path / "run"
    process = start(["-c", POISONED], run_dir, "sac.skip_limit=7", "stop.env_steps=100000")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == train.DIVERGED, output
    assert "Traceback" not in output
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "the last 7 updates were skipped" in error
    assert str(run_dir / "skipped_batch.npz") in error
    assert "Not finite in the batch: rewards in" in output
    with np.load(run_dir / "skipped_batch.npz") as batch:
        assert np.isnan(batch["rewards"]).any()
        assert np.isfinite(batch["obs/agent_pos"]).all()
    last = json.loads((run_dir / "trial" / "result.json").read_text().splitlines()[-1])
    assert last["hil"]["skipped_updates"] in (7, 8)  # a block is two updates
    checkpoint = newest_checkpoint(run_dir)
    assert checkpoint is not None
    weights = pickle.loads(next(checkpoint.rglob("default_policy/module_state.pkl")).read_bytes())
    assert weights
    assert all(np.isfinite(value).all() for value in weights.values())


@pytest.mark.timeout(500)
def test_sigterm_amid_a_persons_episode_leaves_a_checkpoint_and_nobody_else_gets_in_meanwhile(
    start, surroundings, tmp_path
):
    run_dir = tmp_path / "run"
    person = ["run.mode=async", "operator.device=scripted", "operator.realtime=true", "operator.hz=20"]
    process = start(["-m", "hil_rllib.train"], run_dir, *person, "stop.env_steps=100000")
    wait_for_steps(run_dir, process)

    for arguments in ([], ["--resume"]):
        second = subprocess.run(
            [sys.executable, "-m", "hil_rllib.train", str(SMOKE), f"run.dir={run_dir}", *arguments],
            env=surroundings, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert second.returncode == 2
        assert f"process {process.pid} on " in second.stderr, second.stderr

    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 143, output
    assert "Traceback" not in output
    summary = json.loads((run_dir / "summary.json").read_text())
    checkpoint = newest_checkpoint(run_dir)
    assert checkpoint is not None
    assert json.loads((checkpoint / "hil_state.json").read_text())["env_steps"] == summary["env_steps"] > 0
    assert not (run_dir / "run.lock").exists()
