"""Look at LeRobot datasets, check them, and bring them into shape.

    python -m hil_rllib.dataset info DATASET
    python -m hil_rllib.dataset check DATASET
    python -m hil_rllib.dataset convert DATASET FOLDER [--repair] [--push owner/name]
    python -m hil_rllib.dataset merge DATASET DATASET … FOLDER [--repair] [--common] [--push owner/name]
    python -m hil_rllib.dataset push FOLDER owner/name
    python -m hil_rllib.dataset plot DATASET PICTURE.png

DATASET is a local folder or a hub id, v2.1 or v3.0; what is written is v3.0. All can see what
is pushed, unless you add --private. Exit code 0: all is well, or can be repaired; 1: `check` found what
cannot be; 2: a dataset cannot be used, with the reason.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hil_rllib.console import INTERRUPTED, UsageError, report
from hil_rllib.data import hub_push
from hil_rllib.data import lerobot_format as fmt
from hil_rllib.data.alignment import AlignmentReport, decide, sound_episodes
from hil_rllib.data.dataset_check import check
from hil_rllib.data.dataset_plot import plot
from hil_rllib.data.hub import HubUnreachable
from hil_rllib.data.lerobot_copy import Source, copy_datasets
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.lerobot_reader import LeRobotDataset, open_dataset
from hil_rllib.data.repair import to_recording
from hil_rllib.data.repaired_rows import Repair
from hil_rllib.replay import parse_episodes

logger = logging.getLogger(__name__)

PLOTTED = 10  # episodes, evenly spread, where none are named


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("hil_rllib").setLevel(logging.INFO)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except (DatasetError, HubUnreachable, UsageError, OSError) as error:
        report(error)
        return 2
    except KeyboardInterrupt:
        print("Stopped at once.", file=sys.stderr)
        return INTERRUPTED


def info(arguments: argparse.Namespace) -> int:
    """What a dataset holds."""
    dataset = _open(arguments.dataset, arguments)
    about = describe(dataset)
    if arguments.json:
        print(json.dumps(about, indent=2))
        return 0
    features = about.pop("features")
    for name, value in about.items():
        print(f"{name:15s} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    print("features")
    for key, text in features.items():
        print(f"  {key:42s} {text}")
    return 0


def describe(dataset: LeRobotDataset) -> dict[str, Any]:
    """Its figures, from `meta/` and the rows; no video is opened."""
    info = dataset.info
    lengths = np.array([meta.length for meta in dataset.episodes])
    files = {meta.data_path for meta in dataset.episodes}
    files |= {video.path for meta in dataset.episodes for video in meta.videos.values()}
    tasks: Counter[str] = Counter()
    acted = rewarded = 0
    for episode in dataset.read():
        tasks.update(dataset.tasks[int(i)] for i in np.atleast_1d(episode.columns.get("task_index", [])))
        acted += int(np.count_nonzero(episode.columns.get(fmt.INTERVENTION, ())))
        rewarded += bool(np.any(np.asarray(episode.columns.get(fmt.REWARD, ())) > 0))
    about: dict[str, Any] = {
        "dataset": str(dataset.root),
        "version": info.version,
        "robot": info.raw.get("robot_type"),
        "episodes": len(dataset),
        "frames": int(lengths.sum()),
        "fps": info.fps,
        "duration": f"{lengths.sum() / info.fps:.1f} s",
        "length": f"{lengths.min()} to {lengths.max()}, median {np.median(lengths):g}",
        "rewarded": f"{rewarded} of {len(dataset)} episodes",
        "by a person": f"{acted} frames" if fmt.INTERVENTION in info.features else "not recorded",
        "tasks": [f"{task} ({rows} frames)" for task, rows in tasks.items()],
        "size": f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB in {len(files)} files",
    }
    about["features"] = {}
    for key, feature in info.features.items():
        if feature.is_image:
            height, width = feature.image_size()
            text = f"{feature.dtype} {width}x{height}"
        else:
            text = f"{feature.dtype} {list(feature.shape)}"
        about["features"][key] = text + (f", called {feature.source}" if feature.source != key else "")
    return about


def check_command(arguments: argparse.Namespace) -> int:
    """What is wrong with it."""
    report = check(_open(arguments.dataset, arguments))
    if report.alignment is not None:
        print(report.alignment)
    for finding in report.findings:
        print(finding)
    if not report.findings:
        print("nothing to remark")
    return 0 if report.usable else 1


def convert(arguments: argparse.Namespace) -> int:
    """Writes it anew as v3.0."""
    dataset = _open(arguments.dataset, arguments)
    return _write([_source(dataset, arguments.repair, arguments.episodes)], arguments)


def merge(arguments: argparse.Namespace) -> int:
    """Writes several as one."""
    datasets = [_open(name, arguments) for name in arguments.datasets]
    if arguments.repair:
        return _write([_source(dataset, True) for dataset in datasets], arguments)
    return _write([Source(dataset, terms=_known_terms(dataset)) for dataset in datasets], arguments)


def push(arguments: argparse.Namespace) -> int:
    """Uploads it to the hub as it is; what an earlier upload left there is replaced."""
    print(hub_push.push(arguments.folder, arguments.name, private=arguments.private))
    return 0


def plot_command(arguments: argparse.Namespace) -> int:
    """Draws it."""
    if arguments.picture.suffix.lower() != ".png":
        raise UsageError(f"{arguments.picture}: the name must end in .png.")
    dataset = _open(arguments.dataset, arguments)
    chosen = arguments.episodes
    if chosen is None:
        chosen = np.unique(np.linspace(0, len(dataset) - 1, PLOTTED).round().astype(int)).tolist()
    dataset.choose(chosen)
    sound = sound_episodes(dataset, chosen)
    reading = decide(list(sound.values()), str(dataset.root), dataset.info.version).reading
    step_size = Repair.step_size
    recordings = [to_recording(sound[i], reading, step_size, lambda _: None) for i in chosen]
    plot(recordings, arguments.picture, f"{dataset.root.name}: {len(chosen)} of {len(dataset)} episodes")
    print(arguments.picture)
    return 0


def _source(dataset: LeRobotDataset, repair: bool, episodes: Sequence[int] | None = None) -> Source:
    dataset.choose(episodes)
    if not repair:
        return Source(dataset, episodes)
    report = _terms(dataset, range(len(dataset)) if episodes is None else episodes)
    logger.info("%s", report)
    return Source(dataset, episodes, repair=Repair(report.reading, report.note))


def _known_terms(dataset: LeRobotDataset) -> AlignmentReport | None:
    try:
        return _terms(dataset, ())
    except DatasetError as error:
        logger.warning("What its rows mean cannot be told, they are copied as they are: %s", error)
        return None


def _terms(dataset: LeRobotDataset, needed: Sequence[int]) -> AlignmentReport:
    """What its rows mean. needed: episodes that must be sound; the others are evidence where they are.

    Raises:
        DatasetError: not of this task, a needed episode is damaged, or nothing explains the data.
    """
    return decide(list(sound_episodes(dataset, needed).values()), str(dataset.root), dataset.info.version)


def _write(sources: Sequence[Source], arguments: argparse.Namespace) -> int:
    if arguments.push:
        hub_push.check_name(arguments.push)  # before any work
    episodes, rows = copy_datasets(sources, arguments.folder, common=getattr(arguments, "common", False))
    print(f"{arguments.folder}: {episodes} episodes, {rows} frames, LeRobot {fmt.V30}")
    if arguments.push:
        print(hub_push.push(arguments.folder, arguments.push, private=arguments.private))
    return 0


def _open(name: str, arguments: argparse.Namespace) -> LeRobotDataset:
    return open_dataset(name, revision=arguments.revision, features=arguments.features or None)


class _Names(argparse.Action):
    """--feature observation.images.top=front, again and again."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, value: Any, _: Any = None) -> None:
        try:
            namespace.features = {**namespace.features, **fmt.parse_names([str(value)])}
        except ValueError as error:
            parser.error(str(error))


