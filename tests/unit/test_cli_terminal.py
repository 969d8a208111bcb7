"""Raw mode, window size, and copying between two terminals."""

import contextlib
import errno
import os
import select
import termios
import time
import tty

import pytest

from pyrtc.cli.terminal import Flow, Relay, copy_window_size, window_size


@pytest.fixture
def terminal():
    master, slave = os.openpty()
    yield master, slave
    for fd in (master, slave):
        with contextlib.suppress(OSError):
            os.close(fd)


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for fd in ends:
        with contextlib.suppress(OSError):
            os.close(fd)


def test_window_size_is_of_the_first_terminal(terminal, pipe):
    master, slave = terminal
    termios.tcsetwinsize(master, (30, 100))
    assert window_size(pipe[0], slave) == (30, 100)
    assert window_size(pipe[0]) is None
    assert window_size() is None


def test_window_size_is_copied(terminal):
    other, other_slave = os.openpty()
    try:
        termios.tcsetwinsize(terminal[0], (31, 101))
        copy_window_size(other, terminal[1])
        assert termios.tcgetwinsize(other_slave) == (31, 101)
    finally:
        os.close(other)
        os.close(other_slave)


def drive(relay, done, seconds=20):
    """Run the loop of the command line, and beside it done() until that is true."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        poll = select.poll()
        for fd, event in relay.interests().items():
            poll.register(fd, event)
        relay.step(dict(poll.poll(1)))


def test_output_arrives_whole_though_its_reader_is_slow(terminal, pipe):
    master, slave = terminal
    tty.setraw(slave)
    relay = Relay(master, None, pipe[1])
    data = bytes(range(256)) * 2000
    os.set_blocking(slave, False)
    sent, received = 0, b""

    def step():
        nonlocal sent, received
        with contextlib.suppress(BlockingIOError):
            sent += os.write(slave, data[sent : sent + 4096])
        if select.select([pipe[0]], [], [], 0)[0]:
            received += os.read(pipe[0], 1000)
        return len(received) == len(data)

    drive(relay, step)
    assert received == data


def test_input_waits_for_a_program_that_does_not_read(terminal, pipe):
    master, slave = terminal
    tty.setraw(slave)
    relay = Relay(master, pipe[0], 1)
    data = b"x" * 200_000
    os.set_blocking(pipe[1], False)
    sent, received = 0, b""

    def fill():
        nonlocal sent
        with contextlib.suppress(BlockingIOError):
            sent += os.write(pipe[1], data[sent : sent + 4096])

    for _ in range(200):  # nobody reads: this must neither block nor read without end
        fill()
        poll = select.poll()
        for fd, event in relay.interests().items():
            poll.register(fd, event)
        relay.step(dict(poll.poll(0)))
    assert sent < len(data)
    assert len(relay.input.pending) <= 4096

    def read_all():
        nonlocal received
        fill()
        if select.select([slave], [], [], 0)[0]:
            received += os.read(slave, 4096)
        return len(received) == len(data)

    drive(relay, read_all)
    assert received == data


def test_drain_takes_what_a_dead_program_left(terminal, pipe):
    master, slave = terminal
    tty.setraw(slave)
    relay = Relay(master, None, pipe[1])
    os.write(slave, b"last words")
    os.close(slave)
    while not relay.drain():
        relay.step({pipe[1]: select.POLLOUT})
    assert os.read(pipe[0], 100) == b"last words"


def test_closed_reader_is_told_from_an_ended_source(terminal, pipe):
    master, slave = terminal
    flow = Flow(master, pipe[1])
    os.close(pipe[0])
    os.write(slave, b"x")
    flow.step()
    flow.step()
    assert not flow.open and not flow.ended and flow.failure.errno == errno.EPIPE
    flow = Flow(master, pipe[1])
    os.close(slave)
    flow.step()
    assert flow.ended


def test_end_of_a_pipe_ends_the_flow(pipe, terminal):
    flow = Flow(pipe[0], terminal[0])
    os.close(pipe[1])
    flow.step()
    assert flow.ended
