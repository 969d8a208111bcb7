"""The store as a whole: what it takes, whether it is sound, and freeing what nobody uses."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pyrtc.containers import Containers
from pyrtc.errors import ContainerError, ContainerNotFound, StoreError
from pyrtc.store import Store
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.image.images import Images
    from pyrtc.store.check import CheckReport
    from pyrtc.store.usage import DiskUsage

__all__ = ["PruneFilter", "Pruned", "System"]


@dataclass(frozen=True, slots=True)
class PruneFilter:
    """Which of the unused things a prune removes.

    until: only those made before this time (seconds since the epoch). labels: (name, value) pairs that must be there,
    a value None for any; without: pairs that must not.
    """

    until: float | None = None
    labels: tuple[tuple[str, str | None], ...] = ()
    without: tuple[tuple[str, str | None], ...] = ()

    def passes(self, created: float, labels: Sequence[tuple[str, str]]) -> bool:
        """Say whether something of this age with these labels may go."""
        if self.until is not None and created >= self.until:
            return False
        there = dict(labels)

        def has(wanted: tuple[str, str | None]) -> bool:
            name, value = wanted
            return name in there and value in (None, there[name])

        return all(has(pair) for pair in self.labels) and not any(has(pair) for pair in self.without)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune removed: ids of containers, names of volumes, images (and digests) and networks; bytes freed."""

    containers: tuple[str, ...]
    volumes: tuple[str, ...]
    untagged: tuple[str, ...]
    deleted: tuple[str, ...]
    reclaimed: int
    networks: tuple[str, ...] = ()


class System:
    """One store as a whole."""

    def __init__(self, store: Store, containers: Containers, images: "Callable[[], Images]") -> None:
        self._store = store
        self._containers = containers
        self._images = images

    def df(self) -> "DiskUsage":
        """Measure what the store takes on the disk, and what could be freed.

        Raises
        ------
        StoreError: something in it cannot be read.
        """
        from pyrtc.store.usage import disk_usage

        self._containers.reap()
        return disk_usage(self._store)

    def check(self, *, deep: bool = False, repair: bool = False) -> "CheckReport":
        """Check that everything the database names is there and is what it was.

        Trees are compared by names, attributes and sizes, documents by their digests.

        Parameters
        ----------
        deep: read all data, too: blobs are hashed, and layers whose compressed form is kept are unpacked again and
        compared, one at a time. repair: remove what is left over, take out what is damaged and mark the images that it
        belongs to, so that the next load or pull brings it again.

        Raises
        ------
        StoreError: the store cannot be read at all.
        """
        from pyrtc.store.check import check_store

        verify = None
        if deep:
            from functools import partial

            from pyrtc.image.verify import same_as_it_came

            verify = partial(same_as_it_came, self._store)
        report = check_store(self._store, repair=repair, verify=verify)
        if repair:
            self._containers.reap()
            self._put_networks_right()
        return report

    def _put_networks_right(self) -> None:
        """Have the firewall say what the store says, where this host has networks."""
        import socket

        if not self._store.rootless and any(name.startswith("pyrtc-") for _index, name in socket.if_nameindex()):
            from pyrtc.network.release import reconcile

            reconcile(self._store)

    def prune_containers(self, only: PruneFilter | None = None) -> Pruned:
        """Remove containers that do not run, with their anonymous volumes."""
        from pyrtc.ended import is_owned

        only = only or PruneFilter()
        self._containers.reap()
        removed, freed = [], 0
        users = self._store.volumes.users()
        for record in self._store.containers.list():
            if record.state not in ("created", "exited") or is_owned(record):
                continue
            if not only.passes(record.created, _labels(record.options)):
                continue
            size = 0
            if record.directory:
                size = self._measure(self._store.containers.fd, record.id)
            # Its anonymous volumes go with it.
            for volume in self._store.volumes.list():
                if volume.anonymous and users.get(volume.name) == (record.id,):
                    size += self._measure(self._store.volumes.fd, volume.name)
            try:
                removed.append(self._containers.remove(record.id, volumes=True))
            except (ContainerNotFound, ContainerError):
                continue  # somebody else was quicker
            freed += size
        return Pruned(tuple(removed), (), (), (), freed)

    def prune_volumes(self, *, named: bool = False, only: PruneFilter | None = None) -> Pruned:
        """Remove volumes that no container mounts: those without a name, with `named` all."""
        only = only or PruneFilter()
        removed, freed = [], 0
        users = self._store.volumes.users()
        for volume in self._store.volumes.list():
            if (
                volume.name in users
                or not (named or volume.anonymous)
                or not only.passes(volume.created, volume.labels)
            ):
                continue
            size = self._measure(self._store.volumes.fd, volume.name)
            try:
                self._store.volumes.remove(volume.name)
            except StoreError:
                continue  # a container has mounted it meanwhile, or it has gone
            removed.append(volume.name)
            freed += size
        return Pruned((), tuple(removed), (), (), freed)

    def prune_networks(self, only: PruneFilter | None = None) -> Pruned:
        """Remove networks that no container uses; see `Networks.prune`."""
        from pyrtc.networks import Networks

        only = only or PruneFilter()
        networks = Networks(self._store, self._containers)
        removed = networks.prune(lambda network: only.passes(network.created, network.labels))
        return Pruned((), (), (), (), 0, removed)

    def prune_images(self, *, all_unused: bool = False, only: PruneFilter | None = None) -> Pruned:
        """Remove images without a name that no container stands on; with all_unused those with names, too."""
        removed = self._images().prune(all_unused=all_unused, passes=(only or PruneFilter()).passes)
        return Pruned((), (), removed.untagged, removed.deleted, removed.reclaimed)

    def prune(self, *, all_images: bool = False, volumes: bool = False, only: PruneFilter | None = None) -> Pruned:
        """Remove ended containers, unused networks and images, with `volumes` anonymous volumes, and all leftovers."""
        swept = self._store.sweep(measure=True, partials=True)
        parts = [self.prune_containers(only), self.prune_networks(only)]
        if volumes:
            parts.append(self.prune_volumes(only=only))
        parts.append(self.prune_images(all_unused=all_images, only=only))
        return Pruned(
            tuple(item for part in parts for item in part.containers),
            tuple(item for part in parts for item in part.volumes),
            tuple(item for part in parts for item in part.untagged),
            tuple(item for part in parts for item in part.deleted),
            (swept.freed or 0) + sum(part.reclaimed for part in parts),
            tuple(item for part in parts for item in part.networks),
        )

    def _measure(self, parent_fd: int, name: str) -> int:
        try:
            return self._store.trees.measure(parent_fd, name)
        except StoreError:  # it goes all the same, or has gone
            return 0


def _labels(options: bytes) -> tuple[tuple[str, str], ...]:
    import json

    said = json.loads(options or b"{}").get("labels") or {}
    return tuple(said.items())
