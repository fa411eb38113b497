r"""Checks against the `lerobot` package itself (0.4.4), which needs a virtual environment of its own:

    python -m venv /tmp/lerobot
    /tmp/lerobot/bin/pip install torch==2.13.0
    /tmp/lerobot/bin/pip install --no-deps lerobot==0.4.4 torchvision==0.24.1 torchcodec==0.13.0 accelerate
    /tmp/lerobot/bin/pip install 'datasets>=4,<5' 'av<16' 'huggingface_hub<0.36' 'packaging<26' jsonlines \
        einops draccus==0.10.0 deepdiff termcolor 'imageio[ffmpeg]' opencv-python-headless pandas psutil \
        requests pyyaml pynput pyserial rerun-sdk==0.26.2 safetensors 'numpy<2.3'
    python tests/bench/lerobot_check.py ../shared/data/franka_sim_pick_lift_6 /tmp/lerobot/bin/python

Run with the project's own Python; it calls the other one, which needs FFmpeg's libraries (Debian: those
that libavdevice59 depends on). Not part of the tests. What is checked:

1. LeRobot's converter turns the v2.1 dataset into v3.0, and our reader gives the same from both, bit by bit.
2. What we write loads in LeRobot frame for frame: a conversion, a repaired one, and a recording, which was
   killed in the middle of an episode, continued and then killed again.
3. Our statistics are LeRobot's (except for the std of images, which LeRobot squares as uint8).
4. A recording begun by LeRobot and continued by us loads in LeRobot.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

# The C++ half of torchvision from PyPI needs CUDA's libraries, and without it `import torchvision` fails for
# want of one operator that nobody calls here. LeRobot uses torchvision for nothing but image transforms.
PRELUDE = """
import json, sys, warnings
warnings.filterwarnings("ignore")
import numpy as np, torch
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from lerobot.datasets.lerobot_dataset import LeRobotDataset
"""

CONVERT = """
from lerobot.datasets.v30.convert_dataset_v21_to_v30 import convert_dataset
convert_dataset("a/b", root=sys.argv[1], push_to_hub=False)
"""

DUMP = """
dataset = LeRobotDataset("a/b", root=sys.argv[1])
rows = [dataset[i] for i in range(len(dataset))]
columns = {key: np.stack([np.asarray(row[key]) for row in rows]) for key in rows[0] if key != "task"}
for key in dataset.meta.camera_keys:
    columns[key] = np.round(columns[key] * 255).astype(np.uint8)
stats = {key: {n: np.asarray(v).tolist() for n, v in of.items()} for key, of in dataset.meta.stats.items()}
columns["stats"] = json.dumps(stats)
columns["tasks"] = json.dumps([row["task"] for row in rows])
np.savez(sys.argv[2], **columns)
"""

RECORD = """
with open(sys.argv[2]) as file:
    features = json.load(file)
features = {key: {**f, "shape": tuple(f["shape"])} for key, f in features.items()
            if key not in ("timestamp", "frame_index", "episode_index", "index", "task_index")}
dataset = LeRobotDataset.create("a/b", fps=10, root=sys.argv[1], features=features, robot_type="franka_sim")
rng = np.random.default_rng(0)
for episode in range(2):
    for t in range(12):
        frame = {"task": "Pick up the cube"}
        for key, f in features.items():
            shape = f["shape"]
            if f["dtype"] == "video":
                frame[key] = np.full(shape, 20 * t, np.uint8)
            elif f["dtype"] == "bool":
                frame[key] = np.full(shape, t == 11)
            else:
                frame[key] = rng.normal(size=shape).astype(f["dtype"])
        dataset.add_frame(frame)
    dataset.save_episode()
dataset.finalize()
"""

STATS = """
from lerobot.datasets.compute_stats import get_feature_stats
with np.load(sys.argv[1]) as rows:
    given = dict(rows)
found = {}
for key, values in given.items():
    image = values.ndim == 4
    axes = (0, 2, 3) if image else 0
    got = get_feature_stats(values, axis=axes, keepdims=image or values.ndim == 1)
    found[key] = {n: (v if n == "count" or not image else np.squeeze(v / 255.0, axis=0)).tolist()
                  for n, v in got.items()}
print(json.dumps(found))
"""


def lerobot(python: str, code: str, *arguments: object) -> str:
    command = [python, "-c", PRELUDE + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-4000:])
    return done.stdout


def identical(one: Any, other: Any) -> None:
    for a, b in zip(one.read(frames=True), other.read(frames=True), strict=True):
        for key in a.columns:
            np.testing.assert_array_equal(a.columns[key], b.columns[key], err_msg=key)
        for camera in a.frames:
            np.testing.assert_array_equal(a.frames[camera], b.frames[camera], err_msg=camera)


def loads_frame_for_frame(python: str, folder: Path, scratch: Path) -> int:
    """LeRobot's rows of the dataset in `folder` are ours. Returns how many."""
    from hil_rllib.data.lerobot_reader import open_dataset

    dump = scratch / "dump.npz"
    lerobot(python, DUMP, folder, dump)
    dataset = open_dataset(str(folder))
    with np.load(dump) as theirs:
        start = 0
        for episode in dataset.read(frames=True):
            rows = slice(start, start + len(episode))
            for key, values in episode.columns.items():
                np.testing.assert_array_equal(theirs[key][rows].reshape(values.shape), values, err_msg=key)
            for feature in dataset.info.images.values():
                frames = theirs[feature.key][rows].transpose(0, 2, 3, 1)
                ours = episode.frames[feature.camera]
                # Two conversions from YUV: rounding may differ by a grey level or two, a frame by far more.
                difference = np.abs(frames.astype(int) - ours)
                assert difference.max() <= 6, (feature.key, difference.max())
                assert difference.mean() < 1, (feature.key, difference.mean())
            start += len(episode)
        tasks = json.loads(str(theirs["tasks"]))
        assert len(tasks) == start == len(theirs["index"]), (len(tasks), start)
        assert set(tasks) <= set(dataset.tasks.values())
    return start


