"""Whether a store is what its database says, and putting right what is not.

What a killed process leaves is no damage: it is listed as left over, and every command that brings in or removes images
takes it away. Damage is what nothing but a broken disk, or somebody else's hands in the store, can make: a tree that
has changed, a blob that has gone. Repairing it takes the damaged part out and marks the images that it belongs to, so
that the next load or pull brings it again.
"""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

from pyrtc.errors import PyrtcError, StoreError
from pyrtc.store.layers import Layer
from pyrtc.store.store import Store
from pyrtc.values import dataclass

__all__ = ["CheckReport", "Problem", "check_store"]

_CHUNK = 1 << 20

Kind = Literal["database", "layer", "image", "blob", "leftover"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be. subject: its digest or name. text: what is wrong with it."""

    kind: Kind
    subject: str
    text: str
    repaired: bool


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found, and how many things it looked at.

    unverified: layers of which nothing tells what their files hold: from before fingerprints were kept, or, in a deep
    check, without the compressed form they came in.
    """

    problems: tuple[Problem, ...]
    images: int
    layers: int
    blobs: int
    unverified: int

    @property
    def clean(self) -> bool:
        """Whether nothing is damaged, or everything was repaired."""
        return all(problem.repaired or problem.kind == "leftover" for problem in self.problems)


def check_store(
    store: Store, *, repair: bool = False, verify: Callable[[Layer], bool | None] | None = None
) -> CheckReport:
    """Check a store against its database; others may use it meanwhile.

    Parameters
    ----------
    repair: put right what is wrong. verify: compares a layer's files with the form it came in, None where that is not
    kept; with it the data of all blobs are read, too.

    Raises
    ------
    StoreError: the store cannot be read at all.
    """
    return _Check(store, repair, verify).run()


class _Check:
    def __init__(self, store: Store, repair: bool, verify: Callable[[Layer], bool | None] | None) -> None:
        self._store = store
        self._repair = repair
        self._verify = verify
        self._problems: list[Problem] = []
        self._unverified = 0

    def run(self) -> CheckReport:
        self._database()
        if any(problem.kind == "database" for problem in self._problems):
            return CheckReport(tuple(self._problems), 0, 0, 0, 0)  # nothing else can be relied on
        self._leftovers()
        images = self._store.images.list()
        layers = self._store.layers.all()
        for layer in layers:
            self._layer(layer)
        blobs = self._store.layer_blobs.all()
        for blob in blobs:
            self._blob(blob.digest, blob.size)
        for image in images:
            self._image(image.id, image.manifest, damaged=image.damaged)
        return CheckReport(tuple(self._problems), len(images), len(layers), len(blobs), self._unverified)

    def _found(self, kind: Kind, subject: str, text: str, *, repaired: bool = False) -> None:
        self._problems.append(Problem(kind, subject, text, repaired))

    def _database(self) -> None:
        path = str(self._store.database.path)
        try:
            with self._store.database.reading() as connection:
                said = [row[0] for row in connection.execute("PRAGMA integrity_check(20)")]
                broken = connection.execute("PRAGMA foreign_key_check").fetchall()
        except sqlite3.DatabaseError as error:
            said, broken = [str(error)], []
        for text in said:
            if text != "ok":
                self._found("database", path, text)
        for row in broken:
            self._found("database", path, f"a row of {row[0]} names a missing one of {row[2]}")

    def _leftovers(self) -> None:
        store = self._store
        containers = [record.id for record in store.containers.abandoned()]
        for name in (*containers, *store.containers.orphans()):
            self._found("leftover", name, "a container whose process was killed", repaired=self._repair)
        for name in store.staging.abandoned():
            self._found("leftover", name, "unfinished work of a process that was killed", repaired=self._repair)
        for name in (*(identity for identity, _ in store.snapshots.unfinished()), *store.snapshots.orphans()):
            self._found("leftover", name, "a snapshot that was being made or removed", repaired=self._repair)
        for name in store.volumes.orphans():
            self._found("leftover", name, "a volume that was being made or removed", repaired=self._repair)
        with store.layers.collecting():
            trees = store.layers.orphans()
            known = store.known_blobs()
            blobs = [digest for digest in store.blobs.list() if digest not in known]
        for name in trees:
            self._found("leftover", name, "a layer that no image has", repaired=self._repair)
        for digest in blobs:
            self._found("leftover", digest, "a blob that no image has", repaired=self._repair)
        if self._repair:
            store.sweep()

    # ---- layers ----------------------------------------------------------------------------------------------------

    def _layer(self, layer: Layer) -> None:
        if self._wrong_with(layer) is None:
            return
        with self._store.layers.collecting():
            # It may have been removed, or made anew, while it was looked at; nobody does either now.
            wrong = self._wrong_with(layer) if self._still(layer) else None
        if wrong is None:
            return
        if layer.place:
            self._found("layer", layer.diff_id, f"{wrong}: it belongs to the store {layer.place}, which is not ours")
            return
        with self._store.layers.collecting():
            if not self._still(layer):
                return  # removed while it was looked at
            running = self._running_on(layer)
            if not self._repair or running:
                if running:
                    wrong = f"{wrong}; container {running[:12]} runs on it: end that before it is repaired"
                self._found("layer", layer.diff_id, wrong)
                return
            trash = self._store.layers.give_up(layer.key)
        if trash is not None:
            self._store.staging.destroy(trash)
        names = ", ".join(self._images_with(layer)) or "no image"
        self._found("layer", layer.diff_id, f"{wrong}: removed; load or pull again: {names}", repaired=True)

    def _wrong_with(self, layer: Layer) -> str | None:
        """Say what is wrong with a layer's tree, None if nothing is."""
        store = self._store
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            root_fd = os.open(store.layers.directory(layer.key, layer.place), flags)
        except OSError as error:
            return f"its files are missing ({error.strerror})"
        try:
            if layer.place:
                return None
            if not layer.tree:
                self._unverified += 1
                return None
            try:
                found = store.trees.fingerprint(root_fd)
            except StoreError as error:
                return str(error)
            if found.tree != layer.tree:
                return "files in it are missing, added or changed"
        finally:
            os.close(root_fd)
        if self._verify is None:
            return None
        try:
            same = self._verify(layer)
        except PyrtcError as error:
            return f"its files cannot be compared with the form it came in: {error}"
        if same is None:
            self._unverified += 1
        return "files in it do not hold what they held" if same is False else None

    def _still(self, layer: Layer) -> bool:
        query = "SELECT 1 FROM layers WHERE key = ? AND damaged = 0"
        return self._store.database.row(query, (layer.key,)) is not None

    def _running_on(self, layer: Layer) -> str | None:
        row = self._store.database.row(
            "SELECT containers.id FROM containers JOIN image_layers USING (image_id) "
            "WHERE layer_key = ? AND state != 'exited'",
            (layer.key,),
        )
        return row[0] if row else None

    def _images_with(self, layer: Layer) -> Sequence[str]:
        rows = self._store.database.rows(
            "SELECT coalesce((SELECT name FROM names WHERE names.image_id = image_layers.image_id LIMIT 1), image_id) "
            "FROM image_layers WHERE layer_key = ?",
            (layer.key,),
        )
        return sorted({row[0] for row in rows})

    # ---- blobs and documents ---------------------------------------------------------------------------------------

    def _blob(self, digest: str, size: int) -> None:
        wrong = self._wrong_with_blob(digest, size, data=self._verify is not None)
        if wrong is None:
            return
        with self._store.layers.collecting():
            query = "SELECT 1 FROM layer_blobs WHERE digest = ?"
            if self._store.database.row(query, (digest,)) is None:
                return
            if self._repair:
                with self._store.database.writing(durable=True) as connection:
                    connection.execute("DELETE FROM layer_blobs WHERE digest = ?", (digest,))
                self._store.blobs.remove(digest)
        removed = ": removed; a push or save makes the layer's compressed form again" if self._repair else ""
        self._found("blob", digest, f"{wrong}{removed}", repaired=self._repair)

    def _wrong_with_blob(self, digest: str, size: int | None, *, data: bool) -> str | None:
        actual = self._store.blobs.size(digest)
        if actual is None:
            return "it is missing"
        if size is not None and actual != size:
            return f"it has {actual} bytes instead of {size}"
        if not data:
            return None
        algorithm, _, value = digest.partition(":")
        content = hashlib.new(algorithm, usedforsecurity=False)
        with suppress(StoreError), self._store.blobs.open(digest) as file:
            while chunk := file.read(_CHUNK):
                content.update(chunk)
        return None if content.hexdigest() == value else "its content is not what its digest says"

    def _image(self, image_id: str, manifest: str | None, *, damaged: bool) -> None:
        for digest, what in ((image_id, "config"), (manifest, "manifest")):
            if digest is None:
                continue
            # Documents are small: their content is always looked at.
            wrong = self._wrong_with_blob(digest, None, data=True)
            if wrong is None:
                continue
            with self._store.layers.collecting():
                if self._store.database.row("SELECT 1 FROM images WHERE id = ?", (image_id,)) is None:
                    return
                if self._repair:
                    with self._store.database.writing(durable=True) as connection:
                        connection.execute("UPDATE images SET damaged = 1 WHERE id = ?", (image_id,))
                        self._store.images.changed(connection)
                    self._store.blobs.remove(digest)
            removed = ": removed; load or pull the image again" if self._repair else ""
            self._found("image", image_id, f"{what} {digest}: {wrong}{removed}", repaired=self._repair)
            return
        if damaged:
            self._found("image", image_id, "a part of it was found damaged before: load or pull it again")
