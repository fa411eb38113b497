"""Where a dataset lies: a local folder, or a repository on the Hugging Face hub with its local cache."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.deadline import within

logger = logging.getLogger(__name__)

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
DEFAULT_TIMEOUT_S = 15.0
PROBE_SHARE = 0.8  # of the time-out; the rest is for imports and the look into the cache


class HubUnreachable(ConnectionError):  # noqa: N818  # the name is part of the interface: it reads as a state
    """The hub gave no answer and its cache holds no copy of the dataset."""


def locate(
    source: str,
    cache_dir: Path | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    revision: str | None = None,
) -> Path:
    """The folder of `source`: itself if it exists, else a snapshot of the hub dataset of that name.

    revision: branch, tag or commit; None: the default branch. The token is that of `hf auth login`, if any.

    timeout_s bounds the wait for the hub's first answer; a download that has begun may take longer.
    Without an answer the newest complete copy in the cache is used.

    Raises:
        HubUnreachable: no answer within timeout_s and nothing in the cache.
        DatasetError: neither a folder nor the name of a dataset on the hub, or a revision of a folder.
    """
    folder = Path(source).expanduser()
    if folder.exists():
        if revision is not None:
            problem = f"is a folder on this machine: it has no revision {revision!r}."
            raise DatasetError(
                folder, problem, "Leave it out (demos.revision=null), or name a dataset on the hub."
            )
        return folder
    if not HUB_ID.fullmatch(source):
        raise DatasetError(
            folder, "no such folder.", "Check the path, or name a dataset on the hub as owner/name."
        )
    return _snapshot(source, cache_dir, timeout_s, revision)


def _snapshot(repo_id: str, cache_dir: Path | None, timeout_s: float, revision: str | None) -> Path:
    import huggingface_hub as hub
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # huggingface_hub reads HF_ENDPOINT only when it is imported.
    endpoint = os.environ.get("HF_ENDPOINT") or None

    def probe() -> None:
        hub.HfApi(endpoint=endpoint).dataset_info(repo_id, revision=revision, timeout=timeout_s)

    try:
        within(PROBE_SHARE * timeout_s, probe)
    except RevisionNotFoundError as error:
        raise DatasetError(
            repo_id, f"has no revision {revision!r}.", "Name a branch, tag or commit that its page lists."
        ) from error
    except RepositoryNotFoundError as error:
        raise DatasetError(
            repo_id,
            "is neither a local folder nor a dataset you can read on the hub.",
            "Check the spelling; for a private one log in with `hf auth login`.",
        ) from error
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code < 500:
            raise DatasetError(
                repo_id, f"the hub refused it ({error}).", "Check your access to it."
            ) from error
        return _cached_or_unreachable(repo_id, cache_dir, revision, error)
    except (OSError, TimeoutError, RuntimeError, http_error()) as error:
        return _cached_or_unreachable(repo_id, cache_dir, revision, error)
    try:
        path = hub.snapshot_download(
            repo_id,
            repo_type="dataset",
            revision=revision,  # by its name: the cache then knows which commit that is, for want of the hub
            cache_dir=cache_dir,
            endpoint=endpoint,
            etag_timeout=timeout_s,
        )
    except (OSError, EntryNotFoundError, http_error()) as error:
        return _cached_or_unreachable(repo_id, cache_dir, revision, error)
    return Path(path)


def _cached_or_unreachable(
    repo_id: str, cache_dir: Path | None, revision: str | None, error: BaseException
) -> Path:
    import huggingface_hub as hub

    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    try:
        path = hub.snapshot_download(
            repo_id, repo_type="dataset", revision=revision, cache_dir=cache_dir, local_files_only=True
        )
    except (OSError, ValueError):
        raise HubUnreachable(
            f"The hub gave no usable answer for dataset {repo_id!r} ({reason}), and the cache has no copy. "
            "Check the network (HF_ENDPOINT, HF_HUB_OFFLINE), or give a local folder instead."
        ) from error
    logger.warning("Hub not reachable (%s): using the cached copy of %s in %s.", reason, repo_id, path)
    return Path(path)


def http_error() -> type[Exception]:
    """The base error of the HTTP client that huggingface_hub uses; which one changes with its version."""
    from huggingface_hub import errors

    return errors.HfHubHTTPError.__mro__[1]
