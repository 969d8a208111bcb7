"""Interleavings of loads and removals that share a layer, each forced at the one moment when it matters."""

import gzip
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from image_builder import DEEP, HELLO, WORLD, Layout, config, docker_archive

from pyrtc.image import install
from pyrtc.image.images import Images
from pyrtc.store import Store

PATIENCE = 30  # seconds after which a thread is taken to wait for ever


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as store:
        yield store


@pytest.fixture
def other(store: Store) -> Iterator[Store]:
    """The same store, opened once more: what another process has."""
    with Store(store.root) as other:
        yield other


def save(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def whole(store: Store) -> bool:
    """Say whether every layer that has a row has its tree."""
    return all(os.path.isdir(store.layers.directory(layer.key)) for layer in store.layers.all())


def before_attempt(monkeypatch: pytest.MonkeyPatch, mine: Store, action: Callable[[], object]) -> None:
    """Do something once, when an installation into mine has looked what is missing, with those layers' locks held."""
    original = install._Installation.__init__
    pending = [action]

    def hooked(self: object, store: Store, *rest: object) -> None:
        original(self, store, *rest)
        if store is mine and pending:
            pending.pop()()

    monkeypatch.setattr(install._Installation, "__init__", hooked)


def before_work(monkeypatch: pytest.MonkeyPatch, mine: Store, action: Callable[[], object]) -> None:
    """Do something once, when an installation into mine makes the directory that it works in."""
    original = mine.staging.directory
    pending = [action]

    def hooked() -> AbstractContextManager[int]:
        if pending:
            pending.pop()()
        return original()

    monkeypatch.setattr(mine.staging, "directory", hooked)


def test_a_layer_goes_and_comes_again_while_another_image_is_loaded(
    store: Store, other: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = save(tmp_path / "1", docker_archive((["one"], config(HELLO, WORLD), [HELLO, WORLD])))
    two = save(tmp_path / "2", docker_archive((["two"], config(HELLO, DEEP), [HELLO, DEEP])))
    others = Images(other)
    others.load(two)
    trees: list[int] = []

    def come_again() -> None:
        trees.extend(os.stat(tree).st_ino for tree in others.load(two)[0].layers)

    before_attempt(monkeypatch, store, lambda: others.remove("two"))
    before_work(monkeypatch, store, come_again)
    Images(store).load(one)
    # Whoever was told that it has its layers has these, not others of the same name.
    assert trees == [os.stat(tree).st_ino for tree in others.get("two").layers]
    assert whole(store)


def test_an_attempt_that_fails_leaves_the_layers_of_others(
    store: Store, other: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = save(tmp_path / "1", docker_archive((["one"], config(HELLO, WORLD), [HELLO, WORLD])))
    two = save(tmp_path / "2", docker_archive((["two"], config(HELLO, DEEP), [HELLO, DEEP])))
    others = Images(other)
    others.load(two)

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    before_attempt(monkeypatch, store, lambda: others.remove("two"))
    before_work(monkeypatch, store, lambda: others.load(two))
    monkeypatch.setattr(store.images, "add", full)
    with pytest.raises(OSError, match="No space"):
        Images(store).load(one)
    assert len(others.get("two").layers) == 2
    assert whole(store)


def test_an_interrupt_right_after_the_commit(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "1", docker_archive((["one"], config(HELLO, WORLD), [HELLO, WORLD])))
    original = store.database.writing

    @contextmanager
    def interrupted(*, durable: bool = False) -> Iterator[object]:
        with original(durable=durable) as connection:
            yield connection
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.database, "writing", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Images(store).load(path)
    assert len(store.image("one").layers) == 2
    assert whole(store)


def test_a_name_without_a_row_makes_way(store: Store, tmp_path: Path) -> None:
    path = save(tmp_path / "1", docker_archive((["one"], config(HELLO), [HELLO])))
    (image,) = Images(store).load(path)
    (tree,) = image.layers
    Images(store).remove("one")
    Path(tree).mkdir()
    (Path(tree) / "half").touch()
    Images(store).load(path)
    assert os.listdir(tree) == ["etc"]


def test_the_last_attempt_does_not_wait_for_itself(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):  # one image, two manifests: the first is nobody's afterwards
        layout = Layout()
        layout.add(layout.manifest(config(HELLO), [gzip.compress(HELLO, number, mtime=number)]), "one")
        layout.write(tmp_path / str(number))
    (before,) = Images(store).load(tmp_path / "1")
    monkeypatch.setattr(install, "_ATTEMPTS", 1)
    loaded = []
    thread = threading.Thread(target=lambda: loaded.extend(Images(store).load(tmp_path / "2")), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert loaded[0].manifest != before.manifest
    assert before.manifest not in store.blobs.list()
