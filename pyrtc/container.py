"""One container as a caller sees it: a running one, and how it ended."""

import enum
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from pyrtc import core
from pyrtc.errors import ContainerFailed
from pyrtc.runtime.cgroups import Cgroup
from pyrtc.values import dataclass, replace

if TYPE_CHECKING:
    from pyrtc.runtime.trace import Step, Tracing

__all__ = ["Completed", "Outcome", "Running", "Usage"]


class Outcome(enum.Enum):
    """Why a container ended.

    EXITED: its command returned an exit code. SIGNALED: a signal killed it. TIMEOUT: it ran longer than `timeout` and
    was killed. OOM_KILLED: it needed more memory than its limit. OUTPUT_LIMIT: it wrote more than `max_output` and was
    killed. UNKNOWN: whoever watched it was killed, and nobody knows; the return code is 255 then.
    """

    EXITED = "exited"
    SIGNALED = "signaled"
    TIMEOUT = "timeout"
    OOM_KILLED = "oom-killed"
    OUTPUT_LIMIT = "output-limit"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container used; None where nothing counted it.

    wall_seconds: from the start of the command to its end. cpu_seconds, user_seconds, system_seconds: of all its
    processes, as its cgroup counted, or as the kernel adds up for process 1 and what it reaped where there is no
    cgroup. memory_peak: bytes, of the whole container, page cache included. pids_peak: processes and threads at once.
    read_bytes, written_bytes: block input and output. Control groups of version 2 count memory and processes always,
    those of version 1 where a limit needs it or with accounting=True.
    """

    wall_seconds: float
    cpu_seconds: float
    user_seconds: float
    system_seconds: float
    memory_peak: int | None = None
    pids_peak: int | None = None
    read_bytes: int = 0
    written_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Completed:
    """How a container ended.

    returncode: the command's, or 128 + n where signal n killed it, as Docker and shells tell it. signal: n, or None.
    stdout, stderr: what was captured; b"" where nothing was. truncated: more was written than `max_output` let through.
    trace: with trace=True, the steps of the start and the end, in the order of their beginning.
    """

    id: str
    args: tuple[str, ...]
    returncode: int
    outcome: Outcome
    usage: Usage
    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = False
    signal: int | None = None
    warnings: tuple[str, ...] = ()
    trace: "tuple[Step, ...]" = ()

    def check(self) -> "Completed":
        """Return self when the command exited with 0.

        Raises
        ------
        ContainerFailed: it did not; the exception carries this object.
        """
        if self.returncode == 0 and self.outcome is Outcome.EXITED:
            return self
        how = {
            Outcome.EXITED: f"exited with {self.returncode}",
            Outcome.SIGNALED: f"was killed by signal {self.signal}",
            Outcome.TIMEOUT: "ran out of time",
            Outcome.OOM_KILLED: "ran out of memory",
            Outcome.OUTPUT_LIMIT: "wrote too much",
            Outcome.UNKNOWN: "ended in an unknown way: whoever watched it was killed",
        }[self.outcome]
        tail = self.stderr[-500:].decode(errors="replace").strip()
        raise ContainerFailed(f"{' '.join(self.args)!r} {how}{': ' + tail if tail else ''}", self)


_WALL = 0x40000000  # wait(2): children whose end sends another signal than SIGCHLD, too


def _told_signal(pid: int, pidfd: int) -> int:
    """Return the signal that process 1, which has ended, says its command was killed by (csrc/init/reaper.c), or 0.

    With --init it is pyrtc-init that ends, which no signal of its own can kill in a pid namespace.
    """
    try:
        peeked = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG | _WALL)
        if peeked is None or peeked.si_code != os.CLD_EXITED or peeked.si_status <= 128:
            return 0
        fd = os.open(f"/proc/{pid}/comm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            name = os.read(fd, 64)
        finally:
            os.close(fd)
    except OSError:  # somebody else has reaped it, which `core.reap` tells of
        return 0
    number = peeked.si_status - 128
    return number if name == b"killed by %d\n" % number else 0


class Running:
    """A container whose command runs; made by `Engine.start`, removed when its `with` block ends.

    Attributes
    ----------
    id, name: the container's. pid: its process 1, as the host numbers it. pidfd: readable when that has ended, -1 when
        it was reaped.
    terminal_fd: the master of its terminal, or None.
    """

    def __init__(
        self,
        *,
        container_id: str,
        name: str,
        args: tuple[str, ...],
        pid: int,
        pidfd: int,
        terminal_fd: int | None,
        timeout: float | None,
        cgroup: Cgroup | None,
        own_pids: bool,
        on_end: Callable[["Running", Completed | None], None],
        warnings: tuple[str, ...] = (),
        tracing: "Tracing | None" = None,
    ) -> None:
        self.id = container_id
        self.name = name
        self.args = args
        self.pid = pid
        self.pidfd = pidfd
        self.terminal_fd = terminal_fd
        self.warnings = warnings
        self.started = time.monotonic()
        self.deadline = None if timeout is None else self.started + timeout
        self._cgroup = cgroup
        self._own_pids = own_pids
        self._on_end = on_end
        self._tracing = tracing
        self._completed: Completed | None = None
        self._reason: Outcome | None = None
        self._reaped = False
        self._ended = False
        self._lock = threading.RLock()  # a signal handler may signal while its thread does
        self._maker = os.getpid()

    def __enter__(self) -> "Running":
        """Return the container."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """End it if it still runs."""
        self.close()

    def signal(self, number: int) -> None:
        """Send a signal to process 1 of the container. One that has ended is not an error."""
        with self._lock, suppress(ProcessLookupError):
            if self.pidfd >= 0:  # else it is closed, and its number may be another container's
                signal.pidfd_send_signal(self.pidfd, number)

    def kill(self, reason: Outcome | None = None) -> None:
        """Kill every process of the container at once; reason becomes its outcome."""
        if self._reason is None:
            self._reason = reason
        self.signal(signal.SIGKILL)
        if not self._own_pids and self._cgroup is not None and not self._ended:
            self._cgroup.kill()

    def wait(self) -> Completed:
        """Wait for the end of the container, killing it at its timeout, and return how it ended. Never polls."""
        if self._completed is None:
            poller = select.poll()
            poller.register(self.pidfd, select.POLLIN)
            while not core.poll(poller, self.remaining_ms()):
                self.kill(Outcome.TIMEOUT)
                self.deadline = None
            self.finish()
        assert self._completed is not None
        return self._completed

    def remaining_ms(self) -> float | None:
        """Milliseconds until the timeout, for poll(2); None without one."""
        return None if self.deadline is None else max(0.0, (self.deadline - time.monotonic()) * 1000)

    def finish(self, stdout: bytes = b"", stderr: bytes = b"", *, truncated: bool = False) -> Completed:
        """Reap process 1, which has ended, and gather outcome and usage.

        Raises
        ------
        ContainerError: somebody else reaped it, and this kernel does not tell any more how it ended.
        """
        tracing = self._tracing
        if tracing is not None:
            tracing.mark("wait for the command's end")
        try:
            self._completed = self._gather(stdout, stderr, truncated)
        finally:
            self._end()
        if tracing is not None:
            tracing.mark("clean up")
            self._completed = replace(self._completed, trace=tracing.steps())
        return self._completed

    def _gather(self, stdout: bytes, stderr: bytes, truncated: bool) -> Completed:
        told = _told_signal(self.pid, self.pidfd)
        end = core.reap(self.pidfd)
        self._reaped = True
        assert end is not None
        if told:
            end = replace(end, status=told, signaled=True)
        wall = time.monotonic() - self.started
        if not self._own_pids and self._cgroup is not None:
            self._cgroup.kill()
        usage, oom = self._usage(end, wall)
        outcome = Outcome.SIGNALED if end.signaled else Outcome.EXITED
        if self._reason is not None and end.signaled:
            outcome = self._reason
        elif oom and (end.signaled or end.status != 0):
            outcome = Outcome.OOM_KILLED
        return Completed(
            id=self.id,
            args=self.args,
            returncode=128 + end.status if end.signaled else end.status,
            outcome=outcome,
            usage=usage,
            stdout=stdout,
            stderr=stderr,
            truncated=truncated,
            signal=end.status if end.signaled else None,
            warnings=self.warnings,
        )

    def _usage(self, end: core.Exit, wall: float) -> tuple[Usage, bool]:
        user, system = end.user_us / 1e6, end.system_us / 1e6
        cpu, memory, pids, oom = user + system, None, None, False
        read, written = end.read_bytes, end.written_bytes
        if self._cgroup is not None:
            counted = self._cgroup.stats()
            cpu = max(cpu, counted.cpu_usage or 0.0)
            memory = counted.memory_peak
            pids = counted.pids_peak
            read, written = counted.io_read_bytes or read, counted.io_write_bytes or written
            oom = bool(counted.oom_kills)
        return Usage(wall, cpu, user, system, memory, pids, read, written), oom

    def close(self) -> None:
        """End the container if it still runs, and release what it holds. In a forked child: do nothing."""
        if self._ended or os.getpid() != self._maker:
            return
        if not self._reaped and self.pidfd >= 0:
            self.kill()
            self.wait()
        self._end()  # what an exception out of a signal handler left undone

    def _end(self) -> None:
        """Release what the container held; may be repeated until it came to its end."""
        with self._lock:
            if self._ended:
                return
            try:
                self._on_end(self, self._completed)
            finally:
                pidfd, self.pidfd = self.pidfd, -1
                if pidfd >= 0:
                    os.close(pidfd)
                terminal_fd, self.terminal_fd = self.terminal_fd, None
                if terminal_fd is not None:
                    os.close(terminal_fd)
            self._ended = True
