"""Signals as bytes that a poller can wait for, and what is left of them afterwards."""

from __future__ import annotations

import os
import select
import signal

from zelect.system.signals import SignalPipe

NUMBER = signal.SIGUSR1


def _spoke(wake: SignalPipe) -> bool:
    poll = select.poll()
    poll.register(wake.fileno(), select.POLLIN)
    return bool(poll.poll(20_000))


def test_a_signal_wakes_the_poller_and_its_handler_comes_back() -> None:
    before = signal.getsignal(NUMBER)
    with SignalPipe([NUMBER]) as wake:
        os.kill(os.getpid(), NUMBER)
        assert _spoke(wake)
        assert wake.take() == bytes([NUMBER])
        assert wake.take() == b""
    assert signal.getsignal(NUMBER) is before


def test_a_second_signal_does_not_spoil_the_end_of_the_process() -> None:
    before = signal.getsignal(NUMBER)
    wake = SignalPipe([NUMBER], last=True)
    try:
        os.kill(os.getpid(), NUMBER)
        assert _spoke(wake)
        wake.close()
        os.kill(os.getpid(), NUMBER)  # by default it would end the process here
        assert signal.getsignal(NUMBER) is signal.SIG_IGN
    finally:
        signal.signal(NUMBER, before)
