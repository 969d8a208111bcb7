"""Internal networks of an ordinary user, through the library: neither pasta nor /dev/net/tun is needed."""

import errno
import os
import time
from collections.abc import Iterator

import pytest
from conftest import needs_user

from pyrtc.api import make_options
from pyrtc.engine import Engine
from pyrtc.errors import NetworkError, UnsupportedError
from pyrtc.live import Container

SLEEP = ["sleep", "1000000"]

pytestmark = needs_user


@pytest.fixture
def inner(engine: Engine) -> Iterator[Engine]:
    """An engine with an internal network `inner`, on which there is a container `first`."""
    engine.networks.create("inner", internal=True)
    first = engine.containers.run("host", SLEEP, name="first", network="inner", network_aliases=["nick"])
    yield engine
    first.remove(force=True)
    deadline = time.monotonic() + 20
    while stand_ins(engine) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not stand_ins(engine), "the process that holds the network namespace is left"


def stand_ins(engine: Engine) -> list[str]:
    """The directories of what stands in for the host; their process removes them when it ends."""
    return os.listdir(f"{engine.store.path}/stand-in")


def said(engine: Engine, script: str, **keywords: object) -> list[str]:
    done = engine.run("host", make_options(["sh", "-c", script], network="inner", **keywords))
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().split()


def test_containers_find_each_other(inner: Engine) -> None:
    first = inner.containers.get("first")
    (endpoint,) = inner.networks.inspect("inner").endpoints
    assert endpoint.container_name == "first"
    script = "getent hosts nick | cut -d' ' -f1; ls /sys/class/net"
    assert said(inner, script) == [endpoint.ip4, "eth0", "lo"]
    with pytest.raises(NetworkError, match="active endpoints"):
        inner.networks.remove("inner")
    first.restart(timeout=0)
    (endpoint,) = inner.networks.inspect("inner").endpoints
    assert said(inner, "getent hosts first | cut -d' ' -f1") == [endpoint.ip4]
    assert len(stand_ins(inner)) == 1


def test_a_container_of_the_caller(inner: Engine) -> None:
    """It ends with the block, and its address is given back."""
    options = make_options(SLEEP, network="inner", name="second")
    with inner.start("host", options):
        assert first_asks(inner, "second") == 0
    assert first_asks(inner, "second") != 0
    assert len(inner.networks.inspect("inner").endpoints) == 1


def first_asks(engine: Engine, name: str) -> int:
    return engine.containers.get("first").exec(["getent", "hosts", name]).returncode


def test_networks_come_and_go_while_it_runs(inner: Engine) -> None:
    inner.networks.create("more", internal=True, subnet="10.61.0.0/24")
    first: Container = inner.containers.get("first")
    inner.networks.connect("more", "first", ip="10.61.0.7")
    assert first.exec(["ls", "/sys/class/net"]).stdout.split() == [b"eth0", b"eth1", b"lo"]
    assert said(inner, "getent hosts first | cut -d' ' -f1") != ["10.61.0.7"]
    inner.networks.disconnect("more", "first")
    assert first.exec(["ls", "/sys/class/net"]).stdout.split() == [b"eth0", b"lo"]
    inner.networks.remove("more")


def test_where_it_may_connect_to(inner: Engine) -> None:
    ask = "import socket; print(socket.socket().connect_ex((socket.gethostbyname('first'), 9)))"
    script = f'/usr/bin/python3 -c "{ask}"'
    assert said(inner, script, egress="local") == [str(errno.ECONNREFUSED)], "by the other container"
    assert said(inner, script, egress="10.62.0.0/24") == [str(errno.EHOSTUNREACH)], "by its own rules"


def test_what_takes_root(inner: Engine) -> None:
    with pytest.raises(UnsupportedError, match="rates"):
        inner.run("host", make_options(["true"], network="inner", network_in="1mbit"))
    assert len(inner.networks.inspect("inner").endpoints) == 1
