"""Keeping compressed layers, dropping them, and archives of images."""

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from image_builder import DEEP, HELLO, IMPLIED, WORLD, Layout, config, docker_archive, layer, sha, simple_layout
from tar_builder import END, directory, file

from pyrtc.cli.main import main
from pyrtc.errors import DigestMismatch, ImageNotFound, StoreError, UsageError
from pyrtc.image.export import Exporter
from pyrtc.image.images import Images
from pyrtc.store import Store

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def opened(tmp_path, policy: str, name: str = "store") -> tuple[Store, Images]:
    store = Store(tmp_path / name, blobs=policy)
    return store, Images(store)


def blobs(store: Store) -> set[str]:
    return set(store.blobs.list())


def save(images: Images, path: Path, *names: str, form: str = "docker-archive"):
    saved = images.save(names, path, format=form)
    return saved, path.read_bytes()


def members(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}


# ---- keep -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
def test_what_came_is_kept(tmp_path, compress) -> None:
    layout = Layout()
    blob = compress(HELLO)
    kind = "gzip" if compress is gzip.compress else "zstd"
    descriptor = layout.blob(blob, f"application/vnd.oci.image.layer.v1.tar+{kind}")
    document = layout.blob(config(HELLO), "application/vnd.oci.image.config.v1+json")
    manifest = {"schemaVersion": 2, "config": document, "layers": [descriptor]}
    layout.add(layout.blob(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json"), "app")
    store, images = opened(tmp_path, "keep")
    (image,) = images.load(f"oci:{layout.write(tmp_path / 'l')}")
    kept = store.layer_blobs.find(sha(HELLO))
    assert (kept.digest, kept.size, kept.media_type) == (sha(blob), len(blob), descriptor["mediaType"])
    with store.layer_blobs.open(kept) as stream:
        assert stream.read() == blob
    with Exporter(store) as exporter:
        exported = exporter.image(image)
        assert (exported.changed, exported.manifest_digest) == ("", image.manifest)
        assert b"".join(exported.layers[0].chunks()) == blob
        assert b"".join(exported.layers[0].tar()) == HELLO
        assert exported.layers[0].tar_size == len(HELLO)
    images.remove("app")
    assert blobs(store) == set()
    assert store.layer_blobs.all() == []


@pytest.mark.parametrize("form", ["plain", "xz"])
def test_what_no_registry_takes_is_kept_as_gzip(tmp_path, form) -> None:
    import lzma

    content = lzma.compress(HELLO) if form == "xz" else HELLO
    document = config(HELLO)
    entry = {"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["l.tar"]}
    parts = [file("c.json", document), file("l.tar", content), file("manifest.json", json.dumps([entry]).encode())]
    (tmp_path / "a.tar").write_bytes(b"".join(parts) + END)
    store, images = opened(tmp_path, "keep")
    (image,) = images.load(tmp_path / "a.tar")
    kept = store.layer_blobs.find(sha(HELLO))
    with store.layer_blobs.open(kept) as stream:
        blob = stream.read()
    assert gzip.decompress(blob) == HELLO
    assert (kept.digest, kept.size) == (sha(blob), len(blob))
    with Exporter(store) as exporter:
        exported = exporter.image(image)
    assert (exported.changed, exported.config_digest) == ("manifest", image.id)
    assert json.loads(exported.manifest)["layers"][0]["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"


def test_a_layer_above_others_is_kept_once(tmp_path) -> None:
    (tmp_path / "a.tar").write_bytes(docker_archive((["app"], config(DEEP, IMPLIED), [DEEP, IMPLIED])))
    store, images = opened(tmp_path, "keep")
    images.load(tmp_path / "a.tar")
    assert {blob.diff_id for blob in store.layer_blobs.all()} == {sha(DEEP), sha(IMPLIED)}
    with Exporter(store) as exporter:
        exported = exporter.image(store.image("app"))
        assert [b"".join(item.tar()) for item in exported.layers] == [DEEP, IMPLIED]


def test_a_damaged_blob_is_noticed(tmp_path) -> None:
    store, images = opened(tmp_path, "keep")
    images.load(f"oci:{simple_layout('app', HELLO).write(tmp_path / 'l')}")
    digest = store.layer_blobs.find(sha(HELLO)).digest
    place = store.root / "blobs/sha256" / digest[7:9] / digest[7:]
    content = bytearray(place.read_bytes())
    content[4] ^= 1  # the time in the header: it still decompresses
    place.write_bytes(content)
    for form in ("docker-archive", "oci-archive"):
        with pytest.raises(DigestMismatch, match="damaged"):
            save(images, tmp_path / "out.tar", "app", form=form)
    assert sorted(os.listdir(tmp_path)) == ["l", "store"]


# ---- drop -----------------------------------------------------------------------------------------------------------


def test_dropped(tmp_path) -> None:
    store, images = opened(tmp_path, "drop")
    (image,) = images.load(f"oci:{simple_layout('app', HELLO, WORLD).write(tmp_path / 'l')}")
    assert blobs(store) == {image.id, image.manifest}
    with Exporter(store) as exporter:
        first = exporter.image(image)
        packed = [b"".join(item.chunks()) for item in first.layers]
        assert [sha(content) for content in packed] == [item.digest for item in first.layers]
        assert [sha(gzip.decompress(content)) for content in packed] == [item.diff_id for item in first.layers]
    with Exporter(store) as exporter:
        assert exporter.image(image).manifest == first.manifest
    assert first.changed == "config"
    document, original = json.loads(first.config), json.loads(config(HELLO, WORLD))
    assert document.pop("rootfs") != original.pop("rootfs")
    assert document == original
    assert os.listdir(store.root / "tmp") == []


def test_made_again_twice_it_is_itself(tmp_path) -> None:
    """What pyrtc wrote once it writes the same again, so the second time nothing changes."""
    _, images = opened(tmp_path, "drop")
    images.load(f"oci:{simple_layout('app', HELLO, WORLD).write(tmp_path / 'l')}")
    (saved,), _ = save(images, tmp_path / "one.tar", "app", form="oci-archive")
    _, other_images = opened(tmp_path, "drop", "other")
    (image,) = other_images.load(tmp_path / "one.tar")
    assert (image.id, image.manifest) == (saved.image_id, saved.digest)
    (again,), _ = save(other_images, tmp_path / "two.tar", "app", form="oci-archive")
    assert (again.changed, again.digest) == ("", saved.digest)


def test_what_the_target_has_is_not_made_again(tmp_path) -> None:
    store, images = opened(tmp_path, "drop")
    (image,) = images.load(f"oci:{simple_layout('app', HELLO, WORLD).write(tmp_path / 'l')}")
    with Exporter(store, lambda digest: True) as exporter:
        exported = exporter.image(image)
    assert (exported.changed, [item.stored for item in exported.layers]) == ("", [False, False])
    with pytest.raises(StoreError, match="not in the store"):
        exported.layers[0].open()


def test_kept_later(tmp_path) -> None:
    """A store that changes its mind keeps what comes from then on."""
    store, images = opened(tmp_path, "drop")
    images.load(f"oci:{simple_layout('one', HELLO).write(tmp_path / 'a')}")
    store.close()
    store, images = opened(tmp_path, "keep")
    images.load(f"oci:{simple_layout('two', HELLO, WORLD).write(tmp_path / 'b')}")
    assert [blob.diff_id for blob in store.layer_blobs.all()] == [sha(WORLD)]


# ---- archives -------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path) -> Images:
    """A store with two images that share a layer; one has two names."""
    one, other = [HELLO, WORLD], [HELLO, DEEP]
    (tmp_path / "a.tar").write_bytes(
        docker_archive((["app:1", "reg.io/x/app:2"], config(*one), one), (["other"], config(*other), other))
    )
    _, images = opened(tmp_path, "keep")
    images.load(tmp_path / "a.tar")
    return images


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_what_was_saved_is_loaded(two: Images, tmp_path, form) -> None:
    saved, content = save(two, tmp_path / "out.tar", "app:1", "other", "reg.io/x/app:2", form=form)
    assert [item.names for item in saved] == [("app:1", "reg.io/x/app:2"), ("other:latest",)]
    if form == "docker-archive":
        assert [item.changed for item in saved] == ["", ""]
        assert len(members(content)) == 3 + 2 + 1
    _, images = opened(tmp_path, "keep", "other")
    loaded = images.load(tmp_path / "out.tar")
    assert [image.id for image in images.list()] == [image.id for image in two.list()]
    assert {name for image in loaded for name in image.names} == {"app:1", "reg.io/x/app:2", "other:latest"}
    assert save(two, tmp_path / "again.tar", "app:1", "other", "reg.io/x/app:2", form=form)[1] == content


def test_by_id_without_a_name(two: Images, tmp_path) -> None:
    image = two.get("app:1")
    (saved,), content = save(two, tmp_path / "out.tar", image.id[7:19])
    assert saved.names == ()
    assert json.loads(members(content)["manifest.json"])[0]["RepoTags"] is None


def test_a_pipe(two: Images, tmp_path) -> None:
    reader, writer = os.pipe()
    with subprocess.Popen(["cat"], stdin=reader, stdout=subprocess.PIPE) as cat:
        os.close(reader)
        two.save(["app:1"], writer)
        os.close(writer)
        content = cat.stdout.read()
    assert content == save(two, tmp_path / "out.tar", "app:1")[1]


def test_a_file_appears_whole_or_not_at_all(two: Images, tmp_path, monkeypatch) -> None:
    target = tmp_path / "out.tar"
    target.write_bytes(b"before")
    with pytest.raises(ImageNotFound):
        two.save(["app:1", "missing"], target)
    with pytest.raises(UsageError, match="unknown archive format"):
        two.save(["app:1"], target, format="zip")
    with pytest.raises(UsageError, match="cannot write"):
        two.save(["app:1"], tmp_path / "no" / "out.tar")
    assert target.read_bytes() == b"before"
    with pytest.raises(StoreError, match="cannot write the archive"):
        two.save(["app:1"], "/dev/full")
    two.save(["app:1"], target)
    assert target.read_bytes() != b"before"
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


@pytest.mark.skipif(not Path("/usr/bin/skopeo").exists(), reason="needs skopeo")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: skopeo keeps the owners of an archive's files")
def test_skopeo_reads_it(two: Images, tmp_path) -> None:
    save(two, tmp_path / "d.tar", "app:1", "other")
    (saved, _), _ = save(two, tmp_path / "o.tar", "app:1", "other", form="oci-archive")
    policy = ["skopeo", "--insecure-policy"]
    done = subprocess.run(
        [*policy, "inspect", "--raw", f"oci-archive:{tmp_path}/o.tar:docker.io/library/app:1"],
        check=True,
        capture_output=True,
    )
    assert f"sha256:{hashlib.sha256(done.stdout).hexdigest()}" == saved.digest
    subprocess.run([*policy, "copy", "-q", f"docker-archive:{tmp_path}/d.tar:app:1", f"dir:{tmp_path}/dir"], check=True)
    manifest = json.loads((tmp_path / "dir/manifest.json").read_bytes())
    assert manifest["config"]["digest"] == two.get("app:1").id


def test_an_image_without_layers(tmp_path) -> None:
    _, images = opened(tmp_path, "keep")
    (tmp_path / "a.tar").write_bytes(docker_archive((["empty"], config(), [])))
    images.load(tmp_path / "a.tar")
    save(images, tmp_path / "o.tar", "empty", form="oci-archive")
    _, other = opened(tmp_path, "keep", "other")
    assert other.load(tmp_path / "o.tar")[0].layers == ()


# ---- names ----------------------------------------------------------------------------------------------------------


def test_tag(two: Images) -> None:
    two.tag("app:1", "mine")
    two.tag("mine", "other")
    assert two.get("app:1").names == ("app:1", "mine:latest", "other:latest", "reg.io/x/app:2")
    assert [image.names for image in two.list() if image.id != two.get("app:1").id] == [()]
    with pytest.raises(UsageError, match="digest"):
        two.tag("app:1", f"app@{sha(b'')}")
    with pytest.raises(ImageNotFound):
        two.tag("nobody", "x")


def test_commands(two: Images, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("PYRTC_ROOT", str(tmp_path / "store"))
    assert main(["tag", "app:1", "third:3"]) == 0
    assert main(["save", "third:3", "-o", str(tmp_path / "t.tar")]) == 0
    assert json.loads(members((tmp_path / "t.tar").read_bytes())["manifest.json"])[0]["RepoTags"] == [
        "docker.io/library/third:3"
    ]
    assert main(["image", "save", "--format", "oci-archive", "third:3", "-o", str(tmp_path / "t.tar")]) == 0
    assert "index.json" in members((tmp_path / "t.tar").read_bytes())
    assert capfd.readouterr() == ("", "")
    assert main(["save", "--format", "zip", "app:1"]) == 1
    assert main(["save"]) == 1
    assert main(["tag", "app:1"]) == 1


def test_the_user_is_told_of_another_id(tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("PYRTC_ROOT", str(tmp_path / "store"))
    monkeypatch.setenv("PYRTC_BLOBS", "drop")
    simple_layout("app", layer(directory("d"), file("d/f", b"x"))).write(tmp_path / "l")
    assert main(["load", "-q", f"oci:{tmp_path}/l"]) == 0
    assert main(["save", "app", "-o", str(tmp_path / "t.tar")]) == 0
    assert "app:latest has the id sha256:" in capfd.readouterr().err
    assert main(["save", "-q", "app", "-o", str(tmp_path / "t.tar")]) == 0
    assert capfd.readouterr().err == ""
