"""Where things are made before they have a name: directories below tmp/, each locked by the process that works in it.

A directory whose lock is free belongs to nobody any more; `sweep` removes it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pyrtc import core
from pyrtc.errors import StoreError
from pyrtc.store.locks import HeldLock, try_lock_directory
from pyrtc.store.owner import Owner

__all__ = ["Staging"]


class Staging:
    """The tmp/ of one store."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @contextmanager
    def directory(self) -> Iterator[int]:
        """Make a private directory and give its descriptor; it is removed with what is left in it."""
        name, lock = self._make()
        try:
            yield lock.fd
        finally:
            try:
                core.remove_tree(self.fd, name)
            finally:
                lock.release()

    def _make(self) -> tuple[str, HeldLock]:
        for _ in range(100):
            name = f"{Owner.current().token}-{os.urandom(6).hex()}"
            os.mkdir(name, 0o700, dir_fd=self.fd)
            # A sweep that comes between mkdir and lock takes the directory for a dead one: then try another.
            lock = try_lock_directory(self.fd, name)
            if lock is not None:
                return name, lock
        raise StoreError("cannot make a directory below tmp/ of the store: something removes each at once")

    def discard(self, parent_fd: int, name: str) -> None:
        """Take a directory out of its place at once and remove it; missing is fine."""
        lock = try_lock_directory(parent_fd, name)
        if lock is None:
            return  # someone else is at it
        try:
            trash = f"{Owner.current().token}-{os.urandom(6).hex()}"
            with suppress(FileNotFoundError):
                os.rename(name, trash, src_dir_fd=parent_fd, dst_dir_fd=self.fd)
                core.remove_tree(self.fd, trash)
        finally:
            lock.release()

    def sweep(self) -> int:
        """Remove what dead processes left; return how many directories and files."""
        removed = 0
        for name in os.listdir(self.fd):  # noqa: PTH208  (a descriptor)
            lock = try_lock_directory(self.fd, name)
            if lock is not None:
                try:
                    core.remove_tree(self.fd, name)
                finally:
                    lock.release()
                removed += 1
        return removed
