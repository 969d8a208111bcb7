"""The two things a process needs once to start containers: pyrtc-init in a sealed memfd, and its warden."""

import array
import os
import socket
import threading
from importlib import resources

from pyrtc import core
from pyrtc.errors import StartError

__all__ = ["entrust", "helper_fd"]


class _Process:
    """State of this process. A fork's child has none of its own: its containers would not be this warden's to kill."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.helper = -1
        self.warden: socket.socket | None = None

    def forget_warden(self) -> None:
        """After fork, in the child: close the copy, or the warden would wait for this process too."""
        self.lock = threading.Lock()
        if self.warden is not None:
            self.warden.close()
            self.warden = None


_process = _Process()
os.register_at_fork(after_in_child=_process.forget_warden)


def helper_fd() -> int:
    """Return the sealed memfd with pyrtc-init, made at the first call and kept for the life of the process.

    Raises
    ------
    StartError: the package was installed without pyrtc-init.
    """
    if _process.helper >= 0:
        return _process.helper
    with _process.lock:
        if _process.helper < 0:
            try:
                program = resources.files("pyrtc").joinpath("pyrtc-init").read_bytes()
            except OSError as error:
                raise StartError(f"pyrtc-init is missing from the installation: {error}") from None
            _process.helper = core.seal_helper(program)
    return _process.helper


def entrust(pidfd: int, kill_fd: int | None = None) -> None:
    """Have the warden kill a container when this process is gone, however that happens.

    Parameters
    ----------
    kill_fd: the container's cgroup.kill, for one without a pid namespace of its own.

    Raises
    ------
    StartError: the warden cannot be started.
    """
    fds = array.array("i", [pidfd] if kill_fd is None else [pidfd, kill_fd])
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]
    for attempt in range(2):
        warden = _warden()
        try:
            warden.sendmsg([b"+"], rights)
            return
        except OSError as error:
            if attempt:
                raise StartError(f"the warden does not answer: {error.strerror}", step="warden") from None
            with _process.lock:  # somebody killed it: have a new one
                if _process.warden is warden:
                    _process.warden = None
                    warden.close()


def _warden() -> socket.socket:
    warden = _process.warden
    if warden is not None:
        return warden
    helper = helper_fd()
    with _process.lock:
        if _process.warden is None:
            _process.warden = socket.socket(fileno=core.start_warden(helper))
        return _process.warden
