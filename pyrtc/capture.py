"""Moving bytes between a caller and a running container: input in, output out, bounded, in one poll loop."""

import errno
import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Literal, Protocol

from pyrtc import core
from pyrtc.container import Completed, Outcome
from pyrtc.errors import UsageError
from pyrtc.values import dataclass, field

__all__ = ["DEFAULT_MAX_OUTPUT", "Attended", "Capture", "Conversation", "Pipes", "open_pipes"]

DEFAULT_MAX_OUTPUT = 10 << 20
_CHUNK = 1 << 16
_PIECES = 16  # of _CHUNK each, at most, are in a pipe

Stream = Literal["stdout", "stderr"]


class Attended(Protocol):
    """What is attended to until it ends: a container, or a command in one."""

    pidfd: int
    deadline: float | None

    def kill(self, reason: Outcome | None = None) -> None:
        """Kill every process of it; reason becomes its outcome."""

    def remaining_ms(self) -> float | None:
        """Milliseconds until the timeout, for poll(2); None without one."""

    def finish(self, stdout: bytes = b"", stderr: bytes = b"", *, truncated: bool = False) -> Completed:
        """Reap its first process, which has ended, and gather how it ended."""


@dataclass(slots=True)
class Pipes:
    """Both ends of the three standard streams; the container's ends are closed once it has them."""

    container: list[int] = field(default_factory=list)
    ours: dict[str, int] = field(default_factory=dict)

    def close_container_ends(self) -> None:
        """Close what only the container must hold, or its output would never end."""
        while self.container:
            os.close(self.container.pop())

    def close(self) -> None:
        """Close everything."""
        self.close_container_ends()
        while self.ours:
            os.close(self.ours.popitem()[1])


def open_pipes(*, feed: bool) -> Pipes:
    """Open the pipes for a captured run. feed: there will be input, else stdin is /dev/null."""
    pipes = Pipes()
    try:
        if feed:
            read_end, pipes.ours["stdin"] = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(pipes.ours["stdin"], False)
        else:
            read_end = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        pipes.container.append(read_end)
        pipes.ours["stdout"], write_end = os.pipe2(os.O_CLOEXEC)
        pipes.container.append(write_end)
        pipes.ours["stderr"], write_end = os.pipe2(os.O_CLOEXEC)
        pipes.container.append(write_end)
        for stream in ("stdout", "stderr"):
            # The container can open its end for reading, too, and take what poll(2) announced to us.
            os.set_blocking(pipes.ours[stream], False)
    except BaseException:
        pipes.close()
        raise
    return pipes


