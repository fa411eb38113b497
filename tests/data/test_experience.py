"""What was lived through comes back: as it was at a checkpoint, or all that reached the disk, once."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ring_parts import SPACE, fragment, held

from hil_rllib.data import journal
from hil_rllib.data.experience import Experience
from hil_rllib.data.replay import Ring


def opened(folder, online=10_000, demo=10_000):
    return Experience(Ring(online, SPACE), Ring(demo, SPACE), folder)


def rings(experience):
    return held(experience._online.ring), held(experience._demo.ring)


def live_through(experience, pieces, first=0):
    """One `add` per piece (episode, flags), episodes growing; the note counts the pieces."""
    at: dict[int, int] = {}
    for i, (episode, flags) in enumerate(pieces):
        start = at.get(episode, 0)
        experience.add(fragment(first + episode, start, len(flags), flags=flags), {"pieces": i + 1})
        at[episode] = start + len(flags)


FLAGS = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=6)
PIECES = st.lists(st.tuples(st.integers(0, 2), FLAGS), max_size=15)


@settings(max_examples=30, deadline=None)
@given(PIECES, PIECES, st.integers(12, 60), st.integers(12, 60))
def test_going_back_to_a_checkpoint_is_exact_and_leads_to_the_same_again(
    tmp_path_factory, before, after, online, demo
):
    folder = tmp_path_factory.mktemp("run")
    experience = opened(folder, online, demo)
    experience.recover(exact=True)
    experience.add_demo(fragment(9, 0, 5))
    experience.begin()
    live_through(experience, before)
    cursor, at_checkpoint = experience.cursor(), (rings(experience), experience.env_steps)
    experience.forget(cursor)
    live_through(experience, after, first=3)
    in_the_end = rings(experience), experience.env_steps
    experience.close()

    resumed = opened(folder, online, demo)
    assert resumed.recover(cursor, exact=True)
    assert (rings(resumed), resumed.env_steps) == at_checkpoint
    assert resumed.note == ({"pieces": len(before)} if before else {})
    live_through(resumed, after, first=3)
    assert (rings(resumed), resumed.env_steps) == in_the_end
    resumed.close()


@settings(max_examples=30, deadline=None)
@given(PIECES, st.floats(0, 1), st.floats(0, 1))
def test_after_a_crash_every_fragment_on_disk_is_there_once_with_its_interventions(
    tmp_path_factory, pieces, online_kept, demo_kept
):
    """The two journals are cut at places of their own: a power cut keeps what it likes of either."""
    folder = tmp_path_factory.mktemp("run")
    experience = opened(folder)
    experience.recover(exact=False)
    experience.add_demo(fragment(9, 0, 5))
    experience.begin()
    experience.cursor()
    demos = {file: file.stat().st_size for file in folder.glob("demo-*")}
    live_through(experience, pieces)
    experience.close()
    for file in folder.glob("*.journal"):
        least, kept = demos.get(file, 0), online_kept if file.name.startswith("online") else demo_kept
        os.truncate(file, least + round((file.stat().st_size - least) * kept))

    resumed = opened(folder)
    assert resumed.recover(exact=False)
    online, demo = rings(resumed)
    survived = pieces[: resumed.note.get("pieces", 0)]
    everything = opened(folder / "everything")
    everything.add_demo(fragment(9, 0, 5))
    live_through(everything, survived)
    expected_online, expected_demo = rings(everything)
    assert online == expected_online
    assert resumed.env_steps == len(online)
    assert len(set(demo)) == len(demo)
    assert set(demo) >= set(expected_demo)  # an intervention may have outlived its fragment
    everything.close()

    again = rings(resumed)
    resumed.close()
    third = opened(folder)
    third.recover(exact=False)
    assert rings(third) == again  # what was put right stays right
    third.close()


def test_a_persons_episode_waits_for_its_end_and_is_on_disk_meanwhile(tmp_path):
    experience = opened(tmp_path)
    experience.recover(exact=False)
    experience.begin()
    experience.hold(fragment(1, 0, 3, flags=[0, 1, 1]), {"human_steps": 2})
    experience.hold(fragment(2, 0, 2), {"human_steps": 2})
    experience.hold(fragment(1, 3, 2, flags=[1, 0], terminated=True), {"human_steps": 3})
    assert rings(experience) == ([], [])
    experience.end("1", {"human_steps": 3}, kept=True)
    experience.end("2", {"human_steps": 3}, kept=False)
    assert rings(experience) == ([1000, 1001, 1002, 1003, 1004], [1001, 1002, 1003])
    experience.hold(fragment(4, 0, 2, flags=[1, 1]), {"human_steps": 5})  # and then the driver is killed
    experience.cursor()
    assert experience.on_disk == {"env_steps": 5, "human_steps": 5}

    experience.close()
    resumed = opened(tmp_path)
    resumed.recover(exact=False)
    assert rings(resumed) == (
        [1000, 1001, 1002, 1003, 1004, 4000, 4001],
        [1001, 1002, 1003, 4000, 4001],
    )  # nobody threw the unfinished episode away; the one thrown away stays away
    assert resumed.note == {"human_steps": 5}
    resumed.close()


def test_a_held_episode_whose_end_the_demo_journal_alone_has_comes_back_once(tmp_path):
    experience = opened(tmp_path)
    experience.recover(exact=False)
    experience.begin()
    experience.hold(fragment(1, 0, 3, flags=[1, 1, 1]), {})
    experience.hold(fragment(1, 3, 2, flags=[0, 1], terminated=True), {})
    experience.cursor()
    (online,) = tmp_path.glob("online-*")
    held = online.stat().st_size
    experience.end("1", {}, kept=True)
    experience.close()
    os.truncate(online, held)  # a power cut, of the last record only
    expected = [1000, 1001, 1002, 1003, 1004], [1000, 1001, 1002, 1004]
    for _ in range(2):
        resumed = opened(tmp_path)
        resumed.recover(exact=False)
        assert rings(resumed) == expected
        resumed.close()


def test_a_run_killed_while_it_read_its_demonstrations_reads_them_anew(tmp_path):
    experience = opened(tmp_path)
    experience.recover(exact=False)
    experience.add_demo(fragment(1, 0, 5))
    experience.close()
    resumed = opened(tmp_path)
    assert not resumed.recover(exact=False)
    resumed.clear()
    assert rings(resumed) == ([], [])
    assert resumed.is_empty()
    resumed.close()


def test_disk_use_is_bounded_by_what_the_rings_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 4000)
    experience = opened(tmp_path, online=100, demo=40)
    experience.recover(exact=True)
    sizes, cursors = [], []
    for episode in range(60):
        experience.add(fragment(episode, 0, 10, flags=[1.0, 0.0] * 5), {})
        cursors = [*cursors, experience.cursor()][-2:]
        experience.forget(cursors[0])
        experience._online.journal.close()
        experience._demo.journal.close()
        sizes.append(sum(file.stat().st_size for file in tmp_path.glob("*.journal")))
    assert max(sizes[20:]) < 2 * sizes[12]
    before = rings(experience)
    experience.close()
    for cursor, exact in ((cursors[-1], True), (None, False)):
        resumed = opened(tmp_path, online=100, demo=40)
        resumed.recover(cursor, exact=exact)
        assert rings(resumed) == before
        assert resumed.env_steps == 600
        resumed.close()


def test_one_process_at_a_time_and_a_killed_one_lets_go(tmp_path):
    def own(folder, ready):
        experience = opened(folder)  # held: a lock lives as long as its file is open
        experience.claim()
        ready.set()
        time.sleep(60)

    context = multiprocessing.get_context("fork")
    ready = context.Event()
    owner = context.Process(target=own, args=(tmp_path, ready))
    owner.start()
    assert ready.wait(30)
    with pytest.raises(OSError, match=f"is being written by process {owner.pid} on "):
        opened(tmp_path).claim(wait_s=0.2)
    owner.kill()
    owner.join()
    opened(tmp_path).claim(wait_s=10)


def test_a_checkpoint_that_saw_more_than_is_there_is_not_resumed_exactly(tmp_path):
    experience = opened(tmp_path)
    experience.recover(exact=True)
    live_through(experience, [(0, [0.0]), (1, [0.0])])
    cursor = experience.cursor()
    experience.close()
    shutil.rmtree(tmp_path)
    with pytest.raises(ValueError, match="2 records of the online ring, 0 are there"):
        opened(tmp_path).recover(cursor, exact=True)


@pytest.mark.parametrize("name", ["online", "demo"])
def test_a_run_without_the_files_its_checkpoint_saw_is_refused(tmp_path, name):
    """A run's folder that was copied without its journals, or without some of them."""
    experience = opened(tmp_path)
    experience.recover(exact=False)
    experience.begin()
    live_through(experience, [(0, [0.0]), (1, [1.0])])
    cursor = experience.cursor()
    experience.close()
    for file in tmp_path.glob(f"{name}-*"):
        file.unlink()
    with pytest.raises(ValueError, match=f"2 records of the {name} ring, 0 are there"):
        opened(tmp_path).recover(cursor, exact=False)


