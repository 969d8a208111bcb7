"""Moving the bytes of a container or a command in the event loop until it ends: the twin of `pyrtc.capture`."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pyrtc.aio.threads import in_starter, settle
from pyrtc.capture import Attended, Capture, Pipes, Stream
from pyrtc.container import Completed, Outcome, Running

if TYPE_CHECKING:
    from pyrtc.exec_process import ExecProcess

__all__ = ["captured"]


async def captured(
    start: "Callable[[], Running | ExecProcess]",
    pipes: Pipes,
    input: bytes,
    max_output: int,
    on_limit: Literal["truncate", "kill"],
    on_output: Callable[[Stream, bytes], object] | None,
) -> Completed:
    """Start something whose ends of the pipes these are, in a thread, and move its bytes until it ends.

    pipes are closed; with a terminal they are empty and become its two directions.
    """
    loop = asyncio.get_running_loop()
    try:
        starting = in_starter(start)
        cancelled = await settle(starting)
        if cancelled is not None and starting.exception() is not None:
            raise cancelled
        running = starting.result()
        try:
            if cancelled is not None:
                raise cancelled
            pipes.close_container_ends()
            if running.terminal_fd is not None:
                from pyrtc.exec_process import terminal_pipes

                pipes = terminal_pipes(running.terminal_fd, feed=bool(input))
            capture = Capture(running, pipes, input, max_output=max_output, on_limit=on_limit, on_output=on_output)
            await _until_end(loop, running, capture)
            capture.drain()  # here and not in the thread: on_output is called in the event loop
            gathering = in_starter(capture.result)
            cancelled = await settle(gathering)
            done = gathering.result()
            if cancelled is not None:
                raise cancelled
        except BaseException:
            running.kill()
            await settle(in_starter(running.close))
            raise
    finally:
        pipes.close()
    return done


async def _until_end(loop: asyncio.AbstractEventLoop, running: Attended, capture: Capture) -> None:
    """Move bytes until process 1 ends. Whatever a callback raises comes out here."""
    ended: asyncio.Future[None] = loop.create_future()
    failures: list[Exception] = []
    timer = None
    if running.deadline is not None:
        timer = loop.call_later((running.remaining_ms() or 0) / 1000, running.kill, Outcome.TIMEOUT)

    def guarded(stream: str) -> None:
        if failures:
            return
        fd = capture.ours[stream]
        try:
            if stream == "stdin":
                capture.write()
            else:
                capture.read(stream)  # type: ignore[arg-type]
        except Exception as error:
            failures.append(error)
            end()
        if stream not in capture.ours:
            (loop.remove_writer if stream == "stdin" else loop.remove_reader)(fd)

    def end() -> None:
        loop.remove_reader(running.pidfd)
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(running.pidfd, end)
    for stream, fd in capture.ours.items():
        (loop.add_writer if stream == "stdin" else loop.add_reader)(fd, guarded, stream)
    try:
        await ended
        if failures:  # it may have come after the end in the same turn of the loop
            raise failures[0]
    finally:
        if timer is not None:
            timer.cancel()
        loop.remove_reader(running.pidfd)
        for stream, fd in capture.ours.items():
            (loop.remove_writer if stream == "stdin" else loop.remove_reader)(fd)
