"""What containers were asked to be, variables with passwords included, where other users may not read it.

A store of one user has it in the rows of its database, which nobody else can reach. The database of a store that is
shared is readable for everybody: there each container's is a file below specs/ (0700), and its row only says so.
"""

import os
import sqlite3
from contextlib import suppress

from pyrtc.errors import StoreError
from pyrtc.store.database import Database

__all__ = ["Specs"]

_ASIDE = b""  # in a row: it is in a file


class Specs:
    """The specs/ of one store. aside: new ones go there."""

    def __init__(self, root_fd: int, *, aside: bool) -> None:
        self._root = root_fd
        self._aside = aside

    def said(self, spec: bytes | None) -> bytes | None:
        """Return what a container's row is to say of its options."""
        return spec if spec is None or not self._aside else _ASIDE

    def keep(self, container_id: str, spec: bytes | None, *, durable: bool) -> None:
        """Keep the options of a container that has a row, if they are not in that. durable: on the disk, too.

        Raises
        ------
        StoreError: they cannot be written.
        """
        if spec is None or not self._aside:
            return
        name = f"specs/{container_id}"
        new = f"{name}.{os.urandom(4).hex()}"
        try:
            with suppress(FileExistsError):
                os.mkdir("specs", 0o700, dir_fd=self._root)
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._root)
            with open(fd, "wb") as file:
                file.write(spec)
                file.flush()
                if durable:
                    os.fsync(fd)
            os.rename(new, name, src_dir_fd=self._root, dst_dir_fd=self._root)
        except OSError as error:
            raise StoreError(f"cannot keep the options of container {container_id}: {error.strerror}") from error

    def read(self, container_id: str, said: bytes | None) -> bytes | None:
        """Return a container's options. said: by its row. None where it has none, or has just been removed."""
        if said != _ASIDE:
            return said
        try:
            fd = os.open(f"specs/{container_id}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._root)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            return file.read()

    def forget(self, container_id: str) -> None:
        """Remove those of a container whose row is gone."""
        with suppress(FileNotFoundError):
            os.unlink(f"specs/{container_id}", dir_fd=self._root)

    def sweep(self, database: Database) -> int:
        """Remove files of containers without a row; return how many."""
        # Files first, rows second: a container has its row before its file.
        names = self._names()
        known = {row[0] for row in database.rows("SELECT id FROM containers")} if names else set()
        orphans = [name for name in names if name.partition(".")[0] not in known]
        for name in orphans:
            self.forget(name)
        return len(orphans)

    def _names(self) -> tuple[str, ...]:
        try:
            fd = os.open("specs", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
        except FileNotFoundError:
            return ()
        try:
            return tuple(os.listdir(fd))
        finally:
            os.close(fd)

    def hide(self, database: Database) -> None:
        """Take out of the database what was written before the store was shared, and what SQLite has left of it.

        Raises
        ------
        StoreError: others use the database all the time.
        """
        with database.writing(durable=True) as connection:
            rows = connection.execute("SELECT id, spec FROM containers WHERE length(spec) > 0").fetchall()
            for container_id, spec in rows:
                self.keep(container_id, spec, durable=True)
                connection.execute("UPDATE containers SET spec = ? WHERE id = ?", (_ASIDE, container_id))
        connection = database.lend()
        try:
            # Rows that are gone are still in pages that nothing uses, and in the log of changes.
            connection.execute("VACUUM")
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise sqlite3.OperationalError("database is locked")
        except sqlite3.OperationalError as error:
            raise StoreError(f"cannot hide the options of the store's containers: {error}: try again") from error
        finally:
            database.give_back(connection)

    def shows(self, database: Database) -> bool:
        """Say whether the database has options of a container."""
        return database.row("SELECT 1 FROM containers WHERE length(spec) > 0 LIMIT 1") is not None
