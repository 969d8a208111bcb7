"""A container that lives, and its files, for asyncio."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, TYPE_CHECKING, Literal, Unpack, overload

from pyrtc.aio.attach import Attachment
from pyrtc.aio.capture import captured
from pyrtc.aio.exec_process import ExecProcess
from pyrtc.aio.threads import in_starter, in_thread, settle
from pyrtc.capture import DEFAULT_MAX_OUTPUT, Pipes, Stream, open_pipes
from pyrtc.container import Completed
from pyrtc.engine import Engine

if TYPE_CHECKING:
    import re

    from pyrtc.exec_process import ExecProcess as BlockingProcess
    from pyrtc.files import Files as BlockingFiles
    from pyrtc.health import Health
    from pyrtc.keywords import ContainerKeywords, ExecKeywords
    from pyrtc.live import Container as BlockingContainer
    from pyrtc.logs import LogLine, Moment
    from pyrtc.options import Port
    from pyrtc.snapshots import Snapshot
    from pyrtc.states import Status
    from pyrtc.stats import Stats

__all__ = ["Container", "Files"]


class Container:
    """The twin of `pyrtc.Container`: the same names with the same parameters; what takes time is to be awaited.

    >>> async with pyrtc.aio.Container("debian:12", ["sleep", "inf"]) as container:
    ...     await container.stop()
    """

    def __init__(
        self,
        image: "str | Snapshot",
        command: Sequence[str | os.PathLike[str]] | None = None,
        *,
        engine: Engine | None = None,
        **options: "Unpack[ContainerKeywords]",
    ) -> None:
        from pyrtc.live import Container as Blocking

        self._bind(Blocking(image, command, engine=engine, **options))

    @classmethod
    def of(cls, container: "BlockingContainer") -> "Container":
        """Return the twin of a handle, such as `Engine.containers.get` returns."""
        twin = cls.__new__(cls)
        twin._bind(container)
        return twin

    def _bind(self, container: "BlockingContainer") -> None:
        self.blocking = container
        self.start = in_thread(container.start)
        self.stop = in_thread(container.stop)
        self.kill = in_thread(container.kill)
        self.restart = in_thread(container.restart)
        self.pause = in_thread(container.pause)
        self.unpause = in_thread(container.unpause)
        self.remove = in_thread(container.remove)
        self.rename = in_thread(container.rename)
        self.inspect = in_thread(container.inspect)
        self.log_text = in_thread(container.log_text)
        self.diff = in_thread(container.diff)
        self.commit = in_thread(container.commit)
        self.snapshot = in_thread(container.snapshot)
        self.export = in_thread(container.export)
        self.top = in_thread(container.top)
        self.update = in_thread(container.update)
        self.size = in_thread(container.size)
        self.exec_detached = in_thread(container.exec_detached)

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.blocking.id

    @property
    def name(self) -> str:
        """Its name."""
        return self.blocking.name

    @property
    def status(self) -> "Status":
        """What it is doing now; see `pyrtc.Container.status`."""
        return self.blocking.status

    @property
    def pid(self) -> int | None:
        """Its process 1 as this machine numbers it; None when it does not run."""
        return self.blocking.pid

    @property
    def ports(self) -> "tuple[Port, ...]":
        """The ports of this machine that lead to it; see `pyrtc.Container.ports`."""
        return self.blocking.ports

    def address(self, port: int | str) -> tuple[str, int]:
        """Return where on this machine a port of it is reached; see `pyrtc.Container.address`."""
        return self.blocking.address(port)

    @property
    def health(self) -> "Health | None":
        """How its health check finds it; see `pyrtc.Container.health`."""
        return self.blocking.health

    @property
    def files(self) -> "Files":
        """Its files; see `pyrtc.Container.files`."""
        return Files(self.blocking.files)

    async def attach(self, *, output: bool = True) -> Attachment:
        """Connect to what it writes from now on, and to its stdin; see `pyrtc.Container.attach`."""
        return Attachment(await in_thread(self.blocking.attach)(output=output))

    @overload
    def stats(self, *, stream: Literal[False] = False, interval: float = 0.1) -> "Awaitable[Stats]": ...
    @overload
    def stats(self, *, stream: Literal[True], interval: float = 1.0) -> "AsyncIterator[Stats]": ...

    def stats(
        self, *, stream: bool = False, interval: float | None = None
    ) -> "Awaitable[Stats] | AsyncIterator[Stats]":
        """Return what it uses now; see `pyrtc.Container.stats`. With stream the iterator is for ``async for``."""
        from pyrtc.stats import stats_async, stream_async

        if stream:
            return stream_async(self.blocking, 1.0 if interval is None else interval)
        return stats_async(self.blocking, 0.1 if interval is None else interval)

    def logs(
        self,
        *,
        follow: bool = False,
        since: "Moment" = None,
        until: "Moment" = None,
        tail: int | None = None,
        stdout: bool = True,
        stderr: bool = True,
    ) -> "AsyncIterator[LogLine]":
        """Iterate over the lines that it has written; see `pyrtc.Container.logs`. Cancelling closes the log."""
        from pyrtc.log_follow import follow_lines_async, log_directory, monitor_of
        from pyrtc.logs import select_lines

        selection = select_lines(since, until, tail, stdout=stdout, stderr=stderr)
        record = self.blocking.record
        return follow_lines_async(log_directory(record), selection, monitor_of(record), follow=follow)

    async def wait_for(
        self,
        *,
        port: int | str | None = None,
        log: "str | bytes | re.Pattern[str] | re.Pattern[bytes] | None" = None,
        healthy: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Return when it is of use; see `pyrtc.Container.wait_for`. Cancelling leaves the container alone."""
        from pyrtc.readiness import wait_for, wanted

        what = wanted(port, log, healthy=healthy)
        cancel = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            # A thread of its own: waiting for many at once must not use up the loop's.
            with ThreadPoolExecutor(1, "pyrtc-wait") as own:
                work = asyncio.get_running_loop().run_in_executor(
                    own, partial(wait_for, self.blocking, what, timeout=timeout, cancel_fd=cancel)
                )
                try:
                    await asyncio.shield(work)
                except asyncio.CancelledError:
                    os.eventfd_write(cancel, 1)
                    await settle(work)
                    if not work.cancelled():
                        work.exception()  # it has been told, and is no longer of interest
                    raise
        finally:
            os.close(cancel)

    async def exec(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        input: bytes = b"",
        timeout: float | None = None,
        max_output: int = DEFAULT_MAX_OUTPUT,
        on_limit: Literal["truncate", "kill"] = "truncate",
        on_output: Callable[[Stream, bytes], object] | None = None,
        check: bool = False,
        **options: "Unpack[ExecKeywords]",
    ) -> Completed:
        """Execute a command in it and wait for its end; see `pyrtc.Container.exec`.

        Cancelling kills the command with what it started. on_output is called in the event loop.
        """
        from pyrtc.exec import exec_options, executor_of

        asked = exec_options(command, **options)
        pipes = Pipes() if asked.tty else open_pipes(feed=bool(input))
        stdio = (-1, -1, -1) if asked.tty else tuple(pipes.container)

        def start() -> "BlockingProcess":
            return executor_of(self.blocking).start(asked, stdio, timeout=timeout)

        try:
            done = await captured(start, pipes, input, max_output, on_limit, on_output)
        except TimeoutError:  # it had not begun by then
            done = executor_of(self.blocking).too_late(asked, timeout or 0.0)
        return done.check() if check else done

    async def popen(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        stdin: int | IO[bytes] | None = None,
        stdout: int | IO[bytes] | None = -1,
        stderr: int | IO[bytes] | None = -1,
        terminal_size: tuple[int, int] | None = None,
        **options: "Unpack[ExecKeywords]",
    ) -> ExecProcess:
        """Execute a command in it and return it while it runs; see `pyrtc.Container.popen`."""
        call = partial(
            self.blocking.popen,
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            terminal_size=terminal_size,
            **options,
        )
        starting = in_starter(call)
        cancelled = await settle(starting)
        if cancelled is not None and starting.exception() is not None:
            raise cancelled
        process = starting.result()
        if cancelled is not None:
            process.kill()
            await in_thread(process.close)()
            raise cancelled
        try:
            return await ExecProcess(process).connect()
        except BaseException:
            process.kill()
            await in_thread(process.close)()
            raise

    async def wait(self, timeout: float | None = None) -> Completed:
        """Wait for the end of its present run; see `pyrtc.Container.wait`. Cancelling leaves the container alone."""
        from pyrtc.ending import Waiting

        loop = asyncio.get_running_loop()
        with Waiting(self.blocking.record) as waiting:
            if waiting.fd is not None:
                ended = asyncio.Event()
                loop.add_reader(waiting.fd, ended.set)
                try:
                    await asyncio.wait_for(ended.wait(), timeout)
                except TimeoutError:
                    raise TimeoutError(f"container {self.name} still runs") from None
                finally:
                    loop.remove_reader(waiting.fd)
            return await in_thread(waiting.finish)(self.blocking.engine.store)

    async def __aenter__(self) -> "Container":
        """Make and start it, if it is not there yet. Cancelling waits until nothing of it is left."""
        entering = in_starter(self.blocking.__enter__)
        cancelled = await settle(entering)
        if cancelled is not None:
            if entering.exception() is None:
                await settle(in_starter(self.blocking.__exit__))
            raise cancelled
        entering.result()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Remove it, whatever it is doing."""
        leaving = in_starter(self.blocking.__exit__)
        cancelled = await settle(leaving)
        leaving.result()
        if cancelled is not None:
            raise cancelled


class Files:
    """The twin of `pyrtc.Files`: the same methods with the same parameters, to be awaited."""

    def __init__(self, files: "BlockingFiles") -> None:
        self.read = in_thread(files.read)
        self.read_text = in_thread(files.read_text)
        self.write = in_thread(files.write)
        self.append = in_thread(files.append)
        self.stat = in_thread(files.stat)
        self.exists = in_thread(files.exists)
        self.list = in_thread(files.list)
        self.mkdir = in_thread(files.mkdir)
        self.remove = in_thread(files.remove)
        self.copy_in = in_thread(files.copy_in)
        self.copy_out = in_thread(files.copy_out)
        self.archive_in = in_thread(files.archive_in)
        self.archive_out = in_thread(files.archive_out)
