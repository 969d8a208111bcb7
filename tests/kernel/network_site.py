"""Bridges and what stands for containers on them, for tests of the firewall: namespaces, nothing of pyrtc's engine."""

import json
import sys
from contextlib import ExitStack

import pytest
from network_place import HOST, Namespace, eventually

SERVER = """
import selectors, socket, sys
name, ports = sys.argv[1], [int(port) for port in sys.argv[2:]]
poll = selectors.DefaultSelector()
for port in ports:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        made = socket.socket(socket.AF_INET6, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            made.listen(64)
        poll.register(made, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in poll.select():
        if key.fileobj.type == socket.SOCK_STREAM:
            connection, peer = key.fileobj.accept()
            connection.sendall(f"{name} {peer[0].removeprefix('::ffff:')}".encode())
            connection.close()
        else:
            _, peer = key.fileobj.recvfrom(100)
            key.fileobj.sendto(f"{name} {peer[0].removeprefix('::ffff:')}".encode(), peer)
"""

# Asks several at once, so that those that do not answer cost their patience once.
CLIENT = """
import json, socket, sys, threading, time
patience, targets = float(sys.argv[1]), json.loads(sys.argv[2])
answers = [None] * len(targets)
def ask(index, protocol, host, port, source):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + patience
    while answers[index] is None and time.monotonic() < deadline:
        with socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as client:
            try:
                client.settimeout(min(patience, 0.5 if protocol == "udp" else patience))
                if source:
                    client.bind((source, 0))
                client.connect((host, port))
                if protocol == "udp":
                    client.send(b"who?")
                answers[index] = client.recv(100).decode() or None
            except OSError as error:
                time.sleep(0.05)
threads = [threading.Thread(target=ask, args=(index, *target)) for index, target in enumerate(targets)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(answers))
"""

PRELUDE = """
import json, os, sys
from pyrtc.network import firewall, ports
from pyrtc.options import Port
from pyrtc.store.network_records import Network, make_endpoint

def network(number, **fields):
    return Network(
        id=f"{number:064x}", name=f"net{number}", driver="bridge", created=0.0, device=f"pyrtc-{number:08x}",
        subnet4=f"10.{number}.0.0/16", gateway4=f"10.{number}.0.1",
        subnet6=f"fd00:{number}::/64", gateway6=f"fd00:{number}::1", **fields)

def endpoint(number, last, **fields):
    return make_endpoint(network(number, **fields), f"{number:06x}{last:06x}" + "0" * 52, f"c{last}", "eth0", "pv0",
        f"10.{number}.0.{last}", f"fd00:{number}::{last}", "02:00:00:00:00:01", (), ())
"""

PATIENCE = 20.0  # for who has to answer
SHORT = 1.0  # for who must not


class Container(Namespace):
    """What stands for a container: a namespace with eth0, and a server that says its name and who asks."""

    def __init__(self, site, number, last, *, gateway=True):
        super().__init__("ip link set lo up && echo ready && exec sleep 1000000")
        self.ip, self.ip6 = f"10.{number}.0.{last}", f"fd00:{number}::{last}"
        end = f"pv{number}x{last}"
        site.place.run("ip", "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", self.pid)
        site.place.run("ip", "link", "set", end, "master", f"pyrtc-{number:08x}", "up")
        site.place.run("bridge", "link", "set", "dev", end, "hairpin", "on")
        self.run("ip", "addr", "add", f"{self.ip}/16", "dev", "eth0")
        self.run("ip", "addr", "add", f"{self.ip6}/64", "dev", "eth0", "nodad")
        self.run("ip", "link", "set", "eth0", "up")
        if gateway:
            self.run("ip", "route", "add", "default", "via", f"10.{number}.0.1")
            self.run("ip", "-6", "route", "add", "default", "via", f"fd00:{number}::1")


class Site:
    """Bridges of the place, containers on them, servers in any of these namespaces."""

    def __init__(self, place, stack):
        self.place, self._stack = place, stack
        for family, name in (("ipv4", "ip_forward"), ("ipv6", "conf.all.forwarding")):
            place.run("sysctl", "-qw", f"net.{family}.{name}=0")

    def bridge(self, number):
        """Make the device of a network, as pyrtc does."""
        name = f"pyrtc-{number:08x}"
        self.place.run("ip", "link", "add", name, "type", "bridge")
        self.place.run("ip", "addr", "add", f"10.{number}.0.1/16", "dev", name)
        self.place.run("ip", "addr", "add", f"fd00:{number}::1/64", "dev", name, "nodad")
        self.place.run("ip", "link", "set", name, "up")
        return name

    def container(self, number, last, **keywords):
        """Put one more on a bridge; a server in it is on the ports 80 and 81."""
        made = self._stack.enter_context(_closing(Container(self, number, last, **keywords)))
        self.serve(made, f"c{number}.{last}", 80, 81)
        return made

    def serve(self, namespace, name, *ports):
        """Start a server in a namespace."""
        server = namespace.popen(sys.executable, "-c", SERVER, name, *map(str, ports), stdout=-1)
        self._stack.callback(server.communicate)
        self._stack.callback(server.kill)
        assert server.stdout.readline() == b"ready\n"
        return server

    def pyrtc(self, source, *arguments):
        """Run a program in the place that has the firewall and makes networks and endpoints of numbers."""
        return self.place.python(PRELUDE + source, *arguments)

    def ask(self, namespace, *targets, patience=PATIENCE):
        """Ask servers (protocol, host, port[, source]) from a namespace; what each says, None for no answer."""
        words = json.dumps([[*target, *([""] * (4 - len(target)))] for target in targets])
        return json.loads(namespace.run(sys.executable, "-c", CLIENT, str(patience), words).stdout)

    def elements(self, name):
        """Return the elements of a set or map of the table, as nft prints them in JSON."""
        listing = self.place.run("nft", "--json", "list", "table", "inet", "pyrtc", check=False).stdout
        items = json.loads(listing)["nftables"] if listing else []
        found = [item.get("set") or item.get("map") for item in items]
        return next((item.get("elem", []) for item in found if item and item["name"] == name), None)

    def ready(self, namespace, *targets):
        """Wait until these answer: neighbours are found, addresses usable."""
        assert eventually(lambda: None not in self.ask(namespace, *targets)), targets


class _closing:  # noqa: N801  (as contextlib's)
    def __init__(self, namespace):
        self._namespace = namespace

    def __enter__(self):
        return self._namespace

    def __exit__(self, *_):
        self._namespace.close()


@pytest.fixture
def site(place):
    """A place with nothing on it yet."""
    with ExitStack() as stack:
        yield Site(place, stack)


__all__ = ["HOST", "Site", "site"]
