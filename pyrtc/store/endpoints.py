"""How a container gets its endpoint on one network, within the transaction of `Networks.claim`."""

import json
import sqlite3
import time

from pyrtc.errors import NetworkError, UsageError
from pyrtc.ip import parse_mac, parse_subnet
from pyrtc.store.address_picking import QUARANTINE, check_wanted_address, new_host_device, new_mac, pick_address
from pyrtc.store.network_records import AddressesExhausted, Endpoint, Network, NoSubnet, Wish, make_endpoint

__all__ = ["MAX_ENDPOINTS", "check_wish", "take_endpoint"]

MAX_ENDPOINTS = 64  # of one container
_MAX_ALIAS = 253  # a domain name
_HOLDER = "SELECT name FROM endpoints JOIN containers ON id = container_id WHERE network_id = ? AND"


def take_endpoint(
    connection: sqlite3.Connection, network: Network, container_id: str, name: str, device: str, wish: Wish
) -> Endpoint:
    """Give one container its endpoint on one network."""
    if connection.execute(
        "SELECT 1 FROM endpoints WHERE container_id = ? AND network_id = ?", (container_id, network.id)
    ).fetchone():
        raise NetworkError(f"endpoint with name {name} already exists in network {network.name}")
    check_wish(network, wish)
    if not network.subnet4 and not network.subnet6:
        raise NoSubnet(network)
    wanted = tuple(key for key, value in (("ip", wish.ip), ("ip6", wish.ip6), ("mac", wish.mac)) if value)
    aliases = tuple(dict.fromkeys(wish.aliases))
    now = time.time()
    connection.execute(
        "DELETE FROM released_addresses WHERE network_id = ? AND NOT at BETWEEN ? AND ?",
        (network.id, now - QUARANTINE, now),
    )
    ip4 = _address(connection, network, 4, wish.ip)
    ip6 = _address(connection, network, 6, wish.ip6)
    mac = _mac(connection, network, wish.mac)
    host_device = new_host_device(container_id)
    connection.execute(
        "INSERT INTO endpoints (container_id, network_id, device, host_device, ip4, ip6, mac, aliases, wanted) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            container_id, network.id, device, host_device, ip4 or None, ip6 or None, mac, json.dumps(aliases),
            json.dumps(wanted),
        ),
    )  # fmt: skip
    return make_endpoint(network, container_id, name, device, host_device, ip4, ip6, mac, aliases, wanted)


def check_wish(network: Network, wish: Wish) -> None:
    """Refuse what no container can have on a network.

    Raises
    ------
    UsageError: an address or alias that cannot be, or a network that nobody joins. NetworkError: an address that is
    taken for good.
    """
    if network.driver in ("host", "null"):
        raise UsageError(f"network {network.name} cannot be joined together with others")
    if network.predefined and (wish.ip or wish.ip6):
        raise UsageError("user specified IP address is supported on user defined networks only")
    if wish.ip:
        check_wanted_address(4, wish.ip, network)
    if wish.ip6:
        check_wanted_address(6, wish.ip6, network)
    if wish.mac:
        parse_mac(wish.mac)
    _check_aliases(network, wish.aliases)


def _check_aliases(network: Network, aliases: tuple[str, ...]) -> None:
    if network.predefined and aliases:
        raise UsageError("network-scoped alias is supported only for containers in user defined networks")
    if len(aliases) > MAX_ENDPOINTS:
        raise UsageError(f"more than {MAX_ENDPOINTS} network aliases on network {network.name}")
    for alias in aliases:
        letters = alias.replace("-", "").replace("_", "").replace(".", "")
        if len(alias) > _MAX_ALIAS or not (letters.isascii() and letters.isalnum()):
            raise UsageError(f"invalid network alias {alias!r}: letters, digits, '-', '_' and '.' make a name")


def _address(connection: sqlite3.Connection, network: Network, family: int, wanted: str) -> str:
    subnet, pool = (network.subnet4, network.range4) if family == 4 else (network.subnet6, network.range6)
    if wanted:
        address = check_wanted_address(family, wanted, network)
        row = connection.execute(
            f"SELECT name FROM endpoints JOIN containers ON id = container_id WHERE network_id = ? AND ip{family} = ?",  # noqa: S608
            (network.id, address),
        ).fetchone()
        if row:
            raise NetworkError(f"Address already in use: container {row[0]} has {address} on network {network.name}")
        return address
    if not subnet:
        return ""
    pools = (pool or subnet,) if network.driver != "overlay" else _blocks(connection, network)
    address = pick_address(
        connection, network.id, parse_subnet(subnet), network.reserved(family), [parse_subnet(text) for text in pools]
    )
    if not address:
        raise AddressesExhausted(
            f"no available IPv{family} addresses on this network's address pools: {network.name} ({network.id}): "
            f"all of {pool or subnet} are in use; remove containers, or make a network with a larger --subnet",
            network,
        )
    return address


def _blocks(connection: sqlite3.Connection, network: Network) -> tuple[str, ...]:
    """Return the parts of a cluster's network whose addresses are this host's to give."""
    rows = connection.execute("SELECT block FROM overlay_blocks WHERE network_id = ? ORDER BY block", (network.id,))
    return tuple(block for (block,) in rows)


def _mac(connection: sqlite3.Connection, network: Network, wanted: str) -> str:
    taken = f"{_HOLDER} mac = ?"
    if wanted:
        mac = parse_mac(wanted)
        if row := connection.execute(taken, (network.id, mac)).fetchone():
            raise NetworkError(f"MAC address already in use: container {row[0]} has {mac} on network {network.name}")
        return mac
    while connection.execute(taken, (network.id, mac := new_mac())).fetchone():
        pass
    return mac
