"""What the firewall lets through and what not, with packets: containers, this host, and a machine outside."""

import json

import pytest
from network_place import HOST, HOST6, OUTSIDE, OUTSIDE6, place
from network_site import SHORT, site

__all__ = ["place", "site"]

TWO_NETWORKS = """
for number in (31, 32):
    firewall.add_network(network(number))
firewall.publish([Port(80, host=8080), Port(80, "udp", host=8080)], endpoint(31, 2))
"""


@pytest.fixture
def two(site):
    """Two networks; on the first two containers, one of which publishes 8080, on the second one."""
    site.bridge(31)
    site.bridge(32)
    site.pyrtc(TWO_NETWORKS)
    return site, site.container(31, 2), site.container(31, 3), site.container(32, 2)


@pytest.mark.parametrize("bridged", ["0", "1"])
def test_a_published_port_is_reached_from_everywhere(two, bridged):
    site, first, second, other = two
    if site.place.run("test", "-e", "/proc/sys/net/bridge/bridge-nf-call-iptables", check=False).returncode:
        pytest.skip("no br_netfilter here")
    site.place.run(
        "sysctl", "-qw", *(f"net.bridge.bridge-nf-call-{name}={bridged}" for name in ("iptables", "ip6tables"))
    )
    # From outside the client's address is seen, from this host the one that it asked.
    expected = {HOST: OUTSIDE, HOST6: OUTSIDE6}
    assert _asked(site, site.place.outside, expected) == expected
    expected = {HOST: HOST, "127.0.0.1": "10.31.0.1", HOST6: HOST6}
    assert _asked(site, site.place, expected) == expected
    # From the same network and from itself, by the host's address and by the gateway's.
    expected = {HOST: "10.31.0.1", "10.31.0.1": "10.31.0.1", HOST6: "fd00:31::1", "fd00:31::1": "fd00:31::1"}
    assert _asked(site, second, expected) == expected
    assert _asked(site, first, expected) == expected
    # From another network, with the address of who asks.
    expected = {HOST: other.ip, HOST6: other.ip6}
    assert _asked(site, other, expected) == expected


def _asked(site, namespace, addresses):
    """Ask port 8080 of addresses, TCP and UDP; who the published container says has asked it."""
    answers = site.ask(namespace, *((kind, address, 8080) for address in addresses for kind in ("tcp", "udp")))
    assert answers[::2] == answers[1::2], answers
    return {
        address: (answer or "").removeprefix("c31.2 ") for address, answer in zip(addresses, answers[::2], strict=True)
    }


def test_a_port_published_at_one_address_is_there_only(two):
    site, *_ = two
    site.pyrtc(
        "firewall.publish([Port(80, host=8081, ip='127.0.0.1'), Port(81, host=8082, ip=sys.argv[1]),"
        " Port(81, host=8083, ip=sys.argv[2])], endpoint(31, 3))",
        HOST,
        HOST6,
    )
    assert site.ask(site.place, ("tcp", "127.0.0.1", 8081), ("tcp", HOST, 8082), ("tcp", HOST6, 8083)) == [
        "c31.3 10.31.0.1",
        f"c31.3 {HOST}",
        f"c31.3 {HOST6}",
    ]
    assert site.ask(site.place.outside, ("tcp", HOST, 8082), ("tcp", HOST6, 8083)) == [
        f"c31.3 {OUTSIDE}",
        f"c31.3 {OUTSIDE6}",
    ]
    assert site.ask(site.place.outside, ("tcp", HOST, 8081), ("tcp", HOST, 8083), patience=SHORT) == [None] * 2
    assert site.ask(site.place, ("tcp", "127.0.0.1", 8082), ("tcp", HOST, 8081), patience=SHORT) == [None] * 2


def test_containers_reach_what_is_outside(two):
    site, first, _, other = two
    site.serve(site.place.outside, "outside", 700)
    for namespace in (first, other):
        answers = site.ask(namespace, *((kind, host, 700) for kind in ("tcp", "udp") for host in (OUTSIDE, OUTSIDE6)))
        assert answers == [f"outside {HOST}", f"outside {HOST6}"] * 2


def test_networks_are_apart(two):
    site, first, second, other = two
    targets = [(kind, host, 80) for kind in ("tcp", "udp") for host in (first.ip, first.ip6)]
    assert site.ask(second, *targets) == [f"c31.2 {second.ip}", f"c31.2 {second.ip6}"] * 2
    assert site.ask(other, *targets, patience=SHORT) == [None] * 4
    # What keeps them apart is the table, not that there were no way.
    site.place.run("nft", "delete", "table", "inet", "pyrtc")
    assert site.ask(other, *targets) == [f"c31.2 {other.ip}", f"c31.2 {other.ip6}"] * 2


