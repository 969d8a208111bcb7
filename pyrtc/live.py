"""`Container`: a handle on one container of a store, whoever started it."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Literal, Unpack, overload

from pyrtc.capture import DEFAULT_MAX_OUTPUT, Stream
from pyrtc.errors import ContainerError, ContainerNotFound
from pyrtc.states import Status, is_alive, status_of

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator

    from pyrtc.container import Completed
    from pyrtc.engine import Engine
    from pyrtc.exec import Executor
    from pyrtc.exec_process import ExecProcess
    from pyrtc.files import Files
    from pyrtc.health import Health
    from pyrtc.image.config import ImageConfig
    from pyrtc.inspection import ContainerSize, Inspection
    from pyrtc.keywords import ContainerKeywords, ExecKeywords
    from pyrtc.logs import LogLine, Moment
    from pyrtc.options import RunOptions
    from pyrtc.processes import ProcessInfo
    from pyrtc.runtime.attach import Attachment
    from pyrtc.runtime.cgroups import Cgroup
    from pyrtc.rw_layer import Change, RwLayer
    from pyrtc.snapshots import Snapshot
    from pyrtc.stats import Stats
    from pyrtc.store import ContainerRecord, Image
    from pyrtc.updating import UpdateKeywords
    from pyrtc.watched import Owned

__all__ = ["Container"]


class Container:
    """A container: made and started by a `with` block, or found in a store by `Engine.containers.get`.

    >>> with pyrtc.Container("debian:12", ["sleep", "inf"], memory="64m") as container:
    ...     container.status
    'running'

    In the block the container runs beside the program. When the block ends, however it does, or the program dies,
    however it does, the container is removed with all that it wrote.

    Parameters
    ----------
    image, command, options: as for `pyrtc.run`, and those of `ContainerKeywords`. engine: another engine than the
    default one.

    Attributes
    ----------
    warnings: limits that were left out with best_effort=True, in words, of the start that this handle made.
    """

    executor: "Executor | None" = None  # of the run that a command was last executed in

    def __init__(
        self,
        image: "str | Snapshot",
        command: Sequence[str | os.PathLike[str]] | None = None,
        *,
        engine: "Engine | None" = None,
        **options: "Unpack[ContainerKeywords]",
    ) -> None:
        from pyrtc.keywords import container_options

        self._engine = engine
        self._id: str | None = None
        self._owned: Owned | None = None
        self.warnings: tuple[str, ...] = ()
        self._wanted: tuple[str, RunOptions] | None = (str(image), container_options(command, **options))

    @classmethod
    def of(cls, engine: "Engine", container_id: str) -> "Container":
        """Return a handle on a container that exists."""
        container = cls.__new__(cls)
        container._engine, container._id, container._wanted = engine, container_id, None
        container._owned, container.warnings = None, ()
        return container

    def __repr__(self) -> str:
        """Name it."""
        return f"<pyrtc.Container {self._id[:12] if self._id else '(not made yet)'}>"

    # ---- what it is ----------------------------------------------------------------------------------------------

    @property
    def engine(self) -> "Engine":
        """The engine that it belongs to."""
        if self._engine is None:
            from pyrtc import default_engine

            self._engine = default_engine()
        return self._engine

    @property
    def id(self) -> str:
        """64 hexadecimal digits.

        Raises
        ------
        ContainerError: the `with` block, which makes the container, has not begun.
        """
        if self._id is None:
            raise ContainerError("the container is not made yet: that is what `with` does")
        return self._id

    @property
    def record(self) -> "ContainerRecord":
        """What the store knows of it now.

        Raises
        ------
        ContainerNotFound: it has been removed.
        """
        return self.engine.store.containers.get(self.id)

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name

    @property
    def status(self) -> Status:
        """What it is doing now: ``created``, ``running``, ``paused``, ``restarting``, ``exited``, ``dead``."""
        return status_of(self.record)

    @property
    def pid(self) -> int | None:
        """Its process 1 as this machine numbers it; None when it does not run."""
        record = self.record
        return record.pid if record.state == "running" and is_alive(record) else None

    @property
    def options(self) -> "RunOptions":
        """What it was asked to be.

        Raises
        ------
        ContainerError: it goes when it ends, so nothing of that was kept.
        """
        from pyrtc.store.records import load_options

        spec = self.record.spec
        if spec is None:
            raise ContainerError(
                f"container {self.name} runs in the foreground and goes when it ends: its options are not kept"
            )
        return load_options(spec)

    @property
    def image_config(self) -> "ImageConfig":
        """The config of its image."""
        from pyrtc.preparation import find_image

        return find_image(self.engine.store, self.record.image_id, None).config

    def cgroup(self) -> "Cgroup":
        """Return its control groups.

        Raises
        ------
        ContainerNotFound: it has none now: it does not run, or this user may not make control groups.
        """
        from pyrtc.runtime.cgroups import Cgroup

        return Cgroup.open(self.id)

    @property
    def cgroup_path(self) -> str | None:
        """The directory of its control group in the unified hierarchy, or of the freezer; None where there is none."""
        try:
            return self.cgroup().path
        except ContainerNotFound:
            return None

    @property
    def files(self) -> "Files":
        """Its files, whether it runs or not: read, write, list, copy."""
        from pyrtc.files import Files

        return Files(self.engine.store, self.id)

    def root_fd(self) -> int:
        """Return a descriptor (O_PATH), which becomes the caller's, of the container's root directory as it sees it.

        What is below it is the container's to change at any moment: resolve names with openat2(RESOLVE_IN_ROOT).

        Raises
        ------
        ContainerError: it does not run.
        """
        from pyrtc.store.containers import open_process

        record = self.record
        pidfd = open_process(record.pid, record.start_time) if record.state == "running" else None
        if pidfd is None:
            raise ContainerError(f"container {record.name} is not running")
        try:
            try:
                fd = os.open(f"/proc/{record.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise ContainerError(f"cannot reach the root of container {record.name}: {error.strerror}") from None
            # Still the same process: the number cannot have been another's when the link was read.
            from pyrtc.store.owner import process_start_time

            if process_start_time(record.pid) != record.start_time:
                os.close(fd)
                raise ContainerError(f"container {record.name} is not running")
            return fd
        finally:
            os.close(pidfd)

    # ---- its life ------------------------------------------------------------------------------------------------

    def start(self, *, on_created: Callable[[], object] | None = None) -> "Container":
        """Start it, if it does not run; returns when its command executes. What it wrote before is still there.

        Parameters
        ----------
        on_created: called when its first process exists and before its command executes, with its monitor listening:
            who attaches here misses nothing of its output. What it raises ends the start.

        Raises
        ------
        PyrtcError: what is wrong with the image, an option or this machine; the container stays what it was.
        """
        from pyrtc.watched import start_again

        self._own(start_again(self.engine, self.id, on_created=on_created))
        return self

    def _own(self, owned: "Owned | None") -> None:
        """Keep what ties it to this program instead of what did so in its run before."""
        if owned is not None:
            if self._owned is not None:
                self._owned.close()
            self._owned = owned

    def stop(self, timeout: float | None = None, *, signal: str | int | None = None) -> None:
        """Ask it to end, kill it if it does not. One that has ended is fine; a restart policy does not start it again.

        Parameters
        ----------
        timeout: seconds before it is killed; None: its own stop timeout, 10 unless set. signal: instead of its own stop
        signal, which is the image's or SIGTERM unless set.

        Raises
        ------
        ContainerError: it does not end even so.
        """
        from pyrtc.ending import stop

        stop(self.engine.store, self.record, timeout=timeout, signal=signal)

    def kill(self, signal: str | int = "KILL") -> None:
        """Send a signal to its process 1; SIGKILL ends every process of it.

        Raises
        ------
        ContainerError: it does not run.
        """
        from pyrtc.ending import kill

        kill(self.engine.store, self.record, signal)

    def restart(self, timeout: float | None = None, *, signal: str | int | None = None) -> None:
        """Stop it, if it runs, and start it again; what it wrote stays."""
        from pyrtc.ended import event_attributes
        from pyrtc.ending import stop
        from pyrtc.events import emit
        from pyrtc.watched import start_again

        stop(self.engine.store, self.record, timeout=timeout, signal=signal, keep=True)
        self._own(start_again(self.engine, self.id))
        emit(self.engine.store, "container", "restart", self.id, event_attributes(self.record))

    def pause(self) -> None:
        """Stop every process of it where it is, until `unpause`.

        Raises
        ------
        ContainerError: it does not run, is paused already, or a process cannot be stopped. UnsupportedError: there is
        no control group to do it with.
        """
        from pyrtc.ending import pause

        pause(self.engine.store, self.record)

    def unpause(self) -> None:
        """Let it go on.

        Raises
        ------
        ContainerError: it is not paused.
        """
        from pyrtc.ending import unpause

        unpause(self.engine.store, self.record)

    def wait(self, timeout: float | None = None) -> "Completed":
        """Wait for the end of its present run and return how it ended; of one that does not run, its last.

        Raises
        ------
        TimeoutError: it still runs after `timeout` seconds. ContainerError: it has not run yet, or it has been removed
        and nobody can tell any more how it ended.
        """
        from pyrtc.ending import Waiting

        with Waiting(self.record) as waiting:
            return waiting.finish(self.engine.store, timeout)

    def attach(self, *, output: bool = True) -> "Attachment":
        """Connect to what it writes from now on, and to its stdin; see `Attachment`. Any number may be connected.

        Who does so in on_created of `start` misses nothing; what it wrote before is in `logs`.

        Parameters
        ----------
        output: False to write to it only.

        Raises
        ------
        ContainerError: it does not run, is paused, is in the foreground of another program, or its monitor was killed.
        """
        from pyrtc.attaching import attach_to

        return attach_to(self, output=output)

    def logs(
        self,
        *,
        follow: bool = False,
        since: "Moment" = None,
        until: "Moment" = None,
        tail: int | None = None,
        stdout: bool = True,
        stderr: bool = True,
    ) -> "Iterator[LogLine]":
        """Iterate over the lines that it has written, the oldest first.

        >>> for line in container.logs(follow=True):
        ...     print(line.time, line.stream, line.text)

        Parameters
        ----------
        follow: go on with what it writes until its present run ends; closing the iterator ends that sooner.
        since, until: seconds since the epoch, a datetime, or words: ``"10m"`` ago, RFC 3339. until is not included.
        tail: only so many lines, the last of those that since and until let through.
        stdout, stderr: which stream; a container with a terminal has only stdout.

        Raises
        ------
        ContainerError: it keeps no log: it is in somebody's foreground, or was made with driver "none". UsageError: a
        moment that is none. StoreError: the log cannot be read.
        """
        from pyrtc.log_follow import follow_lines, log_directory, monitor_of, read_lines
        from pyrtc.logs import select_lines

        selection = select_lines(since, until, tail, stdout=stdout, stderr=stderr)
        record = self.record
        if follow:
            return follow_lines(log_directory(record), selection, monitor_of(record))
        return read_lines(log_directory(record), selection)

    def log_text(
        self, *, since: "Moment" = None, until: "Moment" = None, tail: int | None = None, timestamps: bool = False
    ) -> str:
        """Return what it has written as text; what is no UTF-8 is replaced.

        Parameters
        ----------
        since, until, tail: as for `logs`. timestamps: before each line when it was written, in RFC 3339.
        """
        from pyrtc.logs import format_time

        lines = self.logs(since=since, until=until, tail=tail)
        if not timestamps:
            return b"".join(line.data for line in lines).decode(errors="replace")
        return "".join(f"{format_time(line.time_ns)} {line.data.decode(errors='replace')}" for line in lines)

    def wait_for(
        self,
        *,
        port: int | str | None = None,
        log: "str | bytes | re.Pattern[str] | re.Pattern[bytes] | None" = None,
        healthy: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Return when the container is of use: everything that is named has come about in its present run.

        >>> container.wait_for(port=5432, timeout=20)

        Parameters
        ----------
        port: something listens on it, on whatever address, in the container's network namespace: a number, or a word
            such as ``"53/udp"``. It is looked up, not connected to, so the server sees nothing of it.
        log: a line of its log holds this text or regular expression, a line without an end included.
        healthy: its health check has succeeded.
        timeout: seconds; None waits until the container ends.

        Raises
        ------
        TimeoutError: it did not come about in time; the text ends with the last lines of the log. ContainerError: the
        container ended before, likewise; it is unhealthy; it does not run; it keeps no log, or has no health check.
        UsageError: nothing to wait for.
        """
        from pyrtc.readiness import wait_for, wanted

        wait_for(self, wanted(port, log, healthy=healthy), timeout=timeout)

    @property
    def health(self) -> "Health | None":
        """How its health check finds it, and the last checks; None where nothing checks it.

        There is no event for a change: `wait_for` waits for one.
        """
        from pyrtc.health import read_health

        return read_health(self.record)

    def remove(self, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it with what it wrote. force: kill it first if it runs. volumes: its anonymous volumes, too.

        Raises
        ------
        ContainerError: it runs and force is false.
        """
        from pyrtc.ending import remove

        remove(self.engine.store, self.record, force=force, volumes=volumes)

    # ---- what it wrote -------------------------------------------------------------------------------------------

    def diff(self) -> "tuple[Change, ...]":
        """Return what it changed in the files of its image, sorted by path; what is mounted does not count.

        A directory in which something changed has changed, too. Of a tree that was removed only its root is told.

        Raises
        ------
        UnsupportedError: its R/W layer is in memory, it has a copy of all files (driver="copy"), or it stands on
        "host". StoreError: a file cannot be read.
        """
        return self._rw_layer("tell what was changed by").changes()

    def commit(
        self,
        name: str | None = None,
        *,
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
    ) -> "Image":
        """Make an image of its image and what it wrote; a container that runs goes on afterwards.

        The image's config is that of the container's image, with the command, entrypoint, variables, user, workdir,
        stop signal and labels that the container was started with, and then with changes. What is mounted is not in it.
        The variable SOURCE_DATE_EPOCH (seconds) makes the same files give the same image.

        Parameters
        ----------
        name: None for an image without a name. author, message: for the history. changes: lines in Dockerfile's words:
        CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR. pause: every
        process is stopped while the files are read, so that they fit together.

        Raises
        ------
        UnsupportedError: as for `diff`; or it runs and cannot be paused. UsageError: a change cannot mean anything.
        StoreError: no space, or a file that no layer can hold (a name that begins with .wh.).
        """
        from pyrtc.ended import event_attributes
        from pyrtc.events import emit

        layer = self._rw_layer("commit")
        made = layer.commit(name, author=author, message=message, changes=changes, pause=pause)
        emit(self.engine.store, "container", "commit", self.id, {**event_attributes(layer.record), "imageID": made.id})
        return made

    def snapshot(
        self, name: str | None = None, *, stop: bool = False, timeout: float | None = None, durable: bool = False
    ) -> "Snapshot":
        """Freeze what it wrote, so that any number of containers can be started from there.

        With stop=True, or when it does not run, nothing is copied: its R/W layer becomes the snapshot, at the price of
        a rename however large it is, and the container itself stands on it with an empty one. Without, it is paused
        while its R/W layer is copied, which shares the data where the file system can (XFS, Btrfs, bcachefs: reflinks).

        Parameters
        ----------
        name: None for one without. stop: end it first; timeout: as for `stop`. durable: the snapshot survives when the
        machine goes down, which takes writing its data to the disk; one of a container that is kept always does.

        Raises
        ------
        UnsupportedError: as for `diff`; it runs and cannot be paused; or it has userns="auto". StoreError: the name is
        taken. ContainerError: it does not end.
        """
        from pyrtc.snapshots import snapshot_of

        return snapshot_of(
            self._rw_layer("make a snapshot of").snapshot(name, stop=stop, timeout=timeout, durable=durable)
        )

    def export(self, target: int | str | os.PathLike[str]) -> None:
        """Write all files of its root as a tar: image and R/W layer together, nothing of what is mounted.

        It is not paused: what changes meanwhile may be in it as before or after.

        Parameters
        ----------
        target: a path, where the file appears whole or not at all, or an open descriptor, which may be a pipe.

        Raises
        ------
        UnsupportedError: as for `diff`. StoreError: a file cannot be read. UsageError: the target cannot be written.
        """
        from pyrtc.rw_layer import export_to

        export_to(self._rw_layer("export"), target)

    def _rw_layer(self, what: str) -> "RwLayer":
        from pyrtc.rw_layer import RwLayer

        return RwLayer(self.engine, self.record, what)

    def rename(self, name: str) -> None:
        """Give it another name.

        Raises
        ------
        UsageError: the name breaks the rules. ContainerError: it is taken.
        """
        from pyrtc.ended import event_attributes
        from pyrtc.events import emit

        store, record = self.engine.store, self.record
        store.lives.rename(record, name)
        emit(store, "container", "rename", record.id, {**event_attributes(self.record), "oldName": record.name})

    @overload
    def stats(self, *, stream: Literal[False] = False, interval: float = 0.1) -> "Stats": ...
    @overload
    def stats(self, *, stream: Literal[True], interval: float = 1.0) -> "Iterator[Stats]": ...

    def stats(self, *, stream: bool = False, interval: float | None = None) -> "Stats | Iterator[Stats]":
        """Return what it uses now.

        Parameters
        ----------
        stream: return an iterator instead, which has a value each `interval` until the container has ended. interval:
            seconds between two values; without stream those that its share of the CPU is measured over, 0.1 unless
            given; with 0 the answer comes at once, and without a share.

        Raises
        ------
        ContainerError: it does not run.
        """
        from pyrtc.stats import stats
        from pyrtc.stats import stream as streamed

        if stream:
            return streamed(self, 1.0 if interval is None else interval)
        return stats(self, 0.1 if interval is None else interval)

    def top(self) -> "tuple[ProcessInfo, ...]":
        """Return its processes, as this machine numbers them; nothing runs in it for that.

        Raises
        ------
        ContainerError: it does not run, or nothing tells which processes are its own.
        """
        from pyrtc.processes import processes

        return processes(self)

    def update(self, **changes: "Unpack[UpdateKeywords]") -> tuple[str, ...]:
        """Change its limits, which hold at once and at its next starts, or its restart policy.

        Parameters
        ----------
        changes: see `UpdateKeywords`; names and meanings are those of `pyrtc.run`. What is not given stays; None takes
            a limit away; rates of devices are added to those there are, and a rate of 0 takes one away.

        Returns
        -------
        What is other than one may expect, in words; mostly nothing.

        Raises
        ------
        UsageError: values that cannot mean anything. LimitError: a limit that cannot be had; all are what they were.
        UnsupportedError: it has no control group. ContainerNotFound: it has been removed.
        """
        from pyrtc.updating import update

        return update(self, changes)

    def size(self) -> "ContainerSize":
        """Measure what it has written, which takes a walk over that.

        Raises
        ------
        ContainerNotFound: it has been removed. StoreError: something in it cannot be read.
        """
        from pyrtc.inspection import size_of

        return size_of(self)

    def inspect(self) -> "Inspection":
        """Return everything that is known of it."""
        from pyrtc.inspection import inspect

        return inspect(self)

    # ---- commands in it ------------------------------------------------------------------------------------------

    def exec(
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
    ) -> "Completed":
        """Execute a command in the running container and wait for its end.

        It has the container's isolation: namespaces, control groups, capabilities, filter, limits. What it leaves
        running lives on in the container; it is killed with all that it started when this program dies.

        Parameters
        ----------
        command: program and arguments; PATH is looked up in the container.
        timeout: seconds, then it is killed with what it started. That is found by a control group of its own; where
            there is none (an ordinary user without a delegated one), by its process group, which a program can leave.
        input, max_output, on_limit, on_output, check: as for `pyrtc.run`.
        options: see `ExecKeywords`; with tty all output is in `stdout`.

        Returns
        -------
        Completed: usage counts CPU time of what it started where there is a control group; memory is the container's.

        Raises
        ------
        ContainerError: the container does not run, or is paused. CommandNotFound, CommandNotExecutable: no such program
        in it. UsageError, UnsupportedError, StartError: as for `pyrtc.run`. ContainerFailed: with check=True.
        """
        from pyrtc.exec import exec_options, executor_of

        asked = exec_options(command, **options)
        done = executor_of(self).exec(
            asked, input=input, timeout=timeout, max_output=max_output, on_limit=on_limit, on_output=on_output
        )
        return done.check() if check else done

    def popen(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        stdin: int | IO[bytes] | None = None,
        stdout: int | IO[bytes] | None = -1,
        stderr: int | IO[bytes] | None = -1,
        terminal_size: tuple[int, int] | None = None,
        **options: "Unpack[ExecKeywords]",
    ) -> "ExecProcess":
        """Execute a command in the running container and return it while it runs.

        Parameters
        ----------
        stdin, stdout, stderr: subprocess.PIPE, DEVNULL, for stderr STDOUT, a descriptor or a file; None is /dev/null.
            Without a word stdout and stderr are pipes. With tty they are one terminal.
        terminal_size: its rows and columns. The others are as for `exec`, and so is what is raised.
        """
        from pyrtc.exec import exec_options, executor_of

        asked = exec_options(command, **options)
        return executor_of(self).popen(asked, stdin=stdin, stdout=stdout, stderr=stderr, terminal_size=terminal_size)

    def exec_detached(
        self,
        command: Sequence[str | os.PathLike[str]],
        **options: "Unpack[ExecKeywords]",
    ) -> int:
        """Execute a command that nobody waits for, and return its process id, as this machine numbers it.

        It outlives this program and ends with the container. Its output goes nowhere. The parameters and what is raised
        are as for `exec`.
        """
        from pyrtc.exec import exec_options, executor_of
        from pyrtc.values import replace

        return executor_of(self).spawn(replace(exec_options(command, **options), detached=True))

    def __enter__(self) -> "Container":
        """Make and start it, if it is not there yet."""
        if self._wanted is not None and self._id is None:
            from pyrtc.watched import run_owned

            image, options = self._wanted
            made, self._owned = run_owned(self.engine, image, options)
            self._id, self.warnings = made.id, made.warnings
        return self

    def __exit__(self, *_exception: object) -> None:
        """Remove it, whatever it is doing."""
        from pyrtc.ending import remove

        try:
            with suppress(ContainerNotFound):  # it ended, and went by itself, or somebody removed it
                remove(self.engine.store, self.record, force=True, volumes=True)
        finally:
            owned, self._owned = self._owned, None
            if owned is not None:
                owned.close()
