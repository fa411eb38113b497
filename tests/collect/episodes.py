"""Episodes as RLlib's runner hands them over, made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from hil_rllib.contract import ACTION_DIM, IS_INTERVENTION


def fragment(
    episode: str,
    first: int,
    length: int,
    *,
    flags: list[float] | None = None,
    end: dict[str, Any] | None = None,
    terminated: bool = True,
    weights: int = 0,
    info: dict[str, Any] | None = None,
) -> SingleAgentEpisode:
    """Steps `first` … of an episode; observation t is t. end: the last step's info, which makes it the last.

    flags: per step, 1.0 where a person acted. info: of every other step. weights: sequence number acted with.
    """
    infos: list[dict[str, Any]] = [info or {} for _ in range(length + 1)]
    if end is not None:
        infos[-1] = {**infos[-1], **end}
    return SingleAgentEpisode(
        id_=episode,
        observations=[{"x": np.full(1, first + t, np.float32)} for t in range(length + 1)],
        actions=[np.zeros(ACTION_DIM, np.float32)] * length,
        rewards=[0.0] * length,
        infos=infos,
        terminated=end is not None and terminated,
        truncated=end is not None and not terminated,
        extra_model_outputs={
            IS_INTERVENTION: [np.float32(f) for f in (flags or [0.0] * length)],
            WEIGHTS_SEQ_NO: [weights] * length,
        },
        t_started=first,
        len_lookback_buffer=0,
    ).to_numpy()
