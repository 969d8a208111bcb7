"""A command that executes in a container, for asyncio: the twin of `pyrtc.exec_process.ExecProcess`."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

from pyrtc.errors import UsageError
from pyrtc.exec_process import ExecProcess as Blocking

__all__ = ["ExecProcess"]

_LINE = 1 << 20  # bytes that a line may have


class ExecProcess:
    """The twin of `pyrtc.ExecProcess`: the same names; its streams are asyncio's, and what takes time is to be awaited.

    Attributes
    ----------
    blocking: the process that it is the twin of.
    stdin: an asyncio.StreamWriter, stdout, stderr: asyncio.StreamReader, where pipes were asked for, else None. With a
        terminal stdin and stdout are its two directions.
    """

    def __init__(self, process: Blocking) -> None:
        self.blocking = process
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None

    async def connect(self) -> "ExecProcess":
        """Hand its streams to the running event loop."""
        loop = asyncio.get_running_loop()
        process = self.blocking
        if process.stdin is not None:
            transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, process.stdin)
            self.stdin = asyncio.StreamWriter(transport, protocol, None, loop)
        for name in ("stdout", "stderr"):
            stream = getattr(process, name)
            if stream is not None:
                reader = asyncio.StreamReader(_LINE, loop)
                await loop.connect_read_pipe(partial(_Protocol, reader), stream)
                setattr(self, name, reader)
        return self

    @property
    def args(self) -> tuple[str, ...]:
        """The command."""
        return self.blocking.args

    @property
    def pid(self) -> int:
        """Its process, as this machine numbers it."""
        return self.blocking.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, 128 + n where signal n killed it; None while it runs."""
        return self.blocking.poll()

    async def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code. Cancelling leaves the command alone.

        Raises
        ------
        TimeoutError: it still runs after `timeout` seconds.
        """
        if self.blocking.poll() is None:
            # A descriptor of this call's own: others may wait, too.
            pidfd = os.dup(self.blocking.pidfd)
            loop = asyncio.get_running_loop()
            ended = asyncio.Event()
            loop.add_reader(pidfd, ended.set)
            try:
                await asyncio.wait_for(ended.wait(), timeout)
            except TimeoutError:
                raise TimeoutError(f"{' '.join(self.args)!r} still runs") from None
            finally:
                loop.remove_reader(pidfd)
                os.close(pidfd)
        return await asyncio.to_thread(self.blocking.wait)

    async def communicate(
        self, input: bytes | None = None, timeout: float | None = None
    ) -> tuple[bytes | None, bytes | None]:
        """Write input to its standard input and close that, read what it writes, and wait for its end.

        Unlike the blocking twin's, output that was read is lost with a time-out, as it is with asyncio's processes.

        Raises
        ------
        TimeoutError: it still runs after `timeout` seconds, and goes on. UsageError: input, though its standard input
            is no pipe.
        """
        if input and self.stdin is None:
            raise UsageError("there is input, but standard input is no pipe")

        async def feed() -> None:
            if self.stdin is not None:
                with suppress(BrokenPipeError, ConnectionResetError):  # it does not want to read it
                    self.stdin.write(input or b"")
                    await self.stdin.drain()
                self.stdin.close()

        async def read(stream: asyncio.StreamReader | None) -> bytes | None:
            return None if stream is None else await stream.read()

        async with asyncio.timeout(timeout):
            _, stdout, stderr = await asyncio.gather(feed(), read(self.stdout), read(self.stderr))
            await self.wait()
        return stdout, stderr

    def send_signal(self, number: int) -> None:
        """Send a signal to the command. One that has ended is not an error."""
        self.blocking.send_signal(number)

    def terminate(self) -> None:
        """Ask it to end: SIGTERM."""
        self.blocking.terminate()

    def kill(self) -> None:
        """Kill it and what it started."""
        self.blocking.kill()

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal."""
        self.blocking.resize(rows, columns)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the lines of its standard output, with their ends."""
        if self.stdout is None:
            raise UsageError("the command's output is not a pipe: there are no lines to read")
        async for line in self.stdout:
            yield line

    async def __aenter__(self) -> "ExecProcess":
        """Return it."""
        return self

    async def __aexit__(self, kind: object, *_exception: object) -> None:
        """Close its input and wait for its end, killing it if something went wrong."""
        if kind is not None:
            self.kill()
        if self.stdin is not None:
            self.stdin.close()
        try:
            await self.wait()
        except BaseException:
            self.kill()
            await asyncio.to_thread(self.blocking.close)
            raise


class _Protocol(asyncio.StreamReaderProtocol):
    """A terminal that nobody holds any more has come to its end."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(None if isinstance(exc, OSError) and exc.errno == errno.EIO else exc)
