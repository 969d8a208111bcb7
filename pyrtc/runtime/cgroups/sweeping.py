"""Removing what dead containers left behind."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from pyrtc.errors import ContainerError, ContainerNotFound, UsageError
from pyrtc.runtime.cgroups import tree
from pyrtc.runtime.cgroups.cgroup import DEFAULT_PARENT, Cgroup
from pyrtc.runtime.cgroups.hierarchy import Hierarchy, detect

__all__ = ["Swept", "remove_parent", "sweep", "sweep_abandoned"]

ABANDONED_AFTER = 60.0  # seconds: a start puts its first process into new control groups within milliseconds
_EMPTY_LINKS = 2  # of a directory without directories
_LOOKED_AT = 64  # directories at one go, so that a machine full of containers does not pay for it at each start


class Swept(NamedTuple):
    """What `sweep` did: ids of containers whose control groups it removed, and (id, reason) where it could not."""

    removed: tuple[str, ...]
    kept: tuple[tuple[str, str], ...]


def sweep(
    is_alive: Callable[[str], bool], *, parent: str = DEFAULT_PARENT, hierarchy: Hierarchy | None = None
) -> Swept:
    """Remove the control groups of containers that are dead, and kill what is left in them.

    Parameters
    ----------
    is_alive: called with a container's id; a container must be known before its control groups are made.
    """
    hierarchy = hierarchy or detect()
    found: set[str] = set()
    for place in hierarchy.all_places():
        place.forget(parent)
        if directory := place.find_parent(parent):
            found.update(tree.names(directory.fd))
    removed, kept = [], []
    for container_id in sorted(found):
        if is_alive(container_id):
            continue
        try:
            Cgroup.open(container_id, parent=parent, hierarchy=hierarchy).remove()
            removed.append(container_id)
        except ContainerNotFound:
            pass
        except (ContainerError, UsageError, OSError) as error:
            kept.append((container_id, str(error)))
    return Swept(tuple(removed), tuple(kept))


def sweep_abandoned(
    *,
    older_than: float = ABANDONED_AFTER,
    parent: str = DEFAULT_PARENT,
    hierarchy: Hierarchy | None = None,
) -> tuple[str, ...]:
    """Remove control groups in which there has been no process for a while; return their names.

    Their containers are dead, and the store that knew them may be gone with all that it could tell.

    Parameters
    ----------
    older_than: seconds since they were made.
    """
    hierarchy = hierarchy or detect()
    now, removed = time.time(), set[str]()
    for place in hierarchy.all_places():
        place.forget(parent)
        directory = place.find_parent(parent)
        if directory is None:
            continue
        for name in tree.names(directory.fd)[:_LOOKED_AT]:
            with suppress(OSError):  # EBUSY: somebody is in it
                status = os.stat(name, dir_fd=directory.fd)
                if now - status.st_ctime <= older_than:
                    continue
                if status.st_nlink == _EMPTY_LINKS:
                    os.rmdir(name, dir_fd=directory.fd)
                elif tree.has_processes(directory.fd, name):
                    continue  # what is empty in it is the container's
                else:
                    tree.remove(directory.fd, name)
                removed.add(name)
    return tuple(sorted(removed))


def remove_parent(parent: str = DEFAULT_PARENT, *, hierarchy: Hierarchy | None = None) -> None:
    """Remove the parent cgroups where no container is left in them; the next container makes them again."""
    for place in (hierarchy or detect()).all_places():
        place.remove_parent(parent)
