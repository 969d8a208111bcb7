"""Overlay networks as objects of the cluster: made and removed by transactions, and taken over by each host's store."""

import os
import random
import time
from typing import TYPE_CHECKING

from pyrtc.errors import ClusterError, NetworkError, NetworkNotFound, UnsupportedError, UsageError
from pyrtc.ip import Subnet, ip_text4, number, parse_subnet
from pyrtc.network.addresses import host_subnets
from pyrtc.network.overlay import known, membership, tunnel
from pyrtc.network.overlay.documents import (
    BLOCK_PREFIX,
    ENCRYPTED,
    FIRST_VNI,
    LAST_VNI,
    PREFIX,
    SEQUENCE,
    HostDocument,
    NetworkDocument,
    Wrong,
    dump,
    encrypts,
    endpoint_key,
    host_key,
    network_key,
    read_endpoint,
    read_network,
    tunnel_address,
    vni_key,
)
from pyrtc.network.overlay.etcd import Condition, Delete, Made, Put, Same, Unchanged, Unmade
from pyrtc.network.overlay.network_row import network_of
from pyrtc.network.overlay.underlay import fitting, tunnel_mtu
from pyrtc.network.overlay.view import view_of
from pyrtc.store.networks import Network

if TYPE_CHECKING:
    from pyrtc.network.overlay.etcd import Etcd
    from pyrtc.network.overlay.view import View
    from pyrtc.store import Store

__all__ = ["adopt", "adopt_all", "create", "remove"]

_ATTEMPTS = 50  # each sees that somebody else made a network meanwhile
_MTU_OPTIONS = ("mtu", "com.docker.network.driver.mtu")


def create(store: "Store", wanted: Network) -> Network:
    """Make a network of the cluster, and its row in this store.

    Parameters
    ----------
    wanted: its name, and what else was asked for: subnet4, with room for blocks of 64 addresses, one or more for each
    host, empty for a free one with 65536; range4, the part of it that blocks are taken from, empty for all; gateway4,
    empty for the subnet's first address; auxiliary; mtu, 0 for what fits between all hosts; internal; labels; options
    (``mtu``, ``encrypted``). The rest is decided here.

    Raises
    ------
    UsageError: what was asked for cannot be. UnsupportedError: this host is in no cluster, IPv6 was asked for, or
    encryption, and its kernel has no WireGuard. NetworkError: the name is taken, or the subnet. ClusterUnreachable:
    etcd does not answer.
    """
    value = membership.member(store)
    name, options = wanted.name, dict(wanted.options)
    if wanted.subnet6 or wanted.gateway6 or wanted.range6:
        raise UnsupportedError("overlay networks have IPv4 addresses only: leave out --ipv6 and such subnets")
    mtu = _read_options(options) or wanted.mtu
    if any(network.name == name for network in store.networks.list()):
        raise NetworkError(f"network with name {name} already exists")
    chosen = _chosen(wanted.subnet4) if wanted.subnet4 else None
    if wanted.range4:
        _check_range(wanted.range4)
    if encrypts(options):
        tunnel.require()
    client = membership.connect(value)
    try:
        for _ in range(_ATTEMPTS):
            sequence = client.get(SEQUENCE)
            view = view_of(client.list(PREFIX).items)
            if view.cluster != value.cluster or value.id not in view.hosts:
                raise ClusterError("etcd does not have this host: see pyrtc cluster inspect")
            if name in view.networks:
                raise NetworkError(f"network with name {name} already exists in the cluster")
            document = _decide(store, view, wanted, chosen, mtu, options)
            if _write(client, value.id, name, document, sequence.modified if sequence is not None else 0):
                break
        else:
            raise ClusterError("other hosts make networks all the time: try again")
        network = network_of(value, name, document)
        try:
            store.networks.create(network)
        except BaseException:
            _delete(client, name, document)
            raise
    finally:
        client.close()
    return network


def _read_options(options: dict[str, str]) -> int:
    mtu = 0
    for name, text in options.items():
        if name in _MTU_OPTIONS:
            if not text.isdigit() or not 576 <= int(text) <= 65535:
                raise UsageError(f"{name}={text}: an MTU is a number of bytes from 576 on")
            mtu = int(text)
        elif name == ENCRYPTED:
            if text not in ("", "true"):
                raise UsageError(f"{name}={text}: say --opt {name}, or leave it out")
            options[name] = ""
        else:
            raise UsageError(f"unknown option of overlay networks: {name}; there are mtu and {ENCRYPTED}")
    return mtu


