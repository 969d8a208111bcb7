"""Which repositories have which blobs, so that a push to the same registry moves no bytes."""

import sqlite3
from collections.abc import Iterable

from pyrtc.store.database import Database
from pyrtc.values import dataclass

__all__ = ["Repositories"]

_MOST = 8  # repositories of one registry worth trying for one blob


@dataclass(frozen=True, slots=True)
class Repositories:
    """What one store remembers of pulls and pushes."""

    database: Database

    @staticmethod
    def record(connection: sqlite3.Connection, repository: str, digests: Iterable[str]) -> None:
        """Note, inside a transaction, that a repository (``host[:port]/path``) has these blobs."""
        connection.executemany(
            "INSERT OR IGNORE INTO blob_places VALUES (?, ?)", [(digest, repository) for digest in digests]
        )

    def with_blob(self, digest: str, domain: str) -> tuple[str, ...]:
        """Return the paths of repositories of the registry `domain` that had a blob."""
        prefix = f"{domain}/"
        rows = self.database.rows(
            "SELECT substr(repository, length(?2) + 1) FROM blob_places "
            "WHERE digest = ?1 AND substr(repository, 1, length(?2)) = ?2 LIMIT ?3",
            (digest, prefix, _MOST),
        )
        return tuple(path for (path,) in rows)

    @staticmethod
    def forget(connection: sqlite3.Connection, repository: str, digest: str) -> None:
        """Take back, inside a transaction, what turned out to be no longer so."""
        connection.execute("DELETE FROM blob_places WHERE digest = ? AND repository = ?", (digest, repository))
