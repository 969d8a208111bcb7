"""Whose each address is: blocks of 64 belong to one host, which gives them out without asking anybody.

A host claims a block by a transaction when it has no free address left, and keeps it; so new containers start while
etcd is away, and no two hosts can give the same address. An address that a user chooses may have to move between hosts:
the block that it is in, if no host has it, becomes anybody's (`*`), and each address of it is claimed by a transaction
of its own.
"""

import random
from typing import TYPE_CHECKING

from pyrtc.errors import ClusterError, NetworkError
from pyrtc.ip import Subnet, ip_text4, number, parse_subnet
from pyrtc.network.overlay import known, membership
from pyrtc.network.overlay.documents import (
    ANYBODY,
    BLOCK_PREFIX,
    EndpointDocument,
    Wrong,
    block_key,
    block_of,
    block_text,
    dump,
    endpoint_key,
    host_key,
    read_block,
    vni_key,
)
from pyrtc.network.overlay.etcd import Condition, Made, Put, Same, Unmade
from pyrtc.network.overlay.network_row import VNI

if TYPE_CHECKING:
    from pyrtc.network.overlay.etcd import Etcd
    from pyrtc.network.overlay.membership import Membership
    from pyrtc.store import Store
    from pyrtc.store.networks import Endpoint, Network

__all__ = ["document_of", "more", "secure"]

_ATTEMPTS = 100  # each sees that another host was faster with the same block


def document_of(host_id: str, endpoint: "Endpoint") -> EndpointDocument:
    """Return what other hosts are told of a container of this one."""
    names = (endpoint.container_name, endpoint.container_id[:12], *endpoint.aliases)
    return EndpointDocument(host_id, endpoint.mac, endpoint.container_id, list(dict.fromkeys(names)))


def more(store: "Store", network: "Network") -> str:
    """Claim one more block for this host; return it.

    Raises
    ------
    NetworkError: all are taken. ClusterUnreachable: etcd does not answer. ClusterError: the cluster has no such
    network, or not this host.
    """
    value = membership.member(store)
    client = membership.connect(value)
    try:
        return _claim_any(store, client, value, network)
    finally:
        client.close()


def _claim_any(store: "Store", client: "Etcd", value: "Membership", network: "Network") -> str:
    subnet = parse_subnet(network.range4 or network.subnet4)  # the part that blocks are taken from
    count = subnet.size >> (32 - BLOCK_PREFIX)
    own = set(known.blocks_of(store, network.id))
    for _ in range(_ATTEMPTS):
        taken = set()
        for item in client.list(block_key(network.id, "")).items:
            try:
                block, owner = block_text(item.key), read_block(item.value)
            except Wrong:
                continue
            if not subnet.contains(parse_subnet(block)):
                continue  # one with a chosen address, outside of the range
            taken.add(block)
            if owner == value.id and block not in own:  # claimed, and killed before it was noted
                _note(store, network, block)
                return block
        free = count - len(taken)
        if free <= 0:
            raise NetworkError(
                f"no available IPv4 addresses on this network's address pools: {network.name}: all {count} blocks of "
                f"{subnet} belong to hosts; make a network with a larger --{'ip-range' if network.range4 else 'subnet'}"
            )
        # By chance: hosts that claim at once seldom want the same.
        index = random.SystemRandom().randrange(count)
        block = ""
        for step in range(count):
            candidate = _block(subnet, (index + step) % count)
            if candidate not in taken:
                block = candidate
                break
        if block and _claim(client, value, network, block, value.id) == value.id:
            _note(store, network, block)
            return block
    raise ClusterError(f"other hosts were faster with every block of network {network.name}: try again")


def _block(subnet: Subnet, index: int) -> str:
    return f"{ip_text4(subnet.first + (index << (32 - BLOCK_PREFIX)))}/{BLOCK_PREFIX}"


def _claim(client: "Etcd", value: "Membership", network: "Network", block: str, owner: str) -> str:
    """Make a block somebody's unless it is already; return whose it is then.

    Raises
    ------
    ClusterError: the cluster has no such network, or not this host.
    """
    key = block_key(network.id, block)
    vni = vni_key(int(network.option(VNI, "0")))
    conditions: list[Condition] = [Made(host_key(value.id)), Same(vni, network.id.encode()), Unmade(key)]
    written = client.transact(conditions, [Put(key, owner.encode())], [key, vni, host_key(value.id)])
    if written.done:
        return owner
    found = {item.key: item.value for item in written.found}
    if host_key(value.id) not in found:
        raise ClusterError("etcd does not have this host: see pyrtc cluster inspect")
    if found.get(vni) != network.id.encode():
        raise ClusterError(f"network {network.name} is no network of the cluster any more: pyrtc network rm it")
    try:
        return read_block(found.get(key, b""))
    except Wrong:
        return ""


def _note(store: "Store", network: "Network", block: str) -> None:
    with store.database.writing(durable=True) as connection:
        connection.execute("INSERT OR IGNORE INTO overlay_blocks VALUES (?, ?)", (network.id, block))


def secure(store: "Store", endpoint: "Endpoint") -> None:
    """Make sure that no other host can give a container's address, after it was taken in this store.

    Addresses of this host's blocks are sure. For others, which a user chose, etcd is asked.

    Raises
    ------
    NetworkError: the address is another host's to give, or a container of another host has it. ClusterUnreachable: etcd
    does not answer. ClusterError: the cluster has no such network, or not this host.
    """
    network = endpoint.network
    block = str(block_of(number(endpoint.ip4)[1]))
    if block in known.blocks_of(store, network.id):
        return
    value = membership.member(store)
    client = membership.connect(value)
    try:
        owner = _claim(client, value, network, block, ANYBODY)
        if owner == value.id:
            _note(store, network, block)
        elif owner == ANYBODY:
            _claim_one(client, value, endpoint, block)
        else:
            host = known.hosts(store).get(owner)
            raise NetworkError(
                f"address {endpoint.ip4} is in {block}, which host {host.name if host else owner[:12] or 'nobody'} "
                "gives to its containers: choose an address of a block that no host has"
            )
    finally:
        client.close()


def _claim_one(client: "Etcd", value: "Membership", endpoint: "Endpoint", block: str) -> None:
    network = endpoint.network
    document = dump(document_of(value.id, endpoint))
    key, owned = endpoint_key(network.id, endpoint.ip4), block_key(network.id, block)
    conditions: list[Condition] = [Made(host_key(value.id)), Same(owned, ANYBODY.encode()), Unmade(key)]
    written = client.transact(conditions, [Put(key, document)], [key])
    if written.done or any(item.value == document for item in written.found):
        return
    before = written.found[0].value if written.found else b""
    # One of this host is of a run before, whose end has not been told yet.
    if _is_of(before, value.id) and client.transact([Same(key, before)], [Put(key, document)]).done:
        return
    raise NetworkError(
        f"Address already in use: a container of another host has {endpoint.ip4} on network {network.name}"
    )


def _is_of(raw: bytes, host_id: str) -> bool:
    import msgspec

    try:
        return msgspec.json.decode(raw, type=EndpointDocument).host == host_id
    except (msgspec.DecodeError, ValueError):
        return False
