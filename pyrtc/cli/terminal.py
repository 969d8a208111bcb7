"""The user's terminal while a container has one of its own: raw mode, window size, copying between the two."""

import contextlib
import os
import select
import termios
import tty
from typing import Any

__all__ = ["Flow", "RawMode", "Relay", "copy_window_size", "window_size"]

# A pipe that poll(2) calls writable takes this much without blocking; a terminal gives no more at a time.
BLOCK = 4096


def window_size(*fds: int) -> tuple[int, int] | None:
    """Return rows and columns of the first descriptor that is a terminal, None when none is."""
    for fd in fds:
        try:
            return termios.tcgetwinsize(fd)
        except termios.error:
            continue
    return None


def copy_window_size(target: int, *sources: int) -> None:
    """Give the terminal target the size of the first source that is a terminal; its programs hear of it by SIGWINCH."""
    size = window_size(*sources)
    if size is not None:
        termios.tcsetwinsize(target, size)


class RawMode:
    """The user's terminal in raw mode, for as long as it is entered: each key goes to the container, ^C included."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._saved: list[Any] | None = None

    def __enter__(self) -> "RawMode":
        """Enter raw mode; in the background this stops the process until it is brought to the foreground."""
        self._saved = termios.tcgetattr(self.fd)
        self.again()
        return self

    def __exit__(self, *_: object) -> None:
        """Restore what was there."""
        self.leave()

    def leave(self) -> None:
        """Restore the terminal, unless it now belongs to another job, which has its own settings, or is gone."""
        if self._saved is None:
            return
        try:
            if os.tcgetpgrp(self.fd) == os.getpgrp():
                termios.tcsetattr(self.fd, termios.TCSANOW, self._saved)
        except (OSError, termios.error):
            return

    def again(self) -> None:
        """Enter raw mode, also once more after the process was stopped and a shell has had the terminal."""
        with contextlib.suppress(termios.error):  # the terminal is gone; reading from it will tell
            tty.setraw(self.fd, termios.TCSANOW)


class Flow:
    """One direction of a terminal; it holds one block at most, so that a slow reader slows the writer down.

    Attributes
    ----------
    open: False once the source has ended or the target takes no more.
    failure: why the target takes no more.
    """

    def __init__(self, source: int, target: int) -> None:
        self.source = source
        self.target = target
        self.pending = b""
        self.open = True
        self.failure: OSError | None = None

    @property
    def interest(self) -> tuple[int, int]:
        """The descriptor to wait for and the poll(2) event."""
        return (self.target, select.POLLOUT) if self.pending else (self.source, select.POLLIN)

    @property
    def ended(self) -> bool:
        """Say whether the source has ended, rather than the target."""
        return not self.open and self.failure is None

    def step(self) -> None:
        """Do what the descriptor was waited for."""
        if self.pending:
            self._write()
        else:
            self._read()

    def _read(self) -> None:
        try:
            self.pending = os.read(self.source, BLOCK)
        except BlockingIOError:
            return
        except OSError:  # EIO: the other end of the terminal is closed
            self.open = False
            return
        self.open = bool(self.pending)

    def _write(self) -> None:
        try:
            self.pending = self.pending[os.write(self.target, self.pending) :]
        except BlockingIOError:
            return
        except OSError as error:
            self.pending = b""
            self.open = False
            self.failure = error


class Relay:
    """Both directions between the user's descriptors and the terminal of a container.

    Parameters
    ----------
    master: the container's terminal; becomes non-blocking.
    stdin: where keys come from, None when the container gets none.
    stdout: where its output goes.
    """

    def __init__(self, master: int, stdin: int | None, stdout: int) -> None:
        os.set_blocking(master, False)
        self.output = Flow(master, stdout)
        self.input = Flow(stdin, master) if stdin is not None else None

    def interests(self) -> dict[int, int]:
        """Return the poll(2) events to wait for, by descriptor."""
        events: dict[int, int] = {}
        for flow in self._flows():
            fd, event = flow.interest
            events[fd] = events.get(fd, 0) | event
        return events

    def step(self, ready: dict[int, int]) -> None:
        """Copy what can be copied without waiting."""
        for flow in self._flows():
            fd, event = flow.interest
            # An error or a hang-up is found by the read or write itself.
            if ready.get(fd, 0) & (event | select.POLLERR | select.POLLHUP | select.POLLNVAL):
                flow.step()

    def drain(self) -> bool:
        """After the container has ended: return True once all that it left in its terminal is written."""
        self.input = None
        if self.output.open and not self.output.pending:
            self.output.step()
        return not self.output.pending

    def _flows(self) -> list[Flow]:
        return [flow for flow in (self.input, self.output) if flow is not None and flow.open]
