"""The attendant of a container: the process that serves names inside, and holds and carries its ports outside.

It is nobody's child and ends with the container. Without it the container goes on, but resolves no names; its ports on
the host are free then, though the firewall still leads to it what arrives there.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pyrtc.core.attendant import Proxy
from pyrtc.core.attendant import start_attendant as start_program
from pyrtc.core.network import nft, open_in
from pyrtc.errors import NetworkError, StartError
from pyrtc.ip import number
from pyrtc.network.names import open_names, write_dns
from pyrtc.runtime.etc_files import OWN_RESOLVER
from pyrtc.store.owner import process_start_time

if TYPE_CHECKING:
    from pyrtc.network.ports import Held
    from pyrtc.network.stand_in import StandIn
    from pyrtc.store.networks import Endpoint
    from pyrtc.store.store import Store

__all__ = ["start_attendant"]

# A program of the container may have port 53 of all its addresses, as a server of names does: the attendant listens at
# a port that nobody asks for, and what is sent to its address and port 53 is led there.
_LEAD = """\
table ip pyrtc_names
delete table ip pyrtc_names
table ip pyrtc_names {{
    chain asked {{
        type nat hook output priority -100; policy accept;
        ip daddr {address} udp dport 53 dnat to {address}:{datagrams}
        ip daddr {address} tcp dport 53 dnat to {address}:{streams}
    }}
}}
"""
_HOST = "127.0.0.1"
_WAITING = 64  # TCP clients of the name server that were not accepted yet


def start_attendant(
    store: "Store",
    pidfd: int,
    endpoints: Sequence["Endpoint"],
    *,
    netns_fd: int,
    userns_fd: int = -1,
    directory_fd: int,
    name_server: bool = True,
    asked: Sequence[str] | None = None,
    resolvers: Sequence[str] | None = (),
    outward: bool = False,
    held: Sequence["Held"] = (),
    published_on: "Endpoint | None" = None,
    stand_in: "StandIn | None" = None,
) -> tuple[int, int]:
    """Start the attendant of a container; when this returns, names are resolved inside and its ports are held.

    Returns its pid and its start time in clock ticks since boot.

    Parameters
    ----------
    pidfd: the container's. endpoints: what it has been given. The names of their networks are to be written
        (`write_names`) by then.
    netns_fd: its network namespace. userns_fd: whose that is, where this process's user has no right over it itself.
    directory_fd: the container's directory, where the file ``dns`` is made.
    name_server: names are resolved inside, by a server at 127.0.0.11.
    resolvers: addresses, whom to ask for other names, from the caller's network; none: who listens at 127.0.0.1, as the
        C library does it; None: what an attendant of this run was told before.
    asked: the names, as in `RunOptions.egress`, that they are asked for, and that the container may connect to then;
        None: all. `pyrtc.network.egress.restrict` has been called by then. outward: also where no endpoint leads out.
    held: sockets of `pyrtc.network.ports.reserve`; close them afterwards. What arrives there goes to the container's
        address on the endpoint published_on. stand_in: where it connects to that and asks from, in the host's place.

    Raises
    ------
    StartError, NetworkError: with the step that failed.
    """
    proxies = _proxies(held, published_on)
    if stand_in is not None:
        userns_fd = stand_in.userns_fd
    with ExitStack() as opened:
        program_fd = _program()
        opened.callback(os.close, program_fd)
        datagram_fd = listen_fd = names_fd = -1
        door_fds = (-1, -1)
        if name_server:
            names_fd = _open_names(store, directory_fd, endpoints, resolvers, asked, outward=outward)
            opened.callback(os.close, names_fd)
            datagram_fd = _open_socket(netns_fd, userns_fd)
            opened.callback(os.close, datagram_fd)
            listen_fd = _open_socket(netns_fd, userns_fd, listen=_WAITING)
            opened.callback(os.close, listen_fd)
            lead = _LEAD.format(address=OWN_RESOLVER, datagrams=_port(datagram_fd), streams=_port(listen_fd))
            nft(lead, netns_fd, userns_fd)
            if asked:
                from pyrtc.network.egress import open_doors

                door_fds = open_doors(netns_fd, asked, userns_fd=userns_fd)
                for fd in door_fds:
                    if fd >= 0:
                        opened.callback(os.close, fd)
        pid, attendant_fd = start_program(
            program_fd,
            pidfd,
            datagram_fd=datagram_fd,
            listen_fd=listen_fd,
            directory_fd=directory_fd if names_fd >= 0 else -1,
            names_fd=names_fd,
            door_fds=door_fds,
            proxies=proxies,
            netns_fd=-1 if stand_in is None else stand_in.netns_fd,
            userns_fd=-1 if stand_in is None else stand_in.userns_fd,
        )
    os.close(attendant_fd)
    return pid, process_start_time(pid) or 0


def _open_names(
    store: "Store",
    directory_fd: int,
    endpoints: Sequence["Endpoint"],
    resolvers: Sequence[str] | None,
    asked: Sequence[str] | None,
    *,
    outward: bool,
) -> int:
    try:
        if resolvers is not None:
            networks = [endpoint.network for endpoint in endpoints]
            write_dns(directory_fd, networks, resolvers or (_HOST,), asked, outward=outward)
        return open_names(store)
    except OSError as error:
        raise StartError(f"cannot say which names the container knows: {error.strerror}", step="names") from error


def _open_socket(netns_fd: int, userns_fd: int, listen: int | None = None) -> int:
    import _socket as sockets  # `socket` imports selectors and enum, and makes 200 constants classes

    kind = sockets.SOCK_DGRAM if listen is None else sockets.SOCK_STREAM
    return open_in(
        netns_fd, sockets.AF_INET, kind, OWN_RESOLVER, 0, listen=listen, nonblocking=True, userns_fd=userns_fd
    )


def _port(fd: int) -> int:
    import _socket as sockets

    borrowed = sockets.socket(fileno=fd)
    try:
        port: int = borrowed.getsockname()[1]
        return port
    finally:
        borrowed.detach()


def _proxies(held: Sequence["Held"], endpoint: "Endpoint | None") -> list[Proxy]:
    """Return where what arrives at each port goes: to an address of the same family, where there is one."""
    if not held:
        return []
    if endpoint is None:
        raise NetworkError("ports are published, but no network of the container leads outside")
    found = {family: _packed(text) for family, text in ((4, endpoint.ip4), (6, endpoint.ip6)) if text}
    return [
        Proxy(one.fd, found.get(one.family) or found[10 - one.family], one.port.container, one.port.protocol == "udp")
        for one in held
    ]


def _packed(address: str) -> bytes:
    family, value = number(address)
    return value.to_bytes(4 if family == 4 else 16, "big")


def _program() -> int:
    """Open pyrtc-attendant. It needs no sealed copy: it is never where a container could reach its file."""
    directory = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        return os.open(f"{directory}/pyrtc-attendant", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StartError(f"pyrtc-attendant is missing from the installation: {error}") from None
