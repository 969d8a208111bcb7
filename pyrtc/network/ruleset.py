"""The one table of the firewall: its text, which never changes while containers come and go, and its elements.

Networks and published ports are elements of sets and maps; a rule is never added for one of them. So the cost of a
packet does not grow with the number of containers, and who reads `nft list table inet pyrtc` sees on one page what
pyrtc does.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pyrtc.values import dataclass

__all__ = [
    "LAYOUT",
    "PLACES",
    "TABLE",
    "TEXT",
    "Element",
    "Place",
    "add",
    "create",
    "delete",
    "elements_in",
    "forbid",
    "layouts",
]

TABLE = "inet pyrtc"

# Raised when the text below changes. The table has a set for each layout that it serves, and every change adds to the
# one of its own layout: in a table that does not serve it that fails, and nothing of the change is done.
LAYOUT = 3


@dataclass(frozen=True, slots=True)
class Place:
    """A set, or, with a value, a map of the table. key, value: nft's types of their fields."""

    name: str
    key: tuple[str, ...]
    value: tuple[str, ...] = ()
    interval: bool = False

    def __str__(self) -> str:
        """Return its declaration."""
        types = " . ".join(self.key) + (f" : {' . '.join(self.value)}" if self.value else "")
        flags = " flags interval;" if self.interval else ""
        return f"\t{'map' if self.value else 'set'} {self.name} {{ type {types};{flags} }}\n"


_TO4 = ("ipv4_addr", "inet_service")
_TO6 = ("ipv6_addr", "inet_service")

PLACES = {
    place.name: place
    for place in (
        Place(f"layout_{LAYOUT}", ("mark",)),
        Place("bridges", ("ifname",)),
        Place("internal", ("ifname",)),
        Place("within", ("ifname", "ifname")),  # in, out: traffic that stays in one network
        Place("subnets4", ("ipv4_addr",), interval=True),
        Place("subnets6", ("ipv6_addr",), interval=True),
        Place("home4", ("ifname", "ipv4_addr"), interval=True),  # which addresses may come from which bridge
        Place("home6", ("ifname", "ipv6_addr"), interval=True),
        Place("shut4", ("ifname",)),  # forwarded nothing until forwarding was turned on for containers
        Place("shut6", ("ifname",)),
        Place(
            "held", ("inet_proto", "inet_service", "ether_addr")
        ),  # who publishes: a container's short id, as six bytes
        Place("pub4", ("inet_proto", "inet_service"), _TO4),
        Place("pub6", ("inet_proto", "inet_service"), _TO6),
        Place("pub4_at", ("ipv4_addr", "inet_proto", "inet_service"), _TO4),
        Place("pub6_at", ("ipv6_addr", "inet_proto", "inet_service"), _TO6),
    )
}

# Forged packets go first, before conntrack and every translation. Bridges let packets to 127.0.0.0/8 in
# (route_localnet, for answers to what 127.0.0.1 asked of a published port), which nobody outside may use
# (CVE-2020-8558). What a container sends to this machine, or to a port published here, comes from its network: a
# resolver of the host may otherwise hear answers from "its" server. Out of the tunnel of encrypted overlay networks
# (`pyrtc.network.overlay.tunnel`) comes VXLAN and nothing else: it is no way past what guards this host from others.
# `published` translates what is for an address of this machine; ::1 cannot be translated (there is no route_localnet
# for IPv6), it is left to who listens there. A port of every address comes before one of a single address: only what a
# killed container left can be both, and whoever publishes at a single address makes sure that there is no other.
# No rule looks into `held`: deleting from it what is not there makes a whole change fail, and so nobody takes back what
# another container publishes by now.
# In `leave` a container that asks a published port of its own network, or its own, is made to hear the answer from whom
# it asked; by addresses, as bridged packets (bridge-nf-call-iptables) do not say here where they came in.
# In `pass` the order is the policy: internal networks nothing but themselves, whatever is established; towards
# containers only answers and published ports (also not by their own address from the next machine of the link, as
# Docker since 28), and one network within itself; from containers only their own addresses.
# Each look into a set costs every packet some 50 ns, so what belongs to no bridge, or is an answer, is through after
# few of them.
_CHAINS = """\
	chain guard {
		type filter hook prerouting priority raw; policy accept;
		iif lo accept
		meta nfproto ipv6 goto guard6
		ip daddr 127.0.0.0/8 drop
		ip saddr 127.0.0.0/8 drop
		iifname @bridges goto guard_bridge4
		ip saddr @subnets4 drop
	}
	chain guard_bridge4 {
		iifname . ip saddr @home4 accept
		ip saddr @subnets4 drop
		fib daddr type local drop
	}
	chain guard6 {
		iifname @bridges goto guard_bridge6
		iifname "pyrtcw*" goto guard_tunnel
		ip6 saddr @subnets6 drop
	}
	chain guard_tunnel {
		udp dport 4789 accept
		drop
	}
	chain guard_bridge6 {
		iifname . ip6 saddr @home6 accept
		ip6 saddr @subnets6 drop
		ip6 saddr fe80::/10 accept
		fib daddr type local drop
	}
	chain published {
		ip6 daddr ::1 return
		dnat ip to meta l4proto . th dport map @pub4
		dnat ip to ip daddr . meta l4proto . th dport map @pub4_at
		dnat ip6 to meta l4proto . th dport map @pub6
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @pub6_at
	}
	chain come {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local jump published
	}
	chain send {
		type nat hook output priority -100; policy accept;
		fib daddr type local jump published
	}
	chain leave {
		type nat hook postrouting priority srcnat; policy accept;
		ct status dnat oifname . ip saddr @home4 masquerade
		ct status dnat oifname . ip6 saddr @home6 masquerade
		ip saddr 127.0.0.0/8 oifname @bridges masquerade
		ip saddr @subnets4 oifname != @bridges masquerade
		ip6 saddr @subnets6 oifname != @bridges masquerade
	}
	chain pass {
		type filter hook forward priority filter; policy accept;
		oifname @bridges goto inwards
		iifname @bridges goto outwards
		meta nfproto ipv4 iifname @shut4 oifname @shut4 drop
		meta nfproto ipv6 iifname @shut6 oifname @shut6 drop
	}
	chain inwards {
		iifname @internal goto inside
		oifname @internal drop
		ct state established,related accept
		ct status dnat accept
		goto inside
	}
	chain inside {
		iifname . oifname @within accept
		drop
	}
	chain outwards {
		iifname @internal drop
		iifname . ip saddr @home4 accept
		iifname . ip6 saddr @home6 accept
		drop
	}
	chain visit {
		type filter hook input priority filter; policy accept;
		iifname @internal jump visit_internal
	}
	chain visit_internal {
		fib daddr type != local return
		iifname . ip daddr @home4 return
		iifname . ip6 daddr @home6 return
		ip6 daddr fe80::/10 return
		drop
	}
"""

