"""Demonstrations read once for many runs on one cluster."""

from __future__ import annotations

from typing import Any

import ray

from hil_rllib.data.demos import DemoSet, load_demos


class DemoLibrary:
    """A Ray actor that reads each set of demonstrations once and keeps it in Ray's shared memory."""

    def __init__(self) -> None:
        self._sets: dict[str, ray.ObjectRef] = {}
        self.read = 0  # sets that were read from disk

    def get(self, source: str, options: dict[str, Any]) -> list[ray.ObjectRef]:
        """[reference to the `DemoSet`]; a bare one would be copied. Raises what `load_demos` does."""
        key = repr((source, sorted(options.items(), key=lambda item: item[0])))
        if key not in self._sets:
            self._sets[key] = ray.put(load_demos(source, **options))
            self.read += 1
        return [self._sets[key]]

    def count(self) -> int:
        return self.read


def shared_demos(library: str, source: str, **options: Any) -> DemoSet:
    """The same as `load_demos`, from the library of this name; its arrays are read-only."""
    (reference,) = ray.get(ray.get_actor(library).get.remote(source, options))
    demos: DemoSet = ray.get(reference)
    return demos
