"""What containers write: told, committed to images that others read, exported; and layers that nothing changes."""

import json
import os
import shutil
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT, Entry, ImageFactory, Link, needs_root

import pyrtc
from pyrtc.api import make_options
from pyrtc.container import Completed
from pyrtc.engine import Engine
from pyrtc.errors import ContainerNotFound, StoreError, UnsupportedError, UsageError
from pyrtc.options import Bind, Tmpfs, Volume

BUSYBOX = Path("/bin/busybox")
pytestmark = pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static")
FILES: dict[str, Entry] = {
    "bin/busybox": BUSYBOX.read_bytes() if BUSYBOX.exists() else b"",
    **{f"bin/{tool}": Link("busybox") for tool in ("cat", "chmod", "ln", "ls", "mkdir", "rm", "sh", "sleep", "touch")},
    "etc/passwd": "root:x:0:0::/:/bin/sh\n",
    "usr/lib/a": "a",
    "usr/lib/b": "b",
    "usr/share/doc/x": "x",
    "var/log": None,
    "way": Link("var/log"),
}
SCRIPT = """
    echo more >> /etc/passwd; rm -r /usr; mkdir /usr /usr/lib; echo c > /usr/lib/c; echo new > /usr/lib/a
    mkdir /data; echo 1 > /data/x; ln /data/x /data/y; rm /bin/touch; chmod 700 /var/log
"""
CHANGES = [
    "C /bin",
    "D /bin/touch",
    "A /data",
    "A /data/x",
    "A /data/y",
    "C /etc",
    "C /etc/passwd",
    "C /usr",
    "C /usr/lib",
    "C /usr/lib/a",
    "D /usr/lib/b",
    "A /usr/lib/c",
    "D /usr/share",
    "C /var",
    "C /var/log",
]


@pytest.fixture
def base(image: ImageFactory) -> str:
    return image(FILES, "ENV A=1", 'CMD ["sh"]')


def shell(engine: Engine, image: "str | pyrtc.Snapshot", script: str, **options: object) -> Completed:
    options.setdefault("remove", True)
    return engine.run(image, make_options(["sh", "-ec", script], **options)).check()  # type: ignore[arg-type]


@pytest.fixture
def written(engine: Engine, base: str) -> Iterator[pyrtc.Container]:
    """A container that has ended."""
    done = shell(engine, base, SCRIPT, remove=False)
    container = engine.containers.get(done.id)
    yield container
    with suppress(ContainerNotFound):  # a test may have removed it
        container.remove(force=True)


def told(container: pyrtc.Container) -> list[str]:
    return [f"{change.kind} {change.path}" for change in container.diff()]


# ---- diff ------------------------------------------------------------------------------------------------------------


def test_what_was_changed(written: pyrtc.Container) -> None:
    assert told(written) == CHANGES


def test_nothing_was_changed(engine: Engine, base: str) -> None:
    container = engine.containers.create(base, ["true"])
    assert container.diff() == ()
    container.remove()


