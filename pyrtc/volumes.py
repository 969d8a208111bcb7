"""The volumes of a store: data that outlive containers."""

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from pyrtc.errors import StoreError

if TYPE_CHECKING:
    from pyrtc.store import Store
    from pyrtc.store.volumes import Volume

__all__ = ["Volumes"]


class Volumes:
    """The volumes of one store. A container that names one which is missing makes it."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    def create(self, name: str = "", *, labels: Mapping[str, str] | None = None) -> "Volume":
        """Return the volume of this name, made when missing, with labels then; without a name make an anonymous one.

        Raises
        ------
        UsageError: the name breaks the rules. StoreError: it cannot be made.
        """
        return self._store.volumes.create(name, tuple((labels or {}).items()))

    def get(self, name: str) -> "Volume":
        """Find a volume.

        Raises
        ------
        StoreError: there is none.
        """
        return self._store.volumes.get(name)

    def list(self) -> "tuple[Volume, ...]":
        """Return all volumes by name."""
        return self._store.volumes.list()

    def users(self) -> dict[str, tuple[str, ...]]:
        """Return the ids of the containers that mount each volume that any does."""
        return self._store.volumes.users()

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume with its data. force: one that is missing is fine.

        Raises
        ------
        StoreError: there is none, or a container uses it.
        """
        if force:
            with suppress(StoreError):
                self._store.volumes.get(name)
                force = False
            if force:
                return
        self._store.volumes.remove(name)
