"""Other limits for a container that runs.

Where a limit needs a version 1 hierarchy that the container is not in, because none of its first limits needed it, a
cgroup is made there and its processes enter it.
"""

import errno
import os
from contextlib import suppress

from pyrtc.errors import ContainerError, LimitError, reason
from pyrtc.runtime.cgroups import v1, v2
from pyrtc.runtime.cgroups.cgroup import DEFAULT_PARENT, Cgroup
from pyrtc.runtime.cgroups.control_files import Setting, as_int, read, write
from pyrtc.runtime.cgroups.limits import Controller, Limits, block_device_number
from pyrtc.runtime.cgroups.node import GONE, Node, Refuse
from pyrtc.runtime.cgroups.place import Place

__all__ = ["update"]

_UPDATED: tuple[Controller, ...] = ("cpu", "cpuset", "memory", "pids", "io")  # devices are decided at the start
_ROUNDS = 100  # of looking for processes that were forked while the others entered
_MEMSW = "memory.memsw.limit_in_bytes"

# What takes a limit away: (field of Limits, files of which the first that exists gets the text), for both versions.
_LIFTED_V1: dict[str, tuple[tuple[str, str], ...]] = {
    "cpus": (("cpu.cfs_quota_us", "-1"),),
    "cpu_shares": (("cpu.shares", "1024"),),
    "memory_swap": ((_MEMSW, "-1"),),
    "memory": (("memory.limit_in_bytes", "-1"),),
    "memory_reservation": (("memory.soft_limit_in_bytes", "-1"),),
    "pids": (("pids.max", "max"),),
    "blkio_weight": (("blkio.bfq.weight", "100"), ("blkio.weight", "500")),
}
_LIFTED_V2: dict[str, tuple[tuple[str, str], ...]] = {
    "cpus": (("cpu.max", "max 100000"),),
    "cpu_shares": (("cpu.weight", "100"),),
    "cpuset_cpus": (("cpuset.cpus", ""),),
    "cpuset_mems": (("cpuset.mems", ""),),
    "memory_swap": (("memory.swap.max", "max"),),
    "memory": (("memory.max", "max"),),
    "memory_reservation": (("memory.low", "0"),),
    "pids": (("pids.max", "max"),),
    "blkio_weight": (("io.bfq.weight", "100"), ("io.weight", "default 100")),
}


def update(group: Cgroup, old: Limits, new: Limits, *, parent: str = DEFAULT_PARENT) -> tuple[str, ...]:
    """Let new limits hold for a container, in place of old ones; devices are left as they are.

    Returns what is other than one may expect, in words.

    Raises
    ------
    LimitError: one cannot be had; the old ones hold again. ContainerError: the container has ended meanwhile.
    """
    warnings: list[str] = []
    touched: list[Controller] = []
    try:
        for controller in _UPDATED:
            if _of(controller, old) != _of(controller, new):
                touched.append(controller)
                warnings += _apply(group, controller, old, new, parent)
    except BaseException:
        for controller in touched:
            with suppress(LimitError, ContainerError, OSError):
                _apply(group, controller, new, old, parent)
        raise
    return tuple(warnings)


_FIELDS: dict[Controller, tuple[str, ...]] = {
    "cpu": ("cpus", "cpu_shares"),
    "cpuset": ("cpuset_cpus", "cpuset_mems"),
    "memory": ("memory_swap", "memory", "memory_reservation"),
    "pids": ("pids",),
    "io": ("blkio_weight", "device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops"),
}


def _of(controller: Controller, limits: Limits) -> tuple[object, ...]:
    return tuple(_value(limits, name) for name in _FIELDS[controller])


def _value(limits: Limits, name: str) -> object:
    if name == "memory_swap":
        return limits.swap_total
    value = getattr(limits, name)
    return None if name == "pids" and value is not None and value <= 0 else value


