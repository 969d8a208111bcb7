"""Containers that call each other, and ask for the rest of the world, from the command line to the answer."""

import os
import signal
from pathlib import Path

from attended import Answer, running
from network_place import Place, eventually, place
from test_network_starts import run, server

__all__ = ["place"]


def dig(place: Place, container: str, *words: str) -> Answer:
    command = ("exec", container, "dig", "+tries=1", "+time=15", "+nocookie", *words)
    return Answer(place.pyrtc(*command).stdout)


def attendant_of(place: Place, container_id: str) -> int:
    return int((place.root / "containers" / container_id / "attendant").read_text().split()[0])


def names_of(place: Place) -> list[Path]:
    return list((place.root / "networks").rglob("names"))


def test_many_containers_have_one_name(place: Place) -> None:
    place.pyrtc("network", "create", "back")
    first = run(place, "--network", "back", "--network-alias", "api", "--hostname", "front.example")
    others = [run(place, "--network", "back", "--network-alias", "api") for _ in range(2)]
    found = dig(place, first, "api").records
    assert len(set(found)) == 3
    assert len({dig(place, first, "api").records[0] for _ in range(3)}) == 3
    reverse = dig(place, others[0], "-x", found[0]).records
    assert len(reverse) == 1 and reverse[0].endswith(".back.")
    place.pyrtc("rm", "-f", others[0])
    assert len(dig(place, first, "api").records) == 2
    assert dig(place, first, others[0][:12]).records == []
    assert len(dig(place, others[1], first[:12], "+tcp").records) == 1
    place.pyrtc("rename", first, "renamed")
    assert len(dig(place, others[1], "renamed").records) == 1
    place.pyrtc("rm", "-f", first, others[1])
    place.pyrtc("network", "rm", "back")
    assert not names_of(place)


def test_networks_do_not_know_each_other(place: Place) -> None:
    for network in ("one", "two"):
        place.pyrtc("network", "create", "--internal", network)
    run(place, "--name", "aa", "--network", "one")
    run(place, "--name", "bb", "--network", "two")
    run(place, "--name", "both", "--network", "one", "--network", "two")
    assert dig(place, "aa", "-q", "bb").status == "NXDOMAIN"
    assert dig(place, "bb", "-q", "aa").status == "NXDOMAIN"
    for name in ("aa", "bb"):
        assert len(dig(place, "both", "-q", name).records) == 1
        assert len(dig(place, name, "-q", "both").records) == 1
    assert len(dig(place, "both", "-q", "both").records) == 2
    place.pyrtc("rm", "-f", "aa", "bb", "both")


def test_others_are_asked_for_as_the_host_would(place: Place, tmp_path: Path) -> None:
    """Of a resolver on the host's loopback device, and on the default bridge, where nobody has a name, as well."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    place.run("mount", "--bind", str(tmp_path / "resolv.conf"), "/etc/resolv.conf")
    log = tmp_path / "log"
    log.touch()
    script = Path(__file__).with_name("name_server.py")
    resolver = place.popen("python3", str(script), "127.0.0.53", "53", str(log), stdout=-1)
    assert resolver.stdout is not None
    try:
        assert resolver.stdout.readline() == b"ready\n"
        place.pyrtc("network", "create", "--internal", "inner")
        place.pyrtc("network", "create", "outer")
        for number, network in enumerate(("outer", "bridge", "inner")):
            run(place, "--name", f"c{number}", "--network", network)
        assert dig(place, "c0", "example.org").records == ["192.0.2.1"]
        assert dig(place, "c0", "example.org", "+tcp").records == ["192.0.2.1"]
        assert dig(place, "c1", "example.org").records == ["192.0.2.1"]
        assert dig(place, "c2", "example.org").status == "NXDOMAIN"
        assert len(log.read_text().splitlines()) == 3
        place.pyrtc("rm", "-f", "c0", "c1", "c2")
    finally:
        resolver.kill()
        resolver.communicate()


SERVE_NAMES = """
import socket, threading
streams = socket.create_server(('0.0.0.0', 53))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(('0.0.0.0', 53))
print('ready', flush=True)
def serve():
    while True:
        streams.accept()[0].sendall(b'own')
