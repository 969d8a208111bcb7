"""Where ports of this host can lead, and which of them a container is to have."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pyrtc.errors import UsageError
from pyrtc.options import Port
from pyrtc.store.network_records import Published

if TYPE_CHECKING:
    from pyrtc.options import RunOptions
    from pyrtc.store.networks import Endpoint

__all__ = ["PUBLISHING", "port_of", "published_on", "publishing", "recorded", "wanted_ports"]

PUBLISHING = ("bridge", "overlay")  # drivers whose networks ports of the host lead into


def wanted_ports(options: "RunOptions", exposed: "Sequence[Port]") -> "tuple[Port, ...]":
    """Return what is to be published. exposed: what the image names."""
    if not options.publish_all:
        return options.ports
    from pyrtc.network.ports import publish_all

    return publish_all(options.ports, (*options.expose, *exposed))


def publishing(endpoints: "Sequence[Endpoint]") -> "Endpoint | None":
    """Return where published ports lead; None where no port can.

    It is the first network that leads outside, over which answers go; endpoints: in the order in which they came.
    """
    return next((one for one in endpoints if one.network.driver in PUBLISHING and not one.internal), None)


def published_on(endpoints: "Sequence[Endpoint]") -> "Endpoint":
    """Return where published ports lead, or say why none can."""
    found = publishing(endpoints)
    if found is not None:
        return found
    names = ", ".join(endpoint.network.name for endpoint in endpoints)
    raise UsageError(f"no port of this machine can lead into {names}: publishing takes a bridge that is not internal")


def port_of(published: Published) -> Port:
    """Return what was published as it was asked for, with the port that was chosen."""
    return Port(published.container_port, published.protocol, published.host_port, published.ip)


def recorded(container_id: str, ports: "Iterable[Port]") -> list[Published]:
    """Return what the store keeps of ports whose numbers are chosen."""
    return [Published(container_id, port.protocol, port.ip, port.host, port.container) for port in ports]
