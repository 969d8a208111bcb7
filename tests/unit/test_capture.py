"""Moving bytes between real pipes and a plain process that stands for a container."""

import fcntl
import os
import select
import subprocess
import sys
import threading
import time

import pytest

from pyrtc.capture import Capture, Pipes, open_pipes
from pyrtc.container import Outcome
from pyrtc.errors import UsageError

STREAMS = ("stdout", "stderr")


class FakeRunning:
    """A process with the part of Running's face that Capture looks at."""

    def __init__(self, words, pipes, timeout=None):
        stdin, stdout, stderr = pipes.container
        self.process = subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True)
        self.pidfd = os.pidfd_open(self.process.pid)
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.reasons = []
        self.finished = None

    def kill(self, reason=None):
        self.reasons.append(reason)
        self.process.kill()

    def remaining_ms(self):
        return None if self.deadline is None else max(0.0, (self.deadline - time.monotonic()) * 1000)

    def finish(self, stdout=b"", stderr=b"", *, truncated=False):
        assert self.finished is None, "finished twice"
        self.finished = (stdout, stderr, truncated)
        self.process.wait()
        return self.finished

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.pidfd)


@pytest.fixture
def begin():
    """begin(words, data, timeout=, **options of Capture) returns a Capture whose process runs."""
    made = []

    def start(words, data=b"", timeout=None, **options):
        pipes = open_pipes(feed=bool(data))
        running = FakeRunning(words, pipes, timeout)
        pipes.close_container_ends()
        made.append((running, pipes))
        return Capture(running, pipes, data, **options)

    yield start
    for running, pipes in made:
        running.close()
        pipes.close()


def python(text):
    return [sys.executable, "-S", "-c", text]


def shell(text):
    return ["sh", "-c", text]


# ---- pipes ---------------------------------------------------------------------------------------------------------


def test_pipes_are_close_on_exec_and_ours_never_block():
    pipes = open_pipes(feed=True)
    try:
        assert set(pipes.ours) == {"stdin", *STREAMS}
        assert not any(os.get_inheritable(fd) for fd in (*pipes.container, *pipes.ours.values()))
        assert not any(os.get_blocking(fd) for fd in pipes.ours.values())
        assert all(os.get_blocking(fd) for fd in pipes.container), "a program does not expect EAGAIN from its streams"
    finally:
        pipes.close()


def test_without_input_stdin_is_the_null_device():
    pipes = open_pipes(feed=False)
    try:
        assert "stdin" not in pipes.ours
        assert os.fstat(pipes.container[0]).st_rdev == os.stat(os.devnull).st_rdev
    finally:
        pipes.close()


def test_close_closes_each_descriptor_once():
    pipes = open_pipes(feed=True)
    fds = [*pipes.container, *pipes.ours.values()]
    pipes.close()
    pipes.close()
    for fd in fds:
        with pytest.raises(OSError):
            os.fstat(fd)


def test_nothing_is_left_open_when_pipes_run_out(monkeypatch):
    made = []
    real = os.pipe2

    def scarce(flags):
        if len(made) == 2:
            raise OSError(24, "Too many open files")
        made.append(real(flags))
        return made[-1]

    monkeypatch.setattr(os, "pipe2", scarce)
    with pytest.raises(OSError, match="Too many"):
        open_pipes(feed=True)
    for fd in (fd for pair in made for fd in pair):
        with pytest.raises(OSError):
            os.fstat(fd)


