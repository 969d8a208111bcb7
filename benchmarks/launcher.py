"""A process that starts peers where they work, and takes their times: python -m benchmarks.launcher [HIDDEN...].

Some engines refuse a machine that has control groups of version 1 and of version 2. For them the launcher, in a mount
namespace of its own, does without the mount of version 2. It reads one JSON request a line, and answers with seconds.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.measure import execute

__all__ = ["Launcher", "Shelter", "hybrid_mounts"]


def hybrid_mounts() -> list[str]:
    """Return where version 2 is mounted beside version 1; nothing where there is only one of them."""
    found: dict[str, list[str]] = {"cgroup": [], "cgroup2": []}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        kind = fields[fields.index("-") + 1]
        if kind in found:
            found[kind].append(fields[4])
    return found["cgroup2"] if found["cgroup"] else []


class Shelter:
    """A mount namespace without version 2 beside version 1, for programs that somebody else starts and stays with.

    Attributes
    ----------
    prefix: words before theirs; none where there is nothing to hide.
    """

    def __init__(self) -> None:
        self.prefix: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        mounts = hybrid_mounts()
        if mounts:
            script = 'umount "$@" && echo && exec sleep infinity'
            words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *mounts]
            self._process = subprocess.Popen(words, stdout=subprocess.PIPE)
            assert self._process.stdout is not None
            self._process.stdout.readline()
            self.prefix = ["nsenter", f"--mount=/proc/{self._process.pid}/ns/mnt"]

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


class Launcher:
    """Such a process, from outside."""

    def __init__(self) -> None:
        words = ["unshare", "--mount", "--propagation", "private"]
        words += [sys.executable, "-m", "benchmarks.launcher", *hybrid_mounts()]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, *commands: Sequence[str | Path], workers: int = 1) -> float:
        """Run commands, so many at a time; returns seconds for all of them.

        Raises
        ------
        subprocess.CalledProcessError: one of them failed.
        """
        answer = self._ask({"commands": [[str(word) for word in words] for words in commands], "workers": workers})
        return float(answer["seconds"])

    def output(self, words: Sequence[str | Path]) -> str:
        """Run a command and return what it wrote.

        Raises
        ------
        subprocess.CalledProcessError: it failed.
        """
        return str(self._ask({"output": [str(word) for word in words]})["output"])

    def _ask(self, request: dict[str, object]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        if "failed" in answer:
            raise subprocess.CalledProcessError(answer["failed"], answer["command"], stderr=answer.get("stderr"))
        return answer

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def _serve(commands: list[list[str]], workers: int) -> dict[str, object]:
    begin = time.perf_counter()
    try:
        if workers == 1:
            for words in commands:
                execute(*words)
        else:
            with ThreadPoolExecutor(workers) as pool:
                for _ in pool.map(lambda words: execute(*words), commands):
                    pass
    except subprocess.CalledProcessError as error:
        return {"failed": error.returncode, "command": error.cmd}
    return {"seconds": time.perf_counter() - begin}


def _read(words: list[str]) -> dict[str, object]:
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.returncode, "command": words, "stderr": done.stderr}
    return {"output": done.stdout}


def main() -> None:
    """Serve until the input ends."""
    for path in sys.argv[1:]:
        subprocess.run(["umount", path], check=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = _read(request["output"]) if "output" in request else _serve(request["commands"], request["workers"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
