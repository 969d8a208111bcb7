"""Owners, modes, times, extended attributes and ACLs, as root and as an ordinary user."""

import base64
import json
import os
import stat
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tar_builder import directory, file, hardlink, header, pax, stream, symlink, unpack, whiteout

from pyrtc import core
from pyrtc.errors import ImageError, PyrtcError, StoreError

AS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not AS_ROOT, reason="needs root: gives files to other owners")


def mode(path: Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def xattrs(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}


def schily(*pairs: tuple[str, bytes | str]) -> bytes:
    return pax(*((f"SCHILY.xattr.{name}", value) for name, value in pairs))


CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw, version 2, effective


# ---- modes and owners ----


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_umask_does_not_matter(tmp_path, umask):
    old = os.umask(umask)
    try:
        (tmp_path / "base").mkdir()
        os.chmod(tmp_path / "base", 0o700)
        (tmp_path / "base/r").mkdir()
        os.chmod(tmp_path / "base/r", 0o700)
        os.rmdir(tmp_path / "base/r")
        os.umask(umask & 0o077)
        unpack_with(tmp_path / "base/r", umask)
    finally:
        os.umask(old)
    root = tmp_path / "base/r"
    assert mode(root / "f") == 0o666 and mode(root / "d") == 0o777 and mode(root / "d/e/p") == 0o622
    assert mode(root / "d/e") == 0o755


def unpack_with(root: Path, umask: int) -> None:
    parts = [file("f", mode=0o666), directory("d", 0o777), header("d/e/p", type="6", mode=0o622)]
    root.mkdir(mode=0o700)
    os.rmdir(root)
    original = Path.mkdir

    def mkdir(self: Path, *args: object, **kwargs: object) -> None:
        original(self)
        os.chmod(self, 0o700)
        os.umask(umask)

    Path.mkdir = mkdir  # type: ignore[method-assign]
    try:
        unpack(root, *parts)
    finally:
        Path.mkdir = original  # type: ignore[method-assign]


@needs_root
def test_set_id_bits_survive_the_change_of_owner(tmp_path):
    unpack(
        tmp_path / "r",
        file("u", b"x" * 100, mode=0o4755, uid=1000, gid=1000),
        file("g", b"x", mode=0o2755, uid=1000, gid=1000),
        file("root", b"x", mode=0o6711),
        directory("d", 0o3775, uid=7, gid=8),
    )
    assert [mode(tmp_path / "r" / n) for n in ("u", "g", "root", "d")] == [0o4755, 0o2755, 0o6711, 0o3775]
    assert (os.stat(tmp_path / "r/d").st_uid, os.stat(tmp_path / "r/d").st_gid) == (7, 8)


@needs_root
def test_owner_of_links_is_set_on_the_link(tmp_path):
    unpack(tmp_path / "r", file("f"), symlink("l", "f", uid=11, gid=12))
    assert (os.lstat(tmp_path / "r/l").st_uid, os.lstat(tmp_path / "r/l").st_gid) == (11, 12)
    assert os.lstat(tmp_path / "r/f").st_uid == 0


def test_set_group_id_of_a_directory_is_not_handed_on(tmp_path):
    unpack(tmp_path / "r", directory("d", 0o2777), directory("d/e", 0o755), file("d/f", mode=0o644))
    assert mode(tmp_path / "r/d/e") == 0o755


def test_directory_times_are_those_recorded(tmp_path):
    unpack(tmp_path / "r", directory("d", mtime=5), directory("d/e", mtime=6), file("d/e/f"), whiteout("d/x"))
    assert (os.stat(tmp_path / "r/d").st_mtime, os.stat(tmp_path / "r/d/e").st_mtime) == (5, 6)


def test_read_only_directories_take_their_children(tmp_path):
    unpack(
        tmp_path / "r", directory("d", 0o555), file("d/x"), directory("d/e", 0), file("d/e/y"), hardlink("d/z", "d/x")
    )
    assert mode(tmp_path / "r/d") == 0o555
    assert mode(tmp_path / "r/d/e") == 0
    os.chmod(tmp_path / "r/d/e", 0o700)
    assert os.listdir(tmp_path / "r/d/e") == ["y"]


@needs_root
def test_default_acl_and_set_group_id_of_the_layers_directory_are_not_handed_on(tmp_path):
    acl = struct.pack(
        "<I" + "HHI" * 5, 2, 1, 7, 2**32 - 1, 2, 7, 1234, 4, 7, 2**32 - 1, 16, 7, 2**32 - 1, 32, 7, 2**32 - 1
    )
    os.setxattr(tmp_path, "system.posix_acl_default", acl)
    unpack(tmp_path / "r", file("d/f", mode=0o600), directory("e", 0o700))
    for name in ("", "d", "d/f", "e"):
        assert xattrs(tmp_path / "r" / name) == {}
    assert (mode(tmp_path / "r/d/f"), mode(tmp_path / "r/e")) == (0o600, 0o700)


# ---- extended attributes ----


def test_user_attributes(tmp_path):
    for name in ("f", "d"):
        make = file if name == "f" else directory
        attributes = schily(("user.a", b"\0\1\xff"), ("user.b", ""), ("user.a", "last"))
        unpack(tmp_path / name, attributes, make("x", mode=0o555))
        assert xattrs(tmp_path / name / "x") == {"user.a": b"last", "user.b": b""}
        assert mode(tmp_path / name / "x") == 0o555


def test_libarchive_attributes(tmp_path):
    value = bytes(range(256))
    for i, text in enumerate([base64.b64encode(value), base64.b64encode(value).rstrip(b"=")]):
        unpack(tmp_path / f"{i}", pax(("LIBARCHIVE.xattr.user.a%25b%c3%A9", text)), file("x"))
        assert xattrs(tmp_path / f"{i}" / "x") == {"user.a%bé": value}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user.a", "a"),
        ("user.a", "!!!!"),
        ("user.%zz", "QQ=="),
        ("user.%4", "QQ=="),
        ("user.%00a", "QQ=="),
        ("", "QQ=="),
    ],
)
def test_malformed_libarchive_attributes_are_refused(tmp_path, name, value):
    with pytest.raises(ImageError, match="extended tar header"):
        unpack(tmp_path / "r", pax((f"LIBARCHIVE.xattr.{name}", value)), file("x"))


