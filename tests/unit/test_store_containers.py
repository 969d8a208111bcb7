import os
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from pyrtc.errors import ContainerError, ContainerNotFound, ImageNotFound, StoreError, UsageError
from pyrtc.store import ContainerRecord, Owner, Store, process_start_time
from pyrtc.store.rw_directories import RwDirectories


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "s") as store:
        yield store


def allocate(store: Store, **fields: object):
    defaults = {"name": None, "image_id": "host", "options_json": b"{}", "directory": False}
    return store.containers.allocate(**(defaults | fields))


def disown(store: Store, container_id: str, owner: Owner | None = None) -> None:
    """Make a container look as if its owner had died."""
    dead = owner or replace(Owner.current(), start_time=1)
    store.database.execute(
        "UPDATE containers SET owner_pid = ?, owner_start = ?, owner_boot = ? WHERE id = ?",
        (dead.pid, dead.start_time, dead.boot, container_id),
    )


def test_life_of_a_container(store: Store) -> None:
    made = allocate(store, name="web", options_json=b'{"a":1}', directory=True, remove=False)
    assert len(made.id) == 64
    assert (made.state, made.owner, made.exit) == ("creating", Owner.current(), None)
    assert sorted(os.listdir(made.directory)) == ["upper", "work"]
    assert stat.S_IMODE(os.stat(f"{made.directory}/upper").st_mode) == 0o755
    assert stat.S_IMODE(os.stat(made.directory).st_mode) == 0o700
    assert store.containers.get("web") == made
    store.containers.started(made.id, 42, 1234)
    running = store.containers.get(made.id[:6])
    assert (running.state, running.pid, running.start_time) == ("running", 42, 1234)
    store.containers.exited(made.id, b'{"code":0}')
    ended = store.containers.get("/web")
    assert (ended.state, ended.exit, ended.options) == ("exited", b'{"code":0}', b'{"a":1}')
    store.containers.remove(made.id)
    assert not os.path.exists(made.directory)
    assert store.containers.list() == ()
    store.containers.remove(made.id)
    with pytest.raises(ContainerNotFound):
        store.containers.started(made.id, 1, 1)


def test_the_mode_of_the_root_does_not_follow_the_umask(store: Store) -> None:
    before = os.umask(0o077)
    try:
        made = allocate(store, directory=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(f"{made.directory}/upper").st_mode) == 0o755


@pytest.mark.parametrize("name", ["", "a", "-a", ".a", "a b", "a/b", "ä1", "a\n", "../x", "aa\0"])
def test_bad_names(store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="Invalid container name"):
        allocate(store, name=name)


def test_a_name_is_taken_once(store: Store) -> None:
    first = allocate(store, name="web")
    with pytest.raises(
        ContainerError, match=f'Conflict. The container name "/web" is already in use by container "{first.id}"'
    ):
        allocate(store, name="web")
    store.containers.remove(first.id)
    allocate(store, name="web")


def test_names_are_found_even_in_a_crowd(store: Store, monkeypatch) -> None:
    import pyrtc.store.names as names

    monkeypatch.setattr(names, "_ADJECTIVES", ["calm"])
    monkeypatch.setattr(names, "_NOUNS", ["owl", "fox"])
    assert len({allocate(store).name for _ in range(30)}) == 30


def test_generated_names_are_legal() -> None:
    from pyrtc.store.containers import _NAME
    from pyrtc.store.names import _ADJECTIVES, _NOUNS, random_name

    assert len(set(_ADJECTIVES)) == len(_ADJECTIVES) > 100
    assert len(set(_NOUNS)) == len(_NOUNS) > 100
    assert all(_NAME.fullmatch(random_name(attempt)) for attempt in range(100))


def test_look_up(store: Store) -> None:
    ids = [allocate(store).id for _ in range(40)]
    shared = next(prefix for prefix in "0123456789abcdef" if sum(item.startswith(prefix) for item in ids) > 1)
    with pytest.raises(ContainerError, match="ambiguous"):
        store.containers.get(shared)
    for text in ("nothing", "", "zz", "f" * 64, "%", "_"):
        with pytest.raises(ContainerNotFound):
            store.containers.get(text)
    # A name wins over the id prefix of another.
    named = allocate(store, name=ids[0][:4])
    assert store.containers.get(ids[0][:4]).id == named.id
    assert {item.id for item in store.containers.list()} == {*ids, named.id}


