"""The firewall's table as state of a host: many programs, crashes, older tables, and what was there before."""

import json
import select
import subprocess
import sys
import time

import pytest
from network_place import HOST, OUTSIDE, Namespace, place
from network_site import PATIENCE, PRELUDE, SHORT, site

from pyrtc.network import ruleset

__all__ = ["place", "site"]

OTHERS = """
table ip filter {
    chain FORWARD { type filter hook forward priority 0; policy accept; oifname "nobody0" counter drop; }
}
table inet pyrtc_not {
    set bridges { type ifname; elements = { "br0" }; }
    chain pass { type filter hook forward priority 1; policy accept; iifname @bridges accept; }
}
table ip nat {
    chain POSTROUTING { type nat hook postrouting priority 100; policy accept; oifname "nobody0" masquerade; }
}
"""


def rules(site):
    """Return everything of nftables that is not pyrtc's, with its handles."""
    found = json.loads(site.place.run("nft", "--json", "--handle", "list", "ruleset").stdout)["nftables"]
    return [
        item
        for item in found
        for name in (next(iter(item.values())).get("table") or next(iter(item.values())).get("name"),)
        if name != "pyrtc"
    ]


def test_nothing_of_others_is_touched(site):
    site.place.run("nft", "-f", "-", input=OTHERS)
    before = rules(site)
    assert len(before) > 8
    for number in (31, 32):
        site.bridge(number)
    site.pyrtc(
        """
for number in (31, 32):
    firewall.add_network(network(number))
firewall.publish([Port(80, host=8080)], endpoint(31, 2))
firewall.reconcile([network(31)], [])
firewall.unpublish([Port(80, host=8080)], endpoint(31, 2))
"""
    )
    assert rules(site) == before
    assert "inet pyrtc" in site.place.tables()
    site.pyrtc("[firewall.remove_network(network(number)) for number in (31, 32)]")
    assert rules(site) == before
    assert "inet pyrtc" not in site.place.tables()


def test_the_table_goes_with_the_last_bridge_and_forwarding_with_it(site):
    for number in (31, 32):
        site.bridge(number)
    settings = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
    site.place.run("sysctl", "-qw", "net.ipv6.conf.wan0.accept_ra=1")
    site.pyrtc("for number in (31, 32): firewall.add_network(network(number))")
    assert site.place.run("sysctl", "-n", *settings).stdout.split() == ["1", "1"]
    assert site.place.run("sysctl", "-n", "net.ipv6.conf.wan0.accept_ra").stdout.strip() == "2"
    site.pyrtc("firewall.remove_network(network(31))")
    assert site.elements("bridges") == ["pyrtc-00000020"]
    assert site.place.run("sysctl", "-n", *settings).stdout.split() == ["1", "1"]
    site.pyrtc("firewall.remove_network(network(32))")
    assert site.place.tables() == []
    assert site.place.run("sysctl", "-n", *settings).stdout.split() == ["0", "0"]
    # With forwarding on before, or another program's device that came since, it stays.
    site.place.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    site.pyrtc("firewall.add_network(network(31))")
    site.place.run("ip", "link", "add", "virbr0", "type", "bridge")
    site.pyrtc("firewall.remove_network(network(31))")
    assert site.place.run("sysctl", "-n", *settings).stdout.split() == ["1", "1"]


def test_this_host_does_not_become_a_router_between_its_own_networks(site):
    site.bridge(31)
    lan = Namespace("ip link set lo up && echo ready && exec sleep 1000000")
    try:
        site.place.run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1", "netns", lan.pid)
        site.place.run("ip", "addr", "add", "203.0.113.1/24", "dev", "lan0")
        site.place.run("ip", "link", "set", "lan0", "up")
        lan.run("ip", "addr", "add", "203.0.113.2/24", "dev", "lan1")
        lan.run("ip", "link", "set", "lan1", "up")
        lan.run("ip", "route", "add", "default", "via", "203.0.113.1")
        site.place.outside.run("ip", "route", "add", "default", "via", HOST)
        site.serve(lan, "lan", 700)
        site.serve(site.place.outside, "outside", 700)
        site.pyrtc("firewall.add_network(network(31))")
        inside = site.container(31, 2)
        # Containers reach both networks, which do not reach each other.
        assert site.ask(inside, ("tcp", "203.0.113.2", 700), ("tcp", OUTSIDE, 700)) == [
            "lan 203.0.113.1",
            f"outside {HOST}",
        ]
        targets = [(kind, "203.0.113.2", 700) for kind in ("tcp", "udp")]
        assert site.ask(site.place.outside, *targets, patience=SHORT) == [None] * 2
        site.place.run("nft", "delete", "table", "inet", "pyrtc")
        assert site.ask(site.place.outside, *targets) == [f"lan {OUTSIDE}"] * 2
        # Who had it on already keeps it.
        site.pyrtc("firewall.add_network(network(31))")
        assert site.ask(site.place.outside, *targets) == [f"lan {OUTSIDE}"] * 2
    finally:
        lan.close()


