"""The human demonstrations, replayed action by action."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pyarrow.parquet as pq

import envs  # noqa: F401  # registers the ids
from envs.wrappers import EE_STEP_SIZE


def test_every_demo_succeeds_at_exactly_its_recorded_last_frame(real_demos: Path) -> None:
    env = gymnasium.make("hil/PandaPickCube-v0")
    episodes = sorted(real_demos.glob("data/chunk-*/episode_*.parquet"))
    assert len(episodes) == 30
    for path in episodes:
        table = pq.read_table(path)
        states, actions = (np.array(table[key].to_pylist()) for key in ("observation.state", "action"))
        penalties = np.ravel(table["complementary_info.discrete_penalty"].to_pylist())
        actions[:, :3] /= EE_STEP_SIZE  # recorded in metres
        env.reset()
        errors, terminated = [], False
        for t, (action, state) in enumerate(zip(actions, states, strict=True)):
            assert not terminated, f"{path.stem} ended before its last frame, at {t}"
            _, _, terminated, _, info = env.step(action)
            errors.append(np.linalg.norm(env.unwrapped.tcp_pos - state[15:]))  # row t holds o_{t+1}
            np.testing.assert_allclose(
                info["discrete_penalty"], penalties[t], atol=1e-6, err_msg=f"{path.stem} {t}"
            )
        assert terminated, f"{path.stem} did not end with its last frame"
        assert info["succeed"], f"{path.stem} failed"
        assert np.median(errors) < 1e-4, f"{path.stem}: median TCP error {np.median(errors) * 1e3:.3f} mm"