def test_nobody_outside_reaches_a_container_by_its_own_address(two):
    site, first, *_ = two
    site.place.outside.run("ip", "route", "add", "10.31.0.0/16", "via", HOST)
    site.place.outside.run("ip", "-6", "route", "add", "fd00:31::/64", "via", HOST6)
    # 80 is published, 81 is not.
    targets = [(kind, host, port) for kind in ("tcp", "udp") for host in (first.ip, first.ip6) for port in (80, 81)]
    assert site.ask(site.place.outside, *targets, patience=SHORT) == [None] * 8
    site.place.run("nft", "delete", "table", "inet", "pyrtc")
    assert (
        site.ask(site.place.outside, *targets)
        == [f"c31.2 {OUTSIDE}"] * 2 + [f"c31.2 {OUTSIDE6}"] * 2 + [f"c31.2 {OUTSIDE}"] * 2 + [f"c31.2 {OUTSIDE6}"] * 2
    )


def test_an_internal_network_reaches_nothing_else(two):
    site, first, *_ = two
    site.bridge(33)
    site.pyrtc("firewall.add_network(network(33, internal=True))")
    inside, neighbour = site.container(33, 2), site.container(33, 3)
    site.serve(site.place.outside, "outside", 700)
    site.serve(site.place, "host", 700)
    for route in (("10.33.0.0/16", HOST), ("fd00:33::/64", HOST6)):
        site.place.outside.run("ip", "route", "add", route[0], "via", route[1])
    local = [
        ("tcp", neighbour.ip, 80),
        ("udp", neighbour.ip6, 80),
        ("tcp", "10.33.0.1", 700),
        ("udp", "fd00:33::1", 700),
    ]
    assert None not in site.ask(inside, *local)
    # It has default routes here, as one that may change its routes can have.
    away = [(kind, host, 700) for kind in ("tcp", "udp") for host in (OUTSIDE, OUTSIDE6, HOST, HOST6)]
    away += [("tcp", first.ip, 80), ("udp", first.ip6, 80), ("tcp", HOST, 8080), ("tcp", "10.33.0.1", 8080)]
    assert site.ask(inside, *away, patience=SHORT) == [None] * len(away)
    inwards = [(kind, host, 80) for kind in ("tcp", "udp") for host in (inside.ip, inside.ip6)]
    for namespace in (site.place.outside, first):
        assert site.ask(namespace, *inwards, patience=SHORT) == [None] * 4
    with pytest.raises(AssertionError, match="net33 is internal: no port of this machine can lead into it"):
        site.pyrtc("firewall.publish([Port(80, host=8090)], endpoint(33, 2, internal=True))")


SEEN = """
add table inet seen
add chain inet seen count { type filter hook input priority 0; }
add rule inet seen count ip saddr { 10.31.0.77, 10.31.0.78 } counter comment "forged"
add rule inet seen count ip6 saddr fd00:31::77 counter comment "forged6"
add rule inet seen count iif != "lo" ip daddr 127.0.0.1 counter comment "loopback"
"""

FORGED = """
add table inet forged
add chain inet forged come { type filter hook input priority 0; }
add rule inet forged come ip saddr 192.0.2.53 meta l4proto udp counter comment "in4"
add rule inet forged come ip6 saddr 2001:db8:99::53 meta l4proto udp counter comment "in6"
add chain inet forged pass { type filter hook forward priority -1; }
add rule inet forged pass ip saddr 192.0.2.53 ct status dnat counter comment "to4"
add rule inet forged pass ip6 saddr 2001:db8:99::53 ct status dnat counter comment "to6"
"""


def _counted(site, table="seen"):
    """Return how many packets each rule of SEEN, or FORGED, has seen."""
    rules = json.loads(site.place.run("nft", "--json", "list", "table", "inet", table).stdout)["nftables"]
    return {
        item["rule"]["comment"]: part["counter"]["packets"]
        for item in rules
        if "rule" in item
        for part in item["rule"]["expr"]
        if "counter" in part
    }


