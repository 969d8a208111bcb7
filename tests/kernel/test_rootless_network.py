"""The network of an ordinary user's containers: pasta, slirp4netns, and what is said where neither is there.

Root makes the place, a network namespace that leads to another machine, and runs pyrtc in it as a user who exists only
there. Ordinary users can neither make that place nor, mostly, open /dev/net/tun in their tests.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from network_place import HOST, HOST6, OUTSIDE, OUTSIDE6, Namespace, Place, eventually, place
from ordinary_user import FETCH, PROGRAMS, UID, Server, User, ask, hide, only, port_server, udp_server, user

__all__ = ["place", "user"]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make the place in which the ordinary user is"),
    pytest.mark.timeout(300),
]


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# ---- outwards -----------------------------------------------------------------------------------------------------


def test_reaches_other_machines_with_the_hosts_address(user: User) -> None:
    with Server(user.place.outside, 8000, "outside", OUTSIDE, OUTSIDE6):
        said = user.inside(FETCH + f"10 {OUTSIDE}/8000 {OUTSIDE6}/8000")
    assert said.splitlines() == [f"outside {HOST}", f"outside {HOST6}"]


def test_slirp4netns_reaches_other_machines(user: User) -> None:
    with Server(user.place.outside, 8000, "outside", OUTSIDE, OUTSIDE6):
        said = user.inside(FETCH + f"10 {OUTSIDE}/8000", "--network=slirp4netns")
    assert said.splitlines() == [f"outside {HOST}"]


def test_the_hosts_loopback_is_out_of_reach(user: User, program: str) -> None:
    """Not by the gateway's address, the host's or one of loopback: what listens there is often not meant for all."""
    with Server(user.place, 8001, "host", "127.0.0.1", "::1"):
        assert ask(user.place, "127.0.0.1", 8001) == "host 127.0.0.1"
        places = [
            "127.0.0.1",
            "::1",
            HOST,
            HOST6,
            OUTSIDE,
            OUTSIDE6,
            "10.0.2.2",
            "fd00::2",
            "169.254.1.1",
            "127.0.0.53",
        ]
        said = user.inside(FETCH + "1 " + " ".join(f"{where}/8001" for where in places), f"--network={program}")
    assert said.split() == ["refused"] * len(places)


def test_the_device_is_called_as_dockers(user: User, program: str) -> None:
    said = user.inside("ls /sys/class/net; cat /sys/class/net/eth0/operstate", f"--network={program}")
    assert said.split()[:2] == ["eth0", "lo"]


def test_what_is_on_the_way_is_bounded(user: User, program: str) -> None:
    """Or the program drops what its sockets do not take, and uploads come to a halt; the caller may say otherwise."""
    script = "cut -f 3 /proc/sys/net/ipv4/tcp_wmem"
    assert int(user.inside(script, f"--network={program}")) <= 1 << 20
    chosen = "--sysctl=net.ipv4.tcp_wmem=4096 16384 2000000"
    assert user.inside(script, f"--network={program}", chosen) == "2000000\n"


def test_a_hardware_address(user: User, program: str) -> None:
    options = (f"--network={program}", "--mac-address=02:00:00:00:00:07")
    assert user.inside("cat /sys/class/net/eth0/address", *options) == "02:00:00:00:00:07\n"


@pytest.mark.parametrize("options", [["--userns=keep-id"], ["--user=7"], ["--uts=host", "--ipc=host"]])
def test_other_namespaces(user: User, options: list[str]) -> None:
    with Server(user.place.outside, 8000, "outside", OUTSIDE):
        said = user.inside(FETCH + f"10 {OUTSIDE}/8000", "--network=bridge", *options)
    assert said == f"outside {HOST}\n"


def test_a_user_without_subordinate_ids(user: User, program: str) -> None:
    for name in ("/etc/subuid", "/etc/subgid"):
        user.place.run("umount", name)
        hide(user.place, user.base.parent, name, "")
    with Server(user.place.outside, 8000, "outside", OUTSIDE):
        said = user.inside(FETCH + f"10 {OUTSIDE}/8000", f"--network={program}")
    assert said == f"outside {HOST}\n"


# ---- names --------------------------------------------------------------------------------------------------------


def test_the_hosts_resolver(user: User) -> None:
    assert user.inside("cat /etc/resolv.conf") == f"nameserver {OUTSIDE}\nsearch example.test\n"


def test_its_own_name(user: User, program: str) -> None:
    said = user.inside("getent ahosts box", f"--network={program}", "--hostname=box").split()
    assert {"pasta": HOST, "slirp4netns": "10.0.2.100"}[program] in said


def test_the_callers_resolver(user: User, program: str) -> None:
    said = user.inside("cat /etc/resolv.conf", f"--network={program}", "--dns=198.51.100.53")
    assert [line for line in said.splitlines() if "nameserver" in line] == ["nameserver 198.51.100.53"]


def test_a_name_for_the_host(user: User, program: str) -> None:
    """Not what listens on its loopback; Debian 12's pasta has no such address."""
    script = FETCH + "1 host.test/8001 host.test/8002"
    with Server(user.place, 8001, "host", HOST), Server(user.place, 8002, "loopback", "127.0.0.1"):
        words = ["run", "--rm", f"--network={program}", "--add-host=host.test:host-gateway", "host", "sh", "-c", script]
        done = user.pyrtc(*words, check=False)
    newer = "--map-guest-addr" in user.run("pasta", "--help", check=False).stdout
    if program == "pasta" and newer:
        assert done.stdout.splitlines() == [f"host {HOST}", "refused"], done.stderr
    else:
        assert done.returncode == 125
        assert "host-gateway" in done.stderr


