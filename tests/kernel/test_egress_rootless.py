"""Where an ordinary user's containers may connect to, by pasta and by slirp4netns."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from network_place import HOST, OUTSIDE, Place, eventually, place
from test_egress_names import FAR, FAR2, FAR6, MARK, METADATA, PRIVATE, TRY, Zone, zone
from test_rootless_network import User, program, user

__all__ = ["place", "program", "user", "zone"]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make the place in which the ordinary user is"),
    pytest.mark.timeout(300),
]
SLEEP = ("host", "sleep", "1000000")


SERVER = """
import socket, threading
def serve(family, address):
    made = socket.create_server((address, 80), family=family)
    while True: made.accept()[0].close()
threading.Thread(target=serve, args=(socket.AF_INET6, "::")).start()
print("up", flush=True); serve(socket.AF_INET, "0.0.0.0")
"""


@pytest.fixture(autouse=True)
def anywhere(place: Place) -> Iterator[None]:
    """Something listens on port 80 outside: not every pasta hands on that nothing does."""
    server = place.outside.popen(sys.executable, "-c", SERVER, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None and server.stdout.readline() == b"up\n"
        yield
    finally:
        server.kill()
        server.communicate()


def start(user: User, program: str, egress: str, *words: str, name: str = "some") -> None:
    network = ("--network", program, "--dns", "127.0.0.1", "--stop-timeout", "0")
    user.pyrtc("run", "-d", "--name", name, *network, *words, "--egress", egress, *SLEEP)


def reach(user: User, *words: str, name: str = "some") -> list[str]:
    return user.pyrtc("exec", name, "python3", "-c", TRY, *words).stdout.split()


def found(user: User, name: str = "some") -> set[str]:
    """Return the addresses that are open by names."""
    pid = json.loads(user.pyrtc("inspect", name).stdout)[0]["State"]["Pid"]
    shown = user.place.run("nsenter", f"--net=/proc/{pid}/ns/net", "nft", "--json", "list", "ruleset").stdout
    sets = [item["set"] for item in json.loads(shown)["nftables"] if "set" in item]
    return {item["elem"]["val"] for one in sets if one["name"].startswith("named") for item in one.get("elem", ())}


def test_addresses(user: User, program: str, zone: Zone) -> None:
    start(user, program, f"{OUTSIDE},203.0.113.0/29")
    assert reach(user, f"{OUTSIDE}/80", f"{FAR}/80", f"{PRIVATE}/80", "127.0.0.1/9") == [
        "connected",
        "connected",
        "blocked",
        "reached",
    ]
    user.pyrtc("restart", "some")
    assert reach(user, f"{OUTSIDE}/80", f"{PRIVATE}/80", "example.com/80")[:2] == ["connected", "blocked"], (
        "in its next life"
    )
    assert not zone.asked(), "with addresses alone no name is asked for"
    start(user, program, "none", name="closed")
    assert reach(user, f"{OUTSIDE}/80", f"{FAR}/80", f"{FAR6}/80", name="closed") == ["blocked"] * 3


def test_names(user: User, program: str, zone: Zone) -> None:
    zone.has("example.com", "cdn.example.net", FAR)
    zone.has("host.example.com", HOST)
    zone.has("private.example.com", PRIVATE, METADATA)
    zone.has("truncated.example.com", FAR2)
    start(user, program, ".example.com")
    assert reach(user, f"{FAR}/80", "example.com/80", f"{FAR}/80") == ["blocked", "connected", "connected"]
    assert reach(user, "cdn.example.net/80", "example.org/80") == ["unknown", "unknown"]
    assert set(reach(user, "host.example.com/80", "private.example.com/80", f"{PRIVATE}/80")) <= {"blocked", "reached"}
    assert reach(user, "truncated.example.com/80", f"{OUTSIDE}/80") == ["connected", "blocked"]
    assert found(user) == {FAR, FAR2}
    assert set(zone.asked()) == {f"{name}example.com" for name in ("", "host.", "private.", "truncated.")}
    user.pyrtc("restart", "some")
    assert reach(user, f"{FAR}/80", "example.com/80", "example.org/80") == ["blocked", "connected", "unknown"]


def test_in_the_foreground(user: User, program: str, zone: Zone) -> None:
    zone.has("example.com", FAR)
    words = ("run", "--rm", "--network", program, "--dns", "127.0.0.1", "--egress", "example.com", "host")
    done = user.pyrtc(*words, "python3", "-c", TRY, f"{FAR}/80", "example.com/80", "example.org/80")
    assert done.stdout.split() == ["blocked", "connected", "unknown"]
    assert eventually(user.nothing_is_left)


def test_it_cannot_be_got_around(user: User, program: str, zone: Zone) -> None:
    start(user, program, "example.com", "--security-opt", "seccomp=unconfined")
    for command in (
        ["nft", "flush", "ruleset"],
        ["nft", "delete", "table", "inet", "pyrtc_egress"],
        ["unshare", "--user", "--map-root-user", "nft", "flush", "ruleset"],
        ["python3", "-c", "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"],
    ):
        refused = user.pyrtc("exec", "some", *command, check=False)
        assert refused.returncode != 0 and "not permitted" in refused.stderr, (command, refused)
    said = user.pyrtc("exec", "some", "python3", "-c", MARK, FAR).stdout.split("\n")
    assert said == ["refused"] * 4 + [""], said
    assert not found(user) and reach(user, f"{FAR}/80") == ["blocked"]
    joined = user.pyrtc("run", "--network", "container:some", "host", "true", check=False)
    assert joined.returncode == 125 and "--egress" in joined.stderr
    refused = user.pyrtc("run", "--network", program, "--egress", "local", "host", "true", check=False)
    assert refused.returncode == 125 and "alone on its own" in refused.stderr


def test_from_python_with_threads(user: User, program: str, zone: Zone) -> None:
    """Several at once, of a process with threads and many descriptors, which stays where it is."""
    zone.has("example.com", FAR)
    source = f"""
import os, sys, pyrtc
from concurrent.futures import ThreadPoolExecutor
files = [os.open("/dev/null", os.O_RDONLY) for _ in range(200)]
def place():
    return [os.stat("/proc/self/ns/" + name).st_ino for name in ("user", "net")], len(os.listdir("/proc/self/fd"))
def one(_):
    return pyrtc.run("host", ["python3", "-c", sys.argv[1], "{FAR}/80", "example.com/80", "example.org/80"],
                     network="{program}", dns=["127.0.0.1"], egress=["example.com"]).stdout.decode().split()
with ThreadPoolExecutor(4) as pool:
    list(pool.map(one, range(4)))  # what is opened once
    before = place()
    results = list(pool.map(one, range(8)))
    after = place()
print(all(result == ["blocked", "connected", "unknown"] for result in results) or results)
print(before == after or (before, after))
"""
    assert user.run(sys.executable, "-c", source, TRY).stdout.split("\n") == ["True", "True", ""]
