"""Which address a container gets: any free one of a pool, by chance, within the caller's transaction.

By chance, so that a newcomer seldom gets what somebody had shortly before, and one look is enough however many there
are: the address before and after a taken one are no likelier to be taken.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Sequence

from pyrtc.errors import NetworkError, UsageError
from pyrtc.ip import Subnet, ip_text, mac_text, number, parse_subnet
from pyrtc.store.network_records import Network

__all__ = ["QUARANTINE", "check_wanted_address", "new_host_device", "new_mac", "pick_address", "usable"]

QUARANTINE = 60.0  # seconds that an address rests after it was given back
_TRIES = 32  # by chance, before all are looked at: enough for a pool that is nine tenths full


def usable(subnet: Subnet, value: int) -> bool:
    """Whether a host may have it: not the subnet's own, nor the one for all hosts of it (RFC 919, RFC 4291 2.6.1)."""
    if subnet.family == 4:
        return subnet.prefix > 30 or subnet.first < value < subnet.last
    return subnet.prefix > 126 or value > subnet.first


def pick_address(
    connection: sqlite3.Connection, network_id: str, subnet: Subnet, never: Iterable[str], pools: Sequence[Subnet]
) -> str:
    """Return a free address, empty where there is none. never: what it cannot be. pools: parts that it may be from."""
    family = subnet.family
    reserved = {number(address)[1] for address in never}
    asked = (
        f"SELECT 1 FROM endpoints WHERE network_id = ?1 AND ip{family} = ?2 "  # noqa: S608  (4 or 6)
        "UNION ALL SELECT 1 FROM released_addresses WHERE network_id = ?1 AND address = ?2 AND at BETWEEN ?3 AND ?4"
    )
    now = time.time()
    for _ in range(_TRIES if pools else 0):
        pool = pools[_below(len(pools))]
        value = pool.first + _below(pool.size)
        if value in reserved or not usable(subnet, value):
            continue
        text = ip_text(family, value)
        if not connection.execute(asked, (network_id, text, now - QUARANTINE, now)).fetchone():
            return text
    return _look_at_all(connection, network_id, subnet, pools, reserved)


def _below(limit: int) -> int:
    return int.from_bytes(os.urandom(16)) % limit


def _look_at_all(
    connection: sqlite3.Connection, network_id: str, subnet: Subnet, pools: Sequence[Subnet], reserved: set[int]
) -> str:
    family = subnet.family
    rows = connection.execute(
        f"SELECT ip{family} FROM endpoints WHERE network_id = ? AND ip{family} IS NOT NULL",  # noqa: S608
        (network_id,),
    )
    taken = reserved | {number(text)[1] for (text,) in rows}
    released = connection.execute(
        "SELECT address FROM released_addresses WHERE network_id = ? ORDER BY at", (network_id,)
    )
    resting = [value for said, value in (number(text) for (text,) in released) if said == family]
    busy = taken | set(resting)
    for pool in pools:
        start = _below(pool.size)
        # Among one more than all that are not free there is a free one; two may be the first and last of the subnet.
        for offset in range(min(pool.size, len(busy) + 3)):
            value = pool.first + (start + offset) % pool.size
            if value not in busy and usable(subnet, value):
                return ip_text(family, value)
    for value in resting:
        if value not in taken and usable(subnet, value) and any(pool.has(value) for pool in pools):
            return ip_text(family, value)
    return ""


def check_wanted_address(family: int, text: str, network: Network) -> str:
    """Return an address that the user chose, as it is written here.

    Raises
    ------
    UsageError: it is none of this family, or not one of the subnet. NetworkError: nobody can have it.
    """
    said, value = number(text)
    if said != family:
        raise UsageError(f"invalid IPv{family} address: {text}")
    address = ip_text(family, value)
    subnet = network.subnet4 if family == 4 else network.subnet6
    if not subnet:
        raise UsageError(f"invalid address {address}: network {network.name} has no IPv{family} subnet")
    whole = parse_subnet(subnet)
    if not whole.has(value):
        raise UsageError(
            f"invalid address {address}: It does not belong to any of this network's subnets: {network.name} has "
            f"{subnet}"
        )
    what = network.reserved(family).get(address) if usable(whole, value) else "the network or broadcast address"
    if what:
        raise NetworkError(f"Address already in use: {address} is {what} of network {network.name}")
    return address


def new_mac() -> str:
    """Return a random hardware address of the kind that nobody sells (locally administered, for one device)."""
    value = int.from_bytes(os.urandom(6))
    return mac_text((value | 0x02 << 40) & ~(0x01 << 40))


def new_host_device(container_id: str) -> str:
    """Return a name for the host's end of a link: 15 characters, as long as the kernel takes."""
    return f"pv{container_id[:8]}{os.urandom(3).hex()[:5]}"
