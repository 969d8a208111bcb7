"""How networks come and go on this host: the row and the device, under the host's lock.

The row is written first and removed first. A device without a row is one that a killed process was about to remove:
`prune` removes it. A row without a device is as good as one with: the next start of a container makes the device.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pyrtc.core.network import device_index
from pyrtc.errors import NetworkError, UnsupportedError, UsageError
from pyrtc.events import emit
from pyrtc.network import devices
from pyrtc.network.drivers import WantedNetwork, check_mtu, decide
from pyrtc.network.host_lock import host_lock
from pyrtc.network.lookup import find
from pyrtc.network.names import remove_names
from pyrtc.network.removal import take_down
from pyrtc.values import replace

if TYPE_CHECKING:
    from pyrtc.network.addresses import HostSubnets, Pool
    from pyrtc.store import Store
    from pyrtc.store.networks import Network

__all__ = ["create", "network_attributes", "prune", "remove"]

_THEIRS = ("lo", "eth0")  # devices of a stand-in
_SLIRP = "10.0.2.0/24"  # where slirp4netns leads outside, nothing else can be


def create(store: "Store", wanted: WantedNetwork) -> "Network":
    """Make a network; see `pyrtc.networks.Networks.create`."""
    draft = decide(wanted, time.time())
    network = _create_overlay(store, draft, wanted) if draft.driver == "overlay" else _create_here(store, draft, wanted)
    emit(store, "network", "create", network.id, network_attributes(network))
    return network


def network_attributes(network: "Network") -> dict[str, str]:
    """Return what events tell of a network."""
    return {"name": network.name, "type": network.driver}


def _create_here(store: "Store", draft: "Network", wanted: WantedNetwork) -> "Network":
    if _is_users(store):
        _check_users(draft)
    from pyrtc.network.addresses import check_pools, host_subnets

    pools = check_pools(wanted.subnets, wanted.gateways, wanted.ranges, wanted.auxiliary)
    with _locked(store):
        if any(network.name == draft.name for network in store.networks.list()):
            raise NetworkError(f"network with name {draft.name} already exists")
        if not _is_users(store):
            _check_device(draft)
        known = host_subnets()
        _check_store(store, pools)
        if draft.driver == "bridge":
            _check_host(pools, known)
        pools = _complete(store, pools, known, wanted)
        check_mtu(draft, pools)
        network = _with_pools(draft, pools)
        store.networks.create(network)
        if network.driver == "bridge" and not _is_users(store):  # theirs are made when a container is on them
            try:
                devices.make(network, store.path)
            except BaseException:
                store.networks.remove(network.id)
                raise
    return network


def _is_users(store: "Store") -> bool:
    """Whether networks of a store are an ordinary user's, and so in a stand-in (`pyrtc.network.stand_in`)."""
    return store.rootless and os.geteuid() != 0


@contextmanager
def _locked(store: "Store") -> Iterator[None]:
    """Hold a lock against others who pick subnets; an ordinary user's overlap with nobody's but the store's own."""
    if not _is_users(store):
        with host_lock():
            yield
        return
    from pyrtc.store.locks import locked

    with locked(store.root_fd, ["networks.lock"]):
        yield


def _check_users(draft: "Network") -> None:
    if draft.driver != "bridge":
        raise UnsupportedError(
            f"cannot create the network {draft.name}: only root makes networks of driver {draft.driver}, which stand "
            "on devices of the host; an ordinary user's are of driver bridge"
        )
    if draft.device in _THEIRS:
        raise UsageError(f"no bridge of an ordinary user can be called {draft.device}: what leads outside is")


def _check_device(draft: "Network") -> None:
    there = bool(device_index(draft.device))
    if draft.driver == "macvlan" and not there:
        raise NetworkError(f"this host has no device {draft.device} for a macvlan network to stand on")
    if draft.driver == "bridge" and there:
        raise NetworkError(f"this host has a device {draft.device} already, which is not pyrtc's to use")


def _check_store(store: "Store", pools: "dict[int, Pool]") -> None:
    """Name the network before its device is: the store itself refuses it, too, but only when the row is written."""
    from pyrtc.ip import parse_subnet

    for other in store.networks.list():
        for there in (parse_subnet(text) for text in (other.subnet4, other.subnet6) if text):
            for pool in pools.values():
                if pool.subnet.overlaps(there):
                    raise NetworkError(
                        "invalid pool request: Pool overlaps with other one on this address space: "
                        f"{pool.subnet} with {there} of network {other.name}"
                    )


def _check_host(pools: "dict[int, Pool]", known: "HostSubnets") -> None:
    """Refuse a subnet that this host is in: one of the two would not be reached any more."""
    for pool in pools.values():
        holder = known.holder(pool.subnet)
        if holder:
            raise NetworkError(
                f"invalid pool request: Pool overlaps with other one on this address space: {pool.subnet} with that of "
                f"device {holder} of this host"
            )


