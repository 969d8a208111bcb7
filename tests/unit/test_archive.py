"""Every form an image comes in, and every way in which one can lie; after each failure the store is as it was."""

import bz2
import gzip
import json
import lzma
import os
import sys
import threading
from pathlib import Path

import pytest
from image_builder import (
    DEEP,
    HELLO,
    IMPLIED,
    WORLD,
    Layout,
    config,
    docker_archive,
    layer,
    platform,
    sha,
    simple_layout,
)
from tar_builder import END, directory, file, symlink

from pyrtc.errors import DigestMismatch, ImageError, PyrtcError, UsageError
from pyrtc.image.images import Images
from pyrtc.image.platform import Platform
from pyrtc.store import Image, Store

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

HOST = str(Platform.host())


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as store:
        yield store


@pytest.fixture
def images(store):
    return Images(store)


def empty(store: Store) -> bool:
    """Say whether there is nothing in the store, on disk or in the database, but the record of what happened."""
    files = [str(Path(where) / name) for where, _, names in os.walk(store.root) for name in names]
    directories = [name for part in ("tmp", "layers", "locks", "containers") for name in os.listdir(store.root / part)]
    rows = store.database.rows("SELECT id FROM images UNION SELECT key FROM layers UNION SELECT name FROM names")
    return not directories and not rows and all("/pyrtc.db" in name or name.endswith("/events") for name in files)


def fails(images: Images, source: object, reason: str, kind: type[PyrtcError] = ImageError, **options: str) -> None:
    with pytest.raises(kind, match=reason):
        images.load(source, **options)
    assert empty(images._store)


def content(image: Image) -> dict[str, bytes]:
    """Return the files of an image: what is on top hides what is below."""
    found: dict[str, bytes] = {}
    for tree in reversed(image.layers):
        for where, _, names in os.walk(tree):
            for name in names:
                path = Path(where) / name
                found[str(path.relative_to(tree))] = path.read_bytes()
    return found


BOTH = {"etc/hello": b"hello\n", "etc/world": b"world\n"}


def save(tmp_path: Path, data: bytes, name: str = "archive.tar") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


# ---- forms ----------------------------------------------------------------------------------------------------------


def test_docker_archive(images: Images, tmp_path) -> None:
    document = config(HELLO, WORLD)
    path = save(tmp_path, docker_archive((["app:1", "reg.io/app:2"], document, [HELLO, WORLD])))
    (image,) = images.load(path)
    assert image.id == sha(document)
    assert image.names == ("app:1", "reg.io/app:2")
    assert content(image) == BOTH
    assert [Path(tree).name for tree in image.layers] == [sha(WORLD)[7:], sha(HELLO)[7:]]
    assert image.config.env == (("PATH", "/bin"), ("EMPTY", ""))
    assert (image.size, image.created, image.manifest) == (12, "2024-05-06T07:08:09.123456789Z", None)
    assert images.documents(image) == (document, None)
    assert images.load(path) == (image,)
    assert images.list() == (image,)


def test_several_images_share_their_layers(images: Images, store: Store, tmp_path) -> None:
    data = docker_archive((["a"], config(HELLO), [HELLO]), (["b"], config(HELLO, WORLD), [HELLO, WORLD]))
    first, second = images.load(save(tmp_path, data))
    assert (first.names, second.names) == (("a:latest",), ("b:latest",))
    assert second.layers[1] == first.layers[0]
    assert len(os.listdir(store.root / "layers")) == 2


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress, bytes, lzma.compress, bz2.compress])
def test_compressed_layers_in_a_docker_archive(images: Images, tmp_path, compress) -> None:
    document = config(HELLO, WORLD)
    parts = file("1", compress(HELLO)) + file("2", compress(WORLD)) + file("c.json", document)
    manifest = json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": ["1", "2"]}]).encode()
    (image,) = images.load(save(tmp_path, parts + file("manifest.json", manifest) + END))
    assert content(image) == BOTH
    assert image.names == ()


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress, lzma.compress, bz2.compress, bytes])
def test_compressed_outside_and_through_a_pipe(images: Images, store: Store, tmp_path, compress) -> None:
    data = compress(docker_archive((["app"], config(HELLO, WORLD), [HELLO, WORLD])))
    (image,) = images.load(save(tmp_path, data))
    assert content(image) == BOTH
    images.remove("app")
    source, sink = os.pipe()

    def fill() -> None:
        with open(sink, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=fill)
    thread.start()
    with open(source, "rb") as file:
        (image,) = images.load(file)
    thread.join()
    assert content(image) == BOTH
    assert os.listdir(store.root / "tmp") == []


