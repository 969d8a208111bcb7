"""Following a log until its container has ended, woken by the kernel; for threads and for an event loop."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import chain

from pyrtc.errors import ContainerError
from pyrtc.log_files import LogReader, open_directory
from pyrtc.logs import LineJoiner, LogLine, LogPiece, LogSelection, joined
from pyrtc.store import ContainerRecord
from pyrtc.store.container_rows import FOREGROUND
from pyrtc.store.owner import open_process
from pyrtc.store.records import load_options
from pyrtc.watch import DirectoryWatch

__all__ = [
    "Follower",
    "follow_batches",
    "follow_lines",
    "follow_lines_async",
    "log_directory",
    "monitor_of",
    "read_batches",
    "read_lines",
]

EXIT = "exit"  # the file that the monitor writes when a container has ended and its output is in the log
Monitor = tuple[int, int]  # the monitor's pid and start time

OnDamage = Callable[[int], object]


def log_directory(record: ContainerRecord) -> str:
    """Return the directory that a container's log is in.

    Raises
    ------
    ContainerError: it keeps no log.
    """
    if record.detached == FOREGROUND or record.directory is None:
        raise ContainerError(f"container {record.name} keeps no log: what it wrote went to whoever started it")
    if record.spec is not None and load_options(record.spec).log.driver == "none":
        raise ContainerError(f"container {record.name} keeps no log: it was made with --log-driver none")
    return record.directory


def monitor_of(record: ContainerRecord) -> Monitor | None:
    """Return who writes a container's log now, None when nobody does."""
    running = record.state == "running" and record.monitor_pid
    return (record.monitor_pid, record.monitor_start) if running else None


def read_batches(
    directory: str, selection: LogSelection, on_damage: OnDamage | None = None
) -> Iterator[list[LogPiece]]:
    """Iterate over what the log in a container's directory holds now, some pieces at a time.

    on_damage: called at the end with the number of records that were left out, if there are any.
    """
    directory_fd = open_directory(directory)
    try:
        with LogReader(directory_fd, selection) as reader:
            yield from reader.batches()
            _tell(reader, on_damage)
    finally:
        os.close(directory_fd)


def read_lines(directory: str, selection: LogSelection) -> Iterator[LogLine]:
    """Iterate over the lines that the log in a container's directory holds now."""
    yield from joined(chain.from_iterable(read_batches(directory, selection)))


class Follower:
    """A log that grows, and whatever tells of its end.

    Parameters
    ----------
    monitor: pid and start time of the process that writes the log; None: nobody does.

    Attributes
    ----------
    fds: readable when it is time to look again.
    """

    def __init__(self, directory: str, selection: LogSelection, monitor: Monitor | None) -> None:
        self._until = selection.until_ns
        with ExitStack() as stack:
            self._directory_fd = open_directory(directory)
            stack.callback(os.close, self._directory_fd)
            self.watch = DirectoryWatch(self._directory_fd)  # before the first look, so that nothing is missed
            stack.callback(self.watch.close)
            pidfd = None if monitor is None else open_process(*monitor)
            if pidfd is not None:
                stack.callback(os.close, pidfd)
            self._pidfd = pidfd
            self.reader = LogReader(self._directory_fd, selection, grows=True)
            stack.callback(self.reader.close)
            self._stack = stack.pop_all()
        self.fds = (self.watch.fd,) if pidfd is None else (self.watch.fd, pidfd)
        self._ended = False

    def __enter__(self) -> "Follower":
        """Return the follower."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close everything."""
        self._stack.close()

    def ended(self) -> bool:
        """Say whether nothing more will be written; asked before reading, so that what is read then is all."""
        names = self.watch.changed()
        if names is not None and EXIT in names:
            self._ended = True  # it may run again by now, and the file be gone
        self._ended = self._ended or self._pidfd is None or self._gone() or self._has_exit_file()
        if self._until is not None and time.time_ns() >= self._until:
            self._ended = True
        return self._ended

    def _gone(self) -> bool:
        import select

        assert self._pidfd is not None
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(0))

    def _has_exit_file(self) -> bool:
        with suppress(FileNotFoundError):
            os.stat(EXIT, dir_fd=self._directory_fd, follow_symlinks=False)
            return True
        return False

    @property
    def remaining(self) -> float | None:
        """Seconds until nothing that comes would be wanted any more."""
        return None if self._until is None else max(0.0, (self._until - time.time_ns()) / 1e9)

    def wait(self, limit: float | None = None) -> bool:
        """Sleep until it is time to look again; False when limit seconds have passed."""
        times = [seconds for seconds in (self.remaining, limit) if seconds is not None]
        woken = self.watch.wait(*self.fds[1:], timeout=min(times, default=None))
        return woken or limit is None or (self.remaining is not None and self.remaining <= 0)


def follow_batches(
    directory: str, selection: LogSelection, monitor: Monitor | None, on_damage: OnDamage | None = None
) -> Iterator[list[LogPiece]]:
    """Iterate over what the log holds and what comes, some pieces at a time, until the container has ended."""
    with Follower(directory, selection, monitor) as follower:
        while True:
            ended = follower.ended()
            yield from follower.reader.batches()
            if ended:
                _tell(follower.reader, on_damage)
                return
            follower.wait()


def follow_lines(directory: str, selection: LogSelection, monitor: Monitor | None) -> Iterator[LogLine]:
    """Iterate over the lines that the log holds and those that are written to it, until the container has ended."""
    yield from joined(chain.from_iterable(follow_batches(directory, selection, monitor)))


async def follow_lines_async(
    directory: str, selection: LogSelection, monitor: Monitor | None, *, follow: bool = True
) -> AsyncIterator[LogLine]:
    """Do what `follow_lines` does, or `read_lines` without follow, in an event loop: files are read in a thread."""
    loop = asyncio.get_running_loop()
    follower = await loop.run_in_executor(None, Follower, directory, selection, monitor)
    joiner = LineJoiner()
    with follower:
        while True:
            ended = follower.ended() or not follow
            while (pieces := await _settled(loop, follower.reader.take)) is not None:
                for piece in pieces:
                    if (line := joiner.add(piece)) is not None:
                        yield line
            if ended:
                break
            await _readable(loop, follower.fds, follower.remaining)
        for line in joiner.rest():
            yield line


async def _settled(loop: asyncio.AbstractEventLoop, take: Callable[[], list[LogPiece] | None]) -> list[LogPiece] | None:
    """Read a block in a thread; a cancellation waits for it, so that its file is not closed under its hands."""
    reading = loop.run_in_executor(None, take)
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        await asyncio.wait([reading])
        raise


async def _readable(loop: asyncio.AbstractEventLoop, fds: tuple[int, ...], timeout: float | None) -> None:
    """Return when one of the descriptors is readable, or the time is over."""
    woken: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    for fd in fds:
        loop.add_reader(fd, wake)
    try:
        await asyncio.wait([woken], timeout=timeout)
    finally:
        for fd in fds:
            loop.remove_reader(fd)


def _tell(reader: LogReader, on_damage: OnDamage | None) -> None:
    if on_damage is not None and reader.damaged:
        on_damage(reader.damaged)
