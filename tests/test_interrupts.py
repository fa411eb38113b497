"""Ctrl-C and SIGTERM are one request to stop, and a second one an order."""

from __future__ import annotations

import os
import signal

import pytest

from hil_rllib.interrupts import StopSignals


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_asks_the_second_ends_at_once_and_the_first_decides_the_status(number, status, capsys):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    asked = []
    with StopSignals() as signals:
        assert signals.status == 0
        with signals.asking(lambda: asked.append(True)):
            os.kill(os.getpid(), number)
            assert asked == [True]
            assert "Stopping with a last checkpoint" in capsys.readouterr().err
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signals.status == status
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_anything_can_be_asked_it_ends_at_once(number):
    with StopSignals() as signals, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    assert signals.status == 128 + number


def test_handlers_that_libraries_put_in_between_are_replaced():
    asked = []
    with StopSignals() as signals:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray's start does with its own
        with signals.asking(lambda: asked.append(True)):
            os.kill(os.getpid(), signal.SIGTERM)
    assert asked == [True]