def test_what_is_missing_amid_a_journal_is_told_and_the_rest_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1)
    experience = opened(tmp_path)
    experience.recover(exact=False)
    experience.begin()
    for episode in range(3):
        experience.add(fragment(episode, 0, 2), {})
        cursor = experience.cursor()
    experience.close()
    (tmp_path / "online-000000000001.journal").unlink()
    resumed = opened(tmp_path)
    resumed.recover(cursor, exact=False)
    assert rings(resumed)[0] == [0, 1, 2000, 2001]
    assert "1 records are missing, 1 to 1" in caplog.text
    resumed.close()
    with pytest.raises(ValueError, match="records of the online ring are missing"):
        opened(tmp_path).recover(cursor, exact=True)


def ends(experience, rows=3):
    """Rewards and ends in the first rows of both rings."""
    rings = experience._online.ring, experience._demo.ring
    return [ring.steps[name][:rows].tolist() for ring in rings for name in ("rewards", "terminateds")]


def withdrawn(folder, online=10_000):
    """Of two solved episodes the one that a person drove was not solved."""
    experience = opened(folder, online)
    experience.recover(exact=False)
    experience.begin()
    experience.add(fragment(1, 0, 3, terminated=True, flags=[1, 1, 1]), {})
    experience.add(fragment(2, 0, 3, terminated=True), {})
    experience.withdraw("1")
    return experience


