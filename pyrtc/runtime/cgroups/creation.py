"""Making a container's control groups: which hierarchies it needs, the directories in them, the limits."""

from typing import TYPE_CHECKING

from pyrtc.errors import ContainerError, LimitError, StartError, reason
from pyrtc.runtime.cgroups import device_filter, v1, v2
from pyrtc.runtime.cgroups.limits import Controller, Limits
from pyrtc.runtime.cgroups.node import Node, Refuse
from pyrtc.runtime.cgroups.place import Directory, Place

if TYPE_CHECKING:
    from pyrtc.runtime.cgroups.cgroup import Cgroup

__all__ = ["make_directories"]

# Counting what nobody limits costs little on version 2 and makes the statistics whole.
_COUNTED: tuple[Controller, ...] = ("memory", "pids")


def make_directories(
    group: "Cgroup", limits: Limits, parent: str, *, best_effort: bool, accounting: bool
) -> tuple[str, ...]:
    """Make the directories of a container's control groups and set its limits; see `Cgroup.create`.

    Returns
    -------
    What was left out for best_effort, in words.
    """
    hierarchy = group.hierarchy
    unified = hierarchy.unified
    refusals: list[str] = []

    def refuse(name: str, why: str, remedy: str) -> None:
        value = getattr(limits, name)
        shown = ", ".join(map(_shown, value)) if isinstance(value, tuple) else value
        text = f"cannot limit {name} to {shown}: {why}" + (f"; {remedy}" if remedy else "")
        if not best_effort:
            raise LimitError(f"{text}; or go on without this limit with --best-effort (best_effort=True)")
        if text not in refusals:
            refusals.append(text)

    wanted: dict[int, tuple[Place, list[Controller]]] = {}
    for controller in limits.controllers:
        place = hierarchy.places.get(controller)
        if place is None:
            for name in limits.given(controller):
                refuse(name, *hierarchy.missing[controller])
        else:
            wanted.setdefault(id(place), (place, []))[1].append(controller)

    also: list[str] = [*_COUNTED, "io"] if accounting else []
    if unified is None:
        also += ["freezer", "cpuacct"]  # in place of what the unified hierarchy gives: kill, freeze, CPU time
    for name in also:
        if place := hierarchy.places.get(name):
            wanted.setdefault(id(place), (place, []))

    if unified is not None:
        _, controllers = wanted.pop(id(unified), (unified, []))
        _make_unified(group, unified, parent, controllers, limits, refuse, also)
    for place, controllers in wanted.values():
        _make_v1(group, place, parent, controllers, limits, refuse)
    return tuple(refusals)


def _make_unified(
    group: "Cgroup",
    place: Place,
    parent: str,
    controllers: list[Controller],
    limits: Limits,
    refuse: Refuse,
    also: list[str],
) -> None:
    failed: dict[str, OSError] = {}
    needed: list[str] = [name for name in controllers if name != "devices"]
    counted = dict.fromkeys((*_COUNTED, *also))
    needed += [name for name in counted if name in place.controllers and name not in needed]

    def enable(directory: Directory) -> None:
        for name in needed:
            if name not in directory.enabled and name not in failed:
                try:
                    place.enable(parent, directory, name)
                except OSError as error:
                    failed[name] = error

    try:
        directory = place.make(parent, group.container_id, enable)
    except FileExistsError:
        raise _taken(group, place, parent) from None
    except OSError as error:
        raise StartError(
            f"cannot make a control group in {place.base}/{parent}: {reason(error.errno or 0)}",
            step="make the control group",
            errno=error.errno or 0,
        ) from error
    node = Node(place, directory, group.container_id)
    group.add(node)
    for controller in controllers:
        if failure := failed.get(controller):
            for name in limits.given(controller):
                refuse(name, f"{place.base} cannot pass the controller on: {reason(failure.errno or 0)}", "")
        elif controller == "devices":
            try:
                device_filter.attach(group.into_fd or 0, limits.devices or ())
            except LimitError as refused:
                refuse("devices", str(refused), "it takes the capability CAP_BPF or root")
        else:
            node.apply(v2.settings(controller, limits), refuse)


def _make_v1(
    group: "Cgroup",
    place: Place,
    parent: str,
    controllers: list[Controller],
    limits: Limits,
    refuse: Refuse,
) -> None:
    try:
        directory = place.make(parent, group.container_id)
        group.add(node := Node(place, directory, group.container_id))
        if "cpuset" in place.controllers:
            v1.inherit_cpuset(directory.fd, group.container_id)
    except FileExistsError:
        raise _taken(group, place, parent) from None
    except OSError as error:
        for controller in controllers:
            for name in limits.given(controller):
                refuse(name, f"no cgroup can be made in {place.base}/{parent}: {reason(error.errno or 0)}", "")
        return
    for controller in controllers:
        node.apply(v1.settings(controller, limits), refuse)


def _taken(group: "Cgroup", place: Place, parent: str) -> ContainerError:
    return ContainerError(
        f"the control group {place.base}/{parent}/{group.container_id} exists already: a container of this name"
        " runs, or one that died was not swept up"
    )


def _shown(item: object) -> str:
    """Write a rate of a device as it was asked for, a rule for devices as it reads."""
    return ":".join(map(str, item)) if isinstance(item, tuple) else str(item)