RESOLVER = textwrap.dedent(
    """\
    import socket, sys
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((sys.argv[1], 53))
    print("ready", flush=True)
    while True:
        query, peer = made.recvfrom(512)
        end = query.index(b"\\0", 12) + 5
        answer = query[:2] + b"\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0" + query[12:end]
        if query[end - 4:end - 2] != b"\\0\\1":  # not A
            made.sendto(query[:2] + b"\\x81\\x80\\0\\1\\0\\0\\0\\0\\0\\0" + query[12:end], peer)
            continue
        made.sendto(answer + b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4" + bytes((203, 0, 113, 7)), peer)
    """
)


@pytest.mark.parametrize("address", ["127.0.0.53", HOST])
def test_a_resolver_on_the_host_itself(user: User, program: str, address: str) -> None:
    """Where the host's resolver listens on the host only, the container has another address that leads to it."""
    user.place.run("umount", "/etc/resolv.conf")
    hide(user.place, user.base.parent, "/etc/resolv.conf", f"nameserver {address}\n")
    serving = user.place.popen(sys.executable, "-c", RESOLVER, address, stdout=subprocess.PIPE)
    try:
        assert serving.stdout is not None
        assert serving.stdout.readline() == b"ready\n"
        script = "grep nameserver /etc/resolv.conf; getent ahostsv4 name.example.test | head -n 1"
        said = user.inside(script, f"--network={program}").split()
    finally:
        serving.kill()
        serving.communicate()
    assert said[1] == {"pasta": "169.254.1.1", "slirp4netns": "10.0.2.3"}[program]
    assert said[2] == "203.0.113.7"


# ---- published ports ----------------------------------------------------------------------------------------------


def start(user: User, *words: str) -> str:
    return user.pyrtc("run", "-d", "--stop-signal=KILL", *words).stdout.strip()


def answers(where: Namespace, host: str, port: int, kind: str = "tcp") -> str:
    """What a server that has just been started says."""
    found = ""

    def asked() -> bool:
        nonlocal found
        found = ask(where, host, port, kind)
        return not found.startswith("!") and found != "nothing"

    eventually(asked)
    return found


def test_a_published_port(user: User, program: str) -> None:
    """The container sees the client's address; what is told of the port is where it is listened to."""
    name = start(user, f"--network={program}", "-p", "8080:80", *port_server(80))
    told = ["80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"]
    assert user.pyrtc("port", name).stdout.splitlines() == told[: 2 if program == "pasta" else 1]
    assert answers(user.place.outside, HOST, 8080) == f"hello {OUTSIDE}"
    assert answers(user.place, "127.0.0.1", 8080).startswith("hello ")
    if program == "pasta":
        assert answers(user.place.outside, HOST6, 8080) == f"hello {OUTSIDE6}"
        assert answers(user.place, "::1", 8080).startswith("hello ")


def test_a_server_that_speaks_first(user: User) -> None:
    """The pasta of Debian 12 lets it wait for the client's first words, so slirp4netns is taken for published ports."""
    start(user, "--network=bridge", "-p", "8080:22", *port_server(22, speaks_later=False))
    assert answers(user.place.outside, HOST, 8080, "silent") == f"hello {OUTSIDE}"