def same_statistics(python: str, folder: Path, scratch: Path) -> None:
    from hil_rllib.data.dataset_stats import column_stats, image_stats
    from hil_rllib.data.lerobot_reader import open_dataset

    episode = next(iter(open_dataset(str(folder)).read(frames=True)))
    np.savez(
        scratch / "rows.npz",
        **episode.columns,
        **{camera: frames.transpose(0, 3, 1, 2) for camera, frames in episode.frames.items()},
    )
    theirs = json.loads(lerobot(python, STATS, scratch / "rows.npz"))
    ours = {key: column_stats(values) for key, values in episode.columns.items()}
    ours |= {camera: image_stats(frames) for camera, frames in episode.frames.items()}
    for key, of in ours.items():
        for name, value in of.items():
            if not (name == "std" and key in episode.frames):
                want = np.asarray(theirs[key][name], float)
                assert np.shape(value) == want.shape, (key, name, np.shape(value), want.shape)
                # They add float32 up, we float64.
                np.testing.assert_allclose(value, want, rtol=1e-4, atol=2e-4, err_msg=f"{key} {name}")


def record_and_kill(folder: Path, episodes: int) -> None:
    """Records in another process, which kills itself while it writes one more episode."""
    code = """
import os, signal, sys
import numpy as np
from pathlib import Path
from hil_rllib.data import lerobot_writer
from hil_rllib.data.lerobot_writer import LeRobotWriter
commit, left = lerobot_writer._commit, [None]
def killed(path, write):
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if left[0] is not None:
        left[0] -= 1
    commit(path, write)
lerobot_writer._commit = killed
writer = LeRobotWriter(Path(sys.argv[1]), environment_state=False)
goal = writer.episodes + int(sys.argv[2])
while True:
    if writer.episodes == goal:
        left[0] = 3  # two videos and the data are there, the episode's table is not
    rng = np.random.default_rng(writer.episodes)
    for t in range(12):
        frame = np.full((128, 128, 3), 20 * t, np.uint8)
        observation = {"agent_pos": rng.normal(size=18), "pixels": {"front": frame, "wrist": 255 - frame}}
        last = t == 11
        outcome = {"reward": last, "terminated": last, "truncated": False, "success": last}
        writer.add_step(observation, rng.normal(size=4), **outcome)
    writer.end_episode(seed=writer.episodes)
"""
    done = subprocess.run([sys.executable, "-c", code, str(folder), str(episodes)], check=False)
    assert done.returncode == -9, done.returncode


def main() -> None:
    from hil_rllib.data import lerobot_schema as schema
    from hil_rllib.data.lerobot_reader import open_dataset
    from hil_rllib.data.lerobot_writer import LeRobotWriter
    from hil_rllib.dataset import main as dataset_command

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dataset", type=Path, help="a v2.1 dataset")
    parser.add_argument("python", help="the interpreter that has lerobot")
    arguments = parser.parse_args()
    python = arguments.python
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        # Caches of this run alone: LeRobot knows files by path and would give an earlier run's rows.
        os.environ["HF_HOME"] = str(scratch / "cache")
        theirs = scratch / "theirs" / "a" / "b"
        shutil.copytree(arguments.dataset, theirs, copy_function=shutil.copyfile)
        for folder in (theirs, *theirs.rglob("*")):
            folder.chmod(0o755)  # the original may be read-only
        lerobot(python, CONVERT, scratch / "theirs")
        original = open_dataset(str(arguments.dataset))
        identical(original, open_dataset(str(theirs)))
        print(f"LeRobot's v3.0 of {len(original)} episodes reads as the v2.1 original: bit-equal")

        same_statistics(python, arguments.dataset, scratch)
        print("statistics agree with LeRobot's")

        for label, options in (("converted", []), ("repaired", ["--repair"])):
            folder = scratch / label
            assert dataset_command(["convert", str(arguments.dataset), str(folder), *options]) == 0
            rows = loads_frame_for_frame(python, folder, scratch)
            print(f"{label}: LeRobot gives the same {rows} rows")

        folder = scratch / "recorded"
        record_and_kill(folder, 3)
        record_and_kill(folder, 2)  # the second one continues
        # LeRobot reads rows of an unfinished episode at the end of the data, and never asks for them.
        rows = loads_frame_for_frame(python, folder, scratch)
        print(f"recorded, killed, continued, killed: LeRobot gives the same {rows} rows")

        features = schema.features(("front", "wrist"), False, 10, (128, 128))
        (scratch / "features.json").write_text(json.dumps(features))
        folder = scratch / "begun"
        lerobot(python, RECORD, folder, scratch / "features.json")
        with LeRobotWriter(folder, environment_state=False) as writer:
            frame = np.zeros((128, 128, 3), np.uint8)
            for t in range(12):
                observation = {"agent_pos": np.full(18, t), "pixels": {"front": frame, "wrist": frame}}
                writer.add_step(
                    observation, np.ones(4), reward=0, terminated=False, truncated=t == 11, success=False
                )
            writer.end_episode(seed=1)
        rows = loads_frame_for_frame(python, folder, scratch)
        print(f"begun by LeRobot, continued by us: LeRobot gives the same {rows} rows")


if __name__ == "__main__":
    main()
