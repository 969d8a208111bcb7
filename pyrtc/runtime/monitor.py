"""Starting a container under a monitor (csrc/init/monitor.c), which outlives this process.

The counterpart of `runtime.start`. One start, in order:

    streams = open_streams(tty=False, interactive=False)      # pipes; what is the container's goes into the plan
    plan = assemble(spec, resources, streams.container)
    watched = start_watched(spec, plan, streams, directory_fd=fd, on_created=write_the_row, log=options.log, ...)

The monitor writes ``log`` and ``exit`` in the container's directory and listens at ``attach`` there (`runtime.attach`).
"""

import os
import select
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress

from pyrtc import core
from pyrtc.errors import StartError
from pyrtc.options import LogOptions
from pyrtc.runtime.helper import entrust, helper_fd, release
from pyrtc.runtime.ids import Parent
from pyrtc.runtime.plan import Plan
from pyrtc.runtime.spec import Spec
from pyrtc.runtime.start import born_in, clone_flags, map_ids, refill_networks, refused_clone, until_running
from pyrtc.store.owner import process_start_time
from pyrtc.values import dataclass, field

__all__ = ["ATTACH", "EXIT", "EndCommand", "Streams", "Watched", "open_streams", "start_watched"]

ATTACH, EXIT, HEALTH = "attach", "exit", "health"  # names in the container's directory
_PATIENCE = 10.0  # seconds for a killed container and its monitor to be gone
_DEFAULT_LOG = LogOptions()


@dataclass(slots=True)
class Streams:
    """The standard streams of one start: the container's ends, for `assemble`, and the monitor's.

    `start_watched` closes both in any case; `close` is for a start that does not come so far.
    """

    container: list[int] = field(default_factory=lambda: [-1, -1, -1])
    monitor: list[int] = field(default_factory=lambda: [-1, -1, -1])

    def close(self) -> None:
        """Close everything that is open."""
        for ends in (self.container, self.monitor):
            for index, fd in enumerate(ends):
                if fd >= 0:
                    ends[index] = -1
                    os.close(fd)


def open_streams(*, tty: bool, interactive: bool) -> Streams:
    """Open the pipes of a container; none for one with a terminal, whose plan makes it.

    Parameters
    ----------
    interactive: stdin stays open for who attaches; else it is /dev/null.
    """
    streams = Streams()
    if tty:
        return streams
    try:
        if interactive:
            streams.container[0], streams.monitor[0] = os.pipe2(os.O_CLOEXEC)
        else:
            streams.container[0] = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        for number in (1, 2):
            streams.monitor[number], streams.container[number] = os.pipe2(os.O_CLOEXEC)
    except BaseException:
        streams.close()
        raise
    return streams


@dataclass(frozen=True, slots=True)
class EndCommand:
    """What the monitor becomes when the container has ended: argv, whose first is a path, and "NAME=value" strings.

    It runs in / with /dev/null as standard streams, in a session of its own, as the process that was the monitor.
    """

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Watched:
    """A container under its monitor. Start times are clock ticks since boot. pidfd and monitor_pidfd are the caller's.

    monitor_pid is the end command's, too, once it comes to that: it is gone when the end-work is done.
    """

    pid: int
    start_time: int
    pidfd: int
    monitor_pid: int
    monitor_start: int
    monitor_pidfd: int

    def close(self) -> None:
        """Close the descriptors; the container goes on."""
        release(self.pidfd)
        os.close(self.pidfd)
        os.close(self.monitor_pidfd)


