"""How the learner's process uses its machine: its cores, its memory, and that it stays there."""

from __future__ import annotations

import ctypes
import os

import ray
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.util.placement_group import NODE_ID_LABEL_KEY

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # [bytes] glibc takes no more; our tensors have 4 to 8 MiB
_KEPT = 512 * 2**20  # [bytes] kept at the end of the heap; an update uses about 150 MiB


def learner_threads() -> int:
    """Cores of this machine less one for the runner beside it.

    An operation ends when its last thread does: with every core in use an update waits for whichever thread
    shares its core with a runner. On two cores two threads took 110 ms beside a busy process, one 69 ms.
    """
    return max(1, len(os.sched_getaffinity(0)) - 1)


def keep_freed_memory() -> bool:
    """Have malloc keep what an update frees for the next one; False where it is not glibc's.

    Otherwise large tensors go back to the system, and each new one is paid for page by page: 5 to 15 ms of
    every update on two cameras.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, _KEPT))


def on_this_node(request: PlacementGroupFactory) -> PlacementGroupFactory:
    """The same resources for a Tune trial, but on the node of this process: where the run's folder is."""
    here = ray.get_runtime_context().get_node_id()
    selector = [{NODE_ID_LABEL_KEY: here}] * len(request.bundles)
    return PlacementGroupFactory(request.bundles, strategy=request.strategy, bundle_label_selector=selector)