def test_oci_archive(images: Images, tmp_path) -> None:
    layout = simple_layout("app:3")
    (image,) = images.load(save(tmp_path, layout.tar()))
    assert image.names == ("app:3",)
    assert content(image) == BOTH
    assert image.manifest == layout.manifests[0]["digest"]
    assert sha(images.documents(image)[1]) == image.manifest


def test_both_forms_in_one_archive(images: Images, tmp_path) -> None:
    layout = simple_layout(None)
    document = config(HELLO, WORLD)
    entry = {"Config": f"blobs/sha256/{sha(document)[7:]}", "RepoTags": ["saved:1"], "Layers": []}
    (image,) = images.load(save(tmp_path, file("manifest.json", json.dumps([entry]).encode()) + layout.tar()))
    assert image.names == ("saved:1",)
    assert image.manifest == layout.manifests[0]["digest"]


def test_oci_directory(images: Images, tmp_path) -> None:
    layout = simple_layout("one")
    layout.add(layout.manifest(config(WORLD), [zstd.compress(WORLD)]), "reg.io/two:2")
    path = layout.write(tmp_path / "layout")
    (one,) = images.load(f"oci:{path}:one")
    assert one.names == ("one:latest",)
    (two,) = images.load(f"oci:{path}:reg.io/two:2")
    assert two.names == ("reg.io/two:2",)
    assert [image.id for image in images.load(f"oci:{path}")] == [one.id, two.id]
    assert [image.id for image in images.load(path)] == [one.id, two.id]
    for name in ("three", "tw", "../one"):
        with pytest.raises(ImageError, match="has no image"):
            images.load(f"oci:{path}:{name}")
    with pytest.raises(UsageError, match="no such directory"):
        images.load(f"oci:{path}x:one")


@pytest.mark.parametrize("tag", ["latest", "1.2", "v3", "12-slim"])
def test_names_that_are_only_a_tag(images: Images, tmp_path, tag: str) -> None:
    path = simple_layout(tag).write(tmp_path / "Nginx")
    (image,) = images.load(f"oci:{path}:{tag}")
    assert image.names == (f"nginx:{tag}",)
    assert images.load(save(tmp_path, simple_layout(tag).tar()))[0].names == (f"nginx:{tag}",)


def test_sha512(images: Images, tmp_path) -> None:
    layout = Layout()
    document = config(HELLO).replace(sha(HELLO).encode(), sha(HELLO, "sha512").encode())
    content_ = {
        "schemaVersion": 2,
        "config": layout.blob(document, "application/vnd.oci.image.config.v1+json", "sha512"),
        "layers": [layout.blob(HELLO, "application/vnd.oci.image.layer.v1.tar", "sha512")],
    }
    layout.add(
        layout.blob(json.dumps(content_).encode(), "application/vnd.oci.image.manifest.v1+json", "sha512"), "app"
    )
    (image,) = images.load(save(tmp_path, layout.tar()))
    assert image.id == sha(document, "sha512")
    assert content(image) == {"etc/hello": b"hello\n"}
    assert images.get("app").id == image.id
    images.remove("app")
    assert empty(images._store)


