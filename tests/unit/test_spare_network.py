"""The stock of spare network namespaces, with plain descriptors in their place."""

import os
import threading
import time

import pytest

from pyrtc import core
from pyrtc.errors import UnsupportedError
from pyrtc.runtime import spare_network
from pyrtc.runtime.spare_network import SpareNetworks


@pytest.fixture
def made(monkeypatch):
    """The descriptors that were made, each a pipe's end of its own."""
    fds = []

    def make():
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        os.close(write_end)
        fds.append(read_end)
        return read_end

    monkeypatch.setattr(core, "make_netns", make)
    monkeypatch.setattr(spare_network, "CLOSE", 60)  # however slowly this runs
    yield fds
    for fd in fds:
        try:
            os.close(fd)
        except OSError:
            continue


def test_a_process_that_starts_one_container_makes_none(made):
    spares = SpareNetworks(2)
    spares.refill()
    assert spares.take() is None
    spares.refill()
    assert made == []


def test_none_is_made_after_a_pause(made, monkeypatch):
    monkeypatch.setattr(spare_network, "CLOSE", 0.01)
    spares = SpareNetworks(2)
    for _ in range(3):
        time.sleep(0.02)
        assert spares.take() is None
        spares.refill()
    assert made == []


def test_from_the_second_start_on_there_is_one_for_the_next(made):
    spares = SpareNetworks(2)
    assert spares.take() is None
    spares.refill()
    assert spares.take() is None
    spares.refill()
    assert len(made) == 1
    assert spares.take() == made[0]
    assert spares.take() is None, "each is used once"


def test_there_is_an_end_to_the_stock(made):
    spares = SpareNetworks(2)
    for _ in range(2):
        spares.take()
    for _ in range(10):
        spares.refill()
    assert len(made) == 2
    assert {spares.take(), spares.take()} == set(made)


def test_one_that_cannot_be_made_is_not_tried_again(monkeypatch):
    calls = []

    def refuse():
        calls.append(1)
        raise UnsupportedError("no")

    monkeypatch.setattr(core, "make_netns", refuse)
    spares = SpareNetworks(2)
    for _ in range(3):
        assert spares.take() is None
        spares.refill()
    assert len(calls) == 1


def test_no_two_threads_get_the_same(made):
    spares = SpareNetworks(64)
    for _ in range(2):
        spares.take()
    for _ in range(64):
        spares.refill()
    got = []

    def take():
        for _ in range(10):
            got.append(spares.take())

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [fd for fd in got if fd is not None]
    assert sorted(taken) == sorted(made)


def _in_child(check):
    """Run check in a forked child and return its exit code."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(check())
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def filled(most=2):
    spares = SpareNetworks(most)
    for _ in range(2):
        spares.take()
    spares.refill()
    return spares


def test_a_forked_child_never_takes_its_parents(made):
    spares = filled()
    # Even without the hook that forgets them, as after a fork that Python does not see.
    assert _in_child(lambda: 0 if spares.take() is None else 1) == 0
    assert spares.take() == made[0]


def test_a_forked_child_closes_its_copies_and_begins_anew(made):
    spares = filled()

    def check():
        spares.forget()
        try:
            os.fstat(made[0])
        except OSError:
            pass
        else:
            return 1
        if spares.take() is not None or spares.take() is not None:
            return 2
        spares.refill()
        return 0 if spares.take() == made[-1] else 3

    assert _in_child(check) == 0
    assert os.fstat(made[0]), "the parent's is the parent's"


def test_a_fork_while_a_thread_holds_the_lock_does_not_hang(made):
    spares = filled()

    def check():
        import signal

        signal.alarm(10)
        spares.forget()
        return 0 if spares.take() is None else 1

    with spares._lock:
        assert _in_child(check) == 0


def test_the_processs_own_stock_forgets_at_fork(made):
    stock = spare_network.spare_networks
    assert stock._fds == [] or stock._owner == os.getpid()
    stock._fds.append(core.make_netns())
    try:
        assert _in_child(lambda: len(stock._fds)) == 0
    finally:
        stock._fds.pop()
