"""Where this machine's control groups are, and what this user may do with them.

A machine has version 1 (a mounted tree per controller or group of controllers), version 2 (one tree), or both at once
(hybrid). Which controllers are where, and in which directory of each tree a new cgroup may be made, is found out once.
"""

import contextlib
import errno
import functools
import os
import re
import threading
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from pyrtc.errors import UsageError
from pyrtc.runtime.cgroups import v1
from pyrtc.runtime.cgroups.control_files import read, write
from pyrtc.runtime.cgroups.limits import CONTROLLERS

__all__ = ["CgroupMount", "Directory", "Hierarchy", "Place", "detect", "read_mounts"]

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


class Directory:
    """An open parent cgroup; closed when the last user of it is gone.

    Attributes
    ----------
    fd: the directory, for system calls relative to it.
    path: the same for mounts and messages.
    enabled: version 2 controllers that its children have.
    """

    __slots__ = ("enabled", "fd", "path")

    def __init__(self, path: str) -> None:
        """Open the directory."""
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.enabled: set[str] = set()

    def __del__(self) -> None:
        """Give the descriptor back."""
        fd = getattr(self, "fd", -1)
        if fd >= 0:
            os.close(fd)


class Place:
    """One hierarchy and the directory in which this user may make cgroups.

    Attributes
    ----------
    version: 1 or 2.
    mount: the mount point.
    base: the directory below which pyrtc's parent cgroup is made.
    controllers: what can be limited here; version 1 names.
    """

    __slots__ = ("_lock", "_parents", "base", "controllers", "mount", "version")

    def __init__(self, version: Literal[1, 2], mount: str, base: str, controllers: frozenset[str]) -> None:
        """Open nothing yet."""
        self.version = version
        self.mount = mount
        self.base = base
        self.controllers = controllers
        self._parents: dict[str, Directory] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """What this hierarchy is called below /sys/fs/cgroup."""
        return os.path.basename(self.mount)

    def parent(self, name: str) -> Directory:
        """Return the parent cgroup, made on first use and kept open.

        Raises
        ------
        OSError: it cannot be made.
        """
        return self._parents.get(name) or self._open_parent(name, make=True)

    def find_parent(self, name: str) -> Directory | None:
        """Return the parent cgroup if it exists."""
        try:
            return self._parents.get(name) or self._open_parent(name, make=False)
        except FileNotFoundError:
            return None

    def _open_parent(self, name: str, *, make: bool) -> Directory:
        with self._lock:
            path = self.base
            for part in check_parent(name).split("/"):
                upper, path = path, f"{path}/{part}"
                if make:
                    _mkdir(path)
                    if self.version == 1 and "cpuset" in self.controllers:
                        above = Directory(upper)
                        v1.inherit_cpuset(above.fd, part)
            directory = Directory(path)
            if self.version == 2:
                directory.enabled.update((read(directory.fd, "cgroup.subtree_control") or "").split())
            self._parents[name] = directory
            return directory

    def make(self, parent: str, name: str, prepare: Callable[[Directory], None] | None = None) -> Directory:
        """Make the cgroup `name` in the parent cgroup and return the parent.

        Another process may remove an empty parent at any moment; then it is made again. `prepare` is called with the
        parent before.

        Raises
        ------
        OSError: it cannot be made; FileExistsError where the name is taken.
        """
        for attempt in range(4):
            directory = self.parent(parent)
            if prepare is not None:
                prepare(directory)
            try:
                os.mkdir(name, 0o755, dir_fd=directory.fd)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENODEV) or attempt == 3:
                    raise
                self._parents.pop(parent, None)
            else:
                return directory
        raise AssertionError("the loop returns or raises")

    def enable(self, parent: str, directory: Directory, controller: str) -> None:
        """Give the children of the parent cgroup a version 2 controller.

        Raises
        ------
        OSError: the kernel refuses; EBUSY where a cgroup on the way holds processes itself.
        """
        with self._lock:
            path = self.base
            for part in ("", *parent.split("/")):
                path = f"{path}/{part}".rstrip("/")
                above = Directory(path)
                if controller not in (read(above.fd, "cgroup.subtree_control") or "").split():
                    write(above.fd, "cgroup.subtree_control", f"+{controller}")
            directory.enabled.add(controller)

    def forget(self, parent: str) -> None:
        """Drop the open parent cgroup: it may have been removed."""
        self._parents.pop(parent, None)

    def remove_parent(self, parent: str) -> bool:
        """Remove the parent cgroup if it is empty; True when it is gone."""
        with self._lock:
            self._parents.pop(parent, None)
            parts = check_parent(parent).split("/")
            for count in range(len(parts), 0, -1):
                try:
                    os.rmdir("/".join((self.base, *parts[:count])))
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                        raise
                    return count < len(parts)
        return True


def _mkdir(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o755)


def check_parent(name: str) -> str:
    """Return the name of a parent cgroup if it is one: relative, without tricks.

    Raises
    ------
    UsageError: the name leads elsewhere.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.@:-]*(/[A-Za-z0-9][\w.@:-]*){0,7}", name, re.ASCII):
        raise UsageError(f"invalid parent cgroup {name!r}: it reads like `pyrtc` or `batch/pyrtc`")
    return name


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
