"""The place that benchmarks run in: a file system, processes and mounts that end with it, however it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import needs_root

pytestmark = needs_root  # to mount a file system

ROOT = Path(__file__).parents[2]
# argv: the directory of the file system's file, and what the program does last.
PROGRAM = """
import pathlib, subprocess, sys, time
from benchmarks import enclosure
from benchmarks.disk import journaled_ext4

enclosure.enter(processes=True)
with journaled_ext4(pathlib.Path(sys.argv[1]), 64 << 20) as disk:
    child = subprocess.Popen(["sleep", sys.argv[3]], start_new_session=True, cwd=disk)
    print(child.pid, flush=True)
    if sys.argv[2] == "end":
        child.kill()
        child.wait()
        sys.exit(7)
    time.sleep(60)
"""


def started(tmp_path: Path, what: str) -> "subprocess.Popen[str]":
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    # Seconds that nobody else sleeps for: its processes are known by them.
    words = [sys.executable, str(script), str(tmp_path), what, mark(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdigit()
    return process


def mark(tmp_path: Path) -> str:
    return f"3600.{abs(hash(str(tmp_path))) % 10**9:09d}"


def sleepers(tmp_path: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().split(b"\0")[:2] == [b"sleep", mark(tmp_path).encode()]:
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def loop_devices(tmp_path: Path) -> list[str]:
    """Files of deleted name below a directory that loop devices lie on."""
    done = subprocess.run(["losetup", "--list", "--noheadings", "-O", "BACK-FILE"], capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if str(tmp_path) in line]


def soon(is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_of_one_that_was_killed(tmp_path: Path, number: signal.Signals) -> None:
    process = started(tmp_path, "stay")
    assert soon(lambda: len(sleepers(tmp_path)) == 1)
    assert loop_devices(tmp_path)
    process.send_signal(number)
    process.communicate()
    assert process.returncode in (-number, 128 + number)
    assert soon(lambda: not sleepers(tmp_path))
    assert soon(lambda: not loop_devices(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["program.py"]


def test_it_ends_as_the_program_does(tmp_path: Path) -> None:
    process = started(tmp_path, "end")
    process.communicate()
    assert process.returncode == 7
    assert soon(lambda: not loop_devices(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["program.py"]
