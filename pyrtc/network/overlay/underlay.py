"""The network that hosts reach one another through: which device has an address, and what fits through it."""

from typing import TYPE_CHECKING, Any

from pyrtc.errors import NetworkError, UsageError
from pyrtc.ip import address as written
from pyrtc.network.kernel import ask_kernel
from pyrtc.network.overlay.documents import Wrong, check_unicast
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyroute2 import IPRoute

__all__ = ["OVERHEAD", "Device", "advertised", "device_of", "fitting", "tunnel_mtu"]

# Outer Ethernet header excluded, as devices count: IP + UDP + VXLAN + the inner Ethernet header (RFC 7348).
OVERHEAD = {4: 20 + 8 + 8 + 14, 6: 40 + 8 + 8 + 14}
# IP + UDP + WireGuard's header and its proof of who sent it.
_TUNNEL_OVERHEAD = {4: 20 + 8 + 16 + 16, 6: 40 + 8 + 16 + 16}


@dataclass(frozen=True, slots=True)
class Device:
    """A device of this host."""

    name: str
    index: int
    mtu: int


def fitting(mtu: int, vtep: str) -> int:
    """Return what fits into a packet of the overlay, where mtu fits between hosts."""
    return mtu - OVERHEAD[6 if ":" in vtep else 4]


def tunnel_mtu(mtu: int, vtep: str) -> int:
    """Return what fits into a packet of the tunnel that encrypted networks go through, where mtu fits between hosts."""
    return mtu - _TUNNEL_OVERHEAD[6 if ":" in vtep else 4]


def device_of(vtep: str, name: str = "") -> Device:
    """Return the device of this host that has an address. name: what it must be called.

    Raises
    ------
    NetworkError: none has.
    """

    def find(route: "IPRoute") -> Device | None:
        family = 10 if ":" in vtep else 2
        for entry in route.get_addr(family=family):
            if written(_attribute(entry, "IFA_LOCAL") or _attribute(entry, "IFA_ADDRESS")) == vtep:
                link = route.get_links(entry["index"])[0]
                device = Device(_attribute(link, "IFLA_IFNAME"), entry["index"], _attribute(link, "IFLA_MTU"))
                if name in ("", device.name):
                    return device
        return None

    found = ask_kernel("read this host's addresses", find)
    if found is None and name:
        raise NetworkError(f"the device {name} of this host has lost its address {vtep}: ip link delete {name}")
    if found is None:
        raise NetworkError(
            f"no device of this host has the address {vtep}, by which the other hosts of the cluster know it: give it "
            "back its address, or pyrtc cluster leave and join again with --advertise"
        )
    return found


def advertised(wanted: str, etcd: str) -> str:
    """Return the address that other hosts are to reach this one at.

    Parameters
    ----------
    wanted: an address of this host, the name of a device that has one, or empty: the one that etcd is reached from.
    etcd: URL of a member.

    Raises
    ------
    UsageError: that is no address that others can reach.
    """
    if not wanted:
        found = _address_towards(etcd)
    elif ":" in wanted or wanted.replace(".", "").isdigit():
        found = wanted
    else:
        found = ask_kernel(f"read the addresses of {wanted}", lambda route: _address_on(route, wanted))
    try:
        return check_unicast(found)
    except Wrong as error:
        raise UsageError(
            f"{error}: say with --advertise which address of this host, or which device, the others reach"
        ) from None


def _address_towards(etcd: str) -> str:
    import socket
    from urllib.parse import urlsplit

    parts = urlsplit(etcd)
    try:
        family, _, _, _, place = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect(place)  # sends nothing: the kernel looks up the route
            address: str = sock.getsockname()[0]
            return address
    except OSError as error:
        raise UsageError(
            f"cannot tell from which address {parts.hostname} is reached ({error.strerror or error}): say --advertise"
        ) from error


def _address_on(route: "IPRoute", name: str) -> str:
    indexes = route.link_lookup(ifname=name)
    if not indexes:
        raise UsageError(f"there is no device {name!r} on this host; --advertise takes an address or a device")
    entries = [entry for entry in route.get_addr(index=indexes[0]) if entry["scope"] == 0]
    entries.sort(key=lambda entry: entry["family"])
    if not entries:
        raise UsageError(f"the device {name} has no address")
    address: str = _attribute(entries[0], "IFA_LOCAL") or _attribute(entries[0], "IFA_ADDRESS")
    return address


def _attribute(message: Any, name: str) -> Any:  # noqa: ANN401  (pyroute2's messages have no types)
    return message.get_attr(name)
