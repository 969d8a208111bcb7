"""What a container may use, as values that are checked for sense before anything exists.

Nothing here knows which version of control groups a machine has; v1.py and v2.py translate.
"""

import os
import re
import stat
from typing import Literal

from pyrtc.errors import UsageError
from pyrtc.values import dataclass

__all__ = [
    "CONTROLLERS",
    "DEFAULT_DEVICE_RULES",
    "MIN_MEMORY",
    "BlockLimit",
    "Controller",
    "DeviceRule",
    "Limits",
    "block_device_number",
    "parse_id_list",
]

Controller = Literal["cpu", "cpuset", "memory", "pids", "io", "devices"]
CONTROLLERS: tuple[Controller, ...] = ("cpu", "cpuset", "memory", "pids", "io", "devices")

BlockLimit = tuple[str, int]
"""A block device, by path or as ``major:minor``, and a rate per second."""

MIN_MEMORY = 6 * 1024 * 1024
MAX_MEMORY = 1 << 62
MAX_RATE = (1 << 63) - 1
MAX_ID = 8191
MIN_NETWORK_RATE = 8000  # bits per second
MAX_NETWORK_RATE = 32_000_000_000  # what fits into the bytes per second of tc's 32 bits
MAX_PIDS = 4194304
MAX_DEVICE_RULES = 512


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """Device nodes that a container may use: all that match are allowed, what no rule names is denied.

    Parameters
    ----------
    type: ``c`` (character), ``b`` (block) or ``a`` (both).
    major, minor: device number; None stands for every number.
    access: any of ``r`` (read), ``w`` (write), ``m`` (mknod).
    """

    type: Literal["a", "b", "c"]
    major: int | None
    minor: int | None
    access: str

    def __post_init__(self) -> None:
        """Refuse what is not a rule."""
        numbers_fit = all(n is None or 0 <= n <= 0xFFFFF for n in (self.major, self.minor))
        letters_fit = bool(self.access) and set(self.access) <= set("rwm") and len(set(self.access)) == len(self.access)
        if self.type not in ("a", "b", "c") or not numbers_fit or not letters_fit:
            raise UsageError(f"invalid device rule {self}: it reads like `c 1:3 rwm`, `b 8:* r` or `a *:* rwm`")
        if self.type == "a" and (self.major is not None or self.minor is not None):
            raise UsageError(f"invalid device rule {self}: type `a` means every device; name `c` or `b` with a number")

    @classmethod
    def parse(cls, text: str) -> "DeviceRule":
        """Read a rule as Docker's --device-cgroup-rule writes it: ``c 1:3 mr``.

        Raises
        ------
        UsageError: the text is not a rule.
        """
        match = re.fullmatch(r"([abc]) (\d{1,7}|\*):(\d{1,7}|\*) ([rwm]{1,3})", text)
        if match is None:
            raise UsageError(f"invalid device rule {text!r}: it reads like `c 1:3 rwm`, `b 8:* r` or `a *:* rwm`")
        kind, major, minor, access = match.groups()
        return cls(
            "a" if kind == "a" else "b" if kind == "b" else "c",
            None if major == "*" else int(major),
            None if minor == "*" else int(minor),
            access,
        )

    def __str__(self) -> str:
        """Return the rule as the v1 devices controller reads it."""
        major = "*" if self.major is None else self.major
        minor = "*" if self.minor is None else self.minor
        return f"{self.type} {major}:{minor} {self.access}"