def test_the_image_must_be_there(store: Store) -> None:
    with pytest.raises(ImageNotFound):
        allocate(store, image_id="sha256:" + "0" * 64)
    assert store.containers.list() == ()


def test_no_row_without_a_directory(store: Store) -> None:
    (store.root / "containers").chmod(0o500)
    try:
        if os.geteuid() == 0:
            nowhere = os.open("/proc", os.O_RDONLY)
            store.containers._directories = RwDirectories(nowhere, store.staging)
            with pytest.raises(StoreError, match="directory"):
                allocate(store, directory=True)
            os.close(nowhere)
        else:
            with pytest.raises(StoreError, match="directory"):
                allocate(store, directory=True)
    finally:
        (store.root / "containers").chmod(0o700)
    assert store.containers.list() == ()


def test_live_owners_are_left_alone(store: Store) -> None:
    made = allocate(store, directory=True)
    with Store(store.root) as other:
        assert other.reap() == ()
    assert store.containers.get(made.id) == made
    assert os.path.isdir(made.directory)


def test_reap(store: Store) -> None:
    goes = allocate(store, directory=True)
    half_made = allocate(store, directory=True, remove=False)
    stays = allocate(store, directory=True, remove=False)
    store.containers.started(stays.id, 1 << 22, 5)
    ended = allocate(store, remove=False)
    store.containers.exited(ended.id, b"{}")
    for item in (goes, half_made, stays, ended):
        disown(store, item.id)
    reaped = {item.id: item.removed for item in store.reap()}
    assert reaped == {goes.id: True, half_made.id: True, stays.id: False}
    assert store.containers.get(stays.id).state == "exited"
    assert store.containers.get(stays.id).exit is None
    assert os.listdir(store.root / "containers") == [stays.id]
    assert store.reap() == ()


def test_reap_kills_what_still_runs(store: Store) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        made = allocate(store)
        store.containers.started(made.id, process.pid, process_start_time(process.pid))
        disown(store, made.id)
        assert [item.id for item in store.reap()] == [made.id]
        assert process.wait(5) == -signal.SIGKILL


def test_reap_does_not_kill_who_has_the_number_now(store: Store) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            made = allocate(store)
            store.containers.started(made.id, process.pid, process_start_time(process.pid) - 1)
            disown(store, made.id)
            assert [item.id for item in store.reap()] == [made.id]
            other_boot = allocate(store)
            store.containers.started(other_boot.id, process.pid, process_start_time(process.pid))
            disown(store, other_boot.id, Owner(1, 1, "another boot 1"))
            assert [item.id for item in store.reap()] == [other_boot.id]
            assert process.poll() is None
        finally:
            process.kill()


