"""The images of a store: documents, names, and the stack of layers a container stands on."""

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pyrtc.errors import ImageError, ImageNotFound
from pyrtc.image.config import ImageConfig
from pyrtc.image.reference import Reference, valid_digest
from pyrtc.store.blobs import Blobs
from pyrtc.store.database import Database
from pyrtc.values import dataclass, replace

if TYPE_CHECKING:
    from pyrtc.store.additional import AdditionalStore

__all__ = ["Image", "ImageTable"]

_COLUMNS = "id, manifest, config, size, created, architecture, os, variant, loaded, damaged"
_HEX = frozenset("0123456789abcdef")


def _is_there(directory: str) -> bool:
    try:
        os.stat(directory)
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Image:
    """An image in the store.

    id: ``sha256:`` and the digest of its config document. names: familiar names, sorted. layers: absolute paths of the
    unpacked layers, top first; empty for an image without any. size: bytes of file data in all layers. created: as the
    image says (RFC 3339), may be empty. loaded: when it came into the store, seconds since the epoch. manifest: digest
    of the manifest it came with, None where the archive had none. damaged: a check found something of it missing or
    changed; it must be loaded or pulled again. place: root of the additional store that has it, empty for this one.
    obstacle: why it cannot be run from here, empty where it can.
    """

    id: str
    names: tuple[str, ...]
    config: ImageConfig
    layers: tuple[str, ...]
    size: int
    created: str
    architecture: str
    os: str
    variant: str
    loaded: float
    manifest: str | None
    damaged: bool = False
    place: str = ""
    obstacle: str = ""

    @property
    def platform(self) -> str:
        """``linux/arm64/v8``."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class ImageTable:
    """The images of one store. Look-ups are cached; a change by any process is seen by the next look-up.

    Parameters
    ----------
    path: of layers/. others: stores that may have what this one lacks. place: the store's root where it is one of those
    others, empty for a store of one's own.
    """

    def __init__(
        self,
        database: Database,
        path: str,
        blobs: Blobs,
        others: "Callable[[], Sequence[AdditionalStore]]" = tuple,
        *,
        place: str = "",
    ) -> None:
        self._database = database
        self._path = path
        self._blobs = blobs
        self._others = others
        self.place = place
        self._cache: tuple[int, dict[str, Image]] = (-1, {})

    def get(self, name_or_id: str) -> Image:
        """Find an image by name, by name without tag (``latest``), by id, or by an id prefix that only one image has.

        Raises
        ------
        ImageNotFound: there is none; the text names similar ones.
        ImageError: the prefix fits several images.
        """
        connection = self._database.lend()
        try:
            # One look at one row says whether anybody changed an image since the cache was filled.
            generation = connection.execute("SELECT value FROM settings WHERE name = 'generation'").fetchone()[0]
            known, cache = self._cache
            if known != generation:
                cache = {}
                self._cache = (generation, cache)
            image = cache.get(name_or_id)
            if image is None:
                image = self._find_anywhere(connection, name_or_id)
                if not image.place:  # nobody tells when another store changes
                    cache[name_or_id] = image
            return image
        finally:
            self._database.give_back(connection)

    def _find_anywhere(self, connection: sqlite3.Connection, name_or_id: str) -> Image:
        try:
            return self._find(connection, name_or_id)
        except ImageNotFound:
            for other in self._others():
                with suppress(ImageNotFound):
                    return other.shown(other.images.get(name_or_id))
            raise

    def list(self) -> tuple[Image, ...]:
        """Return all images, the newest in the store first; then those of the other stores that this one lacks."""
        layers: dict[str, list[tuple[str, str, int]]] = {}
        names: dict[str, list[str]] = {}
        with self._database.reading() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM images ORDER BY loaded DESC, id").fetchall()  # noqa: S608
            for image_id, *layer in connection.execute(
                "SELECT image_id, key, place, layers.damaged FROM image_layers JOIN layers ON key = layer_key "
                "ORDER BY image_id, position DESC"
            ):
                layers.setdefault(image_id, []).append((layer[0], layer[1], layer[2]))
            for name, image_id in connection.execute("SELECT name, image_id FROM names ORDER BY name"):
                names.setdefault(image_id, []).append(name)
        found = [self._assemble(row, layers.get(row[0], ()), names.get(row[0], ())) for row in rows]
        there = {image.id for image in found}
        taken = {name for image in found for name in image.names}
        for other in self._others():
            for image in other.images.list():
                if image.id in there:
                    continue
                # A name means one image: the first store's.
                left = tuple(name for name in image.names if name not in taken)
                there.add(image.id)
                taken.update(left)
                found.append(replace(other.shown(image), names=left))
        return tuple(found)

    def documents(self, image: Image) -> tuple[bytes, bytes | None]:
        """Return the config document and, where there is one, the manifest, as they came."""
        if image.place != self.place:
            return next(other for other in self._others() if other.root == image.place).images.documents(image)
        return self._blobs.read(image.id), self._blobs.read(image.manifest) if image.manifest else None

    def add(
        self,
        connection: sqlite3.Connection,
        image_id: str,
        *,
        manifest: str | None,
        config: ImageConfig,
        size: int,
        created: str,
        platform: tuple[str, str, str],
        layer_keys: Sequence[str],
        names: Sequence[Reference],
        target: str | None = None,
    ) -> bool:
        """Write the rows of an image whose layers and documents are in place; names move here from other images.

        platform: os, architecture, variant. layer_keys: bottom first. target: what the registry has under these names.
        Returns whether the image had another manifest before, which nothing names now.
        """
        system, architecture, variant = platform
        before = connection.execute("SELECT manifest FROM images WHERE id = ?", (image_id,)).fetchone()
        connection.execute(
            f"INSERT INTO images ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,0) "  # noqa: S608
            "ON CONFLICT (id) DO UPDATE SET manifest = coalesce(excluded.manifest, manifest), damaged = 0",
            (image_id, manifest, config.dumps(), size, created, architecture, system, variant, time.time()),
        )
        connection.execute("DELETE FROM image_layers WHERE image_id = ?", (image_id,))
        connection.executemany(
            "INSERT INTO image_layers VALUES (?, ?, ?)", [(image_id, i, key) for i, key in enumerate(layer_keys)]
        )
        connection.executemany(
            "INSERT OR REPLACE INTO names (name, image_id, target) VALUES (?, ?, ?)",
            [(name.canonical, image_id, target) for name in names],
        )
        self.changed(connection)
        return before is not None and None not in (before[0], manifest) and before[0] != manifest

    def target(self, name: Reference) -> tuple[str, str] | None:
        """Return the image id and the digest that a name had at its registry.

        None when it did not come from one, or when the image is damaged and must come again.
        """
        row: tuple[str, str] | None = self._database.row(
            "SELECT image_id, target FROM names JOIN images ON id = image_id "
            "WHERE name = ? AND target IS NOT NULL AND damaged = 0 AND NOT EXISTS (SELECT 1 FROM image_layers "
            "JOIN layers ON key = layer_key WHERE image_layers.image_id = names.image_id AND layers.damaged)",
            (name.canonical,),
        )
        return row

    def tag(self, connection: sqlite3.Connection, image_id: str, name: Reference) -> bool:
        """Give an image a name, which moves here from another; False when the image has gone."""
        added = connection.execute(
            "INSERT OR REPLACE INTO names (name, image_id, target) SELECT ?, id, NULL FROM images WHERE id = ?",
            (name.canonical, image_id),
        ).rowcount
        self.changed(connection)
        return bool(added)

    @staticmethod
    def set_target(connection: sqlite3.Connection, name: Reference, target: str | None) -> None:
        """Note what the registry has under a name; None: something else than the store."""
        connection.execute("UPDATE names SET target = ? WHERE name = ?", (target, name.canonical))

    def untag(self, connection: sqlite3.Connection, name: Reference) -> None:
        """Take a name away."""
        connection.execute("DELETE FROM names WHERE name = ?", (name.canonical,))
        self.changed(connection)

    def delete(self, connection: sqlite3.Connection, image_id: str) -> None:
        """Take an image's rows away, names included; its layers and documents are the caller's to collect."""
        connection.execute("DELETE FROM images WHERE id = ?", (image_id,))
        self.changed(connection)

    @staticmethod
    def changed(connection: sqlite3.Connection) -> None:
        """Tell every cache that images are not what they were."""
        connection.execute("UPDATE settings SET value = value + 1 WHERE name = 'generation'")

    def _find(self, connection: sqlite3.Connection, text: str) -> Image:
        row = self._by_name(connection, text) or self._by_id(connection, text)
        if row is None:
            raise ImageNotFound(self._missing(connection, text))
        return self._image(connection, row)

    def _by_name(self, connection: sqlite3.Connection, text: str) -> tuple[Any, ...] | None:
        try:
            name = Reference.parse(text).with_default_tag()
        except ImageError:
            return None
        columns = ", ".join(f"images.{column}" for column in _COLUMNS.split(", "))
        query = f"SELECT {columns} FROM names JOIN images ON images.id = names.image_id WHERE "  # noqa: S608
        row: tuple[Any, ...] | None
        if name.digest is None:
            row = connection.execute(query + "names.name = ?", (name.canonical,)).fetchone()
        else:
            # name@digest: any name of that repository whose image came with that manifest or index, or has that id.
            row = connection.execute(
                query + "(images.manifest = ?1 OR images.id = ?1 OR names.target = ?1) AND "
                "(substr(names.name, 1, length(?2)) = ?2) AND substr(names.name, length(?2) + 1, 1) IN (':', '@')",
                (name.digest, name.repository),
            ).fetchone()
        return row

    def _by_id(self, connection: sqlite3.Connection, text: str) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None
        if valid_digest(text):
            row = connection.execute(f"SELECT {_COLUMNS} FROM images WHERE id = ?", (text,)).fetchone()  # noqa: S608
            return row
        prefix = text.removeprefix("sha256:")
        if not prefix or len(prefix) > 64 or not _HEX.issuperset(prefix):
            return None
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM images WHERE id >= ? AND id < ? LIMIT 2",  # noqa: S608
            (f"sha256:{prefix}", f"sha256:{prefix}g"),
        ).fetchall()
        if len(rows) > 1:
            raise ImageError(f"image id {text} is ambiguous: several images begin with it; give more digits")
        return rows[0] if rows else None

    def _image(self, connection: sqlite3.Connection, row: Sequence[Any]) -> Image:
        image_id = row[0]
        keys = connection.execute(
            "SELECT key, place, layers.damaged FROM image_layers JOIN layers ON key = layer_key WHERE image_id = ? "
            "ORDER BY position DESC",
            (image_id,),
        )
        names = connection.execute("SELECT name FROM names WHERE image_id = ? ORDER BY name", (image_id,))
        return self._assemble(row, keys.fetchall(), [name for (name,) in names])

    def _assemble(self, row: Sequence[Any], layers: Sequence[tuple[str, str, int]], names: Sequence[str]) -> Image:
        """Put an image together. layers: key, place and damage of each, top first. names: canonical, sorted."""
        image_id, manifest, config, size, created, architecture, system, variant, loaded, damaged = row
        gone = [place for key, place, _ in layers if place and not _is_there(f"{place}/layers/{key}")]
        return Image(
            id=image_id,
            names=tuple(Reference.parse(name).familiar for name in names),
            config=ImageConfig.loads(config),
            layers=tuple(f"{place}/layers/{key}" if place else f"{self._path}/{key}" for key, place, _ in layers),
            size=size,
            created=created,
            architecture=architecture,
            os=system,
            variant=variant,
            loaded=loaded,
            manifest=manifest,
            damaged=bool(damaged) or any(layer[2] for layer in layers),
            place=self.place,
            obstacle=f"the additional store {gone[0]} no longer has a layer of it" if gone else "",
        )

    def _missing(self, connection: sqlite3.Connection, text: str) -> str:
        import difflib

        try:
            asked = Reference.parse(text).with_default_tag().familiar
        except ImageError as error:
            if not valid_digest(text) and not _HEX.issuperset(text.removeprefix("sha256:")):
                return f"No such image: {text}: {error}"
            asked = text
        names = [Reference.parse(name).familiar for (name,) in connection.execute("SELECT name FROM names")]
        # Repositories are compared without their tags: nearly all names end with ":latest".
        repository = asked.partition("@")[0].rpartition(":")[0] or asked
        by_repository: dict[str, list[str]] = {}
        for name in names:
            by_repository.setdefault(name.partition("@")[0].rpartition(":")[0], []).append(name)
        last = {key.rpartition("/")[2]: key for key in by_repository}
        close = [repository, last.get(repository.rpartition("/")[2], "")]
        close += difflib.get_close_matches(repository, list(by_repository), 3, 0.7)
        near = [name for key in dict.fromkeys(close) for name in by_repository.get(key, ())]
        if near:
            return f"No such image: {asked}: did you mean {' or '.join(near[:3])}?"
        known = "the store is empty" if not names else f"the store has {', '.join(sorted(names)[:5])}"
        return f"No such image: {asked}: {known}; bring one in with 'pyrtc pull' or 'pyrtc load'"
