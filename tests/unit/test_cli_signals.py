"""Signals as data."""

import os
import select
import signal
import time

import pytest

from pyrtc.cli.signals import CONTROL, FORWARDED, Interrupted, SignalInbox


def arrived(inbox, number):
    """Wait for a signal that was sent to this process."""
    found = b""
    while number not in found:
        assert select.select([inbox.fd], [], [], 5)[0], "the signal did not arrive"
        found += inbox.read()
    return found


def test_signals_turn_up_in_order_and_do_nothing_else():
    with SignalInbox(FORWARDED) as inbox:
        inbox.forward_all()
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGRTMIN + 3):
            os.kill(os.getpid(), number)
            assert arrived(inbox, number) == bytes([number])
        assert inbox.read() == b""


@pytest.mark.parametrize("signals", [FORWARDED, CONTROL])
def test_signal_interrupts_a_start_that_takes_long_and_does_so_once(signals):
    with SignalInbox(signals) as inbox:
        os.kill(os.getpid(), signal.SIGWINCH)
        assert arrived(inbox, signal.SIGWINCH) == bytes([signal.SIGWINCH])
        with pytest.raises(Interrupted) as caught:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(20)
        assert caught.value.number == signal.SIGTERM
        assert isinstance(caught.value, KeyboardInterrupt)
        signal.raise_signal(signal.SIGTERM)  # does not interrupt what takes back


def test_signal_during_a_quick_start_is_for_the_container():
    with SignalInbox(FORWARDED) as inbox:
        signal.raise_signal(signal.SIGTERM)
        inbox.forward_all()
        time.sleep(0.4)
        assert inbox.read() == bytes([signal.SIGTERM])


def test_handlers_and_wakeup_come_back():
    before = {number: signal.getsignal(number) for number in FORWARDED}
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    previous = signal.set_wakeup_fd(write_end)
    try:
        with SignalInbox(FORWARDED):
            assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
        assert {number: signal.getsignal(number) for number in FORWARDED} == before
        assert signal.set_wakeup_fd(previous) == write_end
    finally:
        os.close(read_end)
        os.close(write_end)


def test_ignored_signals_stay_ignored():
    saved = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with SignalInbox(FORWARDED) as inbox:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGUSR1)
            assert arrived(inbox, signal.SIGUSR1) == bytes([signal.SIGUSR1])
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, saved)


def test_more_signals_than_the_pipe_holds_do_no_harm():
    with SignalInbox(FORWARDED) as inbox:
        for _ in range(70_000):
            signal.raise_signal(signal.SIGUSR1)
        assert set(inbox.read()) == {signal.SIGUSR1}


def test_descriptors_are_closed():
    with SignalInbox(CONTROL) as inbox:
        fd = inbox.fd
    with pytest.raises(OSError):
        os.fstat(fd)


def test_what_the_kernel_says_about_this_process_is_not_forwarded():
    own = {signal.SIGCHLD, signal.SIGPIPE, signal.SIGSEGV, signal.SIGTTIN, signal.SIGTTOU, signal.SIGKILL}
    assert not own & set(FORWARDED)
    assert set(CONTROL) <= set(FORWARDED)
