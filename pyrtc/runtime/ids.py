"""User namespaces for root's containers: ranges of ids that nobody else has, and namespaces to map mounts with."""

import fcntl
import os
import signal
from collections.abc import Collection

from pyrtc import core
from pyrtc._core import lib
from pyrtc.errors import StartError, UnsupportedError
from pyrtc.ids import IdMaps, Range, write_maps
from pyrtc.runtime.namespaces import CLONE_NEWUSER
from pyrtc.runtime.plan import operation
from pyrtc.store.owner import process_start_time
from pyrtc.values import dataclass

__all__ = [
    "AutomaticRange",
    "Parent",
    "automatic",
    "first_of_range",
    "hold_by",
    "mapped_namespace",
    "read_maps",
    "write_nested_maps",
]

AUTO_COUNT = 65536
# Above what useradd and subuid files give out and systemd-nspawn takes for its containers (0x80000-0x6FFFFFFF), below
# what systemd calls foreign (0x7FFE0000): https://systemd.io/UIDS-GIDS.
AUTO_FIRST = 0x7000_0000
AUTO_SLOTS = 4094
_MAX_RANGES = 340  # of one map, in the kernel


@dataclass(slots=True)
class AutomaticRange:
    """A range of ids that no other container uses while lock_fd is open."""

    maps: IdMaps
    lock_fd: int


def automatic(directory: str, kept: Collection[int] = (), own: int | None = None) -> AutomaticRange:
    """Take a free range of 65536 ids for one container (`--userns auto`); root only.

    The range is held by a lock, which the kernel releases with its last descriptor, so that none is lost by a crash.
    A container that outlives whoever started it holds its range by its first process, see `hold_by`.

    Parameters
    ----------
    kept: first ids of ranges to which files of containers belong that do not run now. own: the first id of the range
    that this container had before, to which what it wrote belongs.

    Raises
    ------
    UnsupportedError: the caller is not root.
    StartError: all ranges are taken, or its own is.
    """
    if os.geteuid() != 0:
        raise UnsupportedError("--userns auto needs root: an ordinary user's containers are in a user namespace anyway")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    slots = range(AUTO_SLOTS) if own is None else [(own - AUTO_FIRST) // AUTO_COUNT]
    for slot in slots:
        first = AUTO_FIRST + slot * AUTO_COUNT
        if own is None and first in kept:
            continue
        fd = os.open(f"{directory}/{slot}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        if _is_held(fd):
            os.close(fd)
            continue
        ids = (Range(0, first, AUTO_COUNT),)
        return AutomaticRange(IdMaps(ids, ids, privileged=True), fd)
    if own is not None:
        raise StartError(
            f"the user ids {own} to {own + AUTO_COUNT - 1}, to which what the container wrote belongs, are in use by "
            "another container: start it again when that has ended"
        )
    raise StartError(f"all {AUTO_SLOTS} ranges for --userns auto are in use")


def first_of_range(host_id: int) -> int:
    """Return the first id of the range that an id of the host's is in.

    A container may give what it made to any id of its range, so only the range of a file's owner tells anything.

    Raises
    ------
    UnsupportedError: it is in none that `automatic` gives out.
    """
    slot, _number = divmod(host_id - AUTO_FIRST, AUTO_COUNT)
    if not 0 <= slot < AUTO_SLOTS:
        raise UnsupportedError(f"the user id {host_id} is in no range for --userns auto")
    return AUTO_FIRST + slot * AUTO_COUNT


def hold_by(lock_fd: int, pid: int, start_time: int) -> None:
    """Let a range be held by a process for as long as that lives."""
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, f"{pid} {start_time}".encode(), 0)


def _is_held(lock_fd: int) -> bool:
    said = os.pread(lock_fd, 64, 0).split()
    return len(said) == 2 and process_start_time(int(said[0])) == int(said[1])


def mapped_namespace(maps: IdMaps, helper_fd: int) -> int:
    """Return a descriptor of a user namespace with these maps, for id-mapped mounts; no process stays in it.

    Raises
    ------
    StartError: the namespace cannot be made.
    """
    child = core.spawn(helper_fd, [operation(lib.PLAN_AWAIT_MAPS)], [-1, -1, -1], CLONE_NEWUSER)
    try:
        write_maps(child.pid, maps)
        return os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        core.reap(child.pidfd)
        os.close(child.pidfd)
        os.close(child.status_fd)


@dataclass(frozen=True, slots=True)
class Parent:
    """A user namespace that others become children of, and its maps."""

    fd: int
    maps: IdMaps


def read_maps(pid: int) -> IdMaps:
    """Return the maps of the user namespace of a process, as this process sees them."""
    uids, gids = (_read_map(f"/proc/{pid}/{kind}_map") for kind in ("uid", "gid"))
    return IdMaps(uids, gids, privileged=False)


def _read_map(path: str) -> tuple[Range, ...]:
    with open(path, "rb") as file:
        lines = file.read().splitlines()[:_MAX_RANGES]
    return tuple(Range(*map(int, line.split())) for line in lines)


def write_nested_maps(pid: int, maps: IdMaps, parent: Parent) -> None:
    """Write the maps of the user namespace that process pid was born in, a child of parent.

    Parameters
    ----------
    maps: as this process sees them: an id inside is the same one outside as it would be without the parent.

    Raises
    ------
    StartError: the parent does not map these ids, or the kernel refuses.
    """
    if maps.single:
        core.write_in(parent.fd, f"/proc/{pid}/setgroups", "deny")
    for kind, wanted, above in (("uid", maps.uids, parent.maps.uids), ("gid", maps.gids, parent.maps.gids)):
        lines = [f"{part.inside} {_within(above, part)} {part.count}\n" for part in wanted]
        core.write_in(parent.fd, f"/proc/{pid}/{kind}_map", "".join(lines))


def _within(above: tuple[Range, ...], part: Range) -> int:
    """Return what the parent calls the first id of a range."""
    for one in above:
        if one.outside <= part.outside and part.outside + part.count <= one.outside + one.count:
            return part.outside - one.outside + one.inside
    raise StartError(
        "the subordinate ids of this user are others than when its networks were set up: stop the containers that are "
        "on them, and start them again",
        step="write id maps",
    )
