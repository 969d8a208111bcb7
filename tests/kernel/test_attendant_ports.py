"""Ports that an attendant holds and carries into the container, and the attendant's own life."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from attended import BACK, INSIDE, INSIDE6, Attended, attended, running
from network_place import HOST, HOST6, Place, eventually, place
from test_attendant_names import ASK, descriptors

__all__ = ["attended", "place"]  # fixtures

# A server inside: answers only when its client has ended; what it got, its length, and where that came from.
REVERSING = r"""
import hashlib, socket, sys, threading
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family, backlog=512)
def serve(client):
    with client:
        digest, size = hashlib.sha256(), 0
        while piece := client.recv(1 << 20):
            digest.update(piece)
            size += len(piece)
        client.sendall(f"{size} {digest.hexdigest()}\n".encode() + bytes(size))
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""
SENDING = r"""
import hashlib, os, socket, sys, threading
size = int(sys.argv[3])
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 60) as client:
    piece, digest = os.urandom(1 << 20), hashlib.sha256()
    for at in range(0, size, 1 << 20):
        client.sendall(piece[: size - at])
        digest.update(piece[: size - at])
    client.shutdown(socket.SHUT_WR)
    with client.makefile("rb") as answer:
        assert answer.readline() == f"{size} {digest.hexdigest()}\n".encode()
        rest = 0
        while got := answer.read(1 << 20):
            rest += len(got)
    assert rest == size, (rest, size)
print("done")
"""
ECHO = r"""
import socket, sys
server = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    message, client = server.recvfrom(65535)
    server.sendto(str(client[1]).encode() + b" " + message, client)
"""


