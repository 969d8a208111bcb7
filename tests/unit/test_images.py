"""Removing and importing images."""

import gzip
import io
import json
import os
import stat
import sys

import pytest
from image_builder import DEEP, HELLO, WORLD, config, docker_archive, layer, sha, simple_layout
from tar_builder import END, directory, file, symlink

from pyrtc.errors import DigestMismatch, ImageError, ImageNotFound, StoreError, UsageError
from pyrtc.image.images import Images
from pyrtc.image.platform import Platform
from pyrtc.store import Store

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as store:
        yield store


@pytest.fixture
def images(store):
    return Images(store)


def load(images: Images, tmp_path, *entries: tuple[list[str], list[bytes]]):
    path = tmp_path / "archive.tar"
    path.write_bytes(docker_archive(*((names, config(*layers), layers) for names, layers in entries)))
    return images.load(path)


def container(store: Store, image_id: str, state: str) -> str:
    made = store.containers.allocate(name=None, image_id=image_id, options_json=b"", directory=False)
    if state == "exited":
        store.containers.exited(made.id, b"{}")
    return made.id


def trees(store: Store) -> set[str]:
    return set(os.listdir(store.root / "layers"))


# ---- look-up --------------------------------------------------------------------------------------------------------


def test_look_up(images: Images, store: Store, tmp_path) -> None:
    one, two = load(images, tmp_path, (["app:1", "app", "reg.io/x/app:2"], [HELLO]), (["other"], [WORLD]))
    digits = one.id[7:]
    for text in (
        "app",
        "app:latest",
        "app:1",
        "docker.io/library/app",
        "library/app:1",
        "reg.io/x/app:2",
        one.id,
        digits,
    ):
        assert store.image(text) is store.image(text)
        assert store.image(text).id == one.id
    assert store.image(digits[:40]).id == one.id
    # Another image that differs in the last digit only.
    twin = one.id[:-1] + ("0" if one.id[-1] != "0" else "1")
    store.database.execute(
        "INSERT INTO images SELECT ?, manifest, config, size, created, architecture, os, variant, loaded, 0 "
        "FROM images WHERE id = ?",
        (twin, two.id),
    )
    with store.database.writing() as connection:
        store.images.changed(connection)
    assert store.image(twin).id == twin
    for text in (digits[:12], one.id[:-1]):
        with pytest.raises(ImageError, match="ambiguous"):
            store.image(text)
    for text in (
        "app:3",
        "reg.io/app",
        "nothing",
        "f" * 64,
        "",
        "../app",
        "App",
        "sha256:xyz",
        "app@sha256:" + "0" * 64,
    ):
        with pytest.raises(ImageNotFound, match="No such image"):
            store.image(text)


def test_a_name_wins_over_an_id(images: Images, store: Store, tmp_path) -> None:
    (one,) = load(images, tmp_path, (["app"], [HELLO]))
    (two,) = load(images, tmp_path, ([one.id[7:13]], [WORLD]))
    assert store.image(one.id[7:13]).id == two.id
    assert store.image(one.id[7:14]).id == one.id


def test_by_manifest_digest(images: Images, store: Store, tmp_path) -> None:
    (image,) = images.load(simple_layout("reg.io/app:1").write(tmp_path / "layout"))
    assert store.image(f"reg.io/app@{image.manifest}").id == image.id
    for name in ("app", "reg.io/ap", "reg.io/app2"):
        with pytest.raises(ImageNotFound):
            store.image(f"{name}@{image.manifest}")


def test_near_names(images: Images, store: Store, tmp_path) -> None:
    with pytest.raises(ImageNotFound, match="the store is empty"):
        store.image("debian")
    load(images, tmp_path, (["debian:12", "localhost/busybox:latest"], [HELLO]))
    for asked, suggested in (
        ("debain", "debian:12"),
        ("debian:13", "debian:12"),
        ("busybox", "localhost/busybox:latest"),
    ):
        with pytest.raises(ImageNotFound, match=f"did you mean {suggested}"):
            store.image(asked)
    with pytest.raises(ImageNotFound, match="the store has debian:12"):
        store.image("quite-other")


def test_changes_by_other_processes_are_seen(images: Images, store: Store, tmp_path) -> None:
    (image,) = load(images, tmp_path, (["app"], [HELLO]))
    assert store.image("app").id == image.id
    with Store(store.root) as other:
        load(Images(other), tmp_path, (["app"], [WORLD]))
    assert store.image("app").id != image.id
    assert store.image(image.id).names == ()
    with Store(store.root) as other:
        Images(other).remove("app")
    with pytest.raises(ImageNotFound):
        store.image("app")


