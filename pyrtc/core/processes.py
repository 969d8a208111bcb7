"""Processes: pyrtc-init and the warden, started, heard and told; how they end; what devices a group of them may use."""

import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyrtc._core import ffi, lib
from pyrtc.core.error import check
from pyrtc.errors import ContainerError, LimitError, StartError
from pyrtc.values import dataclass

if TYPE_CHECKING:
    import select

__all__ = [
    "Child",
    "Exit",
    "Report",
    "attach_device_filter",
    "go_on",
    "next_report",
    "poll",
    "reap",
    "seal_helper",
    "send_descriptors",
    "spawn",
    "start_warden",
    "write_in",
]

_LONGEST_POLL = (1 << 31) - 1  # milliseconds


@dataclass(frozen=True, slots=True)
class Child:
    """A started pyrtc-init: process id, pidfd and status socket; the descriptors are the caller's."""

    pid: int
    pidfd: int
    status_fd: int


def seal_helper(program: bytes) -> int:
    """Return a sealed memfd that holds the program and can be executed.

    Raises
    ------
    StartError: no memfd can be made, or /proc is not mounted.
    """
    error = ffi.new("struct pyrtc_error *")
    return check(lib.pyrtc_seal_helper(ffi.from_buffer("uint8_t[]", program), len(program), error), error, StartError)


def spawn(
    helper_fd: int,
    operations: Sequence[bytes],
    slots: Sequence[int],
    clone_flags: int,
    cgroup_fd: int = -1,
    *,
    userns_fd: int = -1,
    name_sender: bool = False,
) -> Child:
    """Start pyrtc-init in new namespaces with a plan; returns as soon as it is executing.

    userns_fd: a user namespace that it is born in; with CLONE_NEWUSER in a child of that. name_sender: its reports tell
    which process they are of.

    Raises
    ------
    StartError: the kernel refuses the namespaces or the process.
    """
    error, child = ffi.new("struct pyrtc_error *"), ffi.new("struct pyrtc_child *")
    plan = b"".join(operations)
    plan_buffer, slot_array = ffi.from_buffer("uint8_t[]", plan), ffi.new("int32_t[]", list(slots))
    request = ffi.new(
        "struct pyrtc_spawn *",
        {
            "clone_flags": clone_flags,
            "plan": plan_buffer,
            "plan_size": len(plan),
            "slots": slot_array,
            "slot_count": len(slots),
            "helper_fd": helper_fd,
            "cgroup_fd": cgroup_fd,
            "userns_fd": userns_fd,
            "op_count": len(operations),
            "name_sender": name_sender,
        },
    )
    child.pidfd = -1
    try:
        check(lib.pyrtc_spawn(request, child, error), error, StartError)
        return Child(child.pid, child.pidfd, child.status_fd)
    except BaseException:
        if child.pidfd >= 0:  # an exception out of a signal handler; the end of its socket ends pyrtc-init
            os.close(child.status_fd)
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
            lib.pyrtc_reap(child.pidfd, 0, ffi.new("struct pyrtc_usage *"), error)
            os.close(child.pidfd)
        raise


def go_on(status_fd: int) -> None:
    """Let a pyrtc-init that waits for its caller go on; one that has ended is no error."""
    error = ffi.new("struct pyrtc_error *")
    check(lib.pyrtc_go_on(status_fd, error), error, StartError)


@dataclass(frozen=True, slots=True)
class Report:
    """What pyrtc-init says. terminal_fd: the master of a terminal; process_fd: a new process; else it is a failure.

    The descriptors are the caller's. operation: index in the plan. errno: why, or the id of the new process. call: the
    system call. detail: a path or sentence, may be empty. sender: see `spawn`, else -1.
    """

    operation: int
    errno: int
    call: str
    detail: str
    terminal_fd: int | None
    process_fd: int | None = None
    sender: int = -1


