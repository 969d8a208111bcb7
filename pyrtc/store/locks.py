"""File locks that end with their holder: flock(2), also between threads of one process.

A lock belongs to the open file, and a forked child shares open files; a child therefore closes its copies at once, or
a lock would outlive the process that took it.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from pyrtc.store.descriptors import Private

__all__ = ["Lock", "locked", "locked_if_free", "try_lock_directory", "try_lock_file"]


class Lock(Private):
    """A descriptor that holds, or waits for, a lock."""

    def close(self) -> None:
        """Unlock, and close the descriptor. May be called again.

        A program that another thread is starting at this moment has a copy of the descriptor until it executes: closing
        alone would leave it the lock until then.
        """
        if self.fd >= 0:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
        super().close()


def try_lock_directory(parent_fd: int, name: str) -> Lock | None:
    """Lock a directory; None when it is locked by someone, or gone."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        try:
            fd = os.open(name, flags, dir_fd=parent_fd)
        except PermissionError:
            # An ordinary user's layer whose root nobody may read. Whoever locks a directory is about to move it.
            os.chmod(name, 0o700, dir_fd=parent_fd)
            fd = os.open(name, flags, dir_fd=parent_fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    lock = Lock(fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    if os.fstat(fd).st_nlink == 0:  # removed between open and lock
        lock.close()
        return None
    return lock


def try_lock_file(directory_fd: int, name: str) -> Lock | None:
    """Lock a file that exists; None when it is locked by someone, or gone."""
    try:
        lock = Lock(os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd))
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    if os.fstat(lock.fd).st_nlink == 0:
        lock.close()
        return None
    return lock


@contextmanager
def locked(directory_fd: int, names: Sequence[str]) -> Iterator[None]:
    """Hold the locks of these names, waiting for each; their files are gone afterwards.

    Taken in sorted order, so that two processes which want overlapping sets cannot wait for each other.
    """
    held: list[tuple[str, Lock]] = []
    try:
        for name in sorted(set(names)):
            held.append((name, _wait_for(directory_fd, name)))
        yield
    finally:
        for name, lock in reversed(held):
            # Unlinked while held: whoever waits on this file finds it unlinked and takes a new one.
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory_fd)
            lock.close()


@contextmanager
def locked_if_free(directory_fd: int, name: str) -> Iterator[bool]:
    """Hold the lock of this name, unless somebody does: then the block is told so."""
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)
    lock = Lock(fd)
    held = False
    try:
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(fd).st_nlink > 0
        yield held
    finally:
        if held:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory_fd)
        lock.close()


def _wait_for(directory_fd: int, name: str) -> Lock:
    while True:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)
        lock = Lock(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return lock
        except BaseException:
            lock.close()
            raise
        lock.close()
