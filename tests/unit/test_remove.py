"""pyrtc_remove_tree: all of the tree, and nothing but the tree."""

import contextlib
import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from descriptors import descriptors, left_open

from pyrtc.core import remove_tree
from pyrtc.errors import StoreError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: other users and chattr +i")


def remove(path: Path) -> None:
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        remove_tree(parent, path.name)
    finally:
        os.close(parent)


@pytest.mark.parametrize("files", [3, 900, 3000])
def test_small_and_large_trees(tmp_path, files):
    tree = tmp_path / "tree"
    for number in range(files):
        directory = tree / str(number % 37) / str(number % 11)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"file{number}").touch()
        if number % 100 == 0:
            os.mkfifo(directory / f"fifo{number}")
    (tree / "empty").mkdir()
    before = descriptors()
    remove(tree)
    assert os.listdir(tmp_path) == []
    assert not left_open(before)


def test_links_are_removed_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    tree = tmp_path / "tree"
    (tree / "dir").mkdir(parents=True)
    (tree / "link").symlink_to(outside)
    (tree / "dir" / "link").symlink_to("../../outside/kept")
    (tree / "dir" / "up").symlink_to("..")
    remove(tree)
    (tmp_path / "name").symlink_to(outside)
    remove(tmp_path / "name")
    assert os.listdir(tmp_path) == ["outside"]
    assert os.listdir(outside) == ["kept"]


def test_a_file_and_a_missing_name(tmp_path):
    (tmp_path / "file").touch()
    remove(tmp_path / "file")
    remove(tmp_path / "file")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc"])
def test_only_one_name(tmp_path, name):
    parent = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(StoreError) as caught:
        remove_tree(parent, name)
    os.close(parent)
    assert caught.value.errno == errno.EINVAL


LOCKED = """
import os
from pyrtc.core import remove_tree
os.makedirs("tree/none/below/deeper"), os.makedirs("tree/readonly/below"), os.makedirs("tree/search")
for name in ("none/below/file", "readonly/file", "search/file"):
    open(f"tree/{name}", "w").close()
os.chmod("tree/none/below", 0), os.chmod("tree/none", 0)
os.chmod("tree/readonly", 0o500), os.chmod("tree/search", 0o100)
os.chmod("tree", 0)
remove_tree(os.open(".", os.O_RDONLY), "tree")
assert os.listdir() == [], os.listdir()
"""


def test_directories_without_rights_that_are_ours(open_path):
    identity: dict[str, object] = {}
    if os.geteuid() == 0:
        identity = {"user": 65534, "group": 65534, "extra_groups": []}
    done = subprocess.run([sys.executable, "-c", LOCKED], cwd=open_path, capture_output=True, text=True, **identity)  # type: ignore[call-overload]
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip("another user cannot import pyrtc from here")
    assert done.returncode == 0, done.stderr


@needs_root
def test_what_others_own_is_named(open_path):
    (open_path / "tree" / "dir").mkdir(parents=True)
    (open_path / "tree" / "dir" / "file").touch()
    script = "import os; from pyrtc.core import remove_tree; remove_tree(os.open('.', os.O_RDONLY), 'tree')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=open_path,
        capture_output=True,
        text=True,
        user=65534,
        group=65534,
        extra_groups=[],
    )
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip("another user cannot import pyrtc from here")
    assert "StoreError: cannot remove: dir/file: Permission denied (EACCES)" in done.stderr
    assert (open_path / "tree" / "dir" / "file").exists()


@needs_root
@pytest.mark.parametrize("protected", ["dir/file", "dir"])
def test_the_immutable_attribute_is_named(tmp_path, protected):
    (tmp_path / "tree" / "dir").mkdir(parents=True)
    (tmp_path / "tree" / "dir" / "file").touch()
    done = subprocess.run(["chattr", "+i", tmp_path / "tree" / protected], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no immutable attribute here: {done.stderr.strip()}")
    try:
        with pytest.raises(StoreError, match=r"chattr \+i.*dir/file") as caught:
            remove(tmp_path / "tree")
        assert caught.value.errno == errno.EPERM
    finally:
        subprocess.run(["chattr", "-i", tmp_path / "tree" / protected], check=True)
    remove(tmp_path / "tree")
    assert os.listdir(tmp_path) == []


def test_directories_that_turn_into_links_lead_nowhere(tmp_path):
    """Somebody exchanges directories for links to another place while they are removed."""
    kept = tmp_path / "kept"
    kept.mkdir()
    for number in range(20):
        (kept / f"kept{number}").touch()
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            for number in range(0, 40, 3):
                with contextlib.suppress(OSError):
                    (tmp_path / "tree" / str(number) / "a").rename(tmp_path / f"aside{time.monotonic_ns()}")
                    (tmp_path / "tree" / str(number) / "a").symlink_to(kept)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(30):
            for number in range(40):
                (tmp_path / "tree" / str(number)).mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError, FileNotFoundError):
                    (tmp_path / "tree" / str(number) / "a" / "b").mkdir(parents=True)
            with contextlib.suppress(StoreError):
                remove(tmp_path / "tree")
            assert len(list(kept.glob("kept*"))) == 20
    finally:
        stop.set()
        thread.join()
