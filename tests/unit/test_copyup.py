"""pyrtc_copy_tree: everything a tree is comes along, and nothing else."""

import ctypes
import errno
import os
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from descriptors import descriptors, left_open

from pyrtc.core import CopyResult, copy_tree
from pyrtc.errors import StoreError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners, devices and trusted.* attributes")

NOBODY = 65534
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep, revision 2


def acl(*entries: tuple[int, int, int]) -> bytes:
    """The kernel's form of a POSIX ACL: entries of tag, permissions, id."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NONE = 0xFFFFFFFF
ACCESS = acl((0x01, 6, NONE), (0x02, 7, 1234), (0x04, 4, NONE), (0x10, 7, NONE), (0x20, 0, NONE))
DEFAULT = acl((0x01, 7, NONE), (0x02, 5, 4321), (0x04, 5, NONE), (0x10, 5, NONE), (0x20, 5, NONE))


def clone(source: Path, target: Path, **options: bool) -> CopyResult:
    target.mkdir(exist_ok=True)
    source_fd, target_fd = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target))
    try:
        return copy_tree(source_fd, target_fd, **options)
    finally:
        os.close(source_fd)
        os.close(target_fd)


def describe(path: Path) -> tuple[object, ...]:
    """All that two copies of a file must have in common."""
    status = path.lstat()
    xattrs = {
        name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
    }
    content: object = None
    if path.is_symlink():
        content = os.readlink(path)
    elif path.is_file():
        content = path.read_bytes()
    mtime = status.st_mtime_ns
    return status.st_mode, status.st_uid, status.st_gid, status.st_rdev, mtime, xattrs, content


def describe_tree(root: Path) -> dict[str, tuple[object, ...]]:
    return {str(path.relative_to(root)): describe(path) for path in [root, *root.rglob("*")]}


def supports_xattr(path: Path, name: str) -> bool:
    try:
        os.setxattr(path, name, b"1")
    except OSError:
        return False
    os.removexattr(path, name)
    return True


def make_tree(root: Path) -> None:
    """A tree with something of everything that an ordinary user can make."""
    (root / "dir" / "sub").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "file").write_bytes(b"content\n")
    (root / "none").touch()
    (root / "large").write_bytes(os.urandom(300_000) * 3)
    (root / "dir" / "setuid").write_bytes(b"#!")
    (root / "dir" / "setuid").chmod(0o4755)
    (root / "dir" / "readonly").write_bytes(b"r")
    (root / "dir" / "readonly").chmod(0o444)
    (root / "dir" / "all").touch()
    (root / "dir" / "all").chmod(0o777)
    (root / "dir" / "link").symlink_to("../file")
    (root / "dir" / "dangling").symlink_to("/nowhere/\udcff")
    os.link(root / "file", root / "dir" / "sub" / "hardlink")
    os.link(root / "file", root / "dir" / "sub" / "hardlink2")
    os.mkfifo(root / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "socket"))
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe name")).write_bytes(b"not UTF-8")
    (root / "dir" / "sub").chmod(0o2555)
    (root / "empty").chmod(0o1777)
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(
            path, ns=(1_000_000_000_123_456_789 + number, 1_234_567_890_987_654_321 + number), follow_symlinks=False
        )
    root.chmod(0o751)
    os.utime(root, ns=(17, 1_500_000_000_000_000_001))


def test_everything_an_ordinary_file_has(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    make_tree(source)
    before = describe_tree(source)
    result = clone(source, target)
    assert describe_tree(target) == before
    assert describe_tree(source) == before
    assert result.entries == len(before) - 1
    assert (target / "file").stat().st_nlink == 3
    assert (target / "file").samefile(target / "dir" / "sub" / "hardlink")
    assert (target / "file").stat().st_ino != (source / "file").stat().st_ino


def test_access_times_come_along_and_the_source_keeps_its_own(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "dir").mkdir(parents=True)
    (source / "dir" / "file").write_bytes(b"x")
    for path in (source / "dir" / "file", source / "dir"):
        os.utime(path, ns=(5, 10**18 + 7))
    clone(source, target)
    for path in ("dir/file", "dir"):
        # Looking at a directory's times does not touch them; reading it would.
        assert (source / path).stat().st_atime_ns == 5
        assert (target / path).stat().st_atime_ns == 5


@needs_root
def test_owners_devices_and_privileged_attributes(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "dir").mkdir(parents=True)
    if not supports_xattr(source, "trusted.test"):
        pytest.skip("the file system of the temporary directory has no trusted.* attributes")
    make_tree(source / "dir")
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(source / "disk", stat.S_IFBLK | 0o660, os.makedev(7, 99))
    os.link(source / "null", source / "dir" / "null too")
    (source / "capable").write_bytes(b"\x7fELF")
    (source / "privileged").write_bytes(b"\x7fELF")
    (source / "acl").write_bytes(b"acl")
    os.symlink("target", source / "symlink")
    for path in (
        source,
        source / "dir",
        source / "capable",
        source / "privileged",
        source / "symlink",
        source / "null",
    ):
        os.chown(path, 1000, 2000, follow_symlinks=False)
    (source / "privileged").chmod(0o6711)
    os.setxattr(source / "capable", "security.capability", CAPABILITY)
    os.setxattr(source / "capable", "trusted.note", b"\x00\x01")
    os.setxattr(source / "symlink", "trusted.note", b"on a link", follow_symlinks=False)
    os.setxattr(source / "null", "trusted.note", b"on a device")
    os.setxattr(source / "dir", "trusted.note", b"on a directory")
    try:
        os.setxattr(source / "acl", "system.posix_acl_access", ACCESS)
        os.setxattr(source / "dir", "system.posix_acl_default", DEFAULT)
        os.setxattr(source, "system.posix_acl_default", DEFAULT)
    except OSError as error:
        pytest.skip(f"the file system of the temporary directory has no ACLs: {error}")
    clone(source, target)
    assert describe_tree(target) == describe_tree(source)
    assert (target / "null").stat().st_nlink == 2
    assert os.getxattr(target / "capable", "security.capability") == CAPABILITY
    assert stat.S_IMODE((target / "privileged").stat().st_mode) == 0o6711


@needs_root
def test_overlay_marks_and_labels_of_the_place_stay_behind(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "dir").mkdir(parents=True)
    (source / "file").touch()
    if not supports_xattr(source, "trusted.test"):
        pytest.skip("the file system of the temporary directory has no trusted.* attributes")
    os.setxattr(source / "dir", "trusted.overlay.opaque", b"y")
    os.setxattr(source / "dir", "trusted.overlayer", b"kept")
    os.setxattr(source / "file", "trusted.overlay.redirect", b"/etc")
    os.setxattr(source / "file", "trusted.overlay.metacopy", b"")
    user = supports_xattr(source / "file", "user.test")
    if user:
        os.setxattr(source / "dir", "user.overlay.opaque", b"y")
        os.setxattr(source / "dir", "user.kept", b"1")
    clone(source, target)
    assert sorted(os.listxattr(target / "dir")) == ["trusted.overlayer", *(["user.kept"] if user else [])]
    assert os.listxattr(target / "file") == []


def test_whiteouts_of_a_layer_stay_behind(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "dir").mkdir(parents=True)
    (source / "dir" / "file").touch()
    try:
        os.mknod(source / "dir" / "gone", stat.S_IFCHR | 0o600, 0)
    except PermissionError:
        pytest.skip("this kernel (before 5.8) lets only root make a whiteout")
    clone(source, target)
    assert os.listdir(target / "dir") == ["file"]


def test_holes_stay_holes(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        for offset in (1 << 20, 9 << 20, (40 << 20) + 5):
            file.seek(offset)
            file.write(os.urandom(400_000))
        file.truncate(1 << 26)
    with (source / "hollow").open("wb") as file:
        file.truncate(1 << 40)
    if (source / "hollow").stat().st_blocks or (source / "sparse").stat().st_blocks * 512 > 8 << 20:
        pytest.skip("the file system of the temporary directory keeps no holes")
    result = clone(source, target)
    assert (target / "hollow").stat().st_size == 1 << 40
    assert (target / "hollow").stat().st_blocks == 0
    assert (target / "sparse").stat().st_size == 1 << 26
    assert (target / "sparse").stat().st_blocks <= (source / "sparse").stat().st_blocks + 64
    assert result.reflinked or 1_200_000 <= result.bytes < 4 << 20
    subprocess.run(["cmp", source / "sparse", target / "sparse"], check=True)


def test_wide_directories_are_copied_by_several_threads_alike(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    for directory in range(4):
        (source / str(directory)).mkdir(parents=True)
        for number in range(700):
            (source / str(directory) / f"file{number}").write_bytes(b"%d" % number)
        for number in range(0, 700, 3):
            os.link(source / str(directory) / f"file{number}", source / f"link{directory}.{number}")
    before, threads = descriptors(), len(os.listdir("/proc/self/task"))
    result = clone(source, target)
    assert result.entries == 4 + 4 * 700 + 4 * 234
    assert describe_tree(target) == describe_tree(source)
    for directory in range(4):
        for number in range(0, 700, 3):
            assert (target / str(directory) / f"file{number}").samefile(target / f"link{directory}.{number}")
    assert not left_open(before)
    # A thread that was joined stays listed for a moment.
    deadline = time.monotonic() + 5
    while len(os.listdir("/proc/self/task")) > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/task")) <= threads


def test_many_copies_of_one_descriptor_at_once(tmp_path):
    source = tmp_path / "source"
    for directory in range(20):
        (source / str(directory)).mkdir(parents=True)
        for number in range(30):
            (source / str(directory) / str(number)).write_bytes(b"%d" % number)
    source_fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    results: list[CopyResult] = []

    def run(number: int) -> None:
        (tmp_path / f"target{number}").mkdir()
        target_fd = os.open(tmp_path / f"target{number}", os.O_RDONLY | os.O_DIRECTORY)
        results.append(copy_tree(source_fd, target_fd))
        os.close(target_fd)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(source_fd)
    assert [result.entries for result in results] == [20 + 20 * 30] * 8
    for number in range(8):
        assert describe_tree(tmp_path / f"target{number}") == describe_tree(source)


DEEP = """
import os, resource, sys
from pyrtc.core import copy_tree, remove_tree
depth = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
os.mkdir("source"), os.mkdir("target")
fd = os.open("source", os.O_RDONLY)
for level in range(depth):
    os.mkdir("d" * 20, 0o755, dir_fd=fd)
    for name in ("a", "z"):
        os.mkdir(name, dir_fd=fd)
    with open(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd), "w") as file:
        file.write(str(level))
    below = os.open("d" * 20, os.O_RDONLY, dir_fd=fd)
    os.utime(fd, ns=(level, 10**18 + level))
    os.close(fd)
    fd = below
