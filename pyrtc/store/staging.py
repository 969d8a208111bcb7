"""Where things are made before they have a name: directories below tmp/, each locked by the process that works in it.

A directory whose lock is free belongs to nobody any more; `sweep` removes it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyrtc.errors import StoreError
from pyrtc.store.descriptors import Private
from pyrtc.store.locks import try_lock_directory
from pyrtc.store.owner import Owner
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.store.trees import Trees

__all__ = ["Staging", "Trash"]


@dataclass(frozen=True, slots=True)
class Trash:
    """A directory below tmp/ that waits to be removed, locked against `Staging.sweep`."""

    name: str
    lock: Private


class Staging:
    """The tmp/ of one store."""

    def __init__(self, fd: int, trees: "Trees") -> None:
        self.fd = fd
        self.trees = trees

    @contextmanager
    def directory(self) -> Iterator[int]:
        """Make a private directory and give its descriptor; it is removed with what is left in it."""
        name, lock = self._make()
        try:
            yield lock.fd
        finally:
            try:
                self.trees.remove(self.fd, name)
            finally:
                lock.close()

    def _make(self) -> tuple[str, Private]:
        for _ in range(100):
            name = f"{Owner.current().token}-{os.urandom(6).hex()}"
            os.mkdir(name, 0o700, dir_fd=self.fd)
            # A sweep that comes between mkdir and lock takes the directory for a dead one: then try another.
            lock = try_lock_directory(self.fd, name)
            if lock is not None:
                return name, lock
        raise StoreError("cannot make a directory below tmp/ of the store: something removes each at once")

    def take(self, parent_fd: int, name: str) -> "Trash | None":
        """Take a directory out of its place at once; None when it is gone, or someone else is taking it."""
        lock = try_lock_directory(parent_fd, name)
        if lock is None:
            return None
        trash = f"{Owner.current().token}-{os.urandom(6).hex()}"
        try:
            self.trees.move(name, trash, source_fd=parent_fd, target_fd=self.fd)
        except FileNotFoundError:
            lock.close()
            return None
        return Trash(trash, lock)

    def destroy(self, trash: "Trash") -> None:
        """Remove what `take` took."""
        try:
            self.trees.remove(self.fd, trash.name)
        finally:
            trash.lock.close()

    def discard(self, parent_fd: int, name: str) -> None:
        """Take a directory out of its place and remove it; missing is fine."""
        trash = self.take(parent_fd, name)
        if trash is not None:
            self.destroy(trash)

    def abandoned(self) -> "Iterator[str]":
        """Yield the names of what dead processes left, each locked while it is looked at."""
        for name in os.listdir(self.fd):
            lock = try_lock_directory(self.fd, name)
            if lock is not None:
                try:
                    yield name
                finally:
                    lock.close()

    def sweep(self) -> int:
        """Remove what dead processes left; return how many directories and files.

        Raises
        ------
        StoreError: after all others were removed, the first that could not be.
        """
        removed, failure = 0, None
        for name in os.listdir(self.fd):
            lock = try_lock_directory(self.fd, name)
            if lock is not None:
                try:
                    self.trees.remove(self.fd, name)
                    removed += 1
                except StoreError as error:
                    failure = failure or error
                finally:
                    lock.close()
        if failure is not None:
            raise failure
        return removed
