"""Demonstrations read once for many runs on one cluster."""

from __future__ import annotations

from typing import Any

import ray

from hil_rllib.data.demos import DemoSet, load_demos

FOR_SCRIPTED = ("seed", "fallback", "fallback_episodes")  # options that a recorded set does not depend on


class DemoLibrary:
    """A Ray actor that reads each set of demonstrations once and keeps it in Ray's shared memory."""

    def __init__(self) -> None:
        self._sets: dict[str, ray.ObjectRef] = {}
        self.read = 0  # sets that were read from disk

    def get(self, source: str, options: dict[str, Any]) -> list[ray.ObjectRef]:
        """[reference to the `DemoSet`]; a bare one would be copied. Raises what `load_demos` does."""
        keys = [demos_key(source, options, scripted) for scripted in (False, True)]
        found = next((key for key in keys if key in self._sets), None)
        if found is None:
            demos = load_demos(source, **options)
            found = keys[demos.scripted]
            self._sets[found] = ray.put(demos)
            self.read += 1
        return [self._sets[found]]

    def count(self) -> int:
        return self.read


def demos_key(source: str, options: dict[str, Any], scripted: bool) -> str:
    """What a set depends on. scripted: whether it is recorded by a script, or was by a person."""
    ignored = () if scripted else FOR_SCRIPTED
    return repr((source, sorted((name, value) for name, value in options.items() if name not in ignored)))


def shared_demos(library: str, source: str, **options: Any) -> DemoSet:
    """The same as `load_demos`, from the library of this name; its arrays are read-only."""
    (reference,) = ray.get(ray.get_actor(library).get.remote(source, options))
    demos: DemoSet = ray.get(reference)
    return demos
