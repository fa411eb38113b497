"""Encoder weights on disk: where a name leads, what a file holds, whether it fits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hil_rllib.deadline import within

BUNDLED = Path(__file__).parent / "bundled" / "resnet10.safetensors"
# Tried in this order in a folder or a hub repository.
FILE_NAMES = ("model.safetensors", "resnet10.safetensors", "pytorch_model.bin", "resnet10.pt", "model.pt")
ANCHOR_KEY = "embedder.0.weight"  # the first tensor; what stands before it is the file's prefix
ALTERNATIVES = "Set encoder.weights to bundled, random, or the path of a weight file or folder."
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_weights(name: str, hub_timeout_s: float = 15.0) -> Path:
    """The weight file that `bundled`, a local file or folder, or a hub id stands for.

    Raises FileNotFoundError where nothing is there, ConnectionError where the hub does not answer.
    """
    if name == "bundled":
        if not BUNDLED.is_file():
            raise FileNotFoundError(
                f"The bundled weights {BUNDLED} are missing from this installation. "
                f"Make them with `python -m hil_rllib.pretrain --out {BUNDLED.parent}`, or set "
                "encoder.weights to random."
            )
        return BUNDLED
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return _file_in_folder(path)
    if HUB_ID.fullmatch(name) and path.suffix not in {".safetensors", ".pt", ".bin"}:
        return _download(name, hub_timeout_s)
    raise FileNotFoundError(f"No encoder weights at '{name}': no such file or folder. {ALTERNATIVES}")


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors or torch (.pt, .pth, .bin) file by name; never unpickles code."""
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise ValueError(f"{path} is a Git LFS pointer, not the weights. Run `git lfs pull` beside it.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as a safetensors or torch state dict: {error}. {ALTERNATIVES}"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict. {ALTERNATIVES}")
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def fit_weights(
    tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], source: str
) -> dict[str, Tensor]:
    """`tensors` as float32 under exactly the names of `expected`, a prefix before them removed.

    A file may hold more than the encoder (a whole policy, say); then only what stands under the encoder's
    prefix is looked at, and that must fit name by name and shape by shape. Raises ValueError.
    """
    inside = _without_prefix(tensors, source)
    missing = sorted(expected.keys() - inside.keys())
    unexpected = sorted(inside.keys() - expected.keys())
    misshaped = [
        f"{key} is {tuple(inside[key].shape)}, should be {shape}"
        for key, shape in expected.items()
        if key in inside and tuple(inside[key].shape) != shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    if any(faults.values()):
        listed = "; ".join(f"{what}: {_shortened(keys)}" for what, keys in faults.items() if keys)
        raise ValueError(
            f"{source} does not fit ResNet10 as published in lerobot/resnet10 "
            f"({len(expected)} tensors). {listed}. {ALTERNATIVES}"
        )
    return {key: inside[key].float() for key in expected}


def _without_prefix(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    prefixes = sorted(key.removesuffix(ANCHOR_KEY) for key in tensors if key.endswith(ANCHOR_KEY))
    if not prefixes:
        return dict(tensors)
    found = [{k.removeprefix(p): v for k, v in tensors.items() if k.startswith(p)} for p in prefixes]
    if any(not torch.equal(found[0][ANCHOR_KEY], other[ANCHOR_KEY]) for other in found[1:]):
        raise ValueError(
            f"{source} holds different encoders under {prefixes}. Save the one you mean in a file of its own."
        )
    return found[0]


def _shortened(keys: list[str], most: int = 6) -> str:
    more = f", … {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


def _file_in_folder(folder: Path) -> Path:
    named = [folder / name for name in FILE_NAMES if (folder / name).is_file()]
    found = named or sorted(folder.glob("*.safetensors"))
    if not found or (not named and len(found) > 1):
        fault = "holds several weight files" if found else "holds no weight file"
        raise FileNotFoundError(
            f"The folder {folder} {fault}. Name the file itself, or call it one of {', '.join(FILE_NAMES)}."
        )
    return found[0]


def _download(repo: str, timeout_s: float) -> Path:
    """The weight file of a hub repository, from the local cache where it is there already."""
    from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    for name in FILE_NAMES:
        cached = try_to_load_from_cache(repo, name)
        if isinstance(cached, str):
            return Path(cached)
    refusal = f"'{repo}' is no local file or folder, and "
    if constants.HF_HUB_OFFLINE:
        raise ConnectionError(f"{refusal}the hub is switched off (HF_HUB_OFFLINE). {ALTERNATIVES}")
    try:
        info = within(timeout_s, lambda: HfApi().model_info(repo, timeout=timeout_s))
    except (RepositoryNotFoundError, GatedRepoError) as error:
        raise FileNotFoundError(f"{refusal}the hub has no such open model. {ALTERNATIVES}") from error
    except Exception as error:  # whatever the network stack raises, the remedy is the same
        raise ConnectionError(
            f"{refusal}the hub did not answer within {timeout_s:g} s ({type(error).__name__}). {ALTERNATIVES}"
        ) from error
    there = {sibling.rfilename for sibling in info.siblings or ()}
    for name in FILE_NAMES:
        if name in there:
            return Path(hf_hub_download(repo, name))
    raise FileNotFoundError(f"The hub model '{repo}' holds none of {', '.join(FILE_NAMES)}. {ALTERNATIVES}")
