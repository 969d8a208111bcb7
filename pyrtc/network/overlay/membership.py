"""Which cluster this store takes part in, and as whom: one row of the store's settings, read on the start path."""

import json
from typing import TYPE_CHECKING, Literal

from pyrtc.errors import ClusterError, StoreError, UnsupportedError
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.network.overlay.etcd import Etcd
    from pyrtc.store import Store

__all__ = ["SHORT", "Membership", "connect", "forget", "joined", "member", "membership", "save"]

SHORT = 0.7  # seconds for a member of etcd, where there is an answer without it, too
_ROW = "cluster"


@dataclass(frozen=True, slots=True)
class Membership:
    """This host in a cluster.

    id, name: of this host. cluster: id of the cluster. etcd: URLs of its members. tls_ca, tls_cert, tls_key: paths,
    empty for none. vtep: this host's address between hosts. mtu: of the device that had it when the host joined.
    state: ``joining`` until etcd has it, ``removed`` when another host removed this one. key: the public one of this
    host's WireGuard device, empty until an encrypted network needed one.
    """

    id: str
    name: str
    cluster: str
    etcd: tuple[str, ...]
    tls_ca: str
    tls_cert: str
    tls_key: str
    vtep: str
    mtu: int
    state: Literal["joining", "member", "removed"]
    key: str = ""


def membership(store: "Store") -> Membership | None:
    """Return what this store takes part in, None for nothing.

    Raises
    ------
    StoreError: the row was written by something else.
    """
    row = store.database.row("SELECT value FROM settings WHERE name = ?", (_ROW,))
    if row is None:
        return None
    try:
        words = json.loads(row[0])
        return Membership(**{**words, "etcd": tuple(words["etcd"])})
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(f"what the store {store.path} says of its cluster cannot be read: {error}") from error


def joined(store: "Store") -> bool:
    """Say whether this store takes part in a cluster."""
    found = membership(store)
    return found is not None and found.state != "joining"


def member(store: "Store") -> Membership:
    """Return what this store takes part in.

    Raises
    ------
    UnsupportedError: nothing. ClusterError: this host was removed.
    """
    found = membership(store)
    if found is None or found.state == "joining":
        raise UnsupportedError(
            "overlay networks need a cluster, and this host is in none: run etcd (apt-get install etcd-server) where "
            "all hosts reach it, then on each host: pyrtc cluster join --etcd http://HOST:2379"
        )
    if found.state == "removed":
        raise ClusterError(
            "another host has removed this one from the cluster: end its containers on overlay networks, then "
            "pyrtc cluster leave, and join again"
        )
    return found


def save(store: "Store", value: Membership) -> None:
    """Write what this store takes part in."""
    words = json.dumps({name: getattr(value, name) for name in value.__slots__})
    with store.database.writing(durable=True) as connection:
        connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (_ROW, words))


def forget(store: "Store") -> None:
    """Take part in nothing: forget the cluster and all that was known of it."""
    with store.database.writing(durable=True) as connection:
        connection.execute("DELETE FROM settings WHERE name = ?", (_ROW,))
        for table in ("overlay_blocks", "overlay_hosts", "overlay_endpoints"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608  (three constants)


def connect(value: Membership, *, timeout: float = 2.0) -> "Etcd":
    """Return a client of the cluster's etcd.

    Raises
    ------
    UsageError: a certificate or key cannot be read.
    """
    from pyrtc.network.overlay.etcd import Etcd
    from pyrtc.network.overlay.gateway import Gateway, Tls

    return Etcd(Gateway(value.etcd, Tls(value.tls_ca, value.tls_cert, value.tls_key), timeout=timeout))
