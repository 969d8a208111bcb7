"""The keeper of a program that serves a container: what the program gets, and that it ends with what it serves."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyrtc import core
from pyrtc.core.keeper import Kept, keep
from pyrtc.runtime.helper import helper_fd

PATIENCE = 30.0  # seconds for what takes milliseconds on a machine that is not busy


class Served:
    """A process that stands for a container, and what a keeper was started for it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["sleep", "1000000"])
        self.pidfd = os.pidfd_open(self.process.pid)
        self.kept: Kept | None = None

    def keep(self, script: str, *arguments: str, ready_number: int = 1, held: tuple[int, ...] = ()) -> Kept:
        words = ["/bin/sh", "-c", script, "sh", *arguments]
        self.kept = keep(helper_fd(), self.pidfd, words, ["PATH=/usr/bin:/bin"], ready_number=ready_number, held=held)
        return self.kept

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.end()
        os.close(self.pidfd)
        if self.kept is not None:
            for fd in (self.kept.control_fd, self.kept.ready_fd, self.kept.error_fd):
                with contextlib.suppress(OSError):
                    os.close(fd)


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.close()


def is_readable(fd: int, patience: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(patience * 1000))


def read_all(fd: int) -> bytes:
    said = b""
    while is_readable(fd, PATIENCE) and (data := os.read(fd, 65536)):
        said += data
    return said


def eventually(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def pid_of(kept: Kept) -> int:
    """The id of the program, which it wrote as a line when it was ready."""
    assert is_readable(kept.ready_fd, PATIENCE)
    return int(os.read(kept.ready_fd, 100))


@pytest.mark.parametrize("number", [1, 3])
def test_ends_with_what_it_serves(served: Served, number: int) -> None:
    kept = served.keep(f"echo $$ >&{number}; exec sleep 1000000", ready_number=number)
    program = pid_of(kept)
    keeper = parent_of(program)
    assert parent_of(keeper) != os.getpid()
    core.go_on(kept.control_fd)
    assert is_alive(program)
    assert not is_readable(kept.control_fd, 0.05)
    served.end()
    assert is_readable(kept.control_fd, PATIENCE)  # the end of the socket: keeper and program are gone
    assert os.read(kept.control_fd, 1) == b""
    assert eventually(lambda: not is_alive(program))


def test_lets_go_of_a_caller_that_goes_away(served: Served) -> None:
    kept = served.keep("echo $$; while :; do echo more >&2; sleep 0.01; done")
    program = pid_of(kept)
    os.close(kept.control_fd)
    os.close(kept.error_fd)
    os.close(kept.ready_fd)
    served.kept = None
    time.sleep(0.2)
    assert is_alive(program)
    served.end()
    assert eventually(lambda: not is_alive(program))


def test_a_killed_keeper_takes_the_program_along(served: Served) -> None:
    program = pid_of(served.keep("echo $$; exec sleep 1000000"))
    os.kill(parent_of(program), signal.SIGKILL)
    assert eventually(lambda: not is_alive(program))


def test_the_end_of_the_program_is_heard(served: Served) -> None:
    kept = served.keep("echo no >&2; exit 3")
    assert read_all(kept.ready_fd) == b""
    assert read_all(kept.error_fd) == b"no\n"
    assert read_all(kept.control_fd) == b""


def test_a_program_that_is_not_there(served: Served) -> None:
    served.kept = kept = keep(helper_fd(), served.pidfd, ["/none"], [], ready_number=3)
    assert read_all(kept.error_fd) == b"cannot execute /none: error 2\n"
    assert read_all(kept.control_fd) == b""


def test_errors_never_hold_the_program_up(served: Served) -> None:
    """Nobody reads them once the container runs; a pipe holds 64 KiB."""
    kept = served.keep("head -c 1000000 /dev/zero >&2; echo $$; exec sleep 1000000")
    core.go_on(kept.control_fd)
    assert pid_of(kept)


def test_a_lock_is_held_while_the_program_may_live(served: Served, tmp_path: Path) -> None:
    import fcntl

    with open(tmp_path / "lock", "w") as lock, open(tmp_path / "lock", "w") as other:
        fcntl.flock(lock, fcntl.LOCK_EX)
        pid_of(served.keep("echo $$; exec sleep 1000000", held=(lock.fileno(),)))
        lock.close()
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        served.end()

        def is_free() -> bool:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        assert eventually(is_free)


SHOW = r"""
for name in /proc/$$/fd/*; do case ${name##*/} in 0|1|2|3|255) ;; *) readlink $name >&2;; esac; done
pwd >&2; env | grep -v '^_=\|^PWD=\|^OLDPWD=\|^SHLVL=' >&2
while read -r line; do case $line in SigBlk*|SigIgn*) echo "$line" >&2;; esac; done </proc/$$/status
readlink /proc/$$/fd/0 >&2
"""


def test_the_program_has_nothing_of_the_callers(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "1")
    with open(tmp_path / "secret", "w") as secret:
        os.set_inheritable(secret.fileno(), True)
        kept = served.keep(SHOW)
        said = read_all(kept.error_fd).decode().split("\n")
    nothing = "0" * 16
    assert said == ["/", "PATH=/usr/bin:/bin", f"SigBlk:\t{nothing}", f"SigIgn:\t{nothing}", "/dev/null", ""]


def test_a_caller_without_standard_streams(served: Served) -> None:
    """The descriptors that the program gets may be those that they are to become."""
    code = (
        "import os, sys\n"
        "from pyrtc.core.keeper import keep\n"
        "from pyrtc.runtime.helper import helper_fd\n"
        "out = os.dup2(1, 20, inheritable=False)\n"
        f"pidfd = os.pidfd_open({served.process.pid})\n"
        "helper = helper_fd()\n"
        "for fd in (0, 1, 2): os.close(fd)\n"
        "kept = keep(helper, pidfd, ['/bin/sh', '-c', 'echo ready >&3; echo error >&2'], [], ready_number=3)\n"
        "os.write(out, os.read(kept.ready_fd, 100) + os.read(kept.error_fd, 100))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (done.stdout, done.stderr) == ("ready\nerror\n", "")


def test_too_long_arguments_are_refused(served: Served) -> None:
    from pyrtc.errors import StartError

    with pytest.raises(StartError, match="too long"):
        keep(helper_fd(), served.pidfd, ["/bin/true", "x" * 300_000], [], ready_number=1)
    with pytest.raises(StartError, match="too many descriptors"):
        keep(helper_fd(), served.pidfd, ["/bin/true"], [], ready_number=1, held=[0] * 5)
