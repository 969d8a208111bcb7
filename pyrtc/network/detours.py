"""The devices that what a container sends is led through where its own ones are its to change; see `shaping`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyrtc.core.network import detach, device_index
from pyrtc.errors import NetworkError

if TYPE_CHECKING:
    from pyrtc.store.networks import Endpoint

__all__ = ["detour", "remove_detours", "remove_device"]

_ENODEV = 19


def detour(endpoint: "Endpoint") -> str:
    """Return the name of the ifb device beside the host's end of a veth pair."""
    return f"pi{endpoint.host_device.removeprefix('pv')}"


def remove_detours(endpoints: "Iterable[Endpoint]") -> None:
    """Remove what does not go with the container's namespace. Most containers have nothing of it."""
    for endpoint in endpoints:
        remove_device(detour(endpoint))


def remove_device(name: str) -> None:
    """Remove a device of this host; none of this name is fine."""
    if not device_index(name):
        return
    try:
        detach(-1, name)
    except NetworkError as error:
        if getattr(error, "errno", 0) != _ENODEV:  # another has removed it meanwhile
            raise
