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
            # What takes seconds needs no warm-up: caches are warm from the ways before it.
            warm_up=0 if way.kind == "machine" or (way.kind == "copy" and source.megabytes > 400) else 1,
        )
        for source in sources
        for way in ways
    ]
    results.run(
        Experiment(
            f"{PART}/time",
            "The start of one instance",
            "From the request to the first word that the workload wrote, everything between included: the copy, "
            "mounting, booting, isolation. Caches are warm, copies are not synced to the disk: that favours copying; "
            "what earlier turns left to be written is written before each. Copies are started with chroot, which "
            "isolates nothing; what engines isolate stands in the table of part 6.",
            {"time": TIME},
            x="size of the image (MB)",
        ),
        times,
    )
    for way in ways:
        if not way.is_on_disk:
            results.note(f"{way.name} keeps its files elsewhere: what it writes is not measured")
    costs = [
        Trial(
            way.name,
            way.kind,
            partial(_cost, way, source, numbers, disk),
            x=source.megabytes,
            rounds=1 if quick else 3,
            warm_up=0,
        )
        for source in sources
        for way in ways
        if way.is_on_disk
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
    """Return how often at most: fewer where each takes seconds."""
    if way.kind == "machine" or (way.kind == "copy" and megabytes > 400):
        return 6
    if way.kind == "copy" and megabytes > 50:
        return 6 if quick else 12
    return 10 if quick else 20


def _time(way: Way, source: Source, numbers: Iterator[int]) -> Mapping[str, float]:
    os.sync()
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