def test_directories_that_nobody_may_enter(images: Images, store: Store, tmp_path) -> None:
    locked = layer(
        directory("./", mode=0o555), directory("a", mode=0), directory("a/b", mode=0o500), file("a/b/c", b"x")
    )
    (image,) = images.load(save(tmp_path, docker_archive((["app"], config(HELLO, locked), [HELLO, locked]))))
    assert os.stat(image.layers[0]).st_mode & 0o777 == 0o555
    assert os.stat(f"{image.layers[0]}/a").st_mode & 0o777 == 0
    images.remove("app")
    assert empty(store)


def test_no_layers(images: Images, tmp_path) -> None:
    (image,) = images.load(save(tmp_path, docker_archive((["scratch-like"], config(), []))))
    assert image.layers == ()
    images.remove("scratch-like")
    assert empty(images._store)


def test_the_same_layer_twice(images: Images, tmp_path) -> None:
    document = config(HELLO, WORLD, HELLO)
    (image,) = images.load(save(tmp_path, docker_archive((["app"], document, [HELLO, WORLD, HELLO]))))
    assert len(image.layers) == 3
    assert image.layers[0] == image.layers[2]


# ---- layers that depend on those below ------------------------------------------------------------------------------


def test_implied_parents_are_taken_from_the_stack(images: Images, store: Store, tmp_path) -> None:
    data = docker_archive(
        (["above"], config(DEEP, IMPLIED), [DEEP, IMPLIED]),
        (["alone"], config(IMPLIED), [IMPLIED]),
        (["other"], config(HELLO, IMPLIED), [HELLO, IMPLIED]),
    )
    above, alone, other = images.load(save(tmp_path, data))
    assert os.stat(f"{above.layers[0]}/deep").st_mode & 0o777 == 0o700
    assert os.stat(f"{alone.layers[0]}/deep").st_mode & 0o777 == 0o755
    assert os.stat(f"{other.layers[0]}/deep").st_mode & 0o777 == 0o755
    assert len({image.layers[0] for image in (above, alone, other)}) == 3
    rows = dict(store.database.rows("SELECT key, depends FROM layers"))
    assert rows[Path(above.layers[1]).name] == 0
    assert rows[Path(above.layers[0]).name] > 0
    # Loaded again, each finds its own.
    assert [image.layers for image in images.load(tmp_path / "archive.tar")] == [
        image.layers for image in (above, alone, other)
    ]


def test_a_long_chain_of_dependent_layers(images: Images, tmp_path) -> None:
    layers = [DEEP, *(layer(file(f"deep/{number}", b"x" * number)) for number in range(12))]
    (image,) = images.load(save(tmp_path, docker_archive((["chain"], config(*layers), layers))))
    assert len(content(image)) == 13
    assert {os.stat(f"{tree}/deep").st_mode & 0o777 for tree in image.layers} == {0o700}


# ---- platforms ------------------------------------------------------------------------------------------------------


