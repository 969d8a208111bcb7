"""The WireGuard device of this host, which carries its encrypted overlay networks to the other hosts.

Each host has one, with a key that it made itself. Inside, a host has a link-local address (`documents.tunnel_address`),
and that is what keeps an encrypted network from ever going in the clear: the kernel sends a VXLAN packet to such an
address through the device that it was told and through no other, takes one from that device only, and removes the VXLAN
devices with the one below them. A host whose key is not known is no peer, and WireGuard drops what is for it.
"""

import base64
import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pyrtc.core.network import device_index
from pyrtc.errors import NetworkError, UnsupportedError, reason
from pyrtc.ip import number
from pyrtc.network.host_lock import host_lock
from pyrtc.network.kernel import ask_kernel
from pyrtc.network.overlay import known, membership
from pyrtc.network.overlay.documents import tunnel_address
from pyrtc.network.overlay.underlay import device_of, tunnel_mtu
from pyrtc.values import dataclass, replace

if TYPE_CHECKING:
    from pyroute2 import IPRoute, WireGuard

    from pyrtc.network.overlay.membership import Membership
    from pyrtc.store import Store

__all__ = ["PORT", "TunnelPeer", "device_name", "ensure", "peers", "program", "remove", "require", "take_down_unused"]

PORT = 4793  # UDP; nobody's by IANA, beside VXLAN's, and none that the kernel picks for anybody
_KEY_FILE = "tunnel.key"
_KEY_SIZE = 32
_KEEPALIVE = 25  # seconds; a new peer is greeted at once then, whether or not there is something to send
_SMALLEST_MTU = 1280  # that IPv6 lives with (RFC 8200)
_MAX_ALIAS = 255  # IFALIASZ of <linux/if.h>, less the NUL
_IFA_F_NODAD = 0x02  # <linux/if_addr.h>: nobody else can have it, so it is good at once


@dataclass(frozen=True, slots=True)
class TunnelPeer:
    """Another host. key: its public one. vtep: its address between hosts. address: in the tunnel."""

    key: str
    vtep: str
    address: str


def device_name(address: str) -> str:
    """Return the name of the device of the host that has this address in the tunnel."""
    return f"pyrtcw{number(address)[1] >> 32 & 0xFFFFFFFF:08x}"


def require() -> None:
    """Make sure that this host can have such a device.

    Raises
    ------
    UnsupportedError: its kernel has no WireGuard, or no IPv6.
    """
    name = f"pvw{os.urandom(4).hex()}"

    def attempt(kernel: "IPRoute") -> None:
        _add(kernel, name, _SMALLEST_MTU)
        _delete(kernel, name)

    ask_kernel("make a WireGuard device", attempt)


def ensure(store: "Store") -> None:
    """Make sure of this host's device, with a key that the watcher tells the others; a look-up where it is there.

    Raises
    ------
    UnsupportedError: this kernel has no WireGuard, or no IPv6. NetworkError: the device below has too small an MTU, the
    port is taken, the key cannot be read or written. ClusterError: this host is in no cluster.
    """
    value = membership.member(store)
    name = device_name(tunnel_address(value.id))
    if not value.key or not device_index(name):
        with host_lock():
            value = membership.member(store)
            if not value.key or not device_index(name):
                key = _make(store, value, name)
                if key != value.key:
                    membership.save(store, replace(value, key=key))


def _make(store: "Store", value: "Membership", name: str) -> str:
    """Make the device; return its public key."""
    address, making = tunnel_address(value.id), f"pvw{name.removeprefix('pyrtcw')}"
    lower = device_of(value.vtep)
    mtu = tunnel_mtu(lower.mtu, value.vtep)
    if mtu < _SMALLEST_MTU:
        raise NetworkError(
            f"encrypted packets of {_SMALLEST_MTU} bytes do not fit through {lower.name} of this host, whose MTU is "
            f"{lower.mtu}: {lower.mtu + _SMALLEST_MTU - mtu} is needed"
        )
    private = _private_key(store, value.id)
    owner = f"pyrtc tunnel of {store.path}"[:_MAX_ALIAS]

    def act(kernel: "IPRoute") -> str:
        from pyroute2 import WireGuard

        # Somebody may have been killed here, or when this store left another cluster: the port is to be free.
        for link in kernel.get_links(kind="wireguard"):
            if link.get_attr("IFLA_IFNAME") in (name, making) or link.get_attr("IFLA_IFALIAS") == owner:
                kernel.link("del", index=link["index"])
        index = _add(kernel, making, mtu)
        try:
            with WireGuard() as wireguard:
                wireguard.set(making, private_key=private, listen_port=PORT)
                # The kernel makes the public key: there is no cryptography here.
                public = _text(wireguard.info(making)[0].get_attr("WGDEVICE_A_PUBLIC_KEY"))
            _with_ipv6(making)
            kernel.addr("add", index=index, address=address, prefixlen=64, flags=_IFA_F_NODAD)
            try:
                kernel.link("set", index=index, ifname=name, ifalias=owner, state="up")
            except Exception as error:
                if getattr(error, "code", 0) == errno.EADDRINUSE:
                    raise NetworkError(
                        f"UDP port {PORT} of this host, over which encrypted networks go, is taken: by another "
                        "program, or by another store of it that takes part in a cluster"
                    ) from error
                raise
        except BaseException:
            kernel.link("del", index=index)
            raise
        return public

    return ask_kernel("make this host's WireGuard device", act)


