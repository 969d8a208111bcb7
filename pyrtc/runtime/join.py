"""One more process in a container that runs: what it joins, the plan, and its start.

The order of the plan is the order of safety. pyrtc-init enters the container's control groups and namespaces, gives up
every right that the command is not to have, and only then makes the process that appears in the container's pid
namespace, with nothing open but its standard streams; see csrc/init/join.c.
"""

import errno
import os
import select
import signal
import struct
import time
from collections.abc import Sequence
from contextlib import suppress

from pyrtc import core
from pyrtc._core import lib
from pyrtc.errors import ContainerError, StartError, UnsupportedError
from pyrtc.ids import IdMaps
from pyrtc.runtime import namespaces
from pyrtc.runtime.helper import entrust, helper_fd
from pyrtc.runtime.ids import read_maps
from pyrtc.runtime.plan import Plan, operation
from pyrtc.runtime.spec import Spec
from pyrtc.runtime.start import Started, abandon, failure
from pyrtc.store.owner import open_process
from pyrtc.values import dataclass

__all__ = ["Target", "assemble_exec", "has_ended", "join", "not_running", "open_root", "open_target", "without_warden"]

_NAMESPACES = (
    ("user", namespaces.CLONE_NEWUSER),
    ("mnt", namespaces.CLONE_NEWNS),
    ("pid", namespaces.CLONE_NEWPID),
    ("net", namespaces.CLONE_NEWNET),
    ("ipc", namespaces.CLONE_NEWIPC),
    ("uts", namespaces.CLONE_NEWUTS),
    ("cgroup", namespaces.CLONE_NEWCGROUP),
    ("time", namespaces.CLONE_NEWTIME),
)
_FEW_DESCRIPTORS = 64  # fewer may be open than pyrtc-init needs
# A process that ends loses its root and its namespaces a little before it counts as ended.
_LAST_BREATH_MS = 500
_SIGNS_OF_AN_END = frozenset({errno.ESRCH, errno.ENOMEM})
_SYS_PTRACE = 1 << 19


@dataclass(frozen=True, slots=True)
class Target:
    """A container that runs, as a process is put into it.

    pid, pidfd: its process 1; the descriptor is whoever opened the target's. flags: CLONE_NEW* of the namespaces that
    are not this process's own. id_maps: of its user namespace, None where that is this process's own.
    """

    pid: int
    pidfd: int
    flags: int
    id_maps: IdMaps | None


def open_target(name: str, pid: int, start_time: int) -> Target:
    """Look at a container's process 1.

    Parameters
    ----------
    name: for messages. start_time: clock ticks since boot, which tells it from another process with its number.

    Raises
    ------
    ContainerError: it does not run.
    """
    pidfd = open_process(pid, start_time) if pid else None
    if pidfd is None:
        raise not_running(name)
    try:
        flags = 0
        for kind, flag in _NAMESPACES:
            own = f"/proc/thread-self/ns/{kind}"
            # A kernel without time namespaces has no such file.
            if os.path.exists(own) and os.stat(own).st_ino != os.stat(f"/proc/{pid}/ns/{kind}").st_ino:
                flags |= flag
        maps = read_maps(pid) if flags & namespaces.CLONE_NEWUSER else None
        if has_ended(pidfd):  # then all this may have been another process's
            raise not_running(name)
        return Target(pid, pidfd, flags, maps)
    except BaseException as error:
        ended = has_ended(pidfd, _LAST_BREATH_MS if isinstance(error, FileNotFoundError) else 0)
        os.close(pidfd)
        if isinstance(error, OSError):
            if ended:
                raise not_running(name) from None
            raise UnsupportedError(
                f"cannot look into container {name}: {error.strerror}: it is another user's, or this one is confined"
            ) from None
        raise


