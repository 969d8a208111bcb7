"""Who made something in the store, told so that a later command can see whether that process is still there.

A process id alone is reused; with the time the process started (field 22 of /proc/PID/stat, in clock ticks since
boot), the machine's boot id and the pid namespace the number belongs to it is not.
"""

import os
from contextlib import suppress
from functools import lru_cache

from pyrtc.errors import ContainerError
from pyrtc.values import dataclass

__all__ = ["Owner", "kill_process", "open_process", "process_start_time"]

_KILL_PATIENCE = 10.0  # seconds for a killed process to be gone


def process_start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command name in parentheses and may hold anything, parentheses and spaces included.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in b"ZXx" else int(fields[19])


def open_process(pid: int, start_time: int) -> int | None:
    """Return a pidfd, which becomes the caller's, of the process that started then; None when that one is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # Looked at through /proc after the descriptor was opened: if the number was reused before, the time differs; if it
    # is reused after, the descriptor still means the old process.
    if process_start_time(pid) != start_time:
        os.close(pidfd)
        return None
    return pidfd


def kill_process(pid: int, start_time: int) -> None:
    """Kill a process if it is still the one that started then, and wait until it is gone.

    Raises
    ------
    ContainerError: it is another user's, or does not end within 10 s.
    """
    import select
    import signal

    pidfd = open_process(pid, start_time)
    if pidfd is None:
        return
    try:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        if not poller.poll(_KILL_PATIENCE * 1000):
            raise ContainerError(f"process {pid} does not end; it is stuck in the kernel")
    except PermissionError as error:
        raise ContainerError(f"cannot kill process {pid} of a container: it is not yours") from error
    finally:
        os.close(pidfd)


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Return the id of this boot of the machine, with the pid namespace that pids here are counted in."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"


_self: "Owner | None" = None


@dataclass(frozen=True, slots=True)
class Owner:
    """One process in one boot of one machine."""

    pid: int
    start_time: int
    boot: str

    @staticmethod
    def current() -> "Owner":
        """Return this process; right after a fork, too."""
        global _self
        pid = os.getpid()
        owner = _self
        if owner is None or owner.pid != pid:
            owner = _self = Owner(pid, process_start_time(pid) or 0, boot_id())
        return owner

    def alive(self) -> bool:
        """Say whether the process is still there.

        A process of another pid namespace of the same boot cannot be seen from here and counts as alive.
        """
        here = boot_id()
        if self.boot != here:
            return self.boot.partition(" ")[0] == here.partition(" ")[0]
        return process_start_time(self.pid) == self.start_time

    @property
    def token(self) -> str:
        """A short name for files of this process."""
        return f"{self.pid}-{self.start_time}"
