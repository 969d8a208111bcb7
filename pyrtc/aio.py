"""The same API for asyncio: a running event loop is never blocked.

Starting a container takes a millisecond or two of system calls and happens in a thread that lives as long as the
process; waiting for it and moving its bytes is the event loop's.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, Unpack, overload

from pyrtc.aio_exec import ExecProcess
from pyrtc.api import default_engine
from pyrtc.capture import DEFAULT_MAX_OUTPUT, Attended, Capture, Pipes, Stream, open_pipes
from pyrtc.container import Completed, Outcome, Running
from pyrtc.engine import Engine
from pyrtc.keywords import ContainerKeywords, Keywords, make_options

if TYPE_CHECKING:
    import re

    from pyrtc.aio_attach import Attachment
    from pyrtc.events import Event
    from pyrtc.exec_process import ExecProcess as BlockingProcess
    from pyrtc.files import Files as BlockingFiles
    from pyrtc.health import Health
    from pyrtc.image.registry.patience import Stop
    from pyrtc.image.registry.progress import OnTransfer, PullResult, PushResult, TransferEvent
    from pyrtc.live import Container as BlockingContainer
    from pyrtc.logs import LogLine, Moment
    from pyrtc.snapshots import Snapshot
    from pyrtc.states import Status
    from pyrtc.stats import Stats

__all__ = ["Container", "ExecProcess", "Images", "Snapshots", "System", "Volumes", "events", "pull", "push", "run"]

_T = TypeVar("_T")


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
    done = await _captured(partial(start, stdio), pipes, input, max_output, on_limit, on_output)
    return done.check() if check else done


async def _captured(
    start: "Callable[[], Running | BlockingProcess]",
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
        starting = loop.run_in_executor(_starters, start)
        cancelled = await _settle(starting)
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
            gathering = loop.run_in_executor(_starters, capture.result)
            cancelled = await _settle(gathering)
            done = gathering.result()
            if cancelled is not None:
                raise cancelled
        except BaseException:
            running.kill()
            await _settle(loop.run_in_executor(_starters, running.close))
            raise
    finally:
        pipes.close()
    return done


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


async def _settle(future: "asyncio.Future[Any]") -> asyncio.CancelledError | None:
    """Wait for what runs in a thread and cannot be interrupted; returns a cancellation that came meanwhile."""
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled


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


# ---- containers that live -------------------------------------------------------------------------------------------


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
        self.start = _in_thread(container.start)
        self.stop = _in_thread(container.stop)
        self.kill = _in_thread(container.kill)
        self.restart = _in_thread(container.restart)
        self.pause = _in_thread(container.pause)
        self.unpause = _in_thread(container.unpause)
        self.remove = _in_thread(container.remove)
        self.rename = _in_thread(container.rename)
        self.inspect = _in_thread(container.inspect)
        self.log_text = _in_thread(container.log_text)
        self.diff = _in_thread(container.diff)
        self.commit = _in_thread(container.commit)
        self.snapshot = _in_thread(container.snapshot)
        self.export = _in_thread(container.export)
        self.top = _in_thread(container.top)
        self.update = _in_thread(container.update)
        self.size = _in_thread(container.size)
        self.exec_detached = _in_thread(container.exec_detached)

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
    def health(self) -> "Health | None":
        """How its health check finds it; see `pyrtc.Container.health`."""
        return self.blocking.health

    @property
    def files(self) -> "Files":
        """Its files; see `pyrtc.Container.files`."""
        return Files(self.blocking.files)

    async def attach(self, *, output: bool = True) -> "Attachment":
        """Connect to what it writes from now on, and to its stdin; see `pyrtc.Container.attach`."""
        from pyrtc.aio_attach import Attachment

        return Attachment(await _in_thread(self.blocking.attach)(output=output))

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
                    await _settle(work)
                    if not work.cancelled():
                        work.exception()  # it has been told, and is no longer of interest
                    raise
        finally:
            os.close(cancel)

    async def exec(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | int | None = None,
        privileged: bool = False,
        tty: bool = False,
        input: bytes = b"",
        timeout: float | None = None,
        max_output: int = DEFAULT_MAX_OUTPUT,
        on_limit: Literal["truncate", "kill"] = "truncate",
        on_output: Callable[[Stream, bytes], object] | None = None,
        check: bool = False,
    ) -> Completed:
        """Execute a command in it and wait for its end; see `pyrtc.Container.exec`.

        Cancelling kills the command with what it started. on_output is called in the event loop.
        """
        from pyrtc.exec import exec_options, executor_of

        asked = exec_options(command, env=env, workdir=workdir, user=user, privileged=privileged, tty=tty)
        pipes = Pipes() if tty else open_pipes(feed=bool(input))
        stdio = (-1, -1, -1) if tty else tuple(pipes.container)

        def start() -> "BlockingProcess":
            return executor_of(self.blocking).start(asked, stdio, timeout=timeout)

        try:
            done = await _captured(start, pipes, input, max_output, on_limit, on_output)
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
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | int | None = None,
        privileged: bool = False,
        tty: bool = False,
        terminal_size: tuple[int, int] | None = None,
    ) -> ExecProcess:
        """Execute a command in it and return it while it runs; see `pyrtc.Container.popen`."""
        call = partial(
            self.blocking.popen,
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            workdir=workdir,
            user=user,
            privileged=privileged,
            tty=tty,
            terminal_size=terminal_size,
        )
        starting = asyncio.get_running_loop().run_in_executor(_starters, call)
        cancelled = await _settle(starting)
        if cancelled is not None and starting.exception() is not None:
            raise cancelled
        process = starting.result()
        if cancelled is not None:
            process.kill()
            await _in_thread(process.close)()
            raise cancelled
        try:
            return await ExecProcess(process).connect()
        except BaseException:
            process.kill()
            await _in_thread(process.close)()
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
            return await _in_thread(waiting.finish)(self.blocking.engine.store)

    async def __aenter__(self) -> "Container":
        """Make and start it, if it is not there yet. Cancelling waits until nothing of it is left."""
        loop = asyncio.get_running_loop()
        entering = loop.run_in_executor(_starters, self.blocking.__enter__)
        cancelled = await _settle(entering)
        if cancelled is not None:
            if entering.exception() is None:
                await _settle(loop.run_in_executor(_starters, self.blocking.__exit__))
            raise cancelled
        entering.result()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Remove it, whatever it is doing."""
        leaving = asyncio.get_running_loop().run_in_executor(_starters, self.blocking.__exit__)
        cancelled = await _settle(leaving)
        leaving.result()
        if cancelled is not None:
            raise cancelled


