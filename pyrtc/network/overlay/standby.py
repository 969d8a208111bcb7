"""The watcher's process: waits until there is no other one, and then is it. Small as long as it waits."""

import contextlib
import fcntl
import os
import sys
import time

__all__ = ["Lock", "main"]

_NAME = b"pyrtc-overlay"
_AFTER_FAILURE = 5.0  # seconds before the next one tries what this one could not


class Lock:
    """A lock that ends with this process. Who ends in order removes its file, so that nothing is left of it.

    Attributes
    ----------
    fd: -1 when somebody has it. succeeded: who had it before ended in order, and this process waited for that.
    """

    def __init__(self, directory: str, name: str, *, wait: bool = False) -> None:
        self._directory, self._name = directory, name
        self.fd = -1
        self.succeeded = False
        while self.fd < 0:
            os.makedirs(directory, 0o700, exist_ok=True)
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open(f"{directory}/{name}", flags, 0o600)
            except FileNotFoundError:
                continue  # the directory has just been removed
            try:
                fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return
            if os.fstat(fd).st_nlink:
                self.fd = fd
            else:
                os.close(fd)
                self.succeeded = True

    def end(self) -> None:
        """Let go of it, and remove what is left of it."""
        with contextlib.suppress(OSError):
            os.unlink(f"{self._directory}/{self._name}")
            os.rmdir(self._directory)
        os.close(self.fd)


def main() -> None:
    """Run `python -c ... ROOT DIRECTORY`: become nobody's child, then the watcher, or the one that waits."""
    root, directory = sys.argv[1:3]
    if os.fork():
        os._exit(0)
    os.chdir("/")
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # a pipe of whoever started this would not end before it does
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb") as comm:
        comm.write(_NAME)
    code = 1
    try:
        code = _wait_and_watch(root, directory)
    finally:
        os._exit(code)


def _wait_and_watch(root: str, directory: str) -> int:
    lock = Lock(directory, "lock")
    if lock.fd < 0:
        waiting = Lock(directory, "standby")
        if waiting.fd < 0:
            return 0  # one watches and one waits
        lock = Lock(directory, "lock", wait=True)
        waiting.end()
    try:
        if os.path.exists(f"{root}/pyrtc.db"):
            from pyrtc.network.overlay.watcher import watch

            watch(root, directory, succeeded=lock.succeeded)
    except Exception:
        import traceback

        with contextlib.suppress(OSError), open(f"{directory}/failure", "w") as file:
            traceback.print_exc(limit=-20, file=file)
        time.sleep(_AFTER_FAILURE)
        return 1
    lock.end()
    return 0
