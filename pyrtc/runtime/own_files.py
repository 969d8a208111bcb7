"""/etc/hosts and /etc/resolv.conf of a container that runs, when it is on other networks than before.

The files are the container's own, in memory, bound over those of its image; they are written where they are. What the
container finds at such a path may be anything by then, so nothing is written unless it is known to be that file.
"""

import os
import stat
from collections.abc import Callable, Sequence

from pyrtc import core
from pyrtc.errors import ContainerError
from pyrtc.runtime.etc_files import OWN_RESOLVER
from pyrtc.runtime.join import open_root, open_target
from pyrtc.store import ContainerRecord

__all__ = ["HOSTS", "RESOLV_CONF", "ask_own_resolver", "name_own_addresses"]

HOSTS = "/etc/hosts"
RESOLV_CONF = "/etc/resolv.conf"
_HOST = "127.0.0.1"  # what the name of a container without a network stands beside
_LARGEST = 1 << 16
_PLAIN = core.RESOLVE_IN_ROOT | core.RESOLVE_NO_SYMLINKS | core.RESOLVE_NO_MAGICLINKS


def ask_own_resolver(record: ContainerRecord) -> bool:
    """Have what runs in a container ask its own resolver from now on; False where the file is not the container's own.

    The domains to search in, and options, stay.

    Raises
    ------
    ContainerError: it does not run any more, or its file cannot be written.
    """
    return _rewrite(record, RESOLV_CONF, _asking_own)


def name_own_addresses(record: ContainerRecord, before: Sequence[str], after: Sequence[str], said: str) -> bool:
    """Have /etc/hosts of a container name the addresses that it has; False where the file is not the container's own.

    What else it says stays, and so does what the container has made of these lines.

    Parameters
    ----------
    before, after: what it has had, and has by now. said: what stands beside them; see `etc_files.known_as`.

    Raises
    ------
    ContainerError: it does not run any more, or its file cannot be written.
    """
    return _rewrite(record, HOSTS, lambda content: _naming(content, before or (_HOST,), after or (_HOST,), said))


def _rewrite(record: ContainerRecord, path: str, change: Callable[[bytes], bytes]) -> bool:
    target = open_target(record.name, record.pid, record.start_time)
    try:
        root_fd = open_root(target, record.name)
        try:
            return _rewrite_beneath(root_fd, path, change, target.pid, record.name)
        finally:
            os.close(root_fd)
    finally:
        os.close(target.pidfd)


def _rewrite_beneath(root_fd: int, path: str, change: Callable[[bytes], bytes], pid: int, name: str) -> bool:
    try:
        where = core.openat2(root_fd, path, os.O_PATH, _PLAIN)
    except OSError:
        return False
    try:
        if not _is_own(os.fstat(where), path, pid):
            return False
        fd = os.open(f"/proc/self/fd/{where}", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "r+b", buffering=0) as file:
            content = file.read(_LARGEST + 1) or b""
            if len(content) > _LARGEST:
                return False
            changed = change(content)
            # The end goes last: who reads meanwhile has lines of either, but no half of one.
            file.seek(0)
            file.write(changed)
            file.truncate()
        return True
    except OSError as error:
        raise ContainerError(f"cannot write {path} of container {name}: {error.strerror}") from error
    finally:
        os.close(where)


def _is_own(found: os.stat_result, path: str, pid: int) -> bool:
    """Whether it is a file that a start bound there: of a file system in memory that this host has mounted nowhere."""
    if not stat.S_ISREG(found.st_mode):
        return False
    device = f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}".encode()
    if any(words[2] == device for words in _mounts("self")):
        return False
    there = [words for words in _mounts(str(pid)) if words[4] == path.encode()]
    return bool(there) and there[-1][2] == device and there[-1][there[-1].index(b"-") + 1] == b"tmpfs"


def _mounts(process: str) -> list[list[bytes]]:
    """Return the fields of a process's mounts; see proc_pid_mountinfo(5)."""
    with open(f"/proc/{process}/mountinfo", "rb") as file:
        return [line.split() for line in file]


def _asking_own(content: bytes) -> bytes:
    kept = [line for line in content.splitlines() if line.split()[:1] != [b"nameserver"]]
    settings = [word for line in kept if line.split()[:1] == [b"options"] for word in line.split()[1:]]
    if not any(word.startswith(b"ndots:") for word in settings):
        kept.append(b"options ndots:0")  # as a start writes it, in `pyrtc.runtime.etc_files`
    return b"".join(line + b"\n" for line in (b"nameserver " + OWN_RESOLVER.encode(), *kept))


def _naming(content: bytes, before: Sequence[str], after: Sequence[str], said: str) -> bytes:
    """Put the lines of some addresses in the place of those of others."""
    old = {f"{address}\t{said}".encode() for address in before}
    new = [f"{address}\t{said}".encode() for address in after]
    kept: list[bytes] = []
    place = None
    for line in content.splitlines():
        if line in old or line in new:
            place = len(kept) if place is None else place
        else:
            kept.append(line)
    place = len(kept) if place is None else place
    kept[place:place] = new
    return b"".join(line + b"\n" for line in kept)
