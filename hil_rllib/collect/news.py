"""The run's metrics on their way to an operator's page. Neither the learner nor a runner waits for them."""

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
        self._news: dict[str, float] = {}

    def post(self, news: dict[str, float]) -> None:
        """The learner's: replace the metrics."""
        self._news = news

    def news(self) -> dict[str, float]:
        """A runner's: the newest metrics, empty before there are any."""
        return self._news


class NewsPoster:
    """The learner's end: hands the metrics over now and then."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._at = 0.0

    def __call__(self, news: dict[str, float]) -> None:
        if time.monotonic() - self._at >= POST_EVERY_S:
            self._at = time.monotonic()
            self._server.post.remote({name: float(v) for name, v in news.items() if math.isfinite(v)})


class NewsReader:
    """A runner's end: each call asks ahead and gives the answer to the question before, if it is here.

    share: gets the metrics when they have changed.
    """

    def __init__(self, server: Any, share: Callable[[dict[str, float]], None]) -> None:
        self._server, self._share = server, share
        self._asked: ray.ObjectRef | None = None
        self._newest: dict[str, float] = {}

    def __call__(self) -> None:
        if self._asked is not None:
            if not ray.wait([self._asked], timeout=0)[0]:
                return
            with contextlib.suppress(RayError):  # the server is being restarted
                news = ray.get(self._asked)
                if news != self._newest:
                    self._newest = news
                    self._share(news)
        self._asked = self._server.news.remote()


def reader_for(runner: EnvRunner, server: Any) -> Callable[[], None]:
    """What this runner is to call now and then: it reads the news if its device shows them."""
    for piece in runner._module_to_env.connectors:
        if isinstance(piece, InterventionConnector) and piece.shows_news:
            return NewsReader(server, piece.share)
    return lambda: None
