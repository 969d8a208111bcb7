"""Names that containers may connect to: what they open, for how long, and what nobody opens with them; as root."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from network_place import HOST, HOST6, OUTSIDE, OUTSIDE6, Place, eventually, place
from test_network_starts import about, clean, run, server, settings

from pyrtc.network.egress import CLOSED4, CLOSED6, LIVES

__all__ = ["place"]

FAR, FAR2, FAR6 = "203.0.113.5", "203.0.113.6", "2001:db8:77::5"  # behind the outside
PRIVATE, METADATA, PRIVATE6 = "10.99.0.1", "169.254.169.254", "fd00:99::1"  # there, too

# Says for each name/port whether a TCP connection or its refusal came back, or that there is no such name, or no way.
TRY = """
import socket, sys
for word in sys.argv[1:]:
    host, port = word.rsplit("/", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=10): print("connected")
    except ConnectionRefusedError: print("reached")
    except socket.gaierror as error: print("unknown" if error.errno == socket.EAI_NONAME else repr(error))
    except OSError as error: print("blocked" if error.errno in (1, 13, 101, 113) else repr(error))
"""
HOLD = """
import socket, sys
s = socket.create_connection((sys.argv[1], 80), timeout=30)
print(s.recv(99).decode(), flush=True)
for line in sys.stdin:
    s.sendall(line.encode()); print(s.recv(99).decode().strip(), flush=True)
"""
ECHO = """
import socket, threading
def talk(c):
    c.sendall(b"hello")
    while data := c.recv(99): c.sendall(data)