class Inside:
    """A program in the container's network, until it is closed."""

    def __init__(self, attended: Attended, source: str, *arguments: str) -> None:
        command = (*attended.enter, sys.executable, "-c", source, *arguments)
        self.process = attended.place.popen(*command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def __enter__(self) -> "Inside":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize(("address", "target"), [("::1", INSIDE), ("::1", INSIDE6), ("127.0.0.1", INSIDE)])
def test_each_direction_ends_by_itself(attended: Attended, address: str, target: str) -> None:
    idle = begin(attended, ("tcp", address, 8080, target, 80))
    with Inside(attended, REVERSING, target, "80"):
        for size in (0, 1, 70_000, 30_000_000):
            assert attended.place.python(SENDING, address, "8080", str(size)) == "done\n"
    assert eventually(lambda: descriptors(attended) == idle)


def begin(attended: Attended, *proxies: tuple[str, str, int, str, int]) -> int:
    """Start the attendant; return how many descriptors it has while nobody is connected."""
    attended.start(proxies)
    # It closes what it has told its caller with when it has told it.
    before, now = -1, descriptors(attended)
    while before != now:
        time.sleep(0.2)
        before, now = now, descriptors(attended)
    return now


def test_curl_finds_a_server(attended: Attended, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("hello\n")
    attended.start([("tcp", "::1", 8080, INSIDE, 80)])
    serve = (
        "import http.server as h, functools, sys\n"
        "handler = functools.partial(h.SimpleHTTPRequestHandler, directory=sys.argv[1])\n"
        "server = h.ThreadingHTTPServer(('0.0.0.0', 80), handler)\n"
        "print('ready', flush=True)\nserver.serve_forever()"
    )
    with Inside(attended, serve, str(tmp_path)):
        for _ in range(3):
            done = attended.place.run("curl", "-sS", "--max-time", "30", "http://[::1]:8080/index.html")
            assert done.stdout == "hello\n"


def test_many_connections_at_once(attended: Attended) -> None:
    idle = begin(attended, ("tcp", "::1", 8080, INSIDE, 80))
    source = r"""
import socket
clients = [socket.create_connection(("::1", 8080), 60) for _ in range(700)]
for number, client in enumerate(clients):
    client.sendall(b"%d" % number)
    client.shutdown(socket.SHUT_WR)
for number, client in enumerate(clients):
    with client:
        client.settimeout(60)
        assert client.makefile("rb").readline().split()[0] == b"%d" % len(b"%d" % number)
print("done")
"""
    with Inside(attended, REVERSING, INSIDE, "80"):
        assert attended.place.python(source) == "done\n"
    assert eventually(lambda: descriptors(attended) == idle)


def test_descriptors_are_scarce(attended: Attended) -> None:
    """Who comes waits until others have ended; nobody is turned away, and nothing turns in circles."""
    idle = begin(attended, ("tcp", "::1", 8080, INSIDE, 80))
    attended.place.run("prlimit", "--nofile=30:30", "--pid", str(attended.attendant))
    source = r"""
import socket, threading
failed = []
def ask():
    try:
        with socket.create_connection(("::1", 8080), 60) as client:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            assert client.makefile("rb").readline().split()[0] == b"5"
    except Exception as error:
        failed.append(error)
threads = [threading.Thread(target=ask) for _ in range(100)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(failed)
"""
    with Inside(attended, REVERSING, INSIDE, "80"):
        assert attended.place.python(source) == "[]\n"
        many = "import socket, time; c = [socket.create_connection(('127.0.0.11', 53), 60) for _ in range(60)]; " \
            "print('ready', flush=True); time.sleep(1000)"  # fmt: skip
        with Inside(attended, many):
            began = cpu_ticks(attended.attendant)
            time.sleep(1)
            assert cpu_ticks(attended.attendant) - began < 50
        assert eventually(lambda: descriptors(attended) == idle)
        assert attended.place.python(SENDING, "::1", "8080", "1000") == "done\n"


def test_nobody_listens_inside(attended: Attended) -> None:
    """A client gets what the container would have told it: a connection that is reset, and not one that ends well."""
    idle = begin(attended, ("tcp", "::1", 8080, INSIDE, 80), ("tcp", "::1", 8081, "192.0.2.77", 80))
    source = r"""
import socket, sys
try:
    with socket.create_connection(("::1", int(sys.argv[1])), 60) as client:
        print(client.recv(1))
except ConnectionResetError:
    print("reset")
"""
    assert attended.place.python(source, "8080") == "reset\n"
    assert eventually(lambda: descriptors(attended) == idle)


def test_a_reset_is_passed_on(attended: Attended) -> None:
    idle = begin(attended, ("tcp", "::1", 8080, INSIDE, 80))
    resetting = r"""
import socket, struct
server = socket.create_server(("0.0.0.0", 80))
print("ready", flush=True)
while True:
    client, _ = server.accept()
    client.recv(1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
"""
    source = r"""
import socket
for _ in range(20):
    try:
        with socket.create_connection(("::1", 8080), 60) as client:
            client.sendall(b"x")
            assert client.recv(1) != b"", "it ended well"
    except ConnectionResetError:
        pass
print("done")
"""
    with Inside(attended, resetting):
        assert attended.place.python(source) == "done\n"
    assert eventually(lambda: descriptors(attended) == idle)


def test_who_does_not_read_stops_nobody_else(attended: Attended) -> None:
    idle = begin(attended, ("tcp", "::1", 8080, INSIDE, 80))
    with Inside(attended, REVERSING, INSIDE, "80"):
        lazy = r"""
import socket, time
clients = [socket.create_connection(("::1", 8080), 60) for _ in range(5)]
for client in clients:
    client.sendall(bytes(20_000_000))
    client.shutdown(socket.SHUT_WR)
print("ready", flush=True)
time.sleep(1000)
"""
        reader = attended.place.popen(sys.executable, "-c", lazy, stdout=subprocess.PIPE)
        try:
            assert reader.stdout is not None
            assert reader.stdout.readline() == b"ready\n"
            assert attended.place.python(SENDING, "::1", "8080", "5000000") == "done\n"
            began = cpu_ticks(attended.attendant)
            time.sleep(1)
            assert cpu_ticks(attended.attendant) - began < 50  # of 100: it waits, and does not turn in circles
        finally:
            reader.kill()
            reader.communicate()
    assert eventually(lambda: descriptors(attended) == idle)


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


ASK_ECHO = r"""
import socket, sys
clients = []
for number in range(int(sys.argv[3])):
    client = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
    client.connect((sys.argv[1], int(sys.argv[2])))
    client.settimeout(60)
    clients.append(client)
ports = set()
for round in range(2):
    for number, client in enumerate(clients):
        client.send(b"%d" % number)
        port, got = client.recv(65535).split()
        assert int(got) == number
        ports.add(port)
print(len(ports))
"""


@pytest.mark.parametrize(("address", "target"), [("::1", INSIDE), ("::1", INSIDE6), ("127.0.0.1", INSIDE)])
def test_datagrams_find_their_way_back(attended: Attended, address: str, target: str) -> None:
    idle = begin(attended, ("udp", address, 5353, target, 5300))
    with Inside(attended, ECHO, target, "5300"):
        assert int(attended.place.python(ASK_ECHO, address, "5353", "50")) == 50  # each client has a socket of its own
        assert descriptors(attended) == idle + 50
        # No more than 256 at once: the quietest one makes room.
        assert int(attended.place.python(ASK_ECHO, address, "5353", "400")) >= 400
        assert descriptors(attended) == idle + 256


def test_large_datagrams(attended: Attended) -> None:
    attended.start([("udp", "::1", 5353, INSIDE, 5300)])
    source = r"""
import socket
client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
client.connect(("::1", 5353))
client.settimeout(60)
for size in (0, 1, 1500, 60_000):
    client.send(b"x" * size)
    assert len(client.recv(65535).split(b" ", 1)[1]) == size
print("done")
"""
    with Inside(attended, ECHO, INSIDE, "5300"):
        assert attended.place.python(source) == "done\n"


def test_datagrams_come_from_where_they_went(attended: Attended) -> None:
    """A host with several addresses answers from the one that was asked."""
    place = attended.place
    place.run("ip", "addr", "add", "2001:db8:51::99/64", "dev", "wan0", "nodad")
    place.run("ip", "addr", "add", "198.51.100.99/24", "dev", "wan0")
    attended.start([("udp", "::", 5353, INSIDE, 5300), ("udp", "0.0.0.0", 5354, INSIDE, 5300)])
    with Inside(attended, ECHO, INSIDE, "5300"):
        for address, port in ((HOST6, 5353), ("2001:db8:51::99", 5353), (HOST, 5354), ("198.51.100.99", 5354)):
            # Connected: the kernel takes nothing that comes from elsewhere.
            done = place.outside.run(sys.executable, "-c", ASK_ECHO, address, str(port), "3")
            assert done.stdout == "3\n", address


def test_nobody_hears_datagrams(attended: Attended) -> None:
    attended.start([("udp", "::1", 5353, INSIDE, 5300)])
    source = r"""
import socket
client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
client.connect(("::1", 5353))
for _ in range(10):
    client.send(b"x")
"""
    attended.place.python(source)
    with Inside(attended, ECHO, INSIDE, "5300"):
        assert attended.place.python(ASK_ECHO, "::1", "5353", "1") == "1\n"
    assert attended.alive()


BIND = r"""
import socket, sys
for port in range(int(sys.argv[1]), int(sys.argv[2])):
    with socket.socket() as holder:
        try:
            holder.bind(("127.0.0.1", port))
        except OSError:
            continue
        print(port)
"""


def test_ports_are_held_until_the_end(attended: Attended) -> None:
    attended.start([("tcp", "::1", 8080, INSIDE, 80)], held=(9000, 9700), name_server=False)
    assert attended.place.python(BIND, "8999", "9701").split() == ["8999", "9700"]
    attended.end()
    assert len(attended.place.python(BIND, "8999", "9701").split()) == 702


def test_ports_are_free_after_a_kill(attended: Attended) -> None:
    attended.start([("tcp", "::1", 8080, INSIDE, 80)], held=(9000, 9010))
    os.kill(attended.attendant, signal.SIGKILL)
    assert eventually(lambda: len(attended.place.python(BIND, "9000", "9010").split()) == 10)
    assert running(attended.pid)  # it harms no container
    attended.start([("tcp", "::1", 8080, INSIDE, 80)], held=(9000, 9010))
    assert attended.alive()


def test_what_an_attendant_may_and_has(attended: Attended) -> None:
    attended.write(BACK, "back", ["web 4 ac120009"])
    attended.knows(BACK)
    pid = attended.start([("tcp", "::1", 8080, INSIDE, 80)])
    assert attended.dig("web").records == ["172.18.0.9"]
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2" and status["Threads"] == "1"
    assert status["Name"] == "pyrtc-attendant" and int(status["PPid"]) != os.getpid()
    links = sorted(re.sub(r"\d", "", os.readlink(path)) for path in (process / "fd").iterdir())
    known = ["/dev/null"] * 3 + ["anon_inode:[eventpoll]"] + ["socket:[]"] * 3
    known += [re.sub(r"\d", "", str(path)) for path in (attended.directory, attended.names)]
    assert sorted(link for link in links if "pidfd" not in link) == sorted(known)
    assert len(links) == len(known) + 1
    assert os.readlink(process / "cwd") == "/"
    assert (process / "environ").read_bytes() == b""
    assert (process / "stat").stat().st_uid == 0 and (process / "mem").stat().st_mode & 0o077 == 0
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    assert int(fields[3]) == pid  # its session
    # As root of the container without CAP_SYS_PTRACE would see it with --pid host.
    looking = attended.place.run(
        "setpriv", "--bounding-set=-all", "--inh-caps=-all", "ls", "-l", f"/proc/{pid}/fd", check=False
    )
    assert looking.returncode and "Permission denied" in looking.stderr


def test_an_attendant_is_small(attended: Attended) -> None:
    """Also when it has answered much; what others execute of the same file is theirs as well."""
    attended.serve("127.0.0.53")
    attended.write(BACK, "back", ["web 4 ac120009"])
    attended.knows(BACK, servers=["4 7f000035 53"])
    pid = attended.start([("tcp", "::1", 8080, INSIDE, 80)])
    attended.python(ASK, "500", "web", "2")
    attended.python(ASK, "200", "example.org", "4")
    assert attended.dig("example.org", "+tcp").records == ["192.0.2.1"]
    with Inside(attended, REVERSING, INSIDE, "80"):
        assert attended.place.python(SENDING, "::1", "8080", "5000000") == "done\n"
    assert eventually(lambda: memory(pid) < 150 * 1024), memory(pid)


def memory(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Rss:")]
    return int(line.split()[1]) << 10


def test_it_ends_with_the_container(attended: Attended) -> None:
    attended.knows(BACK)
    attended.start([("tcp", "::1", 8080, INSIDE, 80), ("udp", "::1", 8080, INSIDE, 80)])
    assert attended.alive()
    attended.end()
    assert not attended.alive()


def test_a_container_that_has_ended_already(attended: Attended) -> None:
    attended.container.send_signal(signal.SIGKILL)
    assert eventually(lambda: not running(attended.pid))  # a zombie, whose namespaces are gone
    with pytest.raises(AssertionError, match="No such file or directory"):
        attended.start(name_server=False)


def test_the_name_server_is_there_once(attended: Attended) -> None:
    attended.knows(BACK)
    attended.start()
    with pytest.raises(AssertionError, match="EADDRINUSE"):
        attended.start()


def test_nothing_is_left(place: Place, tmp_path: Path) -> None:
    attended = Attended(place, tmp_path)
    attended.knows(BACK)
    attended.start([("tcp", "::1", 8080, INSIDE, 80)])
    attended.close()
    assert not running(attended.attendant)
    assert eventually(lambda: "pv0" not in place.links())  # with the namespace that the attendant's sockets held