def open_root(target: Target, name: str) -> int:
    """Return a descriptor (O_PATH), which becomes the caller's, of the container's root as its process 1 sees it."""
    try:
        fd = os.open(f"/proc/{target.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if has_ended(target.pidfd, _LAST_BREATH_MS):
            raise not_running(name) from None
        raise ContainerError(f"cannot reach the root of container {name}: {error.strerror}") from None
    if has_ended(target.pidfd):
        os.close(fd)
        raise not_running(name)
    return fd


def has_ended(pidfd: int, patience_ms: int = 0) -> bool:
    """Say whether the process behind a pidfd has ended, or does within some milliseconds."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(patience_ms))


def not_running(name: str) -> ContainerError:
    """Return the error that says so, as Docker does."""
    return ContainerError(f"container {name} is not running")


def assemble_exec(
    spec: Spec,
    target: Target,
    *,
    seccomp: bytes | None,
    bounding: int,
    tasks: int,
    terminal_size: tuple[int, int],
    detached: bool,
) -> tuple[bytes, ...]:
    """Return the operations for one more process of a container. Slot 3 is process 1's pidfd, then come tasks files.

    Parameters
    ----------
    bounding: what the processes of the container may have. tasks: how many version 1 control groups it is in.
    """
    plan = Plan()
    death = () if detached else (operation(lib.PLAN_DEATH_SIGNAL),)
    plan.operations += death
    plan.operations += [operation(lib.PLAN_TASKS, slot=4 + number) for number in range(tasks)]
    plan.add(lib.PLAN_KEYRING)
    if spec.oom_score_adj is not None:
        plan.add(lib.PLAN_OOM_SCORE, str(spec.oom_score_adj))  # while this process is in the /proc that it sees
    maps = target.id_maps
    ids = 0 if maps is None else maps.init_gid << 32 | maps.init_uid
    plan.operations.append(operation(lib.PLAN_JOIN, slot=3, a=target.flags, b=ids))
    kept = lib.PLAN_DETACHED if detached else 0
    if spec.terminal:
        rows, columns = terminal_size
        plan.add(lib.PLAN_TERMINAL, a=rows, b=columns, flags=kept)
    plan.add(lib.PLAN_UMASK, mode=0o022)
    plan.add(lib.PLAN_WORKDIR, spec.workdir)
    late: list[bytes] = []
    for name, number, soft, hard in spec.ulimits:
        limit = operation(lib.PLAN_RLIMIT, name, mode=number, a=soft, b=hard)
        (late if name == "nofile" and soft < _FEW_DESCRIPTORS else plan.operations).append(limit)
    load = () if seccomp is None else (operation(lib.PLAN_SECCOMP, blob=seccomp),)
    when = _filter_place(spec, target, bounding)
    plan.operations += load if when == "first" else ()
    plan.add(lib.PLAN_BOUNDING, a=spec.bounding)
    identity = spec.identity
    groups = struct.pack(f"={len(identity.groups)}I", *identity.groups)
    keep = lib.PLAN_KEEP_GROUPS if maps is not None and maps.single else 0
    plan.add(lib.PLAN_USER, a=identity.uid, b=identity.gid, flags=keep, blob=groups)
    plan.add(lib.PLAN_CAPABILITIES, a=spec.effective)
    if spec.no_new_privileges:
        plan.add(lib.PLAN_NO_NEW_PRIVS)
    plan.operations += load if when == "before" else ()
    plan.add(lib.PLAN_FORK, flags=kept)
    plan.operations += late
    if not detached:
        plan.add(lib.PLAN_ENTRUSTED)
    plan.operations += load if when == "last" else ()
    plan.add(lib.PLAN_EXEC, *spec.argv, *spec.env, a=len(spec.argv))
    return tuple(plan.operations)


def without_warden(operations: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the operations for a process that dies with the one that starts it, which has no warden."""
    entrusted = operation(lib.PLAN_ENTRUSTED)
    kept = operation(lib.PLAN_ENTRUSTED, flags=lib.PLAN_NO_WARDEN)
    return tuple(kept if one == entrusted else one for one in operations)


def _filter_place(spec: Spec, target: Target, bounding: int) -> str:
    """Say when the system call filter is loaded.

    "first": without no_new_privs it takes a capability that goes next. "before": a process in the container that may
    trace any other would find one without a filter, and act through it. "last", where nobody can: then the filter need
    not allow what pyrtc-init does. Who is in a user namespace of its own cannot trace a process whose memory belongs to
    the one around it.
    """
    if not spec.no_new_privileges:
        return "first"
    return "before" if bounding & _SYS_PTRACE and target.id_maps is None else "last"


def join(
    name: str,
    target: Target,
    operations: Sequence[bytes],
    stdio: Sequence[int],
    tasks_fds: Sequence[int],
    *,
    cgroup_fd: int = -1,
    kill_fd: int | None = None,
    detached: bool = False,
    deadline: float | None = None,
) -> Started:
    """Start a process in a container; returns when its command is executing.

    Parameters
    ----------
    name: the container's, for messages. operations: what `assemble_exec` returned. cgroup_fd: version 2 directory to be
    born in. kill_fd: its cgroup.kill, to end what the command started when the caller dies; stays open until `release`.
    deadline: as time.monotonic() tells it.

    Raises
    ------
    CommandNotFound, CommandNotExecutable, StartError, UnsupportedError: with the step that failed. ContainerError: the
    container does not run any more. TimeoutError: the deadline has passed. Nothing is left then.
    """
    slots = [*stdio, target.pidfd, *tasks_fds]
    child = core.spawn(helper_fd(), operations, slots, 0, cgroup_fd, name_sender=True)
    starting = _Starting(child, operations, deadline, kill_fd, detached=detached)
    try:
        return starting.until_running()
    except BaseException as error:
        starting.abandon()
        if isinstance(error, (StartError, UnsupportedError)):
            patience = _LAST_BREATH_MS if getattr(error, "errno", 0) in _SIGNS_OF_AN_END else 0
            if has_ended(target.pidfd, patience):
                raise not_running(name) from None
        raise
    finally:
        starting.close()


class _Starting:
    """A start on its way: pyrtc-init in the caller's pid namespace, then the process that it makes."""

    def __init__(
        self,
        child: core.Child,
        operations: Sequence[bytes],
        deadline: float | None,
        kill_fd: int | None,
        *,
        detached: bool,
    ) -> None:
        self._child = child
        self._joiner = child.pidfd  # -1 once it is reaped
        self._operations = operations
        self._deadline = deadline
        self._kill_fd = kill_fd
        self._detached = detached
        self._pid = 0
        self._pidfd = -1
        self._terminal_fd = -1

    def until_running(self) -> Started:
        """Read reports until the socket ends, which is when the command runs."""
        while True:
            self._await_report()
            report = core.next_report(self._child.status_fd)
            if report is None:
                break
            self._take(report)
        if self._pidfd < 0:
            raise self._lost()
        terminal, self._terminal_fd = self._terminal_fd, -1
        pidfd, self._pidfd = self._pidfd, -1
        return Started(self._pid, pidfd, None if terminal < 0 else terminal)

    def _await_report(self) -> None:
        """What is in the container can keep a look-up in its file systems from coming back."""
        if self._deadline is None:
            return
        poller = select.poll()
        poller.register(self._child.status_fd, select.POLLIN)
        if not core.poll(poller, max(0.0, (self._deadline - time.monotonic()) * 1000)):
            raise TimeoutError("the command did not start in time")

    def _take(self, report: core.Report) -> None:
        """Take a descriptor, or raise what failed.

        Only pyrtc-init itself, which nobody in the container can reach, may hand over descriptors.
        """
        attached = report.terminal_fd if report.process_fd is None else report.process_fd
        if attached is None:
            raise failure(self._operations, report, "execute in the container")
        if report.sender != self._child.pid or (report.process_fd is not None and self._pidfd >= 0):
            os.close(attached)
            raise StartError("cannot execute in the container: something in it answers in the place of pyrtc-init")
        if report.process_fd is None:
            self._terminal_fd = attached
            return
        self._pid, self._pidfd = report.errno, attached
        self._reap_joiner()
        if not self._detached:
            entrust(attached, self._kill_fd, stays=True)
            core.go_on(self._child.status_fd)

    def _reap_joiner(self) -> "core.Exit | None":
        pidfd, self._joiner = self._joiner, -1
        try:
            return core.reap(pidfd)
        except ContainerError:  # somebody else has reaped it
            return None
        finally:
            os.close(pidfd)

    def _lost(self) -> StartError:
        end = self._reap_joiner()
        how = f"was killed by signal {end.status}" if end is not None and end.signaled else "ended"
        hint = ": does the seccomp profile allow clone and what it does before?" if end and end.signaled else ""
        return StartError(f"cannot execute in the container: pyrtc-init {how} on its way{hint}", step="join")

    def abandon(self) -> None:
        """End what was started."""
        if self._joiner >= 0:
            pidfd, self._joiner = self._joiner, -1
            abandon(pidfd)
        if self._pidfd >= 0:
            pidfd, self._pidfd = self._pidfd, -1
            if self._detached:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                os.close(pidfd)
            else:
                abandon(pidfd)

    def close(self) -> None:
        """Close what nobody has taken."""
        os.close(self._child.status_fd)
        if self._terminal_fd >= 0:
            os.close(self._terminal_fd)