def _complete(
    store: "Store", pools: "dict[int, Pool]", known: "HostSubnets", wanted: WantedNetwork
) -> "dict[int, Pool]":
    """Add what nobody chose: IPv4 always, IPv6 when it is asked for."""
    from pyrtc.ip import parse_subnet
    from pyrtc.network.addresses import pick_pool

    taken = [
        *(parse_subnet(text) for other in store.networks.list() for text in (other.subnet4, other.subnet6) if text),
        *known.routed,
        *(subnet for subnet, _ in known.connected),
        parse_subnet(_SLIRP),
        *(pool.subnet for pool in pools.values()),
    ]
    families = (4, 6) if wanted.ipv6 else (4,)
    return {**{family: pick_pool(family, taken) for family in families if family not in pools}, **pools}


def _with_pools(draft: "Network", pools: "dict[int, Pool]") -> "Network":
    four, six = pools.get(4), pools.get(6)
    return replace(
        draft,
        subnet4=str(four.subnet) if four else "",
        gateway4=four.gateway if four else "",
        range4=str(four.range or "") if four else "",
        subnet6=str(six.subnet) if six else "",
        gateway6=six.gateway if six else "",
        range6=str(six.range or "") if six else "",
        auxiliary=tuple(pair for pool in pools.values() for pair in pool.auxiliary),
    )


def _create_overlay(store: "Store", draft: "Network", wanted: WantedNetwork) -> "Network":
    from pyrtc.network.addresses import check_pools
    from pyrtc.network.overlay.driver import create as create_overlay

    if wanted.ipv6:
        raise UnsupportedError("overlay networks have IPv4 addresses only: leave out --ipv6 and such subnets")
    pools = check_pools(wanted.subnets, wanted.gateways, wanted.ranges, wanted.auxiliary)
    return create_overlay(store, _with_pools(draft, pools))


def remove(store: "Store", name_or_id: str) -> "Network":
    """Remove a network that nobody is on; see `pyrtc.networks.Networks.remove`."""
    network = find(store, name_or_id)
    if network.driver == "overlay":
        from pyrtc.network.overlay.driver import remove as remove_overlay

        remove_overlay(store, network)  # may ask other hosts, for which no lock of this one is held
    with _devices_of_host():
        if network.driver != "overlay":
            store.networks.remove(network.id)
        take_down(network)
    if _is_users(store):
        _take_down_users(store, network)
    remove_names(store, network.id)
    emit(store, "network", "destroy", network.id, network_attributes(network))
    return network


def _take_down_users(store: "Store", network: "Network") -> None:
    from pyrtc.network.stand_in import fields, find_stand_in

    stand_in = find_stand_in(store)
    if stand_in is not None:  # else its bridge is gone, too
        with stand_in:
            stand_in.ask("take_down", network=fields(network))


@contextmanager
def _devices_of_host() -> Iterator[None]:
    """Hold the host's lock where there can be devices: only root's networks have any."""
    if os.geteuid() != 0:
        yield
        return
    with host_lock():
        yield


def prune(store: "Store", passes: "Callable[[Network], bool]") -> "tuple[Network, ...]":
    """Remove networks that no container uses, running or not, and devices that nobody has a use for.

    The default bridge stays, but without a device and a subnet until it is used again. So do networks of a cluster, but
    for their subnets: what other hosts make of them nobody knows here.
    """
    used = _named_by_containers(store)
    removed = []
    for network in store.networks.list():
        if network.predefined or network.driver == "overlay" or network.id in used or not passes(network):
            continue
        with suppress(NetworkError):  # a container is on it, or somebody else was quicker
            removed.append(remove(store, network.id))
    if os.geteuid() == 0 and (_resting(store) or any(name.startswith("pyrtc-") for _, name in socket.if_nameindex())):
        from pyrtc.network.release import reconcile

        with host_lock():
            for network in _resting(store):
                if store.networks.unassign(network.id):
                    take_down(network)
            for network in store.networks.list():
                if network.driver == "overlay" and not store.networks.endpoints_on(network.id):
                    take_down(network)
            _remove_orphans(store)
        reconcile(store)
    if _is_users(store):
        _sweep_users(store)
    return tuple(removed)


def _sweep_users(store: "Store") -> None:
    from pyrtc.network.stand_in import find_stand_in

    stand_in = find_stand_in(store)
    if stand_in is not None:
        with stand_in:
            stand_in.ask("sweep", known=[network.id for network in store.networks.list()])


def _resting(store: "Store") -> "tuple[Network, ...]":
    """Return what every store has and this one has used: it may go back to what it was while nobody is on it."""
    return tuple(network for network in store.networks.list() if network.predefined and network.subnet4)


def _named_by_containers(store: "Store") -> frozenset[str]:
    """Return the ids of the networks that containers will ask for when they start."""
    import json

    words: set[str] = set()
    for record in store.containers.list():
        words.update(json.loads(record.options or b"{}").get("networks", ()))
    found = set()
    for word in words:
        with suppress(NetworkError):  # it is gone, or the word means several by now
            found.add(store.networks.get(word).id)
    return frozenset(found)


def _remove_orphans(store: "Store") -> None:
    from pyrtc.store.networks import Network

    known = frozenset(network.id for network in store.networks.list())
    for network_id, device in devices.orphans(store.path, known):
        # Whether it was one of a cluster nobody knows any more; the devices of one that was are looked for by its id.
        take_down(Network(network_id, device, "overlay", 0.0, device))
