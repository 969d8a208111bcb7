"""The devices of the host that networks need: bridges. They vanish with a reboot and are made again when needed.

A bridge gets its name as the last step, together with being up: whoever finds the name finds it whole, also when who
made it was killed in between.
"""

import os
from typing import TYPE_CHECKING

from pyrtc.core.network import device_index
from pyrtc.errors import NetworkError, UnsupportedError, reason
from pyrtc.ip import ip_text, parse_subnet
from pyrtc.network.host_lock import host_lock
from pyrtc.network.kernel import ask_kernel
from pyrtc.store.address_picking import new_mac

if TYPE_CHECKING:
    from pyroute2 import IPRoute

    from pyrtc.store import Store
    from pyrtc.store.network_records import Network

__all__ = ["device_owner", "ensure", "make", "orphans", "take_down"]

_IFA_F_NODAD = 0x02  # <linux/if_addr.h>: nobody else can have it, so it is good at once
_MAX_ALIAS = 255  # IFALIASZ of <linux/if.h>, less the NUL


def ensure(network: "Network", store: "Store") -> int:
    """Return the index of the device that a network's endpoints stand on; made when it is not there.

    Parameters
    ----------
    network: with its subnets. store: that it belongs to.

    Raises
    ------
    NetworkError: it cannot be made: the kernel's reason, or a subnet that this host has got another use for meanwhile.
    UnsupportedError: this user may not make any.
    """
    index = device_index(network.device)
    if not index and network.driver == "macvlan":
        raise NetworkError(f"network {network.name} stands on device {network.device}, which this host does not have")
    if not index:
        with host_lock():
            index = make(network, store.path)
    if network.driver == "overlay":
        from pyrtc.network.overlay.vxlan import ensure as ensure_vxlan

        ensure_vxlan(store, network, index)
    return index


def make(network: "Network", store: str) -> int:
    """Make a bridge, with the host's lock held; see `ensure`. store: the path of the one that it belongs to."""
    index = device_index(network.device)
    if index:
        return index
    what = f"make the bridge {network.device} of network {network.name}"
    return ask_kernel(what, lambda kernel: _make_bridge(kernel, network, store))


def _make_bridge(kernel: "IPRoute", network: "Network", store: str) -> int:
    making = f"pvn{network.id[:8]}"
    _delete(kernel, making)  # somebody may have been killed here
    _check_free(kernel, network)
    # A bridge without an address of its own takes the lowest of its ports, which come and go.
    mtu = {"mtu": network.mtu} if network.mtu else {}
    kernel.link("add", ifname=making, kind="bridge", address=new_mac(), **mtu)
    index: int = kernel.link_lookup(ifname=making)[0]
    try:
        _configure(kernel, index, making, network)
        kernel.link("set", index=index, ifname=network.device, ifalias=device_owner(network.id, store), state="up")
    except BaseException:
        kernel.link("del", index=index)
        raise
    return index


def _check_free(kernel: "IPRoute", network: "Network") -> None:
    from pyrtc.network.addresses import read_subnets

    known = read_subnets(kernel)
    for text in (network.subnet4, network.subnet6):
        holder = known.holder(parse_subnet(text)) if text else ""
        if holder:
            raise NetworkError(
                f"network {network.name} cannot be set up: its subnet {text} overlaps with that of device {holder}; "
                "remove one of the two"
            )


def _configure(kernel: "IPRoute", index: int, name: str, network: "Network") -> None:
    if network.subnet4:
        subnet = parse_subnet(network.subnet4)
        broadcast = {"broadcast": ip_text(4, subnet.last)} if subnet.prefix < 31 else {}
        kernel.addr("add", index=index, address=network.gateway4, prefixlen=subnet.prefix, **broadcast)
    _settle_ipv6(name, on=bool(network.subnet6))
    if network.subnet6:
        prefix = parse_subnet(network.subnet6).prefix
        kernel.addr("add", index=index, address=network.gateway6, prefixlen=prefix, flags=_IFA_F_NODAD)


def _settle_ipv6(device: str, *, on: bool) -> None:
    """Turn IPv6 off where a network has none, and have no router of a container configure the host."""
    directory = f"/proc/sys/net/ipv6/conf/{device}"
    if not os.path.isdir(directory):
        if on:
            raise UnsupportedError("this host has no IPv6: make the network without --ipv6 and without such subnets")
        return
    for name, value in (("accept_ra", "0"), ("disable_ipv6", "0" if on else "1")):
        path = f"{directory}/{name}"
        try:
            with open(path, "r+") as file:
                if file.read().strip() != value:
                    file.seek(0)
                    file.write(value)
        except OSError as error:
            raise NetworkError(f"cannot write {value} to {path}: {reason(error.errno or 0)}") from error


def device_owner(network_id: str, store: str) -> str:
    """Return the alias of a device: which network of which store it is for."""
    return f"pyrtc network {network_id} of {store}"[:_MAX_ALIAS]


def take_down(network: "Network") -> None:
    """Remove the device of a network that nobody is on, with the host's lock held; one that is gone is fine."""
    if network.driver not in ("bridge", "overlay"):
        return
    if network.driver == "overlay":
        from pyrtc.network.overlay.vxlan import take_down as take_vxlan_down

        take_vxlan_down(network)
    if not device_index(network.device):
        return
    ask_kernel(
        f"remove the bridge {network.device} of network {network.name}",
        lambda kernel: _delete(kernel, network.device),
    )


def _delete(kernel: "IPRoute", name: str) -> None:
    for index in kernel.link_lookup(ifname=name):
        kernel.link("del", index=index)


def orphans(store: str, known: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """Return the bridges of networks that this store has no more, each after its network's id.

    Parameters
    ----------
    store: its path. known: the ids of the networks that it has.
    """

    def look(kernel: "IPRoute") -> tuple[tuple[str, str], ...]:
        found = []
        for link in kernel.get_links():
            alias = link.get_attr("IFLA_IFALIAS") or ""
            words = alias.split(" ")
            if words[:2] != ["pyrtc", "network"] or len(words) < 5 or words[2] in known:
                continue
            if alias == device_owner(words[2], store):
                found.append((words[2], link.get_attr("IFLA_IFNAME")))
        return tuple(found)

    return ask_kernel("read this host's devices", look)
