"""Trees written as layers: what comes out is what untar makes the same tree of, and the same for equal trees."""

import contextlib
import hashlib
import io
import os
import socket
import stat
import struct
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest
from descriptors import descriptors, left_open
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tar_builder import END, stream

from pyrtc import core
from pyrtc.errors import StoreError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes devices and trusted.* attributes")


def tardiff(root: Path, **options) -> tuple[bytes, core.TardiffResult]:
    reader, writer = os.pipe()
    parts: list[bytes] = []

    def read() -> None:
        while part := os.read(reader, 1 << 16):
            parts.append(part)

    thread = threading.Thread(target=read)
    thread.start()
    fd = os.open(root, os.O_RDONLY)
    try:
        result = core.tardiff(fd, writer, **options)
    finally:
        os.close(fd)
        os.close(writer)
        thread.join()
        os.close(reader)
    return b"".join(parts), result


def untar(content: bytes, root: Path) -> None:
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    try:
        with stream(content) as source:
            core.untar(source, fd)
    finally:
        os.close(fd)


def snapshot(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything about a tree that a layer carries."""
    found: dict[bytes, tuple[object, ...]] = {}
    groups: dict[tuple[int, int], list[bytes]] = {}
    base = os.fsencode(root)
    for path in [base, *(os.path.join(at, name) for at, ds, fs in os.walk(base) for name in ds + fs)]:
        status = os.lstat(path)
        kind = stat.S_IFMT(status.st_mode)
        name = os.path.relpath(path, base)
        if kind == stat.S_IFCHR and status.st_rdev == 0:
            found[name] = ("whiteout",)
            continue
        attributes = {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)
            if key != "trusted.overlay.origin"
        }
        content: object = None
        if kind == stat.S_IFREG:
            content = Path(os.fsdecode(path)).read_bytes()
        elif kind == stat.S_IFLNK:
            content = os.readlink(path)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            content = status.st_rdev
        if kind != stat.S_IFDIR and status.st_nlink > 1:
            groups.setdefault((status.st_dev, status.st_ino), []).append(name)
        found[name] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, attributes, content)
    for names in groups.values():
        for name in names:
            found[name] += (tuple(sorted(names)),)
    return found


def round_trip(root: Path, other: Path) -> bytes:
    content, result = tardiff(root)
    assert result.stream_bytes == len(content)
    untar(content, other)
    assert snapshot(other) == snapshot(root)
    assert tardiff(other)[0] == content
    return content


NAMES = st.one_of(
    st.sampled_from([b"a", b"b", b"c", b"+x", b"-", b"\xff\xfe", "ä€😀".encode(), b"new\nline", b"back\\slash"]),
    st.binary(min_size=1, max_size=40).filter(
        lambda name: not {0, 47} & set(name) and name not in (b".", b"..") and not name.startswith(b".wh.")
    ),
    st.integers(95, 255).map(lambda size: b"n" * size),
)
TIMES = st.one_of(st.integers(-(10**18), 4 * 10**18), st.integers(0, 2 * 10**9).map(lambda second: second * 10**9))
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["user.a", "user.b.c", "user.overlayed", "security.capability"]), st.binary(max_size=50), max_size=2
)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
NODE = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["file", "file", "directory", "directory", "symlink", "link", "fifo", "device", "wh"]),
        "name": NAMES,
        "parent": st.integers(0, 1000),
        "mode": st.integers(0, 0o7777),
        "owner": st.sampled_from([0, 1, 1000, 2097152, 4294967294]),
        "mtime": TIMES,
        "content": st.one_of(st.binary(max_size=2000), st.sampled_from([b"", b"x" * 512, b"y" * 70000])),
        "target": st.one_of(st.just(b"../x"), st.integers(90, 300).map(lambda size: b"t" * size)),
        "attributes": ATTRIBUTES,
        "opaque": st.booleans(),
    }
)


def build(root: Path, nodes: list[dict]) -> None:
    directories = [(os.fsencode(root), False)]
    files: list[bytes] = []
    made: list[tuple[bytes, dict, bool]] = []
    for node in nodes:
        parent, opaque = directories[node["parent"] % len(directories)]
        path = os.path.join(parent, node["name"])
        kind = node["kind"]
        if os.path.lexists(path) or len(path) > 3000:
            continue
        if kind == "directory":
            os.mkdir(path)
            # Below an opaque directory there is nothing more to hide, and untar marks nothing there.
            directories.append((path, opaque or node["opaque"]))
            if node["opaque"] and not opaque:
                os.setxattr(path, "trusted.overlay.opaque", b"y")
        elif kind == "file":
            with open(path, "wb") as file:
                file.write(node["content"])
            files.append(path)
        elif kind == "symlink":
            os.symlink(node["target"], path)
            files.append(path)
        elif kind == "link":
            if files:
                os.link(files[node["mode"] % len(files)], path, follow_symlinks=False)
            continue
        elif kind == "fifo":
            os.mkfifo(path)
            files.append(path)
        elif kind == "device":
            os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(node["mode"] % 4096, node["parent"]))
        elif not opaque:
            os.mknod(path, stat.S_IFCHR, 0)
            continue
        else:
            continue
        made.append((path, node, kind in ("file", "directory")))
    for path, node, plain in reversed(made):
        os.lchown(path, node["owner"], node["owner"])
        if not os.path.islink(path):
            os.chmod(path, node["mode"])
        if plain:
            for key, value in node["attributes"].items():
                if key == "security.capability":
                    if os.path.isdir(path):
                        continue
                    value = CAPABILITY
                with contextlib.suppress(OSError):
                    os.setxattr(path, key, value)
        os.utime(path, ns=(0, node["mtime"]), follow_symlinks=False)


@given(st.lists(NODE, max_size=25))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_what_comes_out_goes_in_again(tmp_path_factory, nodes) -> None:
    base = tmp_path_factory.mktemp("tree")
    (base / "one").mkdir()
    build(base / "one", nodes)
    content = round_trip(base / "one", base / "two")
    with contextlib.suppress(UnicodeDecodeError), tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert len(archive.getnames()) == len(set(archive.getnames()))
    subprocess.run(["rm", "-rf", base], check=True)


def names_of(content: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return [entry.name + ("/" if entry.isdir() else "") for entry in archive]


def test_order(tmp_path) -> None:
    for name in ("b", "a", "B", "d"):
        (tmp_path / name).write_text(name)
    (tmp_path / "c").mkdir()
    (tmp_path / "c/z").mkdir()
    os.setxattr(tmp_path / "c", "trusted.overlay.opaque", b"y")
    os.mknod(tmp_path / "zap", stat.S_IFCHR, 0)
    content, result = tardiff(tmp_path)
    assert names_of(content) == ["./", ".wh.zap", "B", "a", "b", "c/", "c/.wh..wh..opq", "c/z/", "d"]
    assert (result.entries, result.opaque, result.whiteouts) == (9, 1, 1)


def test_nothing_of_the_host_goes_in(tmp_path) -> None:
    (tmp_path / "f").write_text("x")
    os.setxattr(tmp_path / "f", "trusted.secret", b"x")
    os.setxattr(tmp_path / "f", "user.overlay.origin", b"x")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        content, result = tardiff(tmp_path)
    assert names_of(content) == ["./", "f"]
    assert (result.skipped, result.attributes_skipped) == (1, 1)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for entry in archive:
            assert (entry.uname, entry.gname) == ("", "")
            assert not any("overlay" in key or "secret" in key for key in entry.pax_headers)


def test_a_capability_of_a_user_namespace_loses_its_owner(tmp_path) -> None:
    if os.uname().release.startswith("4."):
        pytest.skip("needs Linux 5: capabilities of version 3")
    (tmp_path / "f").write_text("x")
    os.setxattr(tmp_path / "f", "security.capability", struct.pack("<IIIIII", 0x03000001, 1024, 0, 0, 0, 1000))
    with tarfile.open(fileobj=io.BytesIO(tardiff(tmp_path)[0])) as archive:
        value = archive.getmember("f").pax_headers["SCHILY.xattr.security.capability"]
    assert value.encode("utf-8", "surrogateescape") == CAPABILITY


def test_late_times_are_clamped(tmp_path) -> None:
    for name, seconds in (("early", 10), ("late", 2_000_000_000)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (seconds, seconds))
    with tarfile.open(fileobj=io.BytesIO(tardiff(tmp_path, latest=1000)[0])) as archive:
        assert {entry.name: entry.mtime for entry in archive} == {".": 1000, "early": 10, "late": 1000}


def test_sparse_files_are_written_plain(tmp_path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"data")
    with tarfile.open(fileobj=io.BytesIO(tardiff(tmp_path)[0])) as archive:
        member = archive.getmember("sparse")
        assert not member.issparse()
        content = archive.extractfile(member).read()
    assert content == (tmp_path / "sparse").read_bytes()


def test_a_deep_tree(tmp_path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(200):
        os.mkdir("d" * 30, dir_fd=fd)
        os.close(os.open("z", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        below = os.open("d" * 30, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    content, result = tardiff(tmp_path)
    assert result.entries == 401
    target = tmp_path / "other"
    base = descriptors()
    untar(content, target)
    assert not left_open(base)


def test_what_no_layer_can_hold(tmp_path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/.wh.x").write_text("")
    with pytest.raises(StoreError, match=r'name that begins with .wh.: "d/.wh.x"'):
        tardiff(tmp_path)
    headers, _ = tardiff(tmp_path, headers_only=True)
    assert b".wh.x" in headers


def test_headers_alone_are_those_of_the_whole(tmp_path) -> None:
    """With and without attributes: files that have none are described without being opened."""
    (tmp_path / "d").mkdir()
    for name in ("plain", "closed", "d/attributed"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "closed").chmod(0)
    os.setxattr(tmp_path / "d/attributed", "user.x", b"1")
    whole, result = tardiff(tmp_path)
    headers, alone = tardiff(tmp_path, headers_only=True)
    assert headers == whole[: -len(END)]
    assert b"SCHILY.xattr.user.x=1" in headers
    assert (alone.entries, alone.bytes) == (result.entries, result.bytes)


def test_limits(tmp_path) -> None:
    (tmp_path / "f").write_bytes(bytes(2000))
    with pytest.raises(StoreError, match="more than 1 entries"):
        tardiff(tmp_path, limits=core.UntarLimits(entries=1))
    with pytest.raises(StoreError, match="more than 1999 bytes"):
        tardiff(tmp_path, limits=core.UntarLimits(bytes=1999))


def test_other_file_systems_are_not_entered(tmp_path) -> None:
    (tmp_path / "m").mkdir()
    script = 'mount -t tmpfs none "$1/m" && exec "$2" -c "$3" "$1"'
    program = (
        "import os, sys; from pyrtc import core; from pyrtc.errors import StoreError\n"
        "try: core.tardiff(os.open(sys.argv[1], os.O_RDONLY), os.open('/dev/null', os.O_WRONLY))\n"
        "except StoreError as error: print(error)"
    )
    import sys

    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", script, "-", str(tmp_path), sys.executable, program],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "a file system is mounted there" in done.stdout


def test_links_lead_nowhere(tmp_path) -> None:
    """A directory that is swapped for a link while it is read is an error, not a way out."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "d").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_text("secret")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                (root / "d").rmdir()
                (root / "d").symlink_to(outside)
                (root / "d").unlink()
                (root / "d").mkdir()

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(300):
            with contextlib.suppress(StoreError):
                assert b"secret" not in tardiff(root)[0]
    finally:
        stop.set()
        thread.join()


def test_headers_tell_trees_apart(tmp_path) -> None:
    (tmp_path / "f").write_text("one")

    def print_of() -> str:
        return hashlib.sha256(tardiff(tmp_path, headers_only=True)[0]).hexdigest()

    first = print_of()
    assert print_of() == first
    (tmp_path / "f").chmod(0o600)
    assert print_of() != first


def test_gnu_tar_reads_it(tmp_path) -> None:
    root = tmp_path / "root"
    (root / ("d" * 120)).mkdir(parents=True)
    (root / ("d" * 120) / ("f" * 200)).write_text("long")
    os.link(root / ("d" * 120) / ("f" * 200), root / "again")
    content, _ = tardiff(root)
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xf", "-", "-C", tmp_path / "out"], input=content, check=True)
    assert snapshot(tmp_path / "out") == snapshot(root)


def test_a_whiteout_of_the_longest_name(tmp_path) -> None:
    """With its prefix the marker's name is longer than any file's may be."""
    root = tmp_path / "one"
    root.mkdir()
    os.mknod(root / ("n" * 255), stat.S_IFCHR, 0)
    round_trip(root, tmp_path / "two")
