"""The devices that what a container sends is led through where its own ones are its to change; see `shaping`.

And the removal of devices that do not go with a container's namespace.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyrtc.core.network import detach, device_index, open_in
from pyrtc.errors import NetworkError

if TYPE_CHECKING:
    from pyrtc.store.networks import Endpoint

__all__ = ["detour", "hardware_address", "remove_detours", "remove_device"]

_ENODEV = 19
_SIOCGIFHWADDR = 0x8927  # <linux/sockios.h>


def detour(endpoint: "Endpoint") -> str:
    """Return the name of the ifb device beside the host's end of a veth pair."""
    return f"pi{endpoint.host_device.removeprefix('pv')}"


def remove_detours(endpoints: "Iterable[Endpoint]") -> None:
    """Remove what does not go with the container's namespace. Most containers have nothing of it."""
    for endpoint in endpoints:
        remove_device(detour(endpoint))


def remove_device(name: str, netns_fd: int = -1) -> None:
    """Remove a device of this host, or of another network namespace; none of this name is fine."""
    if netns_fd < 0 and not device_index(name):
        return
    try:
        detach(netns_fd, name)
    except NetworkError as error:
        if getattr(error, "errno", 0) != _ENODEV:  # another has removed it meanwhile
            raise


def hardware_address(netns_fd: int, name: str) -> str:
    """Return the MAC address of a device in another network namespace, "" where there is none of this name."""
    import fcntl
    import socket

    with socket.socket(fileno=open_in(netns_fd, socket.AF_INET, socket.SOCK_DGRAM)) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket.fileno(), _SIOCGIFHWADDR, name.encode().ljust(40, b"\0"))
        except OSError:
            return ""
    return answer[18:24].hex(":")