def test_mount_points_are_no_changes(engine: Engine, base: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("host")
    mounts = [
        Bind(str(tmp_path), "/srv/deep/bound"),
        Bind(str(tmp_path / "file"), "/opt/file"),
        Bind(str(tmp_path), "/way/linked"),  # /way leads to /var/log
        Tmpfs("/memory/t"),
        Volume("", "/volume"),
    ]
    done = shell(engine, base, "echo 1 > /opt/own; echo 2 > /srv/deep/bound/inside", remove=False, mounts=mounts)
    container = engine.containers.get(done.id)
    try:
        assert told(container) == ["A /opt", "A /opt/own"]
        image = container.commit("committed:1")
        seen = shell(engine, image.id, "ls -A / /opt /var/log").stdout.decode().split()
        assert "own" in seen and not {"srv", "memory", "volume", "file", "linked"} & set(seen)
    finally:
        container.remove(volumes=True)


def test_a_running_container_is_told_of(engine: Engine, base: str) -> None:
    with pyrtc.Container(base, ["sh", "-c", "echo 1 > /x; sleep 1000"], engine=engine) as container:
        for _ in range(500):
            if told(container):
                break
            threading.Event().wait(0.01)
        assert told(container) == ["A /x"]


@needs_root
def test_a_user_namespace_is_looked_through(engine: Engine, base: str) -> None:
    container = engine.containers.run(base, ["sh", "-c", SCRIPT], userns="auto")
    container.wait()
    try:
        assert told(container) == CHANGES
        image = container.commit()
        owners = shell(engine, image.id, "ls -ln /data/x /etc/passwd /usr/lib/c").stdout.decode().splitlines()
        assert all(line.split()[2:4] == ["0", "0"] for line in owners)
        archive = Path(engine.store.path) / "tmp" / "export.tar"
        container.export(archive)
        with tarfile.open(archive) as tar:
            assert {(item.uid, item.gid) for item in tar} == {(0, 0)}
        archive.unlink()
    finally:
        container.remove()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"rw_layer": "memory"}, "--rw-layer memory"), ({"driver": "copy", "remove": False}, "--driver copy")],
)
def test_what_has_no_layer(engine: Engine, base: str, options: dict[str, object], words: str) -> None:
    container = engine.containers.run(base, ["sleep", "1000"], **{"remove": True, **options})  # type: ignore[arg-type]
    try:
        acts = [container.diff, container.commit, lambda: container.export(os.devnull)]
        for act in (*acts, container.snapshot) if "rw_layer" in options else acts:
            with pytest.raises(UnsupportedError, match=words):
                act()
    finally:
        container.remove(force=True)


# ---- commit ----------------------------------------------------------------------------------------------------------


def test_a_committed_image_is_what_the_container_was(engine: Engine, written: pyrtc.Container) -> None:
    image = written.commit("new:1", author="me", message="why", changes=["ENV B=2", "HEALTHCHECK CMD true"])
    shown = "cat /etc/passwd /usr/lib/a /usr/lib/c /data/y; ls /usr /usr/lib /bin/touch 2>&1 || true; ls -ld /var/log"
    text = shell(engine, "new:1", shown).stdout.decode()
    assert text.startswith("root:x:0:0::/:/bin/sh\nmore\nnew\nc\n1\n")
    assert "/usr:\nlib\n" in text and "/usr/lib:\na\nc\n" in text and "touch: No such file" in text
    assert "drwx------" in text
    x, y = (line.split() for line in shell(engine, "new:1", "ls -i /data").stdout.decode().splitlines())
    assert x[0] == y[0], "a hard link became two files"
    document = json.loads(engine.images.documents(image)[0])
    assert document["config"]["Env"][-2:] == ["A=1", "B=2"]
    assert document["config"]["Healthcheck"] == {"Test": ["CMD-SHELL", "true"]}
    assert document["config"]["Cmd"] == ["sh", "-ec", SCRIPT]  # as docker commit does
    assert document["author"] == "me"
    assert document["history"][-1]["comment"] == "why" and document["history"][-1]["author"] == "me"
    assert len(document["history"]) == 2
    assert engine.system.check(deep=True).clean


