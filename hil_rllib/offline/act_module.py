"""ACT as an RLModule: trained on chunks, acting by temporal ensembling."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from torch import Tensor

from hil_rllib.contract import ACTION_DIM, AGENT_POS, GRIPPER_CLOSED, MOTION_DIM
from hil_rllib.models.act import ACT, ACTSizes
from hil_rllib.models.encoder import load_encoder
from hil_rllib.models.ensemble import empty_memory, ensemble
from hil_rllib.sac.module import AveragedModule

PADDED = "padded"  # column: (B, K), true past the end of the demonstration
PLAN, STYLE_MEAN, STYLE_LOG_VAR = "plan", "style_mean", "style_log_var"  # of what `forward_train` returns


class ACTModule(AveragedModule, InferenceOnlyAPI):
    """Motion as the environment takes it; the gripper as what the hand is to be, 1 closed and -1 open.

    So it is in ACT, whose actions are the positions that joints and gripper are to take, and for the same
    reason: commands to close are single steps which an average over chunks would drown, while where the hand
    is to be from then on is a step function, whose average crosses zero at the median of the foreseen times.
    What is executed is the command that takes the hand there, none if it is there already.

    A runner's module is stateful: its state is the episode's `ensemble.Memory`. The learner's, which sees
    single steps of demonstrations, is not.

    model_config keys: those of `ACTSizes`, `ensemble_decay`, and for a trainable encoder `weights`, `seed`.
    """

    acting: ClassVar[tuple[str, ...]] = ("network",)
    averaged: ClassVar[tuple[str, ...]] = ("network",)

    def setup(self) -> None:
        cfg = self.model_config
        spaces = self.observation_space.spaces
        self.network = ACT(
            ACTSizes(**{name: cfg[name] for name in ACTSizes.__dataclass_fields__}),
            cameras="features" in spaces or "pixels" in spaces,
            world="environment_state" in spaces,
            trunk=load_encoder(cfg["weights"], seed=cfg["seed"]) if "pixels" in spaces else None,
        )

    def get_initial_state(self) -> dict[str, Tensor]:
        return empty_memory(self.model_config["chunk"], ACTION_DIM) if self.inference_only else {}

    @torch.no_grad()
    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """One step of B episodes. Observations and actions have a rank of time, (B, 1, …), states none."""
        self.eval()
        obs = _without_time(batch[Columns.OBS])
        plan = self.network.plan(obs)
        action, memory = ensemble(batch[Columns.STATE_IN], plan, self.model_config["ensemble_decay"])
        hand = gripper_command(action[:, MOTION_DIM:], obs["agent_pos"])
        motion = action[:, :MOTION_DIM].clamp(-1, 1)
        return {Columns.ACTIONS: torch.cat([motion, hand], -1)[:, None], Columns.STATE_OUT: memory}

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        self.train()
        plan, mean, log_var = self.network(batch[Columns.OBS], batch[Columns.ACTIONS], batch[PADDED])
        return {PLAN: plan, STYLE_MEAN: mean, STYLE_LOG_VAR: log_var}


def gripper_command(wanted: Tensor, agent_pos: Tensor) -> Tensor:
    """Module-space command (B, 1) that takes the hand where it is wanted: closed (> 0) or open; 0 holds."""
    closed = agent_pos[:, AGENT_POS["gripper"]] > GRIPPER_CLOSED / 2
    wanted = wanted > 0
    return wanted.float() - closed.float()


def _without_time(obs: dict[str, Any]) -> dict[str, Any]:
    return {name: _without_time(part) if isinstance(part, dict) else part[:, 0] for name, part in obs.items()}
