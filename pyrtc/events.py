"""What happens in a store, told by whoever does it: one line of JSON each in <store>/events, appended in one write.

There is no daemon that could tell; the file is the channel. Whoever follows it is woken by the kernel
(`pyrtc.event_stream`). At 4 MiB it becomes `events.1`, and what that was before is forgotten.
"""

import fcntl
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Literal, Protocol

from pyrtc.values import dataclass

__all__ = [
    "EARLIER",
    "LOG",
    "MAX_LINE",
    "MAX_SIZE",
    "Event",
    "Kind",
    "emit",
    "emit_several",
    "event_of",
    "unfinished_line",
]

Kind = Literal["container", "image", "network", "volume"]

LOG, EARLIER = "events", "events.1"
MAX_SIZE = 4 << 20  # bytes of one file
# Appending less than a page is one step on every local file system, and lines stay readable by eye.
MAX_LINE = 4095
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTEMPTS = 100  # each sees another rotation, of 4 MiB of events, between two system calls


class HasRoot(Protocol):
    """Anything that knows the open directory of a store."""

    @property
    def root_fd(self) -> int:
        """The directory."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    time_ns: nanoseconds since the epoch. kind: ``container``, ``image``, ``volume`` or ``network``. action: in Docker's
    words: ``create``, ``start``, ``die``, ``pull``. id: of the container, the digest or
    name of the image, the name of the volume. attributes: (name, value) pairs, sorted: what Docker tells, and the
    labels of containers.
    """

    time_ns: int
    kind: str
    action: str
    id: str
    attributes: tuple[tuple[str, str], ...] = ()

    @property
    def time(self) -> float:
        """Seconds since the epoch."""
        return self.time_ns / 1e9

    def attribute(self, name: str) -> str | None:
        """Return one attribute, None where the event has none of this name."""
        return next((value for key, value in self.attributes if key == name), None)


def emit(store: HasRoot, kind: Kind, action: str, id: str, attributes: Mapping[str, str] | None = None) -> None:
    """Tell that something has happened.

    An event that cannot be written because the disk is full or the store is read-only is lost: what it tells of has
    happened all the same, and must not look as if it had failed.

    Parameters
    ----------
    attributes: where they do not fit into a line of 4 KiB the longest are left out.
    """
    emit_several(store, kind, id, (action,), attributes)


def emit_several(
    store: HasRoot, kind: Kind, id: str, actions: Sequence[str], attributes: Mapping[str, str] | None = None
) -> None:
    """Tell, at the price of one event, that several things have happened at once; see `emit`."""
    now = time.time_ns()
    lines = b"".join(_line(now, kind, action, id, dict(attributes or {})) for action in actions)
    with suppress(OSError):
        _append(store.root_fd, lines)


def unfinished_line(kind: Kind, action: str, id: str, attributes: Mapping[str, str]) -> tuple[bytes, bytes]:
    """Return what comes after ``{"time":N`` of a line that a program without names and labels writes, in two pieces.

    Parameters
    ----------
    action: how it begins; the rest, 20 bytes at most, comes between the two.
    """
    line = _line(0, kind, f"{action}\0", id, dict(attributes), MAX_LINE - 40)
    before, _mark, after = line.partition(b"\\u0000")
    return before.removeprefix(b'{"time":0'), after


def _line(time_ns: int, kind: str, action: str, id: str, attributes: dict[str, str], longest: int = MAX_LINE) -> bytes:
    import json

    while True:
        words = {"time": time_ns, "kind": kind, "action": action, "id": id, "attributes": attributes}
        line = json.dumps(words, separators=(",", ":")).encode() + b"\n"
        if len(line) <= longest or not attributes:
            return line
        del attributes[max(attributes, key=lambda name: len(name) + len(attributes[name]))]


def event_of(line: bytes) -> Event | None:
    """Read one line; None for one that a full disk cut short."""
    import json

    try:
        words = json.loads(line)
        attributes = tuple(sorted((str(name), str(value)) for name, value in words["attributes"].items()))
        return Event(int(words["time"]), str(words["kind"]), str(words["action"]), str(words["id"]), attributes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _append(root_fd: int, line: bytes) -> None:
    """Append to the file that has the name now.

    Writers hold a shared lock and look whether the name still means their file; the one who renames it holds the lock
    alone. So nothing is written to a file after it was renamed, and who reads a renamed file to its end has all of it.
    """
    for _attempt in range(_ATTEMPTS):
        fd = os.open(LOG, _APPEND, 0o600, dir_fd=root_fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            if not _named(root_fd, fd):
                continue
            if os.fstat(fd).st_size >= MAX_SIZE and _rotated(root_fd, fd):
                continue
            if os.write(fd, line) < len(line):
                os.write(fd, b"\n")  # the disk was full in the middle; the next line is one of its own
            return
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # also for a copy that a child has which was forked meanwhile
            os.close(fd)


def _rotated(root_fd: int, fd: int) -> bool:
    """Give the file its other name if nobody else is writing to it; True when it has another name now.

    Else it grows on, and a later event renames it.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the shared lock is gone, whether this succeeds or not
    except BlockingIOError:
        fcntl.flock(fd, fcntl.LOCK_SH)
        return not _named(root_fd, fd)
    if _named(root_fd, fd):
        os.rename(LOG, EARLIER, src_dir_fd=root_fd, dst_dir_fd=root_fd)
    return True


def _named(root_fd: int, fd: int) -> bool:
    """Say whether the log's name means this file."""
    try:
        there = os.stat(LOG, dir_fd=root_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(fd))
