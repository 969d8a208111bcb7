"""Where slirp4netns takes its orders: a socket in a directory that is this user's alone, while ports are published.

The path of a socket is short, 107 bytes, so it cannot be in the directory of the container. Each directory is locked
by the process that works in it; the lock of one that was killed is free, and who publishes next removes what it left.
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pyrtc.errors import StartError, reason
from pyrtc.store.locks import Lock, try_lock_directory

__all__ = ["place_for_orders"]

_PREFIX = "pyrtc-orders-"
_SOCKET = "orders"


@contextmanager
def place_for_orders() -> Iterator[str]:
    """Make the directory, and give the path of the socket that is to be in it; both are removed afterwards.

    Raises
    ------
    StartError: there can be no such directory.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    base = runtime if os.access(runtime, os.W_OK) else tempfile.gettempdir()
    try:
        base_fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(base, error) from error
    try:
        _sweep(base_fd)
        try:
            name, lock = _make(base_fd)
        except OSError as error:
            raise _refused(base, error) from error
        try:
            yield f"{base}/{name}/{_SOCKET}"
        finally:
            _remove(base_fd, name)
            lock.close()
    finally:
        os.close(base_fd)


def _refused(base: str, error: OSError) -> StartError:
    return StartError(
        f"cannot make a directory for the orders to slirp4netns in {base}: {reason(error.errno or 0)}; set "
        "XDG_RUNTIME_DIR to a directory that this user can write to",
        step="network",
    )


def _make(base_fd: int) -> tuple[str, Lock]:
    while True:
        name = f"{_PREFIX}{os.urandom(8).hex()}"
        os.mkdir(name, 0o700, dir_fd=base_fd)
        lock = try_lock_directory(base_fd, name)
        if lock is not None:  # else a sweep came between, and takes it for a dead one's
            return name, lock


def _sweep(base_fd: int) -> None:
    """Remove what killed processes of this user left; what is another's, as in /tmp, is not looked into."""
    for name in os.listdir(base_fd):
        if not name.startswith(_PREFIX):
            continue
        with suppress(OSError):  # what stays is in nobody's way, and tried again
            found = os.stat(name, dir_fd=base_fd, follow_symlinks=False)
            if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
                continue
            lock = try_lock_directory(base_fd, name)
            if lock is not None:
                try:
                    _remove(base_fd, name)
                finally:
                    lock.close()


def _remove(base_fd: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(f"{name}/{_SOCKET}", dir_fd=base_fd)
    os.rmdir(name, dir_fd=base_fd)
