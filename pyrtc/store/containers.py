"""Containers: one row each while they exist, and a directory where they keep what they write.

A row is written before anything else of the container exists, and names its owner; so whatever a killed process leaves
is found by the next command (`reap`).
"""

import os
import re
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import zip_longest
from typing import Any

from pyrtc.errors import ContainerError, ContainerNotFound, ImageNotFound, StoreError, UsageError
from pyrtc.store.container_rows import COLUMNS, FOREGROUND, ContainerRecord, read_record
from pyrtc.store.database import Database
from pyrtc.store.names import random_name
from pyrtc.store.owner import Owner, kill_process
from pyrtc.store.rw_directories import RwDirectories
from pyrtc.store.specs import Specs
from pyrtc.store.staging import Staging
from pyrtc.store.volumes import Volumes
from pyrtc.values import dataclass

__all__ = ["Containers", "Reaped", "new_id"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Reaped:
    """A container whose owner had died. removed: its row and directory are gone, else it is ``exited`` without a code.

    Its cgroup, named after id, is the caller's to remove. networked: so is what its networks had outside of the store.
    """

    id: str
    name: str
    removed: bool
    networked: bool = False


class Containers:
    """The containers of one store."""

    def __init__(
        self, fd: int, path: str, staging: Staging, database: Database, volumes: Volumes, specs: Specs
    ) -> None:
        self.fd = fd
        self.specs = specs
        self.path = path
        self._staging = staging
        self._database = database
        self._volumes = volumes
        self._directories = RwDirectories(fd, staging)

    def close(self) -> None:
        """Remove directories that were kept for containers to come."""
        self._directories.close()

    def allocate(
        self,
        *,
        name: str | None,
        image_id: str,
        options_json: bytes,
        directory: bool,
        remove: bool = True,
        volumes: Sequence[str] = (),
        targets: Sequence[str] = (),
        container_id: str | None = None,
        elsewhere: bool = False,
        detached: int = FOREGROUND,
        spec: bytes | None = None,
        snapshot: str = "",
    ) -> ContainerRecord:
        """Give a container its id, name, row (``creating``, owned by this process) and directory.

        Parameters
        ----------
        name: None for a generated one. image_id: ``sha256:...``, or any other word for a root that is no image.
        directory: make ``upper`` (0755) and ``work`` for what it writes. remove: it goes when it has ended.
        volumes: names of the volumes it mounts; they cannot be removed before it, anonymous ones go with it. targets:
        where each is mounted.
        container_id: what `new_id` returned, for a caller that wants to know it before anything is made.
        elsewhere: the image is in an additional store. detached, spec: as in ContainerRecord. snapshot: the id of
        one that it stands on, which cannot be removed before it.

        Raises
        ------
        UsageError: the name breaks the rules. ContainerError: it is taken. ImageNotFound: the image has gone meanwhile.
        """
        if name is not None:
            self.check_name(name)
        container_id = container_id or new_id()
        owner = Owner.current()
        created = time.time()
        attempt = 0
        while True:
            chosen = name or random_name(attempt)
            values = (
                container_id, chosen, image_id, remove, directory, created, owner.pid, owner.start_time, owner.boot,
                options_json, detached, self.specs.said(spec),
            )  # fmt: skip
            try:
                written = self._insert(values, volumes, targets, snapshot, elsewhere=elsewhere)
                break
            except sqlite3.IntegrityError as error:
                if "containers.name" not in str(error):
                    raise StoreError(
                        f"cannot record the container: {error}: is a volume missing, or the snapshot?"
                    ) from error
                if name is not None:
                    raise ContainerError(self.conflict(name)) from None
                attempt += 1
        if not written:
            raise ImageNotFound(f"No such image: {image_id}: it was removed while the container was being made")
        path = None
        try:
            self.specs.keep(container_id, spec, durable=not remove)
        except StoreError:
            self.remove(container_id)
            raise
        if directory:
            path = f"{self.path}/{container_id}"
            try:
                self._directories.make(container_id, passing=remove and detached == FOREGROUND)
            except OSError as error:
                self.remove(container_id)
                raise StoreError(f"cannot make the container's directory {path}: {error.strerror}") from error
        return ContainerRecord(
            container_id, chosen, image_id, "creating", remove, path, created, owner, 0, 0, options_json, None,
            detached, spec=spec,
        )  # fmt: skip

    def _insert(
        self,
        values: tuple[object, ...],
        volumes: Sequence[str],
        targets: Sequence[str],
        snapshot: str,
        *,
        elsewhere: bool,
    ) -> int:
        # The image is looked at in the same transaction, so it cannot vanish between look-up and row.
        statement = (
            "INSERT INTO containers (id, name, image_id, state, remove, directory, created, owner_pid, owner_start, "
            "owner_boot, options, detached, spec) SELECT ?1, ?2, ?3, 'creating', ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12 "
            "WHERE ?13 OR substr(?3, 1, 7) != 'sha256:' OR EXISTS (SELECT 1 FROM images WHERE id = ?3)"
        )
        values = (*values, elsewhere)
        if not volumes and not snapshot:
            return self._database.execute(statement, values)
        with self._database.writing() as connection:
            written = connection.execute(statement, values).rowcount
            if written and snapshot:
                connection.execute("INSERT INTO container_snapshots VALUES (?, ?)", (values[0], snapshot))
            if written:
                connection.executemany(
                    "INSERT OR IGNORE INTO container_volumes (container_id, volume, target) VALUES (?, ?, ?)",
                    [(values[0], volume, target) for volume, target in zip_longest(volumes, targets, fillvalue="")],
                )
        return written

    @staticmethod
    def check_name(name: str) -> None:
        """Refuse a name that breaks the rules (UsageError)."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, two characters at least"
            )

    def conflict(self, name: str) -> str:
        """Say that a name is taken, in Docker's words."""
        row = self._database.row("SELECT id FROM containers WHERE name = ?", (name,))
        holder = f'by container "{row[0]}"' if row else "by another container"
        return (
            f'Conflict. The container name "/{name}" is already in use {holder}. You have to remove (or rename) that '
            "container to be able to reuse that name."
        )

    def started(self, container_id: str, pid: int, start_time: int) -> None:
        """Record the container's first process and that it runs."""
        self._update(
            "UPDATE containers SET state = 'running', pid = ?, pid_start = ? WHERE id = ?",
            (pid, start_time, container_id),
        )

    def exited(self, container_id: str, exit_json: bytes, usage_json: bytes | None = None, wall: float = 0.0) -> None:
        """Record how a container that is kept has ended. wall: seconds since its start."""
        finished = time.time()
        self._update(
            "UPDATE containers SET state = 'exited', exit = ?, usage = ?, started = ?, finished = ? WHERE id = ?",
            (exit_json, usage_json, finished - wall, finished, container_id),
        )

    def _update(self, statement: str, values: tuple[object, ...]) -> None:
        if not self._database.execute(statement, values):
            raise ContainerNotFound(f"No such container: {values[-1]}")

    def remove(self, container_id: str, *, volumes: bool = True) -> None:
        """Remove a row, then the directory and, with volumes, the anonymous ones of it. One that is gone is fine."""
        anonymous = self._anonymous_volumes(container_id) if volumes else ()
        self._database.execute("DELETE FROM containers WHERE id = ?", (container_id,))
        self.specs.forget(container_id)
        self._directories.remove(container_id)
        for volume in anonymous:
            with suppress(StoreError):  # another container shares it by now
                self._volumes.remove(volume)

    def _anonymous_volumes(self, container_id: str) -> tuple[str, ...]:
        rows = self._database.rows(
            "SELECT name FROM container_volumes JOIN volumes ON name = volume WHERE container_id = ? AND anonymous",
            (container_id,),
        )
        return tuple(row[0] for row in rows)

    def anonymous_volumes(self, container_id: str) -> dict[str, str]:
        """Return the anonymous volumes that a container mounts, by their targets."""
        rows = self._database.rows(
            "SELECT target, name FROM container_volumes JOIN volumes ON name = volume "
            "WHERE container_id = ? AND anonymous",
            (container_id,),
        )
        return dict(rows)

    def volumes_of(self, container_id: str) -> tuple[tuple[str, str], ...]:
        """Return the name of each volume that a container mounts, and where."""
        rows = self._database.rows(
            "SELECT volume, target FROM container_volumes WHERE container_id = ? ORDER BY target, volume",
            (container_id,),
        )
        return tuple((volume, target) for volume, target in rows)

    def id_ranges(self) -> frozenset[int]:
        """Return the first ids of the ranges that containers of this store had when they ran, and get again."""
        return frozenset(row[0] for row in self._database.rows("SELECT ids FROM containers WHERE ids IS NOT NULL"))

    def get(self, name_or_id: str) -> ContainerRecord:
        """Find a container by id, by name, or by an id prefix that only one has.

        Raises
        ------
        ContainerNotFound: there is none. ContainerError: the prefix fits several.
        """
        name = name_or_id.removeprefix("/")
        query = f"SELECT {COLUMNS} FROM containers WHERE "  # noqa: S608
        rows = self._database.rows(query + "id = ?1 OR name = ?1 ORDER BY id = ?1 DESC LIMIT 1", (name,))
        if not rows and name and all(digit in "0123456789abcdef" for digit in name):
            rows = self._database.rows(query + "id >= ? AND id < ? LIMIT 2", (name, f"{name}g"))
        if not rows:
            raise ContainerNotFound(f"No such container: {name_or_id}")
        if len(rows) > 1:
            raise ContainerError(f"container id {name_or_id} is ambiguous: several containers begin with it")
        return self._record(rows[0])

    def list(self) -> tuple[ContainerRecord, ...]:
        """Return all containers, the newest first."""
        query = f"SELECT {COLUMNS} FROM containers ORDER BY created DESC, id"  # noqa: S608
        return tuple(self._record(row) for row in self._database.rows(query))

    def _record(self, row: tuple[Any, ...]) -> ContainerRecord:
        return read_record(row, self.path, self.specs.read(row[0], row[21]))

    def reap(self) -> tuple[Reaped, ...]:
        """Put right what dead owners left: kill what still runs, remove what was to go, mark the rest as exited.

        Their control groups go, too, as nobody else knows of them once the row is gone or says that they have ended.
        Containers that have a monitor are `pyrtc.ended`'s to look after.
        """
        me = Owner.current()
        rows = self._database.rows(
            f"SELECT {COLUMNS} FROM containers WHERE state IN ('creating', 'running') "  # noqa: S608
            "AND NOT (owner_pid = ? AND owner_start = ? AND owner_boot = ?)",
            (me.pid, me.start_time, me.boot),
        )
        reaped = []
        for record in (self._record(row) for row in rows):
            if record.owner.alive() or (record.detached and record.state == "running"):
                continue
            if record.pid and record.owner.boot == me.boot:
                kill_process(record.pid, record.start_time)
            if record.remove or record.state == "creating":
                with suppress(StoreError):  # its row is gone; what cannot be removed is `Store.sweep`'s to explain
                    self.remove(record.id)
                reaped.append(Reaped(record.id, record.name, removed=True, networked=_networked(record)))
            else:
                # Only if nobody was quicker: another command may be reaping the same container.
                self._database.execute(
                    "UPDATE containers SET state = 'exited' WHERE id = ? AND state = 'running'", (record.id,)
                )
                reaped.append(Reaped(record.id, record.name, removed=False, networked=_networked(record)))
        if reaped:
            from pyrtc.runtime.cgroups import Cgroup

            for container in reaped:
                with suppress(ContainerNotFound):
                    Cgroup.open(container.id).remove()
        return tuple(reaped)

    def orphans(self) -> "tuple[str, ...]":
        """Return the names of directories that no row names."""
        # Directories first, rows second: a container that is made in between is in the second list.
        present = os.listdir(self.fd)
        if not present:
            return ()
        known = {row[0] for row in self._database.rows("SELECT id FROM containers")}
        return tuple(name for name in present if name not in known)

    def abandoned(self) -> "tuple[ContainerRecord, ...]":
        """Return what `reap` would put right: containers that are under way, and whose owners are gone."""
        rows = self._database.rows(
            f"SELECT {COLUMNS} FROM containers WHERE state IN ('creating', 'running')"  # noqa: S608
        )
        return tuple(
            record
            for record in (self._record(row) for row in rows)
            if not record.owner.alive() and not (record.detached and record.state == "running")
        )

    def watched(self) -> "tuple[ContainerRecord, ...]":
        """Return the containers with a monitor that are under way, and all that go with their owners."""
        rows = self._database.rows(
            f"SELECT {COLUMNS} FROM containers WHERE detached = 2 OR "  # noqa: S608
            "(detached AND state IN ('running', 'restarting'))"
        )
        return tuple(self._record(row) for row in rows)

    def sweep(self) -> int:
        """Remove directories that no row names; return how many."""
        orphans = self.orphans()
        for name in orphans:
            self._staging.discard(self.fd, name)
        return len(orphans) + self.specs.sweep(self._database)


def _networked(record: ContainerRecord) -> bool:
    return '"networks": ' in (record.options or b"").decode(errors="replace")


def new_id() -> str:
    """Return an id that no container has."""
    return os.urandom(32).hex()
