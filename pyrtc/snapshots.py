"""The snapshots of a store: R/W layers of containers, frozen, on which others can be started."""

from typing import TYPE_CHECKING

from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.store import Store
    from pyrtc.store.snapshots import SnapshotRecord

__all__ = ["Snapshot", "Snapshots", "snapshot_of"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A frozen R/W layer. Wherever an image can be named to start a container, a snapshot can be given.

    name: None for one without. image: what its container stood on, as it was asked for. parent: id of the snapshot
    below it, None right above the image. container: id of the container that it is of, which may be gone. created:
    seconds since the epoch. durable: it survives when the machine goes down. usable: it has not been lost so.
    """

    id: str
    name: str | None
    image: str
    parent: str | None
    container: str
    created: float
    durable: bool
    usable: bool = True

    def __str__(self) -> str:
        """Return the word that names it where an image could be named: ``snapshot:ID``."""
        return f"snapshot:{self.id}"


def snapshot_of(record: "SnapshotRecord") -> Snapshot:
    """Return what is shown of a snapshot."""
    return Snapshot(
        record.id,
        record.name,
        record.image,
        record.parent,
        record.container,
        record.created,
        record.durable,
        not record.lost,
    )


class Snapshots:
    """The snapshots of one store; `Container.snapshot` makes them."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    def list(self) -> tuple[Snapshot, ...]:
        """Return all snapshots, the newest first."""
        self._store.snapshots.reap()
        return tuple(snapshot_of(record) for record in self._store.snapshots.list())

    def get(self, name_or_id: str) -> Snapshot:
        """Find a snapshot by name, id, or an id prefix that only one has.

        Raises
        ------
        StoreError: there is none.
        """
        return snapshot_of(self._store.snapshots.get(name_or_id))

    def size(self, snapshot: Snapshot) -> int:
        """Return the bytes that it takes on the disk."""
        return self._store.trees.measure(self._store.root_fd, f"snapshots/{snapshot.id}")

    def remove(self, snapshot: Snapshot | str) -> None:
        """Remove a snapshot.

        Raises
        ------
        StoreError: there is none, or a container or another snapshot stands on it.
        """
        self._store.snapshots.remove(snapshot.id if isinstance(snapshot, Snapshot) else snapshot)
