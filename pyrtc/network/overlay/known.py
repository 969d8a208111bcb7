"""This host's own copy of what it heard of the cluster, in the store: what it goes by while etcd is away."""

import json
import time
from collections.abc import Set
from typing import TYPE_CHECKING

from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.network.overlay.etcd import Etcd
    from pyrtc.network.overlay.membership import Membership
    from pyrtc.network.overlay.view import View
    from pyrtc.store import Store

__all__ = ["KnownHost", "Remote", "blocks_of", "forget", "give_up", "hear", "hosts", "named", "note", "remotes"]

GRACE = 60.0  # seconds for which names of a host's containers are answered that does not renew its lease


@dataclass(frozen=True, slots=True)
class KnownHost:
    """A host.

    vtep: its address. key: of its WireGuard device, empty for none that is good. live: it renews its lease. since: when
    that was seen to change.
    """

    id: str
    name: str
    vtep: str
    mtu: int
    version: str
    live: bool
    since: float
    key: str = ""


@dataclass(frozen=True, slots=True)
class Remote:
    """A container on another host."""

    ip4: str
    mac: str
    host: str
    container: str
    names: tuple[str, ...]


def hosts(store: "Store") -> dict[str, KnownHost]:
    """Return the other hosts and this one, by id."""
    found = {}
    for host_id, document, live, since in store.database.rows("SELECT id, document, live, since FROM overlay_hosts"):
        words = json.loads(document)
        found[host_id] = KnownHost(
            host_id, words["name"], words["vtep"], words["mtu"], words["version"], bool(live), since,
            words.get("key", ""),
        )  # fmt: skip
    return found


def remotes(store: "Store", network_id: str) -> tuple[Remote, ...]:
    """Return the containers of other hosts on a network."""
    rows = store.database.rows(
        "SELECT ip4, mac, host_id, container_id, names FROM overlay_endpoints WHERE network_id = ? ORDER BY ip4",
        (network_id,),
    )
    return tuple(
        Remote(ip4, mac, host, container, tuple(json.loads(names))) for ip4, mac, host, container, names in rows
    )


def named(store: "Store", network_id: str) -> tuple[Remote, ...]:
    """Return the containers of other hosts whose names are answered: not those of hosts that are away for long."""
    now = time.time()
    away = {host.id for host in hosts(store).values() if not host.live and not 0 <= now - host.since < GRACE}
    return tuple(remote for remote in remotes(store, network_id) if remote.host not in away)


def blocks_of(store: "Store", network_id: str) -> tuple[str, ...]:
    """Return the blocks whose addresses this host gives to its containers."""
    rows = store.database.rows("SELECT block FROM overlay_blocks WHERE network_id = ? ORDER BY block", (network_id,))
    return tuple(row[0] for row in rows)


def give_up(store: "Store", network_id: str, block: str) -> None:
    """Give no more addresses of a block, which another host has."""
    store.database.execute("DELETE FROM overlay_blocks WHERE network_id = ? AND block = ?", (network_id, block))


def note(store: "Store", own_id: str, view: "View") -> None:
    """Take over what etcd says now; where it says what is known nothing is written.

    Blocks are added and never taken away here: this host's containers may have addresses of them.
    """
    before, now = hosts(store), time.time()
    others = {
        (network_id, address, written.document.mac, written.document.host, written.document.container,
         json.dumps(written.document.names))
        for network_id, found in view.endpoints.items()
        for address, written in found.items()
        if written.document.host != own_id
    }  # fmt: skip
    blocks = {
        (network_id, block)
        for network_id, found in view.blocks.items()
        for block, owner in found.items()
        if owner == own_id
    }
    known_hosts = {_host_row(host_id, view, before, now) for host_id in view.hosts}
    _replace(store, "overlay_hosts", "id, document, live, since", known_hosts)
    _replace(store, "overlay_endpoints", "network_id, ip4, mac, host_id, container_id, names", others)
    _replace(store, "overlay_blocks", "network_id, block", blocks, keep=True)


def hear(store: "Store", value: "Membership", client: "Etcd") -> "View":
    """Ask etcd now, and take over what it says if it is of this host's cluster; return what it says.

    Raises
    ------
    ClusterUnreachable, ClusterError: it says nothing.
    """
    from pyrtc.network.overlay.documents import PREFIX
    from pyrtc.network.overlay.view import view_of

    view = view_of(client.list(PREFIX).items)
    if view.cluster == value.cluster:
        note(store, value.id, view)
    return view


def _host_row(host_id: str, view: "View", before: dict[str, KnownHost], now: float) -> tuple[str, str, int, float]:
    host, live, known = view.hosts[host_id], host_id in view.live, before.get(host_id)
    since = known.since if known is not None and known.live == live else now
    words = {"name": host.name, "vtep": host.vtep, "mtu": host.mtu, "version": host.version}
    words["key"] = view.keys.get(host_id, "")
    return host_id, json.dumps(words, sort_keys=True), int(live), since


def _replace(
    store: "Store", table: str, columns: str, wanted: "Set[tuple[object, ...]]", *, keep: bool = False
) -> None:
    """Have a table hold these rows; keep: and those that it has."""
    query = f"SELECT {columns} FROM {table}"  # noqa: S608  (constants of this module, here and below)
    if wanted <= (there := set(store.database.rows(query))) and (keep or wanted == there):
        return
    marks = ", ".join("?" * (columns.count(",") + 1))
    condition = " AND ".join(f"{name} = ?" for name in columns.split(", "))
    with store.database.writing() as connection:
        there = set(connection.execute(query))
        if not keep:
            connection.executemany(f"DELETE FROM {table} WHERE {condition}", there - wanted)  # noqa: S608
        connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", wanted - there)  # noqa: S608


def forget(store: "Store", network_id: str) -> None:
    """Forget what is known of a network that is gone."""
    with store.database.writing() as connection:
        for table in ("overlay_blocks", "overlay_endpoints"):
            connection.execute(f"DELETE FROM {table} WHERE network_id = ?", (network_id,))  # noqa: S608  (constants)