@pytest.mark.parametrize(
    "name",
    [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "trusted.overlay.whiteout",
        "trusted.overlay.overlay.opaque",
        "user.overlay.opaque",
        "user.overlay.redirect",
        "user.fuseoverlayfs.opaque",
        "security.overlay.x",
        "security.selinux",
        "security.ima",
        "security.evm",
        "security.apparmor",
        "system.nfs4_acl",
        "nodot",
    ],
)
@pytest.mark.parametrize("carrier", ["SCHILY.xattr.", "LIBARCHIVE.xattr."])
@pytest.mark.parametrize("make", [file, directory])
@pytest.mark.parametrize("plain", [False, True])
def test_attributes_that_steer_overlayfs_or_the_host_are_left_out(tmp_path, name, carrier, make, plain):
    result = unpack(tmp_path / "r", pax((carrier + name, b"eQ")), make("x"), plain=plain)
    assert xattrs(tmp_path / "r/x") == {}
    assert result.attributes_skipped == 1


@needs_root
def test_capabilities_survive_owner_and_data(tmp_path):
    unpack(tmp_path / "r", schily(("security.capability", CAPABILITY)), file("ping", b"x" * 9, uid=5, mode=0o755))
    assert xattrs(tmp_path / "r/ping") == {"security.capability": CAPABILITY}
    assert os.stat(tmp_path / "r/ping").st_uid == 5


@needs_root
def test_other_trusted_attributes_are_kept_for_root(tmp_path):
    unpack(tmp_path / "r", schily(("trusted.mine", "1")), symlink("l", "x"))
    assert xattrs(tmp_path / "r/l") == {"trusted.mine": b"1"}


def test_attributes_that_a_link_cannot_have_are_left_out(tmp_path):
    result = unpack(
        tmp_path / "r", schily(("user.a", "1")), symlink("l", "x"), schily(("user.a", "1")), header("p", type="6")
    )
    assert result.attributes_skipped == 2
    assert xattrs(tmp_path / "r/l") == {}


