"""The log files of a container, read from the front, from the back, or as they grow.

A container's directory holds ``log``, and what rotation made of older ones: ``log.1``, ``log.2`` and so on, the higher
the older. Each line of a file is a record in the form of the Container Runtime Interface:
``2026-11-24T09:33:54.123456789Z stdout F text``. F ends a line of the container's; P is a piece of one whose newline
had not come when it was written. The text is the container's own bytes. Everything else in the files is suspected of
being damaged: it is counted and left out, and neither a record nor a line takes more memory than is set here.
"""

import os
import re
import stat
from calendar import timegm
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache

from pyrtc.errors import StoreError, reason
from pyrtc.logs import MAX_LINE, LogPiece, LogSelection, LogStream, format_time

__all__ = ["LogReader", "open_directory"]

MAX_RECORD = 1 << 20  # bytes of one line of a file; the monitor writes far shorter ones
_MAX_FILES = 1000
_BLOCK = 1 << 18
_ROTATIONS = 2  # that may happen while the files are opened, and make the oldest one's number higher
_NAME = re.compile(r"log(?:\.([1-9][0-9]{0,5}))?")
_RECORD = re.compile(
    rb"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})\.([0-9]{9})Z (stdout|stderr) ([FP]) ", re.ASCII
)
_STAMP = 30  # bytes of the time in a record
_STREAMS: dict[bytes, LogStream] = {b"stdout": "stdout", b"stderr": "stderr"}


class _File:
    """One open file of a log."""

    __slots__ = ("fd", "inode")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.inode = os.fstat(fd).st_ino

    def close(self) -> None:
        os.close(self.fd)


