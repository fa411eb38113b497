"""What a person sees of a run, and what ends it."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from ray import tune

from hil_rllib.config import Config, StopSection

PLAIN_EVERY_S = 10.0  # [s] between lines where the output is no terminal


class RunStopper(tune.Stopper):
    """Ends the trial by `stop`'s rules or once `interrupted` is set; Tune then writes the last checkpoint."""

    def __init__(self, stop: StopSection) -> None:
        self._stop = stop
        self.interrupted = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        passed = result.get("evaluation", {}).get("passed_in_row", 0)
        solved = self._stop.success is not None and passed >= self._stop.evaluations_in_row
        return self.interrupted or solved or result["hil"]["env_steps"] >= self._stop.env_steps

    def stop_all(self) -> bool:
        return False


class ProgressLine(tune.Callback):
    """One live line on a terminal, a plain line every ten seconds otherwise, one line per evaluation."""

    def __init__(self, config: Config, stream: TextIO | None = None) -> None:
        self._stop_at = config.stop.env_steps
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._started = self._printed_at = time.monotonic()
        self._evaluated_at: float | None = None

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        evaluation = result.get("evaluation", {})
        if evaluation.get("at_env_steps") not in (None, self._evaluated_at):
            self._evaluated_at = evaluation["at_env_steps"]
            self._write(
                f"evaluation at step {int(evaluation['at_env_steps'])}: greedy success "
                f"{evaluation['success'] * evaluation['episodes']:.0f}/{int(evaluation['episodes'])}, "
                f"{evaluation['episode_steps']:.0f} steps an episode",
                keep=True,
            )
        if self._live or time.monotonic() - self._printed_at >= PLAIN_EVERY_S:
            self._printed_at = time.monotonic()
            self._write(self._line(result["hil"]), keep=not self._live)

    def close(self) -> None:
        if self._live:
            self._stream.write("\n")

    def _line(self, hil: dict[str, Any]) -> str:
        elapsed = int(time.monotonic() - self._started)
        parts = [
            f"{elapsed // 60}:{elapsed % 60:02d}",
            f"step {int(hil['env_steps'])}/{self._stop_at}",
            f"{hil['env_steps_per_s']:.1f} steps/s",
            f"{hil['updates_per_s']:.1f} updates/s",
        ]
        if "success_rate" in hil:
            parts += [f"success {hil['success_rate']:.0%}", f"human {hil['intervention_rate']:.0%}"]
        parts.append(f"human time {hil['human_seconds']:.0f} s")
        return " · ".join(parts)

    def _write(self, text: str, keep: bool) -> None:
        start = "\r\x1b[K" if self._live else ""
        self._stream.write(f"{start}{text}" + ("\n" if keep else ""))
        self._stream.flush()
