"""Containers that do not run are put on networks and taken from them: what they will be started with changes."""

import json
import os

import pytest

from pyrtc import (
    ContainerError,
    ContainerNotFound,
    Engine,
    NetworkAttachment,
    NetworkError,
    NetworkNotFound,
    UnsupportedError,
    UsageError,
)
from pyrtc.cli.main import main
from pyrtc.options import RunOptions
from pyrtc.store.networks import Network
from pyrtc.store.records import dump_options, load_options

NETWORKS = (
    Network("ab" * 32, "web", "bridge", 1.0, "pyrtc-abababab", subnet4="10.77.0.0/24", gateway4="10.77.0.1"),
    Network("cd" * 32, "db", "bridge", 1.0, "pyrtc-cdcdcdcd", subnet4="10.78.0.0/24", gateway4="10.78.0.1",
            subnet6="fd00:78::/64", gateway6="fd00:78::1"),
)  # fmt: skip


@pytest.fixture
def engine(tmp_path, monkeypatch):
    monkeypatch.setenv("PYRTC_ROOT", str(tmp_path / "store"))
    with Engine() as opened:
        for network in NETWORKS:
            opened.store.networks.create(network)
        yield opened


def container(engine: Engine, name: str, *networks: str, mode: str = "none", spec: bool = True) -> str:
    attached = tuple(map(NetworkAttachment, networks))
    options = RunOptions(networks=attached, network=networks[0] if networks else mode, remove=False)
    described = {"network": options.network, "networks": list(networks), "labels": {"a": "b"}}
    made = engine.store.containers.allocate(
        name=name,
        image_id="x",
        options_json=json.dumps(described).encode(),
        directory=False,
        remove=False,
        detached=1,
        spec=dump_options(options) if spec else None,
    )
    engine.store.lives.created(made.id)
    return made.id


def asked(engine: Engine, container_id: str) -> RunOptions:
    return load_options(engine.store.containers.get(container_id).spec)


def test_to_a_network_and_away(engine: Engine) -> None:
    one = container(engine, "one")
    engine.networks.connect("abab", "one", aliases=["api"])
    engine.networks.connect(
        "db", one[:8], ip="10.78.0.9", ip6="fd00:78:0::9", mac_address="02-00-00-00-00-09", aliases="d"
    )
    options = asked(engine, one)
    assert options.network == "web"
    assert options.networks == (
        NetworkAttachment("web", aliases=("api",)),
        NetworkAttachment("db", "10.78.0.9", "fd00:78::9", "02:00:00:00:00:09", ("d",)),
    )
    described = json.loads(engine.store.containers.get(one).options)
    assert described == {"network": "web", "networks": ["web", "db"], "labels": {"a": "b"}}
    engine.networks.disconnect("web", "one")
    assert (asked(engine, one).network, [n.network for n in asked(engine, one).networks]) == ("db", ["db"])
    engine.networks.disconnect("cdcd", "one")
    assert (asked(engine, one).network, asked(engine, one).networks) == ("db", ())  # as the NetworkMode of Docker
    told = [(e.action, e.id, e.attribute("container"), e.attribute("name"), e.attribute("type"))
            for e in engine.events(filters={"type": "network"})]  # fmt: skip
    web, db = ("ab" * 32, one, "web", "bridge"), ("cd" * 32, one, "db", "bridge")
    assert told == [("connect", *web), ("connect", *db), ("disconnect", *web), ("disconnect", *db)]


