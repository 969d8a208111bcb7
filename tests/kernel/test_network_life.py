"""Devices of networks in the course of time: first use, reboot, prune, kills; and macvlan."""

import json
import signal
import sys
import time

from network_place import OUTSIDE, Place, eventually, place

__all__ = ["place"]

COMMAND = (sys.executable, "-m", "pyrtc.cli.main")


def run(place: Place, name: str, *words: str) -> str:
    return place.pyrtc("run", "-d", "--name", name, *words, "host", "sleep", "1000").stdout.strip()


def document(place: Place, name: str) -> dict:
    return json.loads(place.pyrtc("network", "inspect", name).stdout)[0]


def address_of(place: Place, name: str, network: str) -> str:
    return place.pyrtc(
        "inspect", "-f", f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}', name
    ).stdout.strip()


def test_the_default_bridge_comes_and_goes(place: Place) -> None:
    assert document(place, "bridge")["IPAM"]["Config"] == []
    assert set(place.links()) == {"lo", "wan0"}
    run(place, "one", "--network", "bridge")
    (config,) = document(place, "bridge")["IPAM"]["Config"]
    device = document(place, "bridge")["Device"]
    assert [a["local"] for a in place.links()[device]["addr_info"]] == [config["Gateway"]]
    # While somebody is on it, it stays.
    assert place.pyrtc("network", "prune", "-f").stdout == ""
    assert device in place.links()
    place.pyrtc("exec", "one", "ping", "-c1", "-W10", OUTSIDE)
    place.pyrtc("stop", "-t", "0", "one")
    (config,) = document(place, "bridge")["IPAM"]["Config"]
    place.pyrtc("network", "prune", "-f")
    place.assert_clean()
    assert document(place, "bridge")["IPAM"]["Config"] == []
    # Also when its device went another way.
    place.pyrtc("start", "one")
    place.pyrtc("stop", "-t", "0", "one")
    place.run("ip", "link", "del", device)
    place.pyrtc("network", "prune", "-f")
    place.assert_clean()
    # What it had may be somebody else's by now.
    place.run("ip", "addr", "add", f"{config['Gateway']}/20", "dev", "wan0")
    place.pyrtc("start", "one")
    (other,) = document(place, "bridge")["IPAM"]["Config"]
    assert other["Subnet"] != config["Subnet"]
    place.pyrtc("exec", "one", "ping", "-c1", "-W10", OUTSIDE)
    place.run("ip", "addr", "del", f"{config['Gateway']}/20", "dev", "wan0")
    place.pyrtc("rm", "-f", "one")
    place.pyrtc("system", "prune", "-f")
    place.assert_clean()


def test_the_default_bridge_gives_way_after_a_reboot(place: Place) -> None:
    """Its device is gone, and another one has its subnet by now; nobody has to know of that."""
    run(place, "one", "--network", "bridge")
    place.pyrtc("stop", "-t", "0", "one")
    (config,) = document(place, "bridge")["IPAM"]["Config"]
    place.run("ip", "link", "del", document(place, "bridge")["Device"])
    place.run("ip", "addr", "add", f"{config['Gateway']}/28", "dev", "wan0")
    place.pyrtc("start", "one")
    (other,) = document(place, "bridge")["IPAM"]["Config"]
    assert other["Subnet"] != config["Subnet"]
    place.pyrtc("exec", "one", "ping", "-c1", "-W10", OUTSIDE)
    # While somebody is on it, it keeps its subnet.
    place.run("ip", "link", "del", document(place, "bridge")["Device"])
    place.run("ip", "addr", "add", f"{other['Gateway']}/28", "dev", "wan0")
    done = place.pyrtc("run", "--rm", "--network", "bridge", "host", "true", check=False)
    assert done.returncode == 125 and "overlaps with that of device wan0" in done.stderr
    for gateway in (config["Gateway"], other["Gateway"]):
        place.run("ip", "addr", "del", f"{gateway}/28", "dev", "wan0")
    place.pyrtc("rm", "-f", "one")
    place.pyrtc("network", "prune", "-f")
    place.assert_clean()


