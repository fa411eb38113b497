"""What the learner tells runners beside weights: metrics for an operator's page, and that the run is over.

Neither the learner nor a runner waits for any of it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.env_runner_state_server import EnvRunnerStateServer

from hil_rllib.collect.intervention import InterventionConnector

POST_EVERY_S = 1.0  # [s] between news of the learner


class NewsServer(EnvRunnerStateServer):
    """RLlib's server of weights, with the run's newest metrics beside them."""

    def __init__(self) -> None:
        super().__init__()
        self._metrics: dict[str, float] = {}
        self._robots: list[dict[str, Any]] = []
        self._urls: dict[str, str] = {}  # of the robots' pages
        self._over = False

    def end(self) -> None:
        """The learner's: the run is over."""
        self._over = True

    def ask(self, seq_no: int) -> tuple[Any, bool]:
        """A runner's: the state if it is newer than `seq_no`, and whether the run is over."""
        return self.pull_if_newer(seq_no), self._over

    def post(self, metrics: dict[str, float], robots: list[dict[str, Any]]) -> None:
        """The learner's: replace the metrics. robots: rows of `sac.attention`, if somebody minds several."""
        self._metrics, self._robots = metrics, robots

    def news(self, robot: str | None, url: str | None) -> dict[str, Any]:
        """A runner's: the newest metrics, empty before there are any, and `robots` with their pages' `url`.

        robot, url: the runner's own, where one person minds several.
        """
        if robot and url:
            self._urls[robot] = url
        robots = [{**row, "url": self._urls.get(row["robot"])} for row in self._robots]
        return {**self._metrics, **({"robots": robots} if robots else {})}


class NewsPoster:
    """The learner's end: hands the metrics over now and then."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._at = 0.0

    def __call__(self, metrics: dict[str, float], robots: list[dict[str, Any]]) -> None:
        if time.monotonic() - self._at >= POST_EVERY_S:
            self._at = time.monotonic()
            finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
            self._server.post.remote(finite, robots)


class NewsReader:
    """A runner's end: each call asks ahead and gives the answer to the question before, if it is here.

    piece: gets the news when they have changed, and says which robot its device drives from where.
    """

    def __init__(self, server: Any, piece: InterventionConnector) -> None:
        self._server, self._piece = server, piece
        self._asked: ray.ObjectRef | None = None
        self._newest: dict[str, Any] = {}

    def __call__(self) -> None:
        if self._asked is not None:
            if not ray.wait([self._asked], timeout=0)[0]:
                return
            with contextlib.suppress(RayError):  # the server is being restarted
                news = ray.get(self._asked)
                if news != self._newest:
                    self._newest = news
                    self._piece.share(news)
        self._asked = self._server.news.remote(*self._piece.presence)


def reader_for(runner: EnvRunner, server: Any) -> Callable[[], None]:
    """What this runner is to call now and then: it reads the news if its device shows them."""
    for piece in runner._module_to_env.connectors:
        if isinstance(piece, InterventionConnector) and piece.shows_news:
            return NewsReader(server, piece)
    return lambda: None
