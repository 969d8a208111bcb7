"""Stores that are read where they are: found, used, never written."""

import os
import shutil
import stat
from pathlib import Path

import pytest
from image_builder import DEEP, HELLO, WORLD, config, docker_archive, layer, sha
from tar_builder import directory, file, opaque

from pyrtc.cli.main import main
from pyrtc.engine import Engine
from pyrtc.errors import ImageError, StoreError, UnsupportedError
from pyrtc.image.export import Exporter
from pyrtc.start_image import find_image
from pyrtc.store import Store
from pyrtc.store.additional import AdditionalStore
from pyrtc.store.skeletons import _directories


def load(engine: Engine, tmp_path, *entries):
    path = tmp_path / "archive.tar"
    path.write_bytes(docker_archive(*((names, config(*layers), layers) for names, layers in entries)))
    return engine.images.load(path)


@pytest.fixture
def theirs(tmp_path) -> Path:
    """A shared store with an image `base` of two layers, closed."""
    root = tmp_path / "theirs"
    root.mkdir()
    (root / "config.toml").write_text('shared = "trusted"\n')
    with Engine(root) as engine:
        load(engine, tmp_path, (["base", "both"], [HELLO, WORLD]))
    return root


@pytest.fixture
def engine(tmp_path, theirs):
    with Engine(tmp_path / "mine", additional_stores=[theirs]) as engine:
        yield engine


def state(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in root.rglob("*")
        if not path.name.startswith("pyrtc.db-")
    }


def test_found_and_never_written(engine: Engine, theirs: Path, tmp_path) -> None:
    before = state(theirs)
    image = engine.images.get("base")
    assert image.place == str(theirs)
    assert image.layers == tuple(f"{theirs}/layers/{sha(content)[7:]}" for content in (WORLD, HELLO))
    assert engine.images.get(image.id[7:19]).id == image.id
    assert engine.images.documents(image)[0] == config(HELLO, WORLD)
    assert [item.id for item in engine.images.list()] == [image.id]
    (saved,) = engine.images.save(["base"], tmp_path / "s.tar")
    assert saved.image_id == image.id
    for act in (lambda: engine.images.remove("base"), lambda: engine.images.tag("base", "x")):
        with pytest.raises(ImageError, match="only read"):
            act()
    engine.system.check(deep=True)
    engine.system.prune(all_images=True)
    assert state(theirs) == before
    assert os.listdir(engine.store.root / "layers") == []


def test_names_of_ones_own_go_first(engine: Engine, tmp_path) -> None:
    (mine,) = load(engine, tmp_path, (["both"], [DEEP]))
    assert engine.images.get("both").id == mine.id
    assert [image.names for image in engine.images.list()] == [("both:latest",), ("base:latest",)]


def test_layers_are_used_and_not_copied(engine: Engine, theirs: Path, tmp_path) -> None:
    (mine,) = load(engine, tmp_path, (["mine"], [HELLO, DEEP]))
    assert mine.layers == (f"{engine.store.root}/layers/{sha(DEEP)[7:]}", f"{theirs}/layers/{sha(HELLO)[7:]}")
    assert os.listdir(engine.store.root / "layers") == [sha(DEEP)[7:]]
    with Exporter(engine.store) as exporter:
        exported = exporter.image(mine)
        assert [b"".join(item.tar()) for item in exported.layers] == [HELLO, DEEP]
        assert exported.config_digest == mine.id
    assert engine.system.check().problems == ()
    # The whole image is there: nothing to unpack, and rows of one's own.
    (base,) = load(engine, tmp_path, (["base"], [HELLO, WORLD]))
    assert base.place == ""
    assert engine.images.remove("base").deleted == (base.id, sha(WORLD))
    assert engine.images.get("base").place == str(theirs)
    engine.images.remove("mine")
    assert (theirs / "layers" / sha(HELLO)[7:] / "etc/hello").exists()
    assert engine.store.layers.all() == ()


def test_a_layer_that_has_gone(engine: Engine, theirs: Path, tmp_path) -> None:
    load(engine, tmp_path, (["mine"], [HELLO, DEEP]))
    shutil.rmtree(theirs / "layers" / sha(HELLO)[7:])
    with pytest.raises(UnsupportedError, match="no longer has a layer"):
        find_image(engine.store, "mine", None)
    assert [problem.kind for problem in engine.system.check().problems] == ["layer"]


