"""The devices of an overlay network on one host: a bridge that containers stand on, and on it a VXLAN device.

Who is where is told to the kernel ahead of time: for each container of another host its hardware address with the host
(in the VXLAN device and in the bridge) and its IP address with the hardware address (the bridge answers ARP itself).
Beside that, frames for everybody and for nobody known go to every other host, and both devices learn: what this host
has not heard of costs a broadcast, and no connection. The kernel documents none of it; see bridge(8), ip-link(8).

The bridge never forwards ARP for an address that this host has, so each host can be the gateway of its containers.

The VXLAN device of an encrypted network stands on this host's WireGuard device (`pyrtc.network.overlay.tunnel`). Each
of its entries names that device: a link-local address alone would let the kernel choose.
"""

import errno
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pyrtc.core.network import device_index
from pyrtc.errors import NetworkError, UnsupportedError, reason
from pyrtc.network.host_lock import host_lock
from pyrtc.network.kernel import ask_kernel
from pyrtc.network.overlay import known, membership, tunnel
from pyrtc.network.overlay.documents import encrypts, tunnel_address
from pyrtc.network.overlay.network_row import VNI, VTEP
from pyrtc.network.overlay.underlay import device_of, fitting
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyroute2 import IPRoute

    from pyrtc.network.overlay.underlay import Device
    from pyrtc.store import Store
    from pyrtc.store.networks import Network

__all__ = ["PORT", "Peer", "device_name", "encrypted", "ensure", "program", "program_known", "take_down", "wanted"]

PORT = 4789  # RFC 7348
_AF_BRIDGE = 7
_EVERYBODY = "00:00:00:00:00:00"  # what VXLAN looks up for a frame whose receiver is not known
# <linux/neighbour.h>
_REACHABLE, _NOARP, _PERMANENT = 0x02, 0x40, 0x80
_SELF, _MASTER, _LEARNED_OUTSIDE = 0x02, 0x04, 0x10


@dataclass(frozen=True, slots=True)
class Peer:
    """A container of another host. vtep: the host's address; in the tunnel, on an encrypted network."""

    ip4: str
    mac: str
    vtep: str


def device_name(network: "Network") -> str:
    """Return the name of a network's VXLAN device."""
    return f"pyrtcx{network.id[:8]}"


def encrypted(network: "Network") -> bool:
    """Say whether what containers send over a network is encrypted between hosts."""
    return encrypts(dict(network.options))


def ensure(store: "Store", network: "Network", bridge: int) -> None:
    """Make sure that a network's bridge has its VXLAN device; a look-up where it has.

    Raises
    ------
    NetworkError: this host has not the address any more, too little fits through its device, or another device has the
    number. UnsupportedError: the kernel has no VXLAN, or no WireGuard and the network is encrypted.
    """
    if device_index(device_name(network)):
        return
    below = ""
    if encrypted(network):
        tunnel.ensure(store)
        below = tunnel.device_name(network.option(VTEP))
    lower = device_of(network.option(VTEP), below)
    with host_lock():
        if not device_index(device_name(network)):
            _make(network, bridge, lower)
    # What was known when it was there last; the watcher has the rest.
    ask_kernel(f"fill the VXLAN device of network {network.name}", lambda kernel: program_known(kernel, store, network))


def _make(network: "Network", bridge: int, lower: "Device") -> None:
    vni, vtep = int(network.option(VNI)), network.option(VTEP)
    name, making = device_name(network), f"pvx{network.id[:8]}"
    most = fitting(lower.mtu, vtep)
    if network.mtu > most:
        raise NetworkError(
            f"network {network.name} has packets of {network.mtu} bytes, and {most} are the most that fit through "
            f"{lower.name} of this host: raise its MTU, or make the network anew now that this host is in the cluster"
        )

    def act(kernel: "IPRoute") -> None:
        _delete(kernel, making)  # somebody may have been killed here
        local = {"vxlan_local6" if ":" in vtep else "vxlan_local": vtep}
        try:
            # The device below is always named: only then the kernel refuses what does not fit.
            kernel.link(
                "add", ifname=making, kind="vxlan", mtu=network.mtu, vxlan_id=vni, vxlan_link=lower.index,
                vxlan_port=PORT, vxlan_learning=True, **local,
            )  # fmt: skip
        except Exception as error:
            if getattr(error, "code", 0) == errno.EEXIST:
                raise NetworkError(
                    f"network {network.name} cannot be set up: another device of this host has the VXLAN number {vni}; "
                    "it may be another store's that takes part in the same cluster"
                ) from error
            if getattr(error, "code", 0) == errno.EOPNOTSUPP:
                raise UnsupportedError("overlay networks need VXLAN, which this kernel has not") from error
            raise
        index: int = kernel.link_lookup(ifname=making)[0]
        try:
            _without_ipv6(making)
            kernel.link("set", index=index, master=bridge)
            kernel.brport("set", index=index, neigh_suppress=1, learning=1)
            kernel.link("set", index=index, ifname=name, state="up")
        except BaseException:
            kernel.link("del", index=index)
            raise

    ask_kernel(f"make the VXLAN device of network {network.name}", act)


