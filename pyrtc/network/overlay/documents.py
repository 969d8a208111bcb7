"""What hosts tell one another through etcd: the keys, and the documents below them.

Everything is below one prefix::

    cluster              the cluster's id
    host/ID              a host: HostDocument; it stays until the host leaves or is removed
    vtep/ADDRESS         the host that has this address: no two can
    live/ID              there while the host renews its lease; nothing else hangs on a lease
    net/NAME             a network: NetworkDocument
    vni/NUMBER           the network that has this VXLAN number
    netseq               written by whoever makes a network, so that two cannot look for free subnets at once
    n/ID/blk/BLOCK       whose a block of addresses of the network is: a host, or `*`: one address at a time
    n/ID/ep/ADDRESS      a container on the network: EndpointDocument

Whoever may write to etcd may write anything there. What is read is therefore held to what can be: a document that is
wrong is left out, and said to be.
"""

import re
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from pyrtc.errors import UsageError
from pyrtc.ip import Subnet, ip_text, ip_text4, number, parse_mac, parse_subnet

__all__ = [
    "ANYBODY",
    "BLOCK_PREFIX",
    "CLUSTER",
    "ENCRYPTED",
    "PREFIX",
    "SEQUENCE",
    "EndpointDocument",
    "HostDocument",
    "NetworkDocument",
    "Wrong",
    "block_key",
    "block_of",
    "block_text",
    "check_unicast",
    "dump",
    "encrypts",
    "endpoint_key",
    "host_key",
    "live_key",
    "network_key",
    "read_block",
    "read_endpoint",
    "read_host",
    "read_id",
    "read_network",
    "tunnel_address",
    "vni_key",
    "vtep_key",
]

PREFIX = "/pyrtc/v1/"
CLUSTER = f"{PREFIX}cluster"
SEQUENCE = f"{PREFIX}netseq"
ANYBODY = "*"
ENCRYPTED = "encrypted"  # the option, in Docker's words
BLOCK_PREFIX = 26  # 64 addresses
FIRST_VNI, LAST_VNI = 4096, (1 << 24) - 1  # small ones are what people pick by hand
_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")
_NETWORK_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_HOST_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,252}")
_NAME = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,252}")
_KEY = re.compile(r"[a-zA-Z0-9+/]{42}[AEIMQUYcgkosw048]=")  # 32 bytes, as WireGuard writes them
_NO_KEY = "A" * 43 + "="
_LARGEST = 16384  # bytes of a document
_MOST_NAMES = 80
_MOST_AUXILIARY = 256
_SMALLEST_MTU, _LARGEST_MTU = 576, 65535


class Wrong(Exception):
    """A document or key that cannot be."""


class HostDocument(msgspec.Struct, frozen=True):
    """A host.

    vtep: its address between hosts. mtu: of the device that has it. version: of pyrtc. key: the public one of its
    WireGuard device, empty until it has had a container on an encrypted network.
    """

    name: str
    vtep: str
    mtu: int
    version: str = ""
    key: str = ""


class NetworkDocument(msgspec.Struct, frozen=True):
    """A network.

    created: seconds since the epoch. labels, options: as it was made with; ``encrypted`` is one. range: the part of the
    subnet that blocks are taken from, empty for all of it. auxiliary: names and addresses that no container gets.
    """

    id: str
    vni: int
    subnet: str
    gateway: str
    mtu: int
    created: float
    internal: bool = False
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    range: str = ""
    auxiliary: dict[str, str] = {}


class EndpointDocument(msgspec.Struct, frozen=True):
    """A container on a network. host, container: ids. names: what other containers call it."""

    host: str
    mac: str
    container: str
    names: list[str] = []


_Document = TypeVar("_Document", HostDocument, NetworkDocument, EndpointDocument)


def dump(document: HostDocument | NetworkDocument | EndpointDocument) -> bytes:
    """Write a document; the same one is always the same bytes."""
    return msgspec.json.encode(document, order="sorted")


def host_key(host_id: str) -> str:
    """Return the key of a host."""
    return f"{PREFIX}host/{host_id}"


def live_key(host_id: str) -> str:
    """Return the key that is there while a host renews its lease."""
    return f"{PREFIX}live/{host_id}"


def vtep_key(address: str) -> str:
    """Return the key of a host's address."""
    return f"{PREFIX}vtep/{address}"


def network_key(name: str) -> str:
    """Return the key of a network."""
    return f"{PREFIX}net/{name}"


def vni_key(vni: int) -> str:
    """Return the key of a VXLAN number."""
    return f"{PREFIX}vni/{vni}"


def block_key(network_id: str, block: str) -> str:
    """Return the key of a block (`10.1.2.64/26`)."""
    return f"{PREFIX}n/{network_id}/blk/{block.replace('/', '-')}"


def endpoint_key(network_id: str, address: str) -> str:
    """Return the key of a container's address."""
    return f"{PREFIX}n/{network_id}/ep/{address}"


def encrypts(options: Iterable[str]) -> bool:
    """Say whether a network with these options is an encrypted one; whatever the option's value, as in Docker."""
    return ENCRYPTED in options


def tunnel_address(host_id: str) -> str:
    """Return a host's address in the tunnel of encrypted networks: a link-local one, with half of the host's id."""
    return ip_text(6, 0xFE80 << 112 | int(host_id[:16], 16))


def block_of(value: int) -> Subnet:
    """Return the block that an address is in."""
    bits = 32 - BLOCK_PREFIX
    return Subnet(4, value >> bits << bits, BLOCK_PREFIX)


