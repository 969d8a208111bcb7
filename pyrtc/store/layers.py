"""Unpacked layers: layers/<key>/, read-only from the day the name exists.

The key is the hexadecimal diffID where the tree is the same above any layers, so that images which differ below it
share it; else it is the chainID of the stack it was unpacked in (image-spec, config.md, "Layer ChainID").
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyrtc.store.database import Database
from pyrtc.store.layer_blobs import LayerBlobs
from pyrtc.store.locks import Lock, locked
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.store.additional import AdditionalStore
    from pyrtc.store.staging import Staging, Trash

__all__ = ["Layer", "LayerRows", "Layers", "chain_ids"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One unpacked layer as the database knows it.

    key: its directory. depends: how many decisions came from the layers below. size: bytes of file data.
    blob_digest, blob_size, media_type: the form it came in. tar_size: bytes of the uncompressed tar; -1: not known.
    tree: fingerprint of the tree (`pyrtc.store.trees.Fingerprint`), empty where not known. opaque: directories in it
    that hide what is below; -1: not known. place: root of the store that has the tree, empty for this one.
    """

    key: str
    diff_id: str
    chain_id: str
    depends: int
    entries: int
    size: int
    skipped: int
    blob_digest: str
    blob_size: int
    media_type: str
    tar_size: int = -1
    tree: str = ""
    opaque: int = -1
    place: str = ""


_COLUMNS = (
    "key, diff_id, chain_id, depends, entries, size, skipped, blob_digest, blob_size, media_type, "
    "tar_size, tree, opaque, place"
)


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """Return the chainID of each layer, bottom first."""
    import hashlib  # milliseconds that no start needs

    chain: list[str] = []
    for diff_id in diff_ids:
        name = f"{chain[-1]} {diff_id}" if chain else ""
        chain.append(f"sha256:{hashlib.sha256(name.encode()).hexdigest()}" if name else diff_id)
    return chain


class LayerRows:
    """The layers of a store as its database tells; also of one that is only read.

    others: stores that may have what this one lacks.
    """

    def __init__(
        self, path: str, database: Database, others: "Callable[[], Sequence[AdditionalStore]]" = tuple
    ) -> None:
        self.path = path
        self._database = database
        self._others = others

    def directory(self, key: str, place: str = "") -> str:
        """Return the absolute path of a layer's tree; place: the root of the store that has it, empty for this one."""
        return f"{place}/layers/{key}" if place else f"{self.path}/{key}"

    def find(self, diff_ids: Sequence[str]) -> tuple[Layer | None, ...]:
        """Return for each layer of a stack, bottom first, the tree that serves it, or None.

        What this store lacks is looked for in the others, whose trees are used where they are.
        """
        found: list[Layer | None] = []
        with self._database.reading() as connection:
            for diff_id, chain_id in zip(diff_ids, chain_ids(diff_ids), strict=True):
                row = connection.execute(
                    f"SELECT {_COLUMNS} FROM layers WHERE diff_id = ? AND damaged = 0 "  # noqa: S608
                    "AND (depends = 0 OR chain_id = ?) ORDER BY depends LIMIT 1",
                    (diff_id, chain_id),
                ).fetchone()
                found.append(Layer(*row) if row else None)
        if None in found:
            for other in self._others():
                theirs = other.usable(other.layers.find(diff_ids))
                found = [mine or their for mine, their in zip(found, theirs, strict=True)]
        return tuple(found)

    def of_image(self, image_id: str) -> tuple[Layer, ...]:
        """Return the layers of an image, bottom first."""
        columns = ", ".join(f"layers.{column}" for column in _COLUMNS.split(", "))
        rows = self._database.rows(
            f"SELECT {columns} FROM image_layers JOIN layers ON key = layer_key "  # noqa: S608
            "WHERE image_id = ? ORDER BY position",
            (image_id,),
        )
        return tuple(Layer(*row) for row in rows)

    def all(self) -> tuple[Layer, ...]:
        """Return every layer that is whole as far as is known."""
        query = f"SELECT {_COLUMNS} FROM layers WHERE damaged = 0 ORDER BY key"  # noqa: S608
        return tuple(Layer(*row) for row in self._database.rows(query))


