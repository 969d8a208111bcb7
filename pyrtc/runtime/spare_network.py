"""Network namespaces made ahead.

A new network namespace takes the kernel half a millisecond, a fifth of a container's start. While one container is
being set up its caller only waits; that is when the namespace of the next one is made. Each is used once and never
given back, so a container's network is as new as without this. One process keeps at most a few; a forked child has none
of its parent's.

That pays while one container follows the other. After a pause the processors are cold, making a namespace takes longer
than the caller waits, and a start with a spare one was measured to be slower than one without.
"""

import os
import threading
import time

from pyrtc import core
from pyrtc.errors import UnsupportedError

__all__ = ["SpareNetworks", "spare_networks"]


CLOSE = 0.02  # seconds between two starts that follow one another


class SpareNetworks:
    """The spare network namespaces of this process. Only root has any: others' belong to a user namespace each."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._fds: list[int] = []
        self._owner = os.getpid()
        self._last = float("-inf")
        self._following = False
        self._refused = False

    def take(self) -> int | None:
        """Return a spare one, which becomes the caller's, or None: then the container makes its own."""
        with self._lock:
            now = time.monotonic()
            self._following, self._last = now - self._last < CLOSE, now
            # Two processes must never use one namespace, however the second came to have these descriptors.
            if not self._fds or self._owner != os.getpid():
                return None
            return self._fds.pop()

    def take_or_make(self) -> int:
        """Return a spare one or a new one, which becomes the caller's.

        Raises
        ------
        UnsupportedError: this process may not make any.
        """
        fd = self.take()
        return core.make_netns() if fd is None else fd

    def refill(self) -> None:
        """Make one for the next start, if this one followed another closely; not beyond the limit."""
        if self._refused or not self._following or len(self._fds) >= self._most or self._owner != os.getpid():
            return
        try:
            fd = core.make_netns()
        except UnsupportedError:
            self._refused = True  # the container's own attempt says why
            return
        with self._lock:
            self._fds.append(fd)

    def forget(self) -> None:
        """In a forked child: begin anew."""
        for fd in self._fds:
            os.close(fd)
        self.__init__(self._most)  # type: ignore[misc]


spare_networks = SpareNetworks(most=max(2, os.cpu_count() or 1))
os.register_at_fork(after_in_child=spare_networks.forget)
