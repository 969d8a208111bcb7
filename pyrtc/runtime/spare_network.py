"""Network namespaces made ahead.

A new network namespace takes the kernel half a millisecond, a fifth of a container's start. While one container is
being set up its caller only waits; that is when the namespace of the next one is made. Each is used once and never
given back, so a container's network is as new as without this. One process keeps at most a few; a forked child has none
of its parent's.
"""

import os
import threading

from pyrtc import core
from pyrtc.errors import UnsupportedError

__all__ = ["SpareNetworks", "spare_networks"]


class SpareNetworks:
    """The spare network namespaces of this process. Only root has any: others' belong to a user namespace each."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._fds: list[int] = []
        self._owner = os.getpid()
        self._taken = 0
        self._refused = False

    def take(self) -> int | None:
        """Return a spare one, which becomes the caller's, or None: then the container makes its own."""
        with self._lock:
            self._taken += 1
            # Two processes must never use one namespace, however the second came to have these descriptors.
            if not self._fds or self._owner != os.getpid():
                return None
            return self._fds.pop()

    def refill(self) -> None:
        """Make one for the next start; not for a process that starts a single container, nor beyond the limit."""
        if self._refused or self._taken < 2 or len(self._fds) >= self._most or self._owner != os.getpid():
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