@pytest.mark.parametrize("wrong", [{"max_output": -1}, {"max_output": "1"}, {"on_limit": "stop"}])
def test_limits_that_mean_nothing_are_refused(begin, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        begin(shell("true"), **wrong)


# ---- output --------------------------------------------------------------------------------------------------------


def test_streams_are_kept_apart(begin):
    assert begin(shell("echo out; echo err >&2")).run() == (b"out\n", b"err\n", False)


def test_output_larger_than_a_pipe_comes_whole(begin):
    capture = begin(python("import os\nfor _ in range(64): os.write(1, b'x' * 65536)"))
    stdout, stderr, truncated = capture.run()
    assert (len(stdout), stderr, truncated) == (64 << 16, b"", False)


def test_what_a_process_wrote_just_before_its_end_is_not_lost(begin):
    for _ in range(20):
        assert begin(shell("printf abc; printf def >&2")).run() == (b"abc", b"def", False)


def test_closed_streams_do_not_end_the_run(begin):
    capture = begin(python("import os, time\nos.close(1); os.close(2); time.sleep(0.1)"))
    assert capture.run() == (b"", b"", False)
    assert capture.running.process.returncode == 0


@pytest.mark.parametrize(("limit", "kept", "truncated"), [(6, b"sixsix", False), (5, b"sixsi", True), (0, b"", True)])
def test_truncate_keeps_exactly_the_limit_and_lets_it_run(begin, limit, kept, truncated):
    capture = begin(shell("printf sixsix; exit 3"), max_output=limit)
    assert capture.run() == (kept, b"", truncated)
    assert capture.running.process.returncode == 3
    assert capture.running.reasons == []


def test_the_limit_counts_both_streams_together(begin):
    stdout, stderr, truncated = begin(shell("printf 12345; printf 67890 >&2"), max_output=7).run()
    assert len(stdout) + len(stderr) == 7
    assert truncated


def test_truncation_goes_on_reading_so_that_the_writer_can_end(begin):
    capture = begin(python("import os\nfor _ in range(40): os.write(1, b'x' * 65536)\nos._exit(9)"), max_output=10)
    assert capture.run() == (b"x" * 10, b"", True)
    assert capture.running.process.returncode == 9


def test_kill_ends_the_container_at_the_limit(begin):
    capture = begin(shell("while :; do echo more; done"), max_output=1000, on_limit="kill")
    stdout, _stderr, truncated = capture.run()
    assert len(stdout) == 1000
    assert truncated
    assert capture.running.reasons[0] is Outcome.OUTPUT_LIMIT


def test_kill_does_not_strike_at_exactly_the_limit(begin):
    capture = begin(shell("printf 12345"), max_output=5, on_limit="kill")
    assert capture.run() == (b"12345", b"", False)
    assert capture.running.reasons == []


def test_callback_gets_pieces_and_nothing_is_kept(begin):
    pieces = []
    capture = begin(shell("printf one; printf two >&2"), on_output=lambda stream, piece: pieces.append((stream, piece)))
    assert capture.run() == (b"", b"", False)
    assert sorted(pieces) == [("stderr", b"two"), ("stdout", b"one")]


def test_callback_gets_no_more_than_the_limit(begin):
    pieces = []
    capture = begin(shell("printf 1234567890"), max_output=4, on_output=lambda _stream, piece: pieces.append(piece))
    assert capture.run() == (b"", b"", True)
    assert pieces == [b"1234"]


def test_what_a_callback_raises_comes_out(begin):
    class Stop(Exception):
        pass

    def refuse(_stream, _piece):
        raise Stop

    capture = begin(shell("echo x; sleep 60"), on_output=refuse)
    with pytest.raises(Stop):
        capture.run()
    assert capture.running.finished is None, "ending the container is for the with block around it"


# ---- input ---------------------------------------------------------------------------------------------------------


def test_input_larger_than_a_pipe_arrives_whole(begin):
    data = bytes(range(256)) * 8192  # 2 MiB
    assert begin(["cat"], data).run() == (data, b"", False)


def test_end_of_input_is_seen(begin):
    assert begin(["wc", "-c"], b"12345").run()[0].strip() == b"5"


def test_reader_that_closes_early_is_no_error(begin):
    capture = begin(python("import os, time\nos.close(0); time.sleep(0.2); print('done')"), b"x" * (1 << 20))
    assert capture.run() == (b"done\n", b"", False)


def test_reader_that_never_reads_does_not_keep_the_caller(begin):
    capture = begin(["true"], b"x" * (1 << 20))
    assert capture.run() == (b"", b"", False)
    assert "stdin" not in capture.ours


def test_write_on_a_full_pipe_returns(begin):
    capture = begin(["sleep", "60"], b"x" * (1 << 20))
    for _ in range(64):
        capture.write()
    assert "stdin" in capture.ours


# ---- time ----------------------------------------------------------------------------------------------------------


def test_timeout_kills_one_that_is_silent(begin):
    capture = begin(shell("echo before; exec sleep 60"), timeout=0.2)
    assert capture.run() == (b"before\n", b"", False)
    assert capture.running.reasons == [Outcome.TIMEOUT]


def test_timeout_kills_one_that_never_stops_writing(begin):
    capture = begin(["yes"], timeout=0.3, max_output=100)
    watch = threading.Timer(20, capture.running.process.kill)
    watch.start()
    try:
        begun = time.monotonic()
        capture.run()
        assert time.monotonic() - begun < 15
    finally:
        watch.cancel()
    assert capture.running.reasons == [Outcome.TIMEOUT]


def test_output_that_somebody_else_took_first_does_not_block():
    """A container may open its own stdout for reading, and be faster than the caller that poll(2) has woken."""
    pipes = open_pipes(feed=False)
    try:
        os.write(pipes.container[1], b"stolen")
        thief = os.open(f"/proc/self/fd/{pipes.container[1]}", os.O_RDONLY)
        capture = Capture(None, pipes, b"")
        poller = select.poll()
        poller.register(capture.ours["stdout"], select.POLLIN)
        assert poller.poll(0)
        assert os.read(thief, 100) == b"stolen"
        os.close(thief)
        capture.read("stdout")
        assert "stdout" in capture.ours
        os.write(pipes.container[1], b"kept")
        capture.read("stdout")
        assert capture._kept["stdout"] == [b"kept"]
    finally:
        pipes.close()


# ---- the end -------------------------------------------------------------------------------------------------------


def test_a_survivor_with_the_pipe_does_not_keep_the_caller(begin):
    """What is left behind may hold the other end, or go on writing: only what is in the pipe is taken."""
    inherited = begin(python("import os, time\nos.write(1, b'first')\nif os.fork() == 0: time.sleep(5)\nos._exit(0)"))
    begun = time.monotonic()
    assert inherited.run()[0] == b"first"
    assert time.monotonic() - begun < 4
    os.killpg(inherited.running.process.pid, 9)


def test_drain_is_bounded_for_one_that_writes_for_ever(begin):
    capture = begin(python("import os\nif os.fork() == 0:\n  while True: os.write(1, b'x' * 65536)\nos._exit(0)"))
    stdout, _stderr, _truncated = capture.run()
    os.killpg(capture.running.process.pid, 9)
    assert len(stdout) < 64 << 20


def test_drain_takes_a_pipe_of_the_largest_size_and_closes_everything():
    pipes = open_pipes(feed=True)
    try:
        size = fcntl.fcntl(pipes.container[1], fcntl.F_SETPIPE_SZ, 1 << 20)
        data = b"y" * size
        assert os.write(pipes.container[1], data) == size
        os.write(pipes.container[2], b"err")
        capture = Capture(None, pipes, b"in")
        capture.drain()
        assert b"".join(capture._kept["stdout"]) == data
        assert capture._kept["stderr"] == [b"err"]
        assert pipes.ours == {}
        capture.drain()  # a second time there is nothing to do
    finally:
        pipes.close()


def test_pipes_of_a_finished_run_are_closed(begin):
    capture = begin(["true"], b"data")
    capture.run()
    assert capture.ours == {}


def test_empty_pipes_close_quietly():
    Pipes().close()