DEFAULT_DEVICE_RULES: tuple[DeviceRule, ...] = (
    DeviceRule("c", None, None, "m"),
    DeviceRule("b", None, None, "m"),
    DeviceRule("c", 1, 3, "rwm"),  # null
    DeviceRule("c", 1, 5, "rwm"),  # zero
    DeviceRule("c", 1, 7, "rwm"),  # full
    DeviceRule("c", 1, 8, "rwm"),  # random
    DeviceRule("c", 1, 9, "rwm"),  # urandom
    DeviceRule("c", 5, 0, "rwm"),  # tty
    DeviceRule("c", 5, 1, "rwm"),  # console
    DeviceRule("c", 5, 2, "rwm"),  # ptmx
    DeviceRule("c", 136, None, "rwm"),  # pts/*
)
"""What Docker allows every container that is not privileged: any node may be made, only harmless ones opened."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one container may use; None leaves a resource unlimited. The names and meanings are Docker's.

    Parameters
    ----------
    memory: bytes of RAM, page cache included; at least 6 MiB.
    memory_swap: bytes of RAM and swap together, -1 for unlimited swap, equal to `memory` for none. None or 0 with
        `memory` given means twice `memory`.
    memory_reservation: bytes that are kept from reclaim before others' (v2 memory.low, v1 soft limit).
    cpus: CPUs' worth of time, 0.01 up to the CPUs online; enforced per 100 ms.
    cpu_shares: weight against other containers when the CPU is contended, 2 to 262144; 1024 is the usual share.
    cpuset_cpus, cpuset_mems: CPUs and memory nodes to stay on, as ``0-2,5``.
    pids: processes and threads; -1 or 0 is unlimited.
    blkio_weight: weight against other containers when a disk is contended, 10 to 1000.
    device_read_bps, device_write_bps: bytes per second per block device.
    device_read_iops, device_write_iops: operations per second per block device.
    network_in, network_out: bits per second that it may receive and send over each of its network devices, from 8000
        to 32 Gbit/s; enforced by tc, not by a control group.
    devices: the only device nodes that may be used, or None where nothing needs to be enforced.

    Raises
    ------
    UsageError: a value that cannot mean anything, or that no machine like this one could honour.
    """

    memory: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    pids: int | None = None
    blkio_weight: int | None = None
    device_read_bps: tuple[BlockLimit, ...] = ()
    device_write_bps: tuple[BlockLimit, ...] = ()
    device_read_iops: tuple[BlockLimit, ...] = ()
    device_write_iops: tuple[BlockLimit, ...] = ()
    network_in: int | None = None
    network_out: int | None = None
    devices: tuple[DeviceRule, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse nonsense before a container exists."""
        for name in ("memory", "memory_swap", "memory_reservation", "cpu_shares", "pids", "blkio_weight"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise UsageError(f"{name}={value!r}: it is a whole number")
        if self.cpus is not None and (isinstance(self.cpus, bool) or not isinstance(self.cpus, (int, float))):
            raise UsageError(f"cpus={self.cpus!r}: it is a number, such as 1.5")
        self._check_memory()
        if self.cpus is not None:
            count = os.cpu_count() or 1
            if not 0.01 <= self.cpus <= count:
                raise UsageError(
                    f"cpus={self.cpus}: the range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs"
                    " available"
                )
        if self.cpu_shares is not None and not 2 <= self.cpu_shares <= 262144:
            raise UsageError(f"cpu_shares={self.cpu_shares}: the range of CPU shares is from 2 to 262144")
        if self.cpuset_cpus is not None:
            _check_id_list("cpuset_cpus", "CPUs", self.cpuset_cpus, "/sys/devices/system/cpu/online")
        if self.cpuset_mems is not None:
            _check_id_list("cpuset_mems", "memory nodes", self.cpuset_mems, "/sys/devices/system/node/online")
        if self.pids is not None and not -1 <= self.pids <= MAX_PIDS:
            raise UsageError(f"pids={self.pids}: the limit is from 1 to {MAX_PIDS}; -1 stands for unlimited")
        if self.blkio_weight is not None and not 10 <= self.blkio_weight <= 1000:
            raise UsageError(f"blkio_weight={self.blkio_weight}: the range of blkio weight is from 10 to 1000")
        for name in ("device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops"):
            for device, rate in getattr(self, name):
                if not 0 < rate <= MAX_RATE:
                    raise UsageError(f"{name}={device}:{rate}: the rate must be a positive number per second")
        for name in ("network_in", "network_out"):
            rate = getattr(self, name)
            if rate is not None and not MIN_NETWORK_RATE <= rate <= MAX_NETWORK_RATE:
                raise UsageError(
                    f"{name}={rate}: the rate is from {MIN_NETWORK_RATE} to {MAX_NETWORK_RATE} bits per second"
                )
        if self.devices is not None and len(self.devices) > MAX_DEVICE_RULES:
            raise UsageError(f"{len(self.devices)} device rules: there can be {MAX_DEVICE_RULES} at most")

    def _check_memory(self) -> None:
        memory, swap, reservation = self.memory, self.memory_swap, self.memory_reservation
        if memory is not None and not MIN_MEMORY <= memory <= MAX_MEMORY:
            raise UsageError(f"memory={memory}: the minimum memory limit allowed is 6MB; leave it out for no limit")
        if swap:
            if memory is None:
                raise UsageError(
                    f"memory_swap={swap}: you should always set the memory limit when using the memory-swap limit"
                )
            if swap != -1 and not memory <= swap <= MAX_MEMORY:
                raise UsageError(
                    f"memory_swap={swap}: the memory-swap limit counts RAM and swap together, so it cannot be smaller"
                    f" than the memory limit {memory}; -1 stands for unlimited swap"
                )
        if reservation is not None:
            if not MIN_MEMORY <= reservation <= MAX_MEMORY:
                raise UsageError(f"memory_reservation={reservation}: the minimum memory reservation allowed is 6MB")
            if memory is not None and reservation > memory:
                raise UsageError(
                    f"memory_reservation={reservation}: the memory limit {memory} cannot be less than the reservation"
                )

    @property
    def swap_total(self) -> int | None:
        """RAM and swap together in bytes with Docker's default of twice the memory applied; -1 unlimited."""
        if self.memory is None:
            return None
        return self.memory_swap or 2 * self.memory

    @property
    def controllers(self) -> tuple[Controller, ...]:
        """The controllers that these limits need."""
        needs: list[Controller] = []
        if self.cpus is not None or self.cpu_shares is not None:
            needs.append("cpu")
        if self.cpuset_cpus is not None or self.cpuset_mems is not None:
            needs.append("cpuset")
        if self.memory is not None or self.memory_reservation is not None:
            needs.append("memory")
        if self.pids is not None and self.pids > 0:
            needs.append("pids")
        if (
            self.blkio_weight is not None
            or self.device_read_bps
            or self.device_write_bps
            or self.device_read_iops
            or self.device_write_iops
        ):
            needs.append("io")
        if self.devices is not None:
            needs.append("devices")
        return tuple(needs)

    def given(self, controller: Controller) -> tuple[str, ...]:
        """Name the limits that are set and need this controller, for messages."""
        fields: dict[str, tuple[str, ...]] = {
            "cpu": ("cpus", "cpu_shares"),
            "cpuset": ("cpuset_cpus", "cpuset_mems"),
            "memory": ("memory", "memory_swap", "memory_reservation"),
            "pids": ("pids",),
            "io": ("blkio_weight", "device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops"),
        }
        if controller == "devices":  # an empty list of rules is the strictest limit, not an absent one
            return () if self.devices is None else ("devices",)
        return tuple(name for name in fields[controller] if getattr(self, name))


def parse_id_list(text: str) -> frozenset[int]:
    """Read a list of CPUs or memory nodes as the kernel writes it (``0-2,5``).

    Raises
    ------
    ValueError: the text is no such list, a range runs backwards, or a number is above 8191.
    """
    found: set[int] = set()
    for part in text.strip().split(","):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part.strip(), re.ASCII)
        if match is None:
            raise ValueError(f"{part!r} is not a number or range")
        first = int(match[1])
        last = int(match[2] or first)
        if not first <= last <= MAX_ID:
            raise ValueError(f"{part!r} is not a range of numbers up to {MAX_ID}")
        found.update(range(first, last + 1))
    return frozenset(found)


