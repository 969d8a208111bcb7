"""Compressed layers that the store has kept as they came: rows that say which blob holds which layer."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, BinaryIO

from pyrtc.store.blobs import Blobs
from pyrtc.store.database import Database
from pyrtc.values import dataclass, replace

if TYPE_CHECKING:
    from pyrtc.store.additional import AdditionalStore

__all__ = ["KeptBlob", "LayerBlobs"]


@dataclass(frozen=True, slots=True)
class KeptBlob:
    """A compressed layer in blobs/. digest, size: of the compressed form; diff_id: of what it decompresses to.

    place: root of the additional store that has it, empty for this one.
    """

    digest: str
    diff_id: str
    size: int
    media_type: str
    place: str = ""


class LayerBlobs:
    """The compressed layers of one store. others: stores that may have what this one lacks."""

    def __init__(
        self, database: Database, blobs: Blobs, others: "Callable[[], Sequence[AdditionalStore]]" = tuple
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._others = others

    def find(self, diff_id: str, digest: str | None = None) -> KeptBlob | None:
        """Return a blob of a layer: the one with this digest, or with None any; None where none is kept."""
        condition = "diff_id = ?1 AND (?2 IS NULL OR digest = ?2)"
        row = self._database.row(
            f"SELECT digest, diff_id, size, media_type FROM layer_blobs WHERE {condition} ORDER BY digest",  # noqa: S608
            (diff_id, digest),
        )
        if row:
            return KeptBlob(*row)
        for other in self._others():
            theirs = other.layer_blobs.find(diff_id, digest)
            if theirs is not None:
                return replace(theirs, place=other.root)
        return None

    def open(self, blob: KeptBlob) -> BinaryIO:
        """Open the compressed form; what comes out is not verified.

        Raises
        ------
        StoreError: it has been removed meanwhile.
        """
        if blob.place:
            return next(other for other in self._others() if other.root == blob.place).blobs.open(blob.digest)
        return self._blobs.open(blob.digest)

    @staticmethod
    def record(connection: sqlite3.Connection, blobs: Iterable[KeptBlob]) -> None:
        """Write the rows of published blobs."""
        connection.executemany(
            "INSERT OR REPLACE INTO layer_blobs (digest, diff_id, size, media_type) VALUES (?, ?, ?, ?)",
            [(blob.digest, blob.diff_id, blob.size, blob.media_type) for blob in blobs],
        )

    @staticmethod
    def forget_unused(connection: sqlite3.Connection) -> None:
        """Take away the rows of blobs whose layer no row has any more; the files are `Blobs.collect`'s."""
        connection.execute("DELETE FROM layer_blobs WHERE diff_id NOT IN (SELECT diff_id FROM layers)")

    def all(self) -> Sequence[KeptBlob]:
        """Return every blob that is named."""
        rows = self._database.rows("SELECT digest, diff_id, size, media_type FROM layer_blobs ORDER BY digest")
        return [KeptBlob(*row) for row in rows]