def two_platforms() -> Layout:
    layout = Layout()
    arm = layout.manifest(config(HELLO, architecture="arm64", variant="v8"), [HELLO])
    other = layout.manifest(config(WORLD, architecture="s390x"), [WORLD])
    proof = platform(layout.manifest(config(), []), "unknown/unknown")
    proof |= {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    layout.add(layout.index(platform(arm, "linux/arm64/v8"), platform(other, "linux/s390x"), proof), "multi")
    return layout


def test_a_platform_is_chosen(images: Images, tmp_path) -> None:
    path = save(tmp_path, two_platforms().tar())
    (image,) = images.load(path, platform="linux/arm64")
    assert (image.platform, content(image)) == ("linux/arm64/v8", {"etc/hello": b"hello\n"})
    (image,) = images.load(path, platform="s390x")
    assert image.platform == "linux/s390x"
    assert images.get("multi").id == image.id


def test_the_hosts_platform_is_the_default(images: Images, tmp_path) -> None:
    layout = two_platforms()
    fails(images, save(tmp_path, layout.tar()), f"no image for {HOST}.*has linux/arm64/v8, linux/s390x")
    native = layout.manifest(config(DEEP, architecture=Platform.host().architecture), [DEEP])
    layout.add(platform(native, HOST), "multi")
    (image,) = images.load(save(tmp_path, layout.tar()))
    assert content(image) == {"deep/first": b"y"}


def test_a_platform_that_is_not_there(images: Images, tmp_path) -> None:
    fails(
        images,
        save(tmp_path, simple_layout().tar()),
        "no image for linux/riscv64.*linux/amd64",
        platform="linux/riscv64",
    )
    data = docker_archive((["app"], config(HELLO), [HELLO]))
    fails(images, save(tmp_path, data), "no image for linux/arm64.*linux/amd64", platform="linux/arm64")
    fails(images, save(tmp_path, data), "invalid platform", UsageError, platform="a b")


def nested(depth: int) -> Layout:
    layout = Layout()
    descriptor = layout.manifest(config(HELLO), [HELLO])
    for _ in range(depth):
        descriptor = layout.index(descriptor)
    layout.add(descriptor, "nested")
    return layout


def test_nested_indexes(images: Images, store: Store, tmp_path) -> None:
    images.load(save(tmp_path, nested(3).tar()))
    images.remove("nested")
    fails(images, save(tmp_path, nested(4).tar()), "nested more than 4 deep")
    fails(images, save(tmp_path, nested(50).tar()), "nested more than 4 deep")


# ---- lies -----------------------------------------------------------------------------------------------------------


def test_damaged_layers(images: Images, tmp_path) -> None:
    document, squeezed = config(HELLO, WORLD), gzip.compress(WORLD)
    layout = Layout()
    layout.add(layout.manifest(document, [gzip.compress(HELLO), squeezed]), "app")
    good = layout.files()
    place = f"blobs/{sha(squeezed).replace(':', '/')}"
    for number, (blob, reason) in enumerate(
        (
            (squeezed[:-1], "bytes, its descriptor says"),
            (squeezed + b"\0", "bytes, its descriptor says"),
            (squeezed[:-12] + b"XXXX" + squeezed[-8:], "damaged gzip|digest|cut short"),
            (gzip.compress(WORLD, mtime=7), "has the digest"),
        )
    ):
        path = tmp_path / str(number)
        for name, data in (good | {place: blob}).items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        fails(images, f"oci:{path}", reason)


def test_a_wrong_diff_id(images: Images, tmp_path) -> None:
    data = docker_archive((["app"], config(HELLO, WORLD), [HELLO, HELLO]))
    fails(images, save(tmp_path, data), "unpacks to the diffID", DigestMismatch)
    # Bytes after the end of the tar belong to the digest.
    data = docker_archive((["app"], config(HELLO), [HELLO + bytes(512)]))
    fails(images, save(tmp_path, data), "unpacks to the diffID", DigestMismatch)


def test_the_whole_stream_is_hashed(images: Images, tmp_path) -> None:
    padded = HELLO + bytes(10240) + b"trailing"
    (image,) = images.load(save(tmp_path, docker_archive((["app"], config(padded), [padded]))))
    assert content(image) == {"etc/hello": b"hello\n"}


def test_hostile_layers_leave_nothing(images: Images, tmp_path) -> None:
    for bad in (
        layer(file("../../../../escape", b"x")),
        HELLO[:700],
        b"no tar at all" * 100,
        layer(symlink("a", "/etc"), file("a/passwd", b"x"))[:1100],
    ):
        data = docker_archive((["app"], config(HELLO, bad), [HELLO, bad]))
        try:
            (image,) = images.load(save(tmp_path, data))
        except ImageError:
            assert empty(images._store)
        else:
            assert all(name.startswith("escape") or "/" in name for name in content(image))
            images.remove(image.id)
    assert not (tmp_path / "escape").exists()


def test_lying_documents(images: Images, tmp_path) -> None:
    document = config(HELLO)
    layout = Layout()
    layout.add(layout.manifest(document, [HELLO]), "app")
    manifest = layout.manifests[0]
    fails(
        images,
        save(tmp_path, _changed(layout, sha(document), document + b" ")),
        "bytes, its descriptor says",
        DigestMismatch,
    )
    other = document.replace(b"amd64", b"arm64")
    fails(images, save(tmp_path, _changed(layout, sha(document), other)), "has the digest", DigestMismatch)
    layout.manifests = [manifest | {"size": 3}]
    fails(images, save(tmp_path, layout.tar()), "descriptor says 3", DigestMismatch)
    layout.manifests = [manifest | {"digest": "sha256:" + "0" * 64}]
    fails(images, save(tmp_path, layout.tar()), "has no 'blobs/sha256/0000")
    layout.manifests = [manifest | {"digest": "sha256:../../index.json"}]
    fails(images, save(tmp_path, layout.tar()), "no sha256")
    layout.manifests = []
    fails(images, save(tmp_path, layout.tar()), "lists no image")


def _changed(layout: Layout, digest: str, blob: bytes) -> bytes:
    files = layout.files() | {f"blobs/{digest.replace(':', '/')}": blob}
    return b"".join(file(name, data) for name, data in files.items()) + END


def test_other_archives(images: Images, tmp_path) -> None:
    fails(images, save(tmp_path, HELLO), "no image archive.*pyrtc import")
    fails(images, save(tmp_path, b""), "cut short or no tar")
    fails(images, save(tmp_path, b"x" * 5000), "no tar archive")
    fails(images, save(tmp_path, gzip.compress(HELLO)[:-3]), "cut short in the middle")
    fails(images, save(tmp_path, file("repositories", b"{}") + END), "before 1.10")
    fails(images, save(tmp_path, file("manifest.json", b"[]") + END), "no image")
    fails(images, save(tmp_path, file("manifest.json", b"{") + END), "damaged")
    fails(images, tmp_path / "missing.tar", "No such file", UsageError)
    fails(images, str(tmp_path / "missing.tar"), "No such file", UsageError)
    fails(images, tmp_path, "lacks oci-layout")
    whole = docker_archive((["app"], config(HELLO), [HELLO]))
    for size in range(0, len(whole) - 1024 - 512, 256):
        fails(images, save(tmp_path, whole[:size]), "cut short|has neither|no tar|has no")


def test_docker_archives_that_lie(images: Images, tmp_path) -> None:
    def archive(entry: object, *parts: bytes) -> Path:
        return save(tmp_path, b"".join(parts) + file("manifest.json", json.dumps([entry]).encode()) + END)

    document = config(HELLO)
    entry = {"Config": "c.json", "RepoTags": ["a"], "Layers": ["1"]}
    parts = (file("c.json", document), file("1", HELLO))
    fails(images, archive(entry | {"RepoTags": ["a/B"]}, *parts), "lowercase")
    fails(images, archive(entry | {"RepoTags": ["../../x"]}, *parts), "invalid reference")
    fails(images, archive(entry | {"Layers": ["2"]}, *parts), "has no '2'")
    fails(images, archive(entry | {"Layers": ["../../etc/passwd"]}, *parts), "has no")
    fails(images, archive(entry | {"Layers": ["/etc/passwd"]}, *parts), "has no")
    fails(images, archive(entry | {"Layers": ["1", "1"]}, *parts), "1 diffIDs for 2")
    fails(images, archive(entry | {"Config": "1"}, *parts), "damaged")
    fails(images, archive(entry, file("c.json", document), symlink("1", "/etc/passwd")), "leads out")
    fails(images, archive(entry, file("c.json", b" " * (5 << 20)), file("1", HELLO)), "allowed")
    named = "0" * 64 + ".json"
    fails(
        images,
        archive(entry | {"Config": named}, file(named, document), file("1", HELLO)),
        "named after",
        DigestMismatch,
    )


def test_odd_files_in_a_layout_directory(images: Images, tmp_path) -> None:
    path = simple_layout().write(tmp_path / "layout")
    (path / "index.json").unlink()
    os.mkfifo(path / "index.json")
    fails(images, path, "no regular file")
    (path / "index.json").unlink()
    (path / "index.json").mkdir()
    fails(images, path, "no regular file")


def test_failures_of_the_disk_leave_nothing(images: Images, store: Store, tmp_path, monkeypatch) -> None:
    path = save(tmp_path, docker_archive((["app"], config(HELLO, WORLD), [HELLO, WORLD])))

    def broken(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    for place in (
        "pyrtc.store.layers.Layers.publish",
        "pyrtc.store.layers.Layers.record",
        "pyrtc.store.blobs.Blobs.publish",
        "pyrtc.store.images.ImageTable.add",
        "pyrtc.core.sync_filesystem",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, broken)
            with pytest.raises(OSError, match="No space"):
                images.load(path)
        store.sweep()  # a document that lost its image is nobody's
        assert empty(store), place
    assert images.load(path)


@pytest.mark.parametrize(
    "place",
    [
        "pyrtc.store.layers.Layers.record",
        "pyrtc.store.blobs.Blobs.publish",
        "pyrtc.store.images.ImageTable.changed",
        "pyrtc.core.sync_filesystem",
    ],
)
def test_a_process_killed_at_the_worst_moment(store: Store, tmp_path, place: str) -> None:
    path = save(tmp_path, docker_archive((["app"], config(HELLO, IMPLIED), [HELLO, IMPLIED])))
    pid = os.fork()
    if pid == 0:
        import unittest.mock

        with unittest.mock.patch(place, side_effect=lambda *_, **__: os.kill(os.getpid(), 9)):
            Images(Store(store.root)).load(path)
        os._exit(3)
    assert os.waitpid(pid, 0)[1] == 9
    assert os.listdir(store.root / "tmp") or os.listdir(store.root / "layers")
    store.sweep()
    assert empty(store)
    assert len(Images(store).load(path)[0].layers) == 2


def test_two_at_once(store: Store, tmp_path) -> None:
    path = save(tmp_path, docker_archive((["app"], config(HELLO, WORLD), [HELLO, WORLD])))
    errors = []

    def work() -> None:
        try:
            with Store(store.root) as mine:
                images = Images(mine)
                for _ in range(5):
                    images.load(path)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert os.listdir(store.root / "tmp") == os.listdir(store.root / "locks") == []
    assert content(store.image("app")) == BOTH


def test_loading_and_removing_at_once(store: Store, tmp_path) -> None:
    one = save(tmp_path, docker_archive((["one"], config(HELLO, WORLD), [HELLO, WORLD])), "1")
    two = save(tmp_path, docker_archive((["two"], config(HELLO, DEEP), [HELLO, DEEP])), "2")
    errors = []

    def work(path: Path, name: str) -> None:
        try:
            with Store(store.root) as mine:
                images = Images(mine)
                for _ in range(10):
                    assert all(os.path.isdir(tree) for tree in images.load(path)[0].layers)
                    images.remove(name)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in ((one, "one"), (two, "two"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert empty(store)


def test_events(images: Images, tmp_path) -> None:
    path = save(tmp_path, docker_archive((["app"], config(HELLO, WORLD), [HELLO, WORLD])))
    events: list[tuple[str, ...]] = []
    images.load(path, on_event=lambda event: events.append((getattr(event, "state", "image"),)))
    assert sorted(events) == [("done",)] * 2 + [("image",)] + [("unpacking",)] * 2
    events.clear()
    images.load(path, on_event=lambda event: events.append((getattr(event, "state", "image"),)))
    assert sorted(events) == [("exists",)] * 2 + [("image",)]


def test_an_interrupt_stops_the_work(images: Images, store: Store, tmp_path) -> None:
    def interrupt(event: object) -> None:
        raise KeyboardInterrupt

    path = save(tmp_path, docker_archive((["app"], config(HELLO, WORLD), [HELLO, WORLD])))
    with pytest.raises(KeyboardInterrupt):
        images.load(path, on_event=interrupt)
    assert empty(store)
