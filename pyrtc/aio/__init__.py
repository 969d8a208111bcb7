"""The same API for asyncio: a running event loop is never blocked.

Starting a container takes a millisecond or two of system calls and happens in a thread that lives as long as the
process; waiting for it and moving its bytes is the event loop's.
"""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, Unpack

from pyrtc.aio.attach import Attachment
from pyrtc.aio.capture import captured
from pyrtc.aio.container import Container, Files
from pyrtc.aio.exec_process import ExecProcess
from pyrtc.aio.store import Cluster, Images, Networks, Snapshots, System, Volumes
from pyrtc.aio.transfers import pull, push
from pyrtc.api import default_engine
from pyrtc.capture import DEFAULT_MAX_OUTPUT, Stream, open_pipes
from pyrtc.container import Completed, Running
from pyrtc.engine import Engine
from pyrtc.keywords import Keywords, make_options

if TYPE_CHECKING:
    from pyrtc.events import Event
    from pyrtc.snapshots import Snapshot

__all__ = [
    "Attachment",
    "Cluster",
    "Container",
    "ExecProcess",
    "Files",
    "Images",
    "Networks",
    "Snapshots",
    "System",
    "Volumes",
    "events",
    "pull",
    "push",
    "run",
]


async def run(
    image: "str | Snapshot",
    command: Sequence[str | os.PathLike[str]] | None = None,
    *,
    input: bytes = b"",
    check: bool = False,
    max_output: int = DEFAULT_MAX_OUTPUT,
    on_limit: Literal["truncate", "kill"] = "truncate",
    on_output: Callable[[Stream, bytes], object] | None = None,
    engine: Engine | None = None,
    **options: Unpack[Keywords],
) -> Completed:
    """Run a command in a new container; the twin of `pyrtc.run`, with the same parameters, results and exceptions.

    Cancelling the task kills the container and waits until it is gone. on_output is called in the event loop.
    """
    wanted = make_options(command, **options)

    def start(stdio: Sequence[int]) -> Running:
        stdin, stdout, stderr = stdio
        return (engine or default_engine()).start(image, wanted, stdin=stdin, stdout=stdout, stderr=stderr)

    pipes = open_pipes(feed=bool(input))
    stdio = tuple(pipes.container)
    done = await captured(partial(start, stdio), pipes, input, max_output, on_limit, on_output)
    return done.check() if check else done


def events(
    *,
    since: float | None = None,
    until: float | None = None,
    filters: "Mapping[str, str | Sequence[str]] | None" = None,
    follow: bool = False,
    engine: Engine | None = None,
) -> "AsyncIterator[Event]":
    """Return what happens in a store, for ``async for``; the twin of `pyrtc.Engine.events`.

    Waiting is the event loop's, and no thread's. What is told of from this call on is heard.
    """
    from pyrtc.event_stream import async_events

    store = (engine or default_engine()).store
    return async_events(store, since=since, until=until, filters=filters, follow=follow)