def _apply(group: Cgroup, controller: Controller, old: Limits, new: Limits, parent: str) -> list[str]:
    place = group.hierarchy.places.get(controller)
    changed = [name for name in _FIELDS[controller] if _value(old, name) != _value(new, name)]

    def refuse(name: str, why: str, remedy: str) -> None:
        shown = _value(new, name) if name != "memory_swap" else new.memory_swap
        raise LimitError(f"cannot limit {name} to {shown}: {why}{f'; {remedy}' if remedy else ''}")

    if place is None:
        refuse(changed[0], *group.hierarchy.missing[controller])
        raise AssertionError("refused")
    warnings: list[str] = []
    node = next((node for node in group.nodes if node.place is place), None)
    try:
        if node is None:
            node = _enter(group, place, parent)
            if controller == "memory":
                warnings.append(
                    "memory that its processes have already is not counted: they were not in this control group"
                )
        elif place.version == 2 and controller not in node.parent.enabled:
            place.enable(parent, node.parent, controller)
        _write(node, controller, changed, old, new, refuse)
    except OSError as error:
        if error.errno in GONE and not group.process_ids():
            raise ContainerError(f"container {group.container_id} has ended meanwhile") from error
        refuse(changed[0], f"{place.base}/{parent}: {reason(error.errno or 0)}", "")
    return warnings


def _write(node: Node, controller: Controller, changed: list[str], old: Limits, new: Limits, refuse: Refuse) -> None:
    version = v1 if node.place.version == 1 else v2
    settings = [setting for setting in version.settings(controller, new) if _wanted(setting, changed, new)]
    lifted = [name for name in changed if _value(new, name) in (None, ())]
    if node.place.version == 1 and controller == "memory" and _raises(node, new):
        # RAM stays below RAM and swap at every moment: what grows, grows from the outside.
        settings.sort(key=lambda setting: setting.choices[0][0] != _MEMSW)
    node.apply([*_lifting(node, controller, lifted), *_devices_gone(node, changed, old, new), *settings], refuse)


def _wanted(setting: Setting, changed: list[str], new: Limits) -> bool:
    if setting.limit == "pids" and (new.pids or 0) <= 0:
        return False
    if setting.limit in ("memory", "memory_swap"):  # version 2 writes their difference
        return "memory" in changed or "memory_swap" in changed
    return setting.limit in changed


def _raises(node: Node, new: Limits) -> bool:
    now = as_int(read(node.parent.fd, f"{node.name}/{_MEMSW}"))
    return now is not None and new.memory is not None and new.memory > now


def _lifting(node: Node, controller: Controller, names: list[str]) -> list[Setting]:
    table = _LIFTED_V1 if node.place.version == 1 else _LIFTED_V2
    found = [Setting(name, table[name], "") for name in names if name in table]
    if node.place.version == 1 and controller == "cpuset":
        for name in names:
            file = name.replace("_", ".")
            found.append(Setting(name, ((file, (read(node.parent.fd, file) or "").strip()),)))
    return found


def _devices_gone(node: Node, changed: list[str], old: Limits, new: Limits) -> list[Setting]:
    """Return what frees the devices that had a rate and have none any more."""
    found = []
    for name in changed:
        if not name.startswith("device_"):
            continue
        _, direction, unit = name.split("_")
        for device, _rate in getattr(old, name):
            if device in dict(getattr(new, name)):
                continue
            number = block_device_number(device)
            if node.place.version == 1:
                found.append(Setting(name, ((f"blkio.throttle.{direction}_{unit}_device", f"{number} 0"),)))
            else:
                found.append(Setting(name, (("io.max", f"{number} {direction[0]}{unit}=max"),)))
    return found


def _enter(group: Cgroup, place: Place, parent: str) -> Node:
    """Make the container's cgroup in a version 1 hierarchy that it is not in, and move its processes there.

    Raises
    ------
    OSError: the kernel refuses. ContainerError: it starts processes faster than they can be moved.
    """
    with suppress(FileExistsError):  # an update before this one was killed, or failed
        place.make(parent, group.container_id)
    node = Node(place, place.parent(parent), group.container_id)
    if "cpuset" in place.controllers:
        v1.inherit_cpuset(node.parent.fd, node.name)
    group.adopt(node)
    for _round in range(_ROUNDS):
        # Forked processes are where their parents were; so it is done when there is nobody left to move.
        outside = set(group.process_ids()) - set(node.process_ids())
        if not outside:
            return node
        for pid in outside:
            try:
                write(node.parent.fd, f"{node.name}/cgroup.procs", str(pid))
            except ProcessLookupError:
                continue
            except OSError as error:
                if error.errno != errno.EINVAL or os.path.exists(f"/proc/{pid}"):
                    raise
    raise ContainerError(
        f"container {group.container_id} starts processes faster than they can be moved: pause it meanwhile"
    )
