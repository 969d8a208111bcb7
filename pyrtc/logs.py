"""What a container has written, as lines: what a caller sees of them, and which ones are asked for."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Literal

from pyrtc.errors import UsageError
from pyrtc.values import dataclass

__all__ = [
    "LineJoiner",
    "LogLine",
    "LogPiece",
    "LogSelection",
    "format_time",
    "joined",
    "moment_ns",
    "select_lines",
]

LogStream = Literal["stdout", "stderr"]
Moment = float | str | datetime | None  # see moment_ns

MAX_LINE = 1 << 20  # bytes of a container's line that are put together; a longer one comes in parts


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a container wrote.

    time_ns: when its first byte was read from the container, in nanoseconds since the epoch. stream: ``stdout`` or
    ``stderr``; a container with a terminal has only the first. data: with its newline, where it has one: the last line
    may have none, and one of more than a mebibyte comes in parts.
    """

    time_ns: int
    stream: LogStream
    data: bytes

    @property
    def time(self) -> float:
        """Seconds since the epoch."""
        return self.time_ns / 1e9

    @property
    def text(self) -> str:
        """The line as text, without its newline; what is no UTF-8 is replaced."""
        return self.data.decode(errors="replace").removesuffix("\n")


@dataclass(frozen=True, slots=True)
class LogPiece:
    """One record: a line or a part of one, as it was written. ends: data ends with the line's newline."""

    time_ns: int
    stream: LogStream
    data: bytes
    ends: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSelection:
    """Which lines are wanted.

    since_ns, until_ns: written at this time or later, or earlier. tail: no more than the last ones, of those that the
    other fields let through; None for all.
    """

    since_ns: int | None = None
    until_ns: int | None = None
    tail: int | None = None
    stdout: bool = True
    stderr: bool = True

    @property
    def streams(self) -> frozenset[LogStream]:
        """The streams that are wanted."""
        chosen: list[LogStream] = []
        if self.stdout:
            chosen.append("stdout")
        if self.stderr:
            chosen.append("stderr")
        return frozenset(chosen)


def joined(pieces: Iterable[LogPiece]) -> Iterator[LogLine]:
    """Put the pieces of lines together; what has no end comes last."""
    joiner = LineJoiner()
    for piece in pieces:
        line = joiner.add(piece)
        if line is not None:
            yield line
    yield from joiner.rest()


class LineJoiner:
    """Makes lines of pieces, each stream for itself."""

    def __init__(self) -> None:
        self._parts: dict[LogStream, list[LogPiece]] = {"stdout": [], "stderr": []}
        self._sizes: dict[LogStream, int] = {"stdout": 0, "stderr": 0}

    def add(self, piece: LogPiece) -> LogLine | None:
        """Return the line that this piece completes, or None."""
        parts = self._parts[piece.stream]
        if piece.ends and not parts:
            return LogLine(piece.time_ns, piece.stream, piece.data)
        parts.append(piece)
        self._sizes[piece.stream] += len(piece.data)
        if piece.ends or self._sizes[piece.stream] >= MAX_LINE:
            return self._flush(piece.stream)
        return None

    def rest(self) -> list[LogLine]:
        """Return the lines that have not ended, the older first."""
        lines = [self._flush(stream) for stream, parts in self._parts.items() if parts]
        return sorted(lines, key=lambda line: line.time_ns)

    def _flush(self, stream: LogStream) -> LogLine:
        parts, self._parts[stream], self._sizes[stream] = self._parts[stream], [], 0
        return LogLine(parts[0].time_ns, stream, b"".join(part.data for part in parts))


def select_lines(
    since: Moment, until: Moment, tail: int | None, *, stdout: bool = True, stderr: bool = True
) -> LogSelection:
    """Return the selection that a caller's words mean; raises UsageError for what cannot mean anything."""
    if tail is not None and (isinstance(tail, bool) or not isinstance(tail, int) or tail < 0):
        raise UsageError(f"tail={tail!r}: it is a number of lines, 0 or more")
    return LogSelection(since_ns=moment_ns(since), until_ns=moment_ns(until), tail=tail, stdout=stdout, stderr=stderr)


def moment_ns(moment: object) -> int | None:
    """Return nanoseconds since the epoch of what a caller says: a number of seconds, a datetime, or words.

    Words are those of `pyrtc.moments.nanoseconds`: ``10m`` ago, RFC 3339, seconds. None stays None.

    Raises
    ------
    UsageError: it is none of these.
    """
    from pyrtc.moments import nanoseconds

    if moment is None:
        return None
    try:
        if isinstance(moment, str):
            return nanoseconds(moment)
        if isinstance(moment, datetime):
            return int(moment.replace(microsecond=0).timestamp()) * 1_000_000_000 + moment.microsecond * 1000
        if isinstance(moment, int):
            return moment * 1_000_000_000
        if isinstance(moment, float):
            return int(moment * 1e9)
    except (ValueError, OverflowError):
        raise UsageError(f"{moment!r} is no moment; write 10m, 2026-11-24T09:33:54Z or seconds") from None
    raise UsageError(f"{moment!r} is no moment: it is a number of seconds, a datetime or a string")


def format_time(time_ns: int) -> str:
    """Write nanoseconds since the epoch as ``2026-11-24T09:33:54.123456789Z``; years beyond 9999 as their end."""
    import time

    seconds, nanoseconds = divmod(min(max(time_ns, 0), 253402300799_999999999), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"
