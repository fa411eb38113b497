"""Train an encoder: draw scenes, train a trunk, measure it, write it with its card.

    python -m hil_rllib.pretrain  # encoder.weights: my_encoder
    python -m hil_rllib.pretrain --scenes 2000 --minutes 3 --out quick
    python -m hil_rllib.pretrain --out hil_rllib/models/bundled  # in place of the one that ships

Ctrl-C ends the training early and keeps the best trunk so far; --resume goes on from there.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import math
import os
import shlex
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads: threads that wait give way

import torch

from envs.scene import cache_dir
from hil_rllib.console import LiveLine
from hil_rllib.models.encoder import load_encoder
from hil_rllib.models.weights import BUNDLED
from hil_rllib.pretraining.card import Facts, write_card
from hil_rllib.pretraining.probe import probe
from hil_rllib.pretraining.scenes import Scenes, render_scenes
from hil_rllib.pretraining.trunk import TrunkConfig, TrunkProgress, TrunkTrainer, save_trunk

HELD_OUT_SEED = 1_000_000  # of the scenes that measure; the next is that of those that choose the best trunk
OUT = Path("my_encoder")


def main(arguments: list[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    options = parse(given)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    line, started = LiveLine(), time.monotonic()

    train = draw("training", options.scenes, options.seed, options.cache, line)
    choosing = draw("selection", max(options.held_out // 4, 1), HELD_OUT_SEED + 1, options.cache, line)
    held_out = draw("held-out", options.held_out, HELD_OUT_SEED, options.cache, line)

    config = TrunkConfig(options.minutes, options.steps, options.batch, seed=options.seed, device=device)
    trainer = TrunkTrainer(config, train, choosing, checkpoint_of(options))
    if options.resume:
        trainer.restore()
    weights = options.out / BUNDLED.name
    save_trunk(trainer.run(lambda progress: line.show(in_words(progress))), weights)
    line.keep(
        f"{in_words(trainer.progress)}\nWrote {weights}. Measuring it, and a random trunk, with fresh heads …"
    )

    shipped = load_encoder(str(weights))  # as it ships: in half precision
    trained = probe(shipped, train, held_out, options.probe_steps, device=device)
    random = probe(load_encoder("random"), train, held_out, options.probe_steps, device=device)
    print(
        f"Errors on held-out scenes [mm]\n{trained.table()}\nThe same with a random trunk\n{random.table()}"
    )
    facts = Facts(
        command=f"python -m hil_rllib.pretrain {shlex.join(given)}".strip(),
        config=config,
        steps=trainer.progress.step,
        training_minutes=trainer.progress.seconds / 60,
        total_minutes=(time.monotonic() - started) / 60,
        train=train,
        held_out=held_out,
        probe_steps=options.probe_steps,
    )
    write_card(options.out / "README.md", facts, trained, random)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m hil_rllib.pretrain",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    positive = _at_least_one
    parser.add_argument(
        "--scenes", type=positive, default=16_000, help="training scenes (default %(default)s)"
    )
    parser.add_argument("--held-out", type=positive, default=1_600, help="scenes to measure on (%(default)s)")
    parser.add_argument(
        "--minutes", type=_minutes, default=TrunkConfig.minutes, help="of training (%(default)s)"
    )
    parser.add_argument("--steps", type=positive, help="train exactly so many steps instead: repeatable")
    parser.add_argument(
        "--batch", type=positive, default=TrunkConfig.batch, help="scenes a step (%(default)s)"
    )
    parser.add_argument(
        "--probe-steps", type=positive, default=2_000, help="of the fresh heads (%(default)s)"
    )
    parser.add_argument("--seed", type=_from_zero, default=0)
    parser.add_argument("--threads", type=positive, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--out", type=Path, default=OUT, help="for weights and card (%(default)s)")
    cache = cache_dir() / "pretrain"
    parser.add_argument("--cache", type=Path, default=cache, help="for scenes and checkpoint (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the last run's checkpoint")
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    there = next(path for path in (out, *out.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):  # now, not after the training
        parser.error(f"--out {options.out}: {there} is no folder that can be written")
    if options.batch > options.scenes:
        parser.error(f"--batch {options.batch} is more than --scenes {options.scenes}; give as many at most")
    if options.resume and not checkpoint_of(options).is_file():  # before scenes are drawn
        parser.error(f"--resume: no training for --out {options.out} was begun (no {checkpoint_of(options)})")
    if options.seed >= HELD_OUT_SEED:
        parser.error(f"--seed {options.seed}: from {HELD_OUT_SEED} on they are of scenes to measure on")
    return options


def checkpoint_of(options: argparse.Namespace) -> Path:
    """A file for each --out: whoever goes on with one training does not take another's weights."""
    out = options.out.resolve()
    place = hashlib.blake2b(str(out).encode(), digest_size=4).hexdigest()
    return Path(options.cache) / f"training-{out.name}-{place}.pt"


def draw(what: str, count: int, seed: int, cache: Path, line: LiveLine) -> Scenes:
    scenes = render_scenes(count, seed, cache, lambda done, of: line.show(f"{what} scenes: {done}/{of}"))
    line.keep(f"{what} scenes: {len(scenes)}")
    return scenes


def in_words(progress: TrunkProgress) -> str:
    return (
        f"{progress.share:.0%} · step {progress.step} · {progress.seconds / 60:.1f} min · "
        f"loss {progress.loss:.1f} · best on unseen scenes {progress.best_mm:.1f} mm"
    )


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} minutes: give a time above 0")
    return value


def _from_zero(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: give a number of 0 or more")
    return value


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too few; give at least 1")
    return value


if __name__ == "__main__":
    main()
