"""What the rest of pyrtc's networks asks of overlay networks."""

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from pyrtc.errors import ClusterUnreachable, NetworkError
from pyrtc.network.overlay import membership
from pyrtc.network.overlay.bell import wake
from pyrtc.network.overlay.networks import adopt_all, create, remove

if TYPE_CHECKING:
    from pyrtc.store import Store
    from pyrtc.store.networks import Endpoint

__all__ = ["connected", "create", "refresh", "released", "remove", "secured"]


def refresh(store: "Store") -> None:
    """Take over the cluster's networks, so that a list shows them all; without etcd it shows what was known."""
    if membership.joined(store):
        try:
            adopt_all(store)
        except ClusterUnreachable:
            return


def secured(store: "Store", endpoints: "Iterable[Endpoint]") -> None:
    """Make sure that no other host gives the addresses that a container has just got; one that does is given back.

    Raises
    ------
    NetworkError: one does, or has a container with it; or this host was removed from the cluster.
    """
    from pyrtc.network.overlay.addresses import secure

    for endpoint in endpoints:
        if endpoint.network.driver == "overlay":
            try:
                membership.member(store)  # the blocks of a host that was removed are others' by now
                secure(store, endpoint)
            except BaseException:
                store.networks.release(endpoint.container_id, endpoint.network.id)
                raise


def connected(store: "Store", endpoints: "Iterable[Endpoint]") -> None:
    """Have the other hosts told of a container that is about to run; returns at once."""
    if any(endpoint.network.driver == "overlay" for endpoint in endpoints):
        wake(store)


def released(store: "Store", endpoints: "Iterable[Endpoint]") -> None:
    """Have the other hosts told that a container has given back its endpoints; returns at once."""
    if any(endpoint.network.driver == "overlay" for endpoint in endpoints):
        with suppress(NetworkError):  # it has given them back; the next watcher tells that
            wake(store)
