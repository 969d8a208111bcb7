"""Part 1, the start of one instance: a full copy, a disk, a virtual machine, layers; and what each leaves behind."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.comparison.experiments import Experiment, Measure, Results, Trial
from benchmarks.comparison.instances import Source, Way, drop_caches

__all__ = ["measure_starts"]

PART = "start"
TIME = Measure("time until the workload's first word", "ms")
COSTS = {
    "written": Measure("written to the disk for one instance", "MB"),
    "disk": Measure("taken on the disk by one instance", "MB"),
    "cache": Measure("taken of the page cache by one instance", "MB"),
}


def measure_starts(
    results: Results, disk: Path, sources: Sequence[Source], ways: Sequence[Way], *, quick: bool
) -> None:
    """Measure times and costs of every way at every size. disk: the file system that everything is on."""
    numbers = iter(range(10**9))
    times = [
        Trial(
            way.name,
            way.kind,
            partial(_time, way, source, numbers),
            x=source.megabytes,
            rounds=_rounds(way, source.megabytes, quick=quick),
        )
        for source in sources
        for way in ways
    ]
    results.run(
        Experiment(
            f"{PART}/time",
            "The start of one instance",
            "From the request to the first word that the workload wrote, everything between included: the copy, "
            "mounting, "
            "booting, isolation. Caches are warm, copies are not synced to the disk: that favours copying. "
            "Points are "
            "medians, bars go from the first to the third quartile.",
            {"time": TIME},
            x="size of the image (MB)",
        ),
        times,
    )
    costs = [
        Trial(
            way.name,
            way.kind,
            partial(_cost, way, source, numbers, disk),
            x=source.megabytes,
            rounds=1 if quick or source.megabytes > 1000 else 2,
            warm_up=0,
        )
        for source in sources
        for way in ways
    ]
    results.run(
        Experiment(
            f"{PART}/cost",
            "What one instance leaves on the disk and in memory",
            "Caches are dropped, one instance is started, and everything is written back: how many sectors the "
            "block device "
            "was given, how much room the file system lost, and by how much the page cache grew. A virtual machine's "
            "own memory is not in it.",
            COSTS,
            x="size of the image (MB)",
        ),
        costs,
    )


def _rounds(way: Way, megabytes: float, *, quick: bool) -> int:
    """Fewer where each takes seconds."""
    if way.kind == "machine":
        return 2 if quick else 3
    if way.kind == "copy" and megabytes > 50:
        # A copy of 2 GB takes ten seconds, and as long again to be removed.
        return 2 if quick or megabytes > 1000 else 3 if megabytes > 400 else 6
    return 8 if quick else 20


def _time(way: Way, source: Source, numbers: Iterator[int]) -> Mapping[str, float]:
    instance = way.start(source, next(numbers))
    instance.end()
    return {"time": instance.milliseconds}


def _cost(way: Way, source: Source, numbers: Iterator[int], disk: Path) -> Mapping[str, float]:
    drop_caches()
    before = _state(disk)
    instance = way.start(source, next(numbers))
    try:
        os.sync()
        after = _state(disk)
    finally:
        instance.end()
    return {name: max(0.0, after[name] - before[name]) for name in COSTS}


def _state(disk: Path) -> dict[str, float]:
    """Megabytes written to the device below a file system, used on it, and in the page cache."""
    device = disk.stat().st_dev
    stat = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
    room = os.statvfs(disk)
    cached = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Cached:"))
    return {
        "written": int(stat[6]) * 512 / 1e6,
        "disk": (room.f_blocks - room.f_bfree) * room.f_frsize / 1e6,
        "cache": int(cached.split()[1]) * 1024 / 1e6,
    }
