"""Pull and push against Debian's docker-registry, with skopeo and umoci on the other side."""

import gzip
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from image_builder import HELLO, WORLD, Layout, config, layer, platform, simple_layout
from servers import DockerRegistry, LogLine, need
from tar_builder import file

from pyrtc.errors import ImageError, ImageNotFound, UsageError
from pyrtc.image.images import Images
from pyrtc.image.platform import Platform
from pyrtc.store import Store


def random_layer(seed: int, size: int = 200_000) -> bytes:
    """Return a layer that does not compress."""
    return layer(file(f"data-{seed}", random.Random(seed).randbytes(size)))


def skopeo(*words: str | Path) -> str:
    need("skopeo")
    done = subprocess.run(["skopeo", *map(str, words)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def send(directory: Path, layout: Layout, registry: DockerRegistry, name: str, *words: str) -> str:
    """Push with skopeo; returns the digest that the registry has."""
    path = layout.write(directory / name.replace("/", "-").replace(":", "-"))
    target = f"docker://{registry.host}/{name}"
    skopeo("copy", "-q", "--dest-tls-verify=false", *words, f"oci:{path}:app", target)
    return digest_of(registry, name)


def digest_of(registry: DockerRegistry, name: str) -> str:
    words = ("inspect", "--tls-verify=false", "--no-tags", "--format", "{{.Digest}}")
    return skopeo(*words, f"docker://{registry.host}/{name}").strip()


def packed_layout(*layers: bytes) -> tuple[Layout, list[dict[str, object]]]:
    """Return an image of these layers, with gzip that has no time in it, and the descriptors of its layers."""
    layout = Layout()
    descriptor = layout.manifest(config(*layers), [gzip.compress(content, mtime=0) for content in layers])
    layout.add(descriptor, "app")
    return layout, json.loads(layout.blobs[descriptor["digest"]])["layers"]


def test_pull(images: Images, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    digest = send(tmp_path, simple_layout(), docker_registry, "test/pull:1")
    name = f"{docker_registry.host}/test/pull:1"
    result = images.pull(name)
    assert result.digest == digest == result.image.manifest
    assert not result.up_to_date
    assert [part.origin for part in result.layers] == ["fetched", "fetched"]
    assert all(part.fetched == part.size for part in result.layers)
    assert result.image.names == (name,)
    found = {
        path.name: path.read_bytes() for tree in result.image.layers for path in Path(tree).rglob("*") if path.is_file()
    }
    assert found == {"hello": b"hello\n", "world": b"world\n"}
    assert os.listdir(images._store.root / "tmp") == os.listdir(images._store.root / "locks") == []


def test_only_what_is_missing_crosses_the_wire(images: Images, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    base = [random_layer(seed) for seed in range(4)]
    first, first_layers = packed_layout(*base)
    second, second_layers = packed_layout(*base, random_layer(99))
    send(tmp_path, first, docker_registry, "test/first:1")
    send(tmp_path, second, docker_registry, "test/second:1")

    mark = docker_registry.mark()
    result = images.pull(f"{docker_registry.host}/test/first:1")
    counted = docker_registry.blob_bytes(mark)
    config_digest = result.image.id
    assert counted.pop(config_digest) < 2000
    assert counted == {part["digest"]: part["size"] for part in first_layers}
    assert result.bytes_fetched == sum(counted.values())

    mark = docker_registry.mark()
    result = images.pull(f"{docker_registry.host}/test/second:1")
    counted = docker_registry.blob_bytes(mark)
    counted.pop(result.image.id)
    new = second_layers[-1]
    assert counted == {new["digest"]: new["size"]}
    assert result.bytes_fetched == new["size"]
    assert result.bytes_reused == sum(part["size"] for part in first_layers)
    assert [part.origin for part in result.layers] == ["reused"] * 4 + ["fetched"]


def test_up_to_date_is_one_head(images: Images, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    digest = send(tmp_path, simple_layout(), docker_registry, "test/head:1")
    name = f"{docker_registry.host}/test/head:1"
    images.pull(name)
    mark = docker_registry.mark()
    again = images.pull(name)
    assert again.up_to_date
    assert docker_registry.lines(mark) == [LogLine("HEAD", "/v2/test/head/manifests/1", 200, 0)] or [
        (line.method, line.path) for line in docker_registry.lines(mark)
    ] == [("HEAD", "/v2/test/head/manifests/1")]
    by_digest = f"{docker_registry.host}/test/head@{digest}"
    first = images.pull(by_digest)
    assert first.bytes_fetched == 0
    mark = docker_registry.mark()
    assert images.pull(by_digest).up_to_date
    assert docker_registry.lines(mark) == []
    assert images.get(by_digest).id == again.image.id


def test_a_tag_that_moved(images: Images, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    name = f"{docker_registry.host}/test/moved:1"
    send(tmp_path / "a", simple_layout("app", HELLO), docker_registry, "test/moved:1")
    old = images.pull(name)
    digest = send(tmp_path / "b", simple_layout("app", HELLO, WORLD), docker_registry, "test/moved:1")
    new = images.pull(name)
    assert not new.up_to_date
    assert new.digest == digest
    assert images.get(name).id == new.image.id != old.image.id
    assert images.get(old.image.id).names == ()


def test_docker_manifests(images: Images, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    digest = send(tmp_path, simple_layout(), docker_registry, "test/docker:1", "--format", "v2s2")
    result = images.pull(f"{docker_registry.host}/test/docker:1")
    assert result.digest == digest
    manifest = json.loads(images.documents(result.image)[1])
    assert all(part["mediaType"].startswith("application/vnd.docker.image.rootfs.diff.") for part in manifest["layers"])
    images.tag(f"{docker_registry.host}/test/docker:1", f"{docker_registry.host}/pushed/docker:1")
    assert images.push(f"{docker_registry.host}/pushed/docker:1").digest == digest


def test_zstd(images: Images, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    zstd = pytest.importorskip("backports.zstd" if sys.version_info < (3, 14) else "compression.zstd")
    layout = Layout()
    kind = "application/vnd.oci.image.layer.v1.tar+zstd"
    layers = [layout.blob(zstd.compress(content), kind) for content in (HELLO, WORLD)]
    manifest = {
        "schemaVersion": 2,
        "config": layout.blob(config(HELLO, WORLD), "application/vnd.oci.image.config.v1+json"),
        "layers": layers,
    }
    layout.add(layout.blob(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json"), "app")
    digest = send(tmp_path, layout, docker_registry, "test/zstd:1")
    result = images.pull(f"{docker_registry.host}/test/zstd:1")
    assert result.digest == digest
    assert [part.digest for part in result.layers] == [part["digest"] for part in layers]
    images.tag(f"{docker_registry.host}/test/zstd:1", f"{docker_registry.host}/pushed/zstd:1")
    assert images.push(f"{docker_registry.host}/pushed/zstd:1").digest == digest


def test_an_index(images: Images, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    layout = Layout()
    texts = (str(Platform.host()), "linux/s390x", "windows/amd64")
    entries = [
        platform(
            layout.manifest(
                config(HELLO, os=text.split("/")[0], architecture=text.split("/")[1]), [gzip.compress(HELLO)]
            ),
            text,
        )
        for text in texts
    ]
    layout.add(layout.index(*entries), "app")
    index = send(tmp_path, layout, docker_registry, "test/index:1", "--all")
    name = f"{docker_registry.host}/test/index:1"
    result = images.pull(name)
    assert result.digest == index
    assert result.image.manifest == entries[0]["digest"]
    mark = docker_registry.mark()
    assert images.pull(name).up_to_date
    assert [line.method for line in docker_registry.lines(mark)] == ["HEAD"]
    other = images.pull(name, platform="linux/s390x")
    assert other.image.architecture == "s390x"
    assert other.bytes_fetched == 0
    # The name now means the other image, which is not what this machine wants.
    assert images.pull(name).image.id == result.image.id
    with pytest.raises(ImageError, match=r"no image for linux/riscv64 .* it has linux/"):
        images.pull(name, platform="linux/riscv64")
    assert images.get(f"{docker_registry.host}/test/index@{index}").id == result.image.id


def test_no_such_image(images: Images, docker_registry: DockerRegistry) -> None:
    with pytest.raises(ImageNotFound, match="no such image at the registry"):
        images.pull(f"{docker_registry.host}/test/nothing")


def test_127_layers(images: Images, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    layers = [layer(file(f"f{number}", b"%d" % number)) for number in range(127)]
    send(tmp_path, simple_layout("app", *layers), docker_registry, "test/many:1")
    result = images.pull(f"{docker_registry.host}/test/many:1")
    assert len(result.image.layers) == len(result.layers) == 127


def test_a_layer_that_needs_those_below_is_fetched_once(
    images: Images, docker_registry: DockerRegistry, tmp_path: Path
) -> None:
    from image_builder import DEEP, IMPLIED

    layout, layers = packed_layout(DEEP, IMPLIED)
    send(tmp_path, layout, docker_registry, "test/implied:1")
    mark = docker_registry.mark()
    result = images.pull(f"{docker_registry.host}/test/implied:1")
    counted = docker_registry.blob_bytes(mark)
    assert {part["digest"]: counted[part["digest"]] for part in layers} == {
        part["digest"]: part["size"] for part in layers
    }
    assert result.bytes_fetched == sum(part["size"] for part in layers)


# ---- push -----------------------------------------------------------------------------------------------------------


def test_push_is_byte_exact(images: Images, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    layout = simple_layout()
    layout.manifests[0]["annotations"] |= {"com.example": "of the index"}
    digest = send(tmp_path, layout, docker_registry, "test/exact:1")
    images.pull(f"{docker_registry.host}/test/exact:1")
    target = f"{docker_registry.host}/pushed/exact:2"
    images.tag(f"{docker_registry.host}/test/exact:1", target)
    result = images.push(target)
    assert result.digest == digest == digest_of(docker_registry, "pushed/exact:2")
    assert result.changed == ""
    # Somebody else's tools read it.
    out = tmp_path / "out"
    skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{target}", f"oci:{out}:x")
    need("umoci")
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    words = ["umoci", "unpack", *rootless, "--image", f"{out}:x", tmp_path / "bundle"]
    subprocess.run(words, check=True, capture_output=True)
    assert (tmp_path / "bundle/rootfs/etc/world").read_bytes() == b"world\n"
    # What was pushed is up to date.
    assert images.pull(target).up_to_date


def test_push_from_an_archive(images: Images, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    layers = [random_layer(7, 3_000_000), random_layer(8)]
    images.load(f"oci:{simple_layout('app', *layers).write(tmp_path / 'in')}")
    name = f"{docker_registry.host}/pushed/archive:1"
    images.tag(images.list()[0].id, name)
    mark = docker_registry.mark()
    result = images.push(name)
    assert [part.origin for part in result.layers] == ["sent", "sent"]
    assert result.bytes_sent == sum(part.size for part in result.layers)
    again = images.push(name)
    assert [part.origin for part in again.layers] == ["present", "present"]
    puts = [line for line in docker_registry.lines(mark) if line.method == "PUT" and "/blobs/" in line.path]
    assert len(puts) == 3  # two layers and the config, once each
    assert digest_of(docker_registry, "pushed/archive:1") == result.digest


def test_push_mounts_from_other_repositories(images: Images, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    layers = [random_layer(17), random_layer(18)]
    send(tmp_path, simple_layout("app", *layers), docker_registry, "test/mountable:1")
    images.pull(f"{docker_registry.host}/test/mountable:1")
    name = f"{docker_registry.host}/another/place:1"
    images.tag(f"{docker_registry.host}/test/mountable:1", name)
    mark = docker_registry.mark()
    result = images.push(name)
    assert [part.origin for part in result.layers] == ["mounted", "mounted"]
    assert result.bytes_sent == 0
    posts = [line for line in docker_registry.lines(mark) if line.method == "POST"]
    assert sum("mount=" in line.path and line.status == 201 for line in posts) == 2


def test_push_in_parts(images: Images, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    from pyrtc.image.reference import Reference
    from pyrtc.image.registry.push import push

    images.load(f"oci:{simple_layout('app', random_layer(27, 2_500_000)).write(tmp_path / 'in')}")
    name = f"{docker_registry.host}/pushed/parts:1"
    images.tag(images.list()[0].id, name)
    mark = docker_registry.mark()
    result = push(images._store, Reference.parse(name), part=1 << 20)
    assert result.layers[0].origin == "sent"
    assert sum(line.method == "PATCH" for line in docker_registry.lines(mark)) == 4
    assert digest_of(docker_registry, "pushed/parts:1") == result.digest


def test_push_without_kept_blobs(docker_registry: DockerRegistry, tmp_path: Path) -> None:
    """The registry has the layers, so nothing has to be made again."""
    digest = send(tmp_path, simple_layout(), docker_registry, "test/dropped:1")
    with Store(tmp_path / "dropping", blobs="drop") as store:
        images = Images(store)
        images.pull(f"{docker_registry.host}/test/dropped:1")
        images.tag(f"{docker_registry.host}/test/dropped:1", f"{docker_registry.host}/test/dropped:2")
        assert images.push(f"{docker_registry.host}/test/dropped:2").digest == digest
        name = f"{docker_registry.host}/elsewhere/dropped:1"
        images.tag(f"{docker_registry.host}/test/dropped:1", name)
        made = images.push(name)
        assert made.changed in ("manifest", "config")
        assert digest_of(docker_registry, "elsewhere/dropped:1") == made.digest
        assert images.push(name).digest == made.digest


def test_the_tag_that_stands_for_referrers_is_left_alone(
    images: Images, docker_registry: DockerRegistry, tmp_path: Path
) -> None:
    """A registry without the referrers API has a tag that stands for it, which pushing the subject does not touch."""
    from pyrtc.image.registry.settings import Settings
    from pyrtc.image.registry.transport import Transport
    from pyrtc.image.registry.uploads import Destination

    digest = send(tmp_path, simple_layout(), docker_registry, "test/signed:1")
    transport = Transport()
    repository = Destination(transport, Settings.load().registry(docker_registry.host))
    object.__setattr__(repository.endpoint, "path", "test/signed")
    index = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                {
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": digest,
                    "size": 1,
                    "artifactType": "application/x-signature",
                    "annotations": {"made": "by hand"},
                }
            ],
        }
    ).encode()
    index_digest = repository.put_manifest(digest.replace(":", "-"), index, "application/vnd.oci.image.index.v1+json")
    images.pull(f"{docker_registry.host}/test/signed:1")
    images.push(f"{docker_registry.host}/test/signed:1")
    assert repository.head_manifest(digest.replace(":", "-")) == index_digest
    assert set(repository.tags()) == {"1", digest.replace(":", "-")}
    transport.close()


# ---- many at once ---------------------------------------------------------------------------------------------------


def run_pulls(root: Path, names: list[str]) -> list[dict]:
    """Pull each name in a process of its own, all at once; returns what each fetched."""
    program = (
        "import sys, json\nfrom pyrtc.image.images import Images\nfrom pyrtc.store import Store\n"
        "with Store(sys.argv[1]) as store:\n    r = Images(store).pull(sys.argv[2])\n"
        "print(json.dumps({'fetched': r.bytes_fetched, 'origins': [l.origin for l in r.layers]}))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, root, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for name in names
    ]
    results = []
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err.decode()
        results.append(json.loads(out))
    return results


def test_two_processes_do_the_work_once(docker_registry: DockerRegistry, tmp_path: Path) -> None:
    layout, layers = packed_layout(random_layer(31, 2_000_000), random_layer(32, 2_000_000))
    send(tmp_path, layout, docker_registry, "test/same:1")
    mark = docker_registry.mark()
    results = run_pulls(tmp_path / "shared", [f"{docker_registry.host}/test/same:1"] * 2)
    counted = docker_registry.blob_bytes(mark)
    assert {part["digest"]: counted[part["digest"]] for part in layers} == {
        part["digest"]: part["size"] for part in layers
    }
    assert sum(result["fetched"] for result in results) == sum(part["size"] for part in layers)


def test_eight_processes_with_shared_bases(docker_registry: DockerRegistry, tmp_path: Path) -> None:
    base = [random_layer(seed, 300_000) for seed in (41, 42, 43)]
    sizes = {}
    for number in range(8):
        layout, layers = packed_layout(*base, random_layer(50 + number, 300_000))
        send(tmp_path, layout, docker_registry, f"test/eight-{number}:1")
        sizes |= {part["digest"]: part["size"] for part in layers}
    mark = docker_registry.mark()
    run_pulls(tmp_path / "shared", [f"{docker_registry.host}/test/eight-{number}:1" for number in range(8)])
    counted = docker_registry.blob_bytes(mark)
    assert {digest: counted[digest] for digest in sizes} == sizes
    with Store(tmp_path / "shared") as store:
        assert len(store.images.list()) == 8
        assert store.sweep().removed == 0


def test_pulling_and_removing_at_once(store: Store, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    send(tmp_path, simple_layout("app", HELLO, WORLD), docker_registry, "test/race-a:1")
    send(tmp_path, simple_layout("app", HELLO, random_layer(60)), docker_registry, "test/race-b:1")
    errors = []

    def work(name: str) -> None:
        try:
            with Store(store.root) as mine:
                images = Images(mine)
                for _ in range(6):
                    assert all(os.path.isdir(tree) for tree in images.pull(name).image.layers)
                    images.remove(name)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"{docker_registry.host}/test/race-{x}:1",)) for x in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert os.listdir(store.root / "layers") == os.listdir(store.root / "tmp") == []


# ---- all tags -------------------------------------------------------------------------------------------------------


def test_all_tags(
    images: Images,
    store: Store,
    docker_registry: DockerRegistry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pyrtc.cli.main import main

    name = f"{docker_registry.host}/test/several"
    for tag in ("1", "2", "3"):
        (tmp_path / tag).mkdir()
        send(
            tmp_path / tag, simple_layout("app", config={"Env": [f"TAG={tag}"]}), docker_registry, f"test/several:{tag}"
        )
    assert sorted(images.tags(name)) == ["1", "2", "3"]
    with pytest.raises(ImageNotFound, match="no such repository"):
        images.tags(f"{docker_registry.host}/test/nothing")
    with pytest.raises(UsageError, match="all tags"):
        images.tags(f"{name}:1")
    monkeypatch.setenv("PYRTC_ROOT", str(store.root))
    assert main(["pull", "-q", "-a", name]) == 0
    assert sorted(capsys.readouterr().out.split()) == [f"{name}:{tag}" for tag in ("1", "2", "3")]
    assert {str(image_name) for image in images.list() for image_name in image.names} == {
        f"{name}:{tag}" for tag in ("1", "2", "3")
    }
    assert main(["pull", "-a", f"{name}:1"]) == 1
    assert "tag can't be used with --all-tags/-a" in capsys.readouterr().err
