"""How the watcher of a host is called: a datagram wakes it up, and where nobody listens one is started.

There is no daemon. Whoever starts a container on an overlay network sees to it that the host has a watcher; it ends
when the last one is gone. A second one waits on the first one's lock, and takes its place the moment it dies.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from pyrtc.errors import NetworkError, reason
from pyrtc.network.host_lock import runtime_directory
from pyrtc.store.interpreter import program_of

if TYPE_CHECKING:
    import socket

    from pyrtc.store import Store

__all__ = ["BELL", "FAILURE", "STATUS", "directory_of", "open_bell", "problems_of", "ring", "start", "wake"]

BELL, STATUS, FAILURE = "bell", "status", "failure"
_MOST = 1 << 20  # bytes of what a watcher writes
_PASSED_ON = ("PATH", "HOME", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR")


def directory_of(host_id: str) -> str:
    """Return where the watcher of this host, as its cluster knows it, has its lock and its bell."""
    return f"{runtime_directory()}/overlay/{host_id}"


def problems_of(directory: str) -> list[str]:
    """Return what the watcher says is wrong, and why the last one that failed did."""
    found = []
    with suppress(OSError, ValueError, KeyError), open(f"{directory}/{STATUS}") as file:
        found += [str(text) for text in json.loads(file.read(_MOST))["problems"]]
    with suppress(OSError), open(f"{directory}/{FAILURE}") as file:
        found.append(f"the watcher has failed: {file.read(_MOST).strip().rpartition(chr(10))[2]}")
    return found


def wake(store: "Store") -> None:
    """Have the watcher look at what this store's containers have on overlay networks; start one if there is none.

    Raises
    ------
    NetworkError: it cannot be started.
    """
    from pyrtc.network.overlay.membership import membership

    value = membership(store)
    if value is None or value.state == "joining":
        return
    directory = directory_of(value.id)
    if not ring(directory):
        start(store.path, directory)


def ring(directory: str) -> bool:
    """Wake up the watcher; False when there is none."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.sendto(b"\0", f"{directory}/{BELL}")
        except BlockingIOError:
            return True  # it has been rung often enough already
        except OSError:
            return False
    return True


def open_bell(directory: str) -> "socket.socket":
    """Listen, with the lock held."""
    import socket

    path = f"{directory}/{BELL}"
    if os.path.lexists(path):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(path)
    os.chmod(path, 0o600)
    return sock


def start(root: str, directory: str) -> None:
    """Start a watcher that is nobody's child; it ends at once if there are two already.

    Raises
    ------
    NetworkError: it cannot be started.
    """
    interpreter = sys.executable or ""
    if getattr(sys, "frozen", False) or not os.path.basename(interpreter).startswith(("python", "pypy")):
        raise NetworkError(
            "overlay networks need a Python interpreter beside this program, to hear of other hosts: sys.executable is "
            f"{interpreter or 'empty'}"
        )
    words = [interpreter, "-I", "-c", program_of("pyrtc.network.overlay.standby", "main()"), root, directory]
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    null = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
    try:
        pid = os.posix_spawn(
            interpreter, words, environment, file_actions=null, setsid=True, setsigmask=(),
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE],
        )  # fmt: skip
    except OSError as error:
        raise NetworkError(f"cannot start the watcher of overlay networks: {reason(error.errno or 0)}") from error
    try:
        os.waitpid(pid, 0)  # it forks and ends at once
    except ChildProcessError:
        return  # whoever embeds pyrtc ignores the ends of its children
