"""Tests for pyrtc.store.placement."""

import fcntl
import os
from pathlib import Path

import pytest

from pyrtc.image.install import make_tree
from pyrtc.store.placement import new_name, spread_over_disk

TOP_OF_HIERARCHIES = 0x00020000
GET_FLAGS = 0x80086601


def flags_of(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY)
    try:
        return int.from_bytes(fcntl.ioctl(fd, GET_FLAGS, bytes(8))[:4], "little")
    finally:
        os.close(fd)


def file_system_of(path: Path) -> str:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    inside = [(len(words[1]), words[2]) for words in mounts if path.resolve().is_relative_to(words[1])]
    return max(inside)[1]


def test_trees_begin_where_there_is_room(tmp_path: Path) -> None:
    if file_system_of(tmp_path) != "ext4":
        pytest.skip("no ext4")
    fd = os.open(tmp_path, os.O_RDONLY)
    before = flags_of(tmp_path)
    os.close(make_tree(fd, "layer"))
    assert flags_of(tmp_path) == before | TOP_OF_HIERARCHIES
    os.close(make_tree(fd, "another"))
    os.close(fd)
    assert not flags_of(tmp_path / "layer") & TOP_OF_HIERARCHIES, "files stay with their directories"


def test_other_file_systems_are_left_as_they_are() -> None:
    fd = os.open("/proc/self", os.O_RDONLY)
    spread_over_disk(fd)
    os.close(fd)


def test_names_are_new_each_time() -> None:
    names = {new_name("3") for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith("3-") for name in names)
