"""Which device nodes a container gets, and when a control group must watch over them.

Every mount of a container is nodev, so that a node it makes itself is never a device; what it may use is bound from the
host one by one. That needs no device control group, with two exceptions: a container that may mount (CAP_SYS_ADMIN)
could lift nodev, and a device that is given for reading only is for the kernel a device like any other.
"""

import os
import stat

from pyrtc.errors import UnsupportedError, UsageError
from pyrtc.options import Device, RunOptions
from pyrtc.runtime.capabilities import NAMES
from pyrtc.runtime.cgroups import DEFAULT_DEVICE_RULES, DeviceRule
from pyrtc.runtime.spec import Spec, mount_target
from pyrtc.values import replace

__all__ = ["allowed_rules", "host_devices"]

_MAX_DEVICES = 2000
_SKIPPED = frozenset(
    {"pts", "shm", "mqueue", "fd", "console", "ptmx", "null", "zero", "full", "random", "urandom", "tty"}
)


def host_devices(options: RunOptions) -> tuple[Device, ...]:
    """Return the device nodes to show besides the default ones: what was asked for, or all when privileged.

    Raises
    ------
    UsageError: a permission that is none, or a place where no device can be.
    """
    asked = tuple(_asked(device) for device in options.devices)
    if not options.privileged:
        return asked
    return (*(_all_devices() if os.geteuid() == 0 else _readable_devices()), *asked)


def _asked(device: Device) -> Device:
    """The device itself where a link to it was named, as those in /dev/disk are."""
    if not device.permissions or set(device.permissions) - set("rwm"):
        raise UsageError(f"device permissions {device.permissions!r}: any of r, w and m")
    if "\0" in device.source or not device.source.startswith("/"):
        raise UsageError(f"device {device.source!r} must be an absolute path")
    target = mount_target(device.target, "a device's target")
    return replace(device, source=os.path.realpath(device.source), target=target)


def _all_devices() -> tuple[Device, ...]:
    found = []
    for directory, folders, files in os.walk("/dev"):
        if directory == "/dev":
            folders[:] = [name for name in folders if name not in _SKIPPED]
            files = [name for name in files if name not in _SKIPPED]
        for name in files:
            path = f"{directory}/{name}"
            try:
                about = os.lstat(path)
            except OSError:  # unplugged meanwhile
                continue
            if stat.S_IFMT(about.st_mode) in {stat.S_IFCHR, stat.S_IFBLK}:
                found.append(Device(path, path))
    return tuple(found[:_MAX_DEVICES])


def _readable_devices() -> tuple[Device, ...]:
    return tuple(device for device in _all_devices() if os.access(device.source, os.R_OK | os.W_OK))


def allowed_rules(spec: Spec, options: RunOptions) -> tuple[DeviceRule, ...] | None:
    """Return the rules for a device control group, or None where nodev and binds say it all."""
    if spec.privileged or spec.id_maps is not None:
        limited = [device for device in options.devices if set(device.permissions) != set("rwm")]
        if limited and spec.id_maps is not None:
            raise UnsupportedError(
                f"device {limited[0].source} with {limited[0].permissions}: "
                "in a user namespace a device is given with rwm or not at all"
            )
        return None
    may_mount = bool(spec.bounding >> NAMES.index("CAP_SYS_ADMIN") & 1)
    limited = [device for device in options.devices if not set("rw") <= set(device.permissions)]
    if not may_mount and not limited:
        return None
    return (*DEFAULT_DEVICE_RULES, *(_rule(device) for device in options.devices))


def _rule(device: Device) -> DeviceRule:
    try:
        about = os.stat(device.source)
    except OSError as error:
        raise UnsupportedError(f"device {device.source}: {error.strerror}") from None
    return DeviceRule(
        "b" if stat.S_ISBLK(about.st_mode) else "c",
        os.major(about.st_rdev),
        os.minor(about.st_rdev),
        device.permissions,
    )
