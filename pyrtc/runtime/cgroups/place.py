"""A directory of one hierarchy in which cgroups are made, kept open from one container to the next."""

import contextlib
import errno
import os
import re
import threading
from collections.abc import Callable
from typing import Literal

from pyrtc.errors import UsageError
from pyrtc.runtime.cgroups import v1
from pyrtc.runtime.cgroups.control_files import read, write

__all__ = ["Directory", "Place", "check_parent"]


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
