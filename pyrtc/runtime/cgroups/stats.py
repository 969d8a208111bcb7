"""What a container has used so far."""

from pyrtc.values import dataclass

__all__ = ["CgroupStats"]


@dataclass(frozen=True, slots=True)
class CgroupStats:
    """A container's use of the machine; None where its control groups do not count that.

    Attributes
    ----------
    cpu_usage, cpu_user, cpu_system: seconds of CPU time of all processes, the dead included.
    cpu_periods, cpu_throttled_periods, cpu_throttled: how many enforcement periods passed, in how many the `cpus`
        limit was hit, and for how many seconds processes had to wait.
    memory: bytes in use as `docker stats` counts them: without page cache that nobody used lately.
    memory_peak: the highest bytes in use, page cache included.
    memory_limit: bytes, None for unlimited.
    oom_kills: processes that the kernel killed because the memory limit was reached.
    pids, pids_peak, pids_limit: processes and threads now, at most, allowed.
    io_read_bytes, io_write_bytes, io_reads, io_writes: block input and output, all devices together.
    """

    cpu_usage: float | None = None
    cpu_user: float | None = None
    cpu_system: float | None = None
    cpu_periods: int | None = None
    cpu_throttled_periods: int | None = None
    cpu_throttled: float | None = None
    memory: int | None = None
    memory_peak: int | None = None
    memory_limit: int | None = None
    oom_kills: int | None = None
    pids: int | None = None
    pids_peak: int | None = None
    pids_limit: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    io_reads: int | None = None
    io_writes: int | None = None
