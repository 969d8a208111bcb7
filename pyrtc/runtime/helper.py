"""The two things a process needs once to start containers: pyrtc-init in a sealed memfd, and its warden."""

import os
import threading
from contextlib import suppress

from pyrtc import core
from pyrtc.errors import StartError

__all__ = ["entrust", "helper_fd", "release"]


def _program() -> bytes:
    # importlib.resources would cost four milliseconds to import.
    directory = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    with open(f"{directory}/pyrtc-init", "rb") as file:
        return file.read()


class _Process:
    """State of this process. A fork's child has none of its own: its containers would not be this warden's to kill."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.helper = -1
        self.helper_inode = 0
        self.warden = -1  # its socket
        self.generation = 0  # of the warden
        self.living: dict[int, tuple[int | None, bool]] = {}  # pidfd -> kill_fd and stays of what the warden watches

    def forget_warden(self) -> None:
        """After fork, in the child: close the copy, or the warden would wait for this process too."""
        self.lock = threading.Lock()
        self.living = {}
        if self.warden >= 0:
            os.close(self.warden)
            self.warden = -1


_process = _Process()
os.register_at_fork(after_in_child=_process.forget_warden)


def helper_fd() -> int:
    """Return the sealed memfd with pyrtc-init, made at the first call and kept for the life of the process.

    Raises
    ------
    StartError: the package was installed without pyrtc-init.
    """
    if _helper_is_ours():
        return _process.helper
    with _process.lock:
        if not _helper_is_ours():
            try:
                program = _program()
            except OSError as error:
                raise StartError(f"pyrtc-init is missing from the installation: {error}") from None
            _process.helper = core.seal_helper(program)
            _process.helper_inode = os.fstat(_process.helper).st_ino
        return _process.helper


def _helper_is_ours() -> bool:
    """A program that becomes a daemon closes every descriptor it has, and the number then means another file."""
    if _process.helper < 0:
        return False
    try:
        about = os.fstat(_process.helper)
    except OSError:
        return False
    return about.st_ino == _process.helper_inode and about.st_nlink == 0


def entrust(pidfd: int, kill_fd: int | None = None, *, stays: bool = False) -> None:
    """Have the warden kill a container when this process is gone, however that happens.

    Parameters
    ----------
    pidfd, kill_fd: stay open until `release`. kill_fd is the container's cgroup.kill, for one without a pid namespace
        its own. stays: the process is a command in a container; what it leaves behind at its end lives on.

    Raises
    ------
    StartError: the warden cannot be started.
    """
    warden, generation = _warden(), _process.generation
    try:
        _send(warden, pidfd, kill_fd, stays)
    except StartError:
        _replace_warden(generation)  # somebody killed it
        _send(warden, pidfd, kill_fd, stays)
    _process.living[pidfd] = kill_fd, stays


def release(pidfd: int) -> None:
    """Say that a container has ended, before its descriptors are closed."""
    with _process.lock:
        _process.living.pop(pidfd, None)


def _send(warden: int, pidfd: int, kill_fd: int | None, stays: bool) -> None:
    core.send_descriptors(warden, *([pidfd] if kill_fd is None else [pidfd, kill_fd]), stays=stays)


def _warden() -> int:
    if _process.warden >= 0:
        return _process.warden
    helper = helper_fd()
    with _process.lock:
        if _process.warden < 0:
            _process.warden = core.start_warden(helper)
        return _process.warden


def _replace_warden(generation: int) -> None:
    """Have a new warden and tell it what the one before watched.

    Its socket takes the place of the old one: other threads may be about to use the number.
    """
    helper = helper_fd()
    with _process.lock:
        if _process.generation != generation:
            return
        started = core.start_warden(helper)
        os.dup2(started, _process.warden, inheritable=False)
        os.close(started)
        _process.generation += 1
        for pidfd, (kill_fd, stays) in list(_process.living.items()):
            with suppress(StartError):
                _send(_process.warden, pidfd, kill_fd, stays)
