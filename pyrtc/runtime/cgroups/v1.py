"""Limits and statistics in the terms of the version 1 controllers.

Sources: the kernel's Documentation/admin-guide/cgroup-v1/ and Documentation/scheduler/sched-bwc.rst.
"""

import os
from typing import Any

from pyrtc.runtime.cgroups.control_files import Setting, as_int, keyed, read, write
from pyrtc.runtime.cgroups.limits import Controller, DeviceRule, Limits, block_device_number

__all__ = ["FREEZER_STATE", "NAMES", "inherit_cpuset", "oom_kills", "settings", "stats"]

# What v1 calls the controllers that v2 renamed.
NAMES: dict[str, str] = {"blkio": "io"}

FREEZER_STATE = "freezer.state"
_PERIOD_US = 100_000
# The counters' "no limit" is the largest multiple of the page size that fits 63 bits.
_UNLIMITED = 1 << 62


def settings(controller: Controller, limits: Limits) -> list[Setting]:
    """Return what to write for one controller of a new cgroup, in the order in which the kernel accepts it."""
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
            return [
                Setting("devices", (("devices.deny", "a"),)),
                *(
                    Setting("devices", (("devices.allow", text),))
                    for rule in limits.devices or ()
                    for text in _device_lines(rule)
                ),
            ]


def _device_lines(rule: DeviceRule) -> tuple[str, ...]:
    """Return what devices.allow takes for a rule. It reads type `a` as everything, whatever access follows."""
    if rule.type == "a" and set(rule.access) != set("rwm"):
        return f"b *:* {rule.access}", f"c *:* {rule.access}"
    return (str(rule),)


def _cpu(limits: Limits) -> list[Setting]:
    found = []
    if limits.cpus is not None:
        # The period of a new cgroup is 100 ms, so only the quota needs to be written.
        quota = round(limits.cpus * _PERIOD_US)
        without = "this kernel has no CPU bandwidth control (CONFIG_CFS_BANDWIDTH)"
        found.append(Setting("cpus", (("cpu.cfs_quota_us", str(quota)),), without))
    if limits.cpu_shares is not None:
        found.append(Setting("cpu_shares", (("cpu.shares", str(limits.cpu_shares)),)))
    return found


def _memory(limits: Limits) -> list[Setting]:
    """The limit on RAM comes first: the kernel keeps it at or below the limit on RAM and swap at every moment."""
    found = []
    if limits.memory is not None:
        found.append(Setting("memory", (("memory.limit_in_bytes", str(limits.memory)),)))
    if limits.swap_total is not None:
        asked = bool(limits.memory_swap)
        name = "memory_swap" if asked else "memory"
        without = "this kernel does not account swap; boot it with swapaccount=1" if asked else ""
        found.append(Setting(name, (("memory.memsw.limit_in_bytes", str(limits.swap_total)),), without))
    if limits.memory_reservation is not None:
        text = str(limits.memory_reservation)
        found.append(Setting("memory_reservation", (("memory.soft_limit_in_bytes", text),)))
    return found


def _io(limits: Limits) -> list[Setting]:
    found = []
    if limits.blkio_weight is not None:
        weight = str(limits.blkio_weight)
        without = "this kernel has no weighted I/O scheduler; load the module bfq"
        found.append(Setting("blkio_weight", (("blkio.bfq.weight", weight), ("blkio.weight", weight)), without))
    for unit in ("bps", "iops"):
        for direction in ("read", "write"):
            limit = f"device_{direction}_{unit}"
            for device, rate in getattr(limits, limit):
                file = f"blkio.throttle.{direction}_{unit}_device"
                without = "this kernel cannot throttle block devices (CONFIG_BLK_DEV_THROTTLING)"
                found.append(Setting(limit, ((file, f"{block_device_number(device)} {rate}"),), without))
    return found


def inherit_cpuset(parent: int, name: str) -> None:
    """Give a new cpuset its parent's CPUs and memory nodes: it is born with none and then accepts no process."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        if not (read(parent, f"{name}/{file}") or "").strip():
            write(parent, f"{name}/{file}", (read(parent, file) or "").strip())


def oom_kills(directory: int, name: str) -> int | None:
    """Return how many processes the memory controller killed in this cgroup."""
    return keyed(read(directory, f"{name}/memory.oom_control")).get("oom_kill")


def stats(controller: str, directory: int, name: str) -> dict[str, Any]:
    """Return the fields of `CgroupStats` that this controller of one cgroup knows."""

    def number(file: str) -> int | None:
        return as_int(read(directory, f"{name}/{file}"))

    match controller:
        case "cpu":
            counters = keyed(read(directory, f"{name}/cpu.stat"))
            if "nr_periods" not in counters:
                return {}
            return {
                "cpu_periods": counters["nr_periods"],
                "cpu_throttled_periods": counters["nr_throttled"],
                "cpu_throttled": counters["throttled_time"] / 1e9,
            }
        case "cpuacct":
            used, user, system = number("cpuacct.usage"), number("cpuacct.usage_user"), number("cpuacct.usage_sys")
            found = {"cpu_usage": used, "cpu_user": user, "cpu_system": system}
            return {key: value / 1e9 for key, value in found.items() if value is not None}
        case "memory":
            used = number("memory.usage_in_bytes")
            idle = keyed(read(directory, f"{name}/memory.stat")).get("total_inactive_file", 0)
            limit = number("memory.limit_in_bytes")
            return {
                "memory": None if used is None else max(used - idle, 0),
                "memory_peak": number("memory.max_usage_in_bytes"),
                "memory_limit": None if limit is None or limit >= _UNLIMITED else limit,
                "oom_kills": oom_kills(directory, name),
            }
        case "pids":
            return {
                "pids": number("pids.current"),
                "pids_peak": number("pids.peak"),
                "pids_limit": number("pids.max"),
            }
        case "io":
            # Under the throttle controller every request is counted, whatever the disk's scheduler.
            size = _by_direction(read(directory, f"{name}/blkio.throttle.io_service_bytes_recursive"))
            count = _by_direction(read(directory, f"{name}/blkio.throttle.io_serviced_recursive"))
            return {
                "io_read_bytes": size[0],
                "io_write_bytes": size[1],
                "io_reads": count[0],
                "io_writes": count[1],
            }
        case _:
            return {}


def _by_direction(text: str | None) -> tuple[int | None, int | None]:
    """Add up lines of ``major:minor Read|Write number`` over all devices."""
    if text is None:
        return None, None
    total = {"Read": 0, "Write": 0}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] in total:
            total[words[1]] += int(words[2])
    return total["Read"], total["Write"]


def set_frozen(directory: int, name: str, frozen: bool) -> None:
    """Ask the freezer controller to stop or resume every process; it works on until `is_frozen` agrees."""
    write(directory, f"{name}/{FREEZER_STATE}", "FROZEN" if frozen else "THAWED")


def is_frozen(directory: int, name: str) -> bool:
    """Say whether every process is stopped."""
    return (read(directory, f"{name}/{FREEZER_STATE}") or "").strip() == "FROZEN"


def tasks_file(directory: int, name: str) -> int:
    """Open the file into which a process writes 0 to enter the cgroup, alone and without a global lock."""
    return os.open(f"{name}/tasks", os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
