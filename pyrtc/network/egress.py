"""Where a container may begin connections to: rules of nftables in its own network namespace.

They hold for whatever device it has, and a container without CAP_NET_ADMIN cannot change them; without CAP_NET_RAW it
cannot send what goes past them. Answers to connections from outside go out.

What names resolve to is in sets of their own, each for addresses that may be kept equally long. The attendant fills
them, which has no right to: a packet of a mark that only it can send puts its destination into the set that its port
says, and is dropped (csrc/attendant/allowed.c). Whoever has a name could let it lead anywhere. So no name leads to
addresses that are somebody's own: private ones, those of this host, of the container's networks, and of a cloud's
services for its machines; such an address has to be named itself.
"""

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pyrtc.core.network import nft, open_in
from pyrtc.egress_words import LOCAL, names_in, subnets_in
from pyrtc.errors import NetworkError
from pyrtc.ip import BITS, ip_text, parse_subnet

if TYPE_CHECKING:
    from pyrtc.store.networks import Endpoint

__all__ = ["CLOSED4", "CLOSED6", "LIVES", "open_doors", "restrict", "rules"]

LIVES = (60, 300, 1800, 7200, 86400)  # seconds; csrc/attendant/allowed.c
_MARK = 0x70797274
_MOST = 4096  # addresses in a set
_EAFNOSUPPORT = 97

# What no name opens (the registries of RFC 6890): this host, private, between a provider and its customers, loopback,
# link-local, of protocols, of benchmarks, of groups and reserved; and where Azure serves its machines.
CLOSED4 = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
)
_TRANSLATED = "64:ff9b::/96"  # IPv4 as an IPv6 network without it sees it (RFC 6052)
# Of IPv6 only addresses given to somebody are open at all; of those not the ones that hold others: Teredo's, 6to4's.
_OPEN6 = ("2000::/3", _TRANSLATED)
CLOSED6 = (
    "2001::/23",
    "2002::/16",
    *(
        ip_text(6, parse_subnet(_TRANSLATED).first | parse_subnet(one).first) + f"/{96 + parse_subnet(one).prefix}"
        for one in CLOSED4
    ),
)

_TABLE = "inet pyrtc_egress"
# Of rules that are replaced nothing is left but the addresses that names have been found to have. Neighbours must be
# found by IPv6, too; who the neighbours are is no secret. What is refused is told so at once.
_RULES = """\
table {table} {{
    chain sent {{ type filter hook output priority filter; policy drop; }}
    chain passed_on {{ type filter hook forward priority filter; policy drop; }}
{sets}
}}
flush table {table}
{flushes}
{elements}
table {table} {{
    chain sent {{
{found}
        oif lo accept
        ct state established,related accept
{accepts}
        icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} ip6 hoplimit 255 accept
        counter reject with icmpx admin-prohibited
    }}
{chains}
}}
"""
_ADDRESS = {4: "ip daddr", 6: "ip6 daddr"}
_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}


def rules(egress: "tuple[str, ...]", endpoints: "Iterable[Endpoint]") -> str:
    """Return the commands that replace what holds until now. egress: see `RunOptions.egress`."""
    own = [text for one in endpoints for text in (one.network.subnet4, one.network.subnet6) if text]
    local = LOCAL in egress
    intervals = {"allowed": [*subnets_in(egress), *(own if local else ())]}
    names = bool(names_in(egress))
    if names:
        intervals["closed"] = [*CLOSED4, *CLOSED6, *(() if local else own)]
    sets, flushes, elements, accepts = [], [], [], []
    for name, subnets in intervals.items():
        for family in BITS:
            whole = f"{name}{family}"
            sets.append(f"    set {whole} {{ type {_TYPE[family]}; flags interval; auto-merge; }}")
            flushes.append(f"flush set {_TABLE} {whole}")
            members = sorted({str(subnet) for subnet in map(parse_subnet, subnets) if subnet.family == family})
            if members:
                elements.append(f"add element {_TABLE} {whole} {{ {', '.join(members)} }}")
    accepts += [f"        {_ADDRESS[family]} @allowed{family} accept" for family in BITS]
    if names:
        for family, name, _life, _port in _named():
            sets.append(f"    set {name} {{ type {_TYPE[family]}; flags dynamic,timeout; size {_MOST}; }}")
            accepts.append(f"        {_ADDRESS[family]} @{name} accept")
    return _RULES.format(
        table=_TABLE,
        sets="\n".join(sets),
        flushes="\n".join(flushes),
        elements="\n".join(elements),
        accepts="\n".join(accepts),
        found=f"        meta mark {_MARK} goto found" if names else "",
        chains=_found() if names else "",
    )


def _named() -> "Iterable[tuple[int, str, int, int]]":
    """Yield family, name, seconds and port of each set for addresses of names."""
    for family in BITS:
        for index, life in enumerate(LIVES):
            yield family, f"named{family}_{life}", life, index + 1


def _found() -> str:
    """Return the chain that an address of a name goes through, once."""
    lines = [f"{_ADDRESS[family]} @closed{family} drop" for family in BITS]
    lines += [f"ip6 daddr != {{ {', '.join(_OPEN6)} }} drop", "meta l4proto != udp drop"]
    lines += [
        f"udp dport {port} update @{name} {{ {_ADDRESS[family]} timeout {life}s }} drop"
        for family, name, life, port in _named()
    ]
    return "\n".join(["    chain found {", *(f"        {line}" for line in lines), "        drop", "    }"])


def restrict(netns_fd: int, egress: "tuple[str, ...]", endpoints: "Iterable[Endpoint]", *, userns_fd: int = -1) -> None:
    """Let a container begin connections to what egress names, and to nothing else.

    userns_fd: the user namespace that its network belongs to, where this process's user has no right over it itself.

    Raises
    ------
    NetworkError, UnsupportedError: the rules cannot be set.
    """
    nft(rules(egress, endpoints), netns_fd, userns_fd)


def open_doors(netns_fd: int, names: "Sequence[str] | None", *, userns_fd: int = -1) -> tuple[int, int]:
    """Return the sockets with which an attendant lets a container connect to what names resolve to.

    -1 for IPv6 where this machine has none; for both where no names are to be opened: None, all are; (), none is.

    Raises
    ------
    NetworkError: they cannot be opened.
    """
    if not names:
        return -1, -1
    import _socket as sockets  # `socket` imports selectors and enum, and makes 200 constants classes

    def opened(family: int) -> int:
        return open_in(netns_fd, family, sockets.SOCK_DGRAM, nonblocking=True, mark=_MARK, userns_fd=userns_fd)

    four = opened(sockets.AF_INET)
    try:
        return four, opened(sockets.AF_INET6)
    except NetworkError as error:
        if getattr(error, "errno", 0) != _EAFNOSUPPORT:
            os.close(four)
            raise
        return four, -1
