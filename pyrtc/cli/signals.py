"""Signals as data: what arrives is read from a descriptor by the loop that also watches the container."""

import os
import signal
from collections.abc import Callable
from types import FrameType

__all__ = ["CONTROL", "FORWARDED", "Interrupted", "SignalInbox"]

# What people and supervisors send to make a program do something. Not among them: what the kernel tells this process
# about itself (CHLD, PIPE, SEGV, ...), and TTIN and TTOU, which must stop it when it uses a terminal it does not own.
FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGIO,
    signal.SIGPWR,
    signal.SIGWINCH,
    signal.SIGCONT,
    signal.SIGTSTP,
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)
# What needs an answer even where nothing is forwarded: the terminal has to be restored, the container ended.
CONTROL = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGALRM,
    signal.SIGWINCH,
    signal.SIGCONT,
    signal.SIGTSTP,
)
# A start that takes longer than this is taken back by a signal; one that is done sooner lets the container have it.
START_GRACE = 0.25
ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})

Handler = Callable[[int, FrameType | None], object] | int | None


class Interrupted(KeyboardInterrupt):
    """A signal that asks this process to end; what was begun is taken back. `number` tells which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class SignalInbox:
    """While it is entered, the given signals turn up in `read()`.

    Until `forward_all()` is called there is no container that could answer them: if that does not follow soon, those
    that ask this process to end raise Interrupted. A signal that was ignored stays ignored, so that `nohup` and
    background jobs of a shell keep their meaning. Only the main thread may use it.

    Attributes
    ----------
    fd: readable when a signal has arrived.
    """

    def __init__(self, signals: tuple[int, ...]) -> None:
        self._signals = signals
        self._saved: list[tuple[int, Handler]] = []
        self._saved_wakeup = -1
        self._write_fd = -1
        self._starting = True
        self._waiting: int | None = None
        self.fd = -1

    def __enter__(self) -> "SignalInbox":
        """Take the signals over."""
        self.fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._saved_wakeup = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in self._signals:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._saved.append((number, signal.signal(number, self._arrived)))
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        self.forward_all()
        for number, handler in self._saved:
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._saved.clear()
        signal.set_wakeup_fd(self._saved_wakeup)
        os.close(self.fd)
        os.close(self._write_fd)

    def forward_all(self) -> None:
        """From now on every signal does nothing but turn up in `read()`."""
        self._starting = False
        if self._waiting is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        # The interpreter has already written the number to the wake-up descriptor.
        if not self._starting:
            return
        if number in ENDING and self._waiting is None:
            self._waiting = number
            signal.setitimer(signal.ITIMER_REAL, START_GRACE)
        elif number == signal.SIGALRM and self._waiting is not None:
            self._starting = False  # taking back what was begun is not to be interrupted
            raise Interrupted(self._waiting)

    def read(self) -> bytes:
        """Return the numbers of the signals that have arrived, one a byte, in order."""
        try:
            return os.read(self.fd, 4096)
        except BlockingIOError:
            return b""