def test_a_lost_document(images: Images, store: Store, tmp_path) -> None:
    (image,) = load(images, tmp_path, (["app"], [HELLO]))
    place = store.root / "blobs/sha256" / image.id[7:9] / image.id[7:]
    place.write_bytes(b"{}")
    with pytest.raises(DigestMismatch, match="damaged"):
        images.documents(image)
    place.unlink()
    with pytest.raises(StoreError, match="load the image again"):
        images.documents(image)


# ---- removal --------------------------------------------------------------------------------------------------------


def test_by_one_name_of_several(images: Images, store: Store, tmp_path) -> None:
    (image,) = load(images, tmp_path, (["app:1", "app:2"], [HELLO]))
    removed = images.remove("app:1")
    assert (removed.untagged, removed.deleted, removed.reclaimed) == (("app:1",), (), 0)
    assert images.get("app:2").names == ("app:2",)
    removed = images.remove("app:2")
    assert (removed.untagged, removed.deleted, removed.reclaimed) == (("app:2",), (image.id, sha(HELLO)), 6)
    assert trees(store) == set()
    assert store.blobs.list() == ()


def test_by_id(images: Images, tmp_path) -> None:
    (image,) = load(images, tmp_path, (["app:1", "app:2"], [HELLO]))
    assert images.remove(image.id[7:19]).untagged == ("app:1", "app:2")
    (image,) = load(images, tmp_path, (["app", "reg.io/app"], [HELLO]))
    with pytest.raises(ImageError, match=r"must be forced.*multiple repositories"):
        images.remove(image.id)
    assert images.remove(image.id, force=True).deleted == (image.id, sha(HELLO))


def test_shared_layers_stay(images: Images, store: Store, tmp_path) -> None:
    one, two = load(images, tmp_path, (["one"], [HELLO, WORLD]), (["two"], [HELLO, DEEP]))
    assert images.remove("one").deleted == (one.id, sha(WORLD))
    assert trees(store) == {sha(HELLO)[7:], sha(DEEP)[7:]}
    assert images.remove("two").deleted[0] == two.id
    assert trees(store) == set()


def test_a_name_that_moved(images: Images, store: Store, tmp_path) -> None:
    (old,) = load(images, tmp_path, (["app"], [HELLO]))
    (new,) = load(images, tmp_path, (["app"], [WORLD]))
    assert images.get("app").id == new.id
    assert images.get(old.id).names == ()
    removed = images.prune()
    assert (removed.untagged, removed.deleted) == ((), (old.id, sha(HELLO)))
    assert trees(store) == {sha(WORLD)[7:]}


def test_running_containers_hold_their_image(images: Images, store: Store, tmp_path) -> None:
    (image,) = load(images, tmp_path, (["app"], [HELLO]))
    container(store, image.id, "creating")
    for text in ("app", image.id):
        for force in (False, True):
            with pytest.raises(ImageError, match="cannot be forced"):
                images.remove(text, force=force)
    assert images.prune(all_unused=True).deleted == ()
    assert images.get("app").names == ("app:latest",)


def test_ended_containers_hold_their_image(images: Images, store: Store, tmp_path) -> None:
    (image,) = load(images, tmp_path, (["app"], [HELLO]))
    container_id = container(store, image.id, "exited")
    with pytest.raises(
        ImageError, match=r'repository reference "app:latest" .must force.*is using its referenced image'
    ):
        images.remove("app")
    with pytest.raises(ImageError, match=r"must be forced.*stopped container"):
        images.remove(image.id)
    removed = images.remove("app", force=True)
    assert (removed.untagged, removed.deleted) == (("app:latest",), ())
    assert trees(store) == {sha(HELLO)[7:]}
    with pytest.raises(ImageError, match="stopped container"):
        images.remove(image.id, force=True)
    store.containers.remove(container_id)
    assert images.prune().deleted == (image.id, sha(HELLO))
    assert trees(store) == set()


def test_prune_all(images: Images, store: Store, tmp_path) -> None:
    one, two = load(images, tmp_path, (["one"], [HELLO]), (["two"], [WORLD]))
    assert images.prune().deleted == ()
    container(store, two.id, "exited")
    removed = images.prune(all_unused=True)
    assert (removed.untagged, removed.deleted) == (("one:latest",), (one.id, sha(HELLO)))
    # Blocks of the disk: a directory, a file, the config, the compressed layer at least.
    assert removed.reclaimed >= 4096


def test_a_removal_that_was_cut_short(images: Images, store: Store, tmp_path) -> None:
    load(images, tmp_path, (["app"], [HELLO]))
    pid = os.fork()
    if pid == 0:
        import unittest.mock

        with unittest.mock.patch("pyrtc.core.remove_tree", side_effect=lambda *_: os.kill(os.getpid(), 9)):
            Images(Store(store.root)).remove("app")
        os._exit(3)
    assert os.waitpid(pid, 0)[1] == 9
    assert os.listdir(store.root / "tmp")
    store.sweep()
    assert os.listdir(store.root / "tmp") == os.listdir(store.root / "layers") == []


