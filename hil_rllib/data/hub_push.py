"""Uploads a dataset to the Hugging Face hub, so that LeRobot finds it there."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from hil_rllib.data.dataset_lock import LOCK_FILE
from hil_rllib.data.hub import HUB_ID, http_error
from hil_rllib.data.lerobot_format import DatasetError, DatasetInfo
from hil_rllib.data.lerobot_reader import LeRobotDataset

CARD = """---
task_categories: [robotics]
tags: [LeRobot]
configs:
- config_name: default
  data_files: data/*/*.parquet
---

{episodes} episodes, {frames} frames at {fps:g} a second, in LeRobot's format {version}: {tasks}.

`meta/info.json`:

```json
{info}
```
"""


def push(folder: Path, repo_id: str, *, private: bool = False) -> str:
    """Uploads the dataset in `folder` and returns its address. Creates the repository if needed.

    What an earlier upload left there of data, meta and videos is replaced. The token is that of
    `hf auth login` or of HF_TOKEN. The format's version becomes a tag, which LeRobot looks for. A card is
    added where neither the folder nor the hub has a README.md; it names no licence, which is the owner's to
    choose.

    Raises:
        DatasetError: the folder holds no sound dataset, `repo_id` is no name, or the hub refuses.
        ConnectionError: the hub cannot be reached.
    """
    check_name(repo_id)
    import huggingface_hub as hub
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RevisionNotFoundError

    dataset = LeRobotDataset(folder)  # a damaged one is not passed on
    again = f"python -m hil_rllib.dataset push {folder} {repo_id}{' --private' if private else ''}"
    api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    version = dataset.info.version
    try:
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        on_hub = api.file_exists(repo_id, "README.md", repo_type="dataset")
        if not on_hub and not (folder / "README.md").exists():
            api.upload_file(
                path_or_fileobj=card(dataset).encode(),
                path_in_repo="README.md",
                repo_id=repo_id,
                repo_type="dataset",
            )
        commit = api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=folder,
            commit_message=f"{len(dataset)} episodes, LeRobot {version}",
            delete_patterns=["data/*", "meta/*", "videos/*"],  # all below; but for what is uploaded
            # of a recording that still runs, or was killed
            ignore_patterns=["**/.*.tmp", ".*.tmp", LOCK_FILE],
        )
        with suppress(RevisionNotFoundError):
            api.delete_tag(repo_id, tag=version, repo_type="dataset")
        api.create_tag(repo_id, tag=version, repo_type="dataset", exist_ok=True)
    except (HfHubHTTPError, LocalTokenNotFoundError) as error:
        raise DatasetError(
            repo_id,
            f"the hub does not take it ({str(error).splitlines()[0]}).",
            f"Log in with `hf auth login`, as someone who may write there, and try again: {again}",
        ) from error
    except (OSError, http_error()) as error:
        raise ConnectionError(
            f"The hub cannot be reached for {repo_id!r} ({error}). {folder} is whole; try again: {again}"
        ) from error
    return str(commit.repo_url if hasattr(commit, "repo_url") else commit)


def check_name(repo_id: str) -> None:
    """Raises DatasetError where no dataset on the hub can have this name."""
    if not HUB_ID.fullmatch(repo_id):
        raise DatasetError(repo_id, "is no name on the hub.", "Write owner/name.")


def card(dataset: LeRobotDataset) -> str:
    """README.md of a dataset that has none."""
    info: DatasetInfo = dataset.info
    return CARD.format(
        episodes=len(dataset),
        frames=sum(meta.length for meta in dataset.episodes),
        fps=info.fps,
        version=info.version,
        tasks="; ".join(dataset.tasks.values()),
        info=json.dumps(info.raw, indent=2),
    )
