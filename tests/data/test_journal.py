"""The journal on disk: whole records survive whatever happened to the bytes around them."""

from __future__ import annotations

import errno
import os
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil_rllib.data import journal as journal_module
from hil_rllib.data.journal import Journal
from hil_rllib.data.journal_format import FILE_HEADER, FILE_MAGIC


def write(folder, count, first=0, size=100):
    """Append records whose meta and array tell their number; returns the journal, all safe."""
    journal = Journal(folder, "online")
    journal.recover(lambda record: None)
    for number in range(first, first + count):
        assert journal.append({"k": number}, {"x": np.full(size, number, np.float16)}) == number
    journal.wait_safe()
    return journal


def read(folder, **how):
    """(numbers of the records that are there, damages), after an opening that cuts what is torn."""
    journal, numbers = Journal(folder, "online"), []

    def take(record):
        assert record.meta == {"k": record.number}
        np.testing.assert_array_equal(record.arrays["x"], np.full(len(record.arrays["x"]), record.number))
        numbers.append(record.number)

    damages = journal.recover(take, **how)
    return numbers, damages


def test_what_was_appended_comes_back_and_goes_on(tmp_path):
    write(tmp_path, 5).close()
    write(tmp_path, 3, first=5).close()
    assert read(tmp_path) == (list(range(8)), [])


def test_a_record_is_safe_within_a_second_without_being_asked(tmp_path):
    journal = Journal(tmp_path, "online")
    journal.append({"k": 0}, {"x": np.zeros(3, np.float16)})
    deadline = time.monotonic() + 10  # of a busy machine; 0.5 s and a sync otherwise
    while journal.safe == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert read(tmp_path)[0] == [0]
    journal.close()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1500))
def test_a_torn_tail_is_cut_and_reported_and_nothing_before_it_is_lost(tmp_path_factory, kept):
    folder = tmp_path_factory.mktemp("journal")
    write(folder, 5).close()
    (file,) = folder.iterdir()
    whole = file.stat().st_size
    os.truncate(file, min(kept, whole))
    numbers, damages = read(folder)
    each = (whole - FILE_HEADER.size) // 5
    expected = max(0, min(kept, whole) - FILE_HEADER.size) // each
    assert numbers == list(range(expected))
    torn = kept < whole and kept != FILE_HEADER.size + expected * each
    assert [d.torn for d in damages] == ([True] if torn else [])
    assert not torn or "cut" in str(damages[0])
    write(folder, 2, first=expected).close()  # the cut file goes on
    assert read(folder) == (list(range(expected + 2)), [])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_flipped_byte_costs_one_record_and_is_reported(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("journal")
    write(folder, 5).close()
    (file,) = folder.iterdir()
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(FILE_HEADER.size, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    numbers, damages = read(folder)
    hurt = (at - FILE_HEADER.size) * 5 // (len(content) - FILE_HEADER.size)
    assert numbers == [n for n in range(5) if n != hurt]
    assert len(damages) == 1


def test_files_are_closed_at_their_size_and_old_ones_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 3000)
    for first in range(0, 40, 4):
        write(tmp_path, 4, first=first, size=500).close()
    assert len(list(tmp_path.iterdir())) > 5
    assert read(tmp_path)[0] == list(range(40))
    journal = write(tmp_path, 0)
    journal.forget(20)
    journal.append({"k": 40}, {"x": np.full(500, 40, np.float16)})
    journal.close()
    numbers = read(tmp_path)[0]
    assert 16 <= numbers[0] <= 20
    assert numbers == list(range(numbers[0], 41))
    assert read(tmp_path, start=30) == (list(range(30, 41)), [])
    assert read(tmp_path, needed=numbers[0]) == (numbers, [])


def test_going_back_cuts_what_came_after(tmp_path):
    write(tmp_path, 9).close()
    assert read(tmp_path, stop=4)[0] == [0, 1, 2, 3]
    assert read(tmp_path)[0] == [0, 1, 2, 3]
    assert read(tmp_path, stop=0)[0] == []
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_version_is_refused(tmp_path):
    (tmp_path / "online-000000000000.journal").write_bytes(FILE_HEADER.pack(FILE_MAGIC, 99) + b"x" * 50)
    with pytest.raises(ValueError, match="version 99, this program reads 1"):
        read(tmp_path)
    (tmp_path / "online-000000000000.journal").write_bytes(b"PK\x03\x04" + b"x" * 50)
    with pytest.raises(ValueError, match="is no journal"):
        read(tmp_path)


@pytest.mark.parametrize("header", [b"", FILE_MAGIC, bytes(FILE_HEADER.size), bytes(100_000)])
def test_a_last_file_that_never_got_its_header_is_a_torn_tail(tmp_path, header):
    write(tmp_path, 5).close()
    (tmp_path / "online-000000000005.journal").write_bytes(header)
    numbers, damages = read(tmp_path)
    assert (numbers, [d.torn for d in damages]) == (list(range(5)), [True])
    write(tmp_path, 2, first=5).close()
    assert read(tmp_path) == (list(range(7)), [])


def test_a_file_that_is_gone_is_reported_with_its_records_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 1)
    for first in (0, 4, 8):
        write(tmp_path, 4, first=first).close()
    (tmp_path / "online-000000000004.journal").unlink()
    for _ in range(2):
        numbers, (missing,) = read(tmp_path)
        assert numbers == [0, 1, 2, 3, 8, 9, 10, 11]
        assert "4 records are missing, 4 to 7" in str(missing)
    os.truncate(tmp_path / "online-000000000000.journal", 300)  # damage is all that is said of its own loss
    for _ in range(2):
        numbers, (damage,) = read(tmp_path)
        assert numbers == [0, 8, 9, 10, 11]
        assert damage.torn