s = socket.create_server(("0.0.0.0", 80)); print("up", flush=True)
while True: threading.Thread(target=talk, args=(s.accept()[0],), daemon=True).start()
"""


class Zone:
    """A resolver on the host, which containers have asked by their own ones."""

    def __init__(self, place: Place, directory: Path) -> None:
        self._file, self._log = directory / "zone", directory / "log"
        self._log.touch()
        self.records: dict[str, list[Any]] = {}
        self.write()
        script = Path(__file__).with_name("zone_server.py")
        words = (sys.executable, script, "127.0.0.1", "53", self._file, self._log)
        self.process = place.popen(*map(str, words), stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def write(self, **_names: str) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(self.records))
        new.rename(self._file)

    def has(self, name: str, *data: str, seconds: int = 60, owner: str = "") -> None:
        """Have a name resolve to addresses, or be an alias; data after an alias are of that."""
        records: list[list[Any]] = []
        owner = owner or name
        for word in data:
            kind = "AAAA" if ":" in word else "A" if word[-1].isdigit() else "CNAME"
            records.append([owner, kind, seconds, word])
            if kind == "CNAME":
                owner = word
        self.records[name] = records
        self.write()

    def asked(self) -> list[str]:
        """Return the names that it was asked for."""
        return [line.split()[1] for line in self._log.read_text().splitlines()]

    def protocols(self, name: str) -> set[str]:
        return {line.split()[0] for line in self._log.read_text().splitlines() if line.split()[1] == name}


@pytest.fixture
def zone(place: Place, tmp_path: Path) -> Iterator[Zone]:
    for address in (FAR, FAR2, PRIVATE, METADATA):
        place.outside.run("ip", "addr", "add", f"{address}/32", "dev", "lo")
    for address in (FAR6, PRIVATE6):
        place.outside.run("ip", "-6", "addr", "add", f"{address}/128", "dev", "lo")
    opened = Zone(place, tmp_path)
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.communicate()


def start(place: Place, egress: str, *words: str, name: str = "some") -> None:
    run(place, "--name", name, "--network", "bridge", "--dns", "127.0.0.1", *words, "--egress", egress)


def reach(place: Place, *words: str, name: str = "some") -> list[str]:
    return place.pyrtc("exec", name, "python3", "-c", TRY, *words).stdout.split()


def found(place: Place, name: str = "some") -> dict[str, dict[str, int]]:
    """Return the addresses that are open by names, for how long each: by the name of the set."""
    pid = about(place, name)["State"]["Pid"]
    shown = place.run("nsenter", f"--net=/proc/{pid}/ns/net", "nft", "--json", "list", "ruleset").stdout
    sets = [
        item["set"] for item in json.loads(shown)["nftables"] if item.get("set", {}).get("name", "").startswith("n")
    ]
    return {
        one["name"]: {item["elem"]["val"]: item["elem"]["timeout"] for item in one["elem"]}
        for one in sets
        if one.get("elem")
    }


def test_names_and_patterns(place: Place, zone: Zone) -> None:
    for name in ("example.com", "www.example.com", "a.b.wild.example", "wild.example", "deep.both.example"):
        zone.has(name, FAR)
    zone.has("both.example", FAR2)
    zone.has("secret.example", FAR)
    words = "Example.com.,*.wild.example,.both.example"
    plan = place.pyrtc("run", "--plan", "--network", "bridge", "--egress", words, "host", "true").stdout.splitlines()
    assert "egress          example.com *.wild.example .both.example" in plan
    start(place, words)
    assert about(place, "some")["HostConfig"]["Egress"] == ["example.com", "*.wild.example", ".both.example"]
    assert reach(place, f"{FAR}/9") == ["blocked"], "nobody has asked for a name of it"
    assert reach(place, "EXAMPLE.com./9", f"{FAR}/9", f"{FAR2}/9") == ["reached", "reached", "blocked"]
    assert reach(place, "a.b.wild.example/9", "deep.both.example/9", "both.example/9") == ["reached"] * 3
    words = ("www.example.com/9", "wild.example/9", "secret.example/9", "xexample.com/9", "com/9", "xboth.example/9")
    assert reach(place, *words) == ["unknown"] * len(words)
    asked = set(zone.asked())
    assert asked == {"example.com", "a.b.wild.example", "deep.both.example", "both.example"}, "no other is told to any"
    clean(place)


def test_a_label_with_a_dot_is_another_name(place: Place, zone: Zone) -> None:
    """`data.example` and `com`, two labels, read as what is allowed."""
    start(place, ".example.com")
    query = "\\x00\\x07\\x01\\0\\0\\x01\\0\\0\\0\\0\\0\\0\\x0cdata.example\\x03com\\0\\0\\x01\\0\\x01"
    ask = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10)\n"
        f"s.sendto('{query}'.encode('latin-1'), ('127.0.0.11', 53)); print(s.recv(99)[3] & 15)"
    )
    assert place.pyrtc("exec", "some", "python3", "-c", ask).stdout.strip() == "3"
    assert not zone.asked()
    clean(place)


def test_other_kinds_of_question(place: Place, zone: Zone) -> None:
    """Of one that is not allowed nothing is asked, neither over UDP nor over TCP, of any type."""
    zone.has("example.com", FAR)
    start(place, "example.com")
    for words in (["TXT", "x.example.org"], ["+tcp", "A", "x.example.org"], ["-x", FAR], ["ANY", "example.org"]):
        said = place.pyrtc("exec", "some", "dig", "@127.0.0.11", "+tries=1", *words).stdout
        assert "status: NXDOMAIN" in said, said
    assert not zone.asked()
    assert "status: NOERROR" in place.pyrtc("exec", "some", "dig", "@127.0.0.11", "TXT", "example.com").stdout
    for server_address in (HOST, OUTSIDE, "127.0.0.1"):
        words = ["dig", f"@{server_address}", "+tries=1", "+time=2", "example.com"]
        assert place.pyrtc("exec", "some", *words, check=False).returncode != 0, "it asks nobody else"
    clean(place)


def test_aliases(place: Place, zone: Zone) -> None:
    names = [f"n{number}.cdn.example" for number in range(15)]
    zone.has("example.com", *names, FAR)
    zone.records["loop.example"] = [
        ["loop.example", "CNAME", 60, "other.example"],
        ["other.example", "CNAME", 60, "loop.example"],
        ["other.example", "A", 60, FAR2],
    ]
    # In no order, and with what nobody has asked about.
    zone.records["mixed.example"] = [
        ["bystander.example", "A", 60, OUTSIDE],
        ["last.example", "A", 60, FAR2],
        ["Middle.example", "CNAME", 60, "last.example"],
        ["mixed.example", "CNAME", 60, "middle.EXAMPLE"],
        ["example", "A", 60, OUTSIDE],
    ]
    zone.write()
    start(place, "example.com,loop.example,mixed.example")
    assert reach(place, "example.com/9", "n3.cdn.example/9") == ["reached", "unknown"]
    assert found(place) == {"named4_300": {FAR: 300}}
    place.pyrtc("exec", "some", "dig", "@127.0.0.11", "mixed.example")
    assert found(place) == {"named4_300": {FAR: 300, FAR2: 300}}
    assert reach(place, f"{OUTSIDE}/9", f"{FAR2}/9") == ["blocked", "reached"]
    place.pyrtc("exec", "some", "dig", "@127.0.0.11", "loop.example")
    zone.has("example.com", *names, "n15.cdn.example", OUTSIDE)
    place.pyrtc("exec", "some", "dig", "@127.0.0.11", "example.com")
    assert reach(place, f"{OUTSIDE}/9") == ["blocked"], "too long a chain counts to its end no more"
    clean(place)


def test_over_tcp_and_many(place: Place, zone: Zone) -> None:
    many = [f"203.0.{number // 200 + 114}.{number % 200 + 1}" for number in range(900)]
    zone.has("truncated.example.com", *many, FAR)
    start(place, "*.example.com")
    assert reach(place, f"{FAR}/9") == ["blocked"]
    place.pyrtc("exec", "some", "dig", "@127.0.0.11", "truncated.example.com")
    assert zone.protocols("truncated.example.com") == {"udp", "tcp"}
    assert found(place)["named4_300"].keys() == {*many, FAR}
    assert reach(place, f"{FAR}/9") == ["reached"]
    clean(place)


def test_ipv6(place: Place, zone: Zone) -> None:
    place.pyrtc("network", "create", "--ipv6", "six")
    zone.has("example.com", FAR6)
    zone.has("private.example.com", PRIVATE6)
    zone.has("host.example.com", HOST6)
    zone.has("mapped.example.com", f"::ffff:{OUTSIDE}")
    run(place, "--name", "some", "--network", "six", "--dns", "127.0.0.1", "--egress", ".example.com")
    assert reach(place, f"{FAR6}/9", "example.com/9", f"{OUTSIDE6}/9") == ["blocked", "reached", "blocked"]
    assert reach(place, "private.example.com/9", "host.example.com/9", f"{OUTSIDE}/9") == ["blocked"] * 3
    assert reach(place, "mapped.example.com/9", f"{OUTSIDE}/9") == ["blocked", "blocked"]
    assert found(place) == {"named6_300": {FAR6: 300}}
    clean(place)


def test_what_no_name_opens(place: Place, zone: Zone) -> None:
    """Whoever has an allowed name lets it lead to what is somebody's own."""
    server(place, "neighbour", "--network", "bridge")
    neighbour, gateway = settings(place, "neighbour")["IPAddress"], settings(place, "neighbour")["Gateway"]
    bad = [HOST, gateway, neighbour, PRIVATE, METADATA]
    bad += [one.replace("0/", "9/").partition("/")[0] for one in CLOSED4]
    for number, address in enumerate(bad):
        zone.has(f"n{number}.example.com", address)
    zone.has("all.example.com", *(address for address in bad if address != FAR), FAR)
    start(place, ".example.com")
    for address in (PRIVATE, METADATA):
        assert (
            place.pyrtc("run", "--network", "bridge", "host", "python3", "-c", TRY, f"{address}/9").stdout
            == "reached\n"
        )
    assert set(reach(place, *(f"n{number}.example.com/80" for number in range(len(bad))))) <= {"blocked", "reached"}
    assert not found(place)
    assert reach(place, f"{HOST}/9", f"{neighbour}/80", f"{PRIVATE}/9", f"{METADATA}/9") == ["blocked"] * 4
    reach(place, "all.example.com/9")
    assert reach(place, f"{FAR}/9", f"{PRIVATE}/9") == ["reached", "blocked"], "the one that is nobody's own"
    assert found(place) == {"named4_300": {FAR: 300}}
    assert "64:ff9b::a00:0/104" in CLOSED6 and "64:ff9b::a9fe:0/112" in CLOSED6
    # What is named itself is open.
    start(place, f"example.com,{PRIVATE}", name="more")
    zone.has("example.com", PRIVATE)
    assert reach(place, "example.com/9", name="more") == ["reached"]
    clean(place)


