"""What the store says of networks: values, and the rows that they come from."""

import json
from typing import Any, Protocol

from pyrtc.errors import NetworkError
from pyrtc.values import dataclass

__all__ = [
    "COLUMNS",
    "JOINED",
    "PREDEFINED",
    "AddressesExhausted",
    "Endpoint",
    "Network",
    "NoSubnet",
    "Published",
    "Row",
    "Wish",
    "endpoint_of",
    "make_endpoint",
    "network_of",
]

PREDEFINED = ("bridge", "host", "none")
COLUMNS = (
    "networks.id, networks.name, driver, networks.created, networks.device, subnet4, gateway4, range4, subnet6, "
    "gateway6, range6, mtu, internal, attachable, labels, networks.options, auxiliary"
)
_ENDPOINT_COLUMNS = "container_id, containers.name, endpoints.device, host_device, ip4, ip6, mac, aliases, wanted"
JOINED = (
    f"SELECT {_ENDPOINT_COLUMNS}, {COLUMNS} FROM endpoints JOIN networks ON networks.id = network_id "  # noqa: S608
    "JOIN containers ON containers.id = container_id "
)
_ENDPOINT_WIDTH = _ENDPOINT_COLUMNS.count(",") + 1
Row = tuple[Any, ...]  # what the columns say; sqlite3 has no types for them


class Wish(Protocol):
    """What is asked of one endpoint; `pyrtc.options.NetworkAttachment` is one."""

    @property
    def network(self) -> str:
        """The network's name or id."""

    @property
    def ip(self) -> str:
        """Its IPv4 address, empty for any."""

    @property
    def ip6(self) -> str:
        """Its IPv6 address, empty for any."""

    @property
    def mac(self) -> str:
        """Its hardware address, empty for a random one."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """Further names of the container on this network."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network of this store.

    driver: ``bridge``, ``macvlan``, ``overlay``, ``host`` or ``null``. created: seconds since the epoch. device: on the
    host: the bridge, or what a macvlan stands on; empty for none. subnet4, gateway4, range4: the subnet, the host's
    address in it, and the part that addresses are taken from; empty: no IPv4, or (range) the whole subnet; the same
    with 6. The default bridge has none until it is first used. mtu: 0 for the kernel's. internal: no way out.
    labels, options: what it was made with. auxiliary: names and addresses, of either family, that no container gets.
    """

    id: str
    name: str
    driver: str
    created: float
    device: str = ""
    subnet4: str = ""
    gateway4: str = ""
    range4: str = ""
    subnet6: str = ""
    gateway6: str = ""
    range6: str = ""
    mtu: int = 0
    internal: bool = False
    attachable: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    auxiliary: tuple[tuple[str, str], ...] = ()

    @property
    def predefined(self) -> bool:
        """Whether every store has it, and nobody can remove it."""
        return self.name in PREDEFINED

    def reserved(self, family: int) -> dict[str, str]:
        """Return the addresses of a family that no container gets, each with what it is."""
        gateway = self.gateway4 if family == 4 else self.gateway6
        found = {
            address: f"reserved as {name}" for name, address in self.auxiliary if (":" in address) == (family == 6)
        }
        return {**found, gateway: "the gateway"} if gateway else found

    def option(self, name: str, default: str = "") -> str:
        """Return one option."""
        return next((value for key, value in self.options if key == name), default)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One container on one network, while it runs.

    device: in the container (``eth0``). host_device: the name of its other end; another one for every start, as the
    kernel is still removing the one before. ip4, prefix4, gateway4: without the prefix, 0 and empty where there is
    none; the same with 6. aliases: further names. wanted: which of ``ip``, ``ip6`` and ``mac`` the user chose.
    """

    network: Network
    container_id: str
    container_name: str
    device: str
    host_device: str
    ip4: str
    prefix4: int
    gateway4: str
    ip6: str
    prefix6: int
    gateway6: str
    mac: str
    aliases: tuple[str, ...] = ()
    mtu: int = 0
    internal: bool = False
    wanted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """A port of the host that leads to a container. ip: of the host, empty for all of its addresses."""

    container_id: str
    protocol: str
    ip: str
    host_port: int
    container_port: int


class NoSubnet(NetworkError):
    """The network has no subnet yet.

    Attributes
    ----------
    network: which one.
    """

    def __init__(self, network: Network) -> None:
        super().__init__(f"network {network.name} has no subnet yet")
        self.network = network


class AddressesExhausted(NetworkError):
    """No address is free.

    Attributes
    ----------
    network: which one.
    """

    def __init__(self, message: str, network: Network) -> None:
        super().__init__(message)
        self.network = network


def network_of(row: Row) -> Network:
    """Read a row of COLUMNS."""
    labels, options, auxiliary = json.loads(row[14]), json.loads(row[15]), json.loads(row[16])
    return Network(
        row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], row[9], row[10], row[11],
        bool(row[12]), bool(row[13]), tuple(labels.items()), tuple(options.items()),
        tuple(auxiliary.items()),
    )  # fmt: skip


def endpoint_of(row: Row) -> Endpoint:
    """Read a row of JOINED."""
    network = network_of(row[_ENDPOINT_WIDTH:])
    container_id, name, device, host_device, ip4, ip6, mac, aliases, wanted = row[:_ENDPOINT_WIDTH]
    return make_endpoint(
        network, container_id, name, device, host_device, ip4 or "", ip6 or "", mac, tuple(json.loads(aliases)),
        tuple(json.loads(wanted)),
    )  # fmt: skip


def make_endpoint(
    network: Network,
    container_id: str,
    name: str,
    device: str,
    host_device: str,
    ip4: str,
    ip6: str,
    mac: str,
    aliases: tuple[str, ...],
    wanted: tuple[str, ...],
) -> Endpoint:
    """Make an endpoint out of its row and its network."""
    return Endpoint(
        network, container_id, name, device, host_device,
        ip4, int(network.subnet4.rpartition("/")[2]) if ip4 else 0, network.gateway4 if ip4 else "",
        ip6, int(network.subnet6.rpartition("/")[2]) if ip6 else 0, network.gateway6 if ip6 else "",
        mac, aliases, network.mtu, network.internal, wanted,
    )  # fmt: skip
