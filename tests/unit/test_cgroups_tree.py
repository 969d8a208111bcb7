"""Walking cgroup trees; ordinary directories stand in for cgroups."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from descriptors import descriptors, left_open

from pyrtc.runtime.cgroups import tree


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_children_come_before_parents(top: int, tmp_path: Path) -> None:
    for path in ("a/b/c", "a/b/d", "a/e"):
        (tmp_path / path).mkdir(parents=True)
    order = [name for _, name in tree.post_order(top, "a")]
    assert sorted(order) == ["a", "b", "c", "d", "e"]
    assert order[-1] == "a"
    assert order.index("b") > max(order.index("c"), order.index("d"))


def test_removal_is_whole_and_can_be_repeated(top: int, tmp_path: Path) -> None:
    for path in ("a/b/c", "a/b/d", "a/e"):
        (tmp_path / path).mkdir(parents=True)
    tree.remove(top, "a")
    assert os.listdir(tmp_path) == []
    tree.remove(top, "a")


def test_a_tree_deeper_than_a_path_can_say_is_removed(top: int, tmp_path: Path) -> None:
    """The depth is the container's choice: more than PATH_MAX and more than the limit of open files."""
    current = os.dup(top)
    for level in range(1500):
        name = "a" if level == 0 else "x" * 100
        os.mkdir(name, dir_fd=current)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=current)
        os.close(current)
        current = below
    os.close(current)
    before = descriptors()
    tree.remove(top, "a")
    assert os.listdir(tmp_path) == []
    assert not left_open(before)


def test_processes_of_the_whole_tree_are_listed(top: int, tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/cgroup.procs").write_text("12\n0\n")
    (tmp_path / "a/b/cgroup.procs").write_text("34\n")
    assert sorted(tree.process_ids(top, "a")) == [12, 34]
    assert tree.process_ids(top, "none") == []


def test_links_are_not_followed(top: int, tmp_path: Path) -> None:
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/link").symlink_to(tmp_path / "elsewhere")
    assert [name for _, name in tree.post_order(top, "a")] == ["a"]
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        list(tree.post_order(top, "a/link"))
