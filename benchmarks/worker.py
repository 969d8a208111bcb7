"""A process of a given size that runs containers when told: python -m benchmarks.worker STORE IMAGE MEGABYTES THREADS.

It answers each line on its standard input with the milliseconds that one pyrtc.run took.
"""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pyrtc

__all__ = ["Worker"]


class Worker:
    """Such a process, from outside."""

    def __init__(self, store: Path, image: str, megabytes: int, threads: int) -> None:
        words = [sys.executable, "-m", "benchmarks.worker", str(store), image, str(megabytes), str(threads)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self) -> float:
        """Have it run one container; returns milliseconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def main() -> None:
    """Grow, then serve."""
    store, image, megabytes, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    # Written to, so that it is really there: a fork would have to copy its page tables.
    weight = b"\1" * (megabytes << 20)
    end = threading.Event()
    for _ in range(threads):
        threading.Thread(target=end.wait, daemon=True).start()
    with pyrtc.Engine(store) as engine:
        for _ in sys.stdin:
            begin = time.perf_counter()
            pyrtc.run(image, ["true"], engine=engine, check=True)
            print((time.perf_counter() - begin) * 1000, flush=True)
    assert len(weight) == megabytes << 20
    end.set()


if __name__ == "__main__":
    main()
