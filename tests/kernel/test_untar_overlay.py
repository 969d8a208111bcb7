"""What the kernel's overlayfs shows of layers that were unpacked: the merged tree is that of the image."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from tar_builder import directory, file, hardlink, opaque, symlink, unpack, whiteout

from pyrtc import core
from pyrtc.errors import UnsupportedError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts an overlay")


class Merged:
    """A detached overlay mount of layers: nothing is attached to the file system, closing it ends it."""

    def __init__(self, tmp_path: Path, *layers: tuple[bytes, ...]) -> None:
        stack: tuple[Path, ...] = ()
        for i, parts in enumerate(layers):
            path = tmp_path / f"layer{i}"
            unpack(path, *parts, lowers=stack)
            stack = (path, *stack)
        for name in ("upper", "work"):
            (tmp_path / name).mkdir()
        self.fds = [os.open(path, os.O_RDONLY) for path in (*stack, tmp_path / "upper", tmp_path / "work")]
        try:
            self.mount = core.mount_overlay(self.fds[:-2], self.fds[-2], self.fds[-1])
        except UnsupportedError as error:
            pytest.skip(f"no overlay on {tmp_path}: {error}")

    def __enter__(self) -> "Merged":
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self.mount, *self.fds):
            os.close(fd)

    def tree(self) -> dict[str, str]:
        """Describe the merged tree: name -> contents, target, or mode of a directory."""
        found = {}
        for top, directories, files, fd in os.fwalk(".", dir_fd=self.mount):
            for name in directories + files:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                path = os.path.normpath(f"{top}/{name}")
                if stat.S_ISDIR(status.st_mode):
                    found[path] = f"{stat.S_IMODE(status.st_mode):o}"
                elif stat.S_ISLNK(status.st_mode):
                    found[path] = "-> " + os.readlink(name, dir_fd=fd)
                elif stat.S_ISREG(status.st_mode):
                    with open(os.open(name, os.O_RDONLY, dir_fd=fd), "rb") as opened:
                        found[path] = opened.read().decode()
                else:
                    found[path] = f"special {status.st_mode:o}"
        return found


def test_whiteouts_hide(tmp_path):
    base = (
        directory("d", 0o711),
        file("d/a", b"a"),
        file("d/b", b"b"),
        file("top", b"t"),
        directory("e"),
        file("e/x", b"x"),
    )
    with Merged(tmp_path, base, (whiteout("d/a"), whiteout("top"), whiteout("e"))) as merged:
        assert merged.tree() == {"d": "711", "d/b": "b"}


def test_opaque_directory_hides(tmp_path):
    base = (directory("d", 0o711), file("d/a", b"a"), directory("d/s"), file("d/s/x", b"x"))
    with Merged(tmp_path, base, (file("d/new", b"n"), opaque("d"), whiteout("d/a"))) as merged:
        assert merged.tree() == {"d": "711", "d/new": "n"}


def test_directory_that_was_removed_and_made_again(tmp_path):
    base = (directory("d"), file("d/a", b"a"))
    for i, parts in enumerate(
        [
            (whiteout("d"), directory("d", 0o700), file("d/b", b"b")),
            (directory("d", 0o700), file("d/b", b"b"), whiteout("d")),
        ]
    ):
        (tmp_path / str(i)).mkdir()
        with Merged(tmp_path / str(i), base, parts) as merged:
            assert merged.tree() == {"d": "700", "d/b": "b"}


def test_whiteouts_of_what_never_was_are_not_seen(tmp_path):
    with Merged(tmp_path, (file("x", b"x"),), (directory("only"), whiteout("only/ghost"), whiteout("ghost"))) as merged:
        assert merged.tree() == {"x": "x", "only": "755"}


def test_whiteouts_in_the_lowest_layer_are_not_seen(tmp_path):
    with Merged(tmp_path, (directory("d"), whiteout("d/ghost"), whiteout("ghost"), file("x", b"x"))) as merged:
        assert merged.tree() == {"d": "755", "x": "x"}


def test_implied_parents_keep_their_looks(tmp_path):
    with Merged(
        tmp_path, (directory("tmp", 0o1777), directory("root", 0o700)), (file("tmp/a", b"a"), file("root/b", b"b"))
    ) as merged:
        assert merged.tree() == {"tmp": "1777", "tmp/a": "a", "root": "700", "root/b": "b"}


def test_merged_usr(tmp_path):
    base = (directory("usr"), directory("usr/lib"), file("usr/lib/old", b"o"), symlink("lib", "usr/lib"))
    with Merged(tmp_path, base, (file("lib/new", b"n"), whiteout("lib/old"))) as merged:
        assert merged.tree() == {"usr": "755", "usr/lib": "755", "usr/lib/new": "n", "lib": "-> usr/lib"}


def test_types_change_between_layers(tmp_path):
    base = (directory("a"), file("a/x", b"x"), file("b", b"b"), symlink("c", "a"))
    with Merged(tmp_path, base, (file("a", b"file"), directory("b"), file("b/y", b"y"), directory("c"))) as merged:
        assert merged.tree() == {"a": "file", "b": "755", "b/y": "y", "c": "755"}


def test_hard_link_into_a_lower_layer(tmp_path):
    with Merged(tmp_path, (directory("d"), file("d/a", b"a")), (hardlink("h", "d/a"),)) as merged:
        assert merged.tree() == {"d": "755", "d/a": "a", "h": "a"}
        assert os.stat("h", dir_fd=merged.mount).st_ino == os.stat("d/a", dir_fd=merged.mount).st_ino


ROOTLESS = """
import os, sys
sys.path[:0] = sys.argv[2:4]
from pathlib import Path
from tar_builder import *
base = Path(sys.argv[1])
unpack(base / "low", directory("d", 0o711), file("d/a", b"a"), directory("e"), file("e/x"), rootless=True)
unpack(base / "top", directory("d"), whiteout("d/a"), opaque("e"), whiteout("only/ghost"), rootless=True,
       lowers=(base / "low",))
os.mkdir(base / "upper"), os.mkdir(base / "work"), os.mkdir(base / "merged")
"""


def test_ordinary_user_sees_the_same_with_userxattr(open_path):
    """In a user namespace of his own, an ordinary user mounts what he unpacked."""
    os.chown(open_path, 65534, 65534)
    as_nobody = {"user": 65534, "group": 65534, "extra_groups": [], "capture_output": True, "text": True}
    here = [str(Path(__file__).parents[1] / "unit"), str(Path(__file__).parents[2])]
    done = subprocess.run([sys.executable, "-B", "-c", ROOTLESS, str(open_path), *here], **as_nobody)
    assert done.returncode == 0, done.stderr
    script = (
        "mount -t overlay -o userxattr,lowerdir=top:low,upperdir=upper,workdir=work overlay merged"
        " && cd merged && find . | sort"
    )
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", script], cwd=open_path, **as_nobody)
    if "permission denied" in done.stderr.lower() or "not permitted" in done.stderr.lower():
        pytest.skip(f"no unprivileged overlay here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [".", "./d", "./e", "./only"]