def test_after_a_reboot(place: Place) -> None:
    """Devices and rules are gone, rows are not; the next start makes everything again, with the same subnet."""
    place.pyrtc("network", "create", "web", "--subnet", "10.77.0.0/24", "--ipv6", "-o", "mtu=1400")
    before = document(place, "web")
    run(place, "one", "--network", "web", "--ip", "10.77.0.9")
    place.pyrtc("kill", "one")
    assert eventually(lambda: place.pyrtc("ps", "-q").stdout == "")
    place.run("ip", "link", "del", before["Device"])
    place.run("nft", "flush", "ruleset")
    place.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    place.pyrtc("start", "one")
    assert document(place, "web")["IPAM"] == before["IPAM"]
    assert place.links()[before["Device"]]["mtu"] == 1400
    assert address_of(place, "one", "web") == "10.77.0.9"
    place.pyrtc("exec", "one", "ping", "-c1", "-W10", OUTSIDE)
    place.pyrtc("rm", "-f", "one")
    place.pyrtc("network", "prune", "-f")
    place.assert_clean()


def test_macvlan_is_in_the_network_of_its_device(place: Place) -> None:
    place.pyrtc("network", "create", "lan", "-d", "macvlan", "--subnet", "198.51.100.0/24", "--gateway", "198.51.100.2",
                "--ip-range", "198.51.100.64/27", "-o", "parent=wan0")  # fmt: skip
    run(place, "one", "--network", "lan")
    run(place, "two", "--network", "lan", "--ip", "198.51.100.200", "--mac-address", "02:00:00:00:00:09")
    one = address_of(place, "one", "lan")
    assert 64 <= int(one.rpartition(".")[2]) < 96
    place.pyrtc("exec", "one", "ping", "-c1", "-W10", OUTSIDE)
    place.pyrtc("exec", "one", "ping", "-c1", "-W10", "198.51.100.200")
    place.outside.run("ping", "-c1", "-W10", one)
    place.outside.run("ping", "-c1", "-W10", "198.51.100.200")
    assert "198.51.100.200 dev wan1 lladdr 02:00:00:00:00:09" in place.outside.run("ip", "neigh").stdout
    route = json.loads(place.pyrtc("exec", "two", "ip", "-json", "route", "show", "default").stdout)
    assert route[0]["gateway"] == "198.51.100.2"
    place.pyrtc("network", "disconnect", "lan", "two")
    assert "eth0" not in place.pyrtc("exec", "two", "ip", "-br", "link").stdout
    place.pyrtc("network", "connect", "lan", "two", "--ip", "198.51.100.201")
    place.outside.run("ping", "-c1", "-W10", "198.51.100.201")
    done = place.pyrtc("run", "--rm", "--network", "lan", "-p", "80", "host", "true", check=False)
    assert done.returncode == 125 and "no port of this machine can lead into lan" in done.stderr
    place.pyrtc("rm", "-f", "one", "two")
    place.pyrtc("network", "rm", "lan")
    place.assert_clean()


def test_a_guest_loses_the_macvlan_device_with_its_owner(place: Place) -> None:
    """The address is somebody else's afterwards."""
    place.pyrtc("network", "create", "lan", "-d", "macvlan", "--subnet", "198.51.100.0/24", "-o", "parent=wan0")
    for last in (["rm", "-f", "one"], ["kill", "one"]):
        run(place, "one", "--network", "lan", "--ip", "198.51.100.200")
        run(place, "guest", "--network", "container:one")
        run(place, "further", "--network", "container:guest")
        place.outside.run("ping", "-c1", "-W10", "198.51.100.200")
        place.pyrtc("rm", "-f", "guest")
        place.pyrtc(*last)
        assert eventually(lambda: "eth0" not in place.pyrtc("exec", "further", "ip", "-br", "link").stdout)
        run(place, "heir", "--network", "lan", "--ip", "198.51.100.200", "--mac-address", "02:00:00:00:00:0a")
        place.outside.run("ping", "-c1", "-W10", "198.51.100.200")
        assert "02:00:00:00:00:0a" in place.outside.run("ip", "neigh", "show", "198.51.100.200").stdout
        place.pyrtc("rm", "-f", "one", "further", "heir", check=False)
    place.pyrtc("network", "rm", "lan")
    place.assert_clean()


