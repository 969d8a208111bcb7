"""`--network container:NAME`: one network for two containers."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import needs_root, needs_user

from pyrtc.api import container_options, make_options
from pyrtc.engine import Engine
from pyrtc.errors import ContainerError, ContainerNotFound, PyrtcError, UnsupportedError, UsageError
from pyrtc.live import Container
from pyrtc.options import Bind

SLEEP = ["sleep", "1000000"]


@pytest.fixture
def first(engine: Engine) -> Iterator[Container]:
    """A container that runs, with a name and a line of its own in /etc/hosts."""
    container = engine.containers.run("host", SLEEP, name="first", hostname="one", add_host={"db": "10.9.8.7"})
    yield container
    container.remove(force=True)


def namespace(container: Container, kind: str = "net") -> str:
    return os.readlink(f"/proc/{container.pid}/ns/{kind}")


def test_it_has_the_network_the_name_and_the_files_of_the_other(engine: Engine, first: Container) -> None:
    first.exec(["sh", "-c", "echo 10.1.1.1 later >> /etc/hosts; echo nameserver 10.2.2.2 > /etc/resolv.conf"]).check()
    script = "readlink /proc/self/ns/net; hostname; cat /etc/hosts /etc/resolv.conf /etc/hostname; ls /sys/class/net"
    done = engine.run("host", make_options(["sh", "-c", script], network="container:first"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[:2] == [namespace(first), "one"]
    for line in ("10.9.8.7\tdb", "10.1.1.1 later", "nameserver 10.2.2.2", "127.0.0.1\tone"):
        assert line in lines
    assert lines[-2:] == ["one", "lo"]


def test_detached_and_started_again(engine: Engine, first: Container) -> None:
    second = engine.containers.run("host", SLEEP, network=f"container:{first.id[:12]}", restart="no")
    try:
        assert namespace(second) == namespace(first)
        assert namespace(second, "uts") != namespace(first, "uts")
        assert second.options.network == f"container:{first.id}", "the name may change, or be another's"
        first.rename("renamed")
        second.restart(timeout=0)
        assert namespace(second) == namespace(first)
        third = engine.run("host", make_options(["hostname"], network=f"container:{second.name}"))
        assert third.stdout == b"one\n", "through one that shares it"
        first.stop(timeout=0)
        assert namespace(second), "what runs goes on with the network that it has"
        with pytest.raises(ContainerError, match=f"cannot join network of a non running container: {first.id}"):
            second.restart(timeout=0)
        assert second.status == "exited"
        first.start()
        second.start()
        assert namespace(second) == namespace(first)
    finally:
        second.remove(force=True)


def test_what_one_listens_on_the_other_reaches(engine: Engine, first: Container) -> None:
    server = (
        "import socket; s=socket.create_server(('127.0.0.1', 7)); print('up', flush=True); s.accept()[0].send(b'hello')"
    )
    process = first.popen(["python3", "-c", server], stdout=-1)
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    client = "import socket; print(socket.create_connection(('127.0.0.1', 7)).recv(9).decode())"
    done = engine.run("host", make_options(["python3", "-c", client], network="container:first"))
    assert done.stdout == b"hello\n", done.stderr
    assert process.wait(20) == 0


def test_what_cannot_be_joined(engine: Engine, first: Container) -> None:
    with pytest.raises(ContainerNotFound):
        engine.run("host", make_options(["true"], network="container:nobody"))
    with pytest.raises(UsageError, match="hostname and the network mode"):
        engine.containers.run("host", SLEEP, network="container:first", hostname="x")
    with pytest.raises(PyrtcError, match="net"):
        engine.run("host", make_options(["true"], network="container:first", sysctls={"net.core.somaxconn": "5"}))
    made = engine.containers.create("host", SLEEP)
    with pytest.raises(ContainerError, match="non running"):
        engine.run("host", make_options(["true"], network=f"container:{made.id}"))
    made.remove()


def test_files_of_the_other_that_are_no_files_are_left_out(engine: Engine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    other = engine.containers.run("host", SLEEP, name="other", mounts=[Bind(str(tmp_path / "fifo"), "/etc/hosts")])
    try:
        done = engine.run("host", make_options(["hostname"], network="container:other"))
        assert done.stdout.decode().strip() == other.id[:12], "nobody waits for a FIFO"
    finally:
        other.remove(force=True)


def test_a_foreground_container_is_joined(engine: Engine) -> None:
    running = engine.start("host", container_options(SLEEP, name="front"), stdin=None, stdout=None, stderr=None)
    with running:
        done = engine.run("host", make_options(["hostname"], network="container:front"))
        assert done.stdout.decode().strip() == running.id[:12]


@needs_root
def test_another_user_namespace_is_refused(engine: Engine, first: Container) -> None:
    with pytest.raises(UnsupportedError, match="--userns"):
        engine.run("host", make_options(["true"], network="container:first", userns="auto"))


@needs_root
def test_the_network_of_one_in_a_user_namespace(engine: Engine) -> None:
    other = engine.containers.run("host", SLEEP, name="other", userns="auto")
    try:
        done = engine.run("host", make_options(["readlink", "/proc/self/ns/net"], network="container:other"))
        assert done.stdout.decode().strip() == namespace(other), done.stderr
    finally:
        other.remove(force=True)


@needs_user
def test_an_ordinary_user_s_containers_share_the_user_namespace(engine: Engine, first: Container) -> None:
    second = engine.containers.run("host", SLEEP, network="container:first")
    try:
        for kind in ("user", "net"):
            assert namespace(second, kind) == namespace(first, kind)
        for kind in ("mnt", "pid", "ipc", "uts"):
            assert namespace(second, kind) != namespace(first, kind)
        assert second.exec(["id", "-u"]).stdout == b"0\n"
        assert int(second.exec(["sh", "-c", "ls /proc | grep -c ^[0-9]"]).stdout) < 9, "its own processes only"
    finally:
        second.remove(force=True)


@needs_user
def test_other_ids_are_refused(engine: Engine, first: Container) -> None:
    with pytest.raises(UsageError, match="other ids"):
        engine.run("host", make_options(["true"], network="container:first", userns="keep-id"))
    kept = engine.containers.run("host", SLEEP, name="kept", userns="keep-id")
    try:
        done = engine.run("host", make_options(["id", "-u"], network="container:kept", userns="keep-id"))
        assert done.stdout == b"%d\n" % os.geteuid(), done.stderr
    finally:
        kept.remove(force=True)


def test_it_goes_with_its_caller(engine: Engine, first: Container) -> None:
    program = f"""
import os, pyrtc, time
engine = pyrtc.Engine({str(engine.store.path)!r})
options = pyrtc.RunOptions(command=("sleep", "1000000"), network="container:first", name="second")
running = engine.start("host", options, stdin=None, stdout=None, stderr=None)
print(running.pid, flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        os.kill(pid, 0)
        process.kill()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not is_gone(pid):
        time.sleep(0.01)
    assert is_gone(pid)
    engine.containers.reap()


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_init_and_terminals(engine: Engine, first: Container) -> None:
    """Process 1 stays pyrtc-init with --init: nothing of the monitor is left in it."""
    second = engine.containers.run("host", SLEEP, network="container:first", init=True, tty=True)
    try:
        assert namespace(second) == namespace(first)
        assert second.exec(["cat", "/proc/1/comm"]).stdout == b"pyrtc-init\n"
        second.stop(timeout=5)
    finally:
        second.remove(force=True)
