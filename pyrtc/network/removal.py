"""What this host has of a network beside its row goes: the firewall's rules, the devices, and the names on it."""

import os
from typing import TYPE_CHECKING

from pyrtc.core.network import device_index
from pyrtc.errors import NetworkError, UnsupportedError
from pyrtc.network import devices
from pyrtc.network.host_lock import host_lock
from pyrtc.network.names import remove_names

if TYPE_CHECKING:
    from pyrtc.store import Store
    from pyrtc.store.networks import Network

__all__ = ["forget", "take_down"]

_BRIDGED = ("bridge", "overlay")


def take_down(network: "Network") -> None:
    """Remove what lets a network's packets through, and its devices, which may be gone; with the host's lock held.

    Raises
    ------
    NetworkError: they cannot be removed.
    """
    if network.driver not in _BRIDGED or os.geteuid() != 0:
        return
    from pyrtc.network.firewall import remove_network

    there = bool(device_index(network.device))
    try:
        remove_network(network)
    except (NetworkError, UnsupportedError):
        if there:
            raise
    devices.take_down(network)


def forget(store: "Store", network: "Network") -> None:
    """Remove all that is left of a network whose row is gone; raises as `take_down` does."""
    if os.geteuid() == 0:  # only root's networks have devices
        with host_lock():
            take_down(network)
    remove_names(store, network.id)
