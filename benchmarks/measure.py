"""Taking times: contenders take turns, so that what else the machine does falls on all of them."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Contender", "Series", "Settings", "execute", "round_robin"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What to measure. layout: an OCI image layout, image: a name in it; disk: an empty file
    system; pause: seconds before each turn."""

    disk: Path
    layout: Path
    image: str
    rounds: int
    pause: float


@dataclass(frozen=True, slots=True)
class Series:
    """What was measured for one contender, in the order of the rounds."""

    name: str
    unit: str
    values: tuple[float, ...]
    more_is_better: bool = False

    @property
    def median(self) -> float:
        """The middle of all values."""
        return statistics.median(self.values)

    @property
    def best(self) -> float:
        """The shortest time, or the highest rate."""
        return max(self.values) if self.more_is_better else min(self.values)

    @property
    def p90(self) -> float:
        """What nine of ten values do not exceed."""
        return sorted(self.values)[int(len(self.values) * 0.9)]


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that is measured.

    run: does it once; a number it returns is taken as the measured value, otherwise its time is. before: prepares a
    round, after: cleans up; neither counts.
    """

    name: str
    run: Callable[[], float | None]
    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None


def execute(*words: str | os.PathLike[str]) -> None:
    """Run a program to its end as cheaply as Python can: posix_spawn, then a blocking wait. Output goes to /dev/null.

    Raises
    ------
    subprocess.CalledProcessError: it did not exit with 0.
    """
    arguments = [os.fspath(word) for word in words]
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1)]
    pid = os.posix_spawnp(arguments[0], arguments, os.environ, file_actions=null)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise subprocess.CalledProcessError(status, arguments)


def round_robin(
    contenders: Sequence[Contender],
    rounds: int,
    *,
    warm_up: int = 3,
    pause: float = 0.0,
    in_a_row: int = 1,
    unit: str = "ms",
    more_is_better: bool = False,
) -> dict[str, Series]:
    """Let contenders take turns.

    Parameters
    ----------
    rounds: how often each is measured, after warm_up turns that do not count.
    pause: seconds before each turn; the kernel removes namespaces and control groups in the background, which
        otherwise falls on whoever comes next.
    in_a_row: runs of each turn, all measured; with more than one, most find the processor's caches as they left them.

    Raises
    ------
    subprocess.CalledProcessError: a command failed; what does not work is not measured.
    """
    values: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    factor = {"ms": 1000.0, "s": 1.0}.get(unit, 1.0)
    for turn in range(-warm_up, rounds):
        for contender in contenders:
            if contender.before is not None:
                contender.before()
            if pause:
                time.sleep(pause)
            for _ in range(in_a_row):
                begin = time.perf_counter()
                result = contender.run()
                value = (time.perf_counter() - begin) * factor if result is None else result
                if turn >= 0:
                    values[contender.name].append(value)
            if contender.after is not None:
                contender.after()
        if sys.stderr.isatty():
            print(f"\r{max(turn + 1, 0)}/{rounds} ", end="", file=sys.stderr, flush=True)
    return {name: Series(name, unit, tuple(taken), more_is_better) for name, taken in values.items()}