def _parser() -> argparse.ArgumentParser:
    reading = argparse.ArgumentParser(add_help=False)
    reading.add_argument("--revision", help="branch, tag or commit, for a dataset on the hub")
    reading.add_argument(
        "--feature",
        dest="features",
        action=_Names,
        default={},
        metavar="THEIRS=OURS",
        help="another name for a feature, such as observation.images.top=front; may be given again",
    )
    writing = argparse.ArgumentParser(add_help=False)
    writing.add_argument("--repair", action="store_true", help="rows (o_t, a_t), unit motion, gripper 0/1/2")
    writing.add_argument("--push", metavar="OWNER/NAME", help="upload the result to the hub")
    pushing = argparse.ArgumentParser(add_help=False)
    pushing.add_argument("--private", action="store_true", help="create the hub's repository as private")

    parser = argparse.ArgumentParser(
        prog="python -m hil_rllib.dataset",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], *parents: argparse.ArgumentParser) -> Any:
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__, parents=parents)
        command.set_defaults(run=run)
        return command

    command = add("info", info, reading)
    command.add_argument("dataset")
    command.add_argument("--json", action="store_true", help="as JSON")
    add("check", check_command, reading).add_argument("dataset")
    command = add("convert", convert, reading, writing, pushing)
    command.add_argument("dataset")
    command.add_argument("folder", type=Path, help="of the new dataset; must not exist")
    command.add_argument("--episodes", type=parse_episodes, help="such as 0-29 or 0,3,7 (default: all)")
    command = add("merge", merge, reading, writing, pushing)
    command.add_argument("datasets", nargs="+")
    command.add_argument("folder", type=Path, help="of the new dataset; must not exist")
    command.add_argument("--common", action="store_true", help="drop the features that not all have")
    command = add("push", push, pushing)
    command.add_argument("folder", type=Path, help="of the dataset")
    command.add_argument("name", metavar="OWNER/NAME")
    command = add("plot", plot_command, reading)
    command.add_argument("dataset")
    command.add_argument("picture", type=Path, help="the PNG to write")
    command.add_argument("--episodes", type=parse_episodes, help=f"(default: {PLOTTED}, evenly spread)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