# ---- import ---------------------------------------------------------------------------------------------------------

TREE = directory("bin") + file("bin/sh", b"#!", mode=0o755) + symlink("sh", "bin/sh") + file(".wh.x", b"1") + END


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd.compress])
def test_import(images: Images, tmp_path, monkeypatch, compress) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    path = tmp_path / "rootfs.tar"
    path.write_bytes(compress(TREE))
    changes = ('CMD ["/bin/sh"]', "ENV A=1", "WORKDIR /srv")
    image = images.import_(path, "my/root:1", changes=changes, message="hello", platform="linux/arm64/v8")
    assert image.names == ("my/root:1",)
    assert image.platform == "linux/arm64/v8"
    assert image.created == "2023-11-14T22:13:20Z"
    assert (image.config.cmd, image.config.env, image.config.workdir) == (("/bin/sh",), (("A", "1"),), "/srv")
    assert sorted(name for name in os.listdir(image.layers[0]) if name != "x") == ["bin", "sh"]
    document = json.loads(images.documents(image)[0])
    assert document["rootfs"]["diff_ids"] == [sha(TREE)]
    assert document["history"][0]["comment"] == "hello"
    again = images.import_(path, "my/root:2", changes=changes, message="hello", platform="linux/arm64/v8")
    assert again.id == image.id
    assert again.names == ("my/root:1", "my/root:2")
    assert again.layers == image.layers


def test_an_imported_tree_serves_images_that_have_it_as_a_layer(images: Images, tmp_path) -> None:
    (tmp_path / "rootfs.tar").write_bytes(TREE)
    imported = images.import_(tmp_path / "rootfs.tar", "tree:1")
    base = layer(file("x", b"hidden by the layer above"))
    (tmp_path / "image.tar").write_bytes(docker_archive((["two:1"], config(base, TREE), [base, TREE])))
    (loaded,) = images.load(tmp_path / "image.tar")
    assert loaded.layers[0] == imported.layers[0]
    assert ".wh.x" not in os.listdir(loaded.layers[0])
    status = os.lstat(f"{loaded.layers[0]}/x")
    assert stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def test_the_name_of_the_running_system_is_given_to_no_image(images: Images, tmp_path) -> None:
    (tmp_path / "root.tar").write_bytes(HELLO)
    for name in ("host", "host:latest", "docker.io/library/host"):
        with pytest.raises(UsageError, match="this system's own root"):
            images.import_(tmp_path / "root.tar", name)
    images.import_(tmp_path / "root.tar", "host:other")
    with pytest.raises(UsageError, match="this system's own root"):
        images.tag("host:other", "host")


def test_import_from_a_pipe_without_a_name(images: Images) -> None:
    source, sink = os.pipe()
    os.write(sink, TREE)
    os.close(sink)
    with open(source, "rb") as pipe:
        image = images.import_(pipe)
    assert image.names == ()
    assert image.platform == str(Platform.host())


def test_bad_imports_leave_nothing(images: Images, store: Store, tmp_path) -> None:
    path = tmp_path / "rootfs.tar"
    for data in (b"no tar", gzip.compress(TREE)[:-5], TREE[:600], layer(directory("x"))[:100]):
        path.write_bytes(data)
        with pytest.raises(ImageError):
            images.import_(path, "x")
    path.write_bytes(TREE)
    with pytest.raises(ImageError, match="lowercase"):
        images.import_(path, "a/B")
    with pytest.raises(UsageError, match="RUN"):
        images.import_(path, "x", changes=["RUN true"])
    with pytest.raises(UsageError, match="No such file"):
        images.import_(tmp_path / "missing", "x")
    with pytest.raises(UsageError, match="platform"):
        images.import_(path, "x", platform="??")
    assert images.list() == ()
    for name in ("tmp", "layers", "locks"):
        assert os.listdir(store.root / name) == []


def test_an_imported_layer_is_shared(images: Images, store: Store, tmp_path) -> None:
    path = tmp_path / "rootfs.tar"
    path.write_bytes(HELLO)
    imported = images.import_(path, "imported")
    (loaded,) = load(images, tmp_path, (["loaded"], [HELLO]))
    assert loaded.layers == imported.layers
    assert len(trees(store)) == 1


def test_sources_that_are_no_files(images: Images) -> None:
    for action in (images.load, images.import_):
        with pytest.raises(UsageError, match="no open file"):
            action(io.BytesIO(TREE))
