"""Who of those at the page has the controls: one at a time, the others watch. The caller has the clock."""

from __future__ import annotations

from dataclasses import dataclass

IDLE_S = 5.0  # [s] without touching a control after which whoever asks gets them
ASKING_S = 20.0  # [s] after which a question that got no answer is taken back


@dataclass
class Seat:
    """driver: has the controls; asker: wants them. Clients are told apart by number."""

    driver: int | None = None
    asker: int | None = None
    _active_at: float = float("-inf")
    _asked_at: float = float("-inf")

    def arrive(self, client: int, now: float) -> None:
        """A page was opened: the first one gets the controls."""
        if self.driver is None:
            self._seat(client, now)

    def leave(self, client: int, now: float) -> None:
        """A page was closed, or gives the controls back: whoever has asked gets them."""
        if self.asker == client:
            self.asker = None
        if self.driver == client:
            self.driver, waiting = None, self.asker
            if waiting is not None:
                self._seat(waiting, now)

    def ask(self, client: int, now: float) -> None:
        """Somebody wants the controls. The first to ask is the one the driver answers."""
        if self.driver is None:
            self._seat(client, now)
        elif client != self.driver and self.asker is None:
            self.asker, self._asked_at = client, now
            self.update(now)

    def answer(self, client: int, accept: bool, now: float) -> None:
        """The driver's answer; anyone else's is nothing."""
        if client == self.driver and self.asker is not None:
            if accept:
                self._seat(self.asker, now)
            self.asker = None

    def active(self, client: int, now: float) -> None:
        """The driver touches a control."""
        if client == self.driver:
            self._active_at = now

    def update(self, now: float) -> None:
        """Let time pass: an idle driver makes way, a question grows old."""
        if self.asker is None:
            return
        if now - self._active_at >= IDLE_S:
            self._seat(self.asker, now)
        elif now - self._asked_at >= ASKING_S:
            self.asker = None

    def _seat(self, client: int, now: float) -> None:
        self.driver, self._active_at = client, now
        if self.asker == client:
            self.asker = None
