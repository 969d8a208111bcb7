"""Where this machine's control groups are, and what this user may do with them.

A machine has version 1 (a mounted tree per controller or group of controllers), version 2 (one tree), or both at once
(hybrid). Which controllers are where, and in which directory of each tree a new cgroup may be made, is found out once.
"""

import functools
import os
import re
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from pyrtc.runtime.cgroups import v1
from pyrtc.runtime.cgroups.limits import CONTROLLERS
from pyrtc.runtime.cgroups.place import Place

__all__ = ["CgroupMount", "Hierarchy", "detect", "read_mounts"]

_DELEGATE = "run as root, or inside `systemd-run --user --scope -p Delegate=yes ...`"


class CgroupMount(NamedTuple):
    """One mounted hierarchy.

    Attributes
    ----------
    path: the mount point.
    root: the cgroup of the hierarchy that the mount point shows.
    version: 1 or 2.
    controllers: the v1 controllers of this hierarchy, by their own names (blkio, cpuacct); empty for version 2.
    writable: False for a read-only mount.
    """

    path: str
    root: str
    version: Literal[1, 2]
    controllers: frozenset[str] = frozenset()
    writable: bool = True


class Hierarchy(NamedTuple):
    """What this machine offers this user.

    Attributes
    ----------
    mode: ``v1``, ``v2``, ``hybrid`` or ``none`` (nothing is mounted).
    unified: the version 2 tree, or None where there is none to use.
    places: for each limit's controller (and ``freezer``, ``cpuacct`` on version 1) where it can be used.
    missing: for each controller that cannot be used, the reason and what to do about it.
    """

    mode: Literal["v1", "v2", "hybrid", "none"]
    unified: Place | None
    places: dict[str, Place]
    missing: dict[str, tuple[str, str]]

    def all_places(self) -> Iterator[Place]:
        """Every usable tree once, the version 1 trees first."""
        seen: set[int] = set()
        for place in (*self.places.values(), self.unified):
            if place is not None and place is not self.unified and id(place) not in seen:
                seen.add(id(place))
                yield place
        if self.unified is not None:
            yield self.unified

    def describe(self) -> str:
        """Say in words what can be limited, where, and why the rest cannot."""
        versions = {"v1": "version 1", "v2": "version 2", "hybrid": "versions 1 and 2", "none": "none mounted"}
        lines = [f"control groups: {versions[self.mode]}"]
        if self.unified is not None:
            lines.append(f"kill, freeze, CPU time: {self.unified.base}")
        for controller in CONTROLLERS:
            if place := self.places.get(controller):
                lines.append(f"{controller}: version {place.version}, {place.base}")
            else:
                why, remedy = self.missing[controller]
                lines.append(f"{controller}: not available: {why}; {remedy}")
        return "\n".join(lines)


@functools.cache
def detect() -> Hierarchy:
    """Find out what this process has, once.

    Raises
    ------
    OSError: /proc is not there.
    """
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mountinfo = file.read()
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        own = file.read()
    return survey(read_mounts(mountinfo, _is_visible), own)


# A forked child must not wait for a lock that was held in its parent, and may close the directories that are kept open.
os.register_at_fork(after_in_child=detect.cache_clear)


def _is_visible(path: str, device: str) -> bool:
    """Say whether the path leads to the mounted file system, and not to something mounted over it."""
    try:
        number = os.stat(path).st_dev
    except OSError:
        return False
    return f"{os.major(number)}:{os.minor(number)}" == device


def read_mounts(
    mountinfo: str, is_visible: Callable[[str, str], bool] = lambda _path, _device: True
) -> list[CgroupMount]:
    """Return the mounted cgroup hierarchies, one mount for each: writable before read-only, more of it before less.

    Parameters
    ----------
    mountinfo: the text of /proc/self/mountinfo (proc_pid_mountinfo(5)).
    is_visible: called with a mount point and its device number; False leaves it out.
    """
    found: dict[str, CgroupMount] = {}
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if not dash or len(fields) < 6 or len(rest) < 3 or rest[0] not in ("cgroup", "cgroup2"):
            continue
        device, root, path, options = fields[2], _unescape(fields[3]), _unescape(fields[4]), fields[5]
        super_options = rest[2].split(",")
        if rest[0] == "cgroup" and any(option.startswith("name=") for option in super_options):
            continue
        mount = CgroupMount(
            path=path,
            root=root,
            version=2 if rest[0] == "cgroup2" else 1,
            controllers=frozenset() if rest[0] == "cgroup2" else frozenset(super_options) - _V1_OPTIONS,
            writable="rw" in options.split(",") and "rw" in super_options,
        )
        rival = found.get(device)
        better = rival is None or (mount.writable, -len(mount.root)) > (rival.writable, -len(rival.root))
        if better and is_visible(path, device):
            found[device] = mount
    return list(found.values())