HOLD = """
number = int(sys.argv[1])
firewall.add_network(network(31))
with ports.reserve([Port(80, host=8080), Port(80, "udp", host=8080)]) as reserved:
    firewall.publish(reserved.ports, endpoint(31, number))
    with ports.reserve([Port(80, ip="127.0.0.1")]) as more:
        firewall.publish(more.ports, endpoint(31, number))
        print(more.ports[0].host, flush=True)
        sys.stdin.read()
"""


def hold(site, last):
    """Start a program that holds port 8080 and another one, and publishes them."""
    holder = site.place.popen(sys.executable, "-c", PRELUDE + HOLD, str(last), stdin=-1, stdout=-1, stderr=-1)
    return holder, holder.stdout.readline().decode().strip()


def test_what_a_killed_container_left_is_replaced_and_removed(site):
    site.bridge(31)
    first, loopback = hold(site, 2)
    assert loopback
    # While it lives nobody else gets the port, at whatever address.
    for words in ("Port(80, host=8080)", "Port(80, host=8080, ip='127.0.0.1')", "Port(9, 'udp', host=8080, ip='::')"):
        with pytest.raises(AssertionError, match="port is already allocated"):
            site.pyrtc(f"ports.reserve([Port(1, host=9999), {words}])")
    with pytest.raises(AssertionError, match=f"Bind for 0.0.0.0:{loopback} failed: port is already allocated"):
        site.pyrtc(f"ports.reserve([Port(80, host={loopback})])")
    first.kill()
    first.communicate()
    second = site.container(31, 3)
    assert site.ask(site.place.outside, ("tcp", HOST, 8080), patience=SHORT) == [None]
    # Nothing was taken back. The next one, for every address, replaces both.
    publish = f"""
with ports.reserve([Port(81, host=8080), Port(81, host={loopback})]) as reserved:
    firewall.publish(reserved.ports, endpoint(31, 3))
"""
    site.pyrtc(publish)
    assert site.ask(site.place.outside, ("tcp", HOST, 8080)) == [f"c31.3 {OUTSIDE}"]
    assert site.ask(site.place, ("tcp", "127.0.0.1", int(loopback))) == ["c31.3 10.31.0.1"]
    # The clean-up of the first, late, takes nothing away from the second.
    site.pyrtc("firewall.unpublish([Port(80, host=8080)], endpoint(31, 2))")
    assert site.ask(site.place.outside, ("tcp", HOST, 8080)) == [f"c31.3 {OUTSIDE}"]
    second.close()
    # Of the first what nobody was in the way of: UDP, and the single address, which the second one's comes before.
    assert len(site.elements("held")) == 4
    site.pyrtc("firewall.reconcile([network(31)], [])")
    assert [site.elements(name) for name in ("pub4", "pub6", "pub4_at", "held")] == [[]] * 4
    assert site.elements("bridges") == ["pyrtc-0000001f"]


def test_what_is_left_of_the_other_family_is_replaced_too(site):
    site.bridge(31)
    site.pyrtc(
        """
from pyrtc.values import replace
firewall.add_network(network(31))
firewall.publish([Port(80, host=8080), Port(80, host=8081, ip="127.0.0.1"), Port(80, host=8082)], endpoint(31, 2))
only4 = replace(endpoint(31, 3), ip6="")
firewall.publish([Port(81, host=8080), Port(81, host=8081), Port(81, host=8082, ip="127.0.0.1")], only4)
"""
    )
    # IPv6 is for who holds the port to pass on: nothing may lead to the first one any more, but where nobody holds it.
    assert [key["elem"]["val"]["concat"] for key, _ in site.elements("pub6")] == [["tcp", 8082]]
    site.container(31, 3)
    targets = [("tcp", "127.0.0.1", port) for port in (8080, 8081, 8082)]
    assert site.ask(site.place, *targets) == ["c31.3 10.31.0.1"] * 3
    site.pyrtc(
        """
from pyrtc.values import replace
ports = [Port(81, host=8080), Port(81, host=8081), Port(81, host=8082, ip="127.0.0.1")]
firewall.unpublish(ports, replace(endpoint(31, 3), ip6=""))
firewall.unpublish(ports, replace(endpoint(31, 3), ip6=""))
"""
    )
    assert site.elements("pub4") == []
    assert site.elements("held") == [{"concat": ["tcp", 8081, "00:00:1f:00:00:02"]}]
    site.pyrtc("firewall.reconcile([network(31)], [])")
    assert [site.elements(name) for name in ("pub6", "pub4_at", "held")] == [[]] * 3


