"""What every container gets of /proc, /dev and /sys, as operations of its plan.

The defaults are Docker's (moby daemon/pkg/oci/defaults.go), with two that are stricter: everything is mounted nodev,
/dev too, where single device nodes are bound from the host; and /dev is noexec.
"""

import os
import stat
from functools import cache, lru_cache
from glob import glob

from pyrtc._core import lib
from pyrtc.errors import UnsupportedError
from pyrtc.options import Device
from pyrtc.runtime.namespaces import NODEV, NOEXEC, NOSUID, RDONLY
from pyrtc.runtime.plan import operation

__all__ = ["MASKED", "READ_ONLY", "device_operation", "masked_paths", "system_mounts"]

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_NODES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = (
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
)
_SECURE = NOSUID | NODEV | NOEXEC


@cache
def masked_paths() -> tuple[str, ...]:
    """Return the paths that are hidden by default; those of single processors are looked up once."""
    return (*MASKED, *sorted(glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")))


def device_operation(device: Device) -> bytes:
    """Return the operation that shows a device node of the host in the container.

    Raises
    ------
    UnsupportedError: there is no such device on this machine.
    """
    try:
        about = os.stat(device.source, follow_symlinks=False)
    except OSError as error:
        raise UnsupportedError(f"device {device.source}: {error.strerror}") from None
    kind = stat.S_IFMT(about.st_mode)
    if kind not in {stat.S_IFCHR, stat.S_IFBLK}:
        raise UnsupportedError(f"device {device.source} is not a device node")
    number = os.major(about.st_rdev) << 32 | os.minor(about.st_rdev)
    return operation(lib.PLAN_DEVICE, device.source, device.target, a=number, b=kind)


@lru_cache(maxsize=64)
def system_mounts(
    *,
    own_pid: bool,
    own_ipc: bool,
    own_net: bool,
    user_namespace: bool,
    tty_group: bool,
    shm_size: int,
    privileged: bool,
) -> tuple[bytes, ...]:
    """Return the operations for /proc, /dev and /sys. Each target is reached without links (CVE-2023-27561).

    Parameters
    ----------
    own_pid, own_ipc, own_net: the container has its own namespace of that kind.
    user_namespace: it is in one, where only mounts of its own namespaces can be made.
    tty_group: group 5 means something inside.
    shm_size: bytes of /dev/shm.
    privileged: /sys and /proc can be written, and nodes made in /dev are devices.
    """
    ops = [_proc(own_pid, user_namespace)]
    makes_devices = privileged and not user_namespace
    ops.append(_mount("tmpfs", "/dev", NOSUID | NOEXEC if makes_devices else _SECURE, "mode=0755", "size=65536k"))
    ops.append(
        _mount("devpts", "/dev/pts", NOSUID | NOEXEC, "ptmxmode=0666", "mode=0620", *(["gid=5"] if tty_group else []))
    )
    ops += [operation(lib.PLAN_SYMLINK, value, f"/dev/{name}") for value, name in _LINKS]
    ops += [device_operation(Device(f"/dev/{name}", f"/dev/{name}")) for name in _NODES]
    if own_ipc:
        ops.append(_mount("tmpfs", "/dev/shm", _SECURE, "mode=1777", f"size={shm_size}"))  # noqa: S108
    else:
        ops.append(bind_host("/dev/shm", "/dev/shm", _SECURE))  # noqa: S108
    if own_ipc or not user_namespace:
        ops.append(_mount("mqueue", "/dev/mqueue", _SECURE))
    elif os.path.isdir("/dev/mqueue"):
        ops.append(bind_host("/dev/mqueue", "/dev/mqueue", _SECURE))
    attributes = _SECURE if privileged else _SECURE | RDONLY
    if user_namespace and not own_net:
        # A sysfs shows the network devices of a network namespace, and the host's is not this user's to show anew.
        ops.append(bind_host("/sys", "/sys", _SECURE | RDONLY))
    else:
        ops.append(_mount("sysfs", "/sys", attributes))
    return tuple(ops)


def _proc(own_pid: bool, user_namespace: bool) -> bytes:
    if user_namespace and not own_pid:
        return bind_host("/proc", "/proc", _SECURE)
    return _mount("proc", "/proc", _SECURE)


def _mount(kind: str, target: str, attributes: int, *options: str) -> bytes:
    return operation(lib.PLAN_MOUNT, kind, target, *options, mode=attributes, flags=lib.PLAN_NO_LINKS)


def bind_host(source: str, target: str, attributes: int) -> bytes:
    """Return the operation that shows a directory of the host, with all that is mounted below it."""
    about = os.stat(source)
    device = os.major(about.st_dev) << 32 | os.minor(about.st_dev)
    flags = lib.PLAN_RECURSIVE | lib.PLAN_NO_LINKS
    return operation(lib.PLAN_BIND, source, target, mode=attributes, a=device, b=about.st_ino, flags=flags)