_V1_OPTIONS = frozenset(
    {"rw", "ro", "all", "none", "clone_children", "noprefix", "xattr", "cpuset_v2_mode", "favordynmods"}
)


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def survey(mounts: list[CgroupMount], own: str) -> Hierarchy:
    """Decide what is usable of the given mounts.

    Parameters
    ----------
    mounts: from `read_mounts`.
    own: the text of /proc/self/cgroup (cgroups(7)).
    """
    places: dict[str, Place] = {}
    missing: dict[str, tuple[str, str]] = {}
    unified: Place | None = None
    for mount in mounts:
        above = _own_directories(mount, own)
        if mount.version == 1:
            base = next((path for path in above if _may_write(path)), None)
            names = {v1.NAMES.get(controller, controller): controller for controller in mount.controllers}
            if base is None:
                missing.update(dict.fromkeys(names, _refusal(mount)))
            else:
                place = Place(1, mount.path, base, mount.controllers)
                places.update(dict.fromkeys(names, place))
        elif unified is None:
            unified, refused = _choose_unified(mount, above)
            missing.update(refused)
            if unified is not None:
                for controller in unified.controllers:
                    places.setdefault(controller, unified)
    if "devices" not in places and unified is not None:
        # A device filter is a BPF program of the cgroup; version 2 has no controller for it.
        places["devices"] = unified
    for controller in CONTROLLERS:
        if controller not in places and controller not in missing:
            missing[controller] = _absence(controller, mounts)
    for controller in places:
        missing.pop(controller, None)
    has_v1 = any(mount.version == 1 for mount in mounts)
    has_v2 = any(mount.version == 2 for mount in mounts)
    mode: Literal["v1", "v2", "hybrid", "none"] = (
        "hybrid" if has_v1 and has_v2 else "v2" if has_v2 else "v1" if has_v1 else "none"
    )
    return Hierarchy(mode, unified, places, missing)


def _own_directories(mount: CgroupMount, own: str) -> list[str]:
    """Return where cgroups may be made, best first: the top of the tree, then this process's own cgroup and upwards.

    An administrator owns the top. Everybody else may own a subtree that was delegated to them, and can only move
    processes within it: it must hold this process.
    """
    found = [mount.path]
    for line in own.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if not (names == "" if mount.version == 2 else bool(set(names.split(",")) & mount.controllers)):
            continue
        prefix = mount.root.rstrip("/")
        if path.startswith("/..") or not (path == prefix or path.startswith(prefix + "/")):
            continue
        parts = [part for part in path[len(prefix) :].split("/") if part]
        found += ["/".join((mount.path, *parts[:count])) for count in range(len(parts), 0, -1)]
    return found


def _may_write(path: str) -> bool:
    return os.access(path, os.W_OK, effective_ids=True)


def _choose_unified(mount: CgroupMount, directories: list[str]) -> tuple[Place | None, dict[str, tuple[str, str]]]:
    """Choose the directory that gives its children the most controllers; the earlier of equals.

    A cgroup that holds processes cannot give controllers to its children (the no-internal-process rule), unless it is
    the root of the whole tree or gives them already.
    """
    best: tuple[str, frozenset[str]] | None = None
    known: set[str] = set()
    crowded: dict[str, str] = {}
    for path in directories:
        controllers = _words(path, "cgroup.controllers")
        known |= controllers
        # Moving a process takes the right to write the list of the cgroup above both its old and its new one.
        if not all(map(_may_write, (path, f"{path}/cgroup.procs", f"{path}/cgroup.subtree_control"))):
            continue
        kind = _text(path, "cgroup.type")
        if kind not in (None, "domain", "domain threaded"):
            continue
        usable = controllers
        if kind is not None and _text(path, "cgroup.procs"):
            usable = _words(path, "cgroup.subtree_control")
            crowded.update(dict.fromkeys(controllers - usable, path))
        if best is None or len(usable) > len(best[1]):
            best = (path, usable)
    if best is None:
        return None, dict.fromkeys(known, _refusal(mount)) if known else {}
    refused = {
        name: (
            f"the cgroup {crowded[name]} holds processes itself and so cannot pass the controller on",
            "start pyrtc in a cgroup of its own whose parent has none, or move them to a sub-group",
        )
        if name in crowded
        else (f"the controller is not delegated to {best[0]}", _DELEGATE)
        for name in known - best[1]
    }
    return Place(2, mount.path, best[0], best[1]), refused


def _text(path: str, file: str) -> str | None:
    try:
        with open(f"{path}/{file}", encoding="ascii") as opened:
            return opened.read().strip()
    except OSError:
        return None


def _words(path: str, file: str) -> frozenset[str]:
    return frozenset((_text(path, file) or "").split())


def _refusal(mount: CgroupMount) -> tuple[str, str]:
    if not mount.writable:
        return f"{mount.path} is mounted read-only", f"remount it writable: mount -o remount,rw {mount.path}"
    return f"user {os.geteuid()} owns no cgroup of {mount.path} that holds this process", _DELEGATE


def _absence(controller: str, mounts: list[CgroupMount]) -> tuple[str, str]:
    """Say why no mounted hierarchy has a controller, from /proc/cgroups."""
    name = next((old for old, new in v1.NAMES.items() if new == controller), controller)
    enabled: dict[str, bool] = {}
    for line in (_text("/proc", "cgroups") or "").splitlines():
        words = line.split()
        if len(words) == 4 and not line.startswith("#"):
            enabled[words[0]] = words[3] == "1"
    if enabled.get(name) is False:
        return "it is switched off at boot", f"boot without cgroup_disable={name}"
    if not mounts:
        return "no control groups are mounted", "mount them: mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    if name in enabled and any(mount.version == 1 for mount in mounts):
        where = f"/sys/fs/cgroup/{name}"
        return "it is not mounted", f"mount it: mkdir {where} && mount -t cgroup -o {name} {name} {where}"
    if name in enabled:
        return "the unified hierarchy does not offer it", "unmount the version 1 hierarchy that holds it"
    return "this kernel was built without it", "use a kernel that has it"
