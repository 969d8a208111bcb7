"""Encrypted overlay networks between three hosts: nothing that containers send is seen between them, whatever happens.

What travels between the hosts is taken from the switch that they are all plugged into.
"""

import errno
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from network_place import Namespace
from overlay_hosts import Cloud, Host, cloud, eventually

from pyrtc.network.overlay.tunnel import PORT
from pyrtc.network.overlay.vxlan import PORT as VXLAN_PORT

__all__ = ["cloud"]

MTU = 1500 - 60 - 70  # of WireGuard over IPv4, and of VXLAN over IPv6 inside
HEADERS = 28  # of IPv4 and ICMP
MARK = b"pyrtcclear"
_SNIFF = """
import socket, struct, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as sock, open(sys.argv[1], "wb") as file:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
    print("ready", flush=True)
    while True:
        frame = sock.recv(1 << 16)
        file.write(struct.pack("I", len(frame)) + frame)
        file.flush()
"""
# A frame in VXLAN, for a bridge of the network's number, from a host that never joined: ARP for everybody.
_INJECT = """
import socket, sys
vni, family, place = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
frame = b"\\xff" * 6 + bytes.fromhex("020000000099") + b"\\x88\\xb5" + b"injected" * 8
with socket.socket(family, socket.SOCK_DGRAM) as sock:
    for _ in range(20):
        sock.sendto(b"\\x08\\0\\0\\0" + vni.to_bytes(3) + b"\\0" + frame, (place, 4789))
"""


@pytest.fixture
def wireguard() -> None:
    """Go on where the kernel has WireGuard only."""
    place = Namespace("ip link set lo up && echo ready && exec sleep 1000")
    try:
        added = place.run("ip", "link", "add", "wg0", "type", "wireguard", check=False)
    finally:
        place.close()
    if added.returncode:
        pytest.skip(f"the kernel has no WireGuard (modprobe wireguard, Linux 5.6): {added.stderr.strip()}")


@pytest.fixture
def web(wireguard: None, cloud: Cloud) -> Cloud:
    """Three hosts in a cluster with an encrypted network, and a container on each: c0, c1, c2."""
    cloud.join()
    cloud.hosts[0].pyrtc("network", "create", "--driver", "overlay", "--opt", "encrypted", "web")
    for number, host in enumerate(cloud.hosts):
        cloud.addresses[f"c{number}"] = host.container(f"c{number}")
    return cloud


class Seen:
    """The frames that were on the switch."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def frames(self) -> list[bytes]:
        """Return them."""
        raw, found, place = self._path.read_bytes(), [], 0
        while place + 4 <= len(raw):
            (size,) = struct.unpack_from("I", raw, place)
            found.append(raw[place + 4 : place + 4 + size])
            place += 4 + size
        return found

    def ports(self) -> set[int]:
        """Return the UDP ports that were sent to, over IPv4 and IPv6."""
        found = set()
        for frame in self.frames():
            kind, header = frame[12:14], frame[14:]
            if kind == b"\x08\x00" and header[9:10] == b"\x11":
                found.add(int.from_bytes(header[(header[0] & 15) * 4 :][2:4]))
            elif kind == b"\x86\xdd" and header[6:7] == b"\x11":
                found.add(int.from_bytes(header[42:44]))
        return found

    def anything_clear(self) -> bool:
        """Whether something of a container's packets could be read."""
        return any(MARK in frame for frame in self.frames()) or VXLAN_PORT in self.ports()


