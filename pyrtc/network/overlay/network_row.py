"""A network of the cluster as a row of one host's store."""

from typing import TYPE_CHECKING

from pyrtc.store.networks import Network

if TYPE_CHECKING:
    from pyrtc.network.overlay.documents import NetworkDocument
    from pyrtc.network.overlay.membership import Membership

__all__ = ["VNI", "VTEP", "network_of"]

# Options of the row: the network's VXLAN number, and the address of this host between hosts.
VNI, VTEP = "vni", "vtep"


def network_of(value: "Membership", name: str, document: "NetworkDocument") -> Network:
    """Return the row of a network as each host has it."""
    return Network(
        id=document.id,
        name=name,
        driver="overlay",
        created=document.created,
        device=f"pyrtc-{document.id[:8]}",
        subnet4=document.subnet,
        gateway4=document.gateway,
        mtu=document.mtu,
        internal=document.internal,
        attachable=True,
        labels=tuple(sorted(document.labels.items())),
        options=tuple(sorted({**document.options, VNI: str(document.vni), VTEP: value.vtep}.items())),
    )
