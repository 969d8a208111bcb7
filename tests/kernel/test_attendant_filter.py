"""What the attendant may ask of the kernel: its filter, in a program that asks for one thing."""

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    target = tmp_path_factory.mktemp("calls") / "calls"
    sources = [Path(__file__).with_name("attendant_calls.c"), CSRC / "attendant/filter.c", CSRC / "init/text.c"]
    command = [compiler, "-std=gnu17", "-D_GNU_SOURCE", "-O1", f"-I{CSRC}", "-o", target, *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def ended(program: Path, call: str, file: Path) -> int:
    return subprocess.run([program, call, file], capture_output=True, check=False).returncode


@pytest.mark.parametrize("call", ["open", "map", "socket", "socket-6"])
def test_permitted(program: Path, call: str, tmp_path: Path) -> None:
    assert ended(program, call, tmp_path / "none") == 0


@pytest.mark.parametrize(
    "call",
    ["open-write", "open-create", "map-execute", "socket-unix", "socket-netlink", "write", "kill", "execute", "take"],
)
def test_forbidden(program: Path, call: str, tmp_path: Path) -> None:
    assert ended(program, call, tmp_path / "none") == -signal.SIGSYS


def test_a_file_is_not_emptied_by_reading(program: Path, tmp_path: Path) -> None:
    """Linux does that for O_RDONLY with O_TRUNC."""
    file = tmp_path / "file"
    file.write_text("content")
    assert ended(program, "open-truncate", file) == -signal.SIGSYS
    assert file.read_text() == "content"
