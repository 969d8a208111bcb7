"""Pulling and pushing images, for asyncio: in a thread of the transfer's own, which a cancelled task ends."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from pyrtc.api import default_engine
from pyrtc.engine import Engine

if TYPE_CHECKING:
    from pyrtc.image.registry.patience import Stop
    from pyrtc.image.registry.progress import OnTransfer, PullResult, PushResult, TransferEvent

__all__ = ["pull", "push"]

_T = TypeVar("_T")


async def pull(
    name: str,
    *,
    platform: str | None = None,
    on_event: "OnTransfer | None" = None,
    downloads: int = 4,
    engine: Engine | None = None,
) -> "PullResult":
    """Pull an image; the twin of `pyrtc.image.images.Images.pull`, with the same parameters, results and exceptions.

    Cancelling the task ends the transfer and waits until nothing of it is left. on_event is called in the event loop.
    """
    from pyrtc.image.platform import Platform
    from pyrtc.image.reference import Reference
    from pyrtc.image.registry.pull import pull

    reference, wanted = Reference.parse(name), Platform.parse(platform) if platform else None

    def work(stop: "Stop", tell: "OnTransfer | None") -> "PullResult":
        store = (engine or default_engine()).store
        return pull(store, reference, platform=wanted, on_event=tell, downloads=downloads, stop=stop)

    return await _transfer(work, on_event)


async def push(
    name: str, *, on_event: "OnTransfer | None" = None, uploads: int = 4, engine: Engine | None = None
) -> "PushResult":
    """Push an image; the twin of `pyrtc.image.images.Images.push`. Cancelling and on_event are as in `pull`."""
    from pyrtc.image.reference import Reference
    from pyrtc.image.registry.push import push

    reference = Reference.parse(name)

    def work(stop: "Stop", tell: "OnTransfer | None") -> "PushResult":
        store = (engine or default_engine()).store
        return push(store, reference, on_event=tell, uploads=uploads, stop=stop)

    return await _transfer(work, on_event)


async def _transfer(work: "Callable[[Stop, OnTransfer | None], _T]", on_event: "OnTransfer | None") -> _T:
    """Run a transfer in a thread of its own; its events come out in the loop, before its result does."""
    from pyrtc.image.registry.patience import Stop

    loop = asyncio.get_running_loop()
    stop = Stop()
    failures: list[BaseException] = []

    def deliver(event: "TransferEvent") -> None:
        assert on_event is not None
        if not failures:
            try:
                on_event(event)
            except Exception as error:
                failures.append(error)
                stop.set()

    def tell(event: "TransferEvent") -> None:
        loop.call_soon_threadsafe(deliver, event)

    with ThreadPoolExecutor(1, "pyrtc-transfer") as own:
        moving = loop.run_in_executor(own, work, stop, tell if on_event is not None else None)
        cancelled: asyncio.CancelledError | None = None
        while not moving.done():
            try:
                await asyncio.wait([moving])
            except asyncio.CancelledError as error:
                cancelled = error
                stop.set()
    if cancelled is not None:
        moving.exception()  # was the cancellation's doing, or comes too late to matter
        raise cancelled
    if failures:
        moving.exception()
        raise failures[0]
    return moving.result()