@contextmanager
def watched(web: Cloud, directory: Path) -> Iterator[Seen]:
    """Look at every frame that is on the switch during a block."""
    path = directory / "frames"
    words = (sys.executable, "-c", _SNIFF, str(path))
    sniffer = web.switch.popen(*words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        assert sniffer.stdout is not None and sniffer.stdout.readline() == b"ready\n"
        yield Seen(path)
    finally:
        sniffer.kill()
        sniffer.wait()


def sends(host: Host, name: str, target: str) -> bool:
    """Have a container send what would be recognized, and say whether an answer came."""
    words = ("ping", "-c", "1", "-W", "2", "-p", MARK.hex(), "-s", "200", target)
    return host.pyrtc("exec", name, *words, check=False).returncode == 0


def reaches(host: Host, name: str, target: str) -> bool:
    return eventually(lambda: sends(host, name, target))


def tunnel_of(host: Host) -> str:
    (name,) = (name for name in host.links() if name.startswith("pyrtcw"))
    return name


def key_of(host: Host) -> str:
    (document,) = json.loads(host.pyrtc("cluster", "inspect").stdout)
    key: str = document["Host"]["PublicKey"]
    return key


PEERS = """
from pyroute2 import WireGuard
with WireGuard() as wireguard:
    for message in wireguard.info(sys.argv[1]):
        for peer in message.get_attr("WGDEVICE_A_PEERS") or ():
            allowed = [one["addr"] for one in peer.get_attr("WGPEER_A_ALLOWEDIPS") or ()]
            print(peer.get_attr("WGPEER_A_PUBLIC_KEY").decode(), peer.get_attr("WGPEER_A_ENDPOINT")["addr"], *allowed)
"""


def peers_of(host: Host) -> dict[str, list[str]]:
    """Return the peers of a host's WireGuard device: addresses by key."""
    lines = host.python(PEERS, tunnel_of(host)).splitlines()
    return {key: addresses for key, *addresses in map(str.split, lines)}


def network_of(host: Host) -> dict[str, str]:
    (document,) = json.loads(host.pyrtc("network", "inspect", "web").stdout)
    return {**document["Options"], "id": document["Id"], "device": document["Device"]}


def test_what_containers_send_is_not_seen_between_hosts(web: Cloud, tmp_path: Path) -> None:
    with watched(web, tmp_path) as seen:
        for number, host in enumerate(web.hosts):
            for address in web.addresses.values():
                assert reaches(host, f"c{number}", address)
        assert web.hosts[0].pings("c0", web.addresses["c1"], MTU - HEADERS)
        assert not web.hosts[0].pings("c0", web.addresses["c1"], MTU + 1 - HEADERS)
        assert not seen.anything_clear()
        assert PORT in seen.ports()
    keys = [key_of(host) for host in web.hosts]
    assert len(set(keys)) == 3 and all(keys)
    for number, host in enumerate(web.hosts):
        assert set(peers_of(host)) == {key for other, key in enumerate(keys) if other != number}
        # The private key is nobody's to read, and in nobody's words.
        assert (host.root / "tunnel.key").stat().st_mode & 0o777 == 0o600
        # Every entry names the device: the address alone would leave it to the kernel's routes.
        network = network_of(host)
        entries = json.loads(host.run("bridge", "-json", "fdb", "show", "dev", f"pyrtcx{network['id'][:8]}").stdout)
        remote = [entry for entry in entries if "dst" in entry]
        assert len(remote) >= 4 and all(entry["dst"].startswith("fe80::") for entry in remote)
        assert {entry.get("viaIf") or entry.get("via") for entry in remote} == {tunnel_of(host)}


def test_the_tunnel_leads_to_nothing_else_of_a_host(web: Cloud) -> None:
    """Neither to what listens there nor to an answer, whatever its firewall says of the device between the hosts."""
    assert reaches(web.hosts[0], "c0", web.addresses["c1"])
    target = (network_of(web.hosts[1])["vtep"], tunnel_of(web.hosts[0]))
    listen = (
        "import socket, time\nwith socket.create_server(('::', 7000), family=socket.AF_INET6) as s, "
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as u:\n"
        " u.bind(('::', 7000)); print('ready', flush=True)\n"
        " print(u.recv(99), flush=True)\n time.sleep(1000)"
    )
    ask = (
        "import socket, sys\nplace = (sys.argv[1], 7000, 0, socket.if_nametoindex(sys.argv[2]) if sys.argv[2] else 0)\n"
        "with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s: s.sendto(b'hello', place)\n"
        "with socket.socket(socket.AF_INET6) as s:\n s.settimeout(3)\n print(s.connect_ex(place))"
    )
    words = (sys.executable, "-c", listen)
    server = web.hosts[1].popen(*words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        answer = web.hosts[0].run(sys.executable, "-c", ask, *target).stdout.strip()
        assert answer not in ("0", str(errno.ECONNREFUSED))
        assert web.hosts[0].run("ping", "-c", "1", "-W", "2", "-I", target[1], target[0], check=False).returncode != 0
        # It listens still, and hears what comes from the host itself first.
        assert web.hosts[1].run(sys.executable, "-c", ask.replace("hello", "own"), "::1", "").stdout.strip() == "0"
        assert server.stdout.readline() == b"b'own'\n"
    finally:
        server.kill()
        server.wait()


def test_a_network_that_is_not_encrypted_is_seen(web: Cloud, tmp_path: Path) -> None:
    """The proof that the test before looks at the right place; both kinds live side by side."""
    web.hosts[0].pyrtc("network", "create", "--driver", "overlay", "plain")
    for number in (0, 1):
        web.addresses[f"p{number}"] = web.hosts[number].container(f"p{number}", network="plain")
    with watched(web, tmp_path) as seen:
        assert reaches(web.hosts[0], "p0", web.addresses["p1"])
        assert eventually(seen.anything_clear)
        assert any(MARK in frame for frame in seen.frames())


def test_nothing_goes_in_the_clear_when_the_tunnel_vanishes(web: Cloud, tmp_path: Path) -> None:
    assert reaches(web.hosts[0], "c0", web.addresses["c1"])
    with watched(web, tmp_path) as seen:
        web.hosts[0].run("ip", "link", "set", tunnel_of(web.hosts[0]), "down")
        assert not sends(web.hosts[0], "c0", web.addresses["c1"])
        web.hosts[0].run("ip", "link", "delete", tunnel_of(web.hosts[0]))
        for _ in range(3):
            sends(web.hosts[0], "c0", web.addresses["c1"])
        # The watcher makes it anew, with the same key.
        assert reaches(web.hosts[0], "c0", web.addresses["c1"])
        assert reaches(web.hosts[2], "c2", web.addresses["c0"])
        assert not seen.anything_clear()


def test_a_host_without_a_key_is_sent_nothing(web: Cloud, tmp_path: Path) -> None:
    """Neither where it never told one, nor where somebody writes rubbish, or the key of another host."""
    host = web.hosts[2]
    key, other = key_of(host), key_of(web.hosts[1])
    for pid in host.watchers():  # or it would tell its key again at once
        subprocess.run(["kill", "-STOP", str(pid)], check=True)
    write = """
from pyrtc.network.overlay import membership
from pyrtc.network.overlay.etcd import Put
value = membership.member(store)
words = {"name": value.name, "vtep": value.vtep, "mtu": value.mtu, **json.loads(sys.argv[1])}
client = membership.connect(value)
client.transact([], [Put("/pyrtc/v1/host/" + value.id, json.dumps(words).encode())])
client.close()
"""
    try:
        with watched(web, tmp_path) as seen:
            for words in ({}, {"key": "A" * 44}, {"key": other}):
                host.python(write, json.dumps(words))
                assert eventually(lambda: key not in peers_of(web.hosts[0]))
                for _ in range(2):
                    assert not sends(web.hosts[0], "c0", web.addresses["c2"])
            # Of two hosts with one key nobody is meant.
            assert eventually(lambda: peers_of(web.hosts[0]) == {})
            assert not seen.anything_clear()
    finally:
        for pid in host.watchers():
            subprocess.run(["kill", "-CONT", str(pid)], check=True)
    assert eventually(lambda: set(peers_of(web.hosts[0])) == {key, other})  # told again by its own host
    assert reaches(web.hosts[0], "c0", web.addresses["c2"])


def test_what_comes_in_the_clear_is_not_taken(web: Cloud, tmp_path: Path) -> None:
    """A stranger on the network between the hosts, who knows the number of the container network."""
    target = web.hosts[0]
    network = network_of(target)
    for machine in (web.etcd[0], target):
        for device in ("up0", "all"):
            machine.run("sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=0")
    web.etcd[0].run("ip", "addr", "add", "2001:db8::c9/64", "dev", "up0", "nodad")
    target.run("ip", "addr", "add", "2001:db8::1/64", "dev", "up0", "nodad")
    # And one who uses the address of a host in the tunnel, outside of it.
    web.etcd[0].run("ip", "addr", "add", network_of(web.hosts[1])["vtep"] + "/64", "dev", "up0", "nodad")
    received = tmp_path / "received"
    words = (*target.netns("c0"), sys.executable, "-c", _SNIFF, str(received))
    sniffer = subprocess.Popen(words, stdout=subprocess.PIPE)
    try:
        assert sniffer.stdout is not None and sniffer.stdout.readline() == b"ready\n"
        for family, place in ((socket.AF_INET, target.address), (socket.AF_INET6, "2001:db8::1")):
            web.etcd[0].run(sys.executable, "-c", _INJECT, network["vni"], str(int(family)), place)
        # In the clear, on the host itself, where nothing keeps it from the device: that the test would see it.
        assert reaches(web.hosts[1], "c1", web.addresses["c0"])
        frames = Seen(received).frames()
        assert frames and not any(b"injected" in frame for frame in frames)
    finally:
        sniffer.kill()
        sniffer.wait()


def test_a_host_that_joins_again_has_another_key(web: Cloud, tmp_path: Path) -> None:
    host = web.hosts[1]
    before, address = key_of(host), web.addresses["c1"]
    assert reaches(web.hosts[0], "c0", address)
    host.pyrtc("rm", "-f", "c1")
    host.pyrtc("cluster", "leave")
    assert eventually(lambda: before not in peers_of(web.hosts[0]) and before not in peers_of(web.hosts[2]))
    assert not any(name.startswith(("pyrtcw", "pvw")) for name in host.links())
    assert not (host.root / "tunnel.key").exists()
    web.join(host)
    assert key_of(host) == ""
    address = host.container("c1")
    after = key_of(host)
    assert after not in ("", before)
    assert eventually(lambda: after in peers_of(web.hosts[0]))
    assert reaches(web.hosts[0], "c0", address)
    assert reaches(host, "c1", web.addresses["c2"])


def test_a_host_that_is_removed_is_no_peer(web: Cloud) -> None:
    key = key_of(web.hosts[2])
    assert key in peers_of(web.hosts[0])
    web.cut(web.hosts[2])
    web.hosts[0].pyrtc("cluster", "rm-host", "--force", "h3")
    assert eventually(lambda: key not in peers_of(web.hosts[0]) and key not in peers_of(web.hosts[1]))
    assert reaches(web.hosts[0], "c0", web.addresses["c1"])
    web.heal(web.hosts[2])
    assert not sends(web.hosts[2], "c2", web.addresses["c0"])


def test_the_tunnel_goes_with_the_last_network(web: Cloud) -> None:
    web.hosts[0].pyrtc("network", "create", "--driver", "overlay", "--encrypt", "other")
    web.hosts[0].container("o0", network="other")
    web.hosts[0].pyrtc("rm", "-f", "o0")
    web.hosts[0].pyrtc("network", "prune", "-f")
    assert tunnel_of(web.hosts[0])  # `web` stands on it
    for number, host in enumerate(web.hosts):
        host.pyrtc("rm", "-f", f"c{number}")
        host.pyrtc("network", "prune", "-f")
        assert not any(name.startswith(("pyrtcw", "pvw", "pyrtcx")) for name in host.links())


def test_a_kernel_without_wireguard_says_what_is_missing(cloud: Cloud) -> None:
    place = cloud.hosts[0]
    if place.run("ip", "link", "add", "wg0", "type", "wireguard", check=False).returncode == 0:
        pytest.skip("the kernel has WireGuard")
    cloud.join(place)
    for words in (("--opt", "encrypted"), ("--encrypt",)):
        refused = place.pyrtc("network", "create", "--driver", "overlay", *words, "web", check=False)
        assert refused.returncode == 1 and "modprobe wireguard" in refused.stderr, refused.stderr
    assert "web" not in place.pyrtc("network", "ls", "--format", "{{.Name}}").stdout.split()
    # Another host, which can, has made one.
    place.python(
        "from pyrtc.network.overlay import networks, tunnel\n"
        "from pyrtc.store.networks import Network\n"
        "tunnel.require = lambda: None\n"
        "networks.create(store, Network('', 'web', 'overlay', 0.0, options=(('encrypted', ''),)))\n"
    )
    refused = place.pyrtc("run", "--network", "web", "host", "true", check=False)
    assert refused.returncode == 125 and "modprobe wireguard" in refused.stderr, refused.stderr
    assert not any(name.startswith(("pyrtcw", "pyrtcx", "pvw")) for name in place.links())
