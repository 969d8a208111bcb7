"""Networks, and the addresses that containers have on them while they run.

Everything that two starters could both want is given out in one transaction, and unique in the database besides:
subnets, addresses, hardware addresses. An address that was given back rests for a minute before somebody else gets it,
so that what still knows its old holder (neighbours, connections, resolvers) has forgotten it by then; in a pool that
has no other free address it is given out at once, the longest resting first.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyrtc.errors import ContainerNotFound, NetworkError, NetworkNotFound, UsageError
from pyrtc.store.endpoints import MAX_ENDPOINTS, take_endpoint
from pyrtc.store.network_records import (
    COLUMNS,
    JOINED,
    PREDEFINED,
    AddressesExhausted,
    Endpoint,
    Network,
    NoSubnet,
    Published,
    Row,
    Wish,
    endpoint_of,
    network_of,
)

if TYPE_CHECKING:
    from pyrtc.store.database import Database

__all__ = [
    "MAX_ENDPOINTS",
    "PREDEFINED",
    "AddressesExhausted",
    "Endpoint",
    "Network",
    "Networks",
    "NoSubnet",
    "Published",
    "Wish",
]


class Networks:
    """The networks of one store."""

    def __init__(self, database: "Database") -> None:
        self._database = database

    def create(self, network: Network) -> None:
        """Record a network that the caller has decided in every part.

        Raises
        ------
        NetworkError: the name is taken, or a subnet overlaps with that of another network.
        """
        values = (
            network.id, network.name, network.driver, network.created, network.device, network.subnet4,
            network.gateway4, network.range4, network.subnet6, network.gateway6, network.range6, network.mtu,
            network.internal, network.attachable, json.dumps(dict(network.labels)), json.dumps(dict(network.options)),
            json.dumps(dict(network.auxiliary)),
        )  # fmt: skip
        with self._database.writing(durable=True) as connection:
            if connection.execute("SELECT 1 FROM networks WHERE name = ?", (network.name,)).fetchone():
                raise NetworkError(f"network with name {network.name} already exists")
            _check_overlaps(connection, network.id, (network.subnet4, network.subnet6))
            connection.execute(f"INSERT INTO networks VALUES ({', '.join('?' * len(values))})", values)  # noqa: S608

    def assign(self, network_id: str, subnet4: str, gateway4: str, subnet6: str = "", gateway6: str = "") -> None:
        """Give a network that has none its subnets; one that got some meanwhile keeps those.

        Raises
        ------
        NetworkError: a subnet overlaps with that of another network.
        """
        with self._database.writing(durable=True) as connection:
            _check_overlaps(connection, network_id, (subnet4, subnet6))
            connection.execute(
                "UPDATE networks SET subnet4 = ?, gateway4 = ?, subnet6 = ?, gateway6 = ? "
                "WHERE id = ? AND subnet4 = '' AND subnet6 = ''",
                (subnet4, gateway4, subnet6, gateway6, network_id),
            )

    def unassign(self, network_id: str) -> bool:
        """Take the subnets from a network that nobody is on; return whether nobody was."""
        with self._database.writing(durable=True) as connection:
            if connection.execute("SELECT 1 FROM endpoints WHERE network_id = ?", (network_id,)).fetchone():
                return False
            connection.execute(
                "UPDATE networks SET subnet4 = '', gateway4 = '', subnet6 = '', gateway6 = '' WHERE id = ?",
                (network_id,),
            )
            return True

    def get(self, name_or_id: str) -> Network:
        """Find a network by id, by name, or by an id prefix that only one has.

        Raises
        ------
        NetworkNotFound: there is none. NetworkError: the prefix fits several.
        """
        with self._database.reading() as connection:
            return network_of(_find(connection, name_or_id))

    def list(self) -> "tuple[Network, ...]":
        """Return all networks by name."""
        rows = self._database.rows(f"SELECT {COLUMNS} FROM networks ORDER BY name")  # noqa: S608
        return tuple(network_of(row) for row in rows)

    def remove(self, name_or_id: str) -> Network:
        """Remove a network that nobody is on; return what it was.

        Raises
        ------
        NetworkNotFound: there is none. NetworkError: it is predefined, or containers are on it.
        """
        with self._database.writing(durable=True) as connection:
            network = network_of(_find(connection, name_or_id))
            if network.predefined:
                raise NetworkError(f"{network.name} is a pre-defined network and cannot be removed")
            holders = connection.execute(f"{JOINED} WHERE network_id = ?", (network.id,)).fetchall()
            if holders:
                words = ", ".join(f'name:"{row[1]}" id:"{row[0][:12]}"' for row in holders)
                raise NetworkError(
                    f"error while removing network: network {network.name} has active endpoints ({words})"
                )
            connection.execute("DELETE FROM networks WHERE id = ?", (network.id,))
        return network

    def claim(self, container_id: str, wishes: Sequence[Wish]) -> tuple[Endpoint, ...]:
        """Give a container that starts an endpoint on each network: `eth0` on the first, `eth1` on the second.

        What it still had from a run before is given back first.

        Raises
        ------
        NetworkNotFound, ContainerNotFound: there is no such network or container. NoSubnet: the network must get one
        first (`assign`). AddressesExhausted: no address is free. NetworkError: an address is taken. UsageError: an
        address or alias that cannot be.
        """
        with self._database.writing() as connection:
            connection.execute("DELETE FROM endpoints WHERE container_id = ?", (container_id,))
            connection.execute("DELETE FROM ports WHERE container_id = ?", (container_id,))
            return self._claim(connection, container_id, wishes)

    def claim_more(self, container_id: str, wish: Wish) -> Endpoint:
        """Give a container that runs an endpoint on one more network; raises what `claim` does."""
        with self._database.writing() as connection:
            return self._claim(connection, container_id, (wish,))[0]

    def _claim(self, connection: sqlite3.Connection, container_id: str, wishes: Sequence[Wish]) -> tuple[Endpoint, ...]:
        row = connection.execute("SELECT name FROM containers WHERE id = ?", (container_id,)).fetchone()
        if row is None:
            raise ContainerNotFound(f"No such container: {container_id}")
        rows = connection.execute("SELECT device FROM endpoints WHERE container_id = ?", (container_id,))
        numbers = [int(device.removeprefix("eth")) for (device,) in rows]
        if len(numbers) + len(wishes) > MAX_ENDPOINTS:
            raise UsageError(f"more than {MAX_ENDPOINTS} networks for one container")
        endpoints = []
        # Beyond the last, whatever is free before it: the order of devices is that in which they came.
        for index, wish in enumerate(wishes, max(numbers, default=-1) + 1):
            device = f"eth{index}"
            network = network_of(_find(connection, wish.network))
            endpoints.append(take_endpoint(connection, network, container_id, row[0], device, wish))
        return tuple(endpoints)

    def release(self, container_id: str, network_id: str = "") -> None:
        """Give back what a container has on all networks with its ports, or on one network; nothing is fine."""
        with self._database.writing() as connection:
            if network_id:
                connection.execute(
                    "DELETE FROM endpoints WHERE container_id = ? AND network_id = ?", (container_id, network_id)
                )
                return
            connection.execute("DELETE FROM endpoints WHERE container_id = ?", (container_id,))
            connection.execute("DELETE FROM ports WHERE container_id = ?", (container_id,))

    def endpoints_of(self, container_id: str) -> tuple[Endpoint, ...]:
        """Return what a container has on networks, in the order in which it came to be on them."""
        rows = self._database.rows(
            f"{JOINED} WHERE container_id = ? ORDER BY length(endpoints.device), endpoints.device", (container_id,)
        )
        return tuple(endpoint_of(row) for row in rows)

    def endpoints_on(self, network_id: str) -> tuple[Endpoint, ...]:
        """Return who is on a network, by the container's name. network_id: the whole id."""
        rows = self._database.rows(f"{JOINED} WHERE network_id = ? ORDER BY containers.name", (network_id,))
        return tuple(endpoint_of(row) for row in rows)

    def abandoned(self) -> tuple[str, ...]:
        """Return the ids of containers that have endpoints or ports and are not under way any more."""
        rows = self._database.rows(
            "SELECT id FROM containers WHERE state IN ('created', 'exited') AND (id IN (SELECT container_id FROM "
            "endpoints) OR id IN (SELECT container_id FROM ports)) ORDER BY id"
        )
        return tuple(row[0] for row in rows)

    def set_ports(self, container_id: str, ports: Sequence[Published]) -> None:
        """Record which ports of the host lead to a container, in place of what was recorded before."""
        with self._database.writing() as connection:
            connection.execute("DELETE FROM ports WHERE container_id = ?", (container_id,))
            connection.executemany(
                "INSERT INTO ports (container_id, protocol, ip, host_port, container_port) VALUES (?, ?, ?, ?, ?)",
                [(container_id, port.protocol, port.ip, port.host_port, port.container_port) for port in ports],
            )

    def ports_of(self, container_id: str) -> tuple[Published, ...]:
        """Return which ports of the host lead to a container."""
        return self._ports("WHERE container_id = ?", (container_id,))

    def ports(self) -> tuple[Published, ...]:
        """Return every port of the host that leads to a container of this store."""
        return self._ports("", ())

    def _ports(self, where: str, values: tuple[str, ...]) -> tuple[Published, ...]:
        rows = self._database.rows(
            f"SELECT container_id, protocol, ip, host_port, container_port FROM ports {where} "  # noqa: S608
            "ORDER BY container_id, container_port, protocol, ip, host_port",
            values,
        )
        return tuple(Published(*row) for row in rows)