def _add(kernel: "IPRoute", name: str, mtu: int) -> int:
    if not os.path.isdir("/proc/sys/net/ipv6"):
        raise UnsupportedError(
            "encrypted overlay networks need IPv6 in this host's kernel, inside the tunnel only: it was left out or "
            "turned off (ipv6.disable=1)"
        )
    try:
        kernel.link("add", ifname=name, kind="wireguard", mtu=mtu)
    except Exception as error:
        if getattr(error, "code", 0) == errno.EOPNOTSUPP:
            raise UnsupportedError(
                "encrypted overlay networks need WireGuard, which this host's kernel does not have: load its module "
                "(modprobe wireguard; Linux 5.6 or later), or use a network that was made without --opt encrypted"
            ) from error
        raise
    index: int = kernel.link_lookup(ifname=name)[0]
    return index


def _with_ipv6(device: str) -> None:
    """Have the device take an address, also on hosts that have IPv6 turned off for new devices."""
    path = f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6"
    try:
        with open(path, "r+") as file:
            file.write("0")
    except OSError as error:
        raise NetworkError(f"cannot write 0 to {path}: {reason(error.errno or 0)}") from error


def _private_key(store: "Store", host_id: str) -> str:
    """Return the key of this host in this cluster; one that joins again is another host, and has another key."""
    path = f"{store.path}/{_KEY_FILE}"
    try:
        with suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(fd, "rb") as file:
                owner, _, key = file.read(200).decode("ascii", "replace").strip().partition(" ")
            if owner == host_id and len(base64.b64decode(key)) == _KEY_SIZE:
                return key
        key = base64.b64encode(os.urandom(_KEY_SIZE)).decode()
        making = f"{path}.new"
        with suppress(FileNotFoundError):
            os.unlink(making)
        fd = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(f"{host_id} {key}\n".encode())
            file.flush()
            os.fsync(fd)
        os.rename(making, path)
    except (OSError, ValueError) as error:
        said = reason(error.errno or 0) if isinstance(error, OSError) else "it holds something else"
        raise NetworkError(f"cannot use {path}, the key of this host's encrypted networks: {said}") from error
    return key


def remove(store: "Store", value: "Membership") -> None:
    """Remove this host's device and its key; what is gone is fine.

    Raises
    ------
    NetworkError: one of them cannot be removed.
    """
    name = device_name(tunnel_address(value.id))
    if device_index(name):
        ask_kernel("remove this host's WireGuard device", lambda kernel: _delete(kernel, name))
    path = f"{store.path}/{_KEY_FILE}"
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
    except OSError as error:
        raise NetworkError(f"cannot remove {path}: {reason(error.errno or 0)}") from error


def take_down_unused(kernel: "IPRoute", name: str) -> None:
    """Remove the device with the last VXLAN device that stands on it, with the host's lock held."""
    for index in kernel.link_lookup(ifname=name):
        if not any(_lower_of(link) == index for link in kernel.get_links(kind="vxlan")):
            kernel.link("del", index=index)


def _lower_of(link: Any) -> int:  # noqa: ANN401  (pyroute2's messages have no types)
    """Return the index of the device that a VXLAN device stands on; 0 for none."""
    lower = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_VXLAN_LINK")
    return int(lower or 0)


def _delete(kernel: "IPRoute", name: str) -> None:
    for index in kernel.link_lookup(ifname=name):
        kernel.link("del", index=index)


def peers(store: "Store", value: "Membership") -> tuple[TunnelPeer, ...]:
    """Return the other hosts that have told a key, as far as this host knows."""
    return tuple(
        TunnelPeer(host.key, host.vtep, tunnel_address(host.id))
        for host in sorted(known.hosts(store).values(), key=lambda host: host.id)
        if host.key and host.id != value.id and (":" in host.vtep) == (":" in value.vtep)
    )


def program(name: str, wanted: Iterable[TunnelPeer]) -> int:
    """Have WireGuard know these peers and no others; return how many were other ones. Nothing without the device.

    Must be called where pyroute2 may be (`ask_kernel`).
    """
    from pyroute2 import WireGuard

    if not device_index(name):
        return 0
    with WireGuard() as wireguard:
        there = _there(wireguard, name)
        keys = {peer.key: peer for peer in wanted}
        gone = there.keys() - keys.keys()
        for key in sorted(gone):  # before others get their addresses
            wireguard.set(name, peer={"public_key": key, "remove": True})
        changed = [peer for peer in keys.values() if there.get(peer.key) != _as_told(peer)]
        for peer in changed:
            wireguard.set(
                name,
                peer={
                    "public_key": peer.key,
                    "endpoint_addr": peer.vtep,
                    "endpoint_port": PORT,
                    "persistent_keepalive": _KEEPALIVE,
                    "replace_allowed_ips": True,
                    "allowed_ips": [f"{peer.address}/128"],
                },
            )
    return len(gone) + len(changed)


_Told = tuple[str, int, tuple[str, ...], int]


def _as_told(peer: TunnelPeer) -> _Told:
    return peer.vtep, PORT, (f"{peer.address}/128",), _KEEPALIVE


def _there(wireguard: "WireGuard", name: str) -> dict[str, _Told]:
    """Return the peers that WireGuard knows; one with many addresses comes in several messages."""
    found: dict[str, _Told] = {}
    for message in wireguard.info(name):
        for peer in message.get_attr("WGDEVICE_A_PEERS") or ():
            key = _text(peer.get_attr("WGPEER_A_PUBLIC_KEY"))
            endpoint = peer.get_attr("WGPEER_A_ENDPOINT") or {"addr": "", "port": 0}
            allowed = tuple(one["addr"] for one in peer.get_attr("WGPEER_A_ALLOWEDIPS") or ())
            before = found.get(key, ("", 0, (), 0))
            keepalive = peer.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") or before[3]
            found[key] = (endpoint["addr"], endpoint["port"], (*before[2], *allowed), keepalive)
    return found


def _text(key: bytes | str) -> str:
    return key.decode() if isinstance(key, bytes) else key
