"""Snapshots: frozen R/W layers, and containers that start from them."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT, File, ImageFactory

import pyrtc
from pyrtc import aio
from pyrtc.api import make_options
from pyrtc.engine import Engine
from pyrtc.errors import ContainerNotFound, ImageError, ImageNotFound, StoreError, UnsupportedError, UsageError


def written(engine: Engine, image: "str | pyrtc.Snapshot", *words: str, **options: object) -> pyrtc.Container:
    """Return a container that has executed probe commands and ended."""
    done = engine.run(image, make_options(["/probe", *words], **{"remove": False, **options}))  # type: ignore[arg-type]
    assert done.returncode == 0, done
    return engine.containers.get(done.id)


def read(engine: Engine, image: "str | pyrtc.Snapshot", path: str) -> str:
    done = engine.run(image, make_options(["/probe", "cat", path]))
    return done.stdout.decode().rstrip("\x1e")


def waiting_for(container: pyrtc.Container, wanted: str) -> None:
    deadline = time.monotonic() + 20
    while wanted not in {f"{change.kind} {change.path}" for change in container.diff()}:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_siblings_start_where_it_was(engine: Engine, image: ImageFactory) -> None:
    container = written(engine, image(), "create", "/a", "1")
    snapshot = container.snapshot("base")
    assert engine.snapshots.list() == (snapshot,) and engine.snapshots.get("base") == snapshot
    assert snapshot.durable and snapshot.usable and snapshot.container == container.id
    usage = engine.system.df()
    assert (usage.snapshots.total, usage.snapshots.active) == (1, 1) and usage.snapshots.size > 0
    assert container.diff() == ()
    siblings = [written(engine, snapshot, "create", f"/own{number}", str(number)) for number in range(3)]
    for number, sibling in enumerate(siblings):
        assert [change.path for change in sibling.diff()] == [f"/own{number}"]
    assert read(engine, snapshot, "/a") == "1"
    assert "ENOENT" in read(engine, f"snapshot:{snapshot.id[:8]}", "/own0")
    for sibling in (*siblings, container):
        with pytest.raises(StoreError, match="in use"):
            engine.snapshots.remove(snapshot)
        sibling.remove()
    engine.snapshots.remove("base")
    assert engine.snapshots.list() == () and not os.listdir(Path(engine.store.path) / "snapshots")


def test_a_container_goes_on_above_its_snapshot(engine: Engine, image: ImageFactory) -> None:
    container = engine.containers.create(image(), ["/probe", "create", "/a", "1", ",", "list", "/"])
    container.start().wait()
    snapshot = container.snapshot()
    container.start().wait()
    assert {change.kind for change in container.diff()} <= {"C"}, "its files are below, in the snapshot"
    container.remove()
    engine.snapshots.remove(snapshot)


def test_they_nest_and_become_images(engine: Engine, image: ImageFactory) -> None:
    name = image()
    first = written(engine, name, "create", "/a", "1", ",", "create", "/b", "1")
    bottom = first.snapshot("bottom")
    second = written(engine, bottom, "unlink", "/a", ",", "create", "/c", "2")
    top = second.snapshot("top")
    assert top.parent == bottom.id
    third = written(engine, top, "create", "/d", "3")
    committed = third.commit("flat:1")
    assert len(committed.layers) == len(engine.images.get(name).layers) + 3
    for container in (first, second, third):
        container.remove()
    with pytest.raises(StoreError, match="in use"):
        engine.snapshots.remove("bottom")
    for where in (top, "flat:1"):
        assert [read(engine, where, path)[:7] for path in ("/a", "/b", "/c")] == ["!ENOENT", "1", "2"]
    engine.snapshots.remove("top")
    engine.snapshots.remove("bottom")
    assert read(engine, "flat:1", "/d") == "3"


def test_a_container_that_goes_when_it_ends(engine: Engine, image: ImageFactory) -> None:
    container = engine.containers.run(
        image(), ["/probe", "create", "/a", "1", ",", "sleep", "1000"], remove=True, stop_timeout=0.0
    )
    waiting_for(container, "A /a")
    snapshot = container.snapshot(stop=True)
    assert not snapshot.durable
    with pytest.raises(ContainerNotFound):
        _ = container.record
    assert read(engine, snapshot, "/a") == "1"
    # What is kept must survive what its snapshot would not.
    kept = written(engine, snapshot, "create", "/b", "2")
    assert engine.snapshots.get(snapshot.id).durable
    kept.remove()
    engine.snapshots.remove(snapshot)


def test_a_container_in_the_foreground(engine: Engine, image: ImageFactory) -> None:
    with engine.start(image(), make_options(["/probe", "create", "/a", "1", ",", "sleep", "1000"])) as running:
        container = engine.containers.get(running.id)
        waiting_for(container, "A /a")
        snapshot = container.snapshot(stop=True, timeout=0, durable=True)
        assert running.wait().returncode in (128 + signal.SIGTERM, 128 + signal.SIGKILL)
    assert snapshot.durable and read(engine, snapshot, "/a") == "1"
    engine.snapshots.remove(snapshot)


def test_the_with_block_still_removes_it(engine: Engine, image: ImageFactory) -> None:
    command = ["/probe", "create", "/a", "1", ",", "sleep", "1000"]
    with pyrtc.Container(image(), command, engine=engine, stop_timeout=0.0) as container:
        waiting_for(container, "A /a")
        snapshot = container.snapshot("ss", stop=True)
        with pyrtc.Container(snapshot, ["/probe", "sleep", "1000"], engine=engine, stop_timeout=0.0) as sibling:
            assert sibling.status == "running"
    assert read(engine, "snapshot:ss", "/a") == "1"
    engine.snapshots.remove(snapshot)


def test_one_that_goes_on_running(engine: Engine, image: ImageFactory) -> None:
    command = ["/probe", "create", "/a", "1", ",", "create", "/b", "2", ",", "unlink", "/probe", ",", "sleep", "1000"]
    with pyrtc.Container(image({"old": "x"}), command, engine=engine, stop_timeout=0.0) as container:
        waiting_for(container, "A /b")
        deadline = time.monotonic() + 20
        while "/probe" not in {change.path for change in container.diff()}:
            assert time.monotonic() < deadline
        try:
            snapshot = container.snapshot("live")
        except UnsupportedError as error:
            assert not ROOT and "cannot pause" in str(error) and "--stop" in str(error)
            return
        assert container.status == "running"
        assert [change.path for change in container.diff()] == ["/a", "/b", "/probe"], "it keeps its own R/W layer"
    layer = engine.store.snapshots.get("live").path
    assert sorted(os.listdir(layer)) == ["a", "b", "probe"], "whiteouts belong to it"
    engine.snapshots.remove(snapshot)


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.skipif(not ROOT, reason="--userns auto needs root")
def test_one_whose_ids_are_its_own(engine: Engine, image: ImageFactory, *, stop: bool) -> None:
    """What stands on it has other ids, or none of its own, and the same owners inside."""
    name = image({"etc/old": "image", "home": File(None, uid=7, gid=8)})
    words = ["create", "/home/new", "1"]
    words += [",", "chown", "/home/new", "7", ",", "unlink", "/etc/old", ",", "sleep", "1000"]
    with pyrtc.Container(name, ["/probe", *words], userns="auto", engine=engine) as container:
        waiting_for(container, "D /etc/old")
        if stop:
            container.stop(timeout=0)
        snapshot = container.snapshot()
        assert container.diff(), "it keeps what it has"
    for options in ({}, {"userns": "auto"}):
        look = ["/probe", "stat", "/home/new", ",", "stat", "/home", ",", "cat", "/etc/old"]
        done = engine.run(snapshot, make_options(look, **options))  # type: ignore[arg-type]
        new, home, old = done.stdout.decode().split("\x1e")[:3]
        assert new.split()[1] == home.split()[1] == "7" and "ENOENT" in old, options
    engine.snapshots.remove(snapshot)


@pytest.mark.parametrize("how", ["running", "stop", "ended"])
def test_one_that_is_a_full_copy(engine: Engine, image: ImageFactory, how: str) -> None:
    """The copy hides the image: what was removed from it stays so. The container goes on with what it has."""
    if how == "running" and not ROOT:
        pytest.skip("pausing needs a control group")
    name = image({"etc/old": "image", "etc/kept": "kept"})
    words = ["create", "/new", "1", ",", "unlink", "/etc/old", ",", "create", "/done", "", ",", "sleep", "1000"]
    container = engine.containers.run(name, ["/probe", *words], driver="copy")
    try:
        deadline = time.monotonic() + 20
        while not container.files.exists("/done"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if how == "ended":
            container.stop(timeout=0)
        snapshot = container.snapshot(stop=how == "stop", timeout=0)
        assert container.files.read("/new") == b"1"
        look = ["/probe", "cat", "/new", ",", "cat", "/etc/kept", ",", "cat", "/etc/old", ",", "create", "/own", "2"]
        done = engine.run(snapshot, make_options(look, remove=False))
        new, kept, old = done.stdout.decode().split("\x1e")[:3]
        assert (new, kept) == ("1", "kept") and "ENOENT" in old
        sibling = engine.containers.get(done.id)
        assert [change.path for change in sibling.diff()] == ["/own"]
        made = sibling.commit("whole:1")
        assert read(engine, "whole:1", "/new") == "1" and "ENOENT" in read(engine, "whole:1", "/etc/old")
        assert read(engine, "whole:1", "/own") == "2"
        engine.images.remove(made.id)
        sibling.remove()
        engine.snapshots.remove(snapshot)
        container.start()
        assert container.files.read("/etc/kept") == b"kept"
    finally:
        container.remove(force=True)


def test_names(engine: Engine, image: ImageFactory) -> None:
    container = written(engine, image(), "create", "/a", "1")
    container.snapshot("one")
    with pytest.raises(StoreError, match="already in use"):
        container.snapshot("one")
    with pytest.raises(UsageError, match="Invalid snapshot name"):
        container.snapshot("a/b")
    assert container.diff() == ()
    for missing in ("two", "f" * 64):
        with pytest.raises(StoreError, match="No such snapshot"):
            engine.run(f"snapshot:{missing}", make_options(["/probe"]))
    container.remove()
    engine.snapshots.remove("one")


def test_it_does_not_leave_its_store(engine: Engine, image: ImageFactory, tmp_path: Path) -> None:
    name = image()
    container = written(engine, name, "create", "/a", "1")
    container.snapshot("one")
    container.remove()
    for act in (
        lambda: engine.images.save(["snapshot:one"], tmp_path / "a.tar"),
        lambda: engine.images.push("snapshot:one"),
    ):
        with pytest.raises(UsageError, match="commit a container"):
            act()
    with pytest.raises(UsageError, match="snapshot"):
        engine.images.tag(name, "snapshot:mine")
    with pytest.raises(UnsupportedError, match="--driver copy"):
        engine.run("snapshot:one", make_options(["/probe"], driver="copy"))
    # Its image stays as long as it does.
    image_id = engine.images.get(name).id
    with pytest.raises(ImageError, match="snapshot"):
        engine.images.remove(image_id)
    engine.images.remove(image_id, force=True)
    assert read(engine, "snapshot:one", "/a") == "1"
    engine.images.prune(all_unused=True)
    assert read(engine, "snapshot:one", "/a") == "1"
    engine.snapshots.remove("one")
    engine.images.prune(all_unused=True)
    with pytest.raises(ImageNotFound):
        engine.images.get(image_id)


def test_a_machine_that_went_down(engine: Engine, image: ImageFactory) -> None:
    container = engine.containers.run(image(), ["/probe", "sleep", "1000"], remove=True, stop_timeout=0.0)
    snapshot = container.snapshot("lost", stop=True)
    engine.store.database.execute("UPDATE snapshots SET owner_boot = 'another 1'")
    assert not engine.snapshots.get("lost").usable
    with pytest.raises(StoreError, match="machine went down"):
        engine.run(snapshot, make_options(["/probe"]))
    engine.snapshots.remove("lost")


def test_from_asyncio(engine: Engine, image: ImageFactory) -> None:
    import asyncio

    async def work() -> None:
        container = aio.Container.of(written(engine, image(), "create", "/a", "1"))
        assert [change.path for change in await container.diff()] == ["/a"]
        snapshot = await container.snapshot("ss")
        assert await aio.Snapshots(engine).list() == (snapshot,)
        done = await aio.run(snapshot, ["/probe", "cat", "/a"], engine=engine)
        assert done.stdout.startswith(b"1")
        made = await container.commit("new:1")
        assert made.names == ("new:1",)
        await container.remove()
        await aio.Snapshots(engine).remove(snapshot)

    asyncio.run(work())


# ---- killed in the middle --------------------------------------------------------------------------------------------

KILLED = """
    import os, sys
    import pyrtc.store.snapshots as module
    from pyrtc.engine import Engine

    where = sys.argv[3]
    real = getattr(module.Snapshots, where)

    def die(*words, **more):
        if sys.argv[4] == "after":
            real(*words, **more)
        os.kill(os.getpid(), 9)

    setattr(module.Snapshots, where, die)
    container = Engine(sys.argv[1]).containers.get(sys.argv[2])
    container.snapshot("cut", stop=sys.argv[5] == "stop")
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("where", ["_begin", "_move_upper", "_new_upper", "_finish"])
def test_killed_while_the_layer_is_moved(engine: Engine, image: ImageFactory, where: str, when: str) -> None:
    container = written(engine, image(), "create", "/a", "1")
    command = [sys.executable, "-c", textwrap.dedent(KILLED), engine.store.path, container.id, where, when, "stop"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with Engine(engine.store.path) as after:
        report = after.system.check()
        assert report.clean and {problem.kind for problem in report.problems} <= {"leftover"}
        after.store.reap()
        found = after.snapshots.list()
        again = after.containers.get(container.id)
        # What it wrote is in exactly one place, and both can be used.
        if found:
            assert again.diff() == () and read(after, found[0], "/a") == "1"
        else:
            assert [change.path for change in again.diff()] == ["/a"]
        assert after.system.check().problems == ()
        assert read(after, again.snapshot("next"), "/a") == "1"
        again.remove()
        for snapshot in after.snapshots.list():  # the upper ones first
            after.snapshots.remove(snapshot)
        assert not os.listdir(f"{after.store.path}/snapshots") and after.system.check().problems == ()


@pytest.mark.skipif(not ROOT, reason="an ordinary user's container cannot be paused everywhere")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("where", ["_begin", "_finish"])
def test_killed_while_the_layer_is_copied(engine: Engine, image: ImageFactory, where: str, when: str) -> None:
    command = ["/probe", "create", "/a", "1", ",", "sleep", "1000"]
    container = engine.containers.run(image(), command, stop_timeout=0.0)
    waiting_for(container, "A /a")
    script = [sys.executable, "-c", textwrap.dedent(KILLED), engine.store.path, container.id, where, when, "copy"]
    assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
    with suppress(pyrtc.ContainerError):
        container.unpause()  # whoever paused it is gone
    with Engine(engine.store.path) as after:
        after.store.sweep()
        assert [change.path for change in after.containers.get(container.id).diff()] == ["/a"]
        assert len(after.snapshots.list()) == (where == "_finish")
        for snapshot in after.snapshots.list():
            assert read(after, snapshot, "/a") == "1"
            after.snapshots.remove(snapshot)
        assert after.system.check().problems == ()
    container.remove(force=True)


def test_what_is_listed(engine: Engine, image: ImageFactory) -> None:
    container = written(engine, image(), "create", "/a", "1")
    container.snapshot("one")
    words = [sys.executable, "-m", "pyrtc.cli.main", "--root", engine.store.path, "snapshot"]
    shown = subprocess.run([*words, "ls", "--format", "json"], capture_output=True, text=True, check=True).stdout
    row = json.loads(shown)
    assert row["Name"] == "one" and row["Durable"] == "yes" and row["Container"] == container.id[:12]
    refused = subprocess.run([*words, "rm", "one"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and "in use" in refused.stderr
    container.remove()
    gone = subprocess.run([*words, "rm", "snapshot:one"], capture_output=True, text=True, check=True)
    assert gone.stdout == "snapshot:one\n"