def _chosen(text: str) -> Subnet:
    subnet = parse_subnet(text)
    if subnet.family != 4:
        raise UnsupportedError(f"{text}: overlay networks have IPv4 addresses only")
    if not 8 <= subnet.prefix <= BLOCK_PREFIX - 1:
        raise UsageError(
            f"{text}: each host takes blocks of 64 addresses (/{BLOCK_PREFIX}), so a subnet is /8 to "
            f"/{BLOCK_PREFIX - 1}; with /16 there are 1024 blocks"
        )
    return subnet


def _check_range(text: str) -> None:
    part = parse_subnet(text)
    if part.prefix > BLOCK_PREFIX:
        raise UsageError(
            f"{text}: in an overlay network each host takes blocks of 64 addresses, so a range is /{BLOCK_PREFIX} at "
            "least, and has room for a block of each host"
        )


def _decide(
    store: "Store",
    view: "View",
    wanted: Network,
    chosen: Subnet | None,
    mtu: int,
    options: dict[str, str],
) -> NetworkDocument:
    gateway = wanted.gateway4
    taken = [(parse_subnet(network.subnet), name) for name, network in view.networks.items()]
    if chosen is None:
        subnet = _free_subnet(store, [other for other, _ in taken])
    else:
        subnet = chosen
        for other, name in taken:
            if subnet.overlaps(other):
                raise NetworkError(
                    f"Pool overlaps with other one on this address space: {subnet} with {other} of {name}"
                )
    place = number(gateway) if gateway else (4, subnet.first + 1)
    if place[0] != 4 or not subnet.first < place[1] < subnet.last:
        raise UsageError(f"the gateway {gateway} is no address of {subnet}")
    largest = min(_room(host_id, host, options) for host_id, host in view.hosts.items())
    if mtu > largest:
        raise UsageError(f"mtu={mtu}: {largest} is the most that fits between all hosts of the cluster")
    if (mtu or largest) < 576:
        raise UnsupportedError(f"{largest} bytes fit between the hosts of the cluster, fewer than IPv4 needs (576)")
    used = {network.vni for network in view.networks.values()}
    vni = random.SystemRandom().randint(FIRST_VNI, LAST_VNI)
    while vni in used:
        vni = random.SystemRandom().randint(FIRST_VNI, LAST_VNI)
    document = NetworkDocument(
        id=os.urandom(32).hex(),
        vni=vni,
        subnet=str(subnet),
        gateway=ip_text4(place[1]),
        mtu=mtu or largest,
        created=time.time(),
        internal=wanted.internal,
        labels=dict(wanted.labels),
        options=options,
        range=wanted.range4,
        auxiliary=dict(wanted.auxiliary),
    )
    try:
        read_network(network_key("x"), dump(document))  # no other host may find it wrong
    except Wrong as error:
        raise UsageError(f"this cannot be a network: {error}".replace(network_key("x") + ": ", "")) from None
    return document


def _room(host_id: str, host: HostDocument, options: dict[str, str]) -> int:
    """Return what fits into a packet of a network with these options on its way to a host."""
    if encrypts(options):
        return fitting(tunnel_mtu(host.mtu, host.vtep), tunnel_address(host_id))
    return fitting(host.mtu, host.vtep)


def _free_subnet(store: "Store", taken: list[Subnet]) -> Subnet:
    """Return a /16 that no network of the cluster or of this host has, and no route of this host leads to.

    It is of a part of 10.0.0.0/8 that networks of one host are not picked from, so that other hosts have no use for it.
    """
    here = host_subnets()
    taken = [*taken, *here.routed, *(subnet for subnet, _device in here.connected)]
    taken += [parse_subnet(network.subnet4) for network in store.networks.list() if network.subnet4]
    candidates = [Subnet(4, 10 << 24 | second << 16, 16) for second in range(64, 128)]
    random.SystemRandom().shuffle(candidates)
    for candidate in candidates:
        if not any(candidate.overlaps(other) for other in taken):
            return candidate
    raise NetworkError("no free subnet among 10.64.0.0/16 to 10.127.0.0/16: say which with --subnet")


def _write(client: "Etcd", host_id: str, name: str, document: NetworkDocument, seen: int) -> bool:
    key, vni = network_key(name), vni_key(document.vni)
    conditions: list[Condition] = [Made(host_key(host_id)), Unmade(key), Unmade(vni), Unchanged(SEQUENCE, seen)]
    puts = [Put(key, dump(document)), Put(vni, document.id.encode()), Put(SEQUENCE, document.id.encode())]
    written = client.transact(conditions, puts, [key])
    # Sent twice, it finds what it wrote itself.
    return written.done or any(item.value == dump(document) for item in written.found)


