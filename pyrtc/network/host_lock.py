"""What several processes and stores must not do to one host at once: make devices, pick subnets.

The lock is of the host and not of a store. Whoever holds it may take the firewall's (`pyrtc.network.firewall`), never
the other way round.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pyrtc.errors import NetworkError, reason
from pyrtc.store.locks import locked

__all__ = ["host_lock", "keep_locks_in", "runtime_directory"]

_directory = ""


def keep_locks_in(directory: str) -> None:
    """Keep the locks of this process's host in a directory: for a process that is root of a user namespace only."""
    global _directory
    _directory = directory


def runtime_directory() -> str:
    """Return where this user keeps what is good until the next boot: /run/pyrtc for root.

    Raises
    ------
    NetworkError: an ordinary user has none.
    """
    if _directory:
        return _directory
    if os.geteuid() == 0:
        return "/run/pyrtc"
    base = os.environ.get("XDG_RUNTIME_DIR")
    if not base:
        raise NetworkError("networks need a directory for what lasts until the next boot: set XDG_RUNTIME_DIR")
    return f"{base}/pyrtc"


@contextmanager
def host_lock(name: str = "network") -> Iterator[None]:
    """Hold a lock for a block; waits for who else does. It ends with its process.

    Raises
    ------
    NetworkError: there can be no such lock.
    """
    directory = runtime_directory()
    with ExitStack() as stack:
        try:
            os.makedirs(directory, 0o755 if os.geteuid() == 0 else 0o700, exist_ok=True)
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            stack.enter_context(locked(fd, [f"{name}.lock"]))
        except OSError as error:
            raise NetworkError(
                f"cannot lock this host's networks: {directory}/{name}.lock: {reason(error.errno or 0)}"
            ) from error
        yield
