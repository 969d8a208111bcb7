"""What containers use at this moment, counted by their control groups and computed as `docker stats` does."""

import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from pyrtc.errors import ContainerError, ContainerNotFound
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.handle import Handle
    from pyrtc.runtime.cgroups import CgroupStats
    from pyrtc.store import ContainerRecord

__all__ = ["Sampler", "Stats", "stats", "stats_async", "stream", "stream_async"]


@dataclass(frozen=True, slots=True)
class Stats:
    """What one container uses; None where nothing counts it.

    cpu_percent: of one CPU, since the sample before, so 150.0 is one and a half; None for a first sample. cpu_seconds:
    of all its processes since its start, the dead included. memory: bytes, without page cache that nobody used lately,
    as Docker counts; memory_limit: bytes, what the machine has where there is no limit; memory_percent: of that;
    memory_peak: the highest, page cache included. read_bytes, written_bytes: block input and output. received_bytes,
    sent_bytes: by its network interfaces, loopback left out; None in the host's network. pids: processes and threads;
    pids_limit: None for unlimited.

    Control groups of version 2 count everything; those of version 1 what a limit needs, or what accounting=True asks
    for. Detached containers have accounting.
    """

    id: str
    name: str
    cpu_percent: float | None
    cpu_seconds: float | None
    memory: int | None
    memory_limit: int | None
    memory_percent: float | None
    memory_peak: int | None
    read_bytes: int | None
    written_bytes: int | None
    received_bytes: int | None
    sent_bytes: int | None
    pids: int | None
    pids_limit: int | None


def stats(container: "Handle", interval: float) -> Stats:
    """See `Container.stats`."""
    sampler = Sampler()
    first = sampler.take(container)
    if interval <= 0:
        return first
    time.sleep(interval)
    with suppress(ContainerError):  # it has ended: what it used up to then
        return sampler.take(container)
    return first


def stream(container: "Handle", interval: float) -> Iterator[Stats]:
    """Yield one value each interval until the container has ended; see `Container.stats`."""
    sampler = Sampler()
    begin = time.monotonic()
    yield sampler.take(container)
    for count in itertools.count(1):
        time.sleep(max(0.0, begin + count * interval - time.monotonic()))
        try:
            found = sampler.take(container)
        except ContainerError:  # it has ended, or is gone
            return
        yield found


async def stats_async(container: "Handle", interval: float) -> Stats:
    """Do what `stats` does; the time between is the event loop's."""
    import asyncio

    sampler = Sampler()
    first = await asyncio.to_thread(sampler.take, container)
    if interval <= 0:
        return first
    await asyncio.sleep(interval)
    with suppress(ContainerError):
        return await asyncio.to_thread(sampler.take, container)
    return first


async def stream_async(container: "Handle", interval: float) -> AsyncIterator[Stats]:
    """Do what `stream` does; the time between is the event loop's."""
    import asyncio

    sampler = Sampler()
    begin = time.monotonic()
    yield await asyncio.to_thread(sampler.take, container)
    for count in itertools.count(1):
        await asyncio.sleep(max(0.0, begin + count * interval - time.monotonic()))
        try:
            found = await asyncio.to_thread(sampler.take, container)
        except ContainerError:  # it has ended, or is gone
            return
        yield found


class Sampler:
    """Takes samples of any number of containers; the share of the CPU is of the time between two of one."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, float]] = {}

    def take(self, container: "Handle") -> Stats:
        """Return what a container uses now.

        Raises
        ------
        ContainerNotFound: it has been removed. ContainerError: it does not run.
        """
        from pyrtc.states import is_alive

        record = container.record
        if record.state != "running" or not is_alive(record):
            raise ContainerError(f"container {record.name} is not running")
        try:
            group = container.cgroup()
        except ContainerNotFound:  # this user may not make control groups
            return _made(record, None, None, None)
        counted = group.stats()
        now = time.monotonic()
        pids = counted.pids if counted.pids is not None else len(group.process_ids())
        return _made(record, counted, self._percent(record.id, counted.cpu_usage, now), pids)

    def _percent(self, container_id: str, cpu: float | None, now: float) -> float | None:
        if cpu is None:
            return None
        before = self._before.get(container_id)
        self._before[container_id] = (cpu, now)
        if before is None or now <= before[1]:
            return None
        return max(0.0, cpu - before[0]) / (now - before[1]) * 100.0


def _made(record: "ContainerRecord", counted: "CgroupStats | None", percent: float | None, pids: int | None) -> Stats:
    memory = counted.memory if counted is not None else None
    limit = None
    if memory is not None and counted is not None:
        limit = min(counted.memory_limit or _machine_memory(), _machine_memory())
    received, sent = _network(record)
    return Stats(
        id=record.id,
        name=record.name,
        cpu_percent=percent,
        cpu_seconds=counted.cpu_usage if counted is not None else None,
        memory=memory,
        memory_limit=limit,
        memory_percent=memory / limit * 100.0 if memory is not None and limit else None,
        memory_peak=counted.memory_peak if counted is not None else None,
        read_bytes=counted.io_read_bytes if counted is not None else None,
        written_bytes=counted.io_write_bytes if counted is not None else None,
        received_bytes=received,
        sent_bytes=sent,
        pids=pids,
        pids_limit=counted.pids_limit if counted is not None else None,
    )


def _machine_memory() -> int:
    with open("/proc/meminfo") as file:
        return int(file.readline().split()[1]) * 1024  # MemTotal is the first line, in KiB


def _network(record: "ContainerRecord") -> tuple[int | None, int | None]:
    """Add up what the interfaces of a container's network namespace have received and sent, without loopback."""
    import json

    if json.loads(record.options or b"{}").get("network") == "host":
        return None, None
    try:
        with open(f"/proc/{record.pid}/net/dev") as file:
            lines = file.read().splitlines()[2:]
    except OSError:  # it has ended, or may not be looked at
        return None, None
    received = sent = 0
    for line in lines:
        name, _, numbers = line.partition(":")
        fields = numbers.split()
        if name.strip() != "lo" and len(fields) >= 9:  # proc_pid_net(5)
            received, sent = received + int(fields[0]), sent + int(fields[8])
    return received, sent
