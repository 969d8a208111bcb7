"""Layers that came half: partial/<digest>, what a pull that was interrupted had fetched, for the next one to go on.

Each file is locked by the process that writes it, and is nobody's when its lock is free. Nothing here is believed:
whoever goes on hashes all of it.
"""

import fcntl
import os
import time
from contextlib import suppress

from pyrtc.store.locks import Lock, try_lock_file

__all__ = ["KEPT_FOR", "Partials"]

KEPT_FOR = 24 * 3600.0  # seconds; then `Store.sweep` removes it


class Partials:
    """The partial/ of one store."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @staticmethod
    def name(digest: str) -> str:
        """Return the name of a blob's file."""
        return digest.replace(":", "-")

    def open(self, digest: str) -> Lock | None:
        """Open and lock the file of a blob, which may be empty; None while somebody else is fetching it."""
        name = self.name(digest)
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            file = Lock(os.open(name, flags, 0o600, dir_fd=self.fd))
            try:
                fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fd), os.stat(name, dir_fd=self.fd, follow_symlinks=False)):
                    return file
            file.close()  # removed between open and lock

    def size(self, digest: str) -> int:
        """Return how many bytes of a blob are there."""
        with suppress(FileNotFoundError):
            return os.stat(self.name(digest), dir_fd=self.fd, follow_symlinks=False).st_size
        return 0

    def discard(self, digest: str) -> None:
        """Remove the file of a blob; the caller holds its lock, and no other may go on with it."""
        with suppress(FileNotFoundError):
            os.unlink(self.name(digest), dir_fd=self.fd)

    def abandoned(self) -> tuple[int, ...]:
        """Return the bytes on the disk of each file that nobody is writing."""
        return tuple(size for _, size in self._unlocked(remove_before=0.0))

    def sweep(self, *, older: float = KEPT_FOR) -> tuple[int, int]:
        """Remove files that nobody has written for so many seconds; return how many, and their bytes on the disk."""
        sizes = [size for gone, size in self._unlocked(remove_before=time.time() - older) if gone]
        return len(sizes), sum(sizes)

    def _unlocked(self, *, remove_before: float) -> list[tuple[bool, int]]:
        """Look at each file that nobody holds; return whether it was removed, and its bytes on the disk."""
        found = []
        for name in os.listdir(self.fd):
            lock = try_lock_file(self.fd, name)
            if lock is None:
                continue
            status = os.fstat(lock.fd)
            old = status.st_mtime <= remove_before
            if old:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self.fd)
            # A file that a blob of the store shares with it gives nothing back.
            found.append((old, status.st_blocks * 512 if status.st_nlink == 1 else 0))
            lock.close()
        return found
