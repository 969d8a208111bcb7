"""Commands in containers that run: `Container.exec` waits for one, `Container.popen` gives it to the caller."""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from typing import IO, TYPE_CHECKING, Literal

from pyrtc.capture import DEFAULT_MAX_OUTPUT, Capture, Stream, open_pipes
from pyrtc.errors import ContainerError, ContainerNotFound, UnsupportedError, UsageError
from pyrtc.exec_events import ExecEvents
from pyrtc.exec_process import ExecProcess
from pyrtc.options import ExecOptions
from pyrtc.quantities import MAX_SECONDS
from pyrtc.runtime.cgroups import Cgroup
from pyrtc.runtime.join import (
    Target,
    assemble_exec,
    has_ended,
    join,
    not_running,
    open_root,
    open_target,
    without_warden,
)
from pyrtc.runtime.seccomp import cached_filter
from pyrtc.runtime.spec import configured_user, container_bounding, decide_exec
from pyrtc.runtime.users import Identity, identify_running

if TYPE_CHECKING:
    from pyrtc.container import Completed
    from pyrtc.image.config import ImageConfig
    from pyrtc.live import Container
    from pyrtc.options import RunOptions
    from pyrtc.runtime.start import Started

__all__ = ["Executor", "exec_options", "executor_of"]

PIPE, STDOUT, DEVNULL = -1, -2, -3  # as in subprocess
_MAX_REMEMBERED = 64


def exec_options(
    command: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    workdir: str | None = None,
    user: str | int | None = None,
    privileged: bool = False,
    tty: bool = False,
) -> ExecOptions:
    """Return what these keyword arguments ask; they are those of `ExecKeywords`.

    Raises
    ------
    TypeError: command is a string: a shell would be needed to take it apart; or there is no such keyword. UsageError: a
    value of another kind.
    """
    if isinstance(command, (str, bytes)):
        raise TypeError('command is a sequence of words, such as ["sh", "-c", "echo hello"]')
    if env is not None and not isinstance(env, Mapping):
        raise UsageError(f"env={env!r}: it is a mapping, such as {{'NAME': 'value'}}")
    if workdir is not None and not isinstance(workdir, str):
        raise UsageError(f"workdir={workdir!r}: it is a word, a str")
    for name, flag in (("privileged", privileged), ("tty", tty)):
        if not isinstance(flag, bool):  # "no" would mean yes
            raise UsageError(f"{name}={flag!r}: it is True or False")
    return ExecOptions(
        command=tuple(os.fsdecode(word) for word in command),
        env=tuple((str(name), str(value)) for name, value in (env or {}).items()),
        workdir=workdir,
        user=None if user is None else str(user),
        privileged=privileged,
        tty=tty,
    )


def executor_of(container: "Container") -> "Executor":
    """Return what puts commands into the present run of a container.

    Raises
    ------
    ContainerNotFound: it has been removed. ContainerError: it does not run, or its options were not kept.
    """
    known = container.executor
    if known is not None and known.runs:
        return known
    record = container.record
    if record.state == "restarting":
        raise ContainerError(f"Container {record.name} is restarting, wait until the container is running")
    if record.state != "running":
        raise not_running(record.name)
    made = container.executor = Executor(
        container_id=record.id,
        name=record.name,
        pid=record.pid,
        start_time=record.start_time,
        options=container.options,
        config=container.image_config,
        cache=f"{container.engine.store.path}/cache",
        events=ExecEvents.of(container.engine.store, record),
    )
    return made