def block_text(key: str) -> str:
    """Return the block that a key's last part names.

    Raises
    ------
    Wrong: it is none.
    """
    block = _subnet(key.rpartition("/")[2].replace("-", "/"))
    if block.prefix != BLOCK_PREFIX or block.family != 4:
        raise Wrong(f"{key}: not a block of addresses")
    return str(block)


def read_id(raw: bytes) -> str:
    """Return the id that is all of a value."""
    text = raw[:65].decode("ascii", "replace")
    if not _ID.fullmatch(text):
        raise Wrong("not an id")
    return text


def read_block(raw: bytes) -> str:
    """Return whose a block is."""
    return ANYBODY if raw == ANYBODY.encode() else read_id(raw)


def read_host(key: str, raw: bytes) -> HostDocument:
    """Read a host's document."""
    document = _decode(key, raw, HostDocument)
    if not _HOST_NAME.fullmatch(document.name) or not _NAME.fullmatch(document.version or "_"):
        raise Wrong(f"{key}: its name or version cannot be")
    _expect(_SMALLEST_MTU <= document.mtu <= _LARGEST_MTU, key, "mtu")
    _expect(check_unicast(document.vtep) == document.vtep, key, "vtep")
    known = bool(_KEY.fullmatch(document.key)) and document.key != _NO_KEY
    _expect(known or not document.key, key, "WireGuard key")
    return document


def read_network(key: str, raw: bytes) -> tuple[str, NetworkDocument]:
    """Read a network's name and document."""
    document = _decode(key, raw, NetworkDocument)
    name = key.removeprefix(network_key(""))
    _expect(bool(_NETWORK_NAME.fullmatch(name)), key, "name")
    _expect(len(document.id) == 64 and bool(_ID.fullmatch(document.id)), key, "id")
    _expect(FIRST_VNI <= document.vni <= LAST_VNI, key, "vni")
    _expect(_SMALLEST_MTU <= document.mtu <= _LARGEST_MTU, key, "mtu")
    subnet = _subnet(document.subnet)
    _expect(subnet.family == 4 and 8 <= subnet.prefix <= BLOCK_PREFIX and str(subnet) == document.subnet, key, "subnet")
    # What leads somewhere else in any case, and would cut this host off from itself or its neighbours.
    for taken in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"):
        _expect(not subnet.overlaps(parse_subnet(taken)), key, "subnet")
    family, gateway = _address(document.gateway)
    _expect(family == 4 and subnet.first < gateway < subnet.last, key, "gateway")
    if document.range:
        part = _subnet(document.range)
        _expect(subnet.contains(part) and part.prefix <= BLOCK_PREFIX and str(part) == document.range, key, "range")
    _expect(len(document.auxiliary) <= _MOST_AUXILIARY, key, "auxiliary addresses")
    for name_of, text in document.auxiliary.items():
        family, value = _address(text)
        fits = family == 4 and subnet.first < value < subnet.last and ip_text4(value) == text and value != gateway
        _expect(fits and bool(_NAME.fullmatch(name_of)), key, "auxiliary addresses")
    for words in (document.labels, document.options):
        _expect(len(words) <= 64 and all(len(text) <= 4096 for pair in words.items() for text in pair), key, "labels")
    return name, document


def read_endpoint(key: str, raw: bytes, subnet: Subnet) -> tuple[str, EndpointDocument]:
    """Read a container's address on a network of this subnet, and its document."""
    document = _decode(key, raw, EndpointDocument)
    text = key.rpartition("/")[2]
    family, value = _address(text)
    _expect(family == 4 and subnet.first < value < subnet.last and ip_text4(value) == text, key, "address")
    _expect(bool(_ID.fullmatch(document.host)) and bool(_ID.fullmatch(document.container)), key, "ids")
    try:
        _expect(parse_mac(document.mac) == document.mac, key, "mac")
    except UsageError as error:
        raise Wrong(f"{key}: {error}") from None
    _expect(len(document.names) <= _MOST_NAMES, key, "names")
    _expect(all(_NAME.fullmatch(name) for name in document.names), key, "names")
    return text, document


def check_unicast(text: str) -> str:
    """Return an address that a host can have on a network, as it is written here.

    Raises
    ------
    Wrong: it is none, or one of this machine only, of groups or of a link.
    """
    family, value = _address(text)
    if family == 4:
        bad = value >> 24 in (0, 127) or value >> 16 == 0xA9FE or value >> 29 == 7
    else:
        bad = value <= 1 or value >> 118 == 0x3FA or value >> 120 == 0xFF or value >> 32 == 0xFFFF
    if bad:
        raise Wrong(f"{text} is no address that other hosts can reach")
    return ip_text(family, value)


def _expect(holds: bool, key: str, what: str) -> None:
    if not holds:
        raise Wrong(f"{key}: its {what} cannot be")


def _decode(key: str, raw: bytes, kind: type[_Document]) -> _Document:
    if len(raw) > _LARGEST:
        raise Wrong(f"{key}: more than {_LARGEST} bytes")
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        raise Wrong(f"{key}: {error}") from None


def _subnet(text: str) -> Subnet:
    try:
        return parse_subnet(text)
    except UsageError as error:
        raise Wrong(str(error)) from None


def _address(text: str) -> tuple[int, int]:
    try:
        return number(text)
    except UsageError as error:
        raise Wrong(str(error)) from None
