"""IP addresses as numbers and back, and hardware addresses; `ipaddress` takes three milliseconds to import.

Text is what the kernel's tools print: IPv6 in small letters, the longest run of zeros as `::` (RFC 5952).
"""

from pyrtc.errors import UsageError
from pyrtc.values import dataclass

__all__ = ["BITS", "Subnet", "address", "ip_text", "ip_text4", "mac_text", "number", "parse_mac", "parse_subnet"]

BITS = {4: 32, 6: 128}
_DIGITS = frozenset("0123456789")
_HEX = frozenset("0123456789abcdefABCDEF")


@dataclass(frozen=True, slots=True)
class Subnet:
    """A range of addresses (`172.18.0.0/16`). family: 4 or 6. first: its lowest address. prefix: its length in bits."""

    family: int
    first: int
    prefix: int

    @property
    def last(self) -> int:
        """Its highest address, which is the broadcast address for IPv4."""
        return self.first + self.size - 1

    @property
    def size(self) -> int:
        """How many addresses it has."""
        return 1 << (BITS[self.family] - self.prefix)

    def overlaps(self, other: "Subnet") -> bool:
        """Whether some address is in both."""
        return self.family == other.family and self.first <= other.last and other.first <= self.last

    def contains(self, other: "Subnet") -> bool:
        """Whether all addresses of the other are in this one."""
        return self.family == other.family and self.first <= other.first and other.last <= self.last

    def has(self, value: int) -> bool:
        """Whether an address, as a number, is in it."""
        return self.first <= value <= self.last

    def __str__(self) -> str:
        """Return it as it is written."""
        return f"{ip_text(self.family, self.first)}/{self.prefix}"


def number(text: str) -> tuple[int, int]:
    """Read an address: its family (4 or 6) and its number.

    Raises
    ------
    UsageError: it is none, or has a zone (`fe80::1%eth0`).
    """
    value = _number6(text) if ":" in text else _number4(text)
    if value is None:
        raise UsageError(f"not an IP address: {text}")
    return 6 if ":" in text else 4, value


def address(text: str) -> str:
    """Return an address as this module writes it."""
    return ip_text(*number(text))


def _number4(text: str) -> int | None:
    parts = text.split(".")
    if len(parts) != 4:
        return None
    value = 0
    for part in parts:
        # A leading zero means octal to some programs and decimal to others.
        if not part or len(part) > 3 or not _DIGITS.issuperset(part) or (part[0] == "0" and part != "0"):
            return None
        if int(part) > 255:
            return None
        value = value << 8 | int(part)
    return value


def _number6(text: str) -> int | None:
    head, double, tail = text.partition("::")
    if "::" in tail or (not double and text.count(":") > 7):
        return None
    high = _groups(head, last=not double)
    low = _groups(tail, last=True) if double else []
    if high is None or low is None:
        return None
    missing = 8 - len(high) - len(low)
    if (missing < 1) if double else missing:
        return None
    value = 0
    for group in (*high, *([0] * missing), *low):
        value = value << 16 | group
    return value


def _groups(text: str, *, last: bool) -> list[int] | None:
    """Return the 16-bit groups of one side of `::`. last: it may end with an IPv4 address."""
    if not text:
        return []
    groups = []
    parts = text.split(":")
    if last and "." in parts[-1]:
        value = _number4(parts.pop())
        if value is None:
            return None
        parts += [f"{value >> 16:x}", f"{value & 0xFFFF:x}"]
    for part in parts:
        if not part or len(part) > 4 or not _HEX.issuperset(part):
            return None
        groups.append(int(part, 16))
    return groups


def ip_text(family: int, value: int) -> str:
    """Write the address with this number."""
    return ip_text4(value) if family == 4 else _text6(value)


def ip_text4(value: int) -> str:
    """Write the IPv4 address with this number."""
    return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"


def _text6(value: int) -> str:
    groups = [f"{value >> shift & 0xFFFF:x}" for shift in range(112, -1, -16)]
    start, length = _longest_zeros(groups)
    if length < 2:
        return ":".join(groups)
    return f"{':'.join(groups[:start])}::{':'.join(groups[start + length :])}"


def _longest_zeros(groups: list[str]) -> tuple[int, int]:
    best = (0, 0)
    start = 0
    for index, group in enumerate([*groups, ""]):
        if group == "0":
            continue
        if index - start > best[1]:
            best = (start, index - start)
        start = index + 1
    return best


def parse_subnet(text: str) -> Subnet:
    """Read a subnet (`172.18.0.0/16`); bits of the host's part are dropped, as Docker does.

    Raises
    ------
    UsageError: it is none.
    """
    base, slash, length = text.partition("/")
    family, value = number(base)
    bits = BITS[family]
    if not slash or not length or len(length) > 3 or not _DIGITS.issuperset(length) or int(length) > bits:
        raise UsageError(f"invalid CIDR address: {text}: write an address, a slash and a length up to {bits}")
    prefix = int(length)
    return Subnet(family, value >> (bits - prefix) << (bits - prefix), prefix)


def parse_mac(text: str) -> str:
    """Read a hardware address that a device can have; return it as the kernel writes it.

    Raises
    ------
    UsageError: it is none, is all zeros, or is one for groups.
    """
    parts = text.replace("-", ":").split(":")
    if len(parts) != 6 or not all(len(part) == 2 and _HEX.issuperset(part) for part in parts):
        raise UsageError(f"invalid MAC address: {text}: write six bytes, for example 02:42:ac:11:00:02")
    value = int("".join(parts), 16)
    if not value or value >> 40 & 1:
        raise UsageError(f"invalid MAC address: {text}: no device can have it; the first byte must be even")
    return mac_text(value)


def mac_text(value: int) -> str:
    """Write the hardware address with this number."""
    return ":".join(f"{value >> shift & 255:02x}" for shift in range(40, -1, -8))
