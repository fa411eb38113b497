"""A dataset's rows in this project's terms: what `convert --repair` writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hil_rllib import contract
from hil_rllib.data import lerobot_format as fmt
from hil_rllib.data import lerobot_schema as schema
from hil_rllib.data.lerobot_episodes import Dropped
from hil_rllib.data.lerobot_reader import Episode
from hil_rllib.data.repair import Reading, to_recording

# Columns that our recordings have and older ones lack.
_ADDED: dict[str, dict[str, Any]] = {
    fmt.DONE: {"dtype": "bool", "shape": [1], "names": None},
    fmt.TRUNCATED: {"dtype": "bool", "shape": [1], "names": None},
    fmt.SUCCESS: {"dtype": "bool", "shape": [1], "names": None},
    fmt.PENALTY: {"dtype": "float32", "shape": [1], "names": None},
    fmt.INTERVENTION: {"dtype": "float32", "shape": [1], "names": None},
}


@dataclass(frozen=True)
class Repair:
    """reading: what `alignment.decide` found. note: takes sentences on what was done.

    Shifted rows (o_{t+1}, a_t) become (o_t, a_t): observations move down by one, and the first action, whose
    observation no file holds, goes to the table of episodes, for replays. The last observation is left out.
    Every other column belongs to its action.
    """

    reading: Reading
    note: Callable[[str], None]
    step_size: float = contract.EE_STEP_SIZE  # [m] at motion 1

    def features(self, own: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Those of the repaired dataset: the own ones, and what older recorders left out."""
        action = {fmt.ACTION: {**own[fmt.ACTION], "dtype": "float32", "names": list(schema.ACTION_NAMES)}}
        return {**_ADDED, **own, **action}

    def table(
        self, table: pa.Table, episode: Episode
    ) -> tuple[pa.Table, NDArray[np.int64], Dropped | None] | None:
        """The repaired rows, which old rows their observations come from, and the action before the first.

        None: nothing is left.
        """
        recording = to_recording(episode, self.reading, self.step_size, self.note)
        n = len(recording) - self.reading.shifted
        if n < 1:
            return None
        first = int(self.reading.shifted)
        ends = np.arange(n) == n - 1
        made: dict[str, NDArray[Any]] = {
            fmt.ACTION: recording.actions[first:],
            fmt.DONE: ends,
            fmt.TRUNCATED: ends & (not recording.terminated),
            fmt.SUCCESS: ends & bool(recording.success),
            fmt.PENALTY: recording.penalties[first:],
            fmt.INTERVENTION: recording.interventions[first:],
        }
        columns: dict[str, Any] = {}
        for key in table.column_names:
            columns[key] = table[key].slice(0 if key.startswith("observation.") else first, n)
        for key, rows in made.items():
            if key == fmt.ACTION or key not in columns:
                feature = {"dtype": str(rows.dtype), "shape": list(rows.shape[1:]) or [1]}
                columns[key] = schema.to_table({key: rows}, {key: feature})[key]
        dropped = episode.meta.dropped
        if self.reading.shifted:
            dropped = Dropped(tuple(recording.actions[0].tolist()), recording.start_gripper)
        return pa.table(columns), np.arange(n), dropped