# Sends from one port, again and again; prints who answers, each time that it is another one.
SENDER = """
import socket, sys, time
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.connect((sys.argv[1], 8080))
client.settimeout(0.2)
last = ""
while True:
    try:
        client.send(b"who?")
        answer = client.recv(100).decode()
        time.sleep(0.02)
    except OSError:
        answer = "nobody"
    if answer != last:
        print(answer, flush=True)
        last = answer
"""


def heard(sender, expected):
    """Whether the sender comes to hear this; on a busy machine it may think in between that nobody is there."""
    deadline = time.monotonic() + PATIENCE
    while select.select([sender.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
        if sender.stdout.readline().decode().strip() == expected:
            return True
    return False


def test_datagrams_follow_to_who_publishes_now(site):
    site.bridge(31)
    site.pyrtc("firewall.add_network(network(31))")
    site.container(31, 2)
    site.container(31, 3)
    publish = "firewall.publish([Port(80, 'udp', host=8080)], endpoint(31, {}))"
    sender = site.place.outside.popen(sys.executable, "-c", SENDER, HOST, stdout=subprocess.PIPE, bufsize=0)
    try:
        # It asks before anybody is there, too: what is tracked then leads to this host itself.
        assert heard(sender, "nobody")
        site.pyrtc(publish.format(2))
        assert heard(sender, f"c31.2 {OUTSIDE}")
        site.pyrtc(publish.format(3))  # replaced without being taken back
        assert heard(sender, f"c31.3 {OUTSIDE}")
        site.pyrtc(publish.replace("publish", "unpublish").format(3))
        assert heard(sender, "nobody")
        site.pyrtc(publish.format(2))
        assert heard(sender, f"c31.2 {OUTSIDE}")
    finally:
        sender.kill()
        sender.communicate()


def test_a_store_mends_only_its_own(site):
    for number in (31, 32, 33):
        site.bridge(number)
    site.pyrtc(
        """
for number in (31, 32, 33):
    firewall.add_network(network(number))
    dns = Port(53, "udp", host=53, ip=f"10.{number}.0.1")
    firewall.publish([Port(80, host=8000 + number), dns], endpoint(number, 2))
"""
    )
    site.place.run("ip", "link", "del", "pyrtc-00000021")
    # 31 is ours and has another container now; 32 is another store's; the bridge of 33 is nobody's any more.
    site.pyrtc("firewall.reconcile([network(31)], [(endpoint(31, 5), [Port(80, host=8031), Port(81, host=8032)])])")
    pub4 = {tuple(key["elem"]["val"]["concat"]): tuple(value["concat"]) for key, value in site.elements("pub4")}
    assert pub4 == {("tcp", 8031): ("10.31.0.5", 80), ("tcp", 8032): ("10.32.0.2", 80)}
    assert len(site.elements("pub4_at")) == 1
    assert sorted(site.elements("bridges")) == ["pyrtc-0000001f", "pyrtc-00000020"]
    assert len(site.elements("home4")) == len(site.elements("subnets4")) == len(site.elements("within")) == 2
    site.place.run("ip", "link", "del", "pyrtc-00000020")
    site.place.run("ip", "link", "del", "pyrtc-0000001f")
    site.pyrtc("firewall.reconcile([network(31)], [])")
    assert site.place.tables() == []


def test_a_flushed_rule_set_comes_back(site):
    site.bridge(31)
    site.pyrtc("firewall.add_network(network(31)); firewall.publish([Port(80, host=8080)], endpoint(31, 2))")
    site.container(31, 2)
    site.place.run("nft", "flush", "ruleset")
    assert site.ask(site.place.outside, ("tcp", HOST, 8080), patience=SHORT) == [None]
    said = site.pyrtc(
        """
print(firewall.add_network(network(31)), firewall.add_network(network(31)), firewall.ensure())
firewall.reconcile([network(31)], [(endpoint(31, 2), [Port(80, host=8080)])])
"""
    )
    assert said.split() == ["True", "False", "False"]
    assert site.ask(site.place.outside, ("tcp", HOST, 8080)) == [f"c31.2 {OUTSIDE}"]
    # So it does when nobody asks for the network first.
    site.place.run("nft", "flush", "ruleset")
    site.pyrtc("firewall.publish([Port(80, host=8080)], endpoint(31, 2))")
    assert site.ask(site.place.outside, ("tcp", HOST, 8080)) == [f"c31.2 {OUTSIDE}"]


def test_an_older_table_is_replaced_with_its_elements(site):
    site.bridge(31)
    site.pyrtc("firewall.add_network(network(31)); firewall.publish([Port(80, host=8080)], endpoint(31, 2))")
    text = site.place.run("nft", "list", "table", "inet", "pyrtc").stdout
    older = text.replace(f"set layout_{ruleset.LAYOUT}", "set layout_0").replace(
        "ct status dnat accept", "ct status dnat drop"
    )
    assert older != text
    site.place.run("nft", "-f", "-", input=f"delete table inet pyrtc\n{older}")
    site.container(31, 2)
    assert site.ask(site.place.outside, ("tcp", HOST, 8080), patience=SHORT) == [None]
    assert site.pyrtc("print(firewall.add_network(network(31)))").strip() == "False"
    assert site.place.run("nft", "list", "table", "inet", "pyrtc").stdout == text
    assert site.ask(site.place.outside, ("tcp", HOST, 8080)) == [f"c31.2 {OUTSIDE}"]
    # A newer one is left alone: used if it serves this layout, too, refused if not.
    both = text.replace("\tset bridges {", "\tset layout_99 {\n\t\ttype mark\n\t}\n\n\tset bridges {", 1)
    site.place.run("nft", "-f", "-", input=f"delete table inet pyrtc\n{both}")
    site.pyrtc("firewall.publish([Port(80, host=8081)], endpoint(31, 2))")
    assert site.elements("layout_99") == []
    site.place.run("nft", "delete", "set", "inet", "pyrtc", f"layout_{ruleset.LAYOUT}")
    with pytest.raises(AssertionError, match="of a newer pyrtc"):
        site.pyrtc("firewall.publish([Port(80, host=8082)], endpoint(31, 2))")


CROWDED = """
import fcntl, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
keep = [os.open(sys.argv[1], os.O_RDWR | os.O_CREAT) for _ in range(1200)]
fcntl.lockf(keep[5], fcntl.LOCK_EX)
before = sorted(map(int, os.listdir("/proc/self/fd")))
firewall.add_network(network(31))
with ports.reserve([Port(port, host=port) for port in range(20000, 20300)]) as reserved:
    firewall.publish(reserved.ports, endpoint(31, 2))
assert sorted(map(int, os.listdir("/proc/self/fd"))) == before
if not os.fork():
    try:
        fcntl.lockf(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os._exit(3)
    os._exit(4)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_caller_with_more_descriptors_than_select_knows(site, tmp_path):
    site.bridge(31)
    assert site.pyrtc(CROWDED, str(tmp_path / "locked")).strip() == "3"  # whose locks are held still
    assert len(site.elements("pub4")) == 300


MANY = """
number = int(sys.argv[1])
for round in range(8):
    firewall.add_network(network(number))
    asked = [Port(80), Port(53, "udp"), Port(80, host=20000, host_last=20100), Port(80, ip="127.0.0.1")]
    with ports.reserve(asked) as reserved:
        firewall.publish(reserved.ports, endpoint(number, 2))
        firewall.unpublish(reserved.ports, endpoint(number, 2))
    if round % 2:
        firewall.remove_network(network(number))
"""


def test_many_programs_at_once(site):
    numbers = range(31, 39)
    for number in numbers:
        site.bridge(number)
    running = [
        site.place.popen(
            sys.executable, "-c", PRELUDE + MANY, str(number), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for number in numbers
    ]
    try:
        ends = [(*process.communicate(timeout=100), process.returncode) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [(code, errors.decode()) for _, errors, code in ends] == [(0, "")] * len(running)
    assert site.place.tables() == []
    files = site.place.run("ls", "/run/pyrtc").stdout
    assert files == ""
