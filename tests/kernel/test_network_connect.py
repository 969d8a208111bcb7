"""Networks more, and networks less, for containers that run; `ip` in the container is the judge."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from network_place import HOST, OUTSIDE, Place, eventually, place

__all__ = ["place"]


SERVER = """
import socketserver
class Hello(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.send(b"hello")
socketserver.TCPServer(("", 80), Hello).serve_forever()
"""


def networks(place: Place) -> None:
    place.pyrtc("network", "create", "web", "--subnet", "10.77.0.0/24", "--subnet", "fd00:77::/64")
    place.pyrtc("network", "create", "db", "--subnet", "10.78.0.0/24", "--subnet", "fd00:78::/64")
    place.pyrtc("network", "create", "back", "--subnet", "10.79.0.0/24", "--internal")


def run(place: Place, name: str, *words: str) -> str:
    return place.pyrtc("run", "-d", "--name", name, *words, "host", "sleep", "1000").stdout.strip()


def inside(place: Place, name: str, *words: str) -> Any:
    return json.loads(place.pyrtc("exec", name, "ip", "-json", *words).stdout)


def addresses(place: Place, name: str) -> dict[str, list[str]]:
    return {
        link["ifname"]: [a["local"] for a in link["addr_info"] if a["scope"] == "global"]
        for link in inside(place, name, "addr")
        if link["ifname"] != "lo"
    }


def default_route(place: Place, name: str, family: str = "-4") -> tuple[str, str] | None:
    found = inside(place, name, family, "route", "show", "default")
    return (found[0]["dev"], found[0]["gateway"]) if found else None


def cleaned(place: Place, *names: str) -> None:
    place.pyrtc("rm", "-f", *names)
    place.pyrtc("network", "prune", "-f")
    place.assert_clean()


def test_one_more_and_one_less(place: Place) -> None:
    networks(place)
    one = run(place, "one", "--network", "web")
    place.pyrtc("network", "connect", "db", "one", "--ip", "10.78.0.9", "--ip6", "fd00:78::9",
                "--mac-address", "02:00:00:00:00:09")  # fmt: skip
    place.pyrtc("network", "connect", "back", "one")
    found = addresses(place, "one")
    assert list(found) == ["eth0", "eth1", "eth2"]
    assert found["eth1"] == ["10.78.0.9", "fd00:78::9"]
    assert [link["address"] for link in inside(place, "one", "link") if link["ifname"] == "eth1"] == [
        "02:00:00:00:00:09"
    ]
    assert default_route(place, "one") == ("eth0", "10.77.0.1")
    for gateway in ("10.77.0.1", "10.78.0.1", "fd00:78::1"):
        place.pyrtc("exec", "one", "ping", "-c1", "-W10", gateway)
    members = json.loads(place.pyrtc("network", "inspect", "db").stdout)[0]["Containers"]
    assert members[one]["IPv4Address"] == "10.78.0.9/24"
    # What leads outside changes over to the next network that does.
    place.pyrtc("network", "disconnect", "web", "one")
    assert list(addresses(place, "one")) == ["eth1", "eth2"]
    assert default_route(place, "one") == ("eth1", "10.78.0.1")
    assert default_route(place, "one", "-6") == ("eth1", "fd00:78::1")
    place.pyrtc("exec", "one", "ping", "-c1", "-W10", OUTSIDE)
    # The route stays where it is.
    place.pyrtc("network", "connect", "web", "one")
    assert list(addresses(place, "one")) == ["eth1", "eth2", "eth3"]
    assert default_route(place, "one") == ("eth1", "10.78.0.1")
    place.pyrtc("network", "disconnect", "db", "one")
    assert default_route(place, "one") == ("eth3", "10.77.0.1")
    assert default_route(place, "one", "-6") == ("eth3", "fd00:77::1")
    place.pyrtc("network", "disconnect", "web", "one")
    assert default_route(place, "one") is None
    # The next start has what is left.
    place.pyrtc("restart", "-t", "0", "one")
    assert [a[0].rpartition(".")[0] for a in addresses(place, "one").values()] == ["10.79.0"]
    assert place.pyrtc("network", "rm", "web", "db").stdout == "web\ndb\n"
    cleaned(place, "one")


def test_what_leads_outside_is_gained(place: Place) -> None:
    """From a network that leads nowhere, and from none at all."""
    networks(place)
    run(place, "one", "--network", "back")
    run(place, "two")
    for name, device in (("one", "eth1"), ("two", "eth0")):
        assert default_route(place, name) is None
        place.pyrtc("network", "connect", "web", name)
        assert default_route(place, name) == (device, "10.77.0.1")
        assert default_route(place, name, "-6") == (device, "fd00:77::1")
        place.pyrtc("exec", name, "ping", "-c1", "-W10", OUTSIDE)
    cleaned(place, "one", "two")


def test_a_refusal_changes_nothing(place: Place) -> None:
    networks(place)
    run(place, "one", "--network", "web", "--ip", "10.77.0.9")
    run(place, "two", "--network", "db")
    before = addresses(place, "two")
    for words, said in (
        (("--ip", "10.77.0.9", "web", "two"), "Address already in use: container one has 10.77.0.9"),
        (("db", "two"), "endpoint with name two already exists in network db"),
        (("nope", "two"), "network nope not found"),
    ):
        done = place.pyrtc("network", "connect", *words, check=False)
        assert done.returncode == 1 and said in done.stderr
    done = place.pyrtc("network", "disconnect", "web", "two", check=False)
    assert done.returncode == 1 and "is not connected to network web" in done.stderr
    assert addresses(place, "two") == before
    place.pyrtc("restart", "-t", "0", "two")
    assert len(addresses(place, "two")) == 1
    # The kernel refuses the device: the address is free again.
    place.run("ip", "link", "del", json.loads(place.pyrtc("network", "inspect", "back").stdout)[0]["Device"])
    place.run("ip", "addr", "add", "10.79.0.77/24", "dev", "wan0")
    done = place.pyrtc("network", "connect", "back", "two", check=False)
    assert done.returncode == 1 and "overlaps with that of device wan0" in done.stderr
    assert json.loads(place.pyrtc("network", "inspect", "back").stdout)[0]["Containers"] == {}
    assert len(addresses(place, "two")) == 1
    place.run("ip", "addr", "del", "10.79.0.77/24", "dev", "wan0")
    cleaned(place, "one", "two")


def test_containers_without_a_network_of_their_own(place: Place) -> None:
    networks(place)
    run(place, "one", "--network", "host")
    done = place.pyrtc("network", "connect", "web", "one", check=False)
    assert "container sharing network namespace with another container or host" in done.stderr
    cleaned(place, "one")


def test_published_ports_move(place: Place) -> None:
    """The port leads into whichever network is left, and nowhere when none is."""
    networks(place)
    place.pyrtc("run", "-d", "--name", "one", "--network", "web", "-p", "8080:80", "host", "python3", "-c", SERVER)
    ask = ("python3", "-c", "import socket; print(socket.create_connection(('198.51.100.1', 8080), 5).recv(9))")

    def answers() -> bool:
        return "hello" in place.outside.run(*ask, check=False).stdout

    assert eventually(answers)
    place.pyrtc("network", "connect", "db", "one")
    place.pyrtc("network", "disconnect", "web", "one")
    assert eventually(answers)
    place.pyrtc("network", "disconnect", "db", "one")
    assert not answers()
    assert "8080" not in place.pyrtc("port", "one").stdout
    cleaned(place, "one")


def test_what_carries_to_a_published_port_moves(place: Place) -> None:
    """What the attendant carries, which is all that comes to ::1, never goes to an address that was given back."""
    networks(place)
    for name in ("web", "db"):
        place.pyrtc("network", "create", f"{name}4", "--ipv6=false")
    place.pyrtc("run", "-d", "--name", "one", "--network", "web4", "-p", "8080:80", "host", "python3", "-c", SERVER)
    old = addresses(place, "one")["eth0"][0]
    ask = "import socket; print(socket.create_connection(('::1', 8080), 5).recv(9))"

    def answer() -> str:
        return place.run("python3", "-c", ask, check=False).stdout.strip()

    assert eventually(lambda: answer() == "b'hello'")
    place.pyrtc("network", "connect", "db4", "one")
    place.pyrtc("network", "disconnect", "web4", "one")
    other = SERVER.replace("hello", "other")
    place.pyrtc(
        "run", "-d", "--name", "two", "--network", "web4", "--ip", old, "-p", "8081:80", "host", "python3", "-c", other
    )
    assert eventually(lambda: "other" in place.run("python3", "-c", ask.replace("8080", "8081"), check=False).stdout)
    assert answer() == "b'hello'"
    assert "127.0.0.11" in place.pyrtc("exec", "one", "cat", "/etc/resolv.conf").stdout
    look_up = "import socket; print(socket.gethostbyname('one'))"
    assert place.pyrtc("exec", "one", "python3", "-c", look_up).stdout.strip() in addresses(place, "one")["eth1"]
    # It holds the port no longer than it can be reached through it.
    bind = "import socket; socket.create_server(('::1', 8080), family=socket.AF_INET6)"
    assert "in use" in place.run("python3", "-c", bind, check=False).stderr
    place.pyrtc("network", "disconnect", "db4", "one")
    place.run("python3", "-c", bind)
    assert place.pyrtc("port", "one").stdout == ""
    cleaned(place, "one", "two")


def test_one_that_is_on_no_network_any_more_starts(place: Place) -> None:
    """What was said about its networks waits for the next; and still holds from the first packet."""
    networks(place)
    said = ("-p", "8080:80", "--egress", "none", "--network-rate-in", "8mbit")
    run(place, "one", "--stop-timeout", "0", "--network", "web", *said)
    place.pyrtc("network", "disconnect", "web", "one")
    place.pyrtc("restart", "one")
    assert addresses(place, "one") == {} and place.pyrtc("port", "one").stdout == ""
    (found,) = json.loads(place.pyrtc("inspect", "one").stdout)
    assert found["NetworkSettings"]["Networks"] == {} and found["HostConfig"]["NetworkMode"] == "web"
    assert place.pyrtc("ps", "-q", "-f", "network=web").stdout == ""
    place.pyrtc("network", "connect", "web", "one")
    ask = f"import socket; socket.create_connection(('{OUTSIDE}', 80), 5)"
    done = place.pyrtc("exec", "one", "python3", "-c", ask, check=False)
    assert done.returncode == 1 and "Error" in done.stderr and "refused" not in done.stderr, done.stderr
    assert "tbf" in place.run("tc", "qdisc").stdout
    cleaned(place, "one")


def test_one_that_goes_when_it_ends(place: Place) -> None:
    networks(place)
    run(place, "one", "--rm", "--network", "web")
    place.pyrtc("network", "connect", "db", "one")
    assert list(addresses(place, "one")) == ["eth0", "eth1"]
    place.pyrtc("rm", "-f", "one")
    assert eventually(lambda: place.pyrtc("network", "rm", "db", check=False).returncode == 0)
    place.pyrtc("network", "prune", "-f")
    place.assert_clean()


LIBRARY = """
import asyncio, sys
from pyrtc import Engine, NetworkError, aio
with Engine() as engine:
    container = engine.containers.get("one")
    async def work():
        networks = aio.Networks(engine)
        await asyncio.gather(*(networks.connect(name, "one") for name in ("db", "back")))
        for name in ("db", "back"):
            (endpoint,) = (await networks.inspect(name)).endpoints
            assert (endpoint.container_name, endpoint.container_id) == ("one", container.id)
        await asyncio.gather(*(networks.disconnect(name, "one") for name in ("db", "back")))
        assert (await networks.inspect("db")).endpoints == ()
    asyncio.run(work())
    print(*(event.action + ":" + event.attribute("name") for event in engine.events(filters={"type": "network"})
            if event.attribute("container") == container.id and event.attribute("name") != "web"))
"""


def test_inside_an_event_loop(place: Place) -> None:
    networks(place)
    run(place, "one", "--network", "web")
    told = place.python(LIBRARY).split()
    assert sorted(told) == ["connect:back", "connect:db", "disconnect:back", "disconnect:db"]
    assert list(addresses(place, "one")) == ["eth0"]
    cleaned(place, "one")


def resolved(place: Place, name: str, wanted: str) -> list[str]:
    # Nobody answers here for the host: what is not known is asked for once.
    few = ("-e", "RES_OPTIONS=timeout:1 attempts:1")
    found = place.pyrtc("exec", *few, name, "getent", "ahostsv4", wanted, check=False).stdout
    return sorted({line.split()[0] for line in found.splitlines()})


def test_names_follow(place: Place) -> None:
    """Others find it by its name and its alias as long as it is there, and it finds them."""
    networks(place)
    run(place, "one", "--network", "web")
    run(place, "two", "--network", "db", "--ip", "10.78.0.7")
    assert resolved(place, "two", "one") == resolved(place, "one", "two") == []
    place.pyrtc("network", "connect", "db", "one", "--ip", "10.78.0.9", "--alias", "store")
    for name in ("one", "store"):
        assert eventually(lambda name=name: resolved(place, "two", name) == ["10.78.0.9"])
    assert eventually(lambda: resolved(place, "one", "two") == ["10.78.0.7"])
    place.pyrtc("network", "disconnect", "db", "one")
    for asker, name in (("two", "one"), ("two", "store"), ("one", "two")):
        assert eventually(lambda asker=asker, name=name: resolved(place, asker, name) == [])
    cleaned(place, "one", "two")


@pytest.mark.parametrize("words", [(), ("--network", "bridge", "-p", "8080:80"), ("--userns", "auto"), ("--rm",)])
def test_names_are_resolved_where_none_were(place: Place, words: tuple[str, ...]) -> None:
    """A container that began without a resolver gets one with the first network that has names."""
    networks(place)
    run(place, "two", "--network", "db", "--ip", "10.78.0.7")
    place.pyrtc("run", "-d", "--name", "one", "--dns-search", "x.test", *words, "host", "python3", "-c", SERVER)
    assert "127.0.0.11" not in place.pyrtc("exec", "one", "cat", "/etc/resolv.conf").stdout
    place.pyrtc("network", "connect", "--alias", "store", "db", "one")
    said = place.pyrtc("exec", "one", "cat", "/etc/resolv.conf").stdout
    assert said == "nameserver 127.0.0.11\nsearch x.test\noptions ndots:0\n"
    assert resolved(place, "one", "two") == ["10.78.0.7"]
    assert resolved(place, "one", "store") == [addresses(place, "one")["eth1" if "bridge" in words else "eth0"][0]]
    if "-p" in words:
        for host in ("198.51.100.1", "::1"):
            ask = f"import socket; print(socket.create_connection(('{host}', 8080), 9).recv(9))"
            assert "hello" in place.run("python3", "-c", ask).stdout
    # It stays, also where no network with names is left; the next run begins as it was made.
    place.pyrtc("network", "disconnect", "db", "one")
    assert resolved(place, "one", "two") == []
    place.pyrtc("network", "connect", "db", "one")
    assert eventually(lambda: resolved(place, "one", "two") == ["10.78.0.7"])
    if "--rm" not in words:
        place.pyrtc("network", "disconnect", "db", "one")
        place.pyrtc("restart", "-t", "0", "one")
        assert "127.0.0.11" not in place.pyrtc("exec", "one", "cat", "/etc/resolv.conf").stdout
        place.pyrtc("network", "connect", "db", "one")
        assert resolved(place, "one", "two") == ["10.78.0.7"]
    cleaned(place, "one", "two")


def test_an_attendant_that_was_killed_is_replaced(place: Place) -> None:
    networks(place)
    run(place, "two", "--network", "db", "--ip", "10.78.0.7")
    place.pyrtc("run", "-d", "--name", "one", "--network", "db", "-p", "8080:80", "host", "python3", "-c", SERVER)
    ask = f"import socket; print(socket.create_connection(('{HOST}', 8080), 9).recv(9))"
    assert eventually(lambda: "hello" in place.run("python3", "-c", ask, check=False).stdout)
    (note,) = (place.root / "containers").glob(f"{place.pyrtc('ps', '-q', '-f', 'name=one').stdout.strip()}*/attendant")
    for change in ("connect", "disconnect"):
        os.kill(int(note.read_text().split()[0]), signal.SIGKILL)
        assert eventually(lambda: not place.run("ss", "-Hltn", "sport = :8080").stdout)
        place.pyrtc("network", change, "back", "one")
        assert resolved(place, "one", "two") == ["10.78.0.7"]
        assert place.run("ss", "-Hltn", "sport = :8080").stdout.count("LISTEN") == 2
        assert "hello" in place.run("python3", "-c", ask).stdout
    cleaned(place, "one", "two")


def test_its_own_name_follows(place: Place, tmp_path: Path) -> None:
    """In /etc/hosts it stands beside the addresses that the container has by now; what others wrote there stays."""
    networks(place)
    run(place, "one", "--hostname", "me.example.org", "--add-host", "x:192.0.2.1", "--read-only")

    def own() -> list[str]:
        said = place.pyrtc("exec", "one", "cat", "/etc/hosts").stdout.splitlines()
        assert "192.0.2.1\tx" in said
        return [line.split()[0] for line in said if line.endswith("me.example.org me")]

    assert own() == ["127.0.0.1"]
    place.pyrtc("network", "connect", "web", "one", "--ip", "10.77.0.9", "--ip6", "fd00:77::9")
    assert own() == ["10.77.0.9", "fd00:77::9"]
    place.pyrtc("exec", "one", "sh", "-c", "echo 192.0.2.2 added >> /etc/hosts")
    place.pyrtc("network", "connect", "back", "one", "--ip", "10.79.0.9")
    assert own() == ["10.77.0.9", "fd00:77::9", "10.79.0.9"]
    place.pyrtc("network", "disconnect", "web", "one")
    assert own() == ["10.79.0.9"]
    place.pyrtc("network", "disconnect", "back", "one")
    assert own() == ["127.0.0.1"]
    assert place.pyrtc("exec", "one", "tail", "-1", "/etc/hosts").stdout == "192.0.2.2 added\n"
    place.pyrtc("rm", "-f", "one")
    (tmp_path / "mine").write_text("127.0.0.1\tme\n")
    run(place, "one", "--hostname", "me", "-v", f"{tmp_path}/mine:/etc/hosts")
    place.pyrtc("network", "connect", "web", "one")
    assert (tmp_path / "mine").read_text() == "127.0.0.1\tme\n"
    cleaned(place, "one")


def test_a_resolv_conf_of_the_users_is_left_alone(place: Place, tmp_path: Path) -> None:
    networks(place)
    (tmp_path / "mine").write_text("nameserver 198.51.100.2\n")
    run(place, "one", "-v", f"{tmp_path}/mine:/etc/resolv.conf")
    place.pyrtc("network", "connect", "db", "one")
    assert (tmp_path / "mine").read_text() == "nameserver 198.51.100.2\n"
    cleaned(place, "one")


def test_published_ports_come_back(place: Place) -> None:
    """With the first network that they can lead into; and go on only when that one goes."""
    networks(place)
    words = ("--network", "web", "-p", "8080:80", "--expose", "81", "-P")
    place.pyrtc("run", "-d", "--name", "one", *words, "host", "python3", "-c", SERVER)
    ask = ("python3", "-c", "import socket; print(socket.create_connection(('198.51.100.1', 8080), 5).recv(9))")

    def answers() -> bool:
        return "hello" in place.outside.run(*ask, check=False).stdout

    assert eventually(answers)
    place.pyrtc("network", "disconnect", "web", "one")
    assert not answers()
    place.pyrtc("network", "connect", "back", "one")
    assert place.pyrtc("port", "one").stdout == "", "it leads nowhere"
    # Somebody has one of them meanwhile: then the container is as it was.
    run(place, "two", "--network", "db", "-p", "8080:80")
    done = place.pyrtc("network", "connect", "db", "one", check=False)
    assert done.returncode == 1 and "0.0.0.0:8080 failed: port is already allocated" in done.stderr
    assert list(addresses(place, "one")) == ["eth0"] and resolved(place, "two", "one") == []
    place.pyrtc("rm", "-f", "two")
    place.pyrtc("network", "connect", "db", "one")
    assert eventually(answers)
    assert sorted(line.split()[0] for line in place.pyrtc("port", "one").stdout.splitlines()) == [
        "80/tcp", "80/tcp", "81/tcp", "81/tcp",
    ]  # fmt: skip
    # Answers go over db until that goes.
    place.pyrtc("network", "disconnect", "back", "one")
    place.pyrtc("network", "connect", "web", "one")
    assert list(addresses(place, "one")) == ["eth1", "eth2"] and answers()
    place.pyrtc("network", "disconnect", "db", "one")
    assert answers()
    cleaned(place, "one")


def test_a_container_in_a_user_namespace_of_its_own(place: Place) -> None:
    networks(place)
    run(place, "one", "--network", "web", "--userns", "auto")
    place.pyrtc("network", "connect", "db", "one", "--ip", "10.78.0.9", "--ip6", "fd00:78::9")
    assert addresses(place, "one")["eth1"] == ["10.78.0.9", "fd00:78::9"]
    place.pyrtc("exec", "one", "ping", "-c1", "-W10", "10.78.0.1")
    place.pyrtc("network", "disconnect", "web", "one")
    assert default_route(place, "one") == ("eth1", "10.78.0.1")
    assert default_route(place, "one", "-6") == ("eth1", "fd00:78::1")
    cleaned(place, "one")


def test_a_container_that_changed_its_devices(place: Place) -> None:
    """With NET_ADMIN it may rename and remove them; it is taken from the networks all the same."""
    networks(place)
    run(place, "one", "--network", "web", "--network", "db", "--cap-add", "NET_ADMIN")
    before = len(place.links())
    for command in ("ip link set eth0 down", "ip link set eth0 name eth7", "ip link set eth7 up", "ip link del eth1"):
        place.pyrtc("exec", "one", *command.split())
    place.pyrtc("network", "disconnect", "db", "one")
    place.pyrtc("network", "disconnect", "web", "one")
    assert addresses(place, "one") == {}
    assert eventually(lambda: len(place.links()) == before - 2)
    place.pyrtc("network", "connect", "web", "one")
    assert list(addresses(place, "one")) == ["eth0"]
    assert place.pyrtc("network", "rm", "db").stdout == "db\n"
    cleaned(place, "one")