def test_containers_start_while_the_default_bridge_is_pruned(place: Place) -> None:
    """Whoever starts has its network, whether it came before or after; in the end nothing is left."""
    pruning = place.popen("sh", "-c", f"while :; do {' '.join(COMMAND)} network prune -f; done", stdout=-3, stderr=-1)
    try:
        for _ in range(4):
            starts = [
                place.popen(*COMMAND, "run", "--rm", "--network", "bridge", "host", "ping", "-c1", "-W20", OUTSIDE,
                            stdout=-1, stderr=-1)
                for _ in range(3)
            ]  # fmt: skip
            for start in starts:
                out, error = start.communicate(timeout=60)
                assert start.returncode == 0, (out, error)
    finally:
        pruning.terminate()
        assert pruning.communicate(timeout=60)[1] == b""
    place.pyrtc("network", "prune", "-f")
    place.assert_clean()


def test_makers_and_removers_may_be_killed(place: Place) -> None:
    """At any moment: what they leave is made whole by the next command, or removed by prune."""
    for index in range(24):
        words = ("network", "create", "web") if index % 2 == 0 else ("network", "rm", "-f", "web")
        process = place.popen(*COMMAND, *words, stdout=-3, stderr=-3)
        time.sleep(0.05 + 0.012 * index)
        process.send_signal(signal.SIGKILL)
        process.wait()
    names = place.pyrtc("network", "ls", "-f", "type=custom", "--format", "{{.Name}}").stdout.split()
    assert names in ([], ["web"])
    if not names:
        place.pyrtc("network", "create", "web")
    place.pyrtc("run", "--rm", "--network", "web", "host", "ping", "-c1", "-W20", OUTSIDE)
    place.pyrtc("network", "prune", "-f")
    place.assert_clean()


CLAIM = """
import sys
from pyrtc.options import NetworkAttachment
from pyrtc.store import Store
with Store(sys.argv[1]) as store:
    store.networks.claim(store.containers.get("one").id, [NetworkAttachment("web")])
"""


def test_what_a_killed_start_claimed_is_given_back(place: Place) -> None:
    place.pyrtc("network", "create", "web")
    place.pyrtc("create", "--name", "one", "--network", "web", "host", "true")
    place.python(CLAIM, str(place.root))
    assert len(document(place, "web")["Containers"]) == 0
    place.python(CLAIM, str(place.root))
    assert place.pyrtc("network", "rm", "web").stdout == "web\n"
    place.assert_clean()


def test_prune_leaves_what_a_container_will_ask_for(place: Place) -> None:
    for name in ("web", "db", "spare"):
        place.pyrtc("network", "create", name)
    place.pyrtc("create", "--name", "one", "--network", "web", "host", "true")
    place.pyrtc("network", "connect", "db", "one")
    assert place.pyrtc("network", "prune", "-f").stdout == "Deleted Networks:\nspare\n\n"
    place.pyrtc("network", "disconnect", "db", "one")
    assert place.pyrtc("network", "prune", "-f").stdout == "Deleted Networks:\ndb\n\n"
    assert place.pyrtc("start", "-a", "one").returncode == 0
    place.pyrtc("system", "prune", "-f")
    assert place.pyrtc("network", "ls", "-q", "-f", "type=custom").stdout == ""
    place.assert_clean()


def test_a_firewall_of_others_is_told_of_once(place: Place) -> None:
    """Where a network is made, and where the default bridge is made by its first container."""
    rules = "table inet other {\n chain f {\n type filter hook forward priority 0; policy drop;\n }\n}\n"
    place.run("nft", "-f", "-", input=rules)
    made = place.pyrtc("network", "create", "web")
    assert "pyrtc: warning: " in made.stderr and "other" in made.stderr
    for words, told in (
        (("--network", "bridge"), True),
        (("--network", "bridge"), False),
        (("--network", "web"), False),
    ):
        done = place.pyrtc("run", "--rm", *words, "host", "true")
        assert ("pyrtc: warning: " in done.stderr and "other" in done.stderr) == told, done.stderr
    place.run("nft", "delete", "table", "inet", "other")
    place.pyrtc("network", "prune", "-f")
    place.assert_clean()
