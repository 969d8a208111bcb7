"""A process of a given size: python -m benchmarks.worker STORE IMAGE MEGABYTES THREADS COMMAND.

It answers each line on its standard input with milliseconds: those of one pyrtc.run, or of one fork+exec after "fork".
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyrtc

__all__ = ["Worker"]


class Worker:
    """Such a process, from outside."""

    def __init__(self, store: str | Path, image: str, megabytes: int, threads: int, *command: str) -> None:
        words = [sys.executable, "-m", "benchmarks.worker", str(store), image, str(megabytes), str(threads)]
        words += command or ("true",)
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self) -> float:
        """Have it run one container; returns milliseconds."""
        return self._ask(b"\n")

    def fork(self) -> float:
        """Have it fork, execute `true` and wait; returns milliseconds."""
        return self._ask(b"fork\n")

    def _ask(self, line: bytes) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def main() -> None:
    """Grow, then serve."""
    store, image, megabytes, threads, command = *sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]
    # Written to, so that it is really there: a fork would have to copy its page tables.
    weight = b"\1" * (megabytes << 20)
    end = threading.Event()
    for _ in range(threads):
        threading.Thread(target=end.wait, daemon=True).start()
    with pyrtc.Engine(store) as engine:
        for line in sys.stdin:
            begin = time.perf_counter()
            if line.strip() == "fork":
                _fork()
            else:
                pyrtc.run(image, command, engine=engine, check=True)
            print((time.perf_counter() - begin) * 1000, flush=True)
    assert len(weight) == megabytes << 20
    end.set()


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os.execv("/bin/true", ["true"])  # noqa: S606  (no shell is wanted)
    os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
