"""Firewalls of other programs that drop what containers send or are sent.

Every chain at the kernel's forward hook has its say about a packet: that the table of pyrtc accepts one does not keep
the next from dropping it. pyrtc never changes the rules of others; it says what has to be told to them.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pyrtc.errors import UnsupportedError
from pyrtc.ip import parse_subnet
from pyrtc.network import nftables
from pyrtc.network.ruleset import TABLE
from pyrtc.network.verdicts import Packet, chains_of_iptables, chains_of_nft, verdict

if TYPE_CHECKING:
    from pyrtc.store.network_records import Network

__all__ = ["obstacles"]

_PREFIX = "pyrtc-"  # of the bridges of every store, unless they were named
_FAMILIES = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}


def obstacles(network: "Network") -> tuple[str, ...]:
    """Return what drops packets from or to containers of a network, a sentence each, with what lets them through.

    Raises
    ------
    NetworkError: nftables cannot be asked.
    UnsupportedError: nftables is not installed.
    """
    if network.internal or not network.device:
        return ()
    packets = [*_packets(network, 4, network.subnet4, _uplink4()), *_packets(network, 6, network.subnet6, _uplink6())]
    return tuple(dict.fromkeys((*_of_nftables(network, packets), *_of_legacy(network, packets))))


def _packets(network: "Network", family: Any, text: str, uplink: str) -> Iterator[Packet]:  # noqa: ANN401  (a literal)
    if text:
        subnet = parse_subnet(text)
        yield Packet(family, network.device, uplink, subnet, None, translated=False)
        yield Packet(family, uplink, network.device, None, subnet, translated=True)


def _uplink4() -> str:
    """Return the device of the default route, "" if there is none."""
    with open("/proc/thread-self/net/route") as file:
        rows = [line.split() for line in file][1:]
    return next((row[0] for row in rows if row[1] == row[7] == "00000000"), "")


def _uplink6() -> str:
    try:
        with open("/proc/thread-self/net/ipv6_route") as file:
            rows = [line.split() for line in file]
    except FileNotFoundError:
        return ""  # a kernel without IPv6
    # The kernel keeps a route to nowhere (on lo, RTF_REJECT) where there is no default route.
    return next((row[9] for row in rows if row[0] == "0" * 32 and row[1] == "00" and row[9] != "lo"), "")


def _of_nftables(network: "Network", packets: Sequence[Packet]) -> Iterator[str]:
    for item in nftables.listing("chains"):
        chain = item.get("chain", {})
        family = chain.get("family", "")
        if chain.get("hook") != "forward" or family not in _FAMILIES or f"{family} {chain['table']}" == TABLE:
            continue
        items = nftables.listing("table", family=family, name=chain["table"])
        concerned = [packet for packet in packets if packet.family in _FAMILIES[family]]
        for packet in concerned:
            if verdict(chains_of_nft(items, packet), chain["name"], chain.get("policy", "accept")) == "drop":
                names = {item["chain"]["name"] for item in items if "chain" in item}
                where = f"the chain {chain['name']} of the table {family} {chain['table']} of nftables"
                yield _sentence(network, where, _remedy(network, family, chain, names))
                break


def _remedy(network: "Network", family: str, chain: dict[str, Any], names: set[str]) -> str:
    if chain["table"] == "firewalld":
        subnets = " ".join(f"--add-source={subnet}" for subnet in (network.subnet4, network.subnet6) if subnet)
        return f"firewall-cmd --permanent --zone=trusted {subnets} && firewall-cmd --reload"
    if chain["table"] == "filter" and family in ("ip", "ip6"):
        return _iptables_remedy(network, "iptables" if family == "ip" else "ip6tables", chain["name"], names)
    rule, device = f"nft insert rule {family} {chain['table']} {chain['name']}", _devices(network, "*")
    return f"{rule} iifname '\"{device}\"' accept && {rule} oifname '\"{device}\"' accept"


def _devices(network: "Network", wildcard: str) -> str:
    """Return what matches the bridges of all networks, or the one that somebody has named."""
    return f"{_PREFIX}{wildcard}" if network.device.startswith(_PREFIX) else network.device


def _iptables_remedy(network: "Network", program: str, chain: str, names: set[str]) -> str:
    if "DOCKER-USER" in names:
        chain = "DOCKER-USER"
    elif {"ufw-user-forward", "ufw6-user-forward"} & names:
        return f"ufw route allow in on {network.device} && ufw route allow out on {network.device}"
    device = _devices(network, "+")
    return f"{program} -I {chain} -i {device} -j ACCEPT && {program} -I {chain} -o {device} -j ACCEPT"


def _of_legacy(network: "Network", packets: Sequence[Packet]) -> Iterator[str]:
    """Look at the older iptables, which nftables does not show."""
    for family, program, tables in (
        (4, "iptables-legacy", "ip_tables_names"),
        (6, "ip6tables-legacy", "ip6_tables_names"),
    ):
        try:
            with open(f"/proc/thread-self/net/{tables}") as file:
                used = "filter" in file.read().split()
        except FileNotFoundError:
            continue  # the kernel has no such tables
        concerned = [packet for packet in packets if packet.family == family]
        if not used or not concerned:
            continue
        lines = _rules(program)
        names = {words[1] for words in map(str.split, lines) if words[0] in ("-N", "-P")}
        for packet in concerned:
            chains, policies = chains_of_iptables(lines, packet)
            if verdict(chains, "FORWARD", policies.get("FORWARD", "accept")) == "drop":
                remedy = _iptables_remedy(network, program, "FORWARD", names)
                yield _sentence(network, f"the chain FORWARD of {program}", remedy)
                break


def _rules(program: str) -> list[str]:
    import subprocess

    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise UnsupportedError(
            f"cannot see whether {program.removesuffix('-legacy')} drops what containers send: its older tables are in "
            f"use, but there is no {program}: apt-get install iptables"
        )
    done = subprocess.run([path, "-S"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnsupportedError(f"cannot see whether {program} drops what containers send: {done.stderr.strip()}")
    return done.stdout.splitlines()


def _sentence(network: "Network", where: str, remedy: str) -> str:
    return (
        f"{where} drops packets of containers on the network {network.name}, whatever pyrtc lets through; to let them "
        f"through: {remedy}"
    )
