"""What the progress line tells of runners."""

from __future__ import annotations

import io

import pytest

from hil_rllib.config import Config, OperatorSection, RunnersSection
from hil_rllib.progress import ProgressLine

HIL = {"env_steps": 10, "env_steps_per_s": 5.0, "updates_per_s": 9.0, "human_seconds": 0.0}


@pytest.mark.parametrize(
    ("autonomous", "alive", "told"),
    [(0, 1, None), (0, 0, "runners 0/1"), (2, 2, "runners 2/3"), (2, 3, "runners 3/3")],
)
def test_the_line_counts_runners_where_there_are_several_or_one_is_missing(
    autonomous: int, alive: int, told: str | None
) -> None:
    config = Config(operator=OperatorSection(count=1), runners=RunnersSection(autonomous=autonomous))
    line = ProgressLine(config, io.StringIO())._line(HIL | {"runners_alive": alive})
    assert (told in line) if told else ("runners" not in line)