def test_a_disk_that_is_full_when_a_file_begins_leaves_nothing_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 1000)
    journal = write(tmp_path, 5)  # its file is closed
    journal.close()

    def refusing():
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal_module, "file_header", refusing)
    journal.recover(lambda record: None)
    journal._sound_bytes = 1500  # of the file before
    journal.segments = list  # `_open_for` begins a new one
    journal.append({"k": 5}, {"x": np.full(100, 5, np.float16)})
    with pytest.raises(OSError, match="No space left"):
        journal.wait_safe(timeout=10)
    journal.close()
    monkeypatch.undo()
    assert (tmp_path / "online-000000000005.journal").stat().st_size == 0
    assert read(tmp_path)[0] == list(range(5))


def test_a_record_that_could_be_neither_synced_nor_cut_back_comes_back_once(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "RETRY_S", 0.05)
    journal = write(tmp_path, 2)
    refused = []

    def refusing_once(real):
        def call(*arguments):
            if real.__name__ in refused:
                return real(*arguments)
            refused.append(real.__name__)
            raise OSError(errno.EIO, "Input/output error")

        return call

    for name in ("fsync", "ftruncate"):
        monkeypatch.setattr(journal_module.os, name, refusing_once(getattr(os, name)))
    journal.append({"k": 2}, {"x": np.full(100, 2, np.float16)})
    deadline = time.monotonic() + 10
    while journal.safe < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    journal.append({"k": 3}, {"x": np.full(100, 3, np.float16)})
    journal.close()
    assert refused == ["fsync", "ftruncate"]
    assert read(tmp_path) == ([0, 1, 2, 3], [])


@pytest.mark.parametrize("refuses", ["write", "fsync"])
def test_a_disk_that_is_full_for_a_while_loses_nothing(tmp_path, monkeypatch, caplog, refuses):
    monkeypatch.setattr(journal_module, "RETRY_S", 0.05)
    journal = write(tmp_path, 2)
    full = True

    def refusing(f, *arguments):
        def call(*again):
            if full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return f(*arguments, *again)

        return call

    if refuses == "fsync":
        monkeypatch.setattr(journal_module.os, "fsync", refusing(os.fsync))
    else:  # the system takes half of it
        real = journal._file

        class Half:
            name, fileno, tell, close = real.name, real.fileno, real.tell, real.close

            def write(self, view):
                real.write(view[: len(view) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")

        journal._file = Half()
        monkeypatch.setattr(journal, "_open_for", refusing(journal._open_for))
    journal.append({"k": 2}, {"x": np.full(100, 2, np.float16)})
    with pytest.raises(OSError, match="No space left"):
        journal.wait_safe(timeout=10)
    journal.append({"k": 3}, {"x": np.full(100, 3, np.float16)})
    assert journal.safe == 2
    monkeypatch.setattr(journal_module, "WAITING_BYTES", 100)
    with pytest.raises(OSError, match="disk still refuses: No space left"):
        journal.append({"k": 4}, {"x": np.full(100, 4, np.float16)})
    full = False
    deadline = time.monotonic() + 10
    while journal.safe < 4:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    journal.close()
    monkeypatch.undo()
    assert read(tmp_path) == ([0, 1, 2, 3], [])
    assert "Training goes on" in caplog.text
    assert "nothing is missing" in caplog.text