class Layers(LayerRows):
    """The layers/ of one store."""

    def __init__(
        self,
        fd: int,
        path: str,
        locks_fd: int,
        staging: "Staging",
        database: Database,
        others: "Callable[[], Sequence[AdditionalStore]]" = tuple,
    ) -> None:
        super().__init__(path, database, others)
        self.fd = fd
        self._locks_fd = locks_fd
        self._staging = staging

    @contextmanager
    def locked(self, diff_ids: Sequence[str]) -> Iterator[None]:
        """Hold the right to make these layers, waiting for whoever has it."""
        with locked(self._locks_fd, [diff_id.replace(":", "-") for diff_id in diff_ids]):
            yield

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Keep trees and documents that have their names and not yet their rows from being collected."""
        lock = self._lock_all(fcntl.LOCK_SH)
        try:
            yield
        finally:
            lock.close()

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Wait until nobody is publishing, and keep everybody from it: milliseconds on either side."""
        lock = self._lock_all(fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.close()

    def _lock_all(self, kind: int) -> Lock:
        lock = Lock(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd))
        try:
            fcntl.flock(lock.fd, kind)
        except BaseException:
            lock.close()
            raise
        return lock

    def publish(self, staging_fd: int, made: Sequence[tuple[str, Layer]]) -> None:
        """Move whole, durable trees out of staging under their keys; the caller holds their locks and `publishing`.

        The names are durable when the caller has written the file system to the disk.

        made: (name in staging, layer) pairs. A directory that has the name without a row was left by a process that
        died before it could write the row: it makes way. One with a row is somebody's, holds the same, and stays.
        """
        there = self._rows_of_trees()
        for name, layer in made:
            if layer.key in there:
                continue
            self._staging.discard(self.fd, layer.key)
            self._staging.trees.move(name, layer.key, source_fd=staging_fd, target_fd=self.fd)

    def withdraw(self, made: Sequence[tuple[str, Layer]]) -> None:
        """Undo `publish`, for a caller that could not write the rows, or does not know whether it did.

        It still holds what `publish` wants held. A tree that has a row stays: an interrupt may come after the commit.
        """
        there = self._rows_of_trees()
        for _, layer in made:
            if layer.key not in there:
                self._staging.discard(self.fd, layer.key)

    @staticmethod
    def borrow(connection: sqlite3.Connection, stack: Iterable[Layer]) -> None:
        """Write rows of layers that another store has; ones that are there stay."""
        connection.executemany(
            "INSERT INTO layers (key, diff_id, chain_id, depends, entries, size, skipped, blob_digest, "
            "blob_size, media_type, tar_size, tree, opaque, place, created) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) "
            "ON CONFLICT (key) DO UPDATE SET place = excluded.place, damaged = 0 WHERE damaged",
            [(*(getattr(layer, name) for name in layer.__slots__), time.time()) for layer in stack if layer.place],
        )

    @staticmethod
    def record(connection: sqlite3.Connection, made: Iterable[Layer]) -> None:
        """Write the rows of published layers."""
        now = time.time()
        connection.executemany(
            f"INSERT OR REPLACE INTO layers ({_COLUMNS}, created) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",  # noqa: S608
            [
                (
                    layer.key, layer.diff_id, layer.chain_id, layer.depends, layer.entries, layer.size, layer.skipped,
                    layer.blob_digest, layer.blob_size, layer.media_type, layer.tar_size, layer.tree, layer.opaque,
                    layer.place, now,
                )
                for layer in made
            ],
        )  # fmt: skip

    def collect(self) -> tuple[tuple[Layer, ...], "tuple[Trash, ...]"]:
        """Forget every layer that no image has, and take its tree and every tree without a row out of the way.

        The caller holds `collecting`. Returns the layers forgotten, and the trees for `Staging.destroy` after the lock.
        """
        query = f"SELECT {_COLUMNS} FROM layers WHERE key NOT IN (SELECT layer_key FROM image_layers)"  # noqa: S608
        gone = tuple(Layer(*row) for row in self._database.rows(query))
        if gone:
            # Nobody adds an image meanwhile, so what no image has now has none in the transaction either.
            with self._database.writing(durable=True) as connection:
                connection.executemany("DELETE FROM layers WHERE key = ?", [(layer.key,) for layer in gone])
                LayerBlobs.forget_unused(connection)
                connection.execute("DELETE FROM blob_places WHERE digest NOT IN (SELECT blob_digest FROM layers)")
        taken = [self._staging.take(self.fd, key) for key in self.orphans()]
        return gone, tuple(trash for trash in taken if trash)

    def exist(self, connection: sqlite3.Connection, keys: Sequence[str]) -> bool:
        """Say, inside a transaction, whether all these layers are still there, and whole."""
        query = "SELECT 1 FROM layers WHERE key = ? AND damaged = 0"
        return all(connection.execute(query, (key,)).fetchone() for key in keys)

    def orphans(self) -> tuple[str, ...]:
        """Return the names of trees without a row; the caller holds `collecting`."""
        known = self._rows_of_trees()
        return tuple(key for key in os.listdir(self.fd) if key not in known)

    def _rows_of_trees(self) -> set[str]:
        """Return the keys of all layers whose rows say that this store has their trees."""
        return {row[0] for row in self._database.rows("SELECT key FROM layers WHERE damaged = 0 AND place = ''")}

    def give_up(self, key: str) -> "Trash | None":
        """Mark a damaged layer, so that the next load or pull makes it again, and take its tree out of the way.

        The caller holds `collecting`.
        """
        with self._database.writing(durable=True) as connection:
            connection.execute("UPDATE layers SET damaged = 1 WHERE key = ?", (key,))
            connection.execute("UPDATE settings SET value = value + 1 WHERE name = 'generation'")
        return self._staging.take(self.fd, key)