TEXT = f"table {TABLE} {{\n{''.join(str(place) for place in PLACES.values())}{_CHAINS}}}\n"


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a set or map. owner: of a published port, its bridge and container, as the element's comment."""

    place: str
    key: tuple[str, ...]
    value: tuple[str, ...] = ()
    owner: str = ""

    @property
    def bridge(self) -> str:
        """The bridge that it is about, "" if about none."""
        place = PLACES[self.place]
        if place.value:
            return self.owner.partition(" ")[0]
        return self.key[0] if place.key[0] == "ifname" and not self.place.startswith("shut") else ""

    def __str__(self) -> str:
        """Return it with its value, in braces."""
        place = PLACES[self.place]
        comment = f' comment "{self.owner}"' if self.owner else ""
        value = f" : {_fields(place.value, self.value)}" if self.value else ""
        return f"{{ {_fields(place.key, self.key)}{comment}{value} }}"

    @property
    def holder(self) -> "Element | None":
        """Of a published port: who has it; None of other elements."""
        if not self.owner:
            return None
        short = self.owner.rpartition(" ")[2]
        return Element("held", (*self.key[-2:], ":".join(short[i : i + 2] for i in range(0, 12, 2))))

    @property
    def key_text(self) -> str:
        """Its key, in braces."""
        return f"{{ {_fields(PLACES[self.place].key, self.key)} }}"


def _fields(types: tuple[str, ...], words: tuple[str, ...]) -> str:
    return " . ".join(f'"{word}"' if kind == "ifname" else word for kind, word in zip(types, words, strict=True))


MARK = Element(f"layout_{LAYOUT}", ("1",))


def add(elements: Iterable[Element]) -> str:
    """Return the commands that make sure of elements; they fail where there is another value for a key."""
    return "".join(f"add element {TABLE} {element.place} {element}\n" for element in (MARK, *elements))


def create(elements: Iterable[Element]) -> str:
    """Return the commands that add elements; they fail where there is one of that key already."""
    return add(()) + "".join(f"create element {TABLE} {element.place} {element}\n" for element in elements)


def forbid(elements: Iterable[Element]) -> str:
    """Return the commands that fail where there is an element of one of these keys, and change nothing."""
    return "".join(
        f"create element {TABLE} {element.place} {element}\ndelete element {TABLE} {element.place} {element.key_text}\n"
        for element in elements
    )


def delete(elements: Iterable[Element]) -> str:
    """Return the commands that delete elements; they fail where there is none of that key."""
    return "".join(f"delete element {TABLE} {element.place} {element.key_text}\n" for element in elements)


def layouts(listing: Sequence[Mapping[str, Any]]) -> set[int]:
    """Return the layouts that a table serves, from what nft says about it in JSON."""
    names = (item["set"]["name"] for item in listing if "set" in item)
    return {int(name[7:]) for name in names if name.startswith("layout_") and name[7:].isdecimal()}


def elements_in(listing: Sequence[Mapping[str, Any]]) -> Iterator[Element]:
    """Yield the elements of every set and map that is known here, from what nft says in JSON."""
    for item in listing:
        found = item.get("map") or item.get("set")
        if found is None or found["name"] not in PLACES:
            continue
        for element in found.get("elem", ()):
            yield _element(PLACES[found["name"]], element)


def _element(place: Place, found: Any) -> Element:  # noqa: ANN401  (a document)
    key, value = found if place.value else (found, None)
    owner = ""
    if isinstance(key, dict) and "elem" in key:
        owner = key["elem"].get("comment", "")
        key = key["elem"]["val"]
    return Element(place.name, _words(key), _words(value) if place.value else (), owner)


def _words(found: Any) -> tuple[str, ...]:  # noqa: ANN401  (a document)
    if isinstance(found, dict) and "concat" in found:
        return tuple(word for part in found["concat"] for word in _words(part))
    if isinstance(found, dict) and "prefix" in found:
        return (f"{found['prefix']['addr']}/{found['prefix']['len']}",)
    return (str(found),)
