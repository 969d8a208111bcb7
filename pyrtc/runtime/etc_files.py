"""The files below /etc that are each container's own: hosts, resolv.conf and hostname.

With the host's network they are read from the host's; without it they say what the caller asked for and nothing else.
"""

import os
from collections.abc import Collection

from pyrtc.errors import UsageError
from pyrtc.options import RunOptions
from pyrtc.values import dataclass

__all__ = ["PrivateFile", "one_word", "private_files"]


@dataclass(frozen=True, slots=True)
class PrivateFile:
    """A small file that is the container's own and bound over the image's."""

    target: str
    content: bytes
    mode: int = 0o644


def private_files(options: RunOptions, hostname: str | None, covered: Collection[str]) -> tuple[PrivateFile, ...]:
    """Return the files of a container.

    Parameters
    ----------
    hostname: None where the container has the host's.
    covered: targets of the caller's mounts, which go before.

    Raises
    ------
    UsageError: a name or an address that cannot stand in such a file.
    """
    name = os.uname().nodename if hostname is None else hostname
    files = (
        PrivateFile("/etc/hosts", _hosts(options, hostname)),
        PrivateFile("/etc/resolv.conf", _resolver(options)),
        PrivateFile("/etc/hostname", name.encode(errors="surrogateescape") + b"\n"),
    )
    return tuple(file for file in files if file.target not in covered)


def _hosts(options: RunOptions, hostname: str | None) -> bytes:
    if options.network == "host":
        base = _host_file("/etc/hosts")
    else:
        base = (
            b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
            b"fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
        )
        if hostname:
            base += f"127.0.0.1\t{hostname}\n".encode(errors="surrogateescape")
    lines = []
    for name, address in options.add_host:
        _check_address(address, f"--add-host {name}")
        lines.append(f"{address}\t{one_word(name, '--add-host')}\n")
    return base + "".join(lines).encode(errors="surrogateescape")


def _resolver(options: RunOptions) -> bytes:
    """With the host's network the host's resolvers, unless others are named; without a network only what is named."""
    for address in options.dns:
        _check_address(address, "--dns")
    if options.network == "host" and not (options.dns or options.dns_search or options.dns_option):
        return _host_file("/etc/resolv.conf")
    lines = [f"nameserver {address}" for address in options.dns]
    if options.dns_search:
        lines.append(f"search {' '.join(one_word(word, '--dns-search') for word in options.dns_search)}")
    if options.dns_option:
        lines.append(f"options {' '.join(one_word(word, '--dns-option') for word in options.dns_option)}")
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
    import ipaddress  # a millisecond, for the few who name addresses

    try:
        ipaddress.ip_address(one_word(address, what))  # which takes anything after the % of fe80::1%eth0
    except ValueError:
        raise UsageError(f"{what}: {address!r} is not an IP address") from None


def _host_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError:
        return b""