def _check_id_list(name: str, what: str, text: str, online: str) -> None:
    try:
        wanted = parse_id_list(text)
    except ValueError as error:
        raise UsageError(f"{name}={text}: invalid value for {what}: {error}; it reads like 0-2,5") from None
    try:
        with open(online, encoding="ascii") as file:
            available = file.read().strip()
    except FileNotFoundError:  # a kernel without NUMA has node 0 only and does not list it
        available = "0"
    if not wanted <= parse_id_list(available):
        raise UsageError(f"{name}={text}: requested {what} are not available: requested {text}, available: {available}")


def block_device_number(device: str) -> str:
    """Return ``major:minor`` of a whole disk named by path or number.

    Raises
    ------
    UsageError: there is no such block device, or it is a partition, which the kernel cannot limit.
    """
    if re.fullmatch(r"\d{1,4}:\d{1,7}", device, re.ASCII):
        number = device
    else:
        try:
            info = os.stat(device)
        except OSError as error:
            raise UsageError(f"cannot limit the block device {device}: {error.strerror}") from None
        if not stat.S_ISBLK(info.st_mode):
            raise UsageError(f"cannot limit {device}: it is not a block device; name one like /dev/sda or 8:0")
        number = f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
    entry = f"/sys/dev/block/{number}"
    if not os.path.exists(entry):
        raise UsageError(f"cannot limit the block device {device}: this machine has no block device {number}")
    if os.path.exists(f"{entry}/partition"):
        disk = os.path.basename(os.path.dirname(os.path.realpath(entry)))
        raise UsageError(f"cannot limit {device}: it is a partition; limits are for whole disks, name /dev/{disk}")
    return number