def test_modes(theirs: Path, tmp_path) -> None:
    """What is shared is readable, what is not stays closed; and it is closed again."""

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert [mode(theirs / name) for name in ("", "layers", "blobs", "blobs/sha256")] == [0o755] * 4
    assert [mode(theirs / name) for name in ("tmp", "locks", "containers", "volumes")] == [0o700] * 4
    assert mode(theirs / "pyrtc.db") == 0o644
    assert {mode(path) for path in theirs.glob("blobs/sha256/*/*")} == {0o644}
    (theirs / "config.toml").unlink()
    Store(theirs).close()
    assert [mode(theirs / name) for name in ("", "layers", "blobs")] == [0o700] * 3
    # Shared after it was filled.
    (theirs / "config.toml").write_text('shared = "trusted"\n')
    for path in theirs.glob("blobs/**/*"):
        path.chmod(0o700)
    (theirs / "pyrtc.db").chmod(0o600)
    Store(theirs).close()
    assert mode(theirs / "pyrtc.db") == 0o644
    assert {mode(path) for path in theirs.glob("blobs/sha256/*/*")} == {0o644}


def test_sharing_needs_a_mount_without_set_uid(tmp_path) -> None:
    root = tmp_path / "s"
    root.mkdir()
    (root / "config.toml").write_text("shared = true\n")
    if os.statvfs(root).f_flag & os.ST_NOSUID:
        Store(root).close()
        return
    with pytest.raises(StoreError, match="nosuid"):
        Store(root)


def test_what_is_no_store(tmp_path) -> None:
    with Engine(tmp_path / "mine", additional_stores=[tmp_path / "none"]) as engine:
        with pytest.raises(StoreError, match="cannot use the additional store"):
            engine.images.list()
        assert engine.store.settings.additional_stores == (str(tmp_path / "none"),)


def test_who_may_write_decides(theirs: Path) -> None:
    theirs.chmod(0o777)
    with pytest.raises(StoreError, match="anybody may write"):
        AdditionalStore(str(theirs), rootless=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives a store to another user")
def test_root_trusts_root_only(theirs: Path) -> None:
    os.chown(theirs, 12345, 12345)
    with pytest.raises(StoreError, match="belongs to user 12345"):
        AdditionalStore(str(theirs), rootless=False)
    AdditionalStore(str(theirs), rootless=True).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: marks are trusted.*")
def test_marks_of_another_kind(theirs: Path, tmp_path) -> None:
    hides = layer(directory("etc"), opaque("etc"), file("etc/only", b"x"))
    with Engine(theirs) as owner:
        load(owner, tmp_path, (["above"], [HELLO, hides]), (["below"], [hides, WORLD]))
    other = AdditionalStore(str(theirs), rootless=True)
    assert other.shown(other.images.get("base")).obstacle == ""
    assert other.shown(other.images.get("below")).obstacle == ""
    assert "hides directories" in other.shown(other.images.get("above")).obstacle
    found = other.usable(other.layers.find([sha(HELLO), sha(hides)]))
    assert [item is not None for item in found] == [True, False]
    other.close()
    same = AdditionalStore(str(theirs), rootless=False)
    assert same.shown(same.images.get("above")).obstacle == ""
    same.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a whiteout")
def test_directories_of_a_stack(tmp_path) -> None:
    for path in ("low/a/b", "low/a/c", "low/d", "low/gone", "top/a/b/x", "top/e"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "top/d").write_text("")
    os.mknod(tmp_path / "top/gone", stat.S_IFCHR, 0)
    (tmp_path / "top/a").chmod(0o711)
    found = {path: status.st_mode & 0o777 for path, status, _ in _directories([f"{tmp_path}/top", f"{tmp_path}/low"])}
    assert sorted(found) == ["", "a", "a/b", "a/b/x", "a/c", "e"]
    assert found["a"] == 0o711


def test_an_older_store(theirs: Path) -> None:
    with Store(theirs) as store:
        store.database.execute("PRAGMA user_version=1")
    with pytest.raises(StoreError, match="older pyrtc"):
        AdditionalStore(str(theirs), rootless=os.geteuid() != 0)


def test_read_while_its_owner_works(theirs: Path, tmp_path, engine: Engine) -> None:
    with Engine(theirs) as owner:
        (other,) = load(owner, tmp_path, (["new"], [DEEP]))
        assert engine.images.get("new").id == other.id
        owner.images.remove("new")
        with pytest.raises(ImageError):
            engine.images.get("new")


def test_the_command_lists_them(theirs: Path, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("PYRTC_ROOT", str(tmp_path / "m"))
    monkeypatch.setenv("PYRTC_ADDITIONAL_STORES", str(theirs))
    assert main(["images", "--format", "{{.Repository}}"]) == 0
    assert capfd.readouterr().out == "base\nboth\n"
    monkeypatch.delenv("PYRTC_ADDITIONAL_STORES")
    assert main(["images", "-q"]) == 0
    assert capfd.readouterr().out == ""
