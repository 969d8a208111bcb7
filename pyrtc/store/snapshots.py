"""Snapshots: R/W layers of containers, frozen, on which any number of containers can stand.

snapshots/<id> is a tree like a layer's: once the row says that it is whole nothing changes it. Its name says nothing of
its content, which nobody has hashed: a snapshot belongs to this store and does not leave it.

The row comes first. A directory is moved or copied then, and the row made whole; whoever finds the row of a dead
process sees by the directory how far that came (`Snapshots.sweep`).
"""

import json
import os
import re
import sqlite3
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pyrtc import core
from pyrtc.errors import StoreError, UsageError
from pyrtc.store.container_rows import ContainerRecord
from pyrtc.store.containers import Containers, new_id
from pyrtc.store.database import Database
from pyrtc.store.owner import Owner
from pyrtc.store.staging import Staging
from pyrtc.values import dataclass

__all__ = ["SnapshotRecord", "Snapshots"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_COLUMNS = "id, name, image_id, image, parent, container, whole, durable, mount_points, created, owner_boot"
_MAX_CHAIN = 128
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """What the store knows of one snapshot.

    name: None for one without. image_id, image: what its container stood on, and how that was asked for. parent: the
    snapshot below it. container: the id of the container that it is of, which may be gone. path: of its tree. durable:
    it is on the disk; one that is not is lost when the machine goes down. lost: that has happened. mount_points: paths
    in it that are there only to be mounted on.
    """

    id: str
    name: str | None
    image_id: str
    image: str
    parent: str | None
    container: str
    path: str
    durable: bool
    lost: bool
    mount_points: tuple[str, ...]
    created: float


class Snapshots:
    """The snapshots/ of one store."""

    def __init__(self, root_fd: int, path: str, staging: Staging, database: Database, containers: Containers) -> None:
        self._root_fd = root_fd
        self.path = f"{path}/snapshots"
        self._staging = staging
        self._database = database
        self._containers = containers

    # ---- finding -------------------------------------------------------------------------------------------------

    def list(self) -> tuple[SnapshotRecord, ...]:
        """Return all snapshots that are whole, the newest first."""
        query = f"SELECT {_COLUMNS} FROM snapshots WHERE whole ORDER BY created DESC, id"  # noqa: S608
        return tuple(self._record(row) for row in self._database.rows(query))

    def get(self, name_or_id: str) -> SnapshotRecord:
        """Find a snapshot by name, id, or an id prefix that only one has.

        Raises
        ------
        StoreError: there is none, or the prefix fits several.
        """
        query = f"SELECT {_COLUMNS} FROM snapshots WHERE whole AND "  # noqa: S608
        rows = self._database.rows(query + "(id = ?1 OR name = ?1) ORDER BY id = ?1 DESC LIMIT 1", (name_or_id,))
        if not rows and re.fullmatch("[0-9a-f]+", name_or_id):
            rows = self._database.rows(query + "id >= ? AND id < ? LIMIT 2", (name_or_id, f"{name_or_id}g"))
        if not rows:
            raise StoreError(f"No such snapshot: {name_or_id}")
        if len(rows) > 1:
            raise StoreError(f"snapshot id {name_or_id} is ambiguous: several snapshots begin with it")
        return self._record(rows[0])

    def below(self, container_id: str) -> tuple[SnapshotRecord, ...]:
        """Return the snapshots that a container stands on, top first."""
        row = self._database.row("SELECT snapshot_id FROM container_snapshots WHERE container_id = ?", (container_id,))
        return self.chain(row[0]) if row else ()

    def chain(self, snapshot_id: str | None) -> tuple[SnapshotRecord, ...]:
        """Return a snapshot and those below it, top first."""
        found: list[SnapshotRecord] = []
        while snapshot_id is not None:
            query = f"SELECT {_COLUMNS} FROM snapshots WHERE id = ?"  # noqa: S608
            row = self._database.row(query, (snapshot_id,))
            if row is None:
                raise StoreError(f"No such snapshot: {snapshot_id}")
            found.append(self._record(row))
            snapshot_id = found[-1].parent
        return tuple(found)

    def users(self, snapshot_id: str) -> tuple[str, ...]:
        """Return the ids of the containers, then of the snapshots, that stand on one."""
        rows = self._database.rows(
            "SELECT container_id FROM container_snapshots WHERE snapshot_id = ?1 "
            "UNION ALL SELECT id FROM snapshots WHERE parent = ?1",
            (snapshot_id,),
        )
        return tuple(row[0] for row in rows)

    def _record(self, row: Sequence[Any]) -> SnapshotRecord:
        identity, name, image_id, image, parent, container, _whole, durable, points, created, boot = row
        lost = not durable and boot.partition(" ")[0] != Owner.current().boot.partition(" ")[0]
        return SnapshotRecord(
            identity, name, image_id, image, parent, container, f"{self.path}/{identity}", bool(durable), lost,
            tuple(json.loads(points)), created,
        )  # fmt: skip

    # ---- making --------------------------------------------------------------------------------------------------

    def take(
        self, record: ContainerRecord, image: str, *, name: str | None, durable: bool, mount_points: Sequence[str]
    ) -> SnapshotRecord:
        """Make the R/W layer of a container whose processes are gone a snapshot, by moving it.

        The container, if it is kept, has an empty R/W layer above it then. The caller holds the container.

        Raises
        ------
        UsageError: the name breaks the rules. StoreError: it is taken; the directory cannot be moved.
        """
        identity = self._begin(record, image, name, durable, mount_points, follows=True)
        with self._open() as fd:
            self._move_upper(record.id, identity, fd)
            if durable:
                core.sync_filesystem(fd)
            return self._finish(identity, durable=durable)

    def copy(
        self,
        record: ContainerRecord,
        image: str,
        tree_fd: int,
        *,
        name: str | None,
        durable: bool,
        mount_points: Sequence[str],
        whole: bool = False,
    ) -> SnapshotRecord:
        """Make a snapshot of a copy of a container's R/W layer, which nobody changes meanwhile. Raises as `take`.

        whole: it is all of the container's root, and hides what is below.
        """
        identity = self._begin(record, image, name, durable, mount_points, follows=False)
        try:
            with self._open() as fd, self._staging.directory() as staging:
                os.mkdir(identity, 0o755, dir_fd=staging)
                target = os.open(identity, _DIRECTORY, dir_fd=staging)
                try:
                    self._staging.trees.copy_layer(tree_fd, target)
                    if whole:
                        os.setxattr(target, f"{'user' if os.geteuid() else 'trusted'}.overlay.opaque", b"y")
                    if durable:
                        core.sync_filesystem(target)
                finally:
                    os.close(target)
                self._staging.trees.move(identity, identity, source_fd=staging, target_fd=fd)
                os.fsync(fd)
                return self._finish(identity, durable=durable)
        except BaseException:
            self._database.execute("DELETE FROM snapshots WHERE id = ? AND whole = 0", (identity,))
            raise

    def _begin(
        self,
        record: ContainerRecord,
        image: str,
        name: str | None,
        durable: bool,
        mount_points: Sequence[str],
        *,
        follows: bool,
    ) -> str:
        """Write the row. follows: the container stands on the snapshot from now on."""
        if name is not None and not _NAME.fullmatch(name):
            raise UsageError(
                f"Invalid snapshot name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, two characters at least"
            )
        below = self.below(record.id)
        if len(below) >= _MAX_CHAIN:
            raise StoreError(f"{_MAX_CHAIN} snapshots lie on top of one another: commit the container to an image")
        identity, me = new_id(), Owner.current()
        try:
            with self._database.writing(durable=durable) as connection:
                connection.execute(
                    "INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?, 0, 0, ?, ?, ?, ?, ?)",
                    (
                        identity, name, record.image_id, image, below[0].id if below else None, record.id,
                        json.dumps(list(mount_points)), time.time(), me.pid, me.start_time, me.boot,
                    ),
                )  # fmt: skip
                if follows and connection.execute("SELECT 1 FROM containers WHERE id = ?", (record.id,)).fetchone():
                    connection.execute(
                        "INSERT OR REPLACE INTO container_snapshots VALUES (?, ?)", (record.id, identity)
                    )
        except sqlite3.IntegrityError as error:
            if "snapshots.name" in str(error):
                raise StoreError(f"the snapshot name {name} is already in use: remove that snapshot first") from None
            raise StoreError(f"cannot record the snapshot: {error}") from error
        return identity

    def _move_upper(self, container_id: str, identity: str, fd: int) -> None:
        trees, parent = self._staging.trees, self._containers.fd
        directory = os.open(container_id, _DIRECTORY, dir_fd=parent)
        try:
            trees.move("upper", identity, source_fd=directory, target_fd=fd)
            self._new_upper(directory, f"{self.path}/{identity}")
            os.fsync(directory)
            os.fsync(fd)
        finally:
            os.close(directory)

    def _new_upper(self, directory: int, model: str) -> None:
        """Make an empty R/W directory like the one that became a snapshot; it is seen as "/"."""
        about = os.stat(model)
        with suppress(FileNotFoundError):
            os.rmdir("upper.new", dir_fd=directory)
        os.mkdir("upper.new", 0o700, dir_fd=directory)
        if os.geteuid() == 0 and (about.st_uid or about.st_gid):
            os.chown("upper.new", about.st_uid, about.st_gid, dir_fd=directory)
        os.chmod("upper.new", stat.S_IMODE(about.st_mode), dir_fd=directory)
        os.rename("upper.new", "upper", src_dir_fd=directory, dst_dir_fd=directory)
        # What overlayfs remembers there is of the layer that was moved.
        self._staging.trees.remove(directory, "work")
        os.mkdir("work", 0o700, dir_fd=directory)

    def _finish(self, identity: str, *, durable: bool) -> SnapshotRecord:
        with self._database.writing(durable=durable) as connection:
            connection.execute("UPDATE snapshots SET whole = 1, durable = ? WHERE id = ?", (durable, identity))
        return self.get(identity)

    def make_durable(self, snapshot_id: str) -> None:
        """Write a snapshot and those below it to the disk, where they are not.

        Raises
        ------
        StoreError: one is lost.
        """
        waiting = [record for record in self.chain(snapshot_id) if not record.durable]
        if not waiting:
            return
        self.check(waiting)
        with self._open() as fd:
            core.sync_filesystem(fd)
        with self._database.writing(durable=True) as connection:
            connection.executemany("UPDATE snapshots SET durable = 1 WHERE id = ?", [(item.id,) for item in waiting])

    @staticmethod
    def check(chain: Sequence[SnapshotRecord]) -> None:
        """Refuse snapshots that the machine has lost (StoreError)."""
        for record in chain:
            if record.lost:
                raise StoreError(
                    f"snapshot {record.name or record.id[:12]} was not yet on the disk when the machine went down: "
                    "remove it (pyrtc snapshot rm) and make it again; durable=True makes snapshots that survive that"
                )

    # ---- removing ------------------------------------------------------------------------------------------------

    def remove(self, name_or_id: str) -> str:
        """Remove a snapshot and return its id.

        Raises
        ------
        StoreError: there is none, or a container or another snapshot stands on it.
        """
        record = self.get(name_or_id)
        try:
            with self._database.writing(durable=True) as connection:
                connection.execute("DELETE FROM snapshots WHERE id = ?", (record.id,))
        except sqlite3.IntegrityError:
            users = ", ".join(user[:12] for user in self.users(record.id))
            raise StoreError(
                f"snapshot {record.name or record.id[:12]} is in use by {users}: remove what stands on it first"
            ) from None
        with self._open() as fd:
            self._staging.discard(fd, record.id)
        return record.id

    def orphans(self) -> tuple[str, ...]:
        """Return the names of trees without a row."""
        try:
            present = os.listdir(self.path)
        except FileNotFoundError:
            return ()
        known = {row[0] for row in self._database.rows("SELECT id FROM snapshots")}
        return tuple(name for name in present if name not in known)

    def unfinished(self) -> tuple[tuple[str, str], ...]:
        """Return (snapshot, container) ids of snapshots that a process was making that is gone."""
        rows = self._database.rows(
            "SELECT id, container, owner_pid, owner_start, owner_boot FROM snapshots WHERE whole = 0"
        )
        return tuple((row[0], row[1]) for row in rows if not Owner(*row[2:]).alive())

    def reap(self) -> int:
        """Bring to an end, or take back, what processes were making that are gone; return how many."""
        unfinished = self.unfinished()
        for identity, container in unfinished:
            if os.path.isdir(f"{self.path}/{identity}"):
                # It was moved or copied in full: all that can be missing is the container's new R/W directory.
                with suppress(FileNotFoundError):
                    directory = os.open(
                        container,
                        os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                        dir_fd=self._containers.fd,
                    )
                    try:
                        if "upper" not in os.listdir(directory):
                            self._new_upper(directory, f"{self.path}/{identity}")
                    finally:
                        os.close(directory)
                self._database.execute("UPDATE snapshots SET whole = 1 WHERE id = ?", (identity,))
                continue
            with self._database.writing() as connection:
                row = connection.execute("SELECT parent FROM snapshots WHERE id = ?", (identity,)).fetchone()
                if row is None:
                    continue
                if row[0] is None:
                    connection.execute("DELETE FROM container_snapshots WHERE snapshot_id = ?", (identity,))
                else:
                    connection.execute(
                        "UPDATE container_snapshots SET snapshot_id = ? WHERE snapshot_id = ?", (row[0], identity)
                    )
                connection.execute("DELETE FROM snapshots WHERE id = ?", (identity,))
        return len(unfinished)

    def sweep(self) -> int:
        """Put right what killed processes left; return how many things."""
        removed = self.reap()
        orphans = self.orphans()
        if orphans:
            with self._open() as fd:
                for name in orphans:
                    self._staging.discard(fd, name)
        return removed + len(orphans)

    def _open(self) -> "_Opened":
        with suppress(FileExistsError):
            os.mkdir("snapshots", 0o700, dir_fd=self._root_fd)
        return _Opened(os.open("snapshots", _DIRECTORY, dir_fd=self._root_fd))


class _Opened:
    """A descriptor for a block."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_exception: object) -> None:
        os.close(self._fd)
