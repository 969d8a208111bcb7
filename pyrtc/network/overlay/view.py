"""All that etcd says of a cluster, read and checked: what is wrong is left out, and said to be."""

from collections.abc import Iterable

from pyrtc.ip import number, parse_subnet
from pyrtc.network.overlay.documents import (
    ANYBODY,
    CLUSTER,
    PREFIX,
    EndpointDocument,
    HostDocument,
    NetworkDocument,
    Wrong,
    block_of,
    block_text,
    read_block,
    read_endpoint,
    read_host,
    read_id,
    read_network,
    tunnel_address,
)
from pyrtc.network.overlay.etcd import Item
from pyrtc.values import dataclass, field

__all__ = ["View", "Written", "view_of"]

_MOST_HOSTS = 4096
_MOST_NETWORKS = 4096
_MOST_WRONG = 20  # that are named


@dataclass(frozen=True, slots=True)
class Written:
    """A container's document, and the revision that wrote it."""

    document: EndpointDocument
    modified: int


@dataclass(frozen=True, slots=True)
class View:
    """What the hosts of a cluster know of one another.

    cluster: its id, empty where there is none. hosts: by id. live: ids of hosts that renew their lease. keys: by id, of
    the hosts that encrypt; none that two say is theirs. networks: by name. blocks: of each network (by id) the blocks
    and whose they are. endpoints: of each network the containers by address. wrong: what was left out and why.
    """

    cluster: str = ""
    hosts: dict[str, HostDocument] = field(default_factory=dict)
    live: frozenset[str] = frozenset()
    keys: dict[str, str] = field(default_factory=dict)
    networks: dict[str, NetworkDocument] = field(default_factory=dict)
    blocks: dict[str, dict[str, str]] = field(default_factory=dict)
    endpoints: dict[str, dict[str, Written]] = field(default_factory=dict)
    wrong: tuple[str, ...] = ()


def view_of(items: Iterable[Item]) -> View:
    """Read the keys of a cluster."""
    cluster, live = "", set()
    hosts: dict[str, HostDocument] = {}
    networks: dict[str, NetworkDocument] = {}
    owned: list[Item] = []
    wrong: list[str] = []
    for item in items:
        kind, _, rest = item.key.removeprefix(PREFIX).partition("/")
        try:
            if item.key == CLUSTER:
                cluster = read_id(item.value)
            elif kind == "live":
                live.add(read_id(rest.encode()))
            elif kind == "host" and len(hosts) < _MOST_HOSTS:
                hosts[read_id(rest.encode())] = read_host(item.key, item.value)
            elif kind == "net" and len(networks) < _MOST_NETWORKS:
                name, document = read_network(item.key, item.value)
                networks[name] = document
            elif kind == "n":
                owned.append(item)
        except Wrong as error:
            wrong.append(str(error))
    hosts = _with_own_addresses(hosts, wrong)
    blocks, endpoints = _owned(owned, networks, hosts, wrong)
    keys = _own_keys(hosts, wrong)
    return View(cluster, hosts, frozenset(live), keys, networks, blocks, endpoints, tuple(wrong[:_MOST_WRONG]))


def _with_own_addresses(hosts: dict[str, HostDocument], wrong: list[str]) -> dict[str, HostDocument]:
    """Leave out hosts whose address another one has, too: nobody can say whose the traffic would be."""
    holders: dict[str, list[str]] = {}
    for host_id, host in hosts.items():
        holders.setdefault(host.vtep, []).append(host_id)
    for vtep, found in holders.items():
        if len(found) > 1:
            wrong.append(f"{len(found)} hosts say that they have {vtep}")
    return {host_id: host for host_id, host in hosts.items() if len(holders[host.vtep]) == 1}


def _own_keys(hosts: dict[str, HostDocument], wrong: list[str]) -> dict[str, str]:
    """Return the keys of hosts; of two with one key, or one address in the tunnel, nobody can say who is meant."""
    holders: dict[str, list[str]] = {}
    for host_id, host in hosts.items():
        if host.key:
            for sign in (host.key, tunnel_address(host_id)):
                holders.setdefault(sign, []).append(host_id)
    for sign, found in holders.items():
        if len(found) > 1:
            wrong.append(f"{len(found)} hosts say that {sign} is theirs: none of them is sent anything encrypted")
    shared = {host_id for found in holders.values() if len(found) > 1 for host_id in found}
    return {host_id: host.key for host_id, host in hosts.items() if host.key and host_id not in shared}


def _owned(
    items: list[Item], networks: dict[str, NetworkDocument], hosts: dict[str, HostDocument], wrong: list[str]
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, Written]]]:
    subnets = {network.id: parse_subnet(network.subnet) for network in networks.values()}
    blocks: dict[str, dict[str, str]] = {network_id: {} for network_id in subnets}
    endpoints: dict[str, dict[str, Written]] = {network_id: {} for network_id in subnets}
    for item in items:
        network_id, _, rest = item.key.removeprefix(f"{PREFIX}n/").partition("/")
        if network_id not in subnets:
            continue  # of a network that has just been removed
        try:
            if rest.startswith("blk/"):
                block = block_text(item.key)
                if not subnets[network_id].contains(parse_subnet(block)):
                    raise Wrong(f"{item.key}: the network has no such block")
                blocks[network_id][block] = read_block(item.value)
            elif rest.startswith("ep/"):
                address, document = read_endpoint(item.key, item.value, subnets[network_id])
                if document.host not in hosts:
                    raise Wrong(f"{item.key}: there is no such host")
                endpoints[network_id][address] = Written(document, item.modified)
        except Wrong as error:
            wrong.append(str(error))
    for network_id, found in endpoints.items():
        for address in [address for address in found if not _holds(blocks[network_id], address, found)]:
            wrong.append(f"{address} of network {network_id[:12]}: its block is not that host's")
            del found[address]
    return blocks, endpoints


def _holds(blocks: dict[str, str], address: str, found: dict[str, Written]) -> bool:
    """Say whether the host that names an address may: nobody else can take a container's traffic by a document."""
    return blocks.get(str(block_of(number(address)[1])), "") in (ANYBODY, found[address].document.host)