def test_oversized_attribute_is_an_error(tmp_path):
    with pytest.raises(ImageError, match="set an extended attribute"):
        unpack(tmp_path / "r", schily(("user.a", b"x" * 70000)), file("f"))
    with pytest.raises(ImageError, match="set an extended attribute"):
        unpack(tmp_path / "s", schily(("user." + "n" * 300, b"x")), file("f"))


def test_zero_size_file_that_calls_itself_a_whiteout_is_a_file(tmp_path):
    unpack(
        tmp_path / "r",
        schily(("trusted.overlay.opaque", "x")), directory("d"),
        schily(("trusted.overlay.whiteout", "")), file("d/f"),
    )  # fmt: skip
    assert xattrs(tmp_path / "r/d") == xattrs(tmp_path / "r/d/f") == {}
    assert stat.S_ISREG(os.lstat(tmp_path / "r/d/f").st_mode)


# ---- ACLs ----

EXTENDED = "user::rw-,user:joe:r--:1000,user:2000:rwx,group::r--,group:root:-w-,mask::rwx,other::---"


def decode_acl(value: bytes) -> list[tuple[int, int, int]]:
    assert value[:4] == b"\2\0\0\0"
    return [struct.unpack_from("<HHI", value, at) for at in range(4, len(value), 8)]


@needs_root
@pytest.mark.parametrize("separator", [",", "\n"])
def test_text_acl_becomes_the_kernels(tmp_path, separator):
    text = EXTENDED.replace(",", separator)
    unpack(tmp_path / "r", pax(("SCHILY.acl.access", text)), file("f", mode=0o670))
    nobody = 2**32 - 1
    assert decode_acl(xattrs(tmp_path / "r/f")["system.posix_acl_access"]) == [
        (1, 6, nobody), (2, 4, 1000), (2, 7, 2000), (4, 4, nobody), (8, 2, 0), (16, 7, nobody), (32, 0, nobody),
    ]  # fmt: skip
    assert mode(tmp_path / "r/f") == 0o670


@needs_root
def test_default_acl_is_set_and_not_handed_on(tmp_path):
    acl = pax(("SCHILY.acl.default", EXTENDED), ("SCHILY.acl.access", "u::rwx,g::r-x,o:r-x"))
    unpack(tmp_path / "r", acl, directory("d", 0o755), file("d/f", mode=0o600), directory("d/e", 0o700))
    assert "system.posix_acl_default" in xattrs(tmp_path / "r/d")
    assert xattrs(tmp_path / "r/d/f") == xattrs(tmp_path / "r/d/e") == {}
    assert mode(tmp_path / "r/d") == 0o755


@needs_root
def test_recorded_mode_beats_the_acl(tmp_path):
    unpack(tmp_path / "r", pax(("SCHILY.acl.access", EXTENDED)), file("f", mode=0o640))
    assert mode(tmp_path / "r/f") == 0o640


@needs_root
def test_acl_with_names_only_is_left_out(tmp_path):
    result = unpack(
        tmp_path / "r", pax(("SCHILY.acl.access", "user::rw-,user:joe:r--,group::r--,mask::r--,other::---")), file("f")
    )
    assert result.attributes_skipped == 1
    assert xattrs(tmp_path / "r/f") == {}


@pytest.mark.parametrize(
    "text", ["user", "user::", "user::rwz", "nobody::rwx", "user:joe:rwx:x", "a:b:c:d:e", "mask:5:rwx"]
)
def test_malformed_acl_is_refused(tmp_path, text):
    with pytest.raises(ImageError, match="access control list"):
        unpack(tmp_path / "r", pax(("SCHILY.acl.access", text)), file("f"))


@needs_root
def test_acl_that_the_kernel_refuses_is_an_error(tmp_path):
    with pytest.raises(ImageError, match="EINVAL"):
        unpack(tmp_path / "r", pax(("SCHILY.acl.access", "user:5:rwx")), file("f"))


@needs_root
def test_implied_directory_inherits_the_acl_from_below(tmp_path):
    unpack(tmp_path / "low", pax(("SCHILY.acl.default", EXTENDED)), directory("d"))
    unpack(tmp_path / "r", file("d/f", mode=0o600), lowers=(tmp_path / "low",))
    assert xattrs(tmp_path / "r/d") == xattrs(tmp_path / "low/d") != {}
    assert xattrs(tmp_path / "r/d/f") == {}


