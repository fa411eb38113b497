"""What operators take back: the end of an episode that a classifier called success."""

from __future__ import annotations

from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from hil_rllib.contract import APPEAL, CLASSIFIED, RERECORD, VERDICT


class Appeals:
    """The last episode of each operator, where the classifier's word alone ended it."""

    def __init__(self) -> None:
        self._claims: dict[str, SingleAgentEpisode] = {}

    def note(self, operator: str, fragment: SingleAgentEpisode) -> SingleAgentEpisode | None:
        """Look at an operator's next fragment; returns the last one of an episode that was no success, as it
        says."""
        appealed = any(APPEAL in info for info in fragment.get_infos()[1:])
        refuted = self._claims.pop(operator, None) if appealed else None
        if fragment.is_done:
            self._claims.pop(operator, None)
            last = fragment.get_infos(-1)
            if last.get(CLASSIFIED) and VERDICT not in last and not last.get(RERECORD):
                self._claims[operator] = fragment
        return refuted
