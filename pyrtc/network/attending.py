"""Which attendant a container has: started with it, noted in its directory, ended or waited for.

The note is what whoever ends the container, or moves its ports, knows of a process that is nobody's child.
"""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pyrtc.network.attendant import start_attendant
from pyrtc.network.published import publishing
from pyrtc.store.owner import kill_process, open_process

if TYPE_CHECKING:
    from pyrtc.network.ports import Reserved
    from pyrtc.network.stand_in import StandIn
    from pyrtc.store import Store
    from pyrtc.store.networks import Endpoint

__all__ = [
    "attend",
    "await_attendant",
    "end_attendant",
    "has_name_server",
    "lacks_attendant",
    "open_attendant_namespaces",
]

_NOTE = "attendant"  # in the container's directory: its pid and start time
_DNS = "dns"  # in it, too: whom it serves names to; see `pyrtc.network.names.write_dns`
_PATIENCE = 10.0  # seconds for an attendant to see that its container has ended


def attend(
    store: "Store",
    directory: str,
    pidfd: int,
    endpoints: "Sequence[Endpoint]",
    *,
    netns_fd: int,
    userns_fd: int = -1,
    reserved: "Reserved | None",
    name_server: bool,
    resolvers: "Sequence[str] | None" = None,
    asked: "Sequence[str] | None" = None,
    outward: bool = False,
    stand_in: "StandIn | None" = None,
) -> None:
    """Start what resolves names inside, and holds the ports outside; see `start_attendant`.

    directory: the container's, which notes it. resolvers: None: what an attendant of this run was told before.
    """
    directory_fd = _open_directory(directory)
    try:
        pid, start_time = start_attendant(
            store,
            pidfd,
            endpoints,
            netns_fd=netns_fd,
            userns_fd=userns_fd,
            directory_fd=directory_fd,
            name_server=name_server,
            asked=asked,
            outward=outward,
            resolvers=resolvers,
            held=reserved.held if reserved is not None else (),
            published_on=publishing(endpoints),
            stand_in=stand_in,
        )
        _note(directory_fd, pid, start_time)
    finally:
        os.close(directory_fd)


def has_name_server(directory: str) -> bool:
    """Whether names are resolved in a container that runs."""
    return os.path.exists(f"{directory}/{_DNS}")


def lacks_attendant(directory: str) -> bool:
    """Whether a container that runs had an attendant that was killed."""
    noted = _noted(directory)
    if noted is None:
        return False
    pidfd = open_process(*noted)
    if pidfd is None:
        return True
    os.close(pidfd)
    return False


def end_attendant(directory: str) -> None:
    """End a container's attendant before the container does: its ports are free when this returns."""
    noted = _noted(directory)
    if noted is not None:
        kill_process(*noted)


def open_attendant_namespaces(directory: str) -> tuple[int, int] | None:
    """Open the user and network namespace that a container's attendant is in; None where it has ended."""
    noted = _noted(directory)
    pidfd = open_process(*noted) if noted is not None else None
    if noted is None or pidfd is None:
        return None
    opened: list[int] = []
    try:
        for kind in ("user", "net"):
            opened.append(os.open(f"/proc/{noted[0]}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
        signal.pidfd_send_signal(pidfd, 0)  # then these are its own, and not those of another with its number
    except OSError:
        for fd in opened:
            os.close(fd)
        return None
    finally:
        os.close(pidfd)
    return opened[0], opened[1]


def _open_directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _note(directory_fd: int, pid: int, start_time: int) -> None:
    """Write down who attends a container, so that whoever ends it can wait until its ports are free."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(_NOTE, flags, 0o600, dir_fd=directory_fd)
    try:
        os.write(fd, b"%d %d\n" % (pid, start_time))
    finally:
        os.close(fd)


def _noted(directory: str) -> tuple[int, int] | None:
    """Return pid and start time of who attends a container, or did; None for nobody."""
    try:
        fd = os.open(f"{directory}/{_NOTE}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        words = os.read(fd, 64).split()
    finally:
        os.close(fd)
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return None  # whoever wrote it was killed meanwhile, and the container with it
    return int(words[0]), int(words[1])


def await_attendant(directory: str) -> None:
    """Wait until a container's attendant is gone, and with it what held its ports."""
    noted = _noted(directory)
    if noted is not None:
        with suppress(FileNotFoundError):
            os.unlink(f"{directory}/{_DNS}")  # the next run may have no name server
    pidfd = open_process(*noted) if noted is not None else None
    if pidfd is None:
        return
    import select

    try:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        poller.poll(_PATIENCE * 1000)
    finally:
        os.close(pidfd)