# ---- an ordinary user ----

ROOTLESS = """
import json, os, sys
sys.path[:0] = json.loads(sys.argv[1])
from pathlib import Path
from tar_builder import *
root = Path(sys.argv[2])
capability = bytes.fromhex(sys.argv[3])
unpack(root / "low", directory("d", 0o700), whiteout("gone"), file("d/below", b"below"))
os.umask(0o377)
result = unpack(
    root / "r",
    directory("./", 0o555, uid=0), directory("ro", 0o555, uid=5), file("ro/x", b"1", uid=7, mode=0o4400),
    header("null", type="3", major=1, minor=3), header("sda", type="4", major=8), header("p", type="6"),
    whiteout("ro/gone"), whiteout("top"), opaque("q"), directory("none", 0), file("none/y", mode=0),
    pax(("SCHILY.xattr.security.capability", capability), ("SCHILY.xattr.user.a", "1")), file("cap", mode=0o111),
    pax(("SCHILY.acl.access", "u::rwx,u:5:r--,g::r--,m::r--,o::---")), file("acl", mode=0o740),
    symlink("l", "x", uid=9), file("d/implied"), hardlink("hard", "d/below"),
    lowers=(root / "low",), rootless=True,
)
print(json.dumps([result.skipped, result.attributes_skipped, result.entries]))
"""


@needs_root
def test_ordinary_user_unpacks_what_he_can(open_path):
    paths = json.dumps([str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-B", "-c", ROOTLESS, paths, str(open_path), CAPABILITY.hex()],
        user=65534, group=65534, extra_groups=[], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    skipped, attributes, _ = json.loads(done.stdout)
    assert (skipped, attributes) == (2, 2)
    root = open_path / "r"
    assert {os.lstat(root / n).st_uid for n in ("", "ro", "ro/x", "l", "cap", "d", "hard")} == {65534}
    assert [mode(root / n) for n in ("", "ro", "ro/x", "none", "none/y", "cap", "acl", "d")] == [
        0o555, 0o555, 0o4400, 0, 0, 0o111, 0o740, 0o700,
    ]  # fmt: skip
    assert xattrs(root / "cap") == {"user.a": b"1"}
    assert xattrs(root / "q") == {"user.overlay.opaque": b"y"}
    assert xattrs(root / "ro") == {"user.overlay.origin": b""}
    assert stat.S_ISCHR(os.lstat(root / "ro/gone").st_mode) and os.lstat(root / "top").st_rdev == 0
    assert (root / "hard").read_bytes() == b"below"
    assert not (root / "null").exists() and stat.S_ISFIFO(os.lstat(root / "p").st_mode)


# ---- several at once ----


def test_several_unpack_at_once(tmp_path):
    parts = [file(f"d{i % 7}/e/f{i}", os.urandom(2000)) for i in range(300)]
    failures = []

    def work(name: str) -> None:
        try:
            unpack(tmp_path / name, *parts, pipe=True)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(str(i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert all(sum(len(files) for _, _, files in os.walk(tmp_path / str(i))) == 300 for i in range(8))


def test_nothing_stays_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    unpack(tmp_path / "low", file("a/b/c"))
    unpack(tmp_path / "r", *(file(f"d{i}/x") for i in range(30)), hardlink("h", "a/b/c"), lowers=(tmp_path / "low",))
    with pytest.raises(ImageError):
        unpack(tmp_path / "s", file("d/x"), header("y", type="a"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_target_that_cannot_take_the_layer_is_not_the_images_fault(tmp_path):
    with stream(file("x")) as source, open(tmp_path / "file", "wb") as target:
        os.chmod(tmp_path / "file", 0o640)
        with pytest.raises(PyrtcError, match="ENOTDIR"):
            core.untar(source, target.fileno())
        assert mode(tmp_path / "file") == 0o640
    (tmp_path / "r").mkdir()
    fd = os.open(tmp_path / "r", os.O_RDONLY)
    with pytest.raises(StoreError, match="EBADF"):
        core.untar(999999, fd)
    os.close(fd)
