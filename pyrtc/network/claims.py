"""Addresses for containers that start, with what a network may still lack for that."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from pyrtc.errors import NetworkNotFound
from pyrtc.store.networks import AddressesExhausted, NoSubnet

if TYPE_CHECKING:
    from pyrtc.store import Store
    from pyrtc.store.networks import Endpoint, Network, Wish

__all__ = ["assign_subnet", "claim", "claim_more"]

T = TypeVar("T")
_DEFAULT = "bridge"  # the network whose subnet nobody chose


def claim(store: "Store", container_id: str, wishes: "Sequence[Wish]") -> "tuple[Endpoint, ...]":
    """Give a container that starts an endpoint on each network; see `pyrtc.store.networks.Networks.claim`."""
    if any(wish.network == _DEFAULT for wish in wishes):
        _give_up_lost_subnet(store, store.networks.get(_DEFAULT))
    return _secured(store, _prepared(store, wishes, lambda: store.networks.claim(container_id, wishes)))


def claim_more(store: "Store", container_id: str, wish: "Wish") -> "Endpoint":
    """Give a container that runs an endpoint on one more network; see `pyrtc.store.networks.Networks.claim_more`."""
    endpoint = _prepared(store, (wish,), lambda: store.networks.claim_more(container_id, wish))
    return _secured(store, (endpoint,))[0]


def _secured(store: "Store", endpoints: "tuple[Endpoint, ...]") -> "tuple[Endpoint, ...]":
    """Make sure that no other host of the cluster has an address that a user chose."""
    if any(endpoint.network.driver == "overlay" for endpoint in endpoints):
        from pyrtc.network.overlay.driver import secured

        secured(store, endpoints)
    return endpoints


def _prepared(store: "Store", wishes: "Sequence[Wish]", act: Callable[[], T]) -> T:
    """Claim, with what is missing for it made on the way: a subnet, a block of a cluster's addresses, its network."""
    while True:
        try:
            return act()
        except NoSubnet as missing:
            assign_subnet(store, missing.network)
        except AddressesExhausted as exhausted:
            if exhausted.network.driver != "overlay":
                raise
            from pyrtc.network.overlay.addresses import more

            more(store, exhausted.network)
        except NetworkNotFound:
            if not _adopted(store, wishes):
                raise


def _adopted(store: "Store", wishes: "Sequence[Wish]") -> bool:
    """Look for networks that this store does not know in its cluster; return whether it may know more now."""
    from pyrtc.network.overlay.membership import joined

    if not joined(store):
        return False
    from pyrtc.network.lookup import find

    for wish in wishes:
        find(store, wish.network)
    return True


def _give_up_lost_subnet(store: "Store", network: "Network") -> None:
    """Take its subnet from the default bridge if this host has got another use for it since the bridge was there."""
    from pyrtc.core.network import device_index

    if not network.subnet4 or device_index(network.device):
        return
    from pyrtc.ip import parse_subnet
    from pyrtc.network.addresses import host_subnets
    from pyrtc.network.host_lock import host_lock

    with host_lock():
        if not device_index(network.device) and host_subnets().holder(parse_subnet(network.subnet4)):
            store.networks.unassign(network.id)


def assign_subnet(store: "Store", network: "Network") -> None:
    """Give a network its subnet if it still has none: one that neither this host nor the store has a use for.

    Raises
    ------
    NetworkError: there is none left, or this host's addresses cannot be read.
    """
    from pyrtc.ip import parse_subnet
    from pyrtc.network.addresses import host_subnets, pick_pool
    from pyrtc.network.host_lock import host_lock

    with host_lock():
        if store.networks.get(network.id).subnet4:
            return
        known = host_subnets()
        others = [text for other in store.networks.list() for text in (other.subnet4, other.subnet6) if text]
        pool = pick_pool(4, [*map(parse_subnet, others), *known.routed, *(subnet for subnet, _ in known.connected)])
        store.networks.assign(network.id, str(pool.subnet), pool.gateway)