def test_how_long(place: Place, zone: Zone) -> None:
    start(place, ".example.com")
    expected: dict[str, dict[str, int]] = {}
    for number, (seconds, life) in enumerate(
        ((0, 60), (30, 60), (31, 300), (270, 300), (3600, 7200), (7171, 86400), (1 << 30, 86400), (1 << 31, 60))
    ):
        assert life in LIVES
        zone.has("example.com", f"203.0.113.{number + 100}", seconds=seconds)
        place.pyrtc("exec", "some", "dig", "@127.0.0.11", "example.com")
        expected.setdefault(f"named4_{life}", {})[f"203.0.113.{number + 100}"] = life
    assert found(place) == expected
    clean(place)


def test_connections_outlive_the_answer(place: Place, zone: Zone) -> None:
    zone.has("example.com", FAR, seconds=1)
    echo = place.outside.popen(sys.executable, "-c", ECHO, stdout=subprocess.PIPE)
    try:
        assert echo.stdout is not None and echo.stdout.readline() == b"up\n"
        start(place, "example.com")
        pid = about(place, "some")["State"]["Pid"]
        words = (sys.executable, "-m", "pyrtc.cli.main", "exec", "-i", "some", "python3", "-c", HOLD, "example.com")
        holding = place.popen(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert holding.stdout is not None and holding.stdin is not None
        assert holding.stdout.readline() == b"hello\n"
        assert reach(place, f"{FAR}/80") == ["connected"]
        # A minute later, in no time.
        inside = ("nsenter", f"--net=/proc/{pid}/ns/net", "nft", "delete", "element", "inet", "pyrtc_egress")
        place.run(*inside, "named4_60", f"{{ {FAR} }}")
        assert reach(place, f"{FAR}/80") == ["blocked"]
        holding.stdin.write(b"still\n")
        holding.stdin.flush()
        assert holding.stdout.readline() == b"still\n"
        assert reach(place, "example.com/80", f"{FAR}/80") == ["connected", "connected"], "asked for again"
        holding.stdin.close()
        assert holding.wait(30) == 0
        holding.stdout.close()
    finally:
        echo.kill()
        echo.communicate()
    clean(place)


def test_it_ends_in_time(place: Place, zone: Zone) -> None:
    """With the shortest life it can have, which takes the rules' word for a second."""
    zone.has("example.com", FAR, seconds=1)
    start(place, "example.com")
    pid = about(place, "some")["State"]["Pid"]
    inside = ("nsenter", f"--net=/proc/{pid}/ns/net", "nft")
    assert reach(place, "example.com/9") == ["reached"]
    place.run(*inside, "flush", "set", "inet", "pyrtc_egress", "named4_60")
    place.run(*inside, "add", "element", "inet", "pyrtc_egress", "named4_60", f"{{ {FAR} timeout 1s }}")
    assert eventually(lambda: reach(place, f"{FAR}/9") == ["blocked"], 10)
    clean(place)


def test_a_set_that_is_full(place: Place, zone: Zone) -> None:
    start(place, ".example.com,192.0.2.1")
    every = [f"100.{4 + number // 65536}.{number // 256 % 256}.{number % 256}" for number in range(4100)]
    for part in range(5):
        zone.has(f"truncated.n{part}.example.com", *every[part * 1000 : part * 1000 + 1000])
        place.pyrtc("exec", "some", "dig", "@127.0.0.11", f"truncated.n{part}.example.com")
    assert len(found(place)["named4_300"]) == 4096
    zone.has("example.com", FAR)
    assert reach(place, "example.com/9") == ["blocked"], "no room, no way"
    zone.has("example.com", FAR, seconds=5)
    assert reach(place, "example.com/9") == ["reached"]
    clean(place)


def test_thousands_of_names(place: Place, zone: Zone) -> None:
    last = f"{'x' * 63}.{'y' * 63}.{'z' * 63}.example.com"
    zone.has(last, FAR)
    zone.has("n4321.example.org", FAR2)
    words = ",".join(f"n{number}.example.org" for number in range(5000))
    start(place, f"{words},.{last}")
    assert reach(place, f"{last}/9", "n4321.example.org/9", "n5000.example.org/9") == ["reached", "reached", "unknown"]
    clean(place)


def test_answers_wait_for_the_way(place: Place, zone: Zone) -> None:
    """Whoever has an answer connects at once, always."""
    for number in range(200):
        zone.records[f"n{number}.example.com"] = [[f"n{number}.example.com", "A", 60, f"203.0.114.{number + 1}"]]
    zone.write()
    place.outside.run("ip", "route", "add", "local", "203.0.114.0/24", "dev", "lo")
    start(place, "*.example.com")
    words = [f"n{number}.example.com/9" for number in range(200)]
    assert reach(place, *words) == ["reached"] * 200
    clean(place)


def test_lives_and_networks(place: Place, zone: Zone) -> None:
    """What has been found stays while networks come and go; the next life begins with nothing."""
    place.pyrtc("network", "create", "one")
    server(place, "other", "--network", "one")
    zone.has("example.com", FAR)
    start(place, "example.com", "--restart", "always")
    assert reach(place, "example.com/9", "other/80") == ["reached", "unknown"]
    place.pyrtc("network", "connect", "one", "some")
    assert reach(place, f"{FAR}/9", "other/80", "example.com/9") == ["reached", "blocked", "reached"]
    place.pyrtc("network", "disconnect", "one", "some")
    assert reach(place, f"{FAR}/9", "example.com/9", "example.org/9") == ["reached", "reached", "unknown"]
    place.pyrtc("restart", "some")
    assert not found(place)
    assert reach(place, f"{FAR}/9", "example.com/9") == ["blocked", "reached"]
    first = about(place, "some")["State"]["Pid"]
    place.run("kill", "-9", str(first))
    assert eventually(lambda: about(place, "some")["State"]["Pid"] not in (0, first)), "its monitor starts it again"
    assert reach(place, f"{FAR}/9", "example.com/9", "example.org/9") == ["blocked", "reached", "unknown"]
    attendant = (Path(about(place, "some")["GraphDriver"]["Data"]["UpperDir"]).parent / "attendant").read_text()
    place.run("kill", "-9", attendant.split()[0])
    words = (f"{FAR}/9", f"{FAR2}/9")
    assert eventually(lambda: reach(place, "example.com/9")[0] not in ("reached", "blocked")), "no names any more"
    assert reach(place, *words) == ["reached", "blocked"], "and nothing more is open than before"
    clean(place)


def test_with_local_and_published_ports(place: Place, zone: Zone) -> None:
    place.pyrtc("network", "create", "one")
    server(place, "other", "--network", "one")
    zone.has("example.com", FAR)
    words = ("--network", "one", "--dns", "127.0.0.1", "--egress", "local,example.com", "-p", "8080:80")
    server(place, "some", *words)
    assert reach(place, "other/80", "example.com/9", f"{OUTSIDE}/9") == ["connected", "reached", "blocked"]
    place.pyrtc("network", "create", "two")
    place.pyrtc("network", "connect", "two", "some")
    place.pyrtc("network", "disconnect", "one", "some")
    assert reach(place, "example.com/9", "example.org/9") == ["reached", "unknown"], "another attendant"
    place.pyrtc("network", "create", "--internal", "inner")
    words = ("--network", "inner", "--dns", "127.0.0.1", "--egress", "example.com")
    run(place, "--name", "inside", *words)
    assert reach(place, "example.com/9", name="inside") == ["unknown"], "an internal network asks nobody"
    clean(place)


@pytest.mark.parametrize("userns", ["auto", "host"])
def test_in_the_foreground(place: Place, zone: Zone, userns: str) -> None:
    zone.has("example.com", FAR)
    words = ("run", "--rm", "--network", "bridge", "--dns", "127.0.0.1", "--userns", userns, "--egress", "example.com")
    done = place.pyrtc(*words, "host", "python3", "-c", TRY, f"{FAR}/9", "example.com/9", "example.org/9")
    assert done.stdout.split() == ["blocked", "reached", "unknown"]
    clean(place)


def test_over_macvlan(place: Place, zone: Zone) -> None:
    place.pyrtc("network", "create", "-d", "macvlan", "--subnet", "198.51.100.0/24", "-o", "parent=wan0", "mac")
    zone.has("example.com", OUTSIDE)
    words = ("--network", "name=mac,ip=198.51.100.77", "--dns", "127.0.0.1", "--egress", f"example.com,{OUTSIDE}")
    run(place, "--name", "some", *words)
    assert reach(place, "example.com/9", "example.org/9") == ["reached", "unknown"]
    clean(place)


# What a container tries, as root in it, with a user namespace of its own and without.
MARK = """
import os, socket, sys, ctypes
def attempt():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try: s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x70797274)
    except PermissionError: print("refused")
    mark = (socket.SOL_SOCKET, socket.SO_MARK, (0x70797274).to_bytes(4, sys.byteorder))
    try: s.sendmsg([b"x"], [mark], 0, (sys.argv[1], 1))
    except PermissionError: print("refused")
attempt()
if ctypes.CDLL(None, use_errno=True).unshare(0x10000000) == 0: attempt()
else: print("no namespace")
"""


def test_the_container_can_mark_nothing(place: Place, zone: Zone) -> None:
    start(place, "example.com", "--security-opt", "seccomp=unconfined")
    said = place.pyrtc("exec", "some", "python3", "-c", MARK, FAR).stdout.split("\n")
    assert said == ["refused"] * 4 + [""], said
    assert not found(place) and reach(place, f"{FAR}/9") == ["blocked"]
    # Nor with the ports that the attendant says a life by.
    knock = f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('{FAR}', 1))"
    place.pyrtc("exec", "some", "python3", "-c", knock, check=False)
    assert not found(place)
    clean(place)
