"""Containers whose parent is a monitor: starting both, and the socket at which the monitor listens."""

import errno
import os
from collections.abc import Sequence

from pyrtc._core import ffi, lib
from pyrtc.core.error import check
from pyrtc.errors import StartError
from pyrtc.values import dataclass

__all__ = ["Monitored", "connect_at", "listen_at", "send_message", "spawn_monitored"]


@dataclass(frozen=True, slots=True)
class Monitored:
    """A container whose parent is a monitor. All descriptors are the caller's; see struct pyrtc_monitored."""

    pid: int
    pidfd: int
    monitor_pid: int
    monitor_pidfd: int
    status_fd: int
    control_fd: int


def spawn_monitored(
    helper_fd: int,
    operations: Sequence[bytes],
    slots: Sequence[int],
    clone_flags: int,
    cgroup_fd: int = -1,
    *,
    directory_fd: int,
    listen_fd: int,
    stdio: Sequence[int] = (-1, -1, -1),
    kill_fd: int = -1,
    oom_fd: int = -1,
    log_files: int = 0,
    log_size: int = 0,
    timeout_ns: int = 0,
    userns_fd: int = -1,
    arguments: Sequence[str] = (),
    environment: Sequence[str] = (),
) -> Monitored:
    """Start a monitor (see csrc/init/monitor.c) and pyrtc-init as its child, with a plan.

    Parameters
    ----------
    stdio: the monitor's ends of stdin, stdout and stderr. timeout_ns: nanoseconds, then it kills the container; 0:
        never. userns_fd: a user namespace that process 1 is born in, or a child of it with CLONE_NEWUSER.
    arguments, environment: what it executes at the end.

    Raises
    ------
    StartError: the kernel refuses the namespaces or a process.
    """
    error, result = ffi.new("struct pyrtc_error *"), ffi.new("struct pyrtc_monitored *")
    plan = b"".join(operations)
    plan_buffer, slot_array = ffi.from_buffer("uint8_t[]", plan), ffi.new("int32_t[]", list(slots))
    strings = b"".join(os.fsencode(word) + b"\0" for word in (*arguments, *environment))
    end_command = ffi.from_buffer("uint8_t[]", strings)
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
        },
    )
    monitor = ffi.new(
        "struct pyrtc_monitor *",
        {
            "directory_fd": directory_fd,
            "listen_fd": listen_fd,
            "stdin_fd": stdio[0],
            "stdout_fd": stdio[1],
            "stderr_fd": stdio[2],
            "kill_fd": kill_fd,
            "oom_fd": oom_fd,
            "log_files": log_files,
            "log_size": log_size,
            "timeout": timeout_ns,
            "argument_count": len(arguments),
            "string_count": len(arguments) + len(environment),
            "end_command": end_command,
            "end_command_size": len(strings),
        },
    )
    result.pidfd = -1
    try:
        check(lib.pyrtc_spawn_monitored(request, monitor, result, error), error, StartError)
        return Monitored(
            result.pid,
            result.pidfd,
            result.monitor_pid,
            result.monitor_pidfd,
            result.status_fd,
            result.control_fd,
        )
    except BaseException:
        if result.pidfd >= 0:  # an exception out of a signal handler; the end of its socket ends the container
            for fd in (result.pidfd, result.monitor_pidfd, result.status_fd, result.control_fd):
                os.close(fd)
        raise


def listen_at(directory_fd: int, name: str) -> int:
    """Return a listening SOCK_SEQPACKET socket with this name in a directory; what has the name is replaced.

    Raises
    ------
    StartError: it cannot be made.
    """
    error = ffi.new("struct pyrtc_error *")
    return check(lib.pyrtc_listen_at(directory_fd, os.fsencode(name), error), error, StartError)


def connect_at(directory_fd: int, name: str) -> int:
    """Connect to a socket of `listen_at`; the descriptor is the caller's.

    Raises
    ------
    OSError: as connect(2) would: FileNotFoundError, ConnectionRefusedError; BlockingIOError: nobody has accepted it for
        five seconds.
    """
    result: int = -errno.EINTR
    while result == -errno.EINTR:  # a handler of a signal may have raised meanwhile
        result = lib.pyrtc_connect_at(directory_fd, os.fsencode(name))
    if result < 0:
        raise OSError(-result, os.strerror(-result), name)
    return result


def send_message(socket_fd: int, message: bytes) -> None:
    """Send one message over a socket of `connect_at`.

    Raises
    ------
    OSError: as send(2) would: BrokenPipeError, BlockingIOError. InterruptedError: a signal arrived first.
    """
    result = lib.pyrtc_send_message(socket_fd, ffi.from_buffer("uint8_t[]", message), len(message))
    if result < 0:
        raise OSError(-result, os.strerror(-result))