def start_watched(
    spec: Spec,
    plan: Plan,
    streams: Streams,
    *,
    directory_fd: int,
    on_created: Callable[[Watched], object],
    log: LogOptions = _DEFAULT_LOG,
    timeout: float | None = None,
    end_command: EndCommand | None = None,
    cgroup_fd: int | None = None,
    kill_fd: int | None = None,
    oom_fd: int | None = None,
    network_ready: bool = False,
    userns_fd: int = -1,
    parent: Parent | None = None,
    entrusted: bool = False,
    on_running: Callable[[Watched, int], object] | None = None,
) -> Watched:
    """Start the container under a monitor of its own; returns when its command is executing.

    If this process dies before it returns, nothing is left running; afterwards the container is nobody's but its
    monitor's.

    Parameters
    ----------
    streams: of `open_streams`; all of it is closed. directory_fd: the container's directory, of which no other monitor
        is alive; what an earlier one wrote there is removed, but for the log.
    on_created: called when process 1 exists and before it is let go: the place to record it, and to give it a network.
        What it raises ends the start.
    log: ``none`` writes none. timeout: seconds, then the monitor kills the container.
    end_command: not executed where the start fails, or an attached client claimed the end.
    cgroup_fd: version 2 directory to be born in. kill_fd: the container's cgroup.kill, where it has no pid namespace.
    oom_fd: its memory.events (version 1: memory.oom_control), to tell whether the kernel killed for want of memory.
    network_ready: the plan enters a network namespace that was made ahead.
    userns_fd: the user namespace that process 1 is born in, which has its maps; -1: a new one, if the spec has maps.
    parent: what that new one is a child of; None: this process's.
    entrusted: this process's warden kills it when this process ends; until `Watched.close`.
    on_running: called with the control socket when the command executes and before the monitor hears that. What it
        raises ends the start.

    Raises
    ------
    CommandNotFound, CommandNotExecutable, StartError, UnsupportedError: with the step that failed; nothing is left.
    """
    try:
        started = _launch(
            spec, plan, streams, directory_fd, log, timeout, end_command, cgroup_fd, kill_fd, oom_fd, network_ready,
            userns_fd, parent,
        )  # fmt: skip
    finally:
        streams.close()
    try:
        watched = Watched(
            started.pid,
            process_start_time(started.pid) or 0,
            started.pidfd,
            started.monitor_pid,
            process_start_time(started.monitor_pid) or 0,
            started.monitor_pidfd,
        )
        if entrusted:
            entrust(watched.pidfd, kill_fd)
        map_ids(spec, watched.pid, started.status_fd, userns_fd=userns_fd, parent=parent)
        on_created(watched)
        core.go_on(started.status_fd)
        refill_networks(spec, network_ready=network_ready)
        terminal_fd = until_running(started.status_fd, plan)
        if terminal_fd is not None:
            try:
                core.send_descriptors(started.control_fd, terminal_fd)
            finally:
                os.close(terminal_fd)
        if on_running is not None:
            on_running(watched, started.control_fd)
        if _has_ended(watched.monitor_pidfd):
            raise StartError("cannot start the container: its monitor was killed", step="monitor")
        core.go_on(started.control_fd)
    except BaseException:
        _abandon(started)
        raise
    os.close(started.status_fd)
    os.close(started.control_fd)
    return watched


def _launch(
    spec: Spec,
    plan: Plan,
    streams: Streams,
    directory_fd: int,
    log: LogOptions,
    timeout: float | None,
    end_command: EndCommand | None,
    cgroup_fd: int | None,
    kill_fd: int | None,
    oom_fd: int | None,
    network_ready: bool,
    userns_fd: int,
    parent: Parent | None,
) -> core.Monitored:
    for name in (EXIT, HEALTH):
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory_fd)
    listen_fd = core.listen_at(directory_fd, ATTACH)
    end = end_command or EndCommand(())
    try:
        return core.spawn_monitored(
            helper_fd(),
            plan.operations,
            plan.slots,
            clone_flags(spec, network_ready=network_ready, userns_fd=userns_fd),
            _number(cgroup_fd),
            directory_fd=directory_fd,
            listen_fd=listen_fd,
            stdio=streams.monitor,
            kill_fd=_number(kill_fd),
            oom_fd=_number(oom_fd),
            userns_fd=born_in(userns_fd, parent),
            log_files=0 if log.driver == "none" else max(1, log.max_files),
            log_size=log.max_size,
            timeout_ns=0 if timeout is None else max(1, int(timeout * 1e9)),
            arguments=end.argv,
            environment=end.env,
        )
    except StartError as error:
        raise refused_clone(error, spec) from None
    finally:
        os.close(listen_fd)


def _number(fd: int | None) -> int:
    return -1 if fd is None else fd


def _has_ended(*pidfds: int, patience: float = 0.0) -> bool:
    """Whether all processes have ended, within some seconds."""
    poller = select.poll()
    for pidfd in pidfds:
        poller.register(pidfd, select.POLLIN)
        if not poller.poll(patience * 1000):
            return False
        poller.unregister(pidfd)
    return True


def _abandon(started: core.Monitored) -> None:
    """End a container that nobody is to have: the monitor kills it, and is gone when nothing writes there any more."""
    release(started.pidfd)
    fds: Sequence[int] = (started.status_fd, started.control_fd, started.pidfd, started.monitor_pidfd)
    try:
        os.close(started.control_fd)
        fds = (started.status_fd, started.pidfd, started.monitor_pidfd)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(started.pidfd, signal.SIGKILL)
        _has_ended(started.pidfd, started.monitor_pidfd, patience=_PATIENCE)
    finally:
        for fd in fds:
            os.close(fd)
