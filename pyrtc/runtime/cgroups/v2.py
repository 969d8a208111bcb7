"""Limits and statistics in the terms of version 2, the unified hierarchy.

Source: the kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

import math
import os
from typing import Any

from pyrtc.runtime.cgroups.control_files import Setting, as_int, keyed, read, write
from pyrtc.runtime.cgroups.limits import Controller, Limits, block_device_number

__all__ = ["cpu_seconds", "cpu_weight", "io_weight", "is_frozen", "oom_kills", "set_frozen", "settings", "stats"]

_PERIOD_US = 100_000


def cpu_weight(shares: int) -> int:
    """Translate v1 CPU shares (2 to 262144, usually 1024) to a v2 weight (1 to 10000, usually 100).

    The curve goes through (2, 1), (1024, 100) and (262144, 10000), so that the usual share is the usual weight; it is
    the one that runc 1.3.2 and crun 1.23 agreed on.
    """
    log = math.log2(min(max(shares, 2), 262144))
    return min(max(math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34)), 1), 10000)


def io_weight(weight: int) -> int:
    """Translate a Docker block weight (10 to 1000) to the range of io.weight (1 to 10000)."""
    return 1 + (weight - 10) * 9999 // 990


def settings(controller: Controller, limits: Limits) -> list[Setting]:
    """Return what to write for one controller of a new cgroup. Devices have no file; see device_filter.py."""
    match controller:
        case "cpu":
            return _cpu(limits)
        case "cpuset":
            return [
                Setting(f"cpuset_{kind}", ((f"cpuset.{kind}", text),))
                for kind, text in (("cpus", limits.cpuset_cpus), ("mems", limits.cpuset_mems))
                if text is not None
            ]
        case "memory":
            return _memory(limits)
        case "pids":
            return [Setting("pids", (("pids.max", str(limits.pids)),))]
        case "io":
            return _io(limits)
        case "devices":
            return []


def _cpu(limits: Limits) -> list[Setting]:
    found = []
    if limits.cpus is not None:
        without = "this kernel has no CPU bandwidth control (CONFIG_CFS_BANDWIDTH)"
        found.append(Setting("cpus", (("cpu.max", f"{round(limits.cpus * _PERIOD_US)} {_PERIOD_US}"),), without))
    if limits.cpu_shares is not None:
        found.append(Setting("cpu_shares", (("cpu.weight", str(cpu_weight(limits.cpu_shares))),)))
    return found


def _memory(limits: Limits) -> list[Setting]:
    found = []
    if limits.memory is not None:
        found.append(Setting("memory", (("memory.max", str(limits.memory)),)))
        # A container is one thing: when it is out of memory all of it goes, not the process that looks largest.
        found.append(Setting("memory", (("memory.oom.group", "1"),), ""))
    if limits.memory is not None and limits.swap_total is not None:
        swap = "max" if limits.swap_total == -1 else str(limits.swap_total - limits.memory)
        asked = bool(limits.memory_swap)
        # A kernel that cannot swap at all keeps every limit on swap.
        can_swap = os.path.exists("/proc/swaps")
        without = "this kernel does not account swap; boot it with swapaccount=1" if asked and can_swap else ""
        found.append(Setting("memory_swap" if asked else "memory", (("memory.swap.max", swap),), without))
    if limits.memory_reservation is not None:
        found.append(Setting("memory_reservation", (("memory.low", str(limits.memory_reservation)),)))
    return found


def _io(limits: Limits) -> list[Setting]:
    found = []
    if limits.blkio_weight is not None:
        choices = (
            ("io.bfq.weight", str(limits.blkio_weight)),
            ("io.weight", f"default {io_weight(limits.blkio_weight)}"),
        )
        without = "this kernel has no weighted I/O scheduler; load the module bfq"
        found.append(Setting("blkio_weight", choices, without))
    for unit in ("bps", "iops"):
        for direction in ("read", "write"):
            limit = f"device_{direction}_{unit}"
            for device, rate in getattr(limits, limit):
                text = f"{block_device_number(device)} {direction[0]}{unit}={rate}"
                without = "this kernel cannot throttle block devices (CONFIG_BLK_DEV_THROTTLING)"
                found.append(Setting(limit, (("io.max", text),), without))
    return found


def oom_kills(directory: int, name: str) -> int | None:
    """Return how many processes the memory controller killed in this cgroup and below."""
    return keyed(read(directory, f"{name}/memory.events")).get("oom_kill")


def cpu_seconds(directory: int, name: str) -> float | None:
    """Return the CPU time of everything in this cgroup and below."""
    used = keyed(read(directory, f"{name}/cpu.stat")).get("usage_usec")
    return None if used is None else used / 1e6


def stats(directory: int, name: str) -> dict[str, Any]:
    """Return the fields of `CgroupStats` that this cgroup knows: what its controllers count, and CPU time always."""

    def number(file: str) -> int | None:
        return as_int(read(directory, f"{name}/{file}"))

    found: dict[str, Any] = {}
    cpu = keyed(read(directory, f"{name}/cpu.stat"))
    for field, key in (("cpu_usage", "usage_usec"), ("cpu_user", "user_usec"), ("cpu_system", "system_usec")):
        if key in cpu:
            found[field] = cpu[key] / 1e6
    if "nr_periods" in cpu:
        found["cpu_periods"] = cpu["nr_periods"]
        found["cpu_throttled_periods"] = cpu["nr_throttled"]
        found["cpu_throttled"] = cpu["throttled_usec"] / 1e6
    used = number("memory.current")
    if used is not None:
        idle = keyed(read(directory, f"{name}/memory.stat")).get("inactive_file", 0)
        found["memory"] = max(used - idle, 0)
        found["memory_peak"] = number("memory.peak")
        found["memory_limit"] = number("memory.max")
        found["oom_kills"] = oom_kills(directory, name)
    pids = number("pids.current")
    if pids is not None:
        found["pids"] = pids
        found["pids_peak"] = number("pids.peak")
        found["pids_limit"] = number("pids.max")
    io = read(directory, f"{name}/io.stat")
    if io is not None:
        found.update(_io_totals(io))
    return found


def _io_totals(text: str) -> dict[str, int]:
    """Add up lines of ``major:minor rbytes=1 wbytes=2 rios=3 wios=4`` over all devices."""
    fields = {"rbytes": "io_read_bytes", "wbytes": "io_write_bytes", "rios": "io_reads", "wios": "io_writes"}
    total = dict.fromkeys(fields.values(), 0)
    for word in text.split():
        key, _, value = word.partition("=")
        if key in fields and value.isdecimal():
            total[fields[key]] += int(value)
    return total


def set_frozen(directory: int, name: str, frozen: bool) -> None:
    """Ask the kernel to stop or resume every process; it works on until `is_frozen` agrees."""
    write(directory, f"{name}/cgroup.freeze", "1" if frozen else "0")


def is_frozen(directory: int, name: str) -> bool:
    """Say whether every process is stopped."""
    return keyed(read(directory, f"{name}/cgroup.events")).get("frozen") == 1
