import os
import threading
import time

import pytest

from pyrtc.errors import StoreError, UsageError
from pyrtc.store import Store


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "s") as store:
        yield store


def test_life_of_a_volume(store: Store) -> None:
    made = store.volumes.create("data")
    assert made.path == f"{store.root}/volumes/data/data"
    assert os.path.isdir(made.path)
    assert (made.filled, made.anonymous) == (False, False)
    assert store.volumes.create("data") == made == store.volumes.get("data")
    assert store.volumes.list() == (made,)
    store.volumes.remove("data")
    assert store.volumes.list() == ()
    assert os.listdir(store.root / "volumes") == []
    for action in (store.volumes.get, store.volumes.remove):
        with pytest.raises(StoreError, match="no such volume"):
            action("data")


@pytest.mark.parametrize("name", ["a", "-ab", "a/b", "../ab", "a b", "x" * 256, ".ab", "ab\n"])
def test_bad_names(store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="Invalid volume name"):
        store.volumes.create(name)


def test_filled_once(store: Store) -> None:
    store.volumes.create("data")
    with store.volumes.filling("data") as path:
        assert path is not None
        with open(f"{path}/file", "w") as file:
            file.write("x")
    assert store.volumes.get("data").filled
    with store.volumes.filling("data") as path:
        assert path is None
    assert os.listdir(store.volumes.get("data").path) == ["file"]


def test_a_failed_filling_leaves_nothing(store: Store) -> None:
    store.volumes.create("data")
    with pytest.raises(ZeroDivisionError), store.volumes.filling("data") as path:
        os.mkdir(f"{path}/half")
        _ = 1 // 0
    assert os.listdir(store.volumes.get("data").path) == []
    with store.volumes.filling("data") as path:
        assert path is not None


def test_a_killed_filling_leaves_nothing(store: Store) -> None:
    store.volumes.create("data")
    pid = os.fork()
    if pid == 0:
        with store.volumes.filling("data") as path:
            os.mkdir(f"{path}/half")
            os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert os.listdir(store.volumes.get("data").path) == ["half"]
    with store.volumes.filling("data") as path:
        assert path is not None
        assert os.listdir(path) == []


def test_what_came_in_another_way_is_kept(store: Store) -> None:
    made = store.volumes.create("data")
    os.mkdir(f"{made.path}/mine")
    with store.volumes.filling("data") as path:
        assert path is None
    assert os.listdir(made.path) == ["mine"]
    assert store.volumes.get("data").filled


def test_the_second_waits_for_the_first(store: Store) -> None:
    store.volumes.create("data")
    seen = []

    def second() -> None:
        with store.volumes.filling("data") as path:
            seen.append(path)

    with store.volumes.filling("data"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        assert seen == []
    thread.join()
    assert seen == [None]


def test_in_use(store: Store) -> None:
    store.volumes.create("data")
    anonymous = store.volumes.create()
    assert anonymous.anonymous
    made = store.containers.allocate(
        name=None, image_id="host", options_json=b"", directory=False, volumes=["data", anonymous.name]
    )
    for name in ("data", anonymous.name):
        with pytest.raises(StoreError, match=f"volume is in use - .{made.id}"):
            store.volumes.remove(name)
    store.containers.remove(made.id)
    assert [item.name for item in store.volumes.list()] == ["data"]
    store.volumes.remove("data")
    with pytest.raises(StoreError, match="volume missing"):
        store.containers.allocate(name=None, image_id="host", options_json=b"", directory=False, volumes=["data"])


def test_a_removal_that_was_cut_short(store: Store) -> None:
    os.makedirs(store.root / "volumes/data/data/old")
    assert os.listdir(store.volumes.create("data").path) == []


def test_labels(store: Store) -> None:
    made = store.volumes.create("labelled", (("a", "1"), ("b", "")))
    assert made.labels == (("a", "1"), ("b", "")) and store.volumes.get("labelled") == made
    assert store.volumes.create("labelled", (("c", "3"),)).labels == made.labels, "labels of one that is there stay"
    assert store.volumes.create("plain").labels == ()
