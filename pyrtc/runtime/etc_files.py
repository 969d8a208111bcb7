"""The files below /etc that are each container's own: hosts, resolv.conf and hostname.

With the host's network they are read from the host's; with one of its own they say what the caller asked for and what
the network says (`Names`), in Docker's form; without any they say what the caller asked for and nothing else.
"""

import os
from collections.abc import Collection

from pyrtc.errors import UsageError
from pyrtc.options import RunOptions
from pyrtc.values import dataclass

__all__ = ["ETC_FILES", "HOST_GATEWAY", "OWN_RESOLVER", "Names", "PrivateFile", "known_as", "one_word", "private_files"]

ETC_FILES = ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname")
HOST_GATEWAY = "host-gateway"
OWN_RESOLVER = "127.0.0.11"  # where a container's own resolver listens, in its network


@dataclass(frozen=True, slots=True)
class PrivateFile:
    """A small file that is the container's own and bound over the image's."""

    target: str
    content: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a container's network says about names.

    addresses: the container's own. gateway: the host's, as the container reaches it; "" where it does not.
    nameservers, search, options: of resolv.conf, where the caller does not say. resolver: the container has one of its
    own, which asks what the caller or the host names.
    hostname, domainname, files: of the container whose network this one shares; files are taken as they are.
    """

    addresses: tuple[str, ...] = ()
    gateway: str = ""
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    resolver: bool = False
    hostname: str | None = None
    domainname: str | None = None
    files: tuple[PrivateFile, ...] | None = None


def private_files(
    options: RunOptions, hostname: str | None, covered: Collection[str], names: Names | None = None
) -> tuple[PrivateFile, ...]:
    """Return the files of a container.

    Parameters
    ----------
    hostname: None where the container has the host's.
    covered: targets of the caller's mounts, which go before.
    names: what its network says, None for one without, or with the host's.

    Raises
    ------
    UsageError: a name or an address that cannot stand in such a file.
    """
    if names is not None and names.files is not None:
        files = names.files
    else:
        name = os.uname().nodename if hostname is None else hostname
        files = (
            PrivateFile("/etc/hosts", _hosts(options, hostname, names)),
            PrivateFile("/etc/resolv.conf", _resolver(options) if names is None else _network_resolver(options, names)),
            PrivateFile("/etc/hostname", name.encode(errors="surrogateescape") + b"\n"),
        )
    return tuple(file for file in files if file.target not in covered)


def _hosts(options: RunOptions, hostname: str | None, names: Names | None) -> bytes:
    if options.network == "host":
        base = _host_file("/etc/hosts")
    else:
        base = (
            b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
            b"fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
        )
    lines = []
    if hostname and options.network != "host":
        said = known_as(hostname, options.domainname)
        own = ("127.0.0.1",) if names is None else names.addresses
        lines += [f"{address}\t{said}\n" for address in own]
    for name, address in options.add_host:
        if address == HOST_GATEWAY:
            address = _host_gateway(options, names)
        _check_address(address, f"--add-host {name}")
        lines.append(f"{address}\t{one_word(name, '--add-host')}\n")
    return base + "".join(lines).encode(errors="surrogateescape")


def known_as(hostname: str, domainname: str | None) -> str:
    """Return what stands beside a container's own addresses: its whole name and the bare one, as in Docker.

    The domain may be part of either option.
    """
    whole = f"{hostname}.{domainname}" if domainname else hostname
    bare = whole.partition(".")[0]
    return f"{whole} {bare}" if bare not in ("", whole) else whole


def _host_gateway(options: RunOptions, names: Names | None) -> str:
    if options.network == "host":
        return "127.0.0.1"
    if names is None or not names.gateway:
        raise UsageError(
            f"--add-host NAME:{HOST_GATEWAY} needs a network from which the host is reached: --network bridge"
        )
    return names.gateway


def _network_resolver(options: RunOptions, names: Names) -> bytes:
    """As Docker writes it: what the caller names goes before what the host says; a dot is no domain to search in."""
    servers = (OWN_RESOLVER,) if names.resolver else options.dns or names.nameservers
    search = [word for word in options.dns_search or names.search if word != "."]
    settings = list(options.dns_option or names.options)
    if names.resolver and not any(word.startswith("ndots:") for word in settings):
        settings.append("ndots:0")  # names of containers have no dots, and are asked for as they are
    return _lines(servers, search, settings)


def _resolver(options: RunOptions) -> bytes:
    """With the host's network the host's resolvers, unless others are named; without a network only what is named."""
    if options.network == "host" and not (options.dns or options.dns_search or options.dns_option):
        return _host_file("/etc/resolv.conf")
    return _lines(options.dns, options.dns_search, options.dns_option)


def _lines(servers: Collection[str], search: Collection[str], settings: Collection[str]) -> bytes:
    for address in servers:
        if address != OWN_RESOLVER:
            _check_address(address, "--dns")
    lines = [f"nameserver {address}" for address in servers]
    if search:
        lines.append(f"search {' '.join(one_word(word, '--dns-search') for word in search)}")
    if settings:
        lines.append(f"options {' '.join(one_word(word, '--dns-option') for word in settings)}")
    return "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")


def one_word(word: str, what: str) -> str:
    """Return what is one word of a line of a file: nothing in it may end the word or the line.

    Raises
    ------
    UsageError: it is empty, or holds a NUL byte or white space.
    """
    if not word or "\0" in word or any(char.isspace() for char in word):
        raise UsageError(f"{what} {word!r} is not one word")
    return word


def _check_address(address: str, what: str) -> None:
    from pyrtc.ip import number  # for those who name addresses, and for networks

    text, percent, zone = one_word(address, what).partition("%")  # fe80::1%eth0
    try:
        family, _value = number(text)
    except UsageError:
        family = 0
    if not family or (percent and not (family == 6 and zone)):
        raise UsageError(f"{what}: {address!r} is not an IP address")


def _host_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError:
        return b""
