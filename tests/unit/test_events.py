"""Telling of what happens in a store, and hearing of it."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time

import pytest
from image_builder import HELLO, config, docker_archive

from pyrtc import aio
from pyrtc import events as log
from pyrtc.engine import Engine
from pyrtc.errors import StoreError, UsageError
from pyrtc.event_stream import EventFilter, async_events, events
from pyrtc.events import Event, emit, event_of


class Root:
    """A directory, as `emit` wants it of a store."""

    def __init__(self, path):
        self.path = path
        self.root_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def tell(self, *actions, name="web"):
        for action in actions:
            emit(self, "container", action, "c" * 64, {"name": name, "image": "debian:12"})


@pytest.fixture
def root(tmp_path):
    made = Root(tmp_path)
    yield made
    os.close(made.root_fd)


def actions(found):
    return [event.action for event in found]


def test_what_was_told_is_read(root):
    before = time.time_ns()
    emit(root, "volume", "create", "data", {"driver": "local"})
    (event,) = events(root)
    assert before <= event.time_ns <= time.time_ns() and event.time == event.time_ns / 1e9
    assert (event.kind, event.action, event.id, event.attributes) == (
        "volume", "create", "data", (("driver", "local"),),
    )  # fmt: skip
    assert event.attribute("driver") == "local" and event.attribute("name") is None
    assert (root.path / "events").stat().st_mode & 0o777 == 0o600


def test_nothing_yet(root):
    assert list(events(root)) == []


def test_what_is_too_long_is_shortened(root):
    emit(root, "container", "die", "c" * 64, {"long": "x" * 5000, "huge": "y" * 90000, "name": "web"})
    (line,) = (root.path / "events").read_bytes().splitlines(keepends=True)
    assert len(line) < 4096 and json.loads(line)["attributes"] == {"name": "web"}


@pytest.mark.parametrize("labels", [{}, {"a": "b" * 5000, "c": '"\n'}, {"c": '"\n', "long": "é" * 650}])
def test_what_a_monitor_fills_in(labels):
    before, after = log.unfinished_line("container", "health_status: ", "abc", {"name": "web", **labels})
    line = b'{"time":18446744073709551615' + before + b"unhealthy" + after
    told = event_of(line)
    assert told is not None and len(line) <= log.MAX_LINE and b"\n" not in before
    assert (told.action, told.id, told.attribute("name")) == ("health_status: unhealthy", "abc", "web")
    assert told.attribute("c") == labels.get("c")


def test_names_that_are_no_text(root):
    emit(root, "container", "create", "c", {"image": os.fsdecode(b"\xff\n{")})
    assert next(events(root)).attribute("image") == os.fsdecode(b"\xff\n{")


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"null", b"3", b'{"time": 1}', b"[" * 100_000,
             b'{"time":1,"kind":"","action":"","id":"","attributes":3}',
             b'{"time":"x","kind":"","action":"","id":"","attributes":{}}']
)  # fmt: skip
def test_a_damaged_line_is_passed_over(root, line):
    root.tell("create")
    with (root.path / "events").open("ab") as file:
        file.write(line + b"\n")
    root.tell("start")
    assert event_of(line) is None
    assert actions(events(root)) == ["create", "start"]


def test_times(root):
    root.tell("create")
    (first,) = events(root)
    time.sleep(0.002)
    middle = time.time()
    root.tell("start")
    assert actions(events(root, since=middle)) == ["start"]
    assert actions(events(root, until=middle)) == ["create"]
    assert actions(events(root, since=first.time - 1, until=middle + 60)) == ["create", "start"]


CONTAINER = Event(
    1, "container", "health_status: healthy", "abc123", (("image", "debian:12"), ("name", "web"), ("tier", "a"))
)
IMAGE = Event(1, "image", "tag", "sha256:77", (("name", "reg.io:5000/app:1"),))
VOLUME = Event(1, "volume", "mount", "data", (("container", "abc123"),))


@pytest.mark.parametrize(
    ("filters", "passing"),
    [
        ({}, (CONTAINER, IMAGE, VOLUME)),
        ({"type": "image"}, (IMAGE,)),
        ({"type": ["image", "volume"]}, (IMAGE, VOLUME)),
        ({"event": "health_status"}, (CONTAINER,)),
        ({"event": "health_status: healthy"}, (CONTAINER,)),
        ({"event": "health"}, ()),
        ({"container": "abc"}, (CONTAINER,)),
        ({"container": "we"}, (CONTAINER,)),
        ({"container": "abc123"}, (CONTAINER, VOLUME)),
        ({"container": ""}, ()),
        ({"image": "debian"}, (CONTAINER,)),
        ({"image": "debian:12"}, (CONTAINER,)),
        ({"image": "77"}, (IMAGE,)),
        ({"image": "sha256:77"}, (IMAGE,)),
        ({"image": "reg.io:5000/app"}, (IMAGE,)),
        ({"image": "reg.io"}, ()),
        ({"volume": "data"}, (VOLUME,)),
        ({"label": "tier"}, (CONTAINER,)),
        ({"label": ["tier=a", "other"]}, ()),
        ({"label": "tier=b"}, ()),
        ({"scope": "local"}, (CONTAINER, IMAGE, VOLUME)),
        ({"scope": "swarm"}, ()),
        ({"type": "container", "event": "tag"}, ()),
    ],
)
def test_filters(filters, passing):
    wanted = EventFilter(filters)
    assert tuple(event for event in (CONTAINER, IMAGE, VOLUME) if wanted.passes(event)) == passing


def test_an_unknown_filter_is_wrong_at_once(root):
    with pytest.raises(UsageError, match="colour"):
        events(root, filters={"colour": "red"})


def test_following(root):
    root.tell("create")
    heard = events(root, follow=True)  # from now, before the first is asked for
    threading.Timer(0.05, root.tell, ["start", "die"]).start()
    assert [next(heard).action, next(heard).action] == ["start", "die"]
    heard.close()


def test_following_with_what_was(root):
    root.tell("create")
    heard = events(root, since=0, follow=True)
    assert next(heard).action == "create"
    root.tell("start")
    assert next(heard).action == "start"


def test_following_until(root):
    begin = time.monotonic()
    assert list(events(root, until=time.time() + 0.1, follow=True)) == []
    assert 0.09 < time.monotonic() - begin < 5
    assert list(events(root, until=time.time() - 1, follow=True)) == []


def test_following_does_not_poll(root):
    """A follower that waits uses no processor."""
    heard = events(root, until=time.time() + 0.5, follow=True)
    begin = time.process_time()
    assert list(heard) == []
    assert time.process_time() - begin < 0.1


def test_nothing_stays_open(root):
    before = os.listdir("/proc/self/fd")
    root.tell("create")
    list(events(root))
    heard = events(root, since=0, follow=True)
    next(heard)
    heard.close()
    events(root, follow=True)  # never asked
    assert os.listdir("/proc/self/fd") == before


def test_rotation(root, monkeypatch):
    monkeypatch.setattr(log, "MAX_SIZE", 2000)
    heard = events(root, since=0, follow=True)
    told = [f"e{number}" for number in range(100)]
    for action in told:
        root.tell(action)
        assert next(heard).action == action  # whatever was renamed in between
    kept = actions(events(root))
    assert kept == told[-len(kept) :] and 10 < len(kept) < 100
    assert sorted(os.listdir(root.path)) == ["events", "events.1"]
    assert max((root.path / name).stat().st_size for name in ("events", "events.1")) < 2200


def test_rotation_while_nobody_reads(root, monkeypatch):
    """A follower that slept through two renamings goes on with the oldest that is left."""
    monkeypatch.setattr(log, "MAX_SIZE", 2000)
    heard = events(root, since=0, follow=True)
    told = [f"e{number}" for number in range(100)]
    root.tell(told[0])
    assert next(heard).action == "e0"
    for action in told[1:]:
        root.tell(action)
    rest = []
    while not rest or rest[-1] != told[-1]:
        rest.append(next(heard).action)
    kept = actions(events(root))
    began = rest[: -len(kept)]  # of the file that was open
    assert rest[-len(kept) :] == kept and began == told[1 : len(began) + 1] and len(began) + len(kept) < 99


WRITER = """
import os, sys
from pyrtc import events
events.MAX_SIZE = int(sys.argv[2])
class Root: root_fd = os.open(sys.argv[1], os.O_RDONLY)
for number in range(400):
    events.emit(Root, "container", "start", f"{sys.argv[3]}-{number}", {"name": "web"})
