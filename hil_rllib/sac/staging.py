"""A person's episode reaches the replay when it is over and was not thrown away."""

from __future__ import annotations

from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from hil_rllib.contract import RERECORD
from hil_rllib.data.replay import Fragment


class Staging:
    """Holds back the fragments of unfinished episodes."""

    def __init__(self) -> None:
        self._open: dict[str, list[Fragment]] = {}

    def drop(self, episode_id: str) -> None:
        """Forget an episode that was cut off: its end, and whether it was to be thrown away, is not known."""
        self._open.pop(episode_id, None)

    def admit(self, episode: SingleAgentEpisode) -> list[Fragment]:
        """The fragments to store now: none, or the whole episode at its end unless it is to be rerecorded."""
        fragments = self._open.setdefault(str(episode.id_), [])
        fragments.append(Fragment.from_episode(episode))
        if not episode.is_done:
            return []
        del self._open[str(episode.id_)]
        return [] if episode.get_infos(-1).get(RERECORD) else fragments