os.link("source/f", "hardlink", dst_dir_fd=fd)
with open(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=fd), "w") as file:
    file.write("x")
os.link("bottom", "source/zbottom", src_dir_fd=fd)
os.close(fd)
os.utime("source", ns=(0, 10**18))
source, target = os.open("source", os.O_RDONLY), os.open("target", os.O_RDONLY)
result = copy_tree(source, target)
assert result.entries == depth * 4 + 3, result
fd = os.open("target", os.O_RDONLY)
for level in range(depth):
    assert os.fstat(fd).st_mtime_ns == 10**18 + level, level
    assert sorted(os.listdir(fd))[:2] == ["a", "d" * 20], os.listdir(fd)
    below = os.open("d" * 20, os.O_RDONLY, dir_fd=fd)
    os.close(fd)
    fd = below
assert os.stat("hardlink", dir_fd=fd).st_ino == os.stat("target/f").st_ino
assert os.stat("bottom", dir_fd=fd).st_ino == os.stat("target/zbottom").st_ino
os.close(fd)
here = os.open(".", os.O_RDONLY)
remove_tree(here, "source")
remove_tree(here, "target")
assert os.listdir() == []
"""


@pytest.mark.parametrize("depth", [9, 5000])
def test_depth_costs_neither_descriptors_nor_stack(tmp_path, depth):
    subprocess.run([sys.executable, "-c", DEEP, str(depth)], cwd=tmp_path, check=True)


def test_umask_and_inherited_acls_change_nothing(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    make_tree(source)
    try:
        os.setxattr(target, "system.posix_acl_default", DEFAULT)
    except OSError as error:
        pytest.skip(f"the file system of the temporary directory has no ACLs: {error}")
    target.chmod(0o2777)
    script = (
        "import os, sys; from pyrtc.core import copy_tree; os.umask(0o077);"
        "copy_tree(*(os.open(path, os.O_RDONLY) for path in sys.argv[1:])); sys.exit(os.umask(0) != 0o077)"
    )
    subprocess.run([sys.executable, "-c", script, source, target], check=True)
    assert describe_tree(target) == describe_tree(source)


def as_nobody(script: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
    )


def open_to_all(path: Path) -> None:
    """Let another user reach the temporary directory, or skip."""
    for parent in [path, *path.parents]:
        if parent == Path("/tmp") or parent.stat().st_mode & 0o001:
            continue
        if parent.stat().st_uid != os.geteuid():
            pytest.skip(f"{parent} is closed to other users")
        parent.chmod(parent.stat().st_mode | 0o011)


@needs_root
def test_an_ordinary_user_keeps_the_owner_out_of_it(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    make_tree(source)
    os.setxattr(source / "none", "security.capability", CAPABILITY)
    source.chmod(0o755)
    os.chown(target, NOBODY, NOBODY)
    open_to_all(tmp_path)
    script = (
        "import os, sys; from pyrtc.core import copy_tree;"
        "copy_tree(*(os.open(path, os.O_RDONLY) for path in sys.argv[1:]), keep_owner=False)"
    )
    done = as_nobody(script, source, target)
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip("another user cannot import pyrtc from here")
    assert done.returncode == 0, done.stderr
    copied = (target / "dir" / "readonly").stat()
    assert (copied.st_uid, stat.S_IMODE(copied.st_mode)) == (NOBODY, 0o444)
    # Root's set-user-id program is not turned into one of this user.
    assert stat.S_IMODE((target / "dir" / "setuid").stat().st_mode) == 0o755
    assert os.listxattr(target / "none") == []
    assert (target / "file").stat().st_nlink == 3
    assert (target / "dir").stat().st_mtime_ns == (source / "dir").stat().st_mtime_ns
    done = as_nobody(script.replace(", keep_owner=False", ""), source, target / "empty")
    assert "StoreError" in done.stderr and "(EPERM)" in done.stderr


MOUNTED = """
import os, subprocess, sys
from pyrtc.core import copy_tree, remove_tree
from pyrtc.errors import StoreError
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "source/dir"], check=True)
subprocess.run(["mount", "--bind", "/dev/null", "source/file"], check=True)
open("source/dir/inside", "w").close()
source, target, here = (os.open(path, os.O_RDONLY) for path in ("source", "target", "."))
print(copy_tree(source, target).entries)
try:
    remove_tree(here, "source")
