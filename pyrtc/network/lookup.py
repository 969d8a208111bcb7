"""Networks by name: those of this store, and those of its cluster that it has not heard of yet."""

from typing import TYPE_CHECKING

from pyrtc.errors import NetworkNotFound

if TYPE_CHECKING:
    from pyrtc.store import Store
    from pyrtc.store.network_records import Network

__all__ = ["find"]


def find(store: "Store", name_or_id: str) -> "Network":
    """Find a network of this store, or one of its cluster, by name, which is one of this store then.

    Raises
    ------
    NetworkNotFound: there is none.
    """
    try:
        return store.networks.get(name_or_id)
    except NetworkNotFound:
        from pyrtc.network.overlay.membership import joined

        if not joined(store):
            raise
        from pyrtc.network.overlay.networks import adopt

        return adopt(store, name_or_id)
