"""What a person sees of a run, and what ends it."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from ray import tune

from hil_rllib.config import Config
from hil_rllib.console import fitting

PLAIN_EVERY_S = 10.0  # [s] between lines where the output is no terminal


class RunStopper(tune.Stopper):
    """Ends the trial by `stop`'s rules, at the last step or update of the config, or once `interrupted` is
    set; Tune then writes the last checkpoint."""

    def __init__(self, config: Config) -> None:
        self._stop = config.stop
        self._clock, self._end = config.schedule
        self.interrupted = False
        self.diverged = False  # too many updates in a row could not be made

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        evaluation = result.get("evaluation", {})
        passed = evaluation.get("passed_in_row", 0) if evaluation.get("weights_of_now", 1) else 0
        solved = self._stop.success is not None and passed >= self._stop.evaluations_in_row
        self.diverged = bool(result["hil"].get("diverged"))
        return self.interrupted or self.diverged or solved or result["hil"][self._clock] >= self._end

    def interrupt(self) -> None:
        """End the trial with its next result."""
        self.interrupted = True

    def stop_all(self) -> bool:
        return False


class ProgressLine(tune.Callback):
    """One live line on a terminal, a plain line every ten seconds otherwise, one line per evaluation."""

    def __init__(self, config: Config, stream: TextIO | None = None) -> None:
        self._clock, self._stop_at = config.schedule
        self._unit = "step" if self._clock == "env_steps" else "update"
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._runners = config.operator.count + config.runners.autonomous
        self._started = self._printed_at = time.monotonic()
        self._evaluated_at: float | None = None
        # The folder where Tune writes them, before it copies them to the run's.
        self.curves: str | None = None

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        self.curves = trial.local_path
        evaluation = result.get("evaluation", {})
        if evaluation.get(f"at_{self._clock}") not in (None, self._evaluated_at):
            self._evaluated_at = evaluation[f"at_{self._clock}"]
            self._write(
                f"evaluation at {self._unit} {int(self._evaluated_at)}: greedy success "
                f"{evaluation['success'] * evaluation['episodes']:.0f}/{int(evaluation['episodes'])}, "
                f"{evaluation['episode_steps']:.0f} steps an episode",
                keep=True,
            )
        if self._live or time.monotonic() - self._printed_at >= PLAIN_EVERY_S:
            self._printed_at = time.monotonic()
            line = self._line(result["hil"])
            self._write(fitting(line, self._stream) if self._live else line, keep=not self._live)

    def close(self) -> None:
        if self._live:
            self._stream.write("\n")

    def _line(self, hil: dict[str, Any]) -> str:
        elapsed = int(time.monotonic() - self._started)
        parts = [
            f"{elapsed // 60}:{elapsed % 60:02d}",
            f"{self._unit} {int(hil[self._clock])}/{self._stop_at}",
            *([f"{hil['env_steps_per_s']:.1f} steps/s"] if "env_steps_per_s" in hil else []),
            f"{hil['updates_per_s']:.1f} updates/s",
        ]
        if "round" in hil:
            parts.insert(1, f"round {int(hil['round'])}")
        elif self._clock == "updates":  # nobody acts
            return " · ".join(parts)
        if self._runners > 1 or hil["runners_alive"] < self._runners:
            parts.append(f"runners {int(hil['runners_alive'])}/{self._runners}")
        if "success_rate" in hil:
            parts += [f"success {hil['success_rate']:.0%}", f"human {hil['intervention_rate']:.0%}"]
        parts.append(f"human time {hil['human_seconds']:.0f} s")
        return " · ".join(parts)

    def _write(self, text: str, keep: bool) -> None:
        start = "\r\x1b[K" if self._live else ""
        self._stream.write(f"{start}{text}" + ("\n" if keep else ""))
        self._stream.flush()
