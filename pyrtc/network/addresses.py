"""Subnets for networks: what a user asked for is checked, what nobody asked for is picked.

Picked subnets are free of every address and route of this host, so that a container network never hides what the host
could reach before; and by chance, as another store may have a network here whose device does not exist at the moment.
There are 2,560 of them for IPv4. Those for IPv6 are unique local ones with 40 random bits (RFC 4193).
"""

import os
import re
import socket
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pyrtc.errors import NetworkError, UsageError
from pyrtc.ip import BITS, Subnet, ip_text, number, parse_subnet
from pyrtc.network.kernel import ask_kernel
from pyrtc.store.address_picking import usable
from pyrtc.values import dataclass, replace

if TYPE_CHECKING:
    from pyroute2 import IPRoute

__all__ = ["HostSubnets", "Pool", "check_pools", "gateway_of", "host_subnets", "pick_pool", "read_subnets"]

# Where subnets are picked from, and how long their prefix is; the next is for when the one before is used up.
POOLS = (
    (parse_subnet("172.16.0.0/12"), 20),  # 256 subnets with 4,093 containers each
    (parse_subnet("10.128.0.0/9"), 20),  # 2,048
    (parse_subnet("192.168.0.0/16"), 24),  # 256
)
_ULA = 0xFD << 120
_ULA_PREFIX = 64
# Nobody's network is a half of the world: VPNs that take everything say so with two or four such routes.
_SHORTEST_ROUTE = 8
_LONGEST = {4: 30, 6: 126}  # with room for the gateway and one container
_MOST_AUXILIARY = 256  # addresses of one network
_AUXILIARY_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}"
_NEVER = tuple(map(parse_subnet, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "::/8", "fe80::/10", "ff00::/8")))


@dataclass(frozen=True, slots=True)
class Pool:
    """Where the addresses of one family come from on one network.

    range: the part that addresses are taken from when nobody asks for one, None for the whole subnet. auxiliary: names
    and addresses that containers never get.
    """

    subnet: Subnet
    gateway: str
    range: Subnet | None = None
    auxiliary: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HostSubnets:
    """What this host knows already. connected: (subnet, device) of its own addresses. routed: where its routes go."""

    connected: tuple[tuple[Subnet, str], ...]
    routed: tuple[Subnet, ...]

    def holder(self, subnet: Subnet) -> str:
        """Return which device is in a subnet that overlaps with this one, empty for none."""
        return next((device for other, device in self.connected if other.overlaps(subnet)), "")


def host_subnets() -> HostSubnets:
    """Return the subnets that this host has addresses in, and those that it has routes to, of every table."""
    return ask_kernel("read this host's addresses", read_subnets)


def read_subnets(kernel: "IPRoute") -> HostSubnets:
    """Read what `host_subnets` returns."""
    names = dict(socket.if_nameindex())  # pyroute2 takes half a millisecond for all that a device has
    connected = []
    for address in kernel.get_addr():
        text = address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS")
        if text:
            subnet = parse_subnet(f"{text}/{address['prefixlen']}")
            connected.append((subnet, names.get(address["index"], "")))
    routed = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for route in kernel.get_routes(family=family):
            destination = route.get_attr("RTA_DST")
            if destination and route["dst_len"] >= _SHORTEST_ROUTE:
                routed.append(parse_subnet(f"{destination}/{route['dst_len']}"))
    return HostSubnets(tuple(connected), tuple(routed))


def gateway_of(subnet: Subnet) -> str:
    """Return the address of the host in a subnet when nobody says which: the first one."""
    return ip_text(subnet.family, subnet.first + 1)


def pick_pool(family: int, taken: Iterable[Subnet]) -> Pool:
    """Return a pool of which no address is taken.

    Raises
    ------
    NetworkError: everything is.
    """
    others = [subnet for subnet in taken if subnet.family == family]
    if family == 6:
        while True:
            subnet = Subnet(6, _ULA | int.from_bytes(os.urandom(5)) << 80, _ULA_PREFIX)
            if not any(subnet.overlaps(other) for other in others):
                return Pool(subnet, gateway_of(subnet))
    for whole, prefix in POOLS:
        count = 1 << (prefix - whole.prefix)
        start = int.from_bytes(os.urandom(4))
        for offset in range(count):
            first = whole.first + ((start + offset) % count << (BITS[4] - prefix))
            subnet = Subnet(4, first, prefix)
            if not any(subnet.overlaps(other) for other in others):
                return Pool(subnet, gateway_of(subnet))
    raise NetworkError(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network: "
        "remove networks that nobody uses (pyrtc network prune), or choose one with --subnet"
    )


