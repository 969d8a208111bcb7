"""Moving bytes between a caller and a running container: input in, output out, bounded, in one poll loop."""

import errno
import os
import select
from collections.abc import Callable
from typing import Literal, Protocol

from pyrtc.container import Completed, Outcome
from pyrtc.errors import UsageError
from pyrtc.values import dataclass, field

__all__ = ["DEFAULT_MAX_OUTPUT", "Attended", "Capture", "Pipes", "open_pipes"]

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
        if max_output < 0:
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
            events = poller.poll(remaining)
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