def test_a_port_of_one_address(user: User, program: str) -> None:
    start(user, f"--network={program}", "-p", "127.0.0.1:8080:80", *port_server(80))
    assert answers(user.place, "127.0.0.1", 8080).startswith("hello ")
    assert ask(user.place.outside, HOST, 8080).startswith("!")


def test_a_udp_port(user: User, program: str) -> None:
    start(user, f"--network={program}", "-p", "5300:53/udp", *udp_server(53))
    assert answers(user.place.outside, HOST, 5300, "udp") == f"hello {OUTSIDE}"


def test_several_ports(user: User, program: str) -> None:
    start(user, f"--network={program}", "-p", "8080:80", "-p", "8081-8082:81-82", "-p", "8083:80", *port_server(80))
    assert answers(user.place.outside, HOST, 8083) == f"hello {OUTSIDE}"
    assert answers(user.place.outside, HOST, 8080) == f"hello {OUTSIDE}"


def test_a_port_that_is_taken(user: User, program: str) -> None:
    with Server(user.place, 8080, "host", HOST):
        done = user.pyrtc("run", "--rm", f"--network={program}", "-p", "8080:80", "host", "true", check=False)
    assert done.returncode == 125
    assert "8080 failed: port is already allocated" in done.stderr
    assert eventually(user.nothing_is_left)
    assert user.pyrtc("ps", "-aq").stdout == ""


def test_a_port_of_root(user: User, program: str) -> None:
    done = user.pyrtc("run", "--rm", f"--network={program}", "-p", "80:80", "host", "true", check=False)
    assert done.returncode == 125
    assert "ip_unprivileged_port_start" in done.stderr


def test_ports_without_a_runtime_directory(user: User, program: str) -> None:
    del user.environment["XDG_RUNTIME_DIR"]
    before = set(os.listdir(tempfile.gettempdir()))
    start(user, f"--network={program}", "-p", "8080:80", *port_server(80))
    assert answers(user.place.outside, HOST, 8080) == f"hello {OUTSIDE}"
    mine = [name for name in set(os.listdir(tempfile.gettempdir())) - before if name.startswith("pyrtc-")]
    assert not [name for name in mine if os.stat(f"{tempfile.gettempdir()}/{name}").st_uid == UID]


def test_what_a_killed_start_left_of_orders_goes_with_the_next(user: User) -> None:
    """Killed while slirp4netns took its orders; what another start is at work in stays."""
    runtime = user.base / "run"
    left, used = runtime / "pyrtc-orders-left", runtime / "pyrtc-orders-used"
    for directory in (left, used):
        directory.mkdir(mode=0o700)
        os.chown(directory, UID, UID)
    with socket.socket(socket.AF_UNIX) as orders:
        orders.bind(str(left / "orders"))
    with open_directory(used) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        user.inside("true", "--network=slirp4netns", "-p", "8080:80")
        assert [path.name for path in runtime.glob("pyrtc-orders-*")] == [used.name]
    user.inside("true", "--network=slirp4netns", "-p", "8080:80")
    assert not list(runtime.glob("pyrtc-orders-*"))


@contextmanager
def open_directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def test_what_pasta_cannot_publish(user: User) -> None:
    two = ["-p", "127.0.0.1:8080:80", "-p", "127.0.0.2:8080:81"]
    done = user.pyrtc("run", "--rm", "--network=pasta", *two, "host", "true", check=False)
    assert "publish different ports" in done.stderr


def test_what_slirp4netns_cannot_publish(user: User) -> None:
    done = user.pyrtc("run", "--rm", "--network=slirp4netns", "-p", "[::1]:8080:80", "host", "true", check=False)
    assert "IPv4" in done.stderr
    assert "passt" in done.stderr


# ---- lives --------------------------------------------------------------------------------------------------------


def test_nothing_is_left_of_the_foreground(user: User, program: str) -> None:
    for _ in range(3):  # at once after the end the port is free
        user.inside("true", f"--network={program}", "-p", "8080:80")
    assert not user.serving()


def test_a_command_that_is_not_there(user: User, program: str) -> None:
    done = user.pyrtc("run", "--rm", f"--network={program}", "-p", "8080:80", "host", "/none", check=False)
    assert done.returncode == 127
    assert eventually(user.nothing_is_left)


