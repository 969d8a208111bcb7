"""What containers call each other: a file of names for each network, and one that says which of them a container knows.

Both are read by the attendants (csrc/attendant/names.c says how they look), which notice when another file has taken
the place of one.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pyrtc.errors import StoreError, UsageError
from pyrtc.ip import number

if TYPE_CHECKING:
    from pyrtc.store.networks import Network
    from pyrtc.store.store import Store

__all__ = ["change_dns", "has_names", "open_names", "remove_names", "write_dns", "write_names"]

_DIRECTORY = "networks"  # in the store's
_MAX_SERVERS = 3  # as the C library and Docker; csrc/attendant/parts.h
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


def has_names(network: "Network") -> bool:
    """Whether containers on a network find each other by name: not on the predefined ones, as with Docker."""
    return not network.predefined


def write_names(store: "Store", network: "Network") -> None:
    """Write down who is on a network by now; to be called after each change of its endpoints or their names.

    Raises
    ------
    StoreError: they cannot be written.
    """
    try:
        with _directory(store, network.id) as directory_fd:
            _replace(directory_fd, "names", _names(store, network))
    except OSError as error:
        raise StoreError(f"cannot write down who is on network {network.name}: {error.strerror}") from error


def _names(store: "Store", network: "Network") -> str:
    lines = set[str]()
    for endpoint in store.networks.endpoints_on(network.id):
        names = (endpoint.container_name, endpoint.container_id[:12], *endpoint.aliases)
        lines.update(_lines(names, (endpoint.ip4, endpoint.ip6), network.name))
    if network.driver == "overlay":
        from pyrtc.network.overlay.known import named

        for remote in named(store, network.id):
            lines.update(_lines(remote.names, (remote.ip4,), network.name))
    return f"pyrtc-names 1 {network.name}\n" + "".join(line + "\n" for line in sorted(lines))


def remove_names(store: "Store", network_id: str) -> None:
    """Remove what `write_names` wrote of a network that is gone."""
    with suppress(FileNotFoundError), _directory(store, network_id) as directory_fd:
        for name in os.listdir(directory_fd):
            os.unlink(name, dir_fd=directory_fd)
        os.rmdir(f"{_DIRECTORY}/{network_id}", dir_fd=store.root_fd)


def open_names(store: "Store") -> int:
    """Return a descriptor of the directory with all names of a store."""
    with suppress(FileExistsError):
        os.mkdir(_DIRECTORY, 0o700, dir_fd=store.root_fd)
    return os.open(_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=store.root_fd)


def write_dns(
    directory_fd: int,
    networks: Iterable["Network"],
    resolvers: Sequence[str],
    asked: Sequence[str] | None = None,
    *,
    outward: bool = False,
) -> None:
    """Say in a container's directory which networks' names it knows, and whom its attendant asks for others.

    Others are asked only where a way leads out: not if all networks are internal. What is no address is no resolver;
    more than three are not asked. asked: the names and patterns that they may be asked for; None: all.
    outward: a way leads out whatever the networks are.

    Raises
    ------
    OSError: it cannot be written.
    """
    known = tuple(networks)
    servers = (line for address in resolvers if (line := _server(address)))
    lines = [line for line, _ in zip(servers, range(_MAX_SERVERS), strict=False)]
    _write_dns(directory_fd, known, lines, asked, outward=outward or _lead_out(known))


def change_dns(directory_fd: int, networks: Iterable["Network"], asked: Sequence[str] | None = None) -> None:
    """Say in a container's directory that it is on other networks now; whom its attendant asks stays.

    One that has no name server is left without one. asked: names and patterns that others may be asked for; None: all.

    Raises
    ------
    OSError: it cannot be read or written.
    """
    try:
        fd = os.open("dns", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    except FileNotFoundError:
        return
    with open(fd) as file:
        lines = file.read().splitlines()[1:]
    servers = [line for line in lines if line.startswith("server ")]
    known = tuple(networks)
    _write_dns(directory_fd, known, servers, asked, outward=_lead_out(known))


def _lead_out(networks: Iterable["Network"]) -> bool:
    return not all(network.internal for network in networks)


def _write_dns(
    directory_fd: int,
    networks: Iterable["Network"],
    servers: Sequence[str],
    asked: Sequence[str] | None,
    *,
    outward: bool,
) -> None:
    lines = ["pyrtc-dns 1"]
    if outward and asked != ():
        lines.append("forward")
    lines += servers
    lines += [f"network {network.id}" for network in networks if has_names(network)]
    if asked is not None:
        lines += ["allowed", *_allowed(asked)]
    _replace(directory_fd, "dns", "\n".join(lines) + "\n")


def _allowed(names: Sequence[str]) -> list[str]:
    """Return the lines that say which names may be asked for."""
    lines = set[str]()
    for name in names:
        base = name.removeprefix("*").removeprefix(".")
        lines.update(f"{base} {word}" for word in (("exact",) if base == name else ("below",)))
        if name.startswith("."):
            lines.add(f"{base} exact")
    return sorted(lines)


def _server(address: str) -> str | None:
    """Return the line of a resolver; None if it is no address, or one of a device that does not exist."""
    text, _, zone = address.partition("%")
    try:
        family, value = number(text)
        return f"server {family} {_hex(family, value)} 53 {_scope(zone) if zone else 0}"
    except (UsageError, OSError):
        return None


def _scope(zone: str) -> int:
    """Return the index of a device, as of the `eth0` in fe80::1%eth0."""
    import _socket as sockets  # `socket` imports selectors and enum, and makes 200 constants classes

    return int(zone) if zone.isdecimal() else sockets.if_nametoindex(zone)


def _hex(family: int, value: int) -> str:
    return f"{value:08x}" if family == 4 else f"{value:032x}"


def _lines(names: Iterable[str], addresses: Iterable[str], network: str) -> Iterator[str]:
    """Yield what is to be known of one container; the first of its names is what its addresses lead back to."""
    usable = [name.lower() for name in names if name and _LETTERS.issuperset(name.lower())]
    for address in filter(None, addresses):
        family, value = number(address)
        for name in usable:
            yield f"{name} {family} {_hex(family, value)}"
        if usable:
            yield f"{_reverse(family, value)} p {usable[0]}.{network}"


def _reverse(family: int, value: int) -> str:
    if family == 4:
        return ".".join(str(value >> shift & 255) for shift in (0, 8, 16, 24)) + ".in-addr.arpa"
    return ".".join(reversed(f"{value:032x}")) + ".ip6.arpa"


@contextmanager
def _directory(store: "Store", network_id: str) -> Iterator[int]:
    """Lock the directory of a network: who reads the database last writes last."""
    names_fd = open_names(store)
    try:
        while True:
            with suppress(FileExistsError):
                os.mkdir(network_id, 0o700, dir_fd=names_fd)
            fd = os.open(network_id, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=names_fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.fstat(fd).st_nlink:  # not removed meanwhile
                    yield fd
                    return
            finally:
                os.close(fd)
    finally:
        os.close(names_fd)


def _replace(directory_fd: int, name: str, text: str) -> None:
    """Put a file in the place of another one, which readers have whole or not at all."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(f"{name}.new", flags, 0o600, dir_fd=directory_fd), "w", encoding="ascii") as file:
        file.write(text)
    os.rename(f"{name}.new", name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
