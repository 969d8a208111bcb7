"""Taking part in a cluster: hosts that share overlay networks and agree through etcd on whose each address is."""

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pyrtc.errors import ClusterError, ClusterUnreachable, UnsupportedError, UsageError
from pyrtc.network.overlay import known, membership
from pyrtc.network.overlay.membership import Membership
from pyrtc.values import dataclass, replace

if TYPE_CHECKING:
    from pyrtc.network.overlay.etcd import Etcd
    from pyrtc.network.overlay.view import View
    from pyrtc.store import Store

__all__ = ["Cluster", "ClusterHost", "ClusterInfo"]

_BATCH = 60  # operations of one transaction of etcd, which takes 128


@dataclass(frozen=True, slots=True)
class ClusterHost:
    """A host of the cluster.

    address: what other hosts reach it at. mtu: of the device that has the address. version: of its pyrtc. status:
    ``active``: it runs containers on overlay networks and renews its lease; ``idle``: it runs none; ``away``: it runs
    some by what etcd says, and does not renew its lease: it is down, or cut off from etcd. containers: of it on
    overlay networks. own: it is this host. key: the public one of its
    WireGuard device, empty while it has had no container on an encrypted network.
    """

    id: str
    name: str
    address: str
    mtu: int
    version: str
    status: Literal["active", "idle", "away"]
    containers: int
    own: bool
    key: str = ""


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """What this host takes part in.

    id: of the cluster. host_id, host_name, address, mtu: of this host. key: the public one of its WireGuard device,
    empty while it has had no container on an encrypted network. etcd: URLs of its members. tls_ca, tls_cert,
    tls_key: paths, empty for none. state: ``member``, or ``removed`` by another host. reachable: etcd answers now.
    networks: names of the cluster's networks, as far as this host knows. blocks: (network's id, block) whose addresses
    this host gives to its containers. problems: what is wrong, in words: why etcd cannot be reached, what in it cannot
    be.
    """

    id: str
    host_id: str
    host_name: str
    address: str
    mtu: int
    key: str
    etcd: tuple[str, ...]
    tls_ca: str
    tls_cert: str
    tls_key: str
    state: str
    reachable: bool
    networks: tuple[str, ...]
    blocks: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]