def test_a_killed_owner_is_found(store: Store) -> None:
    program = f"""
from pyrtc.store import Store
store = Store({str(store.root)!r})
made = store.containers.allocate(name="lost", image_id="host", options_json=b"", directory=True)
print(made.id, flush=True)
import time; time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        container_id = process.stdout.readline().strip()
        assert store.reap() == ()
        process.kill()
    assert [item.id for item in store.reap()] == [container_id]
    assert os.listdir(store.root / "containers") == []


def test_many_threads(store: Store) -> None:
    errors = []

    def work() -> None:
        try:
            for number in range(25):
                made = allocate(store, directory=number % 2 == 0)
                store.containers.started(made.id, 1, 1)
                store.containers.remove(made.id)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.containers.list() == ()
    assert os.listdir(store.root / "containers") == []
    assert os.listdir(store.root / "tmp") == []


# ---- lives ----------------------------------------------------------------------------------------------------------


def made(store: Store, **options: object) -> ContainerRecord:
    wanted = {"name": None, "image_id": "x", "options_json": b"{}", "directory": True, "remove": False, "detached": 1}
    return store.containers.allocate(**{**wanted, **options})  # type: ignore[arg-type]


def test_a_life(store: Store) -> None:
    record = made(store, spec=b"spec")
    assert (record.state, record.detached, record.spec) == ("creating", 1, b"spec")
    store.lives.created(record.id)
    with pytest.raises(ContainerNotFound):
        store.lives.created(record.id)
    store.lives.running(record, 10, 20, (30, 40), detached=1)
    first = store.containers.get(record.id)
    assert (first.state, first.pid, first.start_time) == ("running", 10, 20)
    assert (first.monitor_pid, first.monitor_start, first.restarts, first.stopped) == (30, 40, 0, False)
    assert first.started and first.finished is None
    assert store.containers.watched() == (first,)
    assert store.lives.ended(first, b"{}", b"u", 5.0)
    assert not store.lives.ended(first, b"{}", b"u", 6.0), "once"
    ended = store.containers.get(record.id)
    assert (ended.state, ended.exit, ended.usage, ended.finished) == ("exited", b"{}", b"u", 5.0)
    assert store.lives.restarting(ended, 1)
    assert store.containers.get(record.id).state == "restarting"
    store.lives.running(store.containers.get(record.id), 11, 21, (31, 41), detached=1, restarts=1)
    second = store.containers.get(record.id)
    assert second.restarts == 1 and not second.same_run(first)
    assert not store.lives.ended(first, b"late", None, 7.0), "of a run before"
    store.lives.stopped(second)
    assert store.lives.ended(second, b"{}", None, 8.0)
    assert not store.lives.restarting(store.containers.get(record.id), 2), "somebody asked for its end"


def test_stopping_what_is_about_to_start(store: Store) -> None:
    record = made(store)
    store.lives.running(record, 10, 20, (30, 40), detached=1)
    store.lives.ended(store.containers.get(record.id), b"{}", None, 1.0)
    store.lives.restarting(store.containers.get(record.id), 1)
    store.lives.stopped(record)
    assert store.containers.get(record.id).state == "exited"
    assert not store.lives.failed_again(record, b"{}") and not store.lives.given_up(record)


def test_a_start_that_is_taken_back(store: Store) -> None:
    record = made(store)
    store.lives.created(record.id)
    before = store.containers.get(record.id)
    store.lives.running(before, 10, 20, (30, 40), detached=1)
    store.lives.took_back(before, before.exit)
    after = store.containers.get(record.id)
    assert after == before


def test_renaming(store: Store) -> None:
    record, other = made(store, name="one"), made(store, name="other")
    store.lives.rename(record, "two")
    assert store.containers.get("two").id == record.id
    with pytest.raises(ContainerError, match="Conflict"):
        store.lives.rename(store.containers.get("two"), "other")
    with pytest.raises(ContainerError, match="same name"):
        store.lives.rename(other, "other")
    with pytest.raises(UsageError):
        store.lives.rename(other, "x")
    store.containers.remove(other.id)
    with pytest.raises(ContainerNotFound):
        store.lives.rename(other, "gone")


def test_holding_a_container(store: Store) -> None:
    record = made(store)
    order = []

    def second() -> None:
        with store.lives.hold(record.id):
            order.append("second")

    with store.lives.hold(record.id):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_reaping_leaves_those_with_a_monitor_alone(store: Store) -> None:
    """Their owner may be gone; the directory of one that was being made goes with it."""
    record, making = made(store), made(store)
    store.lives.running(record, os.getpid(), 1, (30, 40), detached=1)
    store.database.execute("UPDATE containers SET owner_start = 1")
    assert [reaped.id for reaped in store.reap()] == [making.id]
    assert store.containers.get(record.id).state == "running" and store.containers.abandoned() == ()


def test_anonymous_volumes_are_kept_on_request(store: Store) -> None:
    volume = store.volumes.create()
    record = made(store, volumes=(volume.name,), targets=("/v",))
    assert store.containers.anonymous_volumes(record.id) == {"/v": volume.name}
    store.containers.remove(record.id, volumes=False)
    assert store.volumes.get(volume.name)
