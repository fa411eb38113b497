"""Pretraining draws scenes with the truth beside them, learns, and writes what the encoder loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hil_rllib import pretrain
from hil_rllib.models.encoder import load_encoder
from hil_rllib.models.weights import BUNDLED
from hil_rllib.pretraining import trunk
from hil_rllib.pretraining.jitter import jitter
from hil_rllib.pretraining.positions import errors_mm, position_loss, with_difference
from hil_rllib.pretraining.scenes import Scenes, render_scenes
from hil_rllib.pretraining.trunk import TrunkConfig, TrunkProgress, TrunkTrainer


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def scenes(cache: Path) -> Scenes:
    return render_scenes(24, seed=0, folder=cache)


def test_scenes_hold_both_qualities_and_points_in_reach(scenes: Scenes) -> None:
    assert scenes.frames.shape == (24, 2, 128, 128, 3)
    assert 0 < scenes.full.sum() < 24
    cube, tcp = scenes.points[:, 0], scenes.points[:, 1]
    assert (np.abs(cube - [0.4, 0.0, 0.1]) < [0.25, 0.35, 0.15]).all()
    assert (np.abs(tcp - [0.4, 0.0, 0.2]) < [0.25, 0.35, 0.3]).all()
    assert np.linalg.norm(np.diff(tcp, axis=0), axis=-1).max() > 0.01  # the hand moves
    assert len({frame.tobytes() for frame in scenes.frames}) == 24


def test_scenes_follow_their_seed_and_are_drawn_once(
    scenes: Scenes, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = render_scenes(24, seed=0, folder=tmp_path)
    assert np.array_equal(again.frames, scenes.frames)
    assert np.array_equal(again.points, scenes.points)
    assert not np.array_equal(render_scenes(24, seed=1, folder=tmp_path).points, scenes.points)
    monkeypatch.setattr("hil_rllib.pretraining.scenes.SceneRenderer.scenes", None)  # drawing now would fail
    assert np.array_equal(render_scenes(24, seed=0, folder=cache).points, scenes.points)


def test_wrist_camera_sees_a_near_cube_where_the_truth_puts_it(scenes: Scenes) -> None:
    """The cube is the only pink thing: where it lies ahead of the fingers, the wrist image shows pink."""
    red, green, blue = np.moveaxis(scenes.frames[:, 0].astype(int), -1, 0)
    pink = ((red - green > 30) & (blue - green > 30)).sum((1, 2))  # [px] in the front camera
    assert (pink > 0).mean() > 0.6  # now and then the hand hides it


def test_jitter_is_light_and_differs_from_frame_to_frame(scenes: Scenes) -> None:
    frames = torch.from_numpy(scenes.frames[:1]).repeat(8, 1, 1, 1, 1)
    torch.manual_seed(0)
    images = jitter(frames)
    assert images.min() >= 0
    assert images.max() <= 1
    change = (images - frames / 255).abs().mean((1, 2, 3, 4))
    assert (change > 0.001).all()
    assert (change < 0.12).all()
    assert len(set(change.tolist())) == 8


def test_loss_is_zero_at_the_truth_and_errors_are_in_mm() -> None:
    points = torch.rand(5, 2, 3)
    truth = with_difference(points)
    assert torch.allclose(truth[:, 2], points[:, 0] - points[:, 1])
    assert position_loss({"front": truth, "both": truth}, points) == 0
    assert position_loss({"front": truth, "both": truth + 0.01}, points) > 0.1
    np.testing.assert_allclose(errors_mm(truth + 0.002, points), 2.0, rtol=1e-3)


def trainer(scenes: Scenes, folder: Path, steps: int) -> TrunkTrainer:
    return TrunkTrainer(TrunkConfig(steps=steps, batch=2), scenes, scenes, folder / "training.pt")


def test_interrupted_and_resumed_equals_uninterrupted(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trunk, "EVALUATIONS", 2)  # each writes a checkpoint
    few = Scenes(scenes.frames[:4], scenes.points[:4], scenes.full[:4])

    def interrupt(progress: TrunkProgress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    whole = trainer(few, tmp_path / "whole", steps=4)
    whole.run()
    trainer(few, tmp_path / "parts", steps=4).run(interrupt)
    resumed = trainer(few, tmp_path / "parts", steps=4)
    resumed.restore()
    assert resumed.progress.step == 2
    resumed.run()
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, msg=name)


def test_what_was_done_goes_on_with_a_larger_budget(scenes: Scenes, tmp_path: Path) -> None:
    trainer(scenes, tmp_path, steps=20).run()
    longer = trainer(scenes, tmp_path, steps=22)
    longer.restore()
    longer.run()
    assert (longer.progress.step, longer.progress.share) == (22, 1.0)


def test_interrupted_before_the_first_check_it_keeps_what_was_learned(scenes: Scenes, tmp_path: Path) -> None:
    def interrupt(progress: TrunkProgress) -> None:
        raise KeyboardInterrupt

    training = trainer(scenes, tmp_path, steps=100)
    before = training.best
    kept = training.run(interrupt).state_dict()
    assert not any(torch.equal(kept[name], value) for name, value in before.items() if value.ndim == 4)
    resumed = trainer(scenes, tmp_path, steps=100)
    resumed.restore()
    assert resumed.progress.step == 1


def test_resume_without_a_checkpoint_says_so(scenes: Scenes, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="without --resume"):
        trainer(scenes, tmp_path, steps=1).restore()


def test_command_line_learns_and_writes_loadable_weights_with_a_card(
    cache: Path, scenes: Scenes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses: list[float] = []
    original = TrunkTrainer.run

    def run(self: TrunkTrainer, report: object = None) -> object:
        trained = original(self)
        losses.extend(self.progress.losses)
        return trained

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trunk, "EVALUATIONS", 2)
        patch.setattr(TrunkTrainer, "run", run)
        sizes = ["--scenes", "8", "--held-out", "8", "--steps", "16", "--batch", "8", "--probe-steps", "3"]
        pretrain.main([*sizes, "--cache", str(cache), "--out", str(tmp_path)])
    assert len(losses) == 16
    assert losses[-1] < 0.6 * losses[0]  # every step sees all eight scenes; ours fell from 55 to 20
    weights = tmp_path / "resnet10.safetensors"
    assert weights.stat().st_size <= 10e6
    assert load_encoder(str(tmp_path)).encode(scenes.frames[0]).shape == (2, 512, 4, 4)
    card = (tmp_path / "README.md").read_text()
    assert "--scenes 8" in card
    assert f"`encoder.weights: {tmp_path}`" in card
    assert "| both | cube − TCP |" in card
    assert "Wrote" in capsys.readouterr().out


def test_the_bundled_encoder_is_written_only_when_asked_for() -> None:
    assert pretrain.parse([]).out != BUNDLED.parent
    assert pretrain.parse(["--out", str(BUNDLED.parent)]).out == BUNDLED.parent


def test_a_folder_that_cannot_be_is_said_before_anything_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        pretrain.main(["--out", str(tmp_path / "file")])
    assert f"{tmp_path / 'file'} is no folder that can be written" in capsys.readouterr().err


def test_a_zero_count_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        pretrain.main(["--scenes", "0"])
    assert "at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scenes", "8"], "--batch 16 is more than --scenes 8"),
        (["--resume"], "--resume: no training for --out my_encoder was begun"),
        (["--seed", "1000000"], "--seed 1000000: from 1000000 on"),
    ],
)
def test_what_could_not_be_trained_is_refused_before_anything_is_drawn(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        pretrain.main([*arguments, "--cache", str(tmp_path)])
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
