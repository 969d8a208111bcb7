"""One cgroup directory of a container in one hierarchy: written, watched, frozen, killed and removed."""

import errno
import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from pyrtc.errors import reason
from pyrtc.runtime.cgroups import tree, v1, v2
from pyrtc.runtime.cgroups.control_files import Setting, keyed, write
from pyrtc.runtime.cgroups.place import Directory, Place

__all__ = ["GONE", "Node", "Refuse", "find"]

# How the kernel says that a cgroup is not there: not found, or removed while it was open.
GONE = (errno.ENOENT, errno.ENODEV)

Refuse = Callable[[str, str, str], None]
"""Called with the name of a limit that cannot be had, the reason and the remedy."""


class Node(NamedTuple):
    """The directory `name` in the parent cgroup of one hierarchy."""

    place: Place
    parent: Directory
    name: str

    @property
    def path(self) -> str:
        """Where it is, for mounts and messages."""
        return f"{self.parent.path}/{self.name}"

    def apply(self, settings: list[Setting], refuse: Refuse) -> None:
        """Write the settings of one controller, each to the first of its files that this kernel has."""
        for setting in settings:
            for file, text in setting.choices:
                try:
                    write(self.parent.fd, f"{self.name}/{file}", text)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    refuse(setting.limit, f"the kernel refuses {text!r} for {file}: {reason(error.errno or 0)}", "")
                break
            else:
                if setting.without:
                    refuse(setting.limit, setting.without, "")

    def process_ids(self) -> list[int]:
        """Return the processes in it and below."""
        return tree.process_ids(self.parent.fd, self.name)

    def wait_empty(self, timeout: float | None) -> bool:
        """Wait until no process is left in it and below; False when `timeout` seconds passed before."""
        if self.place.version == 1:
            return _retry(lambda: not self.process_ids(), timeout)
        return self._wait_event("populated", 0, timeout)

    def freeze(self, timeout: float) -> bool:
        """Stop every process; False when one still runs after `timeout` seconds."""
        self._set_frozen(True)
        if self.place.version == 2:
            return self._wait_event("frozen", 1, timeout)

        def ask_again() -> bool:
            # A process that was forking when the freezer came by is caught by the next request.
            self._set_frozen(True)
            return self.frozen

        return _retry(ask_again, timeout)

    def thaw(self) -> None:
        """Let every process go on."""
        self._set_frozen(False)

    @property
    def frozen(self) -> bool:
        """Whether every process is stopped."""
        is_frozen = v2.is_frozen if self.place.version == 2 else v1.is_frozen
        return is_frozen(self.parent.fd, self.name)

    def _set_frozen(self, frozen: bool) -> None:
        set_frozen = v2.set_frozen if self.place.version == 2 else v1.set_frozen
        set_frozen(self.parent.fd, self.name, frozen)

    def kill(self) -> None:
        """Send SIGKILL to every process in it and below."""
        if self.place.version == 2:
            try:
                write(self.parent.fd, f"{self.name}/cgroup.kill", "1")
                return
            except OSError as error:
                if error.errno not in GONE:
                    raise
        # Version 1, and Linux before 5.14, kill by list: frozen, so that nothing escapes by forking. Version 1 delivers
        # the signals when it is thawed.
        try:
            self.freeze(0.5)
            self.kill_listed()
        finally:
            self.thaw()

    def kill_listed(self) -> None:
        """Send SIGKILL to every process that is listed, and to no other that took its number meanwhile."""
        import signal

        for pid in self.process_ids():
            with suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                try:
                    if pid in self.process_ids():
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                finally:
                    os.close(pidfd)

    def remove(self) -> bool:
        """Remove the directory and those below it; False while processes are left."""
        try:
            tree.remove(self.parent.fd, self.name)
        except OSError as error:
            if error.errno in GONE:
                return True
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            return False
        return True

    def kill_and_remove(self, timeout: float) -> bool:
        """Remove it, killing what it lists until it can be removed; False after `timeout` seconds."""

        def attempt() -> bool:
            if self.remove():
                return True
            self.kill_listed()
            return False

        return _retry(attempt, timeout)

    def _wait_event(self, key: str, value: int, timeout: float | None) -> bool:
        """Wait until cgroup.events says so; the kernel wakes the poll when the file changes."""
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            fd = os.open(f"{self.name}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.parent.fd)
        except FileNotFoundError:
            return key == "populated"
        try:
            poll = select.poll()
            poll.register(fd, select.POLLPRI)
            while keyed(os.pread(fd, 4096, 0).decode()).get(key) != value:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                poll.poll(None if left is None else left * 1000 + 1)
            return True
        except OSError as error:
            if error.errno not in GONE:
                raise
            return key == "populated"
        finally:
            os.close(fd)


def find(place: Place, parent: str, name: str) -> Node | None:
    """Look for a cgroup; an open parent that lacks it may be a removed one, so it is looked up afresh once."""
    for _attempt in range(2):
        directory = place.find_parent(parent)
        if directory is None:
            return None
        try:
            os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in GONE:
                raise
            place.forget(parent)
        else:
            return Node(place, directory, name)
    return None


def _retry(action: Callable[[], bool], timeout: float | None) -> bool:
    """Call until True, with growing pauses; for what version 1 gives no event for."""
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = 0.0005
    while not action():
        if deadline is not None and time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    return True
