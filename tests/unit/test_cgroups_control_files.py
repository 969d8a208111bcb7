"""Reading and writing control files."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrtc.runtime.cgroups.control_files import as_int, keyed, read, write


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_a_missing_file_reads_as_none(directory: int) -> None:
    assert read(directory, "memory.max") is None


def test_a_long_file_is_read_whole(directory: int, tmp_path: Path) -> None:
    text = "".join(f"{number}\n" for number in range(50_000))
    (tmp_path / "cgroup.procs").write_text(text)
    assert read(directory, "cgroup.procs") == text


def test_writing_creates_nothing(directory: int, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write(directory, "pids.max", "1")
    (tmp_path / "pids.max").touch()
    write(directory, "pids.max", "17")
    assert read(directory, "pids.max") == "17"


def test_keyed_lines() -> None:
    assert keyed("a 1\nb 22\nbroken\nc x\nd -1\n") == {"a": 1, "b": 22}
    assert keyed(None) == {}


@pytest.mark.parametrize(
    ("text", "number"), [("17\n", 17), ("max\n", None), ("-1\n", None), (None, None), ("", None), ("x", None)]
)
def test_one_number(text: str | None, number: int | None) -> None:
    assert as_int(text) == number