def next_report(status_fd: int) -> Report | None:
    """Wait for the next report of a pyrtc-init; None when it has become the command, or is gone."""
    error, report = ffi.new("struct pyrtc_error *"), ffi.new("struct report *")
    attached_fd, sender = ffi.new("int32_t *"), ffi.new("int32_t *")
    while True:
        result = check(lib.pyrtc_next_report(status_fd, report, attached_fd, sender, error), error, StartError)
        if result == lib.PYRTC_RUNNING:
            return None
        if result == lib.PYRTC_REPORTED:
            return Report(
                report.op,
                report.code,
                _text(report.call),
                _text(report.detail),
                attached_fd[0] if report.kind == lib.REPORT_TERMINAL else None,
                attached_fd[0] if report.kind == lib.REPORT_PROCESS else None,
                sender[0],
            )


def _text(field: Any) -> str:  # noqa: ANN401  (cffi)
    return ffi.string(field).decode(errors="surrogateescape")


def write_in(userns_fd: int, path: str, text: str) -> None:
    """Write to a file as a process of a user namespace does, such as the id maps of one that is a child of it.

    Raises
    ------
    StartError: the kernel refuses; carries `errno`.
    """
    error = ffi.new("struct pyrtc_error *")
    check(lib.pyrtc_write_in(userns_fd, path.encode(), text.encode(), error), error, StartError)


def start_warden(helper_fd: int) -> int:
    """Start this process's warden (see csrc/init/warden.c) and return its socket."""
    error = ffi.new("struct pyrtc_error *")
    return check(lib.pyrtc_start_warden(helper_fd, error), error, StartError)


def send_descriptors(socket_fd: int, *fds: int, stays: bool = False) -> None:
    """Send one or two descriptors over a socket of `start_warden`: a pidfd and the cgroup.kill that goes with it.

    stays: when the process ends, the group is left alone.

    Raises
    ------
    StartError: nobody listens any more.
    """
    error = ffi.new("struct pyrtc_error *")
    array = ffi.new("int32_t[]", fds)
    check(lib.pyrtc_send_descriptors(socket_fd, array, len(fds), stays, error), error, StartError)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. Times in microseconds, sizes in bytes."""

    status: int
    signaled: bool
    user_us: int
    system_us: int
    read_bytes: int
    written_bytes: int


def poll(poller: "select.poll", timeout_ms: float | None) -> list[tuple[int, int]]:
    """Do what `poller.poll` does, for any number of milliseconds: the kernel takes 24 days at most."""
    while timeout_ms is not None and timeout_ms > _LONGEST_POLL:
        if events := poller.poll(_LONGEST_POLL):
            return events
        timeout_ms -= _LONGEST_POLL
    return poller.poll(timeout_ms)


def reap(pidfd: int, *, block: bool = True) -> Exit | None:
    """Reap the process behind a pidfd; None while it runs and block is false.

    Raises
    ------
    ContainerError: somebody else reaped it, or this process ignores SIGCHLD.
    """
    error, usage = ffi.new("struct pyrtc_error *"), ffi.new("struct pyrtc_usage *")
    if not check(lib.pyrtc_reap(pidfd, 0 if block else os.WNOHANG, usage, error), error, ContainerError):
        return None
    return Exit(
        usage.status,
        bool(usage.signaled),
        usage.user_us,
        usage.system_us,
        usage.read_bytes,
        usage.written_bytes,
    )


def attach_device_filter(cgroup_fd: int, program: bytes) -> None:
    """Let a BPF program decide which device nodes the processes of a version 2 cgroup may use.

    Parameters
    ----------
    program: eBPF instructions of 8 bytes each, as `runtime.cgroups.device_filter.assemble` writes them.

    Raises
    ------
    LimitError: the kernel or the user's rights refuse.
    """
    error = ffi.new("struct pyrtc_error *")
    instructions = ffi.new("uint64_t[]", len(program) // 8)
    ffi.buffer(instructions)[:] = program
    check(lib.pyrtc_attach_device_filter(cgroup_fd, instructions, len(program) // 8, error), error, LimitError)
