"""Weights are found by name, loaded by key, and refused with a reason."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from published import state_dict
from safetensors.torch import save_file

from hil_rllib.models import weights
from hil_rllib.models.encoder import load_encoder
from hil_rllib.models.resnet10 import ResNet10


def same(model: ResNet10, expected: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "actor.encoder.image_encoder."])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "weights.pt"])
def test_published_layout_loads_by_name(tmp_path: Path, name: str, prefix: str) -> None:
    tensors = {prefix + key: value for key, value in state_dict().items()}
    if prefix:  # a whole policy: what is not the encoder does not matter
        tensors["actor.mean.weight"] = torch.zeros(3)
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    assert same(load_encoder(str(path)), state_dict())
    if name in weights.FILE_NAMES:
        assert same(load_encoder(str(tmp_path)), state_dict())


def test_half_precision_loads_as_single(tmp_path: Path) -> None:
    halves = {key: value.half() for key, value in state_dict().items()}
    save_file(halves, tmp_path / "model.safetensors")
    assert same(load_encoder(str(tmp_path)), {key: value.float() for key, value in halves.items()})


def test_a_file_that_does_not_fit_is_refused_key_by_key(tmp_path: Path) -> None:
    tensors = state_dict()
    del tensors["encoder.stages.2.norm1.bias"]
    tensors["encoder.stages.4.norm1.bias"] = torch.zeros(1)
    tensors["embedder.1.bias"] = torch.zeros(32)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"lerobot/resnet10") as caught:
        load_encoder(str(tmp_path))
    message = str(caught.value)
    assert "missing: encoder.stages.2.norm1.bias" in message
    assert "unexpected: encoder.stages.4.norm1.bias" in message
    assert "embedder.1.bias is (32,), should be (64,)" in message
    assert "bundled, random" in message


def test_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"missing: embedder.*more; unexpected: fc\.weight"):
        load_encoder(str(tmp_path / "net.pt"))


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("a.safetensors", b"no weights at all", "cannot be read"),
        ("a.pt", b"no weights at all", "cannot be read"),
    ],
)
def test_unreadable_files_say_why(tmp_path: Path, name: str, content: bytes, error: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=error):
        load_encoder(str(tmp_path / name))


def test_a_torch_file_never_runs_code(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (marker,)

    torch.save({"embedder.0.weight": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        load_encoder(str(tmp_path / "trap.pt"))
    assert not marker.exists()


def test_nothing_there_names_the_alternatives(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file or folder.*bundled, random"):
        load_encoder(str(tmp_path / "missing.safetensors"))
    with pytest.raises(FileNotFoundError, match="holds no weight file"):
        load_encoder(str(tmp_path))


def test_a_silent_hub_gives_up_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: time.sleep(30))
    started = time.monotonic()
    with pytest.raises(ConnectionError, match=r"did not answer within 0\.5 s.*bundled, random"):
        load_encoder("lerobot/resnet10", hub_timeout_s=0.5)
    assert time.monotonic() - started < 5


def test_a_hub_id_loads_the_weight_file_of_that_repository(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save_file(state_dict(), tmp_path / "model.safetensors")
    siblings = [SimpleNamespace(rfilename=name) for name in ("config.json", "model.safetensors")]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(
        "huggingface_hub.HfApi.model_info", lambda *_, **__: SimpleNamespace(siblings=siblings)
    )
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, name: str(tmp_path / name))
    assert same(load_encoder("lerobot/resnet10"), state_dict())
    siblings.pop()
    with pytest.raises(FileNotFoundError, match=r"holds none of model\.safetensors"):
        load_encoder("lerobot/resnet10")


def test_random_weights_follow_the_seed_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = load_encoder("random", seed=1).state_dict()
    assert torch.equal(torch.rand(4), expected)
    assert same(load_encoder("random", seed=1), first)
    assert not same(load_encoder("random", seed=2), first)


def test_bundled_weights_load_and_are_small() -> None:
    model = load_encoder("bundled")
    assert weights.BUNDLED.stat().st_size <= 10e6
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    card = (weights.BUNDLED.parent / "README.md").read_text()
    assert re.search(r"python -m hil_rllib\.pretrain", card)
    assert "mm" in card
