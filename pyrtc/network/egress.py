"""Where a container may begin connections to: rules of nftables in its own network namespace.

They hold for whatever device it has, and a container without CAP_NET_ADMIN cannot change them; without CAP_NET_RAW it
cannot send what goes past them. Answers to connections from outside go out.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyrtc.core.network import nft
from pyrtc.ip import parse_subnet

if TYPE_CHECKING:
    from pyrtc.store.networks import Endpoint

__all__ = ["restrict", "rules"]

_TABLE = "inet pyrtc_egress"
# Neighbours must be found by IPv6, too; who the neighbours are is no secret. What is refused is told so at once.
_RULES = """\
table {table}
delete table {table}
table {table} {{
    set allowed4 {{ type ipv4_addr; flags interval; auto-merge; {elements4} }}
    set allowed6 {{ type ipv6_addr; flags interval; auto-merge; {elements6} }}
    chain sent {{
        type filter hook output priority filter; policy drop;
        oif lo accept
        ct state established,related accept
        ip daddr @allowed4 accept
        ip6 daddr @allowed6 accept
        icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} ip6 hoplimit 255 accept
        counter reject with icmpx admin-prohibited
    }}
    chain passed_on {{
        type filter hook forward priority filter; policy drop;
    }}
}}
"""


def rules(egress: "tuple[str, ...]", endpoints: "Iterable[Endpoint]") -> str:
    """Return the commands that replace what holds until now. egress: see `RunOptions.egress`."""
    subnets: dict[int, list[str]] = {4: [], 6: []}
    words = set(egress)
    if "local" in words:
        words.remove("local")
        for endpoint in endpoints:
            words.update(text for text in (endpoint.network.subnet4, endpoint.network.subnet6) if text)
    for word in sorted(words):
        subnet = parse_subnet(word)
        subnets[subnet.family].append(word)
    elements = {family: f"elements = {{ {', '.join(found)} }};" if found else "" for family, found in subnets.items()}
    return _RULES.format(table=_TABLE, elements4=elements[4], elements6=elements[6])


def restrict(netns_fd: int, egress: "tuple[str, ...]", endpoints: "Iterable[Endpoint]") -> None:
    """Let a container begin connections to what egress names, and to nothing else.

    Raises
    ------
    NetworkError, UnsupportedError: the rules cannot be set.
    """
    nft(rules(egress, endpoints), netns_fd)