def _without_ipv6(device: str) -> None:
    """The device carries frames of others and has nothing to say itself."""
    try:
        with open(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6", "r+") as file:
            file.write("1")
    except FileNotFoundError:  # a host without IPv6
        pass
    except OSError as error:
        raise NetworkError(f"cannot turn off IPv6 of {device}: {reason(error.errno or 0)}") from error


def take_down(network: "Network") -> None:
    """Remove a network's VXLAN device, and with the last encrypted one what it stood on; one that is gone is fine."""
    below = tunnel.device_name(network.option(VTEP)) if encrypted(network) else ""
    if not device_index(device_name(network)) and not (below and device_index(below)):
        return

    def act(kernel: "IPRoute") -> None:
        _delete(kernel, device_name(network))
        if below:
            tunnel.take_down_unused(kernel, below)

    ask_kernel(f"remove the VXLAN device of network {network.name}", act)


def _delete(kernel: "IPRoute", name: str) -> None:
    for index in kernel.link_lookup(ifname=name):
        kernel.link("del", index=index)


def program_known(kernel: "IPRoute", store: "Store", network: "Network") -> int:
    """Tell the kernel what this host knows of the others; return how many entries were other ones."""
    value = membership.membership(store)
    if value is not None and encrypted(network):
        tunnel.program(tunnel.device_name(network.option(VTEP)), tunnel.peers(store, value))
    return program(kernel, network, *wanted(store, network))


def wanted(store: "Store", network: "Network") -> tuple[tuple[str, ...], tuple[Peer, ...]]:
    """Return the addresses of the other hosts and the containers on them, as far as this host knows."""
    own, hosts = network.option(VTEP), known.hosts(store).values()
    if encrypted(network):
        others = {host.id: tunnel_address(host.id) for host in hosts if host.key and tunnel_address(host.id) != own}
    else:
        others = {
            host.id: host.vtep
            for host in hosts
            if host.vtep != own and (":" in host.vtep) == (":" in own)  # the device speaks one of the two
        }
    peers = tuple(
        Peer(remote.ip4, remote.mac, others[remote.host])
        for remote in known.remotes(store, network.id)
        if remote.host in others
    )
    return tuple(sorted(others.values())), peers


def program(kernel: "IPRoute", network: "Network", vteps: Iterable[str], peers: Iterable[Peer]) -> int:
    """Tell the kernel where the other hosts and their containers are; return how many entries were other ones.

    Nothing is done where the devices are not there. What the kernel learned by itself stays.
    """
    bridge, vxlan = device_index(network.device), device_index(device_name(network))
    if not bridge or not vxlan:
        return 0
    via = device_index(tunnel.device_name(network.option(VTEP))) if encrypted(network) else 0
    if encrypted(network) and not via:
        return 0
    by_mac = {peer.mac: peer for peer in peers}
    changes = _program_floods(kernel, vxlan, {(vtep, via) for vtep in vteps})
    changes += _program_places(kernel, vxlan, {mac: (peer.vtep, via) for mac, peer in by_mac.items()})
    changes += _program_ports(kernel, vxlan, set(by_mac))
    moved = _program_neighbours(kernel, bridge, {peer.ip4: peer.mac for peer in by_mac.values()})
    _announce(network.device, moved)
    return changes + len(moved)


def _entries(kernel: "IPRoute", vxlan: int) -> list[Any]:
    return [entry for entry in kernel.fdb("dump") if entry["ifindex"] == vxlan]


_Place = tuple[str, int]  # the address of a host, and the device that it is reached through, 0 for any


def _place(entry: Any) -> _Place:  # noqa: ANN401  (pyroute2's messages have no types)
    return entry.get_attr("NDA_DST"), entry.get_attr("NDA_IFINDEX") or 0


def _program_floods(kernel: "IPRoute", vxlan: int, places: set[_Place]) -> int:
    there = {
        _place(entry)
        for entry in _entries(kernel, vxlan)
        if entry["flags"] & _SELF and entry.get_attr("NDA_LLADDR") == _EVERYBODY
    }
    for place in sorted(there - places):
        _fdb(kernel, "del", vxlan, _EVERYBODY, _SELF, _PERMANENT | _NOARP, place)
    for place in sorted(places - there):
        _fdb(kernel, "append", vxlan, _EVERYBODY, _SELF, _PERMANENT | _NOARP, place)
    return len(places ^ there)


def _program_places(kernel: "IPRoute", vxlan: int, places: Mapping[str, _Place]) -> int:
    """Which host a hardware address is at. Entries that may move when frames say so, and that do not age."""
    there, learned = {}, set()
    for entry in _entries(kernel, vxlan):
        mac = entry.get_attr("NDA_LLADDR")
        if entry["flags"] & _SELF and mac != _EVERYBODY:
            there[mac] = _place(entry)
            if not entry["flags"] & _LEARNED_OUTSIDE:
                learned.add(mac)
    changes = 0
    for mac, place in places.items():
        if there.get(mac) != place or mac in learned:
            _fdb(kernel, "replace", vxlan, mac, _SELF | _LEARNED_OUTSIDE, _REACHABLE, place)
            changes += 1
    for mac in there.keys() - places.keys() - learned:
        _fdb(kernel, "del", vxlan, mac, _SELF, _REACHABLE)
        changes += 1
    return changes


def _program_ports(kernel: "IPRoute", vxlan: int, macs: set[str]) -> int:
    """Which hardware addresses are behind the VXLAN device, for the bridge."""
    there = {
        entry.get_attr("NDA_LLADDR")
        for entry in _entries(kernel, vxlan)
        if entry["flags"] & _LEARNED_OUTSIDE and not entry["flags"] & _SELF and entry.get_attr("NDA_MASTER")
    }
    for mac in sorted(macs - there):
        _fdb(kernel, "replace", vxlan, mac, _MASTER | _LEARNED_OUTSIDE, _REACHABLE)
    for mac in sorted(there - macs):
        _fdb(kernel, "del", vxlan, mac, _MASTER, _REACHABLE)
    return len(macs ^ there)


def _program_neighbours(kernel: "IPRoute", bridge: int, addresses: Mapping[str, str]) -> dict[str, str]:
    """Which hardware address an IP address has: what the bridge answers ARP with, and this host uses itself.

    Returns
    -------
    The addresses that have another one than before, or had none.
    """
    there = {
        entry.get_attr("NDA_DST"): entry.get_attr("NDA_LLADDR")
        for entry in kernel.get_neighbours(family=2, ifindex=bridge)
        if entry["flags"] & _LEARNED_OUTSIDE
    }
    moved = {address: mac for address, mac in addresses.items() if there.get(address) != mac}
    for address, mac in moved.items():
        kernel.neigh("replace", ifindex=bridge, family=2, dst=address, lladdr=mac, state=_NOARP, flags=_LEARNED_OUTSIDE)
    for address in there.keys() - addresses.keys():
        kernel.neigh("del", ifindex=bridge, family=2, dst=address)
    return moved


def _announce(bridge: str, moved: Mapping[str, str]) -> None:
    """Tell the containers of this host, as the others' gratuitous ARP would: the bridge keeps that from the tunnel.

    Without it a container that has spoken to the address before goes on sending to where it was for half a minute.
    """
    if not moved:
        return
    import socket

    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        for address, mac in moved.items():
            place, hardware = socket.inet_aton(address), bytes.fromhex(mac.replace(":", ""))
            # Ethernet to everybody, then ARP (RFC 826, RFC 5227 3): Ethernet, IPv4, 6, 4, a request for itself.
            frame = b"\xff" * 6 + hardware + b"\x08\x06" + b"\0\x01\x08\0\x06\x04\0\x01"
            try:
                sock.sendto(frame + hardware + place + b"\0" * 6 + place, (bridge, 0))
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # lost as any packet may be: then it is half a minute
                    raise NetworkError(f"cannot announce {address} on {bridge}: {reason(error.errno or 0)}") from error


def _fdb(
    kernel: "IPRoute", command: str, vxlan: int, mac: str, flags: int, state: int, place: _Place = ("", 0)
) -> None:
    """Change one entry; one that has gone by itself meanwhile is fine."""
    more: dict[str, str | int] = {"dst": place[0]} if place[0] else {}
    if place[1]:
        more["NDA_IFINDEX"] = place[1]
    try:
        # Not pyroute2's fdb(), which makes every entry one that never moves.
        kernel.neigh(command, ifindex=vxlan, family=_AF_BRIDGE, lladdr=mac, flags=flags, state=state, **more)
    except Exception as error:
        if command != "del" or getattr(error, "code", 0) not in (errno.ENOENT, errno.ESRCH):
            raise
