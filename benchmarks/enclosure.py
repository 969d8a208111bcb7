"""The place that a benchmark runs in: namespaces of its own, so that what it mounts and begins ends with it, however.

A process namespace makes that true for what is killed with SIGKILL, too: the kernel ends every process of one whose
first process is gone, and with the last of them the mounts and loop devices go.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
from types import FrameType

__all__ = ["enter", "inside"]

_INSIDE = "PYRTC_BENCHMARK_MOUNTS"
_PR_SET_PDEATHSIG = 1


def inside() -> bool:
    """Whether this is the program's second start."""
    return os.environ.get(_INSIDE) == str(os.getpid())


def enter(*, network: bool = False, processes: bool = False) -> None:
    """Start this program again in a mount namespace of its own; needs root.

    network: in a network namespace of its own, too. processes: in a process namespace, too. This process then stays
    outside, waits, and exits as the program does.
    """
    if not inside():
        # exec keeps the process id, by which the second start knows itself.
        environment = {**os.environ, _INSIDE: str(os.getpid())}
        more = ["--net"] * network + ["--pid"] * processes
        words = ["unshare", *more, "--mount", "--propagation", "private", sys.executable, *sys.orig_argv[1:]]
        os.execvpe(words[0], words, environment)  # noqa: S606  (no shell is wanted)
    if processes:
        _become_second()


def _become_second() -> None:
    """Go on as the second process of the namespace; the first one only collects what ends."""
    ours, theirs = os.pipe()
    first = os.fork()
    if first:
        os.close(ours)
        _exit_as(first)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # Its death before that told nobody. The pipe's other end is the outer process's alone.
    os.close(theirs)
    if select.select([ours], [], [], 0)[0]:
        os._exit(1)
    subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
    os.close(ours)
    second = os.fork()
    if second:
        _exit_as(second)


def _exit_as(child: int) -> None:
    """Wait for a child, and collect every other that ends; then end as it did."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        os.kill(child, number)

    # A terminal's Ctrl-C reaches the second process itself, and these end after it.
    signal.signal(signal.SIGINT, signal.SIG_IGN if sys.stdin.isatty() else pass_on)
    signal.signal(signal.SIGTERM, pass_on)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            # Buffers were copied by fork, and are the child's to write.
            os._exit(code if code >= 0 else 128 - code)
