"""Walking a cgroup and the cgroups that its processes made below it.

Its depth and width were decided inside the container, so the walk holds one descriptor and never a path.
"""

import os
from collections.abc import Iterator

from pyrtc.runtime.cgroups.control_files import read

__all__ = ["has_processes", "names", "post_order", "process_ids", "remove"]

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def names(directory: int) -> list[str]:
    """Return the cgroups directly below a directory."""
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def post_order(directory: int, name: str) -> Iterator[tuple[int, str]]:
    """Yield every cgroup of the tree as (parent directory, name), children before parents.

    The descriptor is valid until the next step.

    Raises
    ------
    FileNotFoundError: the tree does not exist.
    """
    current = os.open(name, _FLAGS, dir_fd=directory)
    try:
        frames = [(name, names(current))]
        while frames:
            leaf, children = frames[-1]
            if children:
                child = children.pop()
                try:
                    below = os.open(child, _FLAGS, dir_fd=current)
                except FileNotFoundError:
                    continue
                os.close(current)
                current = below
                frames.append((child, names(current)))
            else:
                frames.pop()
                above = os.open("..", _FLAGS, dir_fd=current)
                os.close(current)
                current = above
                yield current, leaf
    finally:
        os.close(current)


def process_ids(directory: int, name: str) -> list[int]:
    """Return the processes in a cgroup and below it; those that this pid namespace cannot see are left out."""
    found: list[int] = []
    try:
        for parent, leaf in post_order(directory, name):
            text = read(parent, f"{leaf}/cgroup.procs") or ""
            found += [int(line) for line in text.split() if line != "0"]
    except FileNotFoundError:
        return []
    return found


def has_processes(directory: int, name: str) -> bool:
    """Say whether a process is in a cgroup or below it, be it one that this pid namespace cannot see."""
    return any(read(parent, f"{leaf}/cgroup.procs") for parent, leaf in post_order(directory, name))


def remove(directory: int, name: str) -> None:
    """Remove a cgroup and the cgroups below it; it is fine when it is gone already.

    Raises
    ------
    OSError: EBUSY where processes are left in it.
    """
    try:
        os.rmdir(name, dir_fd=directory)
    except FileNotFoundError:
        return
    except OSError:
        for parent, leaf in post_order(directory, name):
            os.rmdir(leaf, dir_fd=parent)
