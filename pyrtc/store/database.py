"""The store's metadata: SQLite in WAL mode, used by many threads of many processes at once.

Connections are kept in a pool and lent to one thread at a time, so threads may come and go. None exists while the
process forks: SQLite keeps the process's file locks in memory, and a child that inherits them would take the parent's
for its own.

Every write is one immediate transaction: a transaction that starts by reading and then wants to write cannot be made to
wait by SQLite, it fails. Writers of this process queue on a lock, those of other processes on SQLite's (up to 60 s).
"""

import fcntl
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from pyrtc.errors import StoreError
from pyrtc.store.schema import MIGRATIONS

__all__ = ["BUSY_TIMEOUT", "Database"]

BUSY_TIMEOUT = 60.0  # seconds
_FORK_PATIENCE = 10.0  # seconds that a fork waits for transactions of other threads
_CHECKPOINT_PAGES = 4000  # of 4 KiB: a checkpoint costs one fsync, so it should come rarely
_APPLICATION_ID = 0x50595254  # "PYRT"


class Database:
    """The open database of one store.

    Parameters
    ----------
    path: the file; made when missing.
    root_fd: the store's directory, locked while the schema is made or changed. read_only: nothing is made or changed,
    and the database may be another user's.

    Raises
    ------
    StoreError: it is damaged, from a newer pyrtc, or on a file system that cannot hold it.
    """

    def __init__(self, path: str | os.PathLike[str], root_fd: int, *, read_only: bool = False) -> None:
        self.path = os.fspath(path)
        self._directory = os.path.dirname(self.path)
        self._read_only = read_only
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._lent = 0
        self._closed = False
        self._fork_holds_write = False
        with self.reading() as connection:
            version = self._version(connection)
            if read_only and version != len(MIGRATIONS):
                raise StoreError(
                    f"the store {self._directory} was written by an older pyrtc (format {version}, this one knows "
                    f"{len(MIGRATIONS)}): whoever owns it must use it once with this version"
                )
            if version != len(MIGRATIONS):
                # flock on the directory's own description: the lock ends with this block whatever happens.
                lock = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    self._migrate(connection)
                finally:
                    os.close(lock)
        _databases.add(self)

    def _version(self, connection: sqlite3.Connection) -> int:
        try:
            version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            raise StoreError(f"cannot read the store's database {self.path}: {error}") from error
        if version > len(MIGRATIONS):
            raise StoreError(
                f"the store {self._directory} was written by a newer pyrtc (format {version}, this one knows "
                f"{len(MIGRATIONS)}): upgrade pyrtc, or choose another store with --root"
            )
        return version

    def _migrate(self, connection: sqlite3.Connection) -> None:
        version = self._version(connection)
        if version == len(MIGRATIONS):
            return
        try:
            # The mode is a property of the file; setting it on every open is what makes SQLite say "locked".
            if version == 0 and connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
                raise StoreError(f"the file system of {self._directory} cannot hold the store: no shared memory maps")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN IMMEDIATE")
            try:
                for statements in MIGRATIONS[version:]:
                    for statement in statements:
                        connection.execute(statement)
                connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("PRAGMA synchronous=NORMAL")
        except sqlite3.Error as error:
            raise StoreError(f"cannot make the store's database {self.path}: {error}") from error

    def _open_read_only(self) -> sqlite3.Connection:
        """Open without making anything.

        A database in WAL mode that nobody has open has no -wal and -shm files, which a reader who may not write cannot
        make; then the one file is all there is, and it is read as one that does not change.
        """
        from urllib.parse import quote

        name = quote(self.path)
        try:
            connection = self._connect(f"file:{name}?mode=ro")
            connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.OperationalError as error:
            if not os.path.exists(self.path) or os.path.exists(f"{self.path}-wal"):
                raise StoreError(f"cannot read the store's database {self.path}: {error}") from error
            connection = self._connect(f"file:{name}?immutable=1")
        return connection

    def _connect(self, name: str) -> sqlite3.Connection:
        return sqlite3.connect(
            name, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=64, uri=True
        )

    def _open(self) -> sqlite3.Connection:
        if self._read_only:
            return self._open_read_only()
        try:
            connection = sqlite3.connect(
                self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=64
            )
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        except sqlite3.Error as error:
            raise StoreError(f"cannot open the store's database {self.path}: {error}") from error
        return connection

    def lend(self) -> sqlite3.Connection:
        """Take a connection out of the pool, or open one. Give it back with `give_back`, in no transaction."""
        with self._lock:
            if self._closed:
                raise StoreError(f"the store {self._directory} is closed")
            self._lent += 1
            if self._idle:
                return self._idle.pop()
        try:
            return self._open()
        except BaseException:
            with self._lock:
                self._lent -= 1
            raise

    def give_back(self, connection: sqlite3.Connection) -> None:
        """Put a connection back; one that is in the middle of something is closed instead."""
        sound = not connection.in_transaction
        with self._lock:
            self._lent -= 1
            if sound and not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def reading(self) -> "_Reading":
        """Lend a connection for a block of reads."""
        return _Reading(self)

    @contextmanager
    def writing(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction, committed when the block ends and rolled back when it raises.

        durable: on the disk when the block has ended; else after the next checkpoint at the latest, and whole in any
        case.
        """
        with self._write_lock:
            connection = self.lend()
            try:
                if durable:
                    connection.execute("PRAGMA synchronous=FULL")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
                if durable:
                    connection.execute("PRAGMA synchronous=NORMAL")
            except sqlite3.OperationalError as error:
                raise StoreError(f"cannot write the store's database {self.path}: {error}") from error
            finally:
                self.give_back(connection)

    def execute(self, statement: str, values: Sequence[object] = ()) -> int:
        """Run one writing statement as a transaction of its own; return how many rows it touched."""
        with self._write_lock:
            connection = self.lend()
            try:
                return connection.execute(statement, values).rowcount
            except sqlite3.OperationalError as error:
                raise StoreError(f"cannot write the store's database {self.path}: {error}") from error
            finally:
                self.give_back(connection)

    def rows(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """Return all rows of one query."""
        connection = self.lend()
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise StoreError(f"cannot read the store's database {self.path}: {error}") from error
        finally:
            self.give_back(connection)

    def row(self, query: str, values: Sequence[object] = ()) -> Any | None:  # noqa: ANN401  (a row of any shape)
        """Return the first row of one query, or None."""
        connection = self.lend()
        try:
            return connection.execute(query, values).fetchone()
        except sqlite3.DatabaseError as error:
            raise StoreError(f"cannot read the store's database {self.path}: {error}") from error
        finally:
            self.give_back(connection)

    def close(self) -> None:
        """Close every connection; those lent are closed when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def before_fork(self) -> None:
        """Wait until no transaction runs, close every connection and hold new ones off."""
        deadline = time.monotonic() + _FORK_PATIENCE
        self._fork_holds_write = self._write_lock.acquire(timeout=_FORK_PATIENCE)
        self._lock.acquire()
        while self._lent and time.monotonic() < deadline:
            self._lock.release()
            time.sleep(0.0005)
            self._lock.acquire()
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def after_fork(self, *, child: bool) -> None:
        """Go on, in the parent and in the child."""
        if child:
            self._lent = 0  # whoever was lent one is a thread of the parent
        self._lock.release()
        if self._fork_holds_write:
            self._write_lock.release()


class _Reading:
    """A connection for the time of a with block."""

    __slots__ = ("_connection", "_database")

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> sqlite3.Connection:
        self._connection = self._database.lend()
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.give_back(self._connection)


_databases: "weakref.WeakSet[Database]" = weakref.WeakSet()
_forking: list[Database] = []
_one_fork = threading.Lock()


def _before_fork() -> None:
    _one_fork.acquire()
    _forking[:] = list(_databases)
    for database in _forking:
        database.before_fork()


def _after_fork(*, child: bool = False) -> None:
    while _forking:
        _forking.pop().after_fork(child=child)
    _one_fork.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=lambda: _after_fork(child=True))
