"""How long a registry may take: time-outs, a lowest rate, and when to try again."""

import random
import threading
import time
from collections.abc import Callable

from pyrtc.errors import RegistryUnreachable
from pyrtc.image.cancelled import Cancelled
from pyrtc.values import dataclass

__all__ = ["Pace", "Patience", "Stop", "retry_after"]


@dataclass(frozen=True, slots=True)
class Patience:
    """All times are seconds.

    connect: until a connection stands, TLS included. silence: without a single byte. answer: until the headers of an
    answer are there, and again until a document is. rate, window: a body must bring `rate` bytes a second on average
    over each `window`. attempts: how often a request is made, and how often a download may be cut off in the same
    place. first_delay, longest_delay: between attempts, doubled each time, with jitter. longest_wait: what a registry
    may ask for with Retry-After; beyond it the pull gives up and says so.
    """

    connect: float = 10.0
    silence: float = 30.0
    answer: float = 60.0
    rate: float = 1024.0
    window: float = 30.0
    attempts: int = 5
    first_delay: float = 0.3
    longest_delay: float = 10.0
    longest_wait: float = 60.0

    def delay(self, attempt: int, asked: float | None = None) -> float:
        """Return how long to wait after the attempt of this number (from 0); asked: what the registry wants."""
        if asked is not None:
            # A little more than asked, and not the same for everybody who was sent away together.
            return asked + random.uniform(0, 0.1 * asked + 0.1)  # noqa: S311  (no secret)
        ceiling = min(self.longest_delay, self.first_delay * 2**attempt)
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311

    @staticmethod
    def wait(seconds: float, cancelled: threading.Event) -> None:
        """Sleep, and wake up when the event is set.

        Raises
        ------
        Cancelled: it was set.
        """
        if cancelled.wait(seconds):
            raise Cancelled("cancelled")


class Stop:
    """Ends a pull or push from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = False
        self._actions: list[Callable[[], object]] = []

    def on_set(self, action: Callable[[], object]) -> None:
        """Have something called when it is set; at once if it is."""
        with self._lock:
            self._actions.append(action)
            late = self._set
        if late:
            action()

    def set(self) -> None:
        """End the transfer, which then raises `Cancelled`."""
        with self._lock:
            self._set = True
            actions = list(self._actions)
        for action in actions:
            action()


class Pace:
    """Watches how fast a body comes."""

    def __init__(self, patience: Patience, what: str) -> None:
        self._patience = patience
        self._what = what
        self._begin = time.monotonic()
        self._bytes = 0

    def count(self, size: int) -> None:
        """Count what just came.

        Raises
        ------
        RegistryUnreachable: it comes too slowly.
        """
        self._bytes += size
        passed = time.monotonic() - self._begin
        if passed < self._patience.window:
            return
        if self._bytes < self._patience.rate * passed:
            raise RegistryUnreachable(
                f"{self._what} comes too slowly: {self._bytes} bytes in {passed:.0f} s, less than "
                f"{self._patience.rate:.0f} a second"
            )
        self._begin += passed
        self._bytes = 0


def retry_after(text: str | None) -> float | None:
    """Read a Retry-After header, seconds or a date (RFC 9110, 10.2.3); None when it says nothing useful."""
    if not text:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
