"""What blocks, in threads: starts in threads of their own, the rest in the event loop's."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

__all__ = ["in_starter", "in_thread", "settle"]

_T = TypeVar("_T")
_P = ParamSpec("_P")


# Not the loop's own executor: a start must not wait behind whatever the application put there, and a container's death
# signal is bound to the thread that made it, so these threads stay.
def _new_starters() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=max(4, (os.cpu_count() or 1) * 2), thread_name_prefix="pyrtc-start")


_starters = _new_starters()


def _after_fork() -> None:
    """In the child: the threads stayed behind, and the executor does not know."""
    global _starters
    _starters = _new_starters()


os.register_at_fork(after_in_child=_after_fork)


def in_starter(call: Callable[[], _T]) -> "asyncio.Future[_T]":
    """Begin a call in a thread that lives as long as the process."""
    return asyncio.get_running_loop().run_in_executor(_starters, call)


async def settle(future: "asyncio.Future[Any]") -> asyncio.CancelledError | None:
    """Wait for what runs in a thread and cannot be interrupted; returns a cancellation that came meanwhile."""
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled


def in_thread(call: Callable[_P, _T]) -> "Callable[_P, Awaitable[_T]]":
    """Return the twin of a call that blocks: it runs in a thread of its own kind, not where containers are started.

    Cancelling the task waits until the call has ended, so that nothing goes on behind its back.
    """

    async def twin(*args: _P.args, **keywords: _P.kwargs) -> _T:
        work = asyncio.get_running_loop().run_in_executor(None, partial(call, *args, **keywords))
        cancelled = await settle(work)
        if cancelled is not None:
            raise cancelled
        return work.result()

    return twin
