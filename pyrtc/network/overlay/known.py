"""This host's own copy of what it heard of the cluster, in the store: what it goes by while etcd is away."""

import json
import time
from typing import TYPE_CHECKING

from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.network.overlay.view import View
    from pyrtc.store import Store

__all__ = ["KnownHost", "Remote", "blocks_of", "hosts", "named", "note", "remotes"]

GRACE = 60.0  # seconds for which names of a host's containers are answered that does not renew its lease


@dataclass(frozen=True, slots=True)
class KnownHost:
    """A host. vtep: its address. live: it renews its lease. since: when that was seen to change."""

    id: str
    name: str
    vtep: str
    mtu: int
    version: str
    live: bool
    since: float


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
            host_id, words["name"], words["vtep"], words["mtu"], words["version"], bool(live), since
        )
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


def note(store: "Store", own_id: str, view: "View") -> frozenset[str]:
    """Take over what etcd says now; return the networks (ids) whose containers or hosts are other ones than before.

    Blocks are added and never taken away here: this host's containers may have addresses of them.
    """
    changed: set[str] = set()
    before = hosts(store)
    now = time.time()
    with store.database.writing() as connection:
        if before.keys() != view.hosts.keys() or any(before[key].vtep != view.hosts[key].vtep for key in before):
            changed.update(view.endpoints)
        connection.execute("DELETE FROM overlay_hosts")
        for host_id, host in view.hosts.items():
            live = host_id in view.live
            known = before.get(host_id)
            since = known.since if known is not None and known.live == live else now
            document = json.dumps(
                {"name": host.name, "vtep": host.vtep, "mtu": host.mtu, "version": host.version}, sort_keys=True
            )
            connection.execute("INSERT INTO overlay_hosts VALUES (?, ?, ?, ?)", (host_id, document, live, since))
        for network_id, found in view.endpoints.items():
            rows = {
                (address, written.document.mac, written.document.host, written.document.container,
                 json.dumps(written.document.names))
                for address, written in found.items()
                if written.document.host != own_id
            }  # fmt: skip
            known_rows = set(
                connection.execute(
                    "SELECT ip4, mac, host_id, container_id, names FROM overlay_endpoints WHERE network_id = ?",
                    (network_id,),
                )
            )
            if rows != known_rows:
                changed.add(network_id)
                connection.execute("DELETE FROM overlay_endpoints WHERE network_id = ?", (network_id,))
                connection.executemany(
                    "INSERT INTO overlay_endpoints (ip4, mac, host_id, container_id, names, network_id) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    [(*row, network_id) for row in sorted(rows)],
                )
        connection.executemany(
            "INSERT OR IGNORE INTO overlay_blocks VALUES (?, ?)",
            [
                (network_id, block)
                for network_id, blocks in view.blocks.items()
                for block, owner in blocks.items()
                if owner == own_id
            ],
        )
    return frozenset(changed)
