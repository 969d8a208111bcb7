"""User namespaces for root's containers: ranges of ids that nobody else has, and namespaces to map mounts with."""

import fcntl
import os
import signal

from pyrtc import core
from pyrtc._core import lib
from pyrtc.errors import StartError, UnsupportedError
from pyrtc.ids import IdMaps, Range, write_maps
from pyrtc.runtime.namespaces import CLONE_NEWUSER
from pyrtc.runtime.plan import operation
from pyrtc.values import dataclass

__all__ = ["AutomaticRange", "automatic", "mapped_namespace"]

AUTO_COUNT = 65536
# Above what useradd and subuid files give out and systemd-nspawn takes for its containers (0x80000-0x6FFFFFFF), below
# what systemd calls foreign (0x7FFE0000): https://systemd.io/UIDS-GIDS.
AUTO_FIRST = 0x7000_0000
AUTO_SLOTS = 4094


@dataclass(slots=True)
class AutomaticRange:
    """A range of ids that no other container uses while lock_fd is open."""

    maps: IdMaps
    lock_fd: int


def automatic(directory: str) -> AutomaticRange:
    """Take a free range of 65536 ids for one container (`--userns auto`); root only.

    The range is held by a lock, which the kernel releases with its last descriptor, so that none is lost by a crash.

    Raises
    ------
    UnsupportedError: the caller is not root.
    StartError: all ranges are taken.
    """
    if os.geteuid() != 0:
        raise UnsupportedError("--userns auto needs root: an ordinary user's containers are in a user namespace anyway")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    for slot in range(AUTO_SLOTS):
        fd = os.open(f"{directory}/{slot}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        first = AUTO_FIRST + slot * AUTO_COUNT
        ids = (Range(0, first, AUTO_COUNT),)
        return AutomaticRange(IdMaps(ids, ids, privileged=True), fd)
    raise StartError(f"all {AUTO_SLOTS} ranges for --userns auto are in use")


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