def check_pools(
    subnets: Sequence[str],
    gateways: Sequence[str],
    ranges: Sequence[str],
    auxiliary: Sequence[tuple[str, str]] = (),
) -> dict[int, Pool]:
    """Return the pools that a user chose, by family. Each gateway, range and address belongs to the subnet it is in.

    auxiliary: names, and addresses that are somebody else's in the subnet.

    Raises
    ------
    UsageError: something cannot be, or does not fit together. NetworkError: an address is wanted twice.
    """
    found: dict[int, Subnet] = {}
    for text in subnets:
        subnet = _exact("subnet", text)
        _check_subnet(subnet)
        if subnet.family in found:
            raise UsageError(f"only one IPv{subnet.family} subnet per network: {found[subnet.family]} and {subnet}")
        found[subnet.family] = subnet
    parts: dict[int, Subnet] = {}
    for text in ranges:
        part = _exact("ip-range", text)
        whole = found.get(part.family)
        if whole is None or not whole.contains(part):
            raise UsageError(f"no matching subnet for range {text}")
        if part.family in parts:
            raise UsageError(f"only one IPv{part.family} range per network: {parts[part.family]} and {part}")
        parts[part.family] = part
    doors: dict[int, str] = {}
    for text in gateways:
        family, value = number(text)
        whole = found.get(family)
        if whole is None or not whole.has(value):
            raise UsageError(f"no matching subnet for gateway {text}")
        if not usable(whole, value):
            raise UsageError(f"invalid gateway {text}: no host can have that address of {whole}")
        if family in doors:
            raise UsageError(f"only one IPv{family} gateway per network: {doors[family]} and {text}")
        doors[family] = ip_text(family, value)
    pools = {
        family: Pool(subnet, doors.get(family) or gateway_of(subnet), parts.get(family))
        for family, subnet in found.items()
    }
    return _with_auxiliary(pools, auxiliary)


def _with_auxiliary(pools: dict[int, Pool], words: Sequence[tuple[str, str]]) -> dict[int, Pool]:
    if len(words) > _MOST_AUXILIARY:
        raise UsageError(f"more than {_MOST_AUXILIARY} auxiliary addresses for one network")
    for name, text in words:
        if not text:
            raise UsageError(f"invalid aux-address {name}: write NAME=ADDRESS")
        if not re.fullmatch(_AUXILIARY_NAME, name):
            raise UsageError(f"invalid aux-address {name}={text}: write a name of letters, digits, '_', '.' and '-'")
        family, value = number(text)
        pool = pools.get(family)
        if pool is None or not pool.subnet.has(value):
            raise UsageError(f"no matching subnet for aux-address {text}")
        address = ip_text(family, value)
        if not usable(pool.subnet, value):
            raise UsageError(f"invalid aux-address {text}: no host can have that address of {pool.subnet}")
        if address == pool.gateway or any(address == other for _, other in pool.auxiliary):
            raise NetworkError(f"failed to allocate secondary ip address ({name}:{address}): Address already in use")
        pools = {**pools, family: replace(pool, auxiliary=(*pool.auxiliary, (name, address)))}
    return pools


def _exact(what: str, text: str) -> Subnet:
    subnet = parse_subnet(text)
    if subnet.first != number(text.partition("/")[0])[1]:
        raise UsageError(f"invalid {what} {text}: it should be {subnet}")
    return subnet


def _check_subnet(subnet: Subnet) -> None:
    if subnet.prefix > _LONGEST[subnet.family]:
        raise UsageError(
            f"invalid subnet {subnet}: it has no room for a gateway and a container; "
            f"/{_LONGEST[subnet.family]} is the smallest"
        )
    if subnet.prefix < _SHORTEST_ROUTE:
        raise UsageError(f"invalid subnet {subnet}: /{_SHORTEST_ROUTE} is the largest")
    for other in _NEVER:
        if subnet.overlaps(other):
            raise UsageError(f"invalid subnet {subnet}: addresses of {other} are of no use in a network")
