"""Hearing of changes in a directory from the kernel (inotify), so that following a file needs no polling."""

import os
import select
import struct
from contextlib import suppress

from pyrtc import core

__all__ = ["CREATED", "MODIFIED", "MOVED_HERE", "REMOVED", "DirectoryWatch"]

MODIFIED = 0x2
MOVED_HERE = 0x80
CREATED = 0x100
REMOVED = 0x400  # the directory itself
_OVERFLOW = 0x4000
_GONE = 0x8000  # the watch ended with its directory
_HEADER = struct.Struct("iIII")
_READ_SIZE = 1 << 16


class DirectoryWatch:
    """What happens to the entries of one directory. Closed when its `with` block ends.

    Parameters
    ----------
    directory_fd: the directory; may be closed afterwards.

    Raises
    ------
    StoreError: this user has as many watches as the system allows; the text names the setting.

    Attributes
    ----------
    fd: readable when something has happened.
    """

    def __init__(self, directory_fd: int, mask: int = MODIFIED | MOVED_HERE | CREATED | REMOVED) -> None:
        self.fd = core.watch_directory(directory_fd, mask)

    def __enter__(self) -> "DirectoryWatch":
        """Return the watch."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Stop watching."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def changed(self) -> set[str] | None:
        """Return the names of entries that something happened to since the last call; never waits.

        None: more happened than the kernel remembers, or the directory is gone; look at everything.
        """
        names: set[str] = set()
        lost = False
        with suppress(BlockingIOError):
            while events := os.read(self.fd, _READ_SIZE):
                at = 0
                while at < len(events):
                    _watch, mask, _cookie, length = _HEADER.unpack_from(events, at)
                    at += _HEADER.size + length
                    lost = lost or bool(mask & (_OVERFLOW | _GONE | REMOVED))
                    if length:
                        names.add(os.fsdecode(events[at - length : at].rstrip(b"\0")))
        return None if lost else names

    def wait(self, *others: int, timeout: float | None = None) -> bool:
        """Sleep until something has happened here, or one of the other descriptors is readable; False at the timeout.

        timeout: seconds; None waits for ever.
        """
        poller = select.poll()
        for fd in (self.fd, *others):
            poller.register(fd, select.POLLIN)
        return bool(core.poll(poller, None if timeout is None else max(0.0, timeout) * 1000))
