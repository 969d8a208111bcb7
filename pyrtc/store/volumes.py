"""Named volumes: volumes/<name>/data, made once, filled from an image by their first user, kept until removed."""

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pyrtc import core
from pyrtc.errors import StoreError, UsageError
from pyrtc.events import HasRoot, emit
from pyrtc.store.database import Database
from pyrtc.store.locks import locked
from pyrtc.store.staging import Staging
from pyrtc.values import dataclass

__all__ = ["Volume", "Volumes"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}")
_NEVER, _BEGAN, _DONE = range(3)
_COLUMNS = "name, anonymous, filled, created, labels"
_Row = tuple[str, int, int, float, str]


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume.

    path: absolute path of its data. filled: its first user has had it. anonymous: it goes with its container. labels:
    what it was made with.
    """

    name: str
    path: str
    filled: bool
    anonymous: bool
    created: float
    labels: tuple[tuple[str, str], ...] = ()


class Volumes:
    """The volumes of one store."""

    def __init__(self, fd: int, path: str, locks_fd: int, staging: Staging, database: Database, store: HasRoot) -> None:
        self.fd = fd
        self._store = store
        self.path = path
        self._locks_fd = locks_fd
        self._staging = staging
        self._database = database

    def create(self, name: str = "", labels: Sequence[tuple[str, str]] = ()) -> Volume:
        """Return the volume of this name, made when missing; an empty name makes an anonymous one.

        labels: of one that is made here; one that is there keeps its own.

        Raises
        ------
        UsageError: the name breaks the rules. StoreError: it cannot be made.
        """
        anonymous = not name
        name = name or os.urandom(32).hex()
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"Invalid volume name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, two characters at least; "
                "a directory of the host needs an absolute path"
            )
        with locked(self._locks_fd, [f"volume-{name}"]):
            row = self._row(name)
            if row is not None:
                return self._volume(row)
            # A directory without a row is a removal that was cut short: its data were given up.
            self._staging.discard(self.fd, name)
            with self._staging.directory() as staging:
                os.mkdir(name, 0o700, dir_fd=staging)
                self._make_data(staging, name)
                os.rename(name, name, src_dir_fd=staging, dst_dir_fd=self.fd)
            os.fsync(self.fd)
            created = time.time()
            with self._database.writing(durable=True) as connection:
                connection.execute(
                    "INSERT INTO volumes (name, anonymous, filled, created, labels) VALUES (?, ?, ?, ?, ?)",
                    (name, anonymous, _NEVER, created, json.dumps(dict(labels))),
                )
        emit(self._store, "volume", "create", name, {"driver": "local"})
        kept = tuple(dict(labels).items())
        return Volume(name, self._data(name), filled=False, anonymous=anonymous, created=created, labels=kept)

    def get(self, name: str) -> Volume:
        """Return a volume that exists.

        Raises
        ------
        StoreError: it does not.
        """
        row = self._row(name)
        if row is None:
            raise StoreError(f"no such volume: {name}")
        return self._volume(row)

    def list(self) -> tuple[Volume, ...]:
        """Return all volumes by name."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM volumes ORDER BY name")  # noqa: S608
        return tuple(self._volume(row) for row in rows)

    def remove(self, name: str) -> None:
        """Remove a volume with its data.

        Raises
        ------
        StoreError: there is none, or a container uses it.
        """
        with locked(self._locks_fd, [f"volume-{name}"]):
            with self._database.writing(durable=True) as connection:
                users = connection.execute(
                    "SELECT container_id FROM container_volumes WHERE volume = ?", (name,)
                ).fetchall()
                if users:
                    holders = ", ".join(row[0] for row in users)
                    raise StoreError(f"remove {name}: volume is in use - [{holders}]")
                if not connection.execute("DELETE FROM volumes WHERE name = ?", (name,)).rowcount:
                    raise StoreError(f"no such volume: {name}")
            self._staging.discard(self.fd, name)
        emit(self._store, "volume", "destroy", name, {"driver": "local"})

    @contextmanager
    def filling(self, name: str) -> Iterator[str | None]:
        """Give the first user the empty data directory to fill, and everybody else None.

        Others wait meanwhile. If the block raises or its process dies, what it wrote is thrown away and the next is
        first. Data that came in another way count as filled.
        """
        with locked(self._locks_fd, [f"volume-{name}"]):
            row = self._row(name)
            if row is None:
                raise StoreError(f"no such volume: {name}")
            state = row[2]
            if state == _BEGAN:
                self._clear(name)
            elif state == _DONE:
                yield None
                return
            elif not self._is_empty(name):
                self._mark(name, _DONE)
                yield None
                return
            # Durable marks: after a power failure "began" must be known to be so, and "done" must be true.
            self._mark(name, _BEGAN)
            try:
                yield self._data(name)
                if not self._is_empty(name):
                    core.sync_filesystem(self.fd)
            except BaseException:
                self._clear(name)
                self._mark(name, _NEVER)
                raise
            self._mark(name, _DONE)

    def _is_empty(self, name: str) -> bool:
        try:
            return not os.listdir(self._data(name))
        except PermissionError:  # it belongs to an id that only a container has given it to
            return False

    def orphans(self) -> "tuple[str, ...]":
        """Return the names of directories that no row names; one may be a volume that is being made."""
        known = {row[0] for row in self._database.rows("SELECT name FROM volumes")}
        return tuple(name for name in os.listdir(self.fd) if name not in known)

    def users(self) -> dict[str, tuple[str, ...]]:
        """Return which containers mount each volume that any does."""
        found: dict[str, tuple[str, ...]] = {}
        for volume, container_id in self._database.rows("SELECT volume, container_id FROM container_volumes"):
            found[volume] = (*found.get(volume, ()), container_id)
        return found

    def sweep(self) -> int:
        """Remove directories that no row names; return how many."""
        removed = 0
        for name in self.orphans():
            with locked(self._locks_fd, [f"volume-{name}"]):
                if self._row(name) is None:
                    self._staging.discard(self.fd, name)
                    removed += 1
        return removed

    def _row(self, name: str) -> _Row | None:
        query = f"SELECT {_COLUMNS} FROM volumes WHERE name = ?"  # noqa: S608
        row: _Row | None = self._database.row(query, (name,))
        return row

    def _volume(self, row: _Row) -> Volume:
        name, anonymous, filled, created, labels = row
        return Volume(
            name,
            self._data(name),
            filled=filled == _DONE,
            anonymous=bool(anonymous),
            created=created,
            labels=tuple(json.loads(labels).items()),
        )

    def _data(self, name: str) -> str:
        return f"{self.path}/{name}/data"

    def _mark(self, name: str, state: int) -> None:
        with self._database.writing(durable=True) as connection:
            connection.execute("UPDATE volumes SET filled = ? WHERE name = ?", (state, name))

    def _make_data(self, parent_fd: int, name: str) -> None:
        os.mkdir(f"{name}/data", 0o755, dir_fd=parent_fd)
        os.chmod(f"{name}/data", 0o755, dir_fd=parent_fd)  # noqa: S103  (the usual mode, whatever the umask)

    def _clear(self, name: str) -> None:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            self._staging.trees.remove(fd, "data")
        finally:
            os.close(fd)
        self._make_data(self.fd, name)
