"""Containers in networks, from their start to their end, as root in a place of the test's own."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from network_place import HOST, HOST6, OUTSIDE, Place, eventually, place

__all__ = ["place"]

SLEEP = ["sleep", "1000000"]
SERVER = """
import socket, threading, sys
def serve(family, kind, address, port):
    s = socket.socket(family, kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((address, port))
    if kind == socket.SOCK_DGRAM:
        while True:
            data, peer = s.recvfrom(99); s.sendto(f"{sys.argv[1]} {peer[0]}".encode(), peer)
    s.listen()
    print("up", flush=True)
    while True:
        c, peer = s.accept(); c.sendall(f"{sys.argv[1]} {peer[0]}".encode()); c.close()
for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        threading.Thread(target=serve, args=(family, kind, address, 80)).start()
"""
ASK = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)
print(s.recv(99).decode())
"""
ASK_UDP = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3)
for _ in range(5):
    s.sendto(b"x", (sys.argv[1], int(sys.argv[2])))
    try: print(s.recv(99).decode()); break
    except TimeoutError: pass
"""


def run(place: Place, *words: str, command: "list[str] | None" = None) -> str:
    """Start a detached container of the host's own files; returns its id."""
    return place.pyrtc("run", "-d", "--stop-timeout", "0", *words, "host", *(command or SLEEP)).stdout.strip()


def server(place: Place, name: str, *words: str) -> str:
    container = run(place, "--name", name, *words, command=["python3", "-c", SERVER, name])
    assert eventually(lambda: "up" in place.pyrtc("logs", name).stdout)
    return container


