"""`Container`: a handle on one container of a store, whoever started it."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Literal, Unpack

from pyrtc.capture import DEFAULT_MAX_OUTPUT, Stream
from pyrtc.errors import ContainerNotFound
from pyrtc.written import Written

if TYPE_CHECKING:
    import re

    from pyrtc.container import Completed
    from pyrtc.engine import Engine
    from pyrtc.exec import Executor
    from pyrtc.exec_process import ExecProcess
    from pyrtc.keywords import ContainerKeywords, ExecKeywords
    from pyrtc.options import RunOptions
    from pyrtc.runtime.attach import Attachment
    from pyrtc.snapshots import Snapshot
    from pyrtc.updating import UpdateKeywords
    from pyrtc.watched import Owned

__all__ = ["Container"]


class Container(Written):
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
        from pyrtc.ended import event_attributes
        from pyrtc.events import emit

        record = self.record
        attachment = attach_to(self, output=output)
        emit(self.engine.store, "container", "attach", record.id, event_attributes(record))
        return attachment

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

    def remove(self, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it with what it wrote. force: kill it first if it runs. volumes: its anonymous volumes, too.

        Raises
        ------
        ContainerError: it runs and force is false.
        """
        from pyrtc.ending import remove

        remove(self.engine.store, self.record, force=force, volumes=volumes)

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
        if record.state == "running" and (endpoints := store.networks.endpoints_of(record.id)):
            from pyrtc.network.names import has_names, write_names

            for endpoint in endpoints:
                if has_names(endpoint.network):
                    write_names(store, endpoint.network)
        now = self.record
        if now.state == "running":
            from pyrtc.health_event import renamed

            renamed(now)
        emit(store, "container", "rename", record.id, {**event_attributes(now), "oldName": record.name})

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
