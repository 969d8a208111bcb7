"""One container's control groups: made, read, stopped and removed as one thing."""

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pyrtc.errors import ContainerError, ContainerNotFound, UnsupportedError, UsageError
from pyrtc.runtime.cgroups import v1, v2
from pyrtc.runtime.cgroups.creation import make_directories
from pyrtc.runtime.cgroups.hierarchy import Hierarchy, detect
from pyrtc.runtime.cgroups.limits import Limits
from pyrtc.runtime.cgroups.node import Node, find
from pyrtc.runtime.cgroups.place import Directory

if TYPE_CHECKING:
    from pyrtc.runtime.cgroups.stats import CgroupStats

__all__ = ["DEFAULT_PARENT", "Cgroup"]

DEFAULT_PARENT = "pyrtc"

# On the directory in the unified hierarchy: it goes when that goes. The kernel keeps user.* there since 5.7, which is
# also what it takes to be born in a cgroup.
_ENTERED_MORE = "user.pyrtc.entered"


class Cgroup:
    """The control groups of one container.

    In every hierarchy that is needed there is one directory ``<parent>/<container id>``: in the unified hierarchy
    wherever there is one (to kill, freeze and measure, and to be born in), on version 1 where a limit needs its
    controller. On a machine with version 1 only, the freezer takes the part of the unified hierarchy.

    Attributes
    ----------
    container_id: whose they are.
    warnings: limits that could not be had and were left out because best_effort was asked for, in words.
    """

    __slots__ = (
        "_into_fd",
        "_nodes",
        "_parent",
        "_shared",
        "_tasks_fds",
        "_tracker",
        "container_id",
        "hierarchy",
        "warnings",
    )

    def __init__(self, container_id: str, hierarchy: Hierarchy, parent: str = "") -> None:
        """Start without any directory; use `create` or `open`."""
        self.container_id = container_id
        self._parent = parent
        self.hierarchy = hierarchy
        self.warnings: tuple[str, ...] = ()
        self._nodes: list[Node] = []
        self._shared: list[Node] = []
        self._tracker: Node | None = None
        self._into_fd: int | None = None
        self._tasks_fds: tuple[int, ...] | None = None

    # ---- making and finding --------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        container_id: str,
        limits: Limits = Limits(),
        *,
        parent: str = DEFAULT_PARENT,
        best_effort: bool = False,
        accounting: bool = False,
        hierarchy: Hierarchy | None = None,
    ) -> "Cgroup":
        """Make a container's control groups and set its limits.

        Parameters
        ----------
        parent: the cgroup in which they are made, relative to what this user may use.
        best_effort: leave out what cannot be had and say so in `warnings`.
        accounting: count memory and processes also where no limit needs it; on version 1 each of these costs
            another directory, on version 2 they are counted anyway.

        Raises
        ------
        LimitError: a limit cannot be had; names it, the reason and the remedy.
        ContainerError: control groups with this name exist.
        StartError: the kernel refuses a new cgroup.
        UsageError: a name or block device that does not exist. Nothing is left behind after any of these.
        """
        group = cls(_check_id(container_id), hierarchy or detect(), parent)
        try:
            group.warnings = make_directories(group, limits, parent, best_effort=best_effort, accounting=accounting)
        except BaseException:
            group._discard()
            raise
        return group

    @classmethod
    def open(cls, container_id: str, *, parent: str = DEFAULT_PARENT, hierarchy: Hierarchy | None = None) -> "Cgroup":
        """Find the control groups of a container that was made before, perhaps by another process.

        Raises
        ------
        ContainerNotFound: there are none.
        """
        group = cls(_check_id(container_id), hierarchy or detect())
        for place in group.hierarchy.all_places():
            if node := find(place, parent, container_id):
                group.add(node)
        if not group._nodes:
            raise ContainerNotFound(f"there is no control group of container {container_id} in {parent}")
        return group

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Its directory in each hierarchy that it is in."""
        return tuple(self._nodes)

    def adopt(self, node: Node) -> None:
        """Take a directory that was made for it later, and note that for who knows only the earlier ones."""
        self.add(node)
        if self._tracker is not None and self._tracker.place.version == 2:
            os.setxattr(self._tracker.path, _ENTERED_MORE, b"1")

    def add(self, node: Node) -> None:
        """Take a directory that was made for it."""
        self._nodes.append(node)
        hierarchy = self.hierarchy
        if node.place is (hierarchy.unified or hierarchy.places.get("freezer")):
            self._tracker = node

    def _discard(self) -> None:
        """Remove what was just made; no process has entered it yet."""
        self.close()
        for node in self._nodes:
            with suppress(OSError):
                os.rmdir(node.name, dir_fd=node.parent.fd)

    # ---- what a new process needs --------------------------------------------------------------------------------

    @property
    def into_fd(self) -> int | None:
        """The directory for CLONE_INTO_CGROUP; None on a machine with version 1 only. It stays this object's."""
        if self._into_fd is None and self.hierarchy.unified is not None and self._tracker is not None:
            node = self._tracker
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            self._into_fd = os.open(node.name, flags, dir_fd=node.parent.fd)
        return self._into_fd

    @property
    def tasks_fds(self) -> tuple[int, ...]:
        """The version 1 ``tasks`` files: a thread that writes 0 there enters. They stay this object's."""
        if self._tasks_fds is None:
            opened: list[int] = []
            try:
                for node in (*self._nodes, *self._shared):
                    if node.place.version == 1:
                        opened.append(v1.tasks_file(node.parent.fd, node.name))
            except BaseException:
                for fd in opened:
                    os.close(fd)
                raise
            self._tasks_fds = tuple(opened)
        return self._tasks_fds

    def subgroup(self, name: str) -> "Cgroup":
        """Make a group inside the container's for some of its processes, such as those of one exec.

        They share the container's limits and are killed, frozen and measured (CPU time) apart; killing, freezing and
        removing the container includes them.

        Raises
        ------
        ContainerError: the name is taken, or the container is gone.
        UnsupportedError: there is no hierarchy to do it with.
        """
        node = self._tracking("make a group in")
        group = Cgroup(_check_id(name), self.hierarchy)
        try:
            directory = Directory(node.path)
            os.mkdir(name, 0o755, dir_fd=directory.fd)
        except FileExistsError:
            raise ContainerError(f"the control group {node.path}/{name} exists already") from None
        except FileNotFoundError:
            raise ContainerError(f"container {self.container_id} is gone: it has no control group any more") from None
        group.add(Node(node.place, directory, name))
        group._shared = [other for other in self._nodes if other is not node]
        return group

    @property
    def kill_path(self) -> str | None:
        """The file that kills every process of it, where the kernel has one: version 2 from Linux 5.14 on."""
        node = self._tracker
        return f"{node.path}/cgroup.kill" if node is not None and node.place.version == 2 else None

    def remove_empty(self) -> bool:
        """Remove the directories if no process is in them; say whether that could be done."""
        self.close()
        self._nodes = [node for node in self._nodes if not node.remove()]
        return not self._nodes

    def mounts(self) -> tuple[tuple[str, str], ...]:
        """Return what the container should see below /sys/fs/cgroup: (name there, path of its own cgroup).

        The name is "" where the unified hierarchy is /sys/fs/cgroup itself.
        """
        alone = self.hierarchy.mode == "v2"
        return tuple(
            (node.place.name if node.place.version == 1 else "" if alone else "unified", node.path)
            for node in self._nodes
        )

    def close(self) -> None:
        """Close the descriptors for new processes; everything else goes on working."""
        if self._into_fd is not None:
            os.close(self._into_fd)
            self._into_fd = None
        for fd in self._tasks_fds or ():
            os.close(fd)
        self._tasks_fds = None

    def __enter__(self) -> "Cgroup":
        """Return itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close the descriptors; the cgroups stay."""
        self.close()

    # ---- measuring -----------------------------------------------------------------------------------------------

    def stats(self) -> "CgroupStats":
        """Return what the container has used so far; before `remove` also when all its processes are dead."""
        from pyrtc.runtime.cgroups.stats import CgroupStats

        found: dict[str, Any] = {}
        for node in self._nodes:
            if node.place.version == 2:
                found.update(v2.stats(node.parent.fd, node.name))
            else:
                for own in node.place.controllers:
                    found.update(v1.stats(v1.NAMES.get(own, own), node.parent.fd, node.name))
        return CgroupStats(**found)

    @property
    def memory_kills(self) -> int:
        """How many processes of it the kernel killed for want of memory. Ask before `remove`."""
        count = 0
        for node in self._nodes:
            if node.place.version == 2:
                count += v2.oom_kills(node.parent.fd, node.name) or 0
            elif "memory" in node.place.controllers:
                count += v1.oom_kills(node.parent.fd, node.name) or 0
        return count

    @property
    def cpu_seconds(self) -> float | None:
        """CPU time of all its processes, the dead ones included; None where nothing counts it."""
        for node in self._nodes:
            if node.place.version == 2:
                return v2.cpu_seconds(node.parent.fd, node.name)
        return None

    @property
    def path(self) -> str | None:
        """The directory that holds all its processes; None where only limits have one."""
        return self._tracker.path if self._tracker else None

    def oom_events(self) -> int | None:
        """Return a descriptor, the caller's, of the file whose line ``oom_kill`` counts; None where nothing counts."""
        for node in self._nodes:
            if "memory" in node.place.controllers:
                name = "memory.events" if node.place.version == 2 else "memory.oom_control"
                with suppress(FileNotFoundError):  # the controller is not passed on
                    return os.open(f"{node.name}/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=node.parent.fd)
        return None

    def process_ids(self) -> tuple[int, ...]:
        """Return the processes of the container, in no order, as this pid namespace numbers them."""
        node = self._tracker or next(iter(self._nodes), None)
        return tuple(node.process_ids()) if node else ()

    # ---- stopping ------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """Send SIGKILL to every process of the container, also to those that are forking or frozen right now.

        Returns when the signals are sent; `wait_empty` waits for the deaths.

        Raises
        ------
        UnsupportedError: there is no hierarchy that could tell which processes these are.
        """
        self._tracking("kill").kill()

    def wait_empty(self, timeout: float | None = None) -> bool:
        """Wait until no process is left in it; False when `timeout` seconds passed before."""
        return self._tracking("wait for").wait_empty(timeout)

    def freeze(self, timeout: float = 10.0) -> None:
        """Stop every process where it is, and wait until all are stopped.

        Raises
        ------
        ContainerError: after `timeout` seconds one still runs; all are resumed then.
        UnsupportedError: there is no hierarchy to do it with.
        """
        node = self._tracking("freeze")
        if not node.freeze(timeout):
            node.thaw()
            raise ContainerError(
                f"cannot freeze container {self.container_id}: after {timeout:g} s a process is still in the middle of"
                " a system call that cannot be stopped; all processes run again"
            )

    def thaw(self) -> None:
        """Let every process go on.

        Raises
        ------
        UnsupportedError: there is no hierarchy to do it with.
        """
        self._tracking("thaw").thaw()

    @property
    def frozen(self) -> bool:
        """Whether every process is stopped by `freeze`."""
        return self._tracker is not None and self._tracker.frozen

    def _tracking(self, action: str) -> Node:
        if self._tracker is None:
            if self.hierarchy.unified or "freezer" in self.hierarchy.places:
                raise ContainerError(f"cannot {action} container {self.container_id}: its control groups are removed")
            why, remedy = self.hierarchy.missing.get("freezer") or self.hierarchy.missing.get("memory") or ("", "")
            raise UnsupportedError(
                f"cannot {action} container {self.container_id} through control groups: neither the unified hierarchy"
                f" nor the freezer holds it" + (f": {why}; {remedy}" if why else "")
            )
        return self._tracker

    # ---- removing ------------------------------------------------------------------------------------------------

    def remove(self, timeout: float = 5.0) -> None:
        """Remove every directory of the container, and kill what is left in it first.

        Raises
        ------
        ContainerError: after `timeout` seconds a process will still not die.
        """
        self.close()
        if self._has_entered_more():
            known = {id(node.place) for node in self._nodes}
            found = (find(place, self._parent, self.container_id) for place in self.hierarchy.all_places())
            self._nodes += [node for node in found if node is not None and id(node.place) not in known]
        left = sorted(self._nodes, key=lambda node: node is self._tracker)
        # When the last process was waited for, which is the rule, one rmdir each is all there is to do.
        left = [node for node in left if not node.remove()]
        if left and self._tracker in left:
            self.kill()
            self.wait_empty(timeout)
        for node in left:
            if not node.kill_and_remove(timeout):
                pids = node.process_ids()
                shown = ", ".join(f"{pid} ({_process_state(pid)})" for pid in pids[:5])
                raise ContainerError(
                    f"cannot remove the control group {node.path}: after {timeout:g} s it still holds"
                    f" {f'process {shown}' if shown else 'a cgroup'}"
                )
        self._nodes.clear()
        self._tracker = None

    def _has_entered_more(self) -> bool:
        """Whether another process has put it into hierarchies that this object does not know of (`adopt`)."""
        if not self._parent or self._tracker is None:
            return False
        if self._tracker.place.version == 1:  # nothing can be noted there
            return True
        try:
            return bool(os.getxattr(self._tracker.path, _ENTERED_MORE))
        except OSError:
            return False


def _check_id(container_id: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w-]{0,127}", container_id, re.ASCII):
        raise UsageError(f"invalid container id {container_id!r}")
    return container_id


def _process_state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
    except OSError:
        return "gone"
    states = {"D": "in an uninterruptible system call", "Z": "dead, not waited for"}
    return f"{name}, {states.get(rest.split()[0], 'state ' + rest.split()[0])}"