def about(place: Place, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(place.pyrtc("inspect", name).stdout)[0]
    return found


def settings(place: Place, name: str, network: str = "bridge") -> dict[str, Any]:
    found: dict[str, Any] = about(place, name)["NetworkSettings"]["Networks"][network]
    return found


def ask(where: Any, address: str, port: int | str) -> str:
    answer: str = where.run("python3", "-c", ASK, address, str(port)).stdout.strip()
    return answer


def ask_udp(where: Any, address: str, port: int | str) -> str:
    answer: str = where.run("python3", "-c", ASK_UDP, address, str(port)).stdout.strip()
    return answer


def clean(place: Place) -> None:
    """Remove everything, and look that nothing is left."""
    if left := place.pyrtc("ps", "-aq").stdout.split():
        place.pyrtc("rm", "-f", *left, check=False)  # one that goes with its end may be gone
    place.pyrtc("network", "prune", "-f")
    place.assert_clean()


def elements(place: Place) -> str:
    return place.run("nft", "list", "table", "inet", "pyrtc", check=False).stdout


def test_a_container_reaches_the_world_through_the_default_bridge(place: Place) -> None:
    script = "ip -json addr; ip -json route; cat /etc/hosts; ping -c1 -W10 " + OUTSIDE
    done = place.pyrtc("run", "--rm", "--network", "bridge", "--hostname", "one", "host", "sh", "-ec", script)
    lines = done.stdout.splitlines()
    links, routes = (json.loads(line) for line in lines[:2])
    device = next(link for link in links if link["ifname"] == "eth0")
    address = next(item["local"] for item in device["addr_info"] if item["family"] == "inet")
    assert f"{address}\tone" in lines
    assert next(route["gateway"] for route in routes if route["dst"] == "default")
    clean(place)


def test_two_containers_of_a_network_reach_each_other_and_no_others(place: Place) -> None:
    place.pyrtc("network", "create", "web")
    place.pyrtc("network", "create", "db")
    server(place, "one", "--network", "web")
    run(place, "--name", "two", "--network", "web")
    run(place, "--name", "three", "--network", "db")
    address = settings(place, "one", "web")["IPAddress"]
    client = ["python3", "-c", ASK, address, "80"]
    assert place.pyrtc("exec", "two", *client).stdout.startswith("one ")
    assert place.pyrtc("exec", "three", "timeout", "3", *client, check=False).returncode != 0
    found = json.loads(place.pyrtc("network", "inspect", "web").stdout)[0]
    assert {item["Name"] for item in found["Containers"].values()} == {"one", "two"}
    assert place.pyrtc("network", "rm", "web", check=False).returncode != 0
    clean(place)


def test_published_ports_lead_in_from_everywhere(place: Place) -> None:
    server(place, "one", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "5353:80/udp")
    assert ask(place.outside, HOST, 8080) == f"one {OUTSIDE}", "the client's address is kept"
    assert ask_udp(place.outside, HOST, 5353) == f"one {OUTSIDE}"
    assert ask(place, HOST, 8080).startswith("one ")
    assert ask(place, "127.0.0.1", 8080).startswith("one ")
    assert ask(place, "127.0.0.1", 8081).startswith("one ")
    assert ask_udp(place, "127.0.0.1", 5353).startswith("one ")
    run(place, "--name", "two", "--network", "bridge")
    gateway = settings(place, "one")["Gateway"]
    for name in ("one", "two"):
        for address in (gateway, HOST):
            assert place.pyrtc("exec", name, "python3", "-c", ASK, address, "8080").stdout.startswith("one ")
    failed = place.outside.run("timeout", "3", "python3", "-c", ASK, HOST, "8081", check=False)
    assert failed.returncode != 0, "an address of this machine's own only"
    assert place.pyrtc("port", "one", "80").stdout.splitlines() == ["0.0.0.0:8080", "[::]:8080", "127.0.0.1:8081"]
    shown = place.pyrtc("ps", "--format", "{{.Names}} {{.Ports}}").stdout
    for text in ("0.0.0.0:8080->80/tcp", "127.0.0.1:8081->80/tcp", "[::]:8080->80/tcp", "[::]:5353->80/udp"):
        assert text in shown
    clean(place)


def test_a_network_with_ipv6(place: Place) -> None:
    place.pyrtc("network", "create", "--ipv6", "--subnet", "fd00:51::/64", "six")
    server(place, "one", "--network", "six", "--ip6", "fd00:51::7", "-p", "8080:80")
    inside = place.pyrtc("run", "--rm", "--network", "six", "host", "python3", "-c", ASK, "fd00:51::7", "80").stdout
    assert inside.startswith("one fd00:51::")
    assert ask(place.outside, HOST6, 8080).startswith("one ")
    assert settings(place, "one", "six")["GlobalIPv6Address"] == "fd00:51::7"
    clean(place)


def test_addresses_macs_and_several_networks(place: Place) -> None:
    place.pyrtc("network", "create", "--subnet", "10.77.0.0/24", "a")
    place.pyrtc("network", "create", "--subnet", "10.78.0.0/24", "--internal", "b")
    run(place, "--name", "one", "--network", "name=b,ip=10.78.0.9", "--network", "name=a,mac-address=02:42:0a:00:00:05")
    shown = json.loads(place.pyrtc("exec", "one", "ip", "-json", "addr").stdout)
    devices = {link["ifname"]: link for link in shown}
    assert devices["eth0"]["addr_info"][0]["local"] == "10.78.0.9"
    assert devices["eth1"]["address"] == "02:42:0a:00:00:05"
    routes = json.loads(place.pyrtc("exec", "one", "ip", "-json", "route").stdout)
    assert [route["dev"] for route in routes if route["dst"] == "default"] == ["eth1"], "b leads nowhere"
    taken = place.pyrtc("run", "--network", "name=b,ip=10.78.0.9", "host", "true", check=False)
    assert taken.returncode == 125 and "already in use" in taken.stderr
    wrong = place.pyrtc("run", "--network", "name=b,ip=10.79.0.9", "host", "true", check=False)
    assert wrong.returncode == 125 and "Traceback" not in wrong.stderr
    missing = place.pyrtc("run", "--network", "nowhere", "host", "true", check=False)
    assert missing.returncode == 125 and "network nowhere not found" in missing.stderr
    assert place.pyrtc("ps", "-aq").stdout.split() == [about(place, "one")["Id"][:12]], "failed starts leave nothing"
    clean(place)


def test_a_published_port_that_is_taken(place: Place) -> None:
    run(place, "--name", "one", "-p", "8080:80")
    holder = "import socket, sys; s = socket.create_server(('', 8081)); print(1, flush=True); sys.stdin.read()"
    with place.popen("python3", "-c", holder, stdin=-1, stdout=-1) as process:
        assert process.stdout is not None and process.stdout.readline()
        done = place.pyrtc("run", "-d", "-p", "8081:80", "host", *SLEEP, check=False)
        assert done.returncode == 125 and "8081" in done.stderr and "already" in done.stderr
        assert process.stdin is not None
        process.stdin.close()
    assert len(place.pyrtc("ps", "-aq").stdout.split()) == 1
    clean(place)


def test_everything_is_given_back_at_every_end(place: Place) -> None:
    server(place, "one", "-p", "8080:80")
    place.pyrtc("stop", "one")
    assert "8080" not in elements(place)
    place.pyrtc("start", "one")
    assert eventually(lambda: place.pyrtc("logs", "one").stdout.count("up") >= 3)
    assert ask(place.outside, HOST, 8080) == f"one {OUTSIDE}"
    place.pyrtc("restart", "-t", "0", "one")
    assert "8080" in elements(place)
    place.pyrtc("rm", "-f", "one")
    assert "8080" not in elements(place)
    server(place, "two", "-p", "8080:80", "--rm")
    place.pyrtc("kill", "two")
    assert eventually(lambda: not place.pyrtc("ps", "-aq").stdout)
    assert eventually(lambda: "8080" not in elements(place))
    done = place.pyrtc("run", "--rm", "-p", "8080:80", "host", "true")
    assert done.returncode == 0 and "8080" not in elements(place)
    failed = place.pyrtc("run", "--rm", "-p", "8080:80", "host", "/no/such/program", check=False)
    assert failed.returncode == 127 and "8080" not in elements(place)
    clean(place)


def test_kill_9_of_the_monitor_and_the_same_port_again(place: Place) -> None:
    server(place, "one", "-p", "8080:80")
    found = place.python(
        "import pyrtc; c = pyrtc.Engine().containers.get('one'); r = c.record; print(r.pid, r.monitor_pid)"
    )
    pid, monitor = (int(word) for word in found.split())
    os.kill(monitor, signal.SIGKILL)
    assert ask(place.outside, HOST, 8080) == f"one {OUTSIDE}", "it goes on without its monitor"
    os.kill(pid, signal.SIGKILL)
    server(place, "two", "-p", "8080:80")
    assert ask(place.outside, HOST, 8080) == f"two {OUTSIDE}"
    assert about(place, "one")["State"]["Status"] == "exited"
    clean(place)


def test_a_caller_that_is_killed_leaves_nothing(place: Place) -> None:
    words = ["-m", "pyrtc.cli.main", "run", "--rm", "--name", "one", "-p", "8080:80", "host", *SLEEP]
    process = place.popen(sys.executable, *words)
    assert eventually(lambda: "8080" in elements(place) and "one" in place.pyrtc("ps").stdout)
    process.kill()
    process.wait()
    assert eventually(lambda: not place.pyrtc("ps", "-aq").stdout)
    assert eventually(lambda: "8080" not in elements(place))
    clean(place)


def test_the_end_command_may_be_killed(place: Place) -> None:
    """Monitor and process 1 die together: the next command does what is due."""
    server(place, "one", "-p", "8080:80")
    found = place.python(
        "import pyrtc; c = pyrtc.Engine().containers.get('one'); r = c.record; print(r.pid, r.monitor_pid)"
    )
    pid, monitor = (int(word) for word in found.split())
    os.kill(monitor, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    os.kill(monitor, signal.SIGKILL)
    assert eventually(lambda: about(place, "one")["State"]["Status"] == "exited")
    place.pyrtc("ps", "-a")
    assert eventually(lambda: "8080" not in elements(place))
    clean(place)


def test_a_table_that_was_flushed_comes_back_with_the_next_start(place: Place) -> None:
    server(place, "one", "-p", "8080:80")
    place.run("nft", "flush", "ruleset")
    run(place, "--name", "two", "--network", "bridge")
    assert "8080" in elements(place)
    assert ask(place.outside, HOST, 8080) == f"one {OUTSIDE}"
    clean(place)


def test_a_container_in_a_user_namespace_of_its_own(place: Place) -> None:
    server(place, "one", "--userns", "auto", "-p", "8080:80")
    assert ask(place.outside, HOST, 8080) == f"one {OUTSIDE}"
    script = "ping -c1 -W10 " + OUTSIDE + " && ls /sys/class/net"
    done = place.pyrtc("run", "--rm", "--userns", "auto", "--network", "bridge", "host", "sh", "-c", script)
    assert "eth0" in done.stdout.split()
    clean(place)


def test_the_image_s_ports_on_any_port(place: Place) -> None:
    server(place, "one", "-P", "--expose", "80", "--expose", "81-82/udp")
    lines = place.pyrtc("port", "one").stdout
    port = re.search(r"^80/tcp -> 0.0.0.0:(\d+)$", lines, re.MULTILINE)
    assert port is not None and lines.count("->") == 6
    assert ask(place.outside, HOST, port[1]) == f"one {OUTSIDE}"
    done = place.python(
        "import pyrtc; c = pyrtc.Engine().containers.get('one'); print(c.address(80)); print(len(c.ports))"
    )
    assert done.splitlines() == [f"('127.0.0.1', {port[1]})", "3"]
    clean(place)


def test_the_python_api_in_threads_and_loops(place: Place) -> None:
    program = """
import asyncio, pyrtc, threading
from pyrtc import aio
def one(results):
    results.append(pyrtc.run("host", ["ip", "-o", "-4", "addr", "show", "dev", "eth0"], network="bridge").stdout)
results = []
threads = [threading.Thread(target=one, args=(results,)) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
addresses = {line.split()[3] for line in results}
assert len(results) == 8 and len(addresses) == 8, results
async def main():
    async with aio.Container("host", ["sleep", "1000"], network="bridge", ports={80: None}) as c:
        assert c.address(80)[1] > 1023
        done = await asyncio.gather(*(aio.run("host", ["cat", "/etc/hosts"], network="bridge") for _ in range(4)))
        assert len({d.stdout for d in done}) == 4
asyncio.run(main())
with pyrtc.Container("host", ["sleep", "1000"], ports=["127.0.0.1::80"]) as c:
    assert c.address("80/tcp") == ("127.0.0.1", c.ports[0].host)
    assert c.inspect().endpoints[0].ip4
print("fine")
"""
    assert place.python(program) == "fine\n"
    clean(place)


def test_restart_policy_keeps_the_network(place: Place) -> None:
    run(place, "--name", "one", "--restart", "always", "-p", "8080:80", command=["sh", "-c", "sleep 0.3; exit 3"])
    assert eventually(lambda: about(place, "one")["RestartCount"] >= 2)
    assert eventually(lambda: "8080" in elements(place))
    place.pyrtc("rm", "-f", "one")
    assert "8080" not in elements(place)
    clean(place)


def test_who_shared_a_network_loses_its_devices_with_it(place: Place) -> None:
    """Or two containers would have one address: the one that was given back, and is had by somebody else."""
    place.pyrtc("network", "create", "web", "--subnet", "10.77.0.0/24")
    run(place, "--name", "one", "--network", "web", "--ip", "10.77.0.9")
    run(place, "--name", "guest", "--network", "container:one")
    run(place, "--name", "second", "--network", "container:guest")
    shown = ["exec", "guest", "ip", "-br", "addr"]
    assert "10.77.0.9/24" in place.pyrtc(*shown).stdout
    place.pyrtc("stop", "-t", "0", "one")
    assert "10.77.0.9" not in place.pyrtc(*shown).stdout
    run(place, "--name", "two", "--network", "web", "--ip", "10.77.0.9")
    place.pyrtc("rm", "-f", "two")
    # The next run has devices of its own, which nobody has joined yet.
    place.pyrtc("start", "one")
    assert "10.77.0.9" not in place.pyrtc(*shown).stdout
    place.pyrtc("restart", "-t", "0", "guest")
    assert "10.77.0.9/24" in place.pyrtc(*shown).stdout
    place.pyrtc("rm", "-f", "guest", "one", "second")
    clean(place)


@pytest.mark.parametrize("network", ["none", "host"])
def test_no_network_costs_nothing_of_networks(place: Place, network: str) -> None:
    program = f"import sys, pyrtc; pyrtc.run('host', ['true'], network={network!r}); print(*sys.modules)"
    loaded = place.python(program).split()
    assert not [name for name in loaded if name.startswith("pyrtc.network") or name in ("ipaddress", "pyroute2")]
    place.assert_clean()


def test_names(place: Place) -> None:
    place.pyrtc("network", "create", "web")
    place.pyrtc("network", "create", "--internal", "inside")
    one = run(place, "--name", "one", "--network", "name=web,alias=first,alias=db.example", "--hostname", "host1")
    # Where nobody listens: who is not known here is asked for, and that fails at once.
    run(place, "--name", "two", "--network", "web", "--network", "inside", "--dns", "127.0.0.1")
    address = settings(place, "one", "web")["IPAddress"]
    for name in ("one", "first", "db.example", "host1", one[:12], "ONE", "one.web"):
        found = place.pyrtc("exec", "two", "getent", "ahostsv4", name, check=False).stdout
        assert found.startswith(address), (name, found)
    assert "nameserver 127.0.0.11" in place.pyrtc("exec", "two", "cat", "/etc/resolv.conf").stdout
    place.pyrtc("rename", "one", "uno")
    assert place.pyrtc("exec", "two", "getent", "ahostsv4", "uno").stdout.startswith(address)
    assert place.pyrtc("exec", "two", "getent", "hosts", "one", check=False).returncode == 2
    place.pyrtc("restart", "-t", "0", "uno")
    again = settings(place, "uno", "web")["IPAddress"]
    assert place.pyrtc("exec", "two", "getent", "ahostsv4", "uno").stdout.startswith(again)
    place.pyrtc("stop", "uno")
    assert place.pyrtc("exec", "two", "getent", "hosts", "uno", check=False).returncode == 2, "it is gone"
    clean(place)


def test_an_attendant_holds_the_ports_until_the_end(place: Place) -> None:
    server(place, "one", "-p", "8080:80")
    bind = "import socket; socket.create_server(('', 8080))"
    assert place.run(sys.executable, "-c", bind, check=False).returncode != 0
    assert ask(place, "::1", 8080).startswith("one "), "where nothing is translated"
    assert ask(place.outside, HOST6, 8080).startswith("one "), "IPv6 to a container without it"
    for _ in range(3):
        place.pyrtc("restart", "-t", "0", "one")
    place.pyrtc("rm", "-f", "one")
    place.run(sys.executable, "-c", bind)
    server(place, "two", "-p", "8080:80")
    mine = _servants(place, "pyrtc-attendant")
    assert len(mine) == 1
    os.kill(mine[0], signal.SIGKILL)
    assert ask(place.outside, HOST, 8080) == f"two {OUTSIDE}", "what is translated goes on"
    place.pyrtc("rm", "-f", "two")
    clean(place)


def test_repair_puts_the_firewall_right(place: Place) -> None:
    server(place, "one", "-p", "8080:80")
    run(place, "--name", "two", "-p", "8081:80")
    place.run("nft", "delete", "element", "inet", "pyrtc", "pub4", "{ tcp . 8080 }")
    place.run("nft", "add", "element", "inet", "pyrtc", "pub4",
              '{ tcp . 9999 comment "' + element_owner(place, "one") + '" : 172.16.0.9 . 80 }')  # fmt: skip
    place.pyrtc("system", "check", "--repair")
    assert "9999" not in elements(place) and "8081" in elements(place)
    assert ask(place.outside, HOST, 8080) == f"one {OUTSIDE}"
    clean(place)


def element_owner(place: Place, name: str) -> str:
    bridge = next(link for link in place.links() if link.startswith("pyrtc-"))
    return f"{bridge} {about(place, name)['Id'][:12]}"


def test_a_machine_that_went_down_has_everything_made_again(place: Place) -> None:
    server(place, "one", "-p", "8080:80", "--restart", "always")
    program = """
import os, pyrtc, signal, sqlite3
engine = pyrtc.Engine()
record = engine.containers.get('one').record
os.kill(record.monitor_pid, signal.SIGSTOP)
os.kill(record.pid, signal.SIGKILL)
os.kill(record.monitor_pid, signal.SIGKILL)
engine.close()
database = sqlite3.connect(engine.store.path + '/pyrtc.db')
database.execute("UPDATE containers SET owner_boot = 'another'")
database.commit()
"""
    place.python(program)
    place.run("nft", "delete", "table", "inet", "pyrtc")
    place.run("ip", "link", "delete", next(link for link in place.links() if link.startswith("pyrtc-")))
    place.run("rm", "-rf", "/run/pyrtc/firewall.lock", "/run/pyrtc/network.lock")
    place.pyrtc("start", "one")
    assert eventually(lambda: place.pyrtc("logs", "one").stdout.count("up") >= 3)
    assert ask(place.outside, HOST, 8080) == f"one {OUTSIDE}"
    clean(place)


def test_processes_that_are_killed_at_random_leave_nothing(place: Place) -> None:
    place.pyrtc("network", "create", "web")
    chance = random.Random(8)
    kinds = (
        ["--rm", "--network", "bridge"],
        ["--rm", "--network", "web", "--network", "bridge"],
        ["--rm", "-p", "80"],
        ["-d", "--rm", "-p", "81"],
        ["-d", "--network", "web", "-p", "82/udp", "--restart", "always"],
    )
    begun = []
    for _ in range(20):
        words = ["-m", "pyrtc.cli.main", "run", *chance.choice(kinds), "host", "sleep", chance.choice(["0.2", "1000"])]
        begun.append(place.popen(sys.executable, *words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        time.sleep(0.1)
        if chance.random() < 0.5:
            chance.choice(begun).kill()
        if chance.random() < 0.5:
            _kill_servants(place, chance)
    for process in begun:
        process.kill()
        process.wait(timeout=60)
    for container in place.pyrtc("ps", "-aq").stdout.split():
        place.pyrtc("rm", "-f", container, check=False)  # one that goes with its end may be gone
    clean(place)
    left = "import pyrtc; s = pyrtc.Engine().store.networks; print([s.endpoints_on(n.id) for n in s.list()], s.ports())"
    assert place.python(left) == "[(), (), ()] ()\n"


def _kill_servants(place: Place, chance: random.Random) -> None:
    """Kill some of what watches and attends containers here."""
    for process in _servants(place, "pyrtc-monitor", "pyrtc-attendant"):
        if chance.random() < 0.3:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def _servants(place: Place, *names: str) -> list[int]:
    """Return the processes of these names that are here."""
    here = os.stat(f"/proc/{place.pid}/ns/net").st_ino
    found = []
    for process in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended
            name = Path(f"/proc/{process}/comm").read_text().strip()
            if name in names and os.stat(f"/proc/{process}/ns/net").st_ino == here:
                found.append(int(process))
    return found


def test_events_tell_who_comes_and_goes(place: Place) -> None:
    place.pyrtc("network", "create", "web")
    one = run(place, "--name", "one", "--network", "web")
    place.pyrtc("stop", "one")
    place.pyrtc("run", "--rm", "--name", "two", "--network", "bridge", "host", "true")
    lines = place.pyrtc("events", "--since", "1h", "--until", "0s", "--filter", "type=network", "--format",
                        "{{.Action}} {{.Actor.Attributes.name}}").stdout.splitlines()  # fmt: skip
    assert lines == ["create web", "connect web", "disconnect web", "connect bridge", "disconnect bridge"]
    text = place.pyrtc("events", "--since", "1h", "--until", "0s", "--filter", "type=network").stdout
    assert one in text
    clean(place)


def test_commands_and_snapshots_of_containers_in_networks(place: Place) -> None:
    run(place, "--name", "one", "--network", "bridge", "-p", "8080:80")
    address = settings(place, "one")["IPAddress"]
    assert address in place.pyrtc("exec", "one", "ip", "addr").stdout
    program = """
import pyrtc
with pyrtc.Container("host", ["sleep", "1000"], network="bridge", hostname="kept") as c:
    c.exec(["true"]).check()
    assert c.stats(interval=0).received_bytes is not None
    assert c.status == "running" and c.inspect().endpoints[0].device == "eth0"
    c.restart(timeout=0)
    (endpoint,) = c.inspect().endpoints
    shown = c.exec(["ip", "-br", "-4", "addr", "show", "dev", "eth0"]).stdout.decode()
    assert f" {endpoint.ip4}/" in shown, "the record tells what its new life has"
    print("fine")
"""
    assert place.python(program) == "fine\n"
    clean(place)


def test_a_created_container_has_nothing_until_it_starts(place: Place) -> None:
    place.pyrtc("create", "--name", "one", "-p", "8080:80", "host", *SLEEP)
    assert settings(place, "one")["IPAddress"] == "" and not place.tables()
    place.pyrtc("start", "one")
    assert settings(place, "one")["IPAddress"] and "8080" in elements(place)
    shown = place.pyrtc("run", "--plan", "--network", "bridge", "-p", "80", "host", "true").stdout
    assert "exec" in shown and len(place.pyrtc("ps", "-aq").stdout.split()) == 1
    clean(place)