TAKEN_BACK = [[1000, 1001, 0], [False] * 3]  # rewards, ends


@pytest.mark.parametrize("demo_kept", [1, 2, 3])
def test_a_reward_that_was_taken_back_stays_taken_back(tmp_path, monkeypatch, demo_kept):
    """Also where a crash cut the demo journal before the word of it, or before the person's steps."""
    monkeypatch.setattr(journal, "SYNC_S", 0.0)
    experience = withdrawn(tmp_path)
    assert ends(experience) == TAKEN_BACK * 2
    experience.close()
    cut = journal.Journal(tmp_path, "demo")
    cut.recover(lambda _: None, stop=demo_kept)
    for _ in range(2):
        resumed = opened(tmp_path)
        resumed.recover(exact=False)
        assert ends(resumed) == TAKEN_BACK * 2
        records = resumed._demo.journal.records
        resumed.close()
    assert records == 3  # begin, the steps, the word of it: what was cut is written again, once


@pytest.mark.parametrize("exact", [True, False])
def test_it_stays_taken_back_once_the_online_ring_has_forgotten_the_episode(tmp_path, monkeypatch, exact):
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1)  # a file each time it is synced
    experience = withdrawn(tmp_path, online=20)
    experience.cursor()
    for episode in range(3, 13):
        experience.add(fragment(episode, 0, 5), {})
        cursor = experience.cursor()
        experience.forget(cursor)
    before = held(experience._online.ring)
    experience.close()
    assert min(first for first, _ in experience._online.journal.segments()) > 2  # the word of it is gone
    resumed = opened(tmp_path, online=20)
    resumed.recover(cursor, exact=exact)
    assert ends(resumed)[2:] == TAKEN_BACK
    assert held(resumed._online.ring) == before
    assert resumed.cursor() == cursor
    resumed.close()


def test_a_checkpoint_before_the_word_of_it_comes_back_rewarded(tmp_path):
    """In lockstep the appeal comes again."""
    experience = opened(tmp_path)
    experience.recover(exact=True)
    experience.begin()
    experience.add(fragment(1, 0, 3, terminated=True, flags=[1, 1, 1]), {})
    cursor = experience.cursor()
    experience.withdraw("1")
    experience.close()
    resumed = opened(tmp_path)
    resumed.recover(cursor, exact=True)
    assert ends(resumed) == [[1000, 1001, 1002], [False, False, True]] * 2
    resumed.withdraw("1")
    assert ends(resumed) == TAKEN_BACK * 2
    resumed.close()
