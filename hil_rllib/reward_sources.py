"""The labelled datasets of a reward run as folders here; a synthetic human's are recorded if need be."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from envs.scene import cache_dir
from hil_rllib import record
from hil_rllib.config import Config, ConfigError
from hil_rllib.data.demos import SCRIPTED, load_demos
from hil_rllib.data.lerobot_reader import open_dataset
from hil_rllib.reward.frames import has_labels
from hil_rllib.sac.config import demo_options

logger = logging.getLogger(__name__)

RECIPE = 2  # raise when the synthetic presenter would show something else


def local_sources(config: Config) -> Config:
    """The config with folders in place of names. Raises DatasetError, ConfigError, `hub.HubUnreachable`."""
    source, options = config.demos.source, demo_options(config)
    if source != "none" and not has_labels(source, options["features"]):
        source = str(load_demos(source, **options).source)
    folders = tuple(_folder(name, config) for name in config.reward.sources)
    named = [str(Path(source).resolve()), *folders]
    if twice := [folder for folder in folders if named.count(folder) > 1]:
        raise ConfigError(
            f"reward.sources: {twice[0]} is named twice, demos.source included: what is learned from would "
            "be tested on. Name it once; demos.source=none leaves that one out."
        )
    return replace(
        config,
        demos=replace(config.demos, source=source),
        reward=replace(config.reward, sources=folders),
    )


def _folder(name: str, config: Config) -> str:
    if name == SCRIPTED:
        return str(presented(config))
    return str(open_dataset(name).root.resolve())


def presented(config: Config) -> Path:
    """The folder of the synthetic presenter's episodes in the run's environment, recorded now or found."""
    env, count = config.env, config.reward.scripted_episodes
    arguments = [
        *("--label", "--device", "scripted", "--headless", "--env", env.id),
        *("--quality", env.render_quality, "--episodes", str(count), "--seed", str(config.run.seed)),
        *(["--random"] if env.random_block_position else []),
    ]
    key = hashlib.sha256(json.dumps([RECIPE, arguments]).encode()).hexdigest()[:16]
    folder = cache_dir() / "presented" / key
    if folder.exists():
        return folder
    logger.info("Recording labelled episodes of a synthetic human: record %s", " ".join(arguments))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{key}.", dir=folder.parent, ignore_cleanup_errors=True
    ) as scratch:
        unfinished = Path(scratch) / key
        with contextlib.redirect_stdout(sys.stderr):
            status = record.main([str(unfinished), *arguments])
        if status != 0:
            raise ConfigError("reward.sources: the synthetic human's episodes were not recorded, see above.")
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.exists():  # another run was quicker, with the same episodes
                raise
    return folder
