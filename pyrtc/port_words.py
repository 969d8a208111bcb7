"""Ports in words, as Docker has them: `-p [[ADDRESS:]PORT:]PORT[/PROTOCOL]`, `--expose PORT[/PROTOCOL]`, ranges."""

from pyrtc.errors import UsageError
from pyrtc.options import Port

__all__ = ["PROTOCOLS", "exposed", "host_address", "published"]

PROTOCOLS = ("tcp", "udp")
_HIGHEST = 65535


def published(word: str) -> tuple[Port, ...]:
    """Read a value of `-p`: one `Port` for each port of the container.

    A range of the host's for one port of the container means any that is free; two ranges are of one length.

    Raises
    ------
    UsageError: it is none.
    """
    if "=" in word:
        word = _from_fields(word)
    where, protocol = _protocol(word)
    rest, _, inside = where.rpartition(":")
    address, host = "", rest
    if rest.startswith("["):
        address, bracket, host = rest[1:].partition("]")
        if not bracket or host[:1] != ":":
            raise UsageError("write [ADDRESS]:PORT:PORT, or [ADDRESS]::PORT for any free port")
        host = host.removeprefix(":")
    elif ":" in rest:
        address, _, host = rest.rpartition(":")
    if address:
        address = host_address(address)
    first, last = _range(inside, lowest=1)
    if not host or host == "0":
        return tuple(Port(port, protocol, ip=address) for port in range(first, last + 1))
    host_first, host_last = _range(host, lowest=1)
    if first == last and host_first != host_last:
        return (Port(first, protocol, host_first, address, host_last),)
    if last - first != host_last - host_first:
        raise UsageError(f"invalid ranges specified for container and host Ports: {inside} and {host}")
    return tuple(Port(port, protocol, host_first + port - first, address) for port in range(first, last + 1))


def exposed(word: str) -> tuple[Port, ...]:
    """Read a value of `--expose`, or what an image exposes.

    Raises
    ------
    UsageError: it is none.
    """
    where, protocol = _protocol(word)
    first, last = _range(where, lowest=1)
    return tuple(Port(port, protocol) for port in range(first, last + 1))


def _from_fields(word: str) -> str:
    """Return `published=8080,target=80,protocol=tcp` in the other form."""
    fields = dict(field.partition("=")[::2] for field in word.split(","))
    if not fields.keys() <= {"target", "published", "protocol"} or not fields.get("target"):
        raise UsageError(f"{word!r}: write target=80,published=8080,protocol=tcp, of which only target is needed")
    return f"{fields.get('published', '')}:{fields['target']}/{fields.get('protocol') or 'tcp'}"


def _protocol(word: str) -> tuple[str, str]:
    where, slash, protocol = word.partition("/")
    protocol = protocol.lower()
    if slash and protocol not in PROTOCOLS:
        raise UsageError(f"{protocol!r} is not a protocol that ports are published for: {' and '.join(PROTOCOLS)} are")
    return where, protocol or "tcp"


def _range(word: str, *, lowest: int) -> tuple[int, int]:
    first, dash, last = word.partition("-")
    numbers = (first, last if dash else first)
    if not all(number.isascii() and number.isdecimal() and len(number) <= 5 for number in numbers):
        raise UsageError(f"{word!r} is not a port" if word else "the port of the container is missing")
    low, high = int(numbers[0]), int(numbers[1])
    if not lowest <= low <= high <= _HIGHEST:
        raise UsageError(f"{word} is not a port or range of ports from {lowest} to {_HIGHEST}")
    return low, high


def host_address(word: str) -> str:
    """Return an address of the host in its usual form.

    Raises
    ------
    UsageError: it is none.
    """
    from pyrtc.ip import address

    return address(word)
