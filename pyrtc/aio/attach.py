"""A connection to a running container, for asyncio: the twin of `pyrtc.Attachment`."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pyrtc.attaching import END_OF_INPUT, input_messages, size_message
from pyrtc.attaching import Attachment as Blocking

if TYPE_CHECKING:
    from pyrtc.runtime.attach import AttachedExit, Stream

__all__ = ["Attachment"]


class Attachment:
    """The twin of `pyrtc.Attachment`: the same names with the same parameters; what may wait is to be awaited.

    >>> async with await container.attach() as attachment:
    ...     await attachment.write(b"status\\n")
    ...     async for stream, data in attachment:
    ...         print(stream, data)

    Waiting is the event loop's, and no thread's. One task may read while another writes; cancelling either loses
    nothing but, of a `write`, what was not written yet.

    Attributes
    ----------
    blocking: the attachment that it is the twin of.
    """

    def __init__(self, attachment: Blocking) -> None:
        self.blocking = attachment
        self._reading, self._writing = asyncio.Lock(), asyncio.Lock()
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def exit(self) -> "AttachedExit | None":
        """How the container ended; see `pyrtc.Attachment`."""
        return self.blocking.exit

    async def read(self, timeout: float | None = None) -> "tuple[Stream, bytes] | None":
        """Return the next piece of output and its stream, or None at the end; see `pyrtc.Attachment.read`."""
        loop = asyncio.get_running_loop()
        async with self._reading, asyncio.timeout(timeout):
            while True:
                with suppress(TimeoutError):
                    return self.blocking.read(0)
                await self._until(loop.add_reader, loop.remove_reader)

    async def wait(self, timeout: float | None = None) -> "AttachedExit | None":
        """Wait for the end, throwing away the output that comes until then; see `pyrtc.Attachment.wait`."""
        async with asyncio.timeout(timeout):
            while await self.read() is not None:
                await asyncio.sleep(0)  # one that never stops writing leaves the others their turn
        return self.exit

    async def write(self, data: bytes | memoryview) -> None:
        """Write to the container's stdin, until its monitor has taken all of it; see `pyrtc.Attachment.write`."""
        self.blocking.check_writable()
        async with self._writing:
            for message in input_messages(data):
                await self._send(message)

    async def close_stdin(self) -> None:
        """Close the container's stdin, for everybody; see `pyrtc.Attachment.close_stdin`."""
        self.blocking.check_writable()
        async with self._writing:
            with suppress(BrokenPipeError):
                await self._send(END_OF_INPUT)

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of the container's terminal."""
        async with self._writing:
            with suppress(BrokenPipeError):
                await self._send(size_message(rows, columns))

    async def _send(self, message: bytes) -> None:
        loop = asyncio.get_running_loop()
        while not self.blocking.send_now(message):
            await self._until(loop.add_writer, loop.remove_writer)

    async def _until(self, watch: Callable[..., Any], forget: Callable[[int], Any]) -> None:
        """Wait until the loop calls, or it is closed."""
        fd = self.blocking.fileno()
        ready = asyncio.get_running_loop().create_future()
        self._waiting.add(ready)
        watch(fd, _wake, ready)
        try:
            await ready
        finally:
            self._waiting.discard(ready)
            # After `close` the number may be another's already, and `close` has had the loop forget it.
            if not self.blocking.closed:
                forget(fd)

    def close(self) -> None:
        """Let the container go on alone. Whoever waits for it gets a ValueError, as of a closed file."""
        if not self.blocking.closed and self._waiting:
            loop = next(iter(self._waiting)).get_loop()
            loop.remove_reader(self.blocking.fileno())
            loop.remove_writer(self.blocking.fileno())
        self.blocking.close()
        for ready in self._waiting:
            _wake(ready)

    async def __aiter__(self) -> "AsyncIterator[tuple[Stream, bytes]]":
        """Yield what `read` returns, to the end."""
        while (piece := await self.read()) is not None:
            yield piece

    async def __aenter__(self) -> "Attachment":
        """Return it."""
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Close it."""
        self.close()


def _wake(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