class Capture:
    """The state of one captured run. It does no waiting of its own, so that a poll loop or an event loop can drive it.

    Parameters
    ----------
    max_output: bytes of stdout and stderr together that are kept. on_limit: "kill" ends the container at the limit,
        "truncate" lets it run and throws the rest away.
    on_output: called with each piece instead of keeping it; the limit then counts pieces too.

    Raises
    ------
    UsageError: a negative max_output, or an on_limit that is none.
    """

    def __init__(
        self,
        running: Attended,
        pipes: Pipes,
        data: bytes,
        *,
        max_output: int = DEFAULT_MAX_OUTPUT,
        on_limit: Literal["truncate", "kill"] = "truncate",
        on_output: Callable[[Stream, bytes], object] | None = None,
    ) -> None:
        if isinstance(max_output, bool) or not isinstance(max_output, int) or max_output < 0:
            raise UsageError(f"max_output={max_output!r}: it is a number of bytes, 0 or more")
        if on_limit not in ("truncate", "kill"):
            raise UsageError(f"on_limit={on_limit!r}: it is one of truncate, kill")
        self.running = running
        self.ours = pipes.ours
        self._input = memoryview(data)
        self._max_output = max_output
        self._kill_at_limit = on_limit == "kill"
        self._on_output = on_output
        self._kept: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self._size = 0
        self.truncated = False

    def write(self) -> None:
        """Give the container more input; close the pipe at its end, or when nobody reads any more."""
        fd = self.ours["stdin"]
        try:
            sent = os.write(fd, self._input[:_CHUNK])
        except BlockingIOError:
            return
        except BrokenPipeError:
            sent = len(self._input)
        self._input = self._input[sent:]
        if not self._input:
            os.close(self.ours.pop("stdin"))

    def read(self, stream: Stream) -> None:
        """Take what the container wrote to a stream."""
        try:
            piece = os.read(self.ours[stream], _CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal that nobody holds any more
                raise
            piece = b""
        if not piece:
            os.close(self.ours.pop(stream))
            return
        room = self._max_output - self._size
        if len(piece) > room:
            self.truncated = True
            piece = piece[: max(0, room)]
            if self._kill_at_limit:
                self.running.kill(Outcome.OUTPUT_LIMIT)
        self._size += len(piece)
        if not piece:
            return
        if self._on_output is not None:
            self._on_output(stream, piece)
        else:
            self._kept[stream].append(piece)

    def drain(self) -> None:
        """Take what is left in the pipes of an ended container, without waiting: a process that got away with an end of
        a pipe must not keep the caller."""
        for stream in ("stdout", "stderr"):
            for _ in range(_PIECES):
                if stream not in self.ours:
                    break
                poller = select.poll()
                poller.register(self.ours[stream], select.POLLIN)
                if not poller.poll(0):
                    break
                self.read(stream)
            if stream in self.ours:
                os.close(self.ours.pop(stream))
        if "stdin" in self.ours:
            os.close(self.ours.pop("stdin"))

    def result(self) -> Completed:
        """Gather the end of a container whose process 1 has ended."""
        self.drain()
        return self.running.finish(
            b"".join(self._kept["stdout"]), b"".join(self._kept["stderr"]), truncated=self.truncated
        )

    def run(self) -> Completed:
        """Move bytes until the container ends, killing it at its timeout; sleeps in poll(2) meanwhile."""
        poller = select.poll()
        running = self.running
        poller.register(running.pidfd, select.POLLIN)
        names: dict[int, str] = {}
        for name, fd in self.ours.items():
            names[fd] = name
            poller.register(fd, select.POLLOUT if name == "stdin" else select.POLLIN)
        while True:
            remaining = running.remaining_ms()
            events = core.poll(poller, remaining)
            if remaining == 0 or not events:  # one that never stops writing has no quiet moment
                running.kill(Outcome.TIMEOUT)
                running.deadline = None
            ended = False
            for fd, _event in events:
                if fd == running.pidfd:
                    ended = True
                    continue
                name = names[fd]
                if name == "stdin":
                    self.write()
                else:
                    self.read(name)  # type: ignore[arg-type]
                if name not in self.ours:
                    poller.unregister(fd)
            if ended:
                return self.result()


class Conversation:
    """What `communicate` of a process remembers between two calls: input that is left, and output so far.

    Parameters
    ----------
    stdin, stdout, stderr: a process's streams; those that are read or written through to their ends are closed.
    """

    def __init__(
        self, stdin: IO[bytes] | None, stdout: IO[bytes] | None, stderr: IO[bytes] | None, data: bytes | None
    ) -> None:
        self._input = memoryview(data or b"")
        self._stdin = None if stdin is None or stdin.closed else stdin
        if self._stdin is not None:
            with suppress(BrokenPipeError):
                self._stdin.flush()
        self._heard: dict[IO[bytes], list[bytes]] = {}
        self._output = (stdout, stderr)
        for stream in self._output:
            if stream is not None:
                self._heard[stream] = []

    def go_on(self, until: float | None) -> bool:
        """Move bytes until both outputs have ended; False if `until`, by time.monotonic(), came before that."""
        streams = [stream for stream in (self._stdin, *self._heard) if stream is not None and not stream.closed]
        for stream in streams:
            # Whoever has the other end can open ours, too, and take the bytes or the room that poll(2) announced.
            os.set_blocking(stream.fileno(), False)
        try:
            return self._exchange(streams, until)
        finally:
            for stream in streams:
                if not stream.closed:
                    os.set_blocking(stream.fileno(), True)

    def output(self) -> tuple[bytes | None, bytes | None]:
        """Return what came from stdout and stderr, None for what is no pipe."""
        stdout, stderr = (None if stream is None else b"".join(self._heard[stream]) for stream in self._output)
        return stdout, stderr

    def _exchange(self, streams: list[IO[bytes]], until: float | None) -> bool:
        poller = select.poll()
        open_ones = {}
        for stream in streams:
            if stream is self._stdin:
                if not self._input:
                    _close(stream)
                    self._stdin = None
                    continue
            else:
                self._heard[stream].append(stream.read1(_CHUNK) or b"")  # type: ignore[attr-defined]  # of a reader
            open_ones[stream.fileno()] = stream
            poller.register(stream.fileno(), select.POLLOUT if stream is self._stdin else select.POLLIN)
        while open_ones:
            events = core.poll(poller, None if until is None else max(0.0, (until - time.monotonic()) * 1000))
            if not events:
                return False
            for fd, _event in events:
                stream = open_ones[fd]
                if self._write(fd) if stream is self._stdin else self._read(fd, self._heard[stream]):
                    continue
                poller.unregister(fd)
                del open_ones[fd]
                if stream is self._stdin:
                    self._stdin = None
                _close(stream)
        return True

    def _write(self, fd: int) -> bool:
        """Write a piece; say whether there is more to write, and somebody to read it."""
        try:
            self._input = self._input[os.write(fd, self._input[:_CHUNK]) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            return False
        return bool(self._input)

    def _read(self, fd: int, heard: list[bytes]) -> bool:
        """Read a piece; say whether more can come."""
        try:
            piece = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal that nobody holds any more
                raise
            piece = b""
        heard.append(piece)
        return bool(piece)


def _close(stream: IO[bytes]) -> None:
    with suppress(BrokenPipeError):  # what its buffer held has no reader
        stream.close()
