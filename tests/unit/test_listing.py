"""Lists of containers: what rows say, and Docker's filters."""

import json
from dataclasses import replace

import pytest

from pyrtc.engine import Engine
from pyrtc.errors import ContainerError, ContainerNotFound, UsageError
from pyrtc.listing import ContainerFilter, ContainerInfo, read_list
from pyrtc.options import Port
from pyrtc.store import Owner


def info(name, **fields):
    wanted = {"image": "debian:12", "command": (), "state": "running", "created": 100.0, "returncode": None}
    return ContainerInfo(id=name.encode().hex() * 8, name=name, **(wanted | fields))


WEB = info("web", labels=(("tier", "a"),), image_id="sha256:abcd1234", network="none", mounts=(("data", "/srv"),),
           ports=(Port(80, "tcp", 8080), Port(53, "udp", 8053), Port(99)))  # fmt: skip
JOB = info("job", created=200.0, state="exited", returncode=3, image="reg.io/app", image_id="sha256:ffff")
OLD = info("web-old", created=50.0, state="paused", health="healthy", network="host")


@pytest.mark.parametrize(
    ("filters", "passing"),
    [
        ({}, (WEB, JOB, OLD)),
        ({"name": "web"}, (WEB, OLD)),
        ({"name": "^web$"}, (WEB,)),
        ({"name": "^/web$"}, (WEB,)),
        ({"name": "("}, ()),
        ({"name": ["^web$", "job"]}, (WEB, JOB)),
        ({"id": WEB.id[:4]}, (WEB, OLD)),
        ({"id": WEB.id}, (WEB,)),
        ({"status": "paused"}, (OLD,)),
        ({"status": ["paused", "exited"]}, (JOB, OLD)),
        ({"exited": "3"}, (JOB,)),
        ({"exited": "0"}, ()),
        ({"label": "tier"}, (WEB,)),
        ({"label": "tier=b"}, ()),
        ({"label": ["tier=a", "other"]}, ()),
        ({"ancestor": "debian:12"}, (WEB, OLD)),
        ({"ancestor": "docker.io/library/debian:12"}, (WEB, OLD)),
        ({"ancestor": "debian"}, ()),
        ({"ancestor": "reg.io/app:latest"}, (JOB,)),
        ({"ancestor": "abcd"}, (WEB,)),
        ({"ancestor": "sha256:abcd1234"}, (WEB,)),
        ({"before": "web"}, (OLD,)),
        ({"since": "web"}, (JOB,)),
        ({"before": JOB.id[:5], "since": "web-old"}, (WEB,)),
        ({"volume": "data"}, (WEB,)),
        ({"volume": "/srv"}, (WEB,)),
        ({"network": "host"}, (OLD,)),
        ({"publish": "8080"}, (WEB,)),
        ({"publish": "8080/udp"}, ()),
        ({"publish": ["1", "8000-8079/udp"]}, (WEB,)),
        ({"publish": "8000-8079"}, ()),
        ({"publish": "99"}, ()),
        ({"expose": "99/tcp"}, (WEB,)),
        ({"expose": "80"}, (WEB,)),
        ({"expose": "53"}, ()),
        ({"health": "none"}, (WEB, JOB)),
        ({"health": "healthy"}, (OLD,)),
        ({"name": "web", "status": "paused"}, (OLD,)),
    ],
)
def test_filters(filters, passing):
    assert ContainerFilter(filters).choose((WEB, JOB, OLD)) == passing


@pytest.mark.parametrize(
    "filters",
    [
        {"x": "1"},
        {"status": "odd"},
        {"health": "ill"},
        {"exited": "x"},
        *({"publish": word} for word in ("", "x", "0", "80-", "-80", "90-80", "65536", "80/", "80/icmp", "9" * 5000)),
        {"expose": "²"},
    ],
)
def test_filters_that_are_none(filters):
    with pytest.raises(UsageError):
        ContainerFilter(filters)


def test_a_container_to_compare_with():
    with pytest.raises(ContainerNotFound):
        ContainerFilter({"before": "nobody"}).choose((WEB,))
    with pytest.raises(ContainerError, match="ambiguous"):
        ContainerFilter({"since": WEB.id[:4]}).choose((WEB, OLD))


@pytest.fixture
def engine(tmp_path):
    with Engine(tmp_path / "store") as engine:
        yield engine


def make(engine, name, **fields):
    words = {"image": "host", "command": ["sleep", "1"], "network": "host", "binds": [["/src", "/dst", False]]}
    containers = engine.store.containers
    wanted = {"image_id": "host", "options_json": json.dumps(words).encode(), "directory": False, "remove": False}
    return containers.allocate(name=name, **(wanted | fields))


def test_rows(engine):
    engine.store.volumes.create("data")
    record = make(engine, "web", volumes=("data",), targets=("/srv",))
    me = Owner.current()
    engine.store.containers.started(record.id, me.pid, me.start_time)
    (shown,) = engine.containers.infos()
    assert (shown.state, shown.command, shown.network) == ("running", ("sleep", "1"), "host")
    assert shown.mounts == (("data", "/srv"), ("/src", "/dst"))
    assert shown.started == shown.created  # in the foreground
    assert read_list(engine.store.path).containers == (shown,) and not read_list(engine.store.path).stale
    engine.store.containers.exited(record.id, b'{"returncode": 3, "outcome": "exited"}', None, 2.0)
    assert engine.containers.infos() == ()
    (ended,) = engine.containers.infos(all=True)
    assert (ended.state, ended.returncode) == ("exited", 3)
    assert ended.finished - ended.started == pytest.approx(2.0)
    assert engine.containers.infos(filters={"exited": "3"}) == (ended,)  # all is meant
    assert engine.containers.list(filters={"name": "^nobody$"}, all=True) == ()


def test_what_was_killed_makes_a_list_stale(engine):
    record = make(engine, "web")
    assert not read_list(engine.store.path).stale
    dead = replace(Owner.current(), start_time=1)
    engine.store.database.execute(
        "UPDATE containers SET owner_pid = ?, owner_start = ? WHERE id = ?", (dead.pid, dead.start_time, record.id)
    )
    assert read_list(engine.store.path).stale
    assert engine.containers.infos(all=True) == ()
    assert not read_list(engine.store.path).stale


def test_no_store(tmp_path):
    assert read_list(tmp_path / "none").containers == () and not (tmp_path / "none").exists()