def test_the_same_files_give_the_same_image(
    engine: Engine, base: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    images = []
    for _ in range(2):
        container = engine.containers.get(shell(engine, base, SCRIPT, remove=False).id)
        images.append(container.commit())
        container.remove()
    assert images[0].id == images[1].id
    saved = engine.images.save([images[0].id], tmp_path / "a.tar", format="oci-archive")
    assert saved[0].image_id == images[0].id, "what leaves is another image than what was committed"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        engine.images.import_(tmp_path / "a.tar", "x:1")


def test_a_name_that_no_layer_can_hold(engine: Engine, base: str) -> None:
    container = engine.containers.get(shell(engine, base, "echo 1 > /.wh.x", remove=False).id)
    before = {image.id for image in engine.images.list()}
    with pytest.raises(StoreError, match=r"\.wh\."):
        container.commit("bad:1")
    assert {image.id for image in engine.images.list()} == before
    assert not os.listdir(Path(engine.store.path) / "tmp")
    container.remove()


def test_a_wrong_change_is_told_before_anything_is_done(written: pyrtc.Container) -> None:
    for change in ("RUN x", "HEALTHCHECK --often=1 CMD x", "ONBUILD FROM x", "STOPSIGNAL NO"):
        with pytest.raises(UsageError):
            written.commit(changes=[change])


def test_a_commit_of_a_commit(engine: Engine, written: pyrtc.Container) -> None:
    first = written.commit("first:1")
    container = engine.containers.get(shell(engine, "first:1", "rm /data/x; echo 2 > /data/z", remove=False).id)
    second = container.commit("second:1")
    container.remove()
    assert len(second.layers) == len(first.layers) + 1
    assert shell(engine, "second:1", "ls /data").stdout == b"y\nz\n"
    engine.images.remove("first:1")
    assert shell(engine, "second:1", "cat /data/y").stdout == b"1\n"


def test_it_is_paused_meanwhile(engine: Engine, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyrtc.image import commit

    seen: list[str] = []
    with pyrtc.Container(base, ["sleep", "1000"], engine=engine) as container:
        make = commit._make

        def watched(*arguments: object) -> object:
            seen.append(container.status)
            return make(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(commit, "_make", watched)
        try:
            container.commit()
        except UnsupportedError as error:
            assert not ROOT and "pause=False" in str(error)
            container.commit(pause=False)
            assert seen == ["running"]
            return
        assert seen == ["paused"] and container.status == "running"
        container.commit(pause=False)
        assert seen == ["paused", "running"]


def test_swapping_while_it_is_read_brings_nothing_of_the_host(engine: Engine, base: str, tmp_path: Path) -> None:
    """A directory that is swapped for a link while files are read, without a pause, is no way out of the layer."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("of the host")
    (outside / "more").write_text("of the host")
    script = (
        "mkdir /swap /swap/d; for n in 0 1 2 3 4 5 6 7 8 9; do echo inside > /swap/d/file; echo x > /swap/d/$n; done; "
        f"echo ready; while :; do busybox mv /swap/d /swap/e; ln -s {outside} /swap/d; "
        "rm /swap/d; busybox mv /swap/e /swap/d; done"
    )
    container = engine.containers.run(base, ["sh", "-c", script])
    swapped = set()
    try:
        container.wait_for(log="ready", timeout=20)
        until = time.monotonic() + 4
        while time.monotonic() < until:
            with suppress(StoreError):  # something was gone when it was to be read
                made = container.commit(pause=False)
                layer = Path(made.layers[0]) / "swap"
                found = [path for path in layer.rglob("*") if path.is_file() and not path.is_symlink()]
                swapped.update(path.name for path in layer.iterdir() if path.is_symlink() or path.name == "e")
                assert not [path for path in found if path.name == "more" or path.read_text().startswith("of the host")]
                engine.images.remove(made.id)
            with suppress(StoreError):
                container.diff()
    finally:
        container.remove(force=True)
    assert swapped, "nothing was swapped at the right moment"


def test_other_tools_read_it(engine: Engine, written: pyrtc.Container, tmp_path: Path) -> None:
    if not ROOT:
        pytest.skip("skopeo unpacks archives with their owners")
    tools = [tool for tool in ("skopeo", "umoci") if shutil.which(tool) is None]
    if tools:
        pytest.skip(f"needs {' and '.join(tools)}")
    written.commit("new:1")
    engine.images.save(["new:1"], tmp_path / "a.tar", format="oci-archive")
    engine.images.save(["new:1"], tmp_path / "d.tar")
    for source in ("oci-archive:a.tar", "docker-archive:d.tar"):
        copy = ["skopeo", "--insecure-policy", "copy", "-q", source, "oci:layout:new"]
        subprocess.run(copy, cwd=tmp_path, check=True)
        unpack = ["umoci", "unpack", "--image", "layout:new", "bundle"]
        subprocess.run(unpack, cwd=tmp_path, check=True, capture_output=True)
        root = tmp_path / "bundle/rootfs"
        assert (root / "usr/lib/a").read_text() == "new\n" and not (root / "usr/share").exists()
        assert sorted(os.listdir(root / "usr/lib")) == ["a", "c"]
        assert not (root / "bin/touch").is_symlink() and (root / "data/x").samefile(root / "data/y")
        assert stat.S_IMODE((root / "var/log").stat().st_mode) == 0o700
        assert not list(root.rglob(".wh.*"))
        subprocess.run(["chmod", "-R", "u+rwX", tmp_path / "bundle"], check=True)
        shutil.rmtree(tmp_path / "bundle")
        shutil.rmtree(tmp_path / "layout")


# ---- layers are never changed ----------------------------------------------------------------------------------------


def contents(engine: Engine) -> dict[str, object]:
    """Everything about every file of every layer but when it was read."""
    found: dict[str, object] = {}
    for place in ("layers", "snapshots"):
        for path in sorted(Path(engine.store.path, place).rglob("*")):
            about = path.lstat()
            data = path.read_bytes() if stat.S_ISREG(about.st_mode) else b""
            names = os.listxattr(path, follow_symlinks=False)
            marks = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
            owner = (about.st_mode, about.st_uid, about.st_gid, about.st_nlink, about.st_mtime_ns, about.st_ctime_ns)
            found[str(path)] = (owner, data, marks)
    return found


ATTACKS = (
    "echo x >> /etc/passwd",
    "echo x > /bin/new; chmod 777 /bin; chmod 4777 /bin/busybox",
    "ln /usr/lib/a /usr/lib/linked; echo y > /usr/lib/linked",
    "busybox mv /usr/lib /usr/lib2 || true; busybox mv /usr/lib/b /usr/lib/bb || true",
    "rm -rf /usr /etc /var",
    "busybox truncate -s 0 /usr/lib/a; busybox dd if=/dev/zero of=/usr/lib/b bs=1 count=1 conv=notrunc",
    "busybox touch -d '2001-01-01 00:00' /usr/lib/a /etc",
    "busybox chown 5 /usr/lib/a || true; busybox chattr +i /usr/lib/a || true",
    "busybox mount -o remount,rw / || true; busybox umount / || true",
)


def test_nothing_changes_a_layer(engine: Engine, written: pyrtc.Container) -> None:
    if not ROOT:
        pytest.skip("an ordinary user cannot read all of a layer to compare it")
    written.commit("middle:1")
    snapshot = written.snapshot("frozen")
    before = contents(engine)
    assert len(before) > 20
    for image in ("middle:1", snapshot):
        for attack in ATTACKS:
            for options in ({}, {"driver": "copy"} if image == "middle:1" else {"read_only": False}):
                engine.run(image, make_options(["sh", "-c", attack], **options))
        done = engine.run(image, make_options(["sh", "-c", "; ".join(ATTACKS)], remove=False, privileged=True))
        container = engine.containers.get(done.id)
        container.diff()
        container.commit("top:1")
        container.export(os.devnull)
        if image is snapshot:
            container.snapshot("above")
        container.remove()
        if image is snapshot:
            engine.snapshots.remove("above")
        engine.images.remove("top:1")
    assert contents(engine) == before
    written.remove()
    engine.snapshots.remove("frozen")


# ---- export ----------------------------------------------------------------------------------------------------------


def test_the_whole_root(engine: Engine, base: str, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host/secret").write_text("host")
    mounts = [Bind(str(tmp_path / "host"), "/srv")]
    container = engine.containers.get(shell(engine, base, f"{SCRIPT}\necho 1 > /.wh.x", remove=False, mounts=mounts).id)
    container.export(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as tar:
        names = {item.name.removeprefix("./").rstrip("/") for item in tar}
        linked = tar.getmember("data/y")
        assert linked.islnk() and linked.linkname == "data/x"
        found = tar.extractfile("usr/lib/a")
        assert found is not None and found.read() == b"new\n"
    assert {"usr/lib/c", "etc/passwd", "srv", ".wh.x", "way"} <= names
    assert not {"usr/share", "bin/touch", "srv/secret", "usr/lib/b"} & names
    container.remove()


def test_a_reader_that_goes_away(engine: Engine, written: pyrtc.Container) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        with pytest.raises((BrokenPipeError, StoreError)):
            written.export(write_end)
    finally:
        os.close(write_end)