class Executor:
    """Puts commands into one run of one container. Any number of threads may use it.

    Parameters
    ----------
    container_id, name: the container's. pid, start_time: its process 1. options, config: what it was made with.
    cache: directory of compiled filters. events: tells of commands, None where nobody is told.

    Raises
    ------
    ContainerError: it does not run. UnsupportedError: it is somebody else's.
    """

    def __init__(
        self,
        *,
        container_id: str,
        name: str,
        pid: int,
        start_time: int,
        options: "RunOptions",
        config: "ImageConfig",
        cache: str,
        events: ExecEvents | None = None,
    ) -> None:
        self.container_id = container_id
        self.name = name
        self.options = options
        self.config = config
        self._cache = cache
        self._events = events
        self._decided: dict[tuple[object, ...], tuple[bytes, ...]] = {}
        self._number = 0
        self._lock = threading.Lock()
        try:
            self._cgroup: Cgroup | None = Cgroup.open(container_id)
        except ContainerNotFound:
            self._cgroup = None
        self._target: Target | None = open_target(name, pid, start_time)

    @property
    def runs(self) -> bool:
        """Whether process 1 of that run is there."""
        target = self._target
        return target is not None and not has_ended(target.pidfd)

    def close(self) -> None:
        """Let go of the container; commands in it run on."""
        with self._lock:
            target, self._target = self._target, None
        if target is not None:
            os.close(target.pidfd)
        if self._cgroup is not None:
            self._cgroup.close()

    def __del__(self) -> None:
        """Give the descriptor back."""
        if getattr(self, "_target", None) is not None:
            self.close()

    # ---- what users call ------------------------------------------------------------------------------------------

    def exec(
        self,
        asked: ExecOptions,
        *,
        input: bytes = b"",
        timeout: float | None = None,
        max_output: int = DEFAULT_MAX_OUTPUT,
        on_limit: Literal["truncate", "kill"] = "truncate",
        on_output: Callable[[Stream, bytes], object] | None = None,
    ) -> "Completed":
        """Execute a command and wait for its end; see `Container.exec`."""
        if asked.tty:
            return self._exec_in_terminal(asked, input, timeout, max_output, on_limit, on_output)
        pipes = open_pipes(feed=bool(input))
        try:
            try:
                process = self.start(asked, pipes.container, timeout=timeout)
            except TimeoutError:
                return self.too_late(asked, timeout or 0.0)
            try:
                pipes.close_container_ends()
                capture = Capture(process, pipes, input, max_output=max_output, on_limit=on_limit, on_output=on_output)
                return capture.run()
            finally:
                process.close()
        finally:
            pipes.close()

    def _exec_in_terminal(
        self,
        asked: ExecOptions,
        input: bytes,
        timeout: float | None,
        max_output: int,
        on_limit: Literal["truncate", "kill"],
        on_output: Callable[[Stream, bytes], object] | None,
    ) -> "Completed":
        from pyrtc.exec_process import terminal_pipes

        try:
            process = self.start(asked, (-1, -1, -1), timeout=timeout)
        except TimeoutError:
            return self.too_late(asked, timeout or 0.0)
        try:
            assert process.terminal_fd is not None
            pipes = terminal_pipes(process.terminal_fd, feed=bool(input))
            try:
                capture = Capture(process, pipes, input, max_output=max_output, on_limit=on_limit, on_output=on_output)
                return capture.run()
            finally:
                pipes.close()
        finally:
            process.close()

    def too_late(self, asked: ExecOptions, timeout: float) -> "Completed":
        """Say that the command was killed before it had begun."""
        from pyrtc.container import Completed, Outcome, Usage

        return Completed(
            id=self.container_id,
            args=asked.command,
            returncode=128 + signal.SIGKILL,
            outcome=Outcome.TIMEOUT,
            usage=Usage(timeout, 0.0, 0.0, 0.0),
            signal=int(signal.SIGKILL),
        )

    def popen(
        self,
        asked: ExecOptions,
        *,
        stdin: int | IO[bytes] | None = None,
        stdout: int | IO[bytes] | None = PIPE,
        stderr: int | IO[bytes] | None = PIPE,
        terminal_size: tuple[int, int] | None = None,
    ) -> ExecProcess:
        """Execute a command and return it while it runs; see `Container.popen`."""
        from pyrtc.exec_process import Streams

        if asked.tty:
            process = self.start(asked, (-1, -1, -1), terminal_size=terminal_size)
            try:
                process.open_terminal()
            except BaseException:
                process.close()
                raise
            process.reap_at_its_end()
            return process
        streams = Streams(stdin, stdout, stderr)
        try:
            process = self.start(asked, streams.theirs)
            process.stdin, process.stdout, process.stderr = streams.take()
            process.reap_at_its_end()
            return process
        finally:
            streams.close()

    def spawn(self, asked: ExecOptions, *, terminal_size: tuple[int, int] | None = None) -> int:
        """Execute a command that nobody waits for, with its streams at /dev/null; returns its process id."""
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            stdio = (-1, -1, -1) if asked.tty else (null, null, null)
            with ExitStack() as owned:
                started, _group = self._join(asked, stdio, terminal_size, None, owned)
        finally:
            os.close(null)
        os.close(started.pidfd)
        if self._events is not None:
            self._events.begun(asked.command)
        return started.pid

    # ---- one start ------------------------------------------------------------------------------------------------

    def start(
        self,
        asked: ExecOptions,
        stdio: Sequence[int],
        *,
        terminal_size: tuple[int, int] | None = None,
        timeout: float | None = None,
    ) -> ExecProcess:
        """Start a command with these descriptors; returns when it is executing."""
        if timeout is not None and not (isinstance(timeout, (int, float)) and 0 <= timeout < MAX_SECONDS):
            raise UsageError(f"timeout={timeout!r}: it is a number of seconds")
        deadline = None if timeout is None else time.monotonic() + timeout
        watched = self._memory_kills() if self.options.limits.memory is not None else None
        with ExitStack() as owned:
            started, group = self._join(asked, stdio, terminal_size, deadline, owned)
            held = owned.pop_all()
        return ExecProcess(
            container_id=self.container_id,
            args=asked.command,
            started=started,
            deadline=deadline,
            group=group,
            held=held,
            out_of_memory=None if watched is None else lambda: (self._memory_kills() or 0) > watched,
            on_end=None if self._events is None else self._events.begun(asked.command),
        )

    def decide_for_monitor(self, asked: ExecOptions) -> tuple[tuple[bytes, ...], Cgroup | None]:
        """Return the operations of a command that the monitor executes, and the control groups of the container.

        The groups stay this object's. The command dies with the monitor, which no warden knows.
        """
        target = self._target
        if target is None:
            raise not_running(self.name)
        tasks = 0 if self._cgroup is None else len(self._cgroup.tasks_fds)
        operations = self._operations(asked, self._identity(asked, target), target, tasks, (0, 0))
        return without_warden(operations), self._cgroup

    def _join(
        self,
        asked: ExecOptions,
        stdio: Sequence[int],
        terminal_size: tuple[int, int] | None,
        deadline: float | None,
        owned: ExitStack,
    ) -> "tuple[Started, Cgroup | None]":
        target = self._target
        if target is None:
            raise not_running(self.name)
        if self._cgroup is not None and self._cgroup.frozen:
            raise ContainerError(f"Container {self.name} is paused, unpause the container before exec")
        identity = self._identity(asked, target)
        try:
            group, tasks, into, kill_fd = self._groups(owned, detached=asked.detached)
        except (ContainerError, OSError) as error:
            if has_ended(target.pidfd):  # and its control groups are removed
                raise not_running(self.name) from None
            raise ContainerError(f"cannot enter the control groups of container {self.name}: {error}") from None
        started = join(
            self.name,
            target,
            self._operations(asked, identity, target, len(tasks), terminal_size or (0, 0)),
            stdio,
            tasks,
            cgroup_fd=-1 if into is None else into,
            kill_fd=kill_fd,
            detached=asked.detached,
            deadline=deadline,
        )
        if group is not None:
            group.close()
        return started, group

    def _identity(self, asked: ExecOptions, target: Target) -> Identity:
        root = open_root(target, self.name)
        try:
            wanted = asked.user or configured_user(self.config, self.options)
            return identify_running(wanted, self.options.group_add, root)
        finally:
            os.close(root)

    def _groups(
        self, owned: ExitStack, *, detached: bool
    ) -> tuple[Cgroup | None, tuple[int, ...], int | None, int | None]:
        """Return the command's own control group and what it takes to enter and to kill it."""
        group = self._subgroup(owned)
        with self._lock if group is None else nullcontext():  # the container's keeps what it has opened
            entered = group or self._cgroup
            tasks: tuple[int, ...] = () if entered is None else entered.tasks_fds
            into = None if entered is None else entered.into_fd
        kill_fd = None
        path = None if group is None or detached else group.kill_path
        if path is not None:
            with suppress(FileNotFoundError):  # Linux before 5.14
                kill_fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                owned.callback(os.close, kill_fd)
        return group, tasks, into, kill_fd

    def _subgroup(self, owned: ExitStack) -> Cgroup | None:
        """A control group of the command's own, to find again what it starts; where there is none, its session does."""
        if self._cgroup is None:
            return None
        with self._lock:
            self._number += 1
            number = self._number
        try:
            group = self._cgroup.subgroup(f"exec-{os.getpid()}-{number}-{os.urandom(3).hex()}")
        except (UnsupportedError, PermissionError):
            return None
        owned.callback(group.remove_empty)
        return group

    def _operations(
        self, asked: ExecOptions, identity: Identity, target: Target, tasks: int, terminal_size: tuple[int, int]
    ) -> tuple[bytes, ...]:
        key = (asked, identity, tasks, terminal_size)
        known = self._decided.get(key)
        if known is not None:
            return known
        options = self.options
        spec = decide_exec(self.container_id, self.config, options, asked, identity, target.id_maps)
        bounding = container_bounding(options, target.id_maps)
        seccomp = None
        if spec.seccomp != "unconfined":
            seccomp = cached_filter(self._cache, spec.seccomp, capabilities=bounding)
        operations = assemble_exec(
            spec,
            target,
            seccomp=seccomp,
            bounding=bounding,
            tasks=tasks,
            terminal_size=terminal_size,
            detached=asked.detached,
        )
        if len(self._decided) >= _MAX_REMEMBERED:
            self._decided.clear()
        self._decided[key] = operations
        return operations

    def _memory_kills(self) -> int | None:
        return None if self._cgroup is None else self._cgroup.memory_kills
