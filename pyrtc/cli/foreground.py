"""Staying with a container from its start to its end: signals, the terminal, the time limit."""

import contextlib
import errno
import os
import select
import signal
import time
from typing import TYPE_CHECKING

from pyrtc.cli.signals import ENDING, SignalInbox

if TYPE_CHECKING:
    from pyrtc.cli.terminal import RawMode, Relay
    from pyrtc.container import Running
    from pyrtc.exec_process import ExecProcess

__all__ = ["Foreground"]

# A program that answers neither of two interrupts is killed at the third, if it comes this soon: process 1 of a
# container does not die of a signal that it has no handler for, and nobody should need a second terminal to end it.
INSISTENCE = 3
INSISTENCE_SECONDS = 3.0
LONGEST_POLL = (1 << 31) - 1  # milliseconds


class Foreground:
    """One running container, or a command in one, and the terminal or pipes of the user.

    Without a terminal of its own the container holds the user's descriptors itself, and all there is to do here is to
    pass signals on. With one, this copies between the two, never waiting for one direction while the other could go on.

    Parameters
    ----------
    running: what `Engine.start` returned, or `Executor.start`.
    inbox: the signals that this process gets.
    forward: pass signals on; otherwise those that would end this process end the container.
    stop_timeout: seconds that the container has to end after its user's terminal has gone.
    """

    def __init__(
        self, running: "Running | ExecProcess", inbox: SignalInbox, *, forward: bool = True, stop_timeout: float = 10.0
    ) -> None:
        self._running = running
        self._inbox = inbox
        self._forward = forward
        self._stop_timeout = stop_timeout
        self._kill_at: float | None = None
        self._relay: Relay | None = None
        self._raw: RawMode | None = None
        self._interrupts: list[float] = []

    def follow(self, *, interactive: bool) -> None:
        """Return when the container's first process has ended and all that it wrote is written; it is not reaped.

        Parameters
        ----------
        interactive: keys go to the container's terminal, where it has one.
        """
        with contextlib.ExitStack() as stack:
            if self._running.terminal_fd is not None:
                self._connect(self._running.terminal_fd, stack, interactive=interactive)
            self._watch()
            if self._relay is not None:
                self._drain(self._relay)

    def _connect(self, master: int, stack: contextlib.ExitStack, *, interactive: bool) -> None:
        from pyrtc.cli.terminal import RawMode, Relay, copy_window_size

        if interactive and os.isatty(0):
            self._raw = stack.enter_context(RawMode(0))
        copy_window_size(master, 1, 0)
        self._relay = Relay(master, 0 if interactive else None, 1)

    def _watch(self) -> None:
        """Return when process 1 of the container has ended; kill it when its time is up."""
        pidfd = self._running.pidfd
        while True:
            ready = self._poll((self._inbox.fd, pidfd), self._relay, self._remaining_ms())
            for number in self._inbox.read() if self._inbox.fd in ready else b"":
                self._answer(number)
            if self._relay is not None:
                self._relay.step(ready)
                self._notice_hangup(self._relay)
            if pidfd in ready:
                return
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._kill_at = None
                self._running.kill()
            if self._running.remaining_ms() == 0:
                self._expire()

    def _expire(self) -> None:
        from pyrtc.container import Outcome

        self._running.kill(Outcome.TIMEOUT)
        self._running.deadline = None

    def _drain(self, relay: "Relay") -> None:
        """Write what the container left in its terminal; a signal gives up on a reader that does not read."""
        while not relay.drain():
            ready = self._poll((self._inbox.fd,), relay, None)
            if any(number in ENDING for number in (self._inbox.read() if self._inbox.fd in ready else b"")):
                return
            relay.step(ready)

    def _remaining_ms(self) -> float | None:
        """Milliseconds until something has to be killed, for poll(2)."""
        times = [self._running.remaining_ms()]
        if self._kill_at is not None:
            times.append(max(0.0, (self._kill_at - time.monotonic()) * 1000))
        return min((at for at in times if at is not None), default=None)

    @staticmethod
    def _poll(readable: tuple[int, ...], relay: "Relay | None", timeout_ms: float | None) -> dict[int, int]:
        poll = select.poll()
        for fd in readable:
            poll.register(fd, select.POLLIN)
        for fd, event in relay.interests().items() if relay is not None else ():
            poll.register(fd, event)
        # The kernel takes 24 days at most; whoever is woken before looks at the clock.
        return dict(poll.poll(None if timeout_ms is None else min(timeout_ms, LONGEST_POLL)))

    def _answer(self, number: int) -> None:
        if number == signal.SIGWINCH and self._relay is not None:
            self._resize()
        elif number == signal.SIGTSTP:
            self._stop()
        elif number == signal.SIGCONT:
            self._continue()
        elif not self._forward and number != signal.SIGWINCH:
            self._running.kill()
        else:
            self._running.signal(number)
            if number in (signal.SIGINT, signal.SIGTERM):
                self._count_interrupt()

    def _resize(self) -> None:
        from pyrtc.cli.terminal import copy_window_size

        if self._running.terminal_fd is not None:
            copy_window_size(self._running.terminal_fd, 1, 0)

    def _count_interrupt(self) -> None:
        now = time.monotonic()
        self._interrupts = [at for at in self._interrupts if now - at < INSISTENCE_SECONDS] + [now]
        if len(self._interrupts) >= INSISTENCE:
            self._running.kill()

    def _stop(self) -> None:
        """Stop the container's process 1, then this process, so that a shell's ^Z and fg mean what they always do."""
        if self._raw is not None:
            self._raw.leave()
        # Not SIGTSTP, which is ignored by a process group that no shell watches over.
        self._running.signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)

    def _continue(self) -> None:
        if self._raw is not None:
            self._raw.again()
        if self._relay is not None:
            self._resize()
        self._running.signal(signal.SIGCONT)

    def _notice_hangup(self, relay: "Relay") -> None:
        """Tell the container that its user has gone, as the kernel tells a program whose terminal has gone."""
        failure = relay.output.failure
        if failure is not None and failure.errno == errno.EPIPE:
            # The reader of a pipe has gone: a program that wrote to it itself would die of SIGPIPE.
            relay.output.failure = None
            self._running.kill()
        elif failure is not None or (relay.input is not None and relay.input.ended):
            relay.output.failure = None
            relay.input = None
            self._running.signal(signal.SIGHUP)
            self._running.signal(signal.SIGCONT)
            self._kill_at = time.monotonic() + self._stop_timeout
