"""Films show what happened: the simulator's own frames, who acted, for as long as it took."""

from __future__ import annotations

import av
import gymnasium
import numpy as np
import pytest
from puppet import SUCCESS, Puppet, move

from hil_rllib.console import UsageError
from hil_rllib.factory import make_env
from hil_rllib.overlay import COLOURS, OTHERS, SIDE, Caption, Overlay
from hil_rllib.video import HOLD_LAST, VideoRecorder, VideoWriter

BADGE = (SIDE + 20, 18)  # row, column within the badge that names who acts
POLICY = np.array([0.5, 0.0, 0.0, 1.0], np.float32)


def frames_of(path):
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(stream)], stream.average_rate


def make(*commands, **options):
    return make_env(
        "hil/PandaPickCubeBase-v0",
        use_inputs_control=True,
        reset_delay_seconds=0,
        device=Puppet(*commands),
        render_quality="fast",
        **options,
    )


def test_a_film_shows_the_very_frames_of_each_step_and_who_acted(tmp_path, monkeypatch):
    env = VideoRecorder(make(move(y=1.0), move(y=1.0), SUCCESS), tmp_path / "a.mp4", who="policy")
    live, drawn = [], []
    add = env.writer.add
    monkeypatch.setattr(env.writer, "add", lambda image: drawn.append(image) or add(image))
    env.reset(seed=0)
    live.append(env.unwrapped.render_cameras())
    done = False
    while not done:
        _, _, done, _, _ = env.step(POLICY)
        live.append(env.unwrapped.render_cameras())
    assert drawn == []  # a step is not slowed by drawing
    state = env.unwrapped.get_state()
    env.reset(seed=1)  # now the first episode is drawn
    assert len(drawn) == 4 + HOLD_LAST
    assert not np.array_equal(state, env.unwrapped.get_state())
    env.close()

    plain = Overlay()
    for image, frames in zip(drawn, live, strict=False):
        expected = plain.draw(frames, Caption("policy", 1, 0))[:SIDE]
        np.testing.assert_array_equal(image[:SIDE], expected)
    assert not np.array_equal(drawn[0][:SIDE], drawn[3][:SIDE])
    acting = [tuple(image[BADGE]) for image in drawn[:4]]
    assert acting == [COLOURS["policy"], COLOURS["human"], COLOURS["human"], COLOURS["policy"]]

    film, rate = frames_of(tmp_path / "a.mp4")
    assert rate == 10
    assert len(film) == (4 + HOLD_LAST) + (1 + HOLD_LAST)  # the second episode: its reset only
    assert np.abs(film[2].astype(float) - drawn[2]).mean() < 4  # the codec's loss
    assert list(tmp_path.iterdir()) == [tmp_path / "a.mp4"]


def test_frames_in_observations_are_taken_as_they_are(tmp_path, monkeypatch):
    env = VideoRecorder(make(image_obs=True), tmp_path / "a.mp4")
    env.reset(seed=0)
    monkeypatch.setattr(env.unwrapped, "render_cameras", lambda: pytest.fail("drawn twice"))
    env.close()
    assert len(frames_of(tmp_path / "a.mp4")[0]) == 1 + HOLD_LAST


def lit(image, row, columns):
    """How many pixels of a row of the action's part are coloured as a person's."""
    return int((image[row, columns] == COLOURS["human"]).all(axis=-1).sum())


@pytest.mark.parametrize("size", [3, 4, 6, 7])
def test_bars_grow_with_the_action_to_the_side_it_points_to(size):
    black = {"front": np.zeros((8, 8, 3), np.uint8), "wrist": np.zeros((8, 8, 3), np.uint8)}

    def draw(x):
        action = np.zeros(size, np.float32)
        action[0] = x
        return Overlay().draw(black, Caption("human", 1, 1, action))

    row, everything = SIDE + 20, slice(340, None)
    assert lit(draw(0.0), row, everything) == 0
    half, full, back = draw(0.5), draw(1.0), draw(-0.5)
    assert lit(full, row, everything) == pytest.approx(2 * lit(half, row, everything), abs=2)
    middle = 340 + int(np.argmax((half[row, 340:] == COLOURS["human"]).all(axis=-1)))
    assert lit(back, row, slice(340, middle)) == pytest.approx(lit(half, row, everything), abs=2)
    assert lit(half, row, slice(340, middle)) == 0
    gripper = full[SIDE + 84 : SIDE + 100, 340:]
    assert (gripper == COLOURS["human"]).all(axis=-1).any() == (size in (4, 7))


def test_a_command_that_is_no_number_is_drawn_as_none():
    black = {"front": np.zeros((8, 8, 3), np.uint8)}
    action = np.array([np.nan, np.inf, 0.0, np.nan], np.float32)
    assert lit(Overlay().draw(black, Caption("human", 1, 1, action)), SIDE + 20, slice(340, None)) == 0


def test_somebody_else_is_grey():
    black = {"front": np.zeros((8, 8, 3), np.uint8)}
    assert tuple(Overlay().draw(black, Caption("recorded", 1, 1))[BADGE]) == OTHERS


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("film.avi", "must end in .mp4"),
        ("there.mp4", "exists already"),
        ("nowhere/film.mp4", "there is no folder"),
    ],
)
def test_a_file_that_cannot_be_made_is_refused_at_once(tmp_path, name, message):
    (tmp_path / "there.mp4").touch()
    with pytest.raises(UsageError, match=message):
        VideoWriter(tmp_path / name)


def test_an_env_without_cameras_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has no cameras"):
        VideoRecorder(gymnasium.make("CartPole-v1"), tmp_path / "a.mp4")
