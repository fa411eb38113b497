"""The card beside a weight file: how it was made, on what, and how well it sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from hil_rllib.models.weights import BUNDLED
from hil_rllib.pretraining.probe import NEAR, Errors
from hil_rllib.pretraining.scenes import CUBE_AREA, TCP_AREA, Scenes
from hil_rllib.pretraining.trunk import TrunkConfig

TEMPLATE = """\
# ResNet10, trained in the Panda pick-cube scene

`resnet10.safetensors`: the 36 tensors of `lerobot/resnet10` in half precision, {parameters:,} parameters.
It is what `encoder.weights: {name}` loads. No image and no weight from elsewhere went into it.

## How it was made
```
{command}
```
- **Scenes**: {train} of both cameras at 128 × 128, {full:.0%} drawn at `full`, the rest at `fast`. The cube
  lies or is held anywhere in x {cube_x}, y {cube_y}; the TCP moves in x {tcp_x}, y {tcp_y}, z {tcp_z} [m].
  In half of the motions a noisy expert picks the cube up and carries it about, in half a hand wanders while
  the cube is put somewhere new.
- **Task**: tell cube, TCP and cube − TCP [m] from each camera alone and from both, through heads like the
  policy's (8 spatial learned embeddings a channel, Linear 64, LayerNorm, tanh). Only the trunk is kept.
- **Training**: {steps:,} steps of {batch} scenes (AdamW, peak learning rate {rate:g}, moving average of the
  weights), frames lightly jittered in brightness, colour, noise and position; seed {seed}.
  {minutes:.0f} minutes on {device} ({threads} threads, PyTorch {torch}); {total:.0f} in all.

## How well it sees
Fresh heads, trained for {probe_steps:,} steps on the frozen features of the training scenes, tested on
{held_out} held-out scenes (seeds of their own, both render qualities). Distances in mm, median and mean;
axes: median of the absolute error. "Near": the TCP within {near:g} m of the cube.

{trained}

The same heads on a random trunk (`encoder.weights: random`):

{random}
"""


@dataclass(frozen=True)
class Facts:
    """What a card says of a run beside its errors."""

    command: str
    config: TrunkConfig
    steps: int
    training_minutes: float
    total_minutes: float
    train: Scenes
    held_out: Scenes
    probe_steps: int


def write_card(path: Path, facts: Facts, trained: Errors, random: Errors) -> None:
    """Write the card as Markdown, beside the weights."""
    bundled = path.parent.resolve() == BUNDLED.parent
    (cube_x, cube_y), (tcp_x, tcp_y, tcp_z) = CUBE_AREA.T, TCP_AREA.T
    path.write_text(
        TEMPLATE.format(
            parameters=4_905_792,
            name="bundled" if bundled else path.parent,
            command=facts.command.strip(),
            train=f"{len(facts.train):,}",
            full=facts.train.full.mean(),
            cube_x=_interval(cube_x),
            cube_y=_interval(cube_y),
            tcp_x=_interval(tcp_x),
            tcp_y=_interval(tcp_y),
            tcp_z=_interval(tcp_z),
            steps=facts.steps,
            batch=facts.config.batch,
            rate=facts.config.learning_rate,
            seed=facts.config.seed,
            minutes=facts.training_minutes,
            total=facts.total_minutes,
            device="a GPU" if facts.config.device == "cuda" else "a CPU",
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            probe_steps=facts.probe_steps,
            held_out=f"{len(facts.held_out):,}",
            near=NEAR,
            trained=trained.table(),
            random=random.table(),
        )
    )


def _interval(limits: tuple[float, float]) -> str:
    return f"[{limits[0]:g}, {limits[1]:g}]"
