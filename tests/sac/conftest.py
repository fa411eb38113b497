"""One Ray for these tests, with an operator's seat; algorithms and configs made small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from hil_rllib.config import Config, load_config
from hil_rllib.logs import quiet
from hil_rllib.processes import HOOK
from hil_rllib.sac.algorithm import HILSAC
from hil_rllib.sac.config import OPERATOR_RESOURCE, HILSACConfig

# State observations, two scripted demonstrations, small networks, nothing on a schedule.
SMALL = """
run: {mode: lockstep}
env: {image_obs: false, random_block_position: true}
encoder: {weights: random, latent_dim: 16, embeddings_per_channel: 2}
demos: {source: scripted, scripted_episodes: 2}
operator: {device: none}
runners: {autonomous: 0, fragment: 5}
sac: {batch_size: 32, hidden: [32, 32], learning_starts: 20, utd_ratio: 2, bc_start_updates: 0}
evaluation: {every_steps: 1000000, episodes: 2}
checkpoint: {every_steps: 1000000}
"""


@pytest.fixture(scope="package")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of our own, for this process and Ray's: compiled scenes and recorded demonstrations."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="package")
def cluster(cache: Path) -> Iterator[None]:
    """Ray with processors to spare, so that every runner finds its place."""
    ray.init(
        num_cpus=8,
        resources={OPERATOR_RESOURCE: 8, "operator_1": 1, "operator_2": 1},
        include_dashboard=False,
        logging_level="ERROR",
        runtime_env=HOOK,
    )
    quiet()
    yield
    ray.shutdown()


@pytest.fixture(scope="package")
def configure(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Config]:
    """`configure("sac.utd_ratio=1")`: the small config with overrides, its run in a folder of its own."""

    def configure(*overrides: str) -> Config:
        folder = tmp_path_factory.mktemp("run")
        file = folder / "small.yaml"
        file.write_text(SMALL)
        return load_config(file, [f"run.dir={folder / 'run'}", *overrides])

    return configure


@pytest.fixture(scope="module")
def build(cluster: None) -> Iterator[Callable[..., HILSAC]]:
    """`build(config, restore_from=None)`: a running algorithm, stopped when the module is through."""
    running = []

    def build(config: Config, restore_from: Path | None = None) -> HILSAC:
        rllib = HILSACConfig.from_config(config)
        rllib.restore_from = str(restore_from) if restore_from else None
        running.append(rllib.build_algo())
        return running[-1]

    yield build
    for algorithm in running:
        algorithm.stop()
