"""A network of the cluster as a row of one host's store."""

from typing import TYPE_CHECKING

from pyrtc.network.overlay.documents import encrypts, tunnel_address
from pyrtc.store.networks import Network

if TYPE_CHECKING:
    from pyrtc.network.overlay.documents import NetworkDocument
    from pyrtc.network.overlay.membership import Membership

__all__ = ["VNI", "VTEP", "network_of"]

# Options of the row: the network's VXLAN number, and the address of this host between hosts, which for an encrypted
# network is the one in the tunnel.
VNI, VTEP = "vni", "vtep"


def network_of(value: "Membership", name: str, document: "NetworkDocument") -> Network:
    """Return the row of a network as each host has it."""
    vtep = tunnel_address(value.id) if encrypts(document.options) else value.vtep
    return Network(
        id=document.id,
        name=name,
        driver="overlay",
        created=document.created,
        device=f"pyrtc-{document.id[:8]}",
        subnet4=document.subnet,
        gateway4=document.gateway,
        range4=document.range,
        mtu=document.mtu,
        internal=document.internal,
        attachable=True,
        labels=tuple(sorted(document.labels.items())),
        options=tuple(sorted({**document.options, VNI: str(document.vni), VTEP: vtep}.items())),
        auxiliary=tuple(sorted(document.auxiliary.items())),
    )
