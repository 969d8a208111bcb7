"""Reaping commands in containers as soon as they end, whether or not whoever began them waits.

Process 1 of a pid namespace does not go before every process of it has been reaped, and a command in a container is the
child of whoever began it: one that has ended and is not waited for would keep its container from ending, for ever. So
one thread waits for all of them, and is there only while there is one.
"""

import os
import select
import threading
from collections.abc import Callable

__all__ = ["watch"]

_lock = threading.Lock()
_watched: dict[int, Callable[[], object]] = {}  # by a descriptor of this module's own for the process
_epoll: select.epoll | None = None  # while there is a thread


def watch(pidfd: int, reap: Callable[[], object]) -> None:
    """Call a function once the process behind a pidfd has ended, in a thread; it does not raise."""
    global _epoll
    with _lock:
        if _epoll is None:
            _epoll = select.epoll()
            threading.Thread(target=_wait, args=(_epoll,), name="pyrtc-reaper", daemon=True).start()
        fd = os.dup(pidfd)
        _watched[fd] = reap
        _epoll.register(fd, select.EPOLLIN)


def _wait(epoll: select.epoll) -> None:
    global _epoll
    while True:
        for fd, _event in epoll.poll():
            with _lock:
                reap = _watched.pop(fd, None)
                epoll.unregister(fd)
                os.close(fd)
            if reap is not None:
                reap()
                del reap  # and with it what it holds
        with _lock:
            if not _watched:
                _epoll = None
                epoll.close()
                return


def _forget() -> None:
    """In a forked child: there is no thread, and they are not its children."""
    global _epoll, _lock
    _lock = threading.Lock()
    for fd in _watched:
        os.close(fd)
    _watched.clear()
    if _epoll is not None:
        _epoll.close()
        _epoll = None


os.register_at_fork(after_in_child=_forget)
