"""Ports of this host, held for a container by sockets: no other program and no other container gets them.

What brings packets to the container is the firewall's translation; a translation alone reserves nothing. Where it does
not reach (::1, IPv6 clients of a container that has IPv4 only) whoever holds the socket accepts and passes on.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pyrtc.errors import NetworkError, reason
from pyrtc.options import Port
from pyrtc.values import dataclass, replace

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Held", "Reserved", "publish_all", "reserve"]

_EVERY = {4: "0.0.0.0", 6: "::"}  # noqa: S104  (published ports are for everybody unless an address is named)
_TRIES = 100  # of free ports that turn out to be taken for the other family
_BACKLOG = 4096  # cut by net.core.somaxconn


@dataclass(frozen=True, slots=True)
class Held:
    """A socket that holds a port. family: 4 or 6. fd: non-blocking, not inherited; of TCP: it listens."""

    port: Port
    family: int
    fd: int


class Reserved:
    """Ports of this host, held until it is closed.

    Attributes
    ----------
    ports: what was asked for, with the numbers that were chosen.
    held: the sockets, one or, for all addresses of the host, one of IPv4 and one of IPv6 for each.
    """

    def __init__(self, held: Sequence[Held]) -> None:
        self.held = tuple(held)
        self.ports = tuple(dict.fromkeys(one.port for one in self.held))

    def close(self) -> None:
        """Let go of the ports, unless another process holds the sockets by now."""
        held, self.held = self.held, ()
        for one in held:
            os.close(one.fd)

    def __enter__(self) -> "Reserved":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: "TracebackType | None"
    ) -> None:
        """Let go of the ports."""
        self.close()


def publish_all(ports: Iterable[Port], exposed: Iterable[Port]) -> tuple[Port, ...]:
    """Return the ports to publish with `-P`: those asked for, and any free one for each exposed one besides."""
    asked = tuple(ports)
    taken = {(port.container, port.protocol) for port in asked}
    more = (Port(port.container, port.protocol) for port in exposed if (port.container, port.protocol) not in taken)
    return (*asked, *dict.fromkeys(more))


def reserve(ports: Iterable[Port]) -> Reserved:
    """Take ports of this host, choosing where a range or any free one was asked for.

    Raises
    ------
    NetworkError: one is taken, or may not be bound; nothing is held then.
    """
    with ExitStack() as undo:
        held: list[Held] = []
        for port in ports:
            for one in _hold(port):
                undo.callback(os.close, one.fd)
                held.append(one)
        undo.pop_all()
        return Reserved(held)


def _hold(port: Port) -> tuple[Held, ...]:
    last: OSError | None = None
    for number in _candidates(port):
        try:
            return _bind(port, number)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise _refused(port, number, error) from None
            last = error
    assert last is not None
    raise _refused(port, port.host, last)


def _candidates(port: Port) -> Iterator[int]:
    if port.host:
        return iter(range(port.host, (port.host_last or port.host) + 1))
    return iter([0] * _TRIES)


def _bind(port: Port, number: int) -> tuple[Held, ...]:
    """Bind one number, 0 for the kernel's choice, for every family that the port is about."""
    families = (6 if ":" in port.ip else 4,) if port.ip else (4, 6)
    with ExitStack() as undo:
        held: list[Held] = []
        for family in families:
            try:
                fd, number = _socket(family, port.protocol, port.ip or _EVERY[family], number)
            except OSError as error:
                if held and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    continue  # this host has no IPv6
                raise
            undo.callback(os.close, fd)
            held.append(Held(port, family, fd))
        undo.pop_all()
    chosen = replace(port, host=number, host_last=0)
    return tuple(replace(one, port=chosen) for one in held)


def _socket(family: int, protocol: str, address: str, number: int) -> tuple[int, int]:
    """Return a socket that holds a port, and the port's number.

    One of TCP listens, whatever is done with it: connections of earlier holders that are still being wound up
    (TIME_WAIT) refuse a port unless SO_REUSEADDR is set, and only one socket with that can listen.
    """
    import _socket as sockets  # `socket` imports selectors and enum, and makes 200 constants classes

    kind = sockets.SOCK_STREAM if protocol == "tcp" else sockets.SOCK_DGRAM
    with ExitStack() as undo:
        made = sockets.socket(
            sockets.AF_INET if family == 4 else sockets.AF_INET6, kind | sockets.SOCK_NONBLOCK | sockets.SOCK_CLOEXEC
        )
        undo.callback(made.close)
        if family == 6:
            made.setsockopt(sockets.IPPROTO_IPV6, sockets.IPV6_V6ONLY, 1)
        if protocol == "tcp":
            made.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        made.bind((address, number))
        if protocol == "tcp":
            made.listen(_BACKLOG)
        number = made.getsockname()[1]
        undo.pop_all()
        return made.detach(), number


def _refused(port: Port, number: int, error: OSError) -> NetworkError:
    """Return an error in Docker's words."""
    address = port.ip or _EVERY[4]
    ranged = port.host_last > port.host and number == port.host
    numbers = f"{number}-{port.host_last}" if ranged else str(number)
    what = f"Bind for {f'[{address}]' if ':' in address else address}:{numbers} failed"
    if error.errno == errno.EADDRINUSE:
        single = port.host and not ranged
        return NetworkError(f"{what}: {'port is already' if single else 'all ports are'} allocated")
    if error.errno == errno.EADDRNOTAVAIL:
        return NetworkError(f"{what}: no device of this machine has the address {address}")
    if error.errno == errno.EACCES:
        return NetworkError(
            f"{what}: permission denied: ports below net.ipv4.ip_unprivileged_port_start (1024) are root's; publish a "
            "higher one"
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return NetworkError(f"{what}: too many open files: publish fewer ports, or raise the limit (ulimit -n)")
    return NetworkError(f"{what}: {reason(error.errno or 0)}")
