"""Part 2, the hundredth instance: the same image N times, one after the other, all of them running."""

import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.comparison.experiments import Experiment, Measure, Results
from benchmarks.comparison.instances import Instance, Source, Way

__all__ = ["measure_many"]

BUDGET_BYTES = 10_000_000_000
STEP = 5  # instances of a turn


def measure_many(
    results: Results, disk: Path, source: Source, ways: Sequence[Way], *, most: int, seconds: float
) -> None:
    """Start up to so many instances of an image each way.

    Parameters
    ----------
    most: how many. seconds: of starting after which a way stops, which full copies reach first.
    """
    experiment = Experiment(
        "many/instances",
        f"Up to {most} instances of {source.megabytes:g} MB, all running",
        f"Ways take turns of {STEP} instances, and each instance goes on running. A way stops after {seconds:g} "
        f"seconds of its own, at {BUDGET_BYTES // 10**9} GB, or with its share of the whole run's time. Disk: "
        "what the file system has less than before, counted after sync at the end "
        "of each turn, and shared among its instances; single measurements, so there are no bars.",
        {
            "time": Measure("time until the workload's first word", "ms"),
            "total": Measure("seconds for all instances so far", "s"),
            "disk": Measure("disk taken by all instances so far", "MB"),
        },
        x="instances",
    )
    if results.is_settled(experiment):
        return
    begun, deadline = time.monotonic(), results.deadline(experiment.key)
    results.doing(f"{experiment.title}: {len(ways)} ways")
    with ExitStack() as stack:
        rows = [_Row(way, source, disk, stack) for way in ways]
        waiting = rows
        while waiting:
            waiting = [row for row in waiting if row.turn(results, most, seconds)]
            results.progress(f"{experiment.title}: {max(len(row.times) for row in rows)} of each way at most")
            # Removing what takes long to make takes about as long.
            share = deadline - begun
            if time.monotonic() - begun > share * 0.6:
                waiting = [row for row in waiting if row.needs(most) < share * 0.1]
        series = [row.series() for row in rows if row.total]
        results.put(experiment, series, time.monotonic() - begun)
    results.fact("many/image_mb", source.megabytes)


class _Row:
    """One way: its instances so far."""

    def __init__(self, way: Way, source: Source, disk: Path, stack: ExitStack) -> None:
        self._way, self._source, self._disk, self._stack = way, source, disk, stack
        self._ended = False
        self._bytes = 0.0
        self.times: list[float] = []
        self.total: list[float] = []
        self.disk: list[float] = []
        self._load: list[float] = []

    def needs(self, most: int) -> float:
        """Return how many seconds the rest of its instances take, as it has been."""
        return self.total[-1] / len(self.times) * (most - len(self.times)) if self.times else 0.0

    def turn(self, results: Results, most: int, seconds: float) -> bool:
        """Start a few more; False when this way has enough."""
        if self._ended:
            return False
        os.sync()
        before = _used(self._disk)
        for _ in range(STEP):
            number = len(self.times)
            spent = self.total[-1] if self.total else 0.0
            if number >= most or spent >= seconds or self._bytes >= BUDGET_BYTES:
                self._ended = True
                break
            try:
                instance = self._way.start(self._source, 100_000 + number)
            except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
                results.note(f"{self._way.name}: no instance after {number}: {error}")
                self._ended = True
                break
            self._stack.callback(_end, instance)
            self.times.append(instance.milliseconds)
            self.total.append(spent + instance.milliseconds / 1000)
            self._load.append(round(os.getloadavg()[0], 2))
        os.sync()
        self._bytes += max(0.0, _used(self._disk) - before)
        new = len(self.times) - len(self.disk)
        last = self.disk[-1] if self.disk else 0.0
        self.disk += [last + (self._bytes / 1e6 - last) * (number + 1) / new for number in range(new)]
        return not self._ended

    def series(self) -> dict[str, Any]:
        """Return the samples as results.json has them: one an instance."""
        values = {"time": self.times, "total": self.total, "disk": self.disk}
        return {"name": self._way.name, "kind": self._way.kind, "x": None, "values": values, "load": self._load}


def _end(instance: Instance) -> None:
    instance.end()


def _used(disk: Path) -> float:
    room = os.statvfs(disk)
    return float((room.f_blocks - room.f_bfree) * room.f_frsize)
