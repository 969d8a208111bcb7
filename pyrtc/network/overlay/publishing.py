"""Telling the other hosts which containers of this one are on overlay networks: what etcd says is made true."""

from typing import TYPE_CHECKING

from pyrtc import __version__
from pyrtc.ip import number
from pyrtc.network.overlay import known
from pyrtc.network.overlay.addresses import document_of
from pyrtc.network.overlay.documents import (
    ANYBODY,
    HostDocument,
    block_key,
    block_of,
    dump,
    endpoint_key,
    host_key,
    vtep_key,
)
from pyrtc.network.overlay.etcd import Condition, Delete, Made, Put, Same, Unchanged, Unmade
from pyrtc.network.overlay.membership import membership
from pyrtc.store.owner import Owner

if TYPE_CHECKING:
    from pyrtc.network.overlay.etcd import Etcd
    from pyrtc.network.overlay.view import View
    from pyrtc.store import ContainerRecord, Store
    from pyrtc.store.networks import Endpoint

__all__ = ["own_endpoints", "publish"]


def own_endpoints(store: "Store") -> "dict[tuple[str, str], Endpoint]":
    """Return what this store's containers have on overlay networks, by network and address.

    A container that was killed with its monitor has its addresses until the next command puts that right; nobody
    reaches it, and other hosts are not to be told of it.
    """
    found = {}
    for network in store.networks.list():
        if network.driver == "overlay":
            for endpoint in store.networks.endpoints_on(network.id):
                found[network.id, endpoint.ip4] = endpoint
    if found:
        dead = {record.id for record in store.containers.list() if record.state == "running" and not _lives(record)}
        found = {key: endpoint for key, endpoint in found.items() if endpoint.container_id not in dead}
    return found


def _lives(record: "ContainerRecord") -> bool:
    return Owner(record.pid, record.start_time, record.owner.boot).alive()


def _keep_blocks(store: "Store", etcd: "Etcd", own_id: str, view: "View") -> tuple[int, list[str]]:
    """Claim anew the blocks that a restored etcd has forgotten; give up those that others have now."""
    changes, problems = 0, []
    for network_id, owners in view.blocks.items():
        for block in known.blocks_of(store, network_id):
            owner = owners.get(block)
            if owner is None:
                key = block_key(network_id, block)
                conditions: list[Condition] = [Made(host_key(own_id)), Unmade(key)]
                changes += etcd.transact(conditions, [Put(key, own_id.encode())]).done
            elif owner != own_id:
                known.give_up(store, network_id, block)
                problems.append(f"{block} of network {network_id[:12]} was this host's and is another's now")
    return changes, problems


def _tell_key(store: "Store", etcd: "Etcd", own_id: str, view: "View") -> tuple[int, list[str]]:
    """Tell the key of this host's tunnel, if it has one; and again where etcd says another one."""
    value = membership(store)
    if value is None or not value.key or value.id != own_id or view.hosts[own_id].key == value.key:
        return 0, []
    document = HostDocument(value.name, value.vtep, value.mtu, __version__, value.key)
    conditions: list[Condition] = [Made(host_key(own_id)), Same(vtep_key(value.vtep), own_id.encode())]
    if etcd.transact(conditions, [Put(host_key(own_id), dump(document))]).done:
        return 1, []
    return 0, [f"the key of this host cannot be told: {value.vtep} is not this host's by what etcd says"]


def publish(store: "Store", etcd: "Etcd", own_id: str, view: "View") -> tuple[int, tuple[str, ...]]:
    """Write what etcd lacks of this host's containers, and remove what it has too many.

    Each is a transaction of its own, on the condition that the address is this host's to give and that nobody wrote it
    since the view was taken. One that fails is seen in the next view.

    Returns
    -------
    How many are as etcd is to be told and were not before, and what cannot be told, in words.

    Raises
    ------
    ClusterUnreachable: etcd does not answer.
    """
    wanted = own_endpoints(store)
    changes, problems = _keep_blocks(store, etcd, own_id, view)
    told, problem = _tell_key(store, etcd, own_id, view)
    changes += told
    problems += problem
    for (network_id, address), endpoint in wanted.items():
        if network_id not in view.endpoints:
            problems.append(f"network {endpoint.network.name} is no network of the cluster any more")
            continue
        document = document_of(own_id, endpoint)
        there = view.endpoints[network_id].get(address)
        if there is not None and there.document == document:
            continue
        block = str(block_of(number(address)[1]))
        owner = view.blocks[network_id].get(block, "")
        if owner not in (own_id, ANYBODY) or (there is not None and there.document.host != own_id):
            problems.append(
                f"address {address} of {endpoint.container_name} on {endpoint.network.name} is not this host's"
            )
            continue
        key = endpoint_key(network_id, address)
        conditions: list[Condition] = [
            Made(host_key(own_id)),
            Same(block_key(network_id, block), owner.encode()),
            Unchanged(key, there.modified if there is not None else 0),
        ]
        changes += etcd.transact(conditions, [Put(key, dump(document))]).done
    for network_id, found in view.endpoints.items():
        for address, written in found.items():
            if written.document.host == own_id and (network_id, address) not in wanted:
                key = endpoint_key(network_id, address)
                changes += etcd.transact([Unchanged(key, written.modified)], [Delete(key)]).done
    return changes, tuple(problems)