except StoreError as error:
    print(error)
print(os.listdir("source/dir"))
"""


@needs_root
def test_other_mounts_are_not_entered(tmp_path):
    for name in ("source/dir", "target"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("file", "other", "dir/below"):
        (tmp_path / "source" / name).touch()
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", MOUNTED], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    output = done.stdout.splitlines()
    assert sorted(os.listdir(tmp_path / "target")) == ["dir", "other"]
    assert os.listdir(tmp_path / "target" / "dir") == []
    assert "mounted" in output[1] and "EBUSY" in output[1]
    assert output[2] == "['inside']"
    assert (tmp_path / "source" / "dir" / "below").exists()


OVERLAY = """
import os, subprocess, sys
from pyrtc.core import copy_tree
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "rw"], check=True)
os.makedirs("rw/upper"), os.makedirs("rw/work")
options = "lowerdir=lower,upperdir=rw/upper,workdir=rw/work,redirect_dir=on"
subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, "merged"], check=True)
os.unlink("merged/gone")
open("merged/dir/new", "w").write("new")
os.chmod("merged/file", 0o600)
os.rename("merged/old", "merged/renamed")
copy_tree(*(os.open(path, os.O_RDONLY) for path in ("merged", "target")))
"""


@needs_root
def test_an_overlay_mount_is_copied_as_it_looks(tmp_path):
    for name in ("lower/dir", "lower/old/sub", "rw", "merged", "target"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("file", "gone", "dir/below", "old/sub/one"):
        (tmp_path / "lower" / name).write_text(name)
    os.link(tmp_path / "lower" / "file", tmp_path / "lower" / "dir" / "link")
    os.mkfifo(tmp_path / "lower" / "fifo")
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", OVERLAY], cwd=tmp_path, capture_output=True, text=True
    )
    if "mount: " in done.stderr:
        pytest.skip(f"no overlay mount here: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    found = sorted(str(path.relative_to(tmp_path / "target")) for path in (tmp_path / "target").rglob("*"))
    assert found == [
        "dir",
        "dir/below",
        "dir/link",
        "dir/new",
        "fifo",
        "file",
        "renamed",
        "renamed/sub",
        "renamed/sub/one",
    ]
    assert (tmp_path / "target" / "renamed" / "sub" / "one").read_text() == "old/sub/one"
    assert all(not name.startswith("trusted.overlay") for name in os.listxattr(tmp_path / "target" / "renamed"))


@needs_root
def test_unreadable_things_are_named(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "dir").mkdir(parents=True)
    target.mkdir()
    (source / "dir" / "secret").touch(0o600)
    os.chown(target, NOBODY, NOBODY)
    open_to_all(tmp_path)
    script = (
        "import os, sys; from pyrtc.core import copy_tree;"
        "copy_tree(*(os.open(path, os.O_RDONLY) for path in sys.argv[1:]), keep_owner=False)"
    )
    done = as_nobody(script, source, target)
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip("another user cannot import pyrtc from here")
    assert "cannot open the file: dir/secret: Permission denied (EACCES)" in done.stderr


def test_names_that_are_taken_are_an_error_and_leak_nothing(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    for number in range(300):
        (source / str(number)).mkdir(parents=True)
        (source / str(number) / "file").touch()
    (source / "taken").symlink_to("source")
    target.mkdir()
    (target / "taken").symlink_to(tmp_path / "elsewhere")
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StoreError, match=r"taken: File exists \(EEXIST\)") as caught:
        clone(source, target)
    assert caught.value.errno == errno.EEXIST
    assert not (tmp_path / "elsewhere").exists()
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_a_tree_cannot_be_copied_into_itself(tmp_path):
    (tmp_path / "source" / "target").mkdir(parents=True)
    with pytest.raises(StoreError, match="into itself"):
        clone(tmp_path / "source", tmp_path / "source" / "target")


def test_not_a_directory(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "target").mkdir()
    with (tmp_path / "file").open() as file:
        target_fd = os.open(tmp_path / "target", os.O_RDONLY)
        with pytest.raises(StoreError, match="ENOTDIR"):
            copy_tree(file.fileno(), target_fd)
        os.close(target_fd)


def test_directories_that_turn_into_links_lead_nowhere(tmp_path):
    """Somebody exchanges directories of the source for links to another place while they are copied."""
    secret = tmp_path / "secret"
    secret.mkdir()
    for number in range(20):
        (secret / f"secret{number}").write_text("secret")
    source = tmp_path / "source"
    pairs = []
    for number in range(40):
        (source / str(number) / "a" / "b").mkdir(parents=True)
        (source / str(number) / "a" / "b" / "file").touch()
        link = tmp_path / f"link{number}"
        link.symlink_to(secret)
        pairs.append((os.fsencode(source / str(number) / "a"), os.fsencode(link)))
    renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    stop = threading.Event()
    exchanged = 0

    def exchange() -> None:
        nonlocal exchanged
        while not stop.is_set():
            for one, other in pairs[::3]:
                assert renameat2(-100, one, -100, other, 2) == 0  # AT_FDCWD, RENAME_EXCHANGE: each name is always there
                exchanged += 1

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        attempt = 0
        while (attempt < 60 or exchanged < 1000) and time.monotonic() < deadline:
            target = tmp_path / f"target{attempt}"
            attempt += 1
            try:
                clone(source, target)
            except StoreError as error:
                assert error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ESTALE, errno.EEXIST), error
            assert {path.name for path in target.rglob("secret*")} == set()
    finally:
        stop.set()
        thread.join()
    assert exchanged