"""


def test_several_processes_at_once(root):
    """Nothing is lost and nothing is mixed, also across a rotation."""
    heard = events(root, follow=True)
    size = 80_000  # of 126 kB: renamed once
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(root.path), str(size), str(number)]) for number in range(3)
    ]
    found = {next(heard).id for _ in range(1200)}
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert found == {f"{writer}-{number}" for writer in range(3) for number in range(400)}
    assert (root.path / "events.1").exists()
    assert {event.id for event in events(root)} == found


def test_a_full_disk_loses_the_event_only(root, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    root.tell("create")
    monkeypatch.undo()
    assert list(events(root)) == []


def test_a_line_that_was_cut_short(root, monkeypatch):
    write = os.write
    cut = iter([20])
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: next(cut, len(data))]))
    root.tell("create")
    root.tell("start")
    monkeypatch.undo()
    assert actions(events(root)) == ["start"]


def test_a_link_is_not_followed(root):
    (root.path / "other").write_bytes(b"")
    (root.path / "events").symlink_to("other")
    root.tell("create")
    assert (root.path / "other").read_bytes() == b""
    with pytest.raises(StoreError):
        events(root)


def test_async(root):
    async def hear():
        root.tell("create")
        heard = async_events(root, since=0, follow=True)
        found = [(await anext(heard)).action]
        asyncio.get_running_loop().call_later(0.05, root.tell, "start")
        found.append((await anext(heard)).action)
        waiting = asyncio.ensure_future(anext(heard))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert [event async for event in async_events(root, until=time.time() + 0.05, follow=True)] == []
        return found

    before = os.listdir("/proc/self/fd")
    assert asyncio.run(hear()) == ["create", "start"]
    assert os.listdir("/proc/self/fd") == before


def test_images_and_volumes(tmp_path):
    (tmp_path / "a.tar").write_bytes(docker_archive((["app"], config(HELLO), [HELLO])))
    with Engine(tmp_path / "store") as engine:
        (image,) = engine.images.load(tmp_path / "a.tar")
        engine.images.tag("app", "again")
        engine.images.save(["again"], tmp_path / "b.tar")
        engine.images.remove("again")
        engine.images.remove("app")
        engine.images.import_(tmp_path / "a.tar", "base:1")
        engine.images.prune(all_unused=True)
        engine.store.volumes.create("data")
        engine.store.volumes.create("data")
        engine.store.volumes.remove("data")
        told = [(event.kind, event.action, event.attribute("name")) for event in engine.events()]
        assert told == [
            ("image", "load", image.id),
            ("image", "tag", "again:latest"),
            ("image", "save", "again:latest"),
            ("image", "untag", "again:latest"),
            ("image", "untag", "app:latest"),
            ("image", "delete", image.id),
            ("image", "import", "base:1"),
            ("image", "untag", "base:1"),
            ("image", "delete", told[8][2]),
            ("image", "prune", None),
            ("volume", "create", None),
            ("volume", "destroy", None),
        ]
        assert {event.id for event in engine.events(filters={"type": "volume"})} == {"data"}

        async def hear():
            return [event.action async for event in aio.events(engine=engine, filters={"type": "volume"})]

        assert asyncio.run(hear()) == ["create", "destroy"]
