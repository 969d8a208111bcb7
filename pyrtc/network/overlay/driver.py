"""What the rest of pyrtc's networks asks of overlay networks."""

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from pyrtc.errors import ClusterError, ClusterUnreachable, NetworkError, UsageError
from pyrtc.network.overlay import membership
from pyrtc.network.overlay.bell import directory_of, ring, wake
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

    Where nobody watches yet, etcd is told of it now, and what it says of the others is taken over: so the first
    container here, too, is known when it runs, and knows them. Without etcd it goes by what was heard last.

    Raises
    ------
    NetworkError: one does, or has a container with it; or this host was removed from the cluster. UnsupportedError: a
    network is encrypted, and this kernel has no WireGuard.
    """
    from pyrtc.network.overlay.addresses import secure
    from pyrtc.network.overlay.documents import encrypts
    from pyrtc.network.overlay.tunnel import ensure as ensure_tunnel

    for endpoint in endpoints:
        if endpoint.network.driver == "overlay":
            try:
                membership.member(store)  # the blocks of a host that was removed are others' by now
                if encrypts(dict(endpoint.network.options)):
                    ensure_tunnel(store)  # before the others are told of anything: they need its key
                secure(store, endpoint)
            except BaseException:
                store.networks.release(endpoint.container_id, endpoint.network.id)
                raise
    if any(endpoint.network.driver == "overlay" for endpoint in endpoints):
        _exchange(store)


def _exchange(store: "Store") -> None:
    """Do once what a watcher does all the time, unless there is one."""
    from pyrtc.network.overlay.known import hear
    from pyrtc.network.overlay.publishing import publish

    value = membership.member(store)
    if ring(directory_of(value.id)):
        return
    with suppress(ClusterError, UsageError):  # the watcher that is about to be started tries again, and says why
        client = membership.connect(value, timeout=membership.SHORT)
        try:
            view = hear(store, value, client)
            if view.cluster == value.cluster and value.id in view.hosts:
                publish(store, client, value.id, view)
        finally:
            client.close()


def connected(store: "Store", endpoints: "Iterable[Endpoint]") -> None:
    """Have the other hosts told of a container that is about to run; returns at once."""
    if any(endpoint.network.driver == "overlay" for endpoint in endpoints):
        wake(store)


def released(store: "Store", endpoints: "Iterable[Endpoint]") -> None:
    """Have the other hosts told that a container has given back its endpoints; returns at once."""
    if any(endpoint.network.driver == "overlay" for endpoint in endpoints):
        with suppress(NetworkError):  # it has given them back; the next watcher tells that
            wake(store)