def _find(connection: sqlite3.Connection, name_or_id: str) -> Row:
    query = f"SELECT {COLUMNS} FROM networks WHERE "  # noqa: S608
    rows = connection.execute(query + "id = ?1 OR name = ?1 ORDER BY id = ?1 DESC LIMIT 1", (name_or_id,)).fetchall()
    if not rows and name_or_id and all(digit in "0123456789abcdef" for digit in name_or_id):
        rows = connection.execute(query + "id >= ? AND id < ? LIMIT 2", (name_or_id, f"{name_or_id}g")).fetchall()
    if not rows:
        raise NetworkNotFound(f"network {name_or_id} not found")
    if len(rows) > 1:
        raise NetworkError(f"network {name_or_id} is ambiguous: the ids of several networks begin with it")
    row: Row = rows[0]
    return row


def _check_overlaps(connection: sqlite3.Connection, network_id: str, subnets: tuple[str, ...]) -> None:
    from pyrtc.ip import parse_subnet

    wanted = [parse_subnet(text) for text in subnets if text]
    rows = connection.execute("SELECT name, subnet4, subnet6 FROM networks WHERE id != ?", (network_id,))
    for name, *theirs in rows:
        for other in (parse_subnet(text) for text in theirs if text):
            for subnet in wanted:
                if subnet.overlaps(other):
                    raise NetworkError(
                        f"invalid pool request: Pool overlaps with other one on this address space: {subnet} with "
                        f"{other} of network {name}"
                    )
