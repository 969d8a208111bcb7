"""Networks that an ordinary user makes: bridges in a network namespace that stands in for the host."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from network_place import HOST, HOST6, OUTSIDE, OUTSIDE6, eventually, place
from ordinary_user import FETCH, FIRST, UID, Server, User, ask, hide, only, port_server, udp_server, user

__all__ = ["place", "user"]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make the place in which the ordinary user is"),
    pytest.mark.timeout(300),
]
SLEEP = ("host", "sleep", "1000")


@pytest.fixture
def web(user: User) -> Iterator[User]:
    """A user with a network `web`."""
    user.pyrtc("network", "create", "web")
    yield user


def holders(user: User) -> list[int]:
    return [pid for pid, name in user.named() if name == "pyrtc-network"]


def stand_in(user: User, *words: str) -> str:
    """What a command says in the stand-in."""
    (pid,) = holders(user)
    enter = ["nsenter", "--target", str(pid), "--user", "--net", "--preserve-credentials"]
    return subprocess.run([*enter, *words], check=True, capture_output=True, text=True).stdout


def inspect(user: User, *words: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(user.pyrtc("inspect", *words).stdout)[0]
    return found


# ---- within a network ---------------------------------------------------------------------------------------------


def test_containers_find_each_other(web: User) -> None:
    """By name, alias and short id, also from one that came before; addresses may be chosen."""
    web.pyrtc("network", "create", "--subnet=10.77.0.0/24", "other")
    first = web.pyrtc("run", "-d", "--name=first", "--network=name=web,alias=nick", *SLEEP).stdout.strip()
    web.pyrtc("run", "-d", "--name=second", "--network=web", "--network=name=other,ip=10.77.0.9", *SLEEP)
    web.pyrtc("run", "-d", "--name=third", "--network=other", *SLEEP)
    script = f"for name in first nick {first[:12]}; do ping -c1 -W5 $name >/dev/null && echo $name; done"
    assert web.pyrtc("exec", "second", "sh", "-c", script).stdout.split() == ["first", "nick", first[:12]]
    assert web.pyrtc("exec", "first", "ping", "-c1", "-W5", "second").returncode == 0
    assert web.pyrtc("exec", "third", "getent", "hosts", "second").stdout.split() == ["10.77.0.9", "second"]
    apart = web.pyrtc(
        "exec", "third", "sh", "-c", "getent hosts first || ping -c1 -W1 $0", _address(web, "first"), check=False
    )
    assert apart.returncode == 1, apart.stdout
    said = json.loads(web.pyrtc("network", "inspect", "web").stdout)[0]
    assert {one["Name"] for one in said["Containers"].values()} == {"first", "second"}
    done = web.pyrtc("network", "rm", "web", check=False)
    assert "active endpoints" in done.stderr


def _address(user: User, name: str, network: str = "web") -> str:
    form = f"{{{{ (index .NetworkSettings.Networks {json.dumps(network)}).IPAddress }}}}"
    return user.pyrtc("inspect", "--format", form, name).stdout.strip()


@pytest.mark.parametrize("keep", [(), ("--userns=keep-id",)])
def test_owners_are_as_without_a_network(web: User, keep: tuple[str, ...]) -> None:
    shared = web.base / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    maps = []
    for network in ("none", "web"):
        script = f"cat /proc/self/uid_map /proc/self/gid_map; id -u; touch /shared/{network}"
        options = (f"--network={network}", f"--volume={shared}:/shared", *keep)
        maps.append(web.inside(script, *options).split())
        web.inside(f"touch /shared/{network}-other", *options, "--user=7:9")
    # As the namespace itself sees them, which is nested in the other case.
    assert maps[0][-1] == maps[1][-1]
    for suffix in ("", "-other"):
        found = [(shared / f"{network}{suffix}").stat() for network in ("none", "web")]
        assert (found[0].st_uid, found[0].st_gid) == (found[1].st_uid, found[1].st_gid)
    assert (shared / "web-other").stat().st_uid == FIRST + (7 if keep else 6)
    assert (shared / "web").stat().st_uid == UID


def test_a_user_with_one_id(web: User) -> None:
    for name in ("/etc/subuid", "/etc/subgid"):
        web.place.run("umount", name)
        hide(web.place, web.base.parent, name, "")
    web.pyrtc("run", "-d", "--name=first", "--network=web", *SLEEP)
    assert web.inside("id -u; ping -c1 -W5 first >/dev/null && echo yes", "--network=web").split() == ["0", "yes"]


def test_nobody_inside_has_rights_outside(web: User) -> None:
    """Not even with every capability: the stand-in's user namespace is above the container's."""
    script = "ip link del eth0 && echo gone; ls /sys/class/net"
    options = ("--network=web", "--cap-add=ALL")
    assert web.inside(script, *options).split() == ["gone", "lo"]  # what is its own it may change
    web.pyrtc("run", "-d", "--name=first", "--network=web", "--cap-add=ALL", *SLEEP)
    pid = int(web.pyrtc("inspect", "--format", "{{.State.Pid}}", "first").stdout)
    (holder,) = holders(web)
    # As a process of the container's user namespace that found the stand-in's.
    source = f"""if True:
        import ctypes, os
        from pyrtc import core
        own, above, host = (os.open(f"/proc/{{pid}}/ns/{{kind}}", os.O_RDONLY)
                            for pid, kind in (({pid}, "user"), ({holder}, "user"), ({holder}, "net")))
        core.join_namespace(own)
        for fd in (above, host):
            try:
                core.join_namespace(fd)
                print("in")
            except Exception as error:
                print(error)
        """
    done = web.run(sys.executable, "-c", source)
    assert "in" not in done.stdout.split(), done.stdout
    refused = [line for line in done.stdout.splitlines() if "(EPERM)" in line]
    assert len(refused) == 2, done.stdout


# ---- outwards, and ports ------------------------------------------------------------------------------------------


def test_ipv6_leads_outside(user: User) -> None:
    user.pyrtc("network", "create", "--ipv6", "web")
    with Server(user.place.outside, 8000, "outside", OUTSIDE6):
        assert user.inside(FETCH + f"5 {OUTSIDE6}/8000", "--network=web") == f"outside {HOST6}\n"


@pytest.mark.parametrize("program", ["pasta", "slirp4netns"])
def test_the_outside_is_reached(web: User, program: str) -> None:
    only(web, program, "sleep", "python3")
    with Server(web.place.outside, 8000, "outside", OUTSIDE), Server(web.place, 8001, "host", "127.0.0.1"):
        places = [f"{OUTSIDE}/8000", "127.0.0.1/8001", f"{HOST}/8001", "169.254.1.2/8001", "10.0.2.2/8001"]
        said = web.inside(FETCH + "2 " + " ".join(places), "--network=web")
    assert said.splitlines() == [f"outside {HOST}", *["refused"] * 4]


def test_without_a_program(web: User) -> None:
    """Internal networks need none; what is missing is said for the others."""
    only(web)
    done = web.pyrtc("run", "--rm", "--network=web", "host", "true", check=False)
    assert done.returncode == 125
    assert "apt-get install passt" in done.stderr
    web.pyrtc("network", "create", "--internal", "inner")
    web.pyrtc("run", "-d", "--name=first", "--network=inner", *SLEEP)
    assert web.inside("ping -c1 -W5 first >/dev/null && echo yes", "--network=inner") == "yes\n"
    done = web.pyrtc("network", "connect", "web", "first", check=False)
    assert "apt-get install passt" in done.stderr


def test_an_internal_network_is(user: User) -> None:
    user.pyrtc("network", "create", "--internal", "inner")
    user.pyrtc("network", "create", "web")
    user.pyrtc("run", "-d", "--name=door", "--network=web", *SLEEP)
    with Server(user.place.outside, 8000, "outside", OUTSIDE):
        assert user.inside(FETCH + f"1 {OUTSIDE}/8000", "--network=inner") == "refused\n"
    done = user.pyrtc("run", "--rm", "-p", "8080:80", "--network=inner", "host", "true", check=False)
    assert done.returncode == 125
    assert "not internal" in done.stderr


def test_published_ports(web: User) -> None:
    web.pyrtc(
        "run", "-d", "--name=first", "--network=web", "-p", "8080:80", "-p", "127.0.0.1:8081:80", *port_server(80)
    )
    assert eventually(lambda: ask(web.place, "127.0.0.1", 8080).startswith("hello"))
    for where, host in ((web.place, "::1"), (web.place, HOST), (web.place.outside, HOST)):
        assert ask(where, host, 8080).startswith("hello"), host
    assert ask(web.place, "127.0.0.1", 8081).startswith("hello")
    assert "!" in ask(web.place.outside, HOST, 8081)
    assert "0.0.0.0:8080->80/tcp" in web.pyrtc("ps").stdout
    done = web.pyrtc("run", "--rm", "--network=web", "-p", "8080:81", "host", "true", check=False)
    assert "port is already allocated" in done.stderr
    web.pyrtc("rm", "-f", "first")
    assert "!" in ask(web.place, "127.0.0.1", 8080)
    web.pyrtc("run", "-d", "--name=second", "--network=web", "-p", "8080:80/udp", *udp_server(80))
    assert eventually(lambda: ask(web.place, "127.0.0.1", 8080, "udp").startswith("hello"))
    assert ask(web.place.outside, HOST, 8080, "udp").startswith("hello")
    web.pyrtc("kill", "second")
    assert eventually(lambda: "!" in ask(web.place, "127.0.0.1", 8080, "udp"))


# ---- while containers run -----------------------------------------------------------------------------------------


def test_connecting_and_disconnecting(web: User) -> None:
    web.pyrtc("network", "create", "--internal", "inner")
    web.pyrtc("run", "-d", "--name=one", "--network=inner", *SLEEP)
    web.pyrtc("run", "-d", "--name=two", "--network=web", *SLEEP)
    with Server(web.place.outside, 8000, "outside", OUTSIDE):
        fetch = FETCH + f"3 {OUTSIDE}/8000"
        assert web.pyrtc("exec", "one", "sh", "-c", fetch).stdout == "refused\n"
        web.pyrtc("network", "connect", "--alias=uno", "web", "one")
        assert web.pyrtc("exec", "one", "sh", "-c", fetch).stdout == f"outside {HOST}\n"
        assert web.pyrtc("exec", "one", "ping", "-c1", "-W5", "two").returncode == 0
        assert web.pyrtc("exec", "two", "ping", "-c1", "-W5", "uno").returncode == 0
        web.pyrtc("network", "disconnect", "web", "one")
        assert web.pyrtc("exec", "one", "sh", "-c", fetch).stdout == "refused\n"
        assert web.pyrtc("exec", "two", "getent", "hosts", "uno", check=False).returncode
        assert "not connected" in web.pyrtc("network", "disconnect", "web", "one", check=False).stderr
        web.pyrtc("network", "disconnect", "inner", "one")
        web.pyrtc("network", "connect", "web", "one")
        assert web.pyrtc("exec", "one", "sh", "-c", fetch).stdout == f"outside {HOST}\n"
        web.pyrtc("stop", "-t0", "one")
        web.pyrtc("start", "one")
        assert web.pyrtc("exec", "one", "ping", "-c1", "-W5", "two").returncode == 0


def test_ports_move_with_the_networks(web: User) -> None:
    web.pyrtc("network", "create", "other")
    web.pyrtc("run", "-d", "--name=first", "--network=web", "--network=other", "-p", "8080:80", *port_server(80))
    assert eventually(lambda: ask(web.place, "127.0.0.1", 8080).startswith("hello"))
    web.pyrtc("network", "disconnect", "web", "first")
    assert eventually(lambda: ask(web.place, "127.0.0.1", 8080).startswith("hello"))
    web.pyrtc("network", "disconnect", "other", "first")
    assert "!" in ask(web.place, "127.0.0.1", 8080)
    web.pyrtc("network", "connect", "other", "first")
    assert eventually(lambda: ask(web.place, "127.0.0.1", 8080).startswith("hello"))


def test_what_a_container_with_a_program_of_its_own_is_told(web: User) -> None:
    done = web.pyrtc("run", "--rm", "--network=web", "--network=bridge", "host", "true", check=False)
    assert done.returncode == 125
    assert "leave it out" in done.stderr
    web.pyrtc("run", "-d", "--name=bridged", "--network=bridge", *SLEEP)
    web.pyrtc("run", "-d", "--name=alone", *SLEEP)
    assert "leave it out" in web.pyrtc("network", "connect", "web", "bridged", check=False).stderr
    assert "start it again" in web.pyrtc("network", "connect", "web", "alone", check=False).stderr
    assert "made" in web.pyrtc("network", "connect", "bridge", "alone", check=False).stderr
    assert "keeps" in web.pyrtc("network", "disconnect", "bridge", "bridged", check=False).stderr
    web.pyrtc("stop", "-t0", "alone")
    web.pyrtc("network", "connect", "web", "alone")
    web.pyrtc("start", "alone")
    assert web.pyrtc("exec", "alone", "getent", "hosts", "alone").returncode == 0


def test_sharing_the_network_of_a_container(web: User) -> None:
    web.pyrtc("run", "-d", "--name=first", "--network=web", "-p", "8080:80", *SLEEP)
    web.pyrtc("run", "-d", "--name=guest", "--network=container:first", *port_server(80))
    assert eventually(lambda: ask(web.place, "127.0.0.1", 8080).startswith("hello"))
    assert web.inside("ping -c1 -W5 first >/dev/null && echo yes", "--network=container:guest") == "yes\n"
    web.pyrtc("rm", "-f", "first")
    assert web.pyrtc("exec", "guest", "ls", "/sys/class/net").stdout.split() == ["lo"]


def test_files_and_processes_of_a_container(web: User) -> None:
    web.pyrtc("run", "-d", "--name=first", "--network=web", *SLEEP)
    (web.base / "given").write_text("something")
    (web.base / "given").chmod(0o644)
    web.pyrtc("cp", web.base / "given", "first:/tmp/given")
    assert web.pyrtc("exec", "--user=7", "first", "sh", "-c", "cat /tmp/given; id -u").stdout == "something7\n"
    web.pyrtc("exec", "first", "sh", "-c", "echo back >/tmp/back; chown 5 /tmp/back")
    web.pyrtc("cp", "first:/tmp/back", web.base / "back")
    assert (web.base / "back").read_text() == "back\n"
    assert "sleep" in web.pyrtc("top", "first").stdout
    web.pyrtc("pause", "first", check=False)
    web.pyrtc("unpause", "first", check=False)


def test_restarting(web: User) -> None:
    web.pyrtc("run", "-d", "--name=again", "--network=web", "--restart=always", "-p", "8080:80", *port_server(80))
    assert eventually(lambda: ask(web.place, "127.0.0.1", 8080).startswith("hello"))
    pid = int(web.pyrtc("inspect", "--format", "{{.State.Pid}}", "again").stdout)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: ask(web.place, "127.0.0.1", 8080).startswith("hello"))
    assert int(web.pyrtc("inspect", "--format", "{{.State.Pid}}", "again").stdout) != pid
    assert web.inside("ping -c1 -W5 again >/dev/null && echo yes", "--network=web") == "yes\n"
    web.pyrtc("restart", "-t0", "again")
    assert eventually(lambda: ask(web.place, "127.0.0.1", 8080).startswith("hello"))


# ---- what comes and goes ------------------------------------------------------------------------------------------


def test_removing_networks(web: User) -> None:
    web.pyrtc("network", "create", "other")
    web.pyrtc("run", "-d", "--name=first", "--network=web", *SLEEP)
    web.inside("true", "--network=other")
    bridges = [name for name in re.findall(r"^\d+: (\S+?):", stand_in(web, "ip", "link"), re.M) if "pyrtc-" in name]
    assert len(bridges) == 2
    assert web.pyrtc("network", "prune", "-f").stdout.split()[-1] == "other"
    assert "pyrtc-" in stand_in(web, "ip", "link")
    assert stand_in(web, "ip", "link").count(": pyrtc-") == 1
    web.pyrtc("rm", "-f", "first")
    assert web.pyrtc("network", "rm", "web").stdout == "web\n"
    bridge_name = "com.docker.network.bridge.name"
    for options, word in (
        (["--driver=macvlan", "-o", "parent=lo"], "only root"),
        (["-o", f"{bridge_name}=eth0"], "eth0"),
    ):
        done = web.pyrtc("network", "create", *options, "others", check=False)
        assert word in done.stderr
        assert done.returncode


def test_it_ends_with_the_last_container(web: User) -> None:
    web.pyrtc("run", "-d", "--name=first", "--network=web", *SLEEP)
    web.pyrtc("run", "-d", "--name=second", "--network=web", *SLEEP)
    before = holders(web)
    assert len(before) == 1
    web.pyrtc("rm", "-f", "first")
    time.sleep(3)
    assert holders(web) == before
    assert web.pyrtc("exec", "second", "getent", "hosts", "second").returncode == 0
    web.pyrtc("rm", "-f", "second")
    assert eventually(web.nothing_is_left)
    assert not list((web.base / "store" / "stand-in").rglob("*"))


def test_the_stand_in_is_killed(web: User) -> None:
    """Containers go on with one another; the way outside comes back with the next command that needs it."""
    for name in ("first", "second"):
        web.pyrtc("run", "-d", f"--name={name}", "--network=web", "-p", "80", *port_server(80))
    port = web.pyrtc("port", "first", "80").stdout.split()[0].rpartition(":")[2]
    (holder,) = holders(web)
    os.kill(holder, signal.SIGKILL)
    assert eventually(lambda: not holders(web))
    assert web.pyrtc("exec", "second", "ping", "-c1", "-W5", "first").returncode == 0
    assert eventually(lambda: ask(web.place, "127.0.0.1", int(port)).startswith("hello"))
    with Server(web.place.outside, 8000, "outside", OUTSIDE):
        script = "ping -c1 -W5 first >/dev/null && echo yes; " + FETCH + f"3 {OUTSIDE}/8000"
        assert web.inside(script, "--network=web").splitlines() == ["yes", f"outside {HOST}"]
        assert web.pyrtc("exec", "first", "sh", "-c", FETCH + f"3 {OUTSIDE}/8000").stdout == f"outside {HOST}\n"
    assert len(holders(web)) == 1
    time.sleep(3)
    assert len(holders(web)) == 1  # it holds what was there before


def test_the_program_is_killed(web: User) -> None:
    web.pyrtc("run", "-d", "--name=first", "--network=web", *SLEEP)
    for pid, name in web.named():
        if name.startswith(("pasta", "passt", "slirp")):
            os.kill(pid, signal.SIGKILL)
    with Server(web.place.outside, 8000, "outside", OUTSIDE):
        assert web.inside(FETCH + f"3 {OUTSIDE}/8000", "--network=web") == f"outside {HOST}\n"
        assert web.pyrtc("exec", "first", "sh", "-c", FETCH + f"3 {OUTSIDE}/8000").stdout == f"outside {HOST}\n"


def test_callers_are_killed(web: User) -> None:
    """At any moment of their starts; nothing is left, and the network serves the next."""
    for number in range(12):
        words = ["run", "--rm", f"--name=killed{number}", "--network=web", "-p", "8080:80", "host", "sleep", "100"]
        caller = web.popen(sys.executable, "-m", "pyrtc.cli.main", *words, start_new_session=True)
        time.sleep(0.2 * number)
        os.killpg(caller.pid, signal.SIGKILL)
        caller.wait()
    web.pyrtc("run", "-d", "--name=last", "--network=web", "-p", "8080:80", *port_server(80))
    assert eventually(lambda: ask(web.place, "127.0.0.1", 8080).startswith("hello"))
    said = json.loads(web.pyrtc("network", "inspect", "web").stdout)[0]
    assert [one["Name"] for one in said["Containers"].values()] == ["last"]
    web.pyrtc("rm", "-f", "last")


def test_many_at_once(web: User) -> None:
    """All begin with no stand-in, and one is made."""
    words = [sys.executable, "-m", "pyrtc.cli.main", "run", "--rm", "--network=web", "host", "sleep", "1"]
    callers = [web.popen(*words, stderr=subprocess.PIPE) for _ in range(5)]
    for caller in callers:
        _, said = caller.communicate()
        assert caller.returncode == 0, said
    assert len(holders(web)) <= 1


def test_stores_are_apart(web: User) -> None:
    web.pyrtc("network", "create", "--subnet=10.9.0.0/24", "mine")
    web.pyrtc("run", "-d", "--name=first", "--network=mine", *SLEEP)
    other = ["--root", str(web.base / "other")]
    web.pyrtc(*other, "network", "create", "--subnet=10.9.0.0/24", "mine")
    web.pyrtc(*other, "run", "-d", "--name=second", "--network=mine", *SLEEP)
    assert web.pyrtc(*other, "exec", "second", "getent", "hosts", "first", check=False).returncode
    assert len(holders(web)) == 2
    web.pyrtc(*other, "rm", "-f", "second")


def test_names_of_others_are_asked_for(web: User) -> None:
    """A resolver of the host's loopback, too, which pasta forwards to."""
    done = web.inside("cat /etc/resolv.conf", "--network=web")
    assert "nameserver 127.0.0.11" in done
    assert "search example.test" in done
    # The resolver of this place says that there is no such name, to the container's own resolver and to the container.
    for server in ("@127.0.0.11", f"@{OUTSIDE}"):
        said = web.inside(f"dig {server} +tries=1 +time=15 nobody.example", "--network=web")
        assert "status: NXDOMAIN" in said, said