def test_a_life(user: User, program: str) -> None:
    """Started, stopped, started again, removed: the port is there while it runs, and free afterwards."""
    name = start(user, f"--network={program}", "-p", "8080:80", *port_server(80))
    assert answers(user.place.outside, HOST, 8080) == f"hello {OUTSIDE}"
    user.pyrtc("stop", name)
    assert not user.serving()
    with Server(user.place, 8080, "host", "0.0.0.0"):
        assert ask(user.place.outside, HOST, 8080).startswith("host ")
    user.pyrtc("start", name)
    assert answers(user.place.outside, HOST, 8080) == f"hello {OUTSIDE}"
    user.pyrtc("restart", name)
    assert answers(user.place.outside, HOST, 8080) == f"hello {OUTSIDE}"
    user.pyrtc("rm", "--force", name)
    assert not user.serving()


def test_killed(user: User, program: str) -> None:
    name = start(user, f"--network={program}", "-p", "8080:80", *port_server(80))
    user.pyrtc("kill", name)
    assert eventually(user.nothing_is_left)


def test_a_killed_caller(user: User, program: str) -> None:
    words = ["run", "--rm", f"--network={program}", "-p", "8080:80", *port_server(80)]
    caller = user.popen(sys.executable, "-m", "pyrtc.cli.main", *words)
    try:
        assert answers(user.place.outside, HOST, 8080) == f"hello {OUTSIDE}"
    finally:
        caller.kill()  # setpriv and env have become the command line
        caller.wait()
    assert eventually(user.nothing_is_left)
    assert ask(user.place.outside, HOST, 8080).startswith("!")


def test_callers_killed_while_they_start(user: User, program: str) -> None:
    """At moments from before there is a container to after it runs; the next start has the port again."""
    for number in range(8):
        words = ["run", "-d", f"--network={program}", "-p", "8080:80", "host", "sleep", "1000"]
        caller = user.popen(sys.executable, "-m", "pyrtc.cli.main", *words, stdout=subprocess.DEVNULL)
        time.sleep(0.05 + 0.05 * number)
        caller.kill()
        caller.wait()
        user.pyrtc("rm", "--force", *user.pyrtc("ps", "-aq").stdout.split() or ["none"], check=False)
        assert eventually(lambda: not user.serving()), user.serving()
    start(user, f"--network={program}", "-p", "8080:80", *port_server(80))
    assert answers(user.place.outside, HOST, 8080) == f"hello {OUTSIDE}"


def test_a_killed_monitor(user: User, program: str) -> None:
    name = start(user, f"--network={program}", "-p", "8080:80", *port_server(80))
    assert answers(user.place.outside, HOST, 8080) == f"hello {OUTSIDE}"
    process = int(user.pyrtc("inspect", "--format", "{{.State.Pid}}", name).stdout)
    monitor = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(monitor, signal.SIGKILL)
    user.pyrtc("rm", "--force", name)
    assert eventually(user.nothing_is_left)
    start(user, f"--network={program}", "-p", "8080:80", *port_server(80))
    assert answers(user.place.outside, HOST, 8080) == f"hello {OUTSIDE}"


def test_a_killed_keeper(user: User, program: str) -> None:
    """One container has no network any more; it can be stopped and started as ever."""
    name = start(user, f"--network={program}", "-p", "8080:80", *port_server(80))
    other = start(user, f"--network={program}", "-p", "8081:80", *port_server(80))
    assert answers(user.place.outside, HOST, 8080) == f"hello {OUTSIDE}"
    newest = max(user.keepers())
    os.kill(newest, signal.SIGKILL)
    assert eventually(lambda: len(user.keepers()) == 1)
    assert eventually(lambda: ask(user.place.outside, HOST, 8081).startswith("!"))
    assert answers(user.place.outside, HOST, 8080) == f"hello {OUTSIDE}"
    assert user.pyrtc("inspect", "--format", "{{.State.Running}}", other).stdout == "true\n"
    user.pyrtc("restart", other)
    assert answers(user.place.outside, HOST, 8081) == f"hello {OUTSIDE}"
    user.pyrtc("rm", "--force", name, other)


def test_two_containers_share_one(user: User, program: str) -> None:
    """What is published leads to either; the network goes with the one that it was made for."""
    first = start(user, f"--network={program}", "-p", "8080:80", "host", "sleep", "1000")
    start(user, f"--network=container:{first}", *port_server(80))
    assert answers(user.place.outside, HOST, 8080) == f"hello {OUTSIDE}"
    user.pyrtc("rm", "--force", first)
    assert not user.serving()


