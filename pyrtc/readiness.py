"""Waiting until a container is of use: until something in it listens on a port, or it has written a line.

Listening sockets are read from /proc/PID/net of its process 1, which shows that process's network namespace to who may
see the process: nothing is connected to, no namespace is entered, no thread of the caller is touched. The kernel tells
nobody of a new listening socket, so that is looked at again and again, rarely after the first moments; for the log the
kernel wakes us.
"""

import os
import re
import time
from collections import deque
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from pyrtc.errors import ContainerError, UsageError
from pyrtc.health import read_health
from pyrtc.log_follow import Follower, log_directory, monitor_of
from pyrtc.logs import LogPiece, LogSelection
from pyrtc.states import is_alive, read_exit
from pyrtc.store.owner import process_start_time
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.live import Container
    from pyrtc.store import ContainerRecord

__all__ = ["Wanted", "listening", "wait_for", "wanted"]

FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.1  # seconds between two looks at the sockets
SHOWN_LINES, SHOWN_BYTES = 10, 500  # of the log and of each of its lines, in errors
WINDOW = 1 << 13  # bytes of a line without an end that are looked at again with what follows
_TABLES = {"tcp": (("net/tcp", "net/tcp6"), b"0A"), "udp": (("net/udp", "net/udp6"), b"07")}
_TABLE_SIZE = 1 << 22  # listening sockets come first in a table; a container may have very many others
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is waited for: a port (number and protocol), a pattern in the log, health; None or False for what is not."""

    port: tuple[int, str] | None
    pattern: re.Pattern[bytes] | None
    said: str
    healthy: bool = False


def wanted(
    port: int | str | None,
    log: str | bytes | re.Pattern[str] | re.Pattern[bytes] | None,
    *,
    healthy: bool = False,
) -> Wanted:
    """Check what a caller asks for.

    Raises
    ------
    UsageError: nothing, or what can never happen.
    """
    said = []
    number = None
    if port is not None:
        match = re.fullmatch(r"([0-9]{1,5})(?:/(tcp|udp))?", str(port), re.ASCII)
        if match is None or not 0 < int(match[1]) < 65536:
            raise UsageError(f"port={port!r}: it is a number from 1 to 65535, or a word such as 53/udp")
        number = (int(match[1]), match[2] or "tcp")
        said.append(f"to listen on port {number[0]}/{number[1]}")
    pattern = None
    if log is not None:
        pattern = _pattern(log)
        said.append(f"to write {log.pattern if isinstance(log, re.Pattern) else log!r}")
    if healthy:
        said.append("to be healthy")
    if not said:
        raise UsageError("wait_for() needs something to wait for: port=, log= or healthy=True")
    return Wanted(number, pattern, " and ".join(said), healthy)


def _pattern(log: str | bytes | re.Pattern[str] | re.Pattern[bytes]) -> re.Pattern[bytes]:
    if isinstance(log, str | bytes):
        text = log.encode() if isinstance(log, str) else log
        if not text:
            raise UsageError("log='': an empty text is in every log")
        if b"\n" in text.rstrip(b"\n"):
            raise UsageError("log: a text of several lines is never found in one line")
        return re.compile(re.escape(text))
    if isinstance(log.pattern, bytes):
        return re.compile(log.pattern, log.flags)
    return re.compile(log.pattern.encode(), log.flags & ~re.UNICODE)


def wait_for(
    container: "Container", what: Wanted, *, timeout: float | None = None, cancel_fd: int | None = None
) -> None:
    """Return when everything that is wanted has been seen in the container's present run; see `Container.wait_for`.

    cancel_fd: return early when it is readable.
    """
    record = container.record
    if record.state != "running":
        raise ContainerError(f"container {record.name} does not run: there is nothing to wait for")
    if record.directory is None or record.monitor_pid == 0:
        raise ContainerError(f"container {record.name} is in the foreground of another program, which waits for it")
    if what.pattern is not None:
        log_directory(record)  # says why there is no log
    if what.healthy and read_health(record) is None:
        raise ContainerError(f"container {record.name} has no health check")
    with ExitStack() as stack:
        process_fd = _open_process(record, stack)
        selection = LogSelection(since_ns=_run_began(record))
        follower = stack.enter_context(Follower(record.directory, selection, monitor_of(record)))
        cancel = () if cancel_fd is None else (cancel_fd,)
        _Wait(container, record, what, follower, process_fd, cancel).run(timeout)


def _open_process(record: "ContainerRecord", stack: ExitStack) -> int:
    """Return the directory in /proc of process 1, -1 of one that is gone."""
    try:
        fd = os.open(f"/proc/{record.pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    stack.callback(os.close, fd)
    # Looked at after it was opened: if the number was reused before, the time differs.
    return fd if process_start_time(record.pid) == record.start_time else -1


class _Wait:
    """One wait: what has been seen so far, and the end of the log, for errors."""

    def __init__(
        self,
        container: "Container",
        record: "ContainerRecord",
        what: Wanted,
        follower: Follower,
        process_fd: int,
        cancel: tuple[int, ...],
    ) -> None:
        self._container = container
        self._record = record
        self._what = what
        self._follower = follower
        self._process_fd = process_fd
        self._cancel = cancel
        self._port = what.port
        self._pattern = what.pattern
        self._healthy = what.healthy
        self._lines = {"stdout": b"", "stderr": b""}  # those that have not ended
        self._last: deque[bytes] = deque(maxlen=SHOWN_LINES)

    def run(self, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = FIRST_PAUSE
        while True:
            ended = self._follower.ended()
            self._look()
            if self._pattern is None and self._port is None and not self._healthy:
                return
            if any(map(_readable, self._cancel)):
                return
            if ended:
                raise self._ended()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"{self._was()}, but not within {timeout:g} s{self._tail()}")
            looking = self._port is not None or self._healthy
            times = [seconds for seconds in (left, pause if looking else None) if seconds is not None]
            self._follower.watch.wait(*self._follower.fds[1:], *self._cancel, timeout=min(times, default=None))
            pause = min(pause * 1.5, LONGEST_PAUSE)

    def _look(self) -> None:
        for batch in self._follower.reader.batches():
            for piece in batch:
                self._read(piece)
        if self._port is not None and self._process_fd >= 0 and listening(self._process_fd, *self._port):
            self._port = None
        if self._healthy:
            self._ask_health()

    def _ask_health(self) -> None:
        health = read_health(self._record)
        if health is None or not is_alive(self._record):
            return
        if health.status == "healthy":
            self._healthy = False
        elif health.status == "unhealthy":
            last = f": its check says {health.log[-1].output[:SHOWN_BYTES]!r}" if health.log else ""
            raise ContainerError(f"{self._was()}, but is unhealthy{last}{self._tail()}")

    def _read(self, piece: LogPiece) -> None:
        """Look for the pattern in each line, also in one whose end has not come: prompts have none."""
        line = self._lines[piece.stream] + piece.data
        if self._pattern is not None and self._pattern.search(line) is not None:
            self._pattern = None
        if piece.ends:
            self._last.append(line)
        self._lines[piece.stream] = b"" if piece.ends else line[-WINDOW:]

    def _was(self) -> str:
        return f"container {self._record.name} was {self._what.said}"

    def _tail(self) -> str:
        """Return the last lines of the log, to be put behind an error."""
        lines = [*self._last, *(line for line in self._lines.values() if line)][-SHOWN_LINES:]
        if not lines:
            return ""
        texts = [line[:SHOWN_BYTES].decode(errors="replace").removesuffix("\n") for line in lines]
        return "; its log ends with:\n" + "\n".join(texts)

    def _ended(self) -> ContainerError:
        # The file first: the row and all else may be gone at any moment.
        end = read_exit(self._record)
        code = None if end is None else end.returncode
        if code is None:
            with suppress(ContainerError, TimeoutError):
                code = self._container.wait(timeout=5).returncode
        return ContainerError(f"{self._was()}, but ended{'' if code is None else f' with {code}'}{self._tail()}")


def listening(process_fd: int, port: int, protocol: str = "tcp") -> bool:
    """Say whether something listens on a port, on whatever address, in a process's network namespace.

    process_fd: its directory in /proc; of a process that is gone nothing listens.
    """
    tables, state = _TABLES[protocol]
    for name in tables:
        with suppress(FileNotFoundError, ProcessLookupError):  # no IPv6 here, or the process is gone
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=process_fd)
            try:
                if _in_table(fd, b"%04X" % port, state):
                    return True
            finally:
                os.close(fd)
    return False


def _in_table(fd: int, port: bytes, state: bytes) -> bool:
    carry, read = b"", 0
    while read < _TABLE_SIZE and (block := os.read(fd, 1 << 16)):
        read += len(block)
        *lines, carry = (carry + block).split(b"\n")
        for line in lines:
            fields = line.split(None, 4)
            if len(fields) == 5 and fields[3] == state and fields[1].rpartition(b":")[2] == port:
                return True
    return False


def _run_began(record: "ContainerRecord") -> int:
    """Return a time in nanoseconds shortly before the present run began: lines of earlier ones do not count.

    The monitor started before process 1; the kernel knows when, in ticks since boot.
    """
    ticks = record.monitor_start or record.start_time
    return time.time_ns() - (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - ticks * _TICK_NS) - _TICK_NS


def _readable(fd: int) -> bool:
    import select

    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))