def _delete(client: "Etcd", name: str, document: NetworkDocument) -> bool:
    """Remove a network that no container is on; False where one is."""
    endpoints = endpoint_key(document.id, "")
    written = client.transact(
        [Unmade(endpoints, prefix=True), Same(network_key(name), dump(document))],
        [
            Delete(network_key(name)),
            Delete(vni_key(document.vni)),
            Delete(f"{PREFIX}n/{document.id}/", prefix=True),
        ],
        [network_key(name)],
    )
    return written.done or not written.found


def remove(store: "Store", network: Network) -> None:
    """Remove a network from the cluster and from this store; its devices are the caller's to take down.

    Raises
    ------
    NetworkError: containers are on it, here or on other hosts. ClusterUnreachable: etcd does not answer.
    """
    value = membership.member(store)
    store.networks.remove(network.id)  # first here, so that nobody here gets an address on it meanwhile
    try:
        client = membership.connect(value)
        try:
            item = client.get(network_key(network.name))
            if item is not None:
                _name, document = read_network(item.key, item.value)
                if document.id == network.id and not _delete(client, network.name, document):
                    raise NetworkError(
                        f"error while removing network: network {network.name} has active endpoints "
                        f"({', '.join(_holders(client, document)) or 'that have just gone: try again'})"
                    )
        except Wrong as error:
            raise ClusterError(f"what etcd says of network {network.name} cannot be: {error}") from error
        finally:
            client.close()
    except BaseException:
        store.networks.create(network)
        raise
    known.forget(store, network.id)


def _holders(client: "Etcd", document: NetworkDocument) -> list[str]:
    found = []
    for item in client.list(endpoint_key(document.id, "")).items:
        try:
            address, holder = read_endpoint(item.key, item.value, parse_subnet(document.subnet))
        except Wrong:
            continue
        name = holder.names[0] if holder.names else holder.container[:12]
        found.append(f'name:"{name}" address:{address} host:{holder.host[:12]}')
    return found[:20]


def adopt(store: "Store", name: str) -> Network:
    """Take over a network of the cluster that this store does not know yet.

    Raises
    ------
    NetworkNotFound: the cluster has none either. NetworkError: its subnet is that of a network of this host.
    ClusterUnreachable: etcd does not answer.
    """
    value = membership.member(store)
    client = membership.connect(value)
    try:
        item = client.get(network_key(name)) if _is_name(name) else None
    finally:
        client.close()
    if item is None:
        raise NetworkNotFound(f"network {name} not found")
    try:
        network = network_of(value, *read_network(item.key, item.value))
    except Wrong as error:
        raise ClusterError(f"what etcd says of network {name} cannot be: {error}") from error
    _add(store, network)
    return network


def _is_name(name: str) -> bool:
    return bool(name) and len(name) <= 64 and "/" not in name


def _add(store: "Store", network: Network) -> None:
    try:
        store.networks.create(network)
    except NetworkError:
        if all(there.id != network.id for there in store.networks.list()):  # else another process was faster
            raise


def adopt_all(store: "Store", view: "View | None" = None) -> tuple[str, ...]:
    """Take over every network of the cluster, and forget those that are gone and nobody here is on.

    Returns
    -------
    What could not be done, in words.

    Raises
    ------
    ClusterUnreachable: etcd does not answer, where no view was given.
    """
    value = membership.member(store)
    if view is None:
        client = membership.connect(value, timeout=membership.SHORT)
        try:
            view = view_of(client.list(PREFIX).items)
        finally:
            client.close()
    if view.cluster != value.cluster:
        return ("etcd has another cluster now: was its data lost?",)
    rows = {network.id: network for network in store.networks.list()}
    problems = []
    theirs = {document.id: network_of(value, name, document) for name, document in view.networks.items()}
    for network in rows.values():
        if network.driver == "overlay" and network.id not in theirs:
            try:
                store.networks.remove(network.id)
            except NetworkNotFound:
                continue
            except NetworkError:
                problems.append(f"network {network.name} was removed from the cluster, and containers here are on it")
                continue
            known.forget(store, network.id)
            problems += _clear(store, network)
    for network in theirs.values():
        if network.id not in rows:
            try:
                _add(store, network)
            except NetworkError as error:
                problems.append(f"network {network.name} of the cluster cannot be used here: {error}")
    return tuple(problems)


def _clear(store: "Store", network: Network) -> list[str]:
    """Remove what this host has left of a network; return in words what stays, which a prune removes."""
    from pyrtc.network.removal import forget

    try:
        forget(store, network)
    except (NetworkError, UnsupportedError) as error:
        return [str(error)]
    return []
