"""What encoding frames costs with weights that are packed once, and with plain ones.

    python tests/bench/bench_encode.py

In turns, on one thread, in processor time: other work on the machine hardly shows. Two frames are a step's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from hil_rllib.models.encoder import load_encoder
from hil_rllib.models.packed import pack_convolutions

FRAMES = (1, 2, 8, 64)


def milliseconds(work: Callable[[], object], calls: int) -> float:
    started = time.process_time()
    for _ in range(calls):
        work()
    return 1000 * (time.process_time() - started) / calls


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(1)
    plain = load_encoder("bundled").requires_grad_(False)
    packed = pack_convolutions(load_encoder("bundled").requires_grad_(False))
    frames = np.random.default_rng(0).integers(0, 256, (max(FRAMES), 128, 128, 3), np.uint8)
    print(f"{'frames':>6} {'plain':>9} {'packed':>9} {'ratio':>7}   median of turns")
    for count in FRAMES:
        given = frames[:count]
        calls = max(1, 16 // count)
        plain.encode(given), packed.encode(given)
        turns = [
            [milliseconds(lambda net=net, given=given: net.encode(given), calls) for net in (plain, packed)]
            for _ in range(args.turns)
        ]
        before, after = np.median(turns, axis=0)
        ratio = np.median([b / a for a, b in turns])
        print(f"{count:6d} {before:6.1f} ms {after:6.1f} ms {ratio:7.2f}", flush=True)


if __name__ == "__main__":
    main()