class Cluster:
    """The cluster that one store takes part in."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    def join(
        self,
        etcd: Sequence[str],
        *,
        tls_ca: str = "",
        tls_cert: str = "",
        tls_key: str = "",
        advertise: str = "",
        name: str = "",
    ) -> ClusterInfo:
        """Take part in the cluster whose hosts share this etcd; the first to join makes it.

        Parameters
        ----------
        etcd: URLs of etcd's members, ``http://HOST:PORT`` or ``https://HOST:PORT``.
        tls_ca, tls_cert, tls_key: PEM files: the CA that etcd's certificates are from, and this host's certificate and
            key; read whenever etcd is spoken to, so they can be renewed in place.
        advertise: the address, or the device with the address, that other hosts reach this one at; empty: the one from
            which etcd is reached.
        name: what lists call this host; empty: its host name.

        Raises
        ------
        UsageError: an argument cannot be. UnsupportedError: an ordinary user cannot make overlay networks.
        ClusterUnreachable: etcd does not answer. ClusterError: this host takes part in a cluster already, or another
        one has its address.
        """
        from pyrtc.network.overlay.gateway import read_endpoints

        if self._store.rootless:
            raise UnsupportedError("overlay networks need devices between hosts, which only root can make")
        before = membership.membership(self._store)
        if before is not None and before.state != "joining":
            raise ClusterError("this host takes part in a cluster already: pyrtc cluster leave, then join again")
        if tls_key and not tls_cert:
            raise UsageError("a key without its certificate: say --tls-cert")
        endpoints = read_endpoints(etcd)
        value = self._decide(endpoints, (tls_ca, tls_cert, tls_key), advertise, name or _host_name())
        client = membership.connect(value)
        try:
            if before is not None:  # killed in the middle: etcd may have this host already
                _remove(client, before.id, before.vtep)
            # Before etcd has the host, so that whatever happens in between this store knows who it is.
            membership.save(self._store, value)
            try:
                value = _enter(client, value)
            except ClusterUnreachable:
                raise  # it may have been written all the same
            except ClusterError:
                membership.forget(self._store)
                raise
            membership.save(self._store, value)
            known.hear(self._store, value, client)
        finally:
            client.close()
        return self.inspect()

    def _decide(self, etcd: tuple[str, ...], tls: tuple[str, str, str], advertise: str, name: str) -> Membership:
        from pyrtc.network.overlay.underlay import advertised, device_of

        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,252}", name):
            raise UsageError(f"{name!r} is no name for a host")
        vtep = advertised(advertise, etcd[0])
        device = device_of(vtep)
        ca, cert, key = (os.path.abspath(path) if path else "" for path in tls)
        return Membership(os.urandom(16).hex(), name, "", etcd, ca, cert, key, vtep, device.mtu, "joining")

    def leave(self, *, force: bool = False) -> None:
        """Leave the cluster: give back this host's addresses and forget its networks.

        force: also when etcd cannot be reached; the others then have to be told, with `remove_host`.

        Raises
        ------
        ClusterError: this host is in no cluster, or has containers on overlay networks. ClusterUnreachable: etcd does
        not answer.
        """
        value = membership.membership(self._store)
        if value is None:
            raise ClusterError("this host is in no cluster")
        networks = [network for network in self._store.networks.list() if network.driver == "overlay"]
        for network in networks:
            holders = self._store.networks.endpoints_on(network.id)
            if holders:
                names = ", ".join(endpoint.container_name for endpoint in holders)
                raise ClusterError(f"containers are on the overlay network {network.name}: stop them first: {names}")
        if value.state != "removed":
            try:
                client = membership.connect(value)
                try:
                    _remove(client, value.id, value.vtep)
                finally:
                    client.close()
            except (ClusterUnreachable, UsageError):
                if not force:
                    raise
        self._forget(value)

    def _forget(self, value: Membership) -> None:
        from pyrtc.network.overlay import tunnel
        from pyrtc.network.removal import forget

        for network in self._store.networks.list():
            if network.driver == "overlay":
                self._store.networks.remove(network.id)  # fails where a container has just got on it
                forget(self._store, network)
        tunnel.remove(self._store, value)
        membership.forget(self._store)

    def list(self) -> "tuple[ClusterHost, ...]":
        """Return the hosts of the cluster by name: what etcd says, or without it what this host heard last.

        Raises
        ------
        UnsupportedError: this host is in no cluster.
        """
        value, _view, _problems = self._look()
        counts: dict[str, int] = {value.id: len(self._own_containers())}
        for host_id, count in self._store.database.rows(
            "SELECT host_id, count(DISTINCT container_id) FROM overlay_endpoints GROUP BY host_id"
        ):
            counts[host_id] = count
        found = []
        for host in known.hosts(self._store).values():
            count = counts.get(host.id, 0)
            status: Literal["active", "idle", "away"] = "active" if host.live else "away" if count else "idle"
            found.append(
                ClusterHost(
                    host.id,
                    host.name,
                    host.vtep,
                    host.mtu,
                    host.version,
                    status,
                    count,
                    own=host.id == value.id,
                    key=host.key,
                )
            )
        return tuple(sorted(found, key=lambda host: (host.name, host.id)))

    def _own_containers(self) -> set[str]:
        rows = self._store.database.rows(
            "SELECT container_id FROM endpoints JOIN networks ON networks.id = network_id WHERE driver = 'overlay'"
        )
        return {row[0] for row in rows}

    def inspect(self) -> ClusterInfo:
        """Return what this host takes part in, and whether etcd answers.

        Raises
        ------
        UnsupportedError: this host is in no cluster.
        """
        value, view, problems = self._look()
        names = {network.name for network in self._store.networks.list() if network.driver == "overlay"}
        rows = self._store.database.rows("SELECT network_id, block FROM overlay_blocks ORDER BY network_id, block")
        return ClusterInfo(
            id=value.cluster,
            host_id=value.id,
            host_name=value.name,
            address=value.vtep,
            mtu=value.mtu,
            key=value.key,
            etcd=value.etcd,
            tls_ca=value.tls_ca,
            tls_cert=value.tls_cert,
            tls_key=value.tls_key,
            state=value.state,
            reachable=view is not None,
            networks=tuple(sorted(names | set(view.networks if view is not None else ()))),
            blocks=tuple((network_id, block) for network_id, block in rows),
            problems=problems,
        )

    def _look(self) -> "tuple[Membership, View | None, tuple[str, ...]]":
        from pyrtc.network.overlay.bell import directory_of, problems_of

        value = membership.membership(self._store)
        if value is None or value.state == "joining":
            membership.member(self._store)  # says what to do
            raise AssertionError
        try:
            client = membership.connect(value)
            try:
                view = known.hear(self._store, value, client)
            finally:
                client.close()
        except (ClusterError, UsageError) as error:
            return value, None, (str(error),)
        problems = list(view.wrong)
        if view.cluster != value.cluster:
            problems.insert(0, f"etcd has another cluster now, {view.cluster[:12] or 'none'}: was its data lost?")
        elif value.id not in view.hosts and value.state == "member":
            value = replace(value, state="removed")
            membership.save(self._store, value)
        if value.state == "removed":
            problems.insert(0, "another host has removed this one from the cluster")
        problems += [text for text in problems_of(directory_of(value.id)) if text not in problems]
        return value, view, tuple(problems)

    def remove_host(self, host: str, *, force: bool = False) -> ClusterHost:
        """Remove a host that is gone: its addresses are free for others from then on.

        A host that is only cut off goes on using them; end its containers on overlay networks before.

        Parameters
        ----------
        host: its name or id, or the beginning of its id. force: also one that renews its lease.

        Raises
        ------
        ClusterError: there is no such host, several fit, it is this one, or it is alive. ClusterUnreachable: etcd does
        not answer.
        """
        value = membership.member(self._store)
        client = membership.connect(value)
        try:
            view = known.hear(self._store, value, client)
            if view.cluster != value.cluster:
                raise ClusterError("etcd has another cluster now: was its data lost?")
            all_hosts = self.list()
            found = [one for one in all_hosts if one.id == host] or [
                one for one in all_hosts if one.name == host or (len(host) >= 4 and one.id.startswith(host))
            ]
            if not found:
                raise ClusterError(f"no such host: {host}")
            if len(found) > 1:
                ids = ", ".join(one.id[:12] for one in found)
                raise ClusterError(f"several hosts are called {host}: say which by its id: {ids}")
            gone = found[0]
            if gone.own:
                raise ClusterError("this is the host itself: pyrtc cluster leave")
            if gone.status == "active" and not force:
                raise ClusterError(
                    f"host {gone.name} is alive: pyrtc cluster leave there; --force removes it all the same, and its "
                    "containers may then share addresses with others"
                )
            _remove(client, gone.id, gone.address)
            known.hear(self._store, value, client)
        finally:
            client.close()
        return gone


def _host_name() -> str:
    return os.uname().nodename.strip("-._") or "host"


def _enter(client: "Etcd", value: Membership) -> Membership:
    """Write this host into etcd."""
    from pyrtc import __version__
    from pyrtc.network.overlay.documents import (
        CLUSTER,
        HostDocument,
        Wrong,
        dump,
        host_key,
        read_id,
        vtep_key,
    )
    from pyrtc.network.overlay.etcd import Made, Put, Unmade

    client.transact([Unmade(CLUSTER)], [Put(CLUSTER, os.urandom(16).hex().encode())])
    item = client.get(CLUSTER)
    try:
        cluster = read_id(item.value if item is not None else b"")
    except Wrong as error:
        raise ClusterError(f"etcd holds something else below /pyrtc/v1: {error}") from error
    _check_family(client, value)
    document = dump(HostDocument(value.name, value.vtep, value.mtu, __version__))
    host, vtep = host_key(value.id), vtep_key(value.vtep)
    put = [Put(host, document), Put(vtep, value.id.encode())]
    written = client.transact([Made(CLUSTER), Unmade(host), Unmade(vtep)], put, [vtep, host])
    if not written.done:
        # Either somebody has the address, or this was sent twice and the first was heard.
        holder = next((item.value.decode("ascii", "replace") for item in written.found if item.key == vtep), "")
        if holder != value.id:
            raise ClusterError(
                f"another host of the cluster has the address {value.vtep}: {holder[:12]}; if that was this machine "
                f"once, or is gone: pyrtc cluster rm-host {holder[:12]} on a host of the cluster; else say --advertise"
            )
    return replace(value, cluster=cluster, state="member")


def _check_family(client: "Etcd", value: Membership) -> None:
    """Refuse a host that the others could not send to: a VXLAN device speaks IPv4 or IPv6."""
    from pyrtc.network.overlay.documents import PREFIX
    from pyrtc.network.overlay.view import view_of

    for host in view_of(client.list(f"{PREFIX}host/").items).hosts.values():
        if (":" in host.vtep) != (":" in value.vtep):
            raise ClusterError(
                f"{value.vtep} and {host.vtep} of host {host.name} cannot reach each other: all hosts of a cluster "
                "have IPv4 addresses between them, or all IPv6; say which with --advertise"
            )


def _remove(client: "Etcd", host_id: str, vtep: str) -> None:
    """Take everything that is a host's out of etcd: containers, then blocks, then the host."""
    from pyrtc.network.overlay.documents import PREFIX, block_key, endpoint_key, host_key, live_key, vtep_key
    from pyrtc.network.overlay.etcd import Condition, Delete, Same, Unchanged
    from pyrtc.network.overlay.view import view_of

    view = view_of(client.list(PREFIX).items)
    todo: list[tuple[Condition, Delete]] = []
    for network_id, found in view.endpoints.items():
        for address, written in found.items():
            if written.document.host == host_id:
                key = endpoint_key(network_id, address)
                todo.append((Unchanged(key, written.modified), Delete(key)))
    for network_id, blocks in view.blocks.items():
        for block, owner in blocks.items():
            if owner == host_id:
                key = block_key(network_id, block)
                todo.append((Same(key, host_id.encode()), Delete(key)))
    todo.append((Same(vtep_key(vtep), host_id.encode()), Delete(vtep_key(vtep))))
    for start in range(0, len(todo), _BATCH):
        batch = todo[start : start + _BATCH]
        if not client.transact([condition for condition, _ in batch], [delete for _, delete in batch]).done:
            for condition, delete in batch:  # one of them is another one's by now
                client.transact([condition], [delete])
    client.transact([], [Delete(host_key(host_id)), Delete(live_key(host_id))])