def test_from_python(user: User) -> None:
    source = textwrap.dedent(
        """\
        import pyrtc
        done = pyrtc.run("host", ["ls", "/sys/class/net"], network="bridge")
        assert done.stdout.split() == [b"eth0", b"lo"], done
        with pyrtc.Container("host", ["sleep", "100"], network="bridge") as container:
            print(container.exec(["cat", "/sys/class/net/eth0/address"]).stdout.decode().strip())
        print("gone")
        """
    )
    said = user.run(sys.executable, "-c", source).stdout.split()
    assert len(said[0]) == 17
    assert said[1] == "gone"
    assert not user.serving()


def test_at_once(user: User) -> None:
    words = user.words(sys.executable, "-m", "pyrtc.cli.main", "run", "--rm", "--network=bridge", "-p", "80",
                       "host", "ls", "/sys/class/net")  # fmt: skip
    running = [user.place.popen(*words, stdout=subprocess.PIPE) for _ in range(6)]
    for one in running:
        assert one.communicate(timeout=100)[0].split() == [b"eth0", b"lo"]
        assert one.returncode == 0


def test_what_serves_has_nothing_of_the_callers(user: User, program: str) -> None:
    start(user, f"--network={program}", "host", "sleep", "1000")
    keeper = user.keepers()[0]
    serving = next(pid for pid in user.serving() if pid != keeper)
    for pid in (serving, keeper):
        environment = Path(f"/proc/{pid}/environ").read_text()
        assert str(user.base) not in environment
        held = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [name for name in held if str(user.base) in name and not name.endswith("/network")], held


# ---- what is missing ----------------------------------------------------------------------------------------------


def test_only_slirp4netns(user: User) -> None:
    only(user, "slirp4netns")
    assert "nameserver 10.0.2.3\n" in user.inside("cat /etc/resolv.conf")


def test_neither(user: User) -> None:
    only(user)
    done = user.pyrtc("run", "--rm", "--network=bridge", "host", "true", check=False)
    assert done.returncode == 125
    assert "apt-get install passt" in done.stderr
    assert user.pyrtc("run", "--rm", "--network=none", "host", "true").returncode == 0


@pytest.mark.parametrize(("name", "package"), [("pasta", "passt"), ("slirp4netns", "slirp4netns")])
def test_one_that_was_named(user: User, name: str, package: str) -> None:
    only(user)
    done = user.pyrtc("run", "--rm", f"--network={name}", "host", "true", check=False)
    assert f"apt-get install {package}\n" in done.stderr


def test_a_device_that_cannot_be_opened(user: User, program: str) -> None:
    user.place.run("chmod", "600", "/dev/net/tun")
    done = user.pyrtc("run", "--rm", f"--network={program}", "host", "true", check=False)
    assert "chmod 0666 /dev/net/tun" in done.stderr
    user.place.run("rm", "/dev/net/tun")
    done = user.pyrtc("run", "--rm", f"--network={program}", "host", "true", check=False)
    assert "modprobe tun" in done.stderr


def test_a_host_without_a_route(user: User) -> None:
    """What pasta says is told, and nothing is left of the container."""
    user.place.run("ip", "route", "del", "default")
    user.place.run("ip", "-6", "route", "del", "default")
    done = user.pyrtc("run", "--rm", "--network=pasta", "host", "true", check=False)
    if done.returncode:  # newer ones do without
        assert done.returncode == 125
        assert "pasta: " in done.stderr
        assert "no default route" in done.stderr
    assert eventually(user.nothing_is_left)
    assert user.inside("echo well", "--network=slirp4netns") == "well\n"


def test_a_network_that_is_not_there(user: User) -> None:
    done = user.pyrtc("run", "--rm", "--network=web", "host", "true", check=False)
    assert done.returncode == 125
    assert "network web not found" in done.stderr
    assert user.nothing_is_left()


def test_root_has_bridges(place: Place) -> None:
    done = place.pyrtc("run", "--rm", "--network=pasta", "host", "true", check=False)
    assert done.returncode == 125
    assert "pasta not found" in done.stderr


def test_inspect(user: User) -> None:
    name = start(user, "--network=bridge", "-p", "8080:80", "host", "sleep", "1000")
    found = json.loads(user.pyrtc("inspect", name).stdout)[0]
    assert found["HostConfig"]["NetworkMode"] == "bridge"