class LogReader:
    """Reads the log in a container's directory; never waits. Closed when its `with` block ends.

    Parameters
    ----------
    directory_fd: the container's directory; stays the caller's, and open as long as this reads.
    grows: read what is written after this was made, too, in files that rotation brings.

    Raises
    ------
    StoreError: a file cannot be read.

    Attributes
    ----------
    damaged: how many records were left out because they are none.
    """

    def __init__(self, directory_fd: int, selection: LogSelection, *, grows: bool = False) -> None:
        self._directory_fd = directory_fd
        self._grows = grows
        self._streams = selection.streams
        self._since = b"" if selection.since_ns is None else _stamp(selection.since_ns)
        self._until = None if selection.until_ns is None else _stamp(selection.until_ns)
        self._offset = 0
        self._carry = b""
        self._skipping = False  # in the middle of a record that is too long
        self._starts: dict[LogStream, tuple[int, int]] = {}
        self._index = 0  # of the file being read, counted as _starts does
        self.damaged = 0
        self._files: deque[_File] = deque(self._open_files())
        # A container that writes faster than this reads must not keep it for ever.
        self._end = None if grows or not self._files else os.fstat(self._files[-1].fd).st_size
        try:
            if selection.tail is not None:
                self._seek_tail(selection.tail)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "LogReader":
        """Return the reader."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close its files."""
        self.close()

    def close(self) -> None:
        """Close the files."""
        while self._files:
            self._files.popleft().close()

    def take(self) -> list[LogPiece] | None:
        """Return the next pieces, perhaps none of a block; None when there is nothing more for now."""
        while True:
            if not self._files and not (self._grows and self._extend()):
                return None
            size = _BLOCK
            if self._end is not None and len(self._files) == 1:
                size = min(size, self._end - self._offset)
            block = os.pread(self._files[0].fd, size, self._offset) if size > 0 else b""
            if block:
                self._offset += len(block)
                return self._parse(block)
            if len(self._files) > 1:
                self._next_file()
            elif not self._grows or not self._extend():
                return None

    def batches(self) -> Iterator[list[LogPiece]]:
        """Iterate over what there is now."""
        while (pieces := self.take()) is not None:
            yield pieces

    def _next_file(self) -> None:
        if self._carry or self._skipping:
            self.damaged += not self._skipping
        self._files.popleft().close()
        self._index += 1
        self._offset, self._carry, self._skipping = 0, b"", False

    def _extend(self) -> bool:
        """Look for files that rotation brought since; return whether there is something to read again."""
        current = self._files[0] if self._files else None
        try:
            newest = os.stat("log", dir_fd=self._directory_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False  # in the middle of a rotation, or there is no log (yet)
        if current is not None and newest.st_ino == current.inode:
            if newest.st_size < self._offset:  # emptied in place
                self._offset, self._carry, self._skipping = 0, b"", False
                return newest.st_size > 0
            return False
        files = self._open_files()
        known = next((at for at, file in enumerate(files) if current is not None and file.inode == current.inode), -1)
        for file in files[: known + 1]:
            file.close()
        self._files.extend(files[known + 1 :])
        # What came into the current file before it was rotated is read before the next.
        return bool(files[known + 1 :])

    def _open_files(self) -> list[_File]:
        """Open all files, the oldest first.

        They are opened from the newest on, by number and not as listed: rotation only ever makes a file's number one
        higher, so one that moves meanwhile is met again ahead, or a second time, which is noticed. After two rotations
        one can be met that is newer than the first: it is left for the next look.
        """
        names = os.listdir(self._directory_fd)  # noqa: PTH208  (a descriptor)
        found = max((int(match[1] or 0) for name in names if (match := _NAME.fullmatch(name))), default=0)
        numbers = range(min(found + _ROTATIONS, _MAX_FILES) + 1)
        files: list[_File] = []
        try:
            for number in numbers:
                try:
                    file = _File(_open_file(self._directory_fd, _name_of(number)))
                except FileNotFoundError:
                    continue
                if any(file.inode == other.inode for other in files):
                    file.close()
                else:
                    files.append(file)
            if files:
                newer = self._newer(files[0], numbers)
                for file in [file for file in files if file.inode in newer]:
                    files.remove(file)
                    file.close()
        except BaseException:
            _close_all(files)
            raise
        return files[::-1]

    def _newer(self, first: _File, numbers: Iterable[int]) -> set[int]:
        """Return the inodes of the files that came after this one; they stay below it, however often all move."""
        newer = set()
        for number in numbers:
            with suppress(FileNotFoundError):
                inode = os.stat(_name_of(number), dir_fd=self._directory_fd, follow_symlinks=False).st_ino
                if inode == first.inode:
                    break
                newer.add(inode)
        return newer

    def _parse(self, block: bytes) -> list[LogPiece]:
        data = self._carry + block
        start = self._offset - len(data)
        *records, self._carry = data.split(b"\n")
        if self._skipping and records:
            self._skipping = False
            start += len(records[0]) + 1
            del records[0]
        if len(self._carry) > MAX_RECORD or self._skipping:
            self.damaged += not self._skipping
            self._carry, self._skipping = b"", True
        pieces = []
        since, until, streams, starts = self._since, self._until, self._streams, self._starts
        for record in records:
            at, start = start, start + len(record) + 1
            if record[:_STAMP] < since:
                continue
            match = _RECORD.match(record)
            if match is None or len(record) > MAX_RECORD:
                self.damaged += 1
                continue
            day, fraction, word, tag = match.groups()
            stream = _STREAMS[word]
            if stream not in streams or (until is not None and record[:_STAMP] >= until):
                continue
            if starts and (self._index, at) < starts[stream]:
                continue
            try:
                time_ns = _seconds(day) * 1_000_000_000 + int(fraction)
            except ValueError:  # a month 13
                self.damaged += 1
                continue
            ends = tag == b"F"
            text = record[match.end() :]
            pieces.append(LogPiece(time_ns, stream, text + b"\n" if ends else text, ends))
        return pieces

    # ---- the end of the log, found from the end ---------------------------------------------------------------------

    def _seek_tail(self, count: int) -> None:
        """Set where each stream's last lines begin, so that no more lines than count are read."""
        if not self._files:
            return
        last = len(self._files) - 1
        end = os.fstat(self._files[last].fd).st_size if self._end is None else self._end
        starts = dict.fromkeys(self._streams, (last, end))
        begun: set[LogStream] = set()  # a line of it was counted
        done: set[LogStream] = set()  # it was read back to where the first wanted line begins
        found = 0
        beyond = 0  # bytes looked at after the last line was found, for its other parts
        for at, header, size in self._backwards(end):
            stamp, stream, ends = header
            if stream not in starts or (self._until is not None and stamp >= self._until):
                continue
            if stamp < self._since:
                break
            if ends or stream not in begun:
                if found == count:
                    done.add(stream)
                else:
                    found += 1
                    begun.add(stream)
            if stream not in done and stream in begun:
                starts[stream] = at
            beyond += size if found == count else 0
            if found == count and (begun <= done or beyond > MAX_LINE):
                break
        self._starts = starts
        index, self._offset = min(starts.values(), default=(last, end))
        while self._index < index:
            self._files.popleft().close()
            self._index += 1

    def _backwards(self, end: int) -> Iterator[tuple[tuple[int, int], tuple[bytes, LogStream, bool], int]]:
        """Iterate over all records from the end: the place, the time, stream and whether it ends a line; the size."""
        for index in range(len(self._files) - 1, -1, -1):
            fd = self._files[index].fd
            position = end if index == len(self._files) - 1 else os.fstat(fd).st_size
            pending, junk = b"", True  # what follows the last newline is no record, or not yet
            while position > 0:
                size = min(_BLOCK, position)
                position -= size
                first, *records = (os.pread(fd, size, position) + pending).split(b"\n")
                if records and junk:
                    records.pop()
                    junk = False
                at = position + len(first) + 1
                places = []
                for record in records:
                    places.append((at, record))
                    at += len(record) + 1
                for place, record in reversed(places):
                    if (header := _header(record)) is not None:
                        yield (index, place), header, len(record)
                junk = junk or len(first) > MAX_RECORD
                pending = b"" if junk else first
            if not junk and (header := _header(pending)) is not None:
                yield (index, 0), header, len(pending)


def open_directory(path: str) -> int:
    """Open a container's directory.

    Raises
    ------
    StoreError: it cannot be opened.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"cannot open the container's directory {path}: {reason(error.errno or 0)}") from None


def _name_of(number: int) -> str:
    return f"log.{number}" if number else "log"


def _open_file(directory_fd: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=directory_fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"cannot read the container's {name}: {reason(error.errno or 0)}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StoreError(f"cannot read the container's {name}: it is no regular file")
    return fd


def _close_all(files: list[_File]) -> None:
    while files:
        files.pop().close()


def _header(record: bytes) -> tuple[bytes, LogStream, bool] | None:
    match = _RECORD.match(record)
    if match is None or len(record) > MAX_RECORD:
        return None
    with suppress(ValueError):
        _seconds(match[1])
        return record[:_STAMP], _STREAMS[match[3]], match[4] == b"F"
    return None


@lru_cache(maxsize=64)
def _seconds(text: bytes) -> int:
    """Read `2026-11-24T09:33:54`."""
    year, month, day = int(text[0:4]), int(text[5:7]), int(text[8:10])
    hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:19])
    if not (year and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        raise ValueError("no time of day")
    return timegm((year, month, day, hour, minute, second))


def _stamp(time_ns: int) -> bytes:
    """Write a time as records have it, so that comparing bytes compares times."""
    return format_time(time_ns).encode()
