"""Addresses for containers that start, with a subnet for the default bridge when it is first used."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from pyrtc.store.networks import NoSubnet

if TYPE_CHECKING:
    from pyrtc.store import Store
    from pyrtc.store.networks import Endpoint, Network, Wish

__all__ = ["assign_subnet", "claim", "claim_more"]

T = TypeVar("T")


def claim(store: "Store", container_id: str, wishes: "Sequence[Wish]") -> "tuple[Endpoint, ...]":
    """Give a container that starts an endpoint on each network; see `pyrtc.store.networks.Networks.claim`."""
    return _with_subnets(store, lambda: store.networks.claim(container_id, wishes))


def claim_more(store: "Store", container_id: str, wish: "Wish") -> "Endpoint":
    """Give a container that runs an endpoint on one more network; see `pyrtc.store.networks.Networks.claim_more`."""
    return _with_subnets(store, lambda: store.networks.claim_more(container_id, wish))


def _with_subnets(store: "Store", act: Callable[[], T]) -> T:
    while True:
        try:
            return act()
        except NoSubnet as missing:
            assign_subnet(store, missing.network)


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