def test_what_is_refused(engine: Engine) -> None:
    one = container(engine, "one", "ab" * 32)
    container(engine, "two", mode="host")
    container(engine, "three", mode=f"container:{one}")
    container(engine, "four", spec=False)
    with pytest.raises(NetworkError, match="endpoint with name one already exists in network web"):
        engine.networks.connect("web", "one")
    for name in ("two", "three"):
        with pytest.raises(NetworkError, match="container sharing network namespace with another container or host"):
            engine.networks.connect("web", name)
    with pytest.raises(ContainerError, match="cannot be started again"):
        engine.networks.connect("web", "four")
    for network, words, error in (
        ("nope", {}, NetworkNotFound),
        ("host", {}, UsageError),
        ("none", {}, UsageError),
        ("db", {"ip": "10.77.0.9"}, UsageError),
        ("db", {"ip": "10.78.0.1"}, NetworkError),
        ("db", {"ip": "x"}, UsageError),
        ("db", {"ip6": "10.78.0.9"}, UsageError),
        ("web", {"ip6": "fd00:78::9"}, UsageError),
        ("db", {"mac_address": "01:00:00:00:00:00"}, UsageError),
        ("db", {"aliases": ["a b"]}, UsageError),
        ("bridge", {"aliases": ["a"]}, UsageError),
    ):
        with pytest.raises(error):
            engine.networks.connect(network, "one", **words)
    with pytest.raises(ContainerNotFound):
        engine.networks.connect("web", "nope")
    assert [n.network for n in asked(engine, one).networks] == ["ab" * 32]


def test_not_connected(engine: Engine) -> None:
    one = container(engine, "one", "web")
    with pytest.raises(NetworkError, match=f"container {one} is not connected to network db"):
        engine.networks.disconnect("db", "one")
    with pytest.raises(NetworkNotFound, match="network nope not found"):
        engine.networks.disconnect("nope", "one")
    with pytest.raises(ContainerNotFound):
        engine.networks.disconnect("web", "nope")
    for network, name in (("db", "one"), ("nope", "one"), ("web", "nope")):
        engine.networks.disconnect(network, name, force=True)
    # One that is gone is left by the name that it had.
    engine.networks.remove("web")
    engine.networks.disconnect("web", "one")
    assert asked(engine, one).networks == ()


def test_the_command_line(engine: Engine, capsys) -> None:
    one = container(engine, "one")
    words = (
        "--ip",
        "10.78.0.9",
        "--ip6",
        "fd00:78::9",
        "--mac-address",
        "02:00:00:00:00:09",
        "--alias",
        "d",
        "--alias",
        "e",
    )
    assert main(["network", "connect", *words, "db", "one"]) == 0
    assert asked(engine, one).networks == (
        NetworkAttachment("db", "10.78.0.9", "fd00:78::9", "02:00:00:00:00:09", ("d", "e")),
    )
    assert main(["network", "connect", "db", "one"]) == 1
    assert "already exists in network db" in capsys.readouterr().err
    assert main(["network", "disconnect", "db", "one"]) == 0
    assert main(["network", "disconnect", "db", "one"]) == 1
    assert "is not connected to network db" in capsys.readouterr().err
    assert main(["network", "disconnect", "-f", "db", "one"]) == 0
    for argv in (["connect", "db"], ["disconnect", "db"], ["connect", "db", "one", "two"]):
        assert main(["network", *argv]) in (1, 125)
        assert "a network and a container are needed" in capsys.readouterr().err


def test_ordinary_users(engine: Engine) -> None:
    if os.geteuid() == 0:
        pytest.skip("root's bridge is as other networks")
    one = container(engine, "one")
    engine.networks.connect("web", "one")
    assert [n.network for n in asked(engine, one).networks] == ["web"]
    with pytest.raises(UnsupportedError, match="a program that a container gets when it is made"):
        engine.networks.connect("bridge", "one")
    container(engine, "two", "bridge")
    with pytest.raises(UnsupportedError, match="leave it out, web leads outside"):
        engine.networks.connect("web", "two")
    engine.networks.disconnect("web", "one")
    assert asked(engine, one).networks == ()


def test_ordinary_users_containers_keep_theirs(engine: Engine) -> None:
    """It is a program's: nothing would be taken away."""
    if os.geteuid() == 0:
        pytest.skip("root disconnects containers from networks")
    one = container(engine, "one", "bridge")
    for force in (False, True):
        with pytest.raises(UnsupportedError, match="keeps the network bridge, which is a program"):
            engine.networks.disconnect("bridge", "one", force=force)
    assert [n.network for n in asked(engine, one).networks] == ["bridge"]
    with pytest.raises(NetworkError, match="is not connected to network web"):
        engine.networks.disconnect("web", "one")