threading.Thread(target=serve).start()
while True:
    message, asker = datagrams.recvfrom(512)
    datagrams.sendto(b'own ' + message, asker)
"""

ASK_BOTH = """
import socket, sys
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram.settimeout(20)
datagram.connect((sys.argv[1], 53))
datagram.send(b'x')
print(datagram.recv(99).decode(), socket.create_connection((sys.argv[1], 53), 20).recv(99).decode())
"""


def test_a_container_may_serve_names_itself(place: Place) -> None:
    """Port 53 of all its addresses is its own, but for 127.0.0.11."""
    place.pyrtc("network", "create", "back")
    place.pyrtc("run", "-d", "--name", "dns", "--network", "back", "host", "python3", "-c", SERVE_NAMES)
    run(place, "--name", "other", "--network", "back")
    assert eventually(lambda: "ready" in place.pyrtc("logs", "dns").stdout)
    for asker, asked in (("other", "dns"), ("dns", "127.0.0.1")):
        assert place.pyrtc("exec", asker, "python3", "-c", ASK_BOTH, asked).stdout == "own x own\n"
    for container in ("other", "dns"):
        assert len(dig(place, container, "-q", "other").records) == 1
        assert len(dig(place, container, "+tcp", "-q", "other").records) == 1
    place.pyrtc("rm", "-f", "dns", "other")


def test_kill_9_of_an_attendant_harms_one_container(place: Place) -> None:
    place.pyrtc("network", "create", "back")
    first = run(place, "--name", "aa", "--network", "back", "-p", "127.0.0.1:8080:80")
    run(place, "--name", "bb", "--network", "back")
    os.kill(attendant_of(place, first), signal.SIGKILL)
    assert eventually(lambda: not running(attendant_of(place, first)))
    assert len(dig(place, "bb", "-q", "aa").records) == 1
    assert place.pyrtc("exec", "aa", "echo", "lives").stdout == "lives\n"
    assert place.pyrtc("exec", "aa", "getent", "hosts", "bb", check=False).returncode == 2
    place.pyrtc("restart", "-t", "0", "aa")
    assert len(dig(place, "aa", "-q", "bb").records) == 1
    assert running(attendant_of(place, first))
    place.pyrtc("rm", "-f", "aa", "bb")
    assert eventually(lambda: place.run("ss", "-Hltn", "sport = 8080").stdout == "")


def test_what_is_not_translated_goes_through_the_attendant(place: Place) -> None:
    """::1 has no route_localnet, and a container without IPv6 nothing to translate to."""
    server(place, "web", "-p", "8080:80", "-p", "8080:80/udp")
    ask = "import socket; print(socket.create_connection(('::1', 8080), 30).recv(99).decode().split()[0])"
    ask_udp = (
        "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(30); "
        "s.connect(('::1', 8080)); s.send(b'x'); print(s.recv(99).decode().split()[0])"
    )
    assert place.python(ask) == "web\n"
    assert place.python(ask_udp) == "web\n"
    place.run("nft", "flush", "ruleset")  # somebody's firewall starts anew
    assert place.python(ask.replace("::1", "127.0.0.1")) == "web\n"
    place.pyrtc("rm", "-f", "web")


def test_the_same_port_again_at_once(place: Place) -> None:
    for _ in range(5):
        place.pyrtc("run", "--rm", "-p", "127.0.0.1:8080:80", "host", "true")
    run(place, "--name", "aa", "-p", "127.0.0.1:8080:80")
    for _ in range(3):
        place.pyrtc("restart", "-t", "0", "aa")
    place.pyrtc("rm", "-f", "aa")