def test_addresses_of_containers_are_not_believed_from_elsewhere(two):
    site, first, _, other = two
    outside = site.place.outside
    site.serve(site.place, "host", 700)
    outside.run("ip", "addr", "add", "10.31.0.77/32", "dev", "wan1")
    outside.run("ip", "-6", "addr", "add", "fd00:31::77/128", "dev", "wan1", "nodad")
    other.run("ip", "addr", "add", "10.31.0.78/32", "dev", "eth0")
    site.place.run(
        "sysctl", "-qw", *(f"net.ipv4.conf.{name}.rp_filter=0" for name in ("all", "wan0", "pyrtc-00000020"))
    )
    site.place.run("nft", SEEN)
    forged = [(outside, ("udp", HOST, 700, "10.31.0.77")), (outside, ("udp", HOST6, 700, "fd00:31::77"))]
    forged += [(other, ("udp", HOST, 700, "10.31.0.78"))]
    for namespace, target in forged:
        assert site.ask(namespace, target, patience=SHORT) == [None]
    assert _counted(site) == {"forged": 0, "forged6": 0, "loopback": 0}
    assert site.ask(first, ("udp", "10.31.0.1", 700)) == [f"host {first.ip}"]
    site.place.run("nft", "delete", "table", "inet", "pyrtc")
    for namespace, target in forged:
        before = _counted(site)
        site.ask(namespace, target, patience=SHORT)
        assert _counted(site) != before


def test_containers_cannot_speak_to_this_host_in_the_name_of_others(two):
    site, first, second, other = two
    site.serve(site.place, "host", 700)
    for namespace in (first, other):
        namespace.run("ip", "addr", "add", "192.0.2.53/32", "dev", "eth0")
        namespace.run("ip", "-6", "addr", "add", "2001:db8:99::53/128", "dev", "eth0", "nodad")
    names = ("all", "default", "wan0", "pyrtc-0000001f", "pyrtc-00000020")
    site.place.run("sysctl", "-qw", *(f"net.ipv4.conf.{name}.rp_filter=0" for name in names))
    site.place.run("ip", "route", "add", "192.0.2.53/32", "dev", "pyrtc-0000001f")
    site.place.run("ip", "-6", "route", "add", "2001:db8:99::53/128", "dev", "pyrtc-0000001f")
    asked = [("udp", HOST, 700, "192.0.2.53"), ("udp", HOST6, 700, "2001:db8:99::53")]
    # What is published here is asked of this host, too.
    published = [("udp", HOST, 8080, "192.0.2.53"), ("udp", HOST6, 8080, "2001:db8:99::53")]
    site.place.run("nft", FORGED)
    # Among themselves they may use whatever addresses they like.
    second.run("ip", "route", "add", "192.0.2.53/32", "dev", "eth0")
    assert site.ask(first, ("udp", second.ip, 80, "192.0.2.53")) == ["c31.3 192.0.2.53"]
    for namespace in (first, other):
        assert site.ask(namespace, *asked, *published, patience=SHORT) == [None] * 4
    assert _counted(site, "forged") == {"in4": 0, "in6": 0, "to4": 0, "to6": 0}
    site.place.run("nft", "flush", "chain", "inet", "pyrtc", "guard")
    for namespace in (first, other):
        site.ask(namespace, *asked, *published, patience=SHORT)
    assert all(_counted(site, "forged").values()), _counted(site, "forged")


def test_nobody_else_reaches_what_listens_on_127_0_0_1(two):
    site, first, *_ = two
    site.serve(site.place, "host", 700)
    outside = site.place.outside
    site.place.run("sysctl", "-qw", "net.ipv4.conf.wan0.route_localnet=1")
    for namespace, gateway, device in ((outside, HOST, "wan1"), (first, "10.31.0.1", "eth0")):
        namespace.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1", "net.ipv4.conf.all.rp_filter=0")
        namespace.run("ip", "route", "del", "table", "local", "127.0.0.0/8", "dev", "lo")
        namespace.run("ip", "route", "del", "table", "local", "127.0.0.1", "dev", "lo")
        namespace.run("ip", "route", "add", "127.0.0.1/32", "via", gateway, "dev", device)
    site.place.run("nft", SEEN)
    sources = ((outside, OUTSIDE, HOST), (first, first.ip, "10.31.0.1"))
    for namespace, source, host in sources:
        assert site.ask(namespace, ("udp", "127.0.0.1", 700, source), patience=SHORT) == [None]
        assert site.ask(namespace, ("udp", host, 700, source)) == [f"host {source}"]
    assert _counted(site)["loopback"] == 0
    site.place.run("nft", "delete", "table", "inet", "pyrtc")
    for namespace, source, _ in sources:
        before = _counted(site)["loopback"]
        site.ask(namespace, ("udp", "127.0.0.1", 700, source), patience=SHORT)
        assert _counted(site)["loopback"] > before