# ---- images and the store -------------------------------------------------------------------------------------------

_P = ParamSpec("_P")


def _in_thread(call: Callable[_P, _T]) -> "Callable[_P, Awaitable[_T]]":
    """Return the twin of a call that blocks: it runs in a thread of its own kind, not where containers are started.

    Cancelling the task waits until the call has ended, so that nothing goes on behind its back.
    """

    async def twin(*args: _P.args, **keywords: _P.kwargs) -> _T:
        work = asyncio.get_running_loop().run_in_executor(None, partial(call, *args, **keywords))
        cancelled = await _settle(work)
        if cancelled is not None:
            raise cancelled
        return work.result()

    return twin


class Images:
    """The twin of `pyrtc.Engine.images`: the same methods with the same parameters, to be awaited.

    Events of a load come from threads, as they do there.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        images = (engine or default_engine()).images
        self.load = _in_thread(images.load)
        self.import_ = _in_thread(images.import_)
        self.save = _in_thread(images.save)
        self.list = _in_thread(images.list)
        self.get = _in_thread(images.get)
        self.documents = _in_thread(images.documents)
        self.tag = _in_thread(images.tag)
        self.remove = _in_thread(images.remove)
        self.prune = _in_thread(images.prune)


class System:
    """The twin of `pyrtc.Engine.system`: the same methods with the same parameters, to be awaited."""

    def __init__(self, engine: Engine | None = None) -> None:
        system = (engine or default_engine()).system
        self.df = _in_thread(system.df)
        self.check = _in_thread(system.check)
        self.prune = _in_thread(system.prune)
        self.prune_containers = _in_thread(system.prune_containers)
        self.prune_images = _in_thread(system.prune_images)
        self.prune_volumes = _in_thread(system.prune_volumes)


class Snapshots:
    """The twin of `pyrtc.Engine.snapshots`: the same methods with the same parameters, to be awaited."""

    def __init__(self, engine: Engine | None = None) -> None:
        snapshots = (engine or default_engine()).snapshots
        self.list = _in_thread(snapshots.list)
        self.get = _in_thread(snapshots.get)
        self.size = _in_thread(snapshots.size)
        self.remove = _in_thread(snapshots.remove)


class Volumes:
    """The twin of `pyrtc.Engine.volumes`: the same methods with the same parameters, to be awaited."""

    def __init__(self, engine: Engine | None = None) -> None:
        volumes = (engine or default_engine()).volumes
        self.create = _in_thread(volumes.create)
        self.get = _in_thread(volumes.get)
        self.list = _in_thread(volumes.list)
        self.users = _in_thread(volumes.users)
        self.remove = _in_thread(volumes.remove)


class Files:
    """The twin of `pyrtc.Files`: the same methods with the same parameters, to be awaited."""

    def __init__(self, files: "BlockingFiles") -> None:
        self.read = _in_thread(files.read)
        self.read_text = _in_thread(files.read_text)
        self.write = _in_thread(files.write)
        self.append = _in_thread(files.append)
        self.stat = _in_thread(files.stat)
        self.exists = _in_thread(files.exists)
        self.list = _in_thread(files.list)
        self.mkdir = _in_thread(files.mkdir)
        self.remove = _in_thread(files.remove)
        self.copy_in = _in_thread(files.copy_in)
        self.copy_out = _in_thread(files.copy_out)
        self.archive_in = _in_thread(files.archive_in)
        self.archive_out = _in_thread(files.archive_out)
