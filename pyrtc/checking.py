"""Giving the monitor of a container the check of its health.

The check is an exec that is decided once, when the container has started: a plan in a memfd, and the descriptors that
it needs. The monitor executes it again and again without an interpreter; see csrc/init/monitor_health.c.
"""

import os
import struct
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from pyrtc.errors import ContainerError, StartError, UsageError
from pyrtc.exec import Executor
from pyrtc.health import FILE, STARTING, merged
from pyrtc.options import ExecOptions, HealthCheck
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrtc.image.config import ImageConfig
    from pyrtc.options import RunOptions

__all__ = ["Check", "check_words", "decide_check", "hand_over"]

DEFAULT_INTERVAL, DEFAULT_TIMEOUT, DEFAULT_START_INTERVAL, DEFAULT_RETRIES = 30.0, 30.0, 5.0, 3  # Docker's
SHELL = ("/bin/sh", "-c")
MINIMUM = 0.001  # seconds; Docker's
MAXIMUM = 10 * 365 * 86400.0
_MESSAGE = struct.Struct("=QQQQIIII")  # struct monitor_health
_FROZEN_FILE, _CGROUP = 1, 2  # enum health_flags
_HEADER = struct.Struct("=IIII")  # struct plan_header
_PLAN_MAGIC = 0x70727463
_FIXED_SLOTS = 4  # stdio, process 1
_MAX_TASKS = 32


@dataclass(frozen=True, slots=True)
class Check:
    """What is to be executed, and when; no value is left open. Times are seconds."""

    command: tuple[str, ...]
    interval: float
    timeout: float
    start_period: float
    start_interval: float
    retries: int


def decide_check(options: "RunOptions", config: "ImageConfig") -> Check | None:
    """Return the check of a container; None where there is none.

    Raises
    ------
    UsageError: what the caller asks cannot mean anything. An image's word that means nothing is no check, as in Docker.
    """
    if options.health is not None:
        check_words(options.health)
    wanted = merged(options.health, config.healthcheck)
    if wanted is None or not wanted.test:
        return None
    kind, *words = wanted.test
    if kind == "CMD-SHELL" and words:
        words = [*(config.shell or SHELL), words[0]]
    elif kind != "CMD" or not words:
        return None
    return Check(
        tuple(words),
        max(wanted.interval or DEFAULT_INTERVAL, MINIMUM),
        max(wanted.timeout or DEFAULT_TIMEOUT, MINIMUM),
        wanted.start_period,
        max(wanted.start_interval or DEFAULT_START_INTERVAL, MINIMUM),
        wanted.retries or DEFAULT_RETRIES,
    )


def check_words(asked: HealthCheck) -> None:
    """Raise UsageError where the check that a caller asks for cannot mean anything."""
    kind, *words = asked.test or ("NONE",)
    if kind not in ("CMD", "CMD-SHELL", "NONE"):
        raise UsageError(f"health: the test begins with CMD, CMD-SHELL or NONE, not {kind!r}")
    if asked.test and len(words) != {"NONE": 0, "CMD-SHELL": 1}.get(kind, max(len(words), 1)):
        raise UsageError('health: write ("CMD", program, argument...), ("CMD-SHELL", line) or ("NONE",)')
    if any("\0" in word for word in words):
        raise UsageError("health: a NUL character cannot be in a command")
    for name in ("interval", "timeout", "start_period", "start_interval"):
        seconds = getattr(asked, name)
        if not (seconds == 0 or MINIMUM <= seconds <= MAXIMUM):
            raise UsageError(f"health: {name} is 0 or from 1 ms to ten years, not {seconds!r} s")
    if not 0 <= asked.retries < 1 << 31:
        raise UsageError(f"health: retries={asked.retries!r} is no number of failures")


def hand_over(check: Check, executor: Executor, control_fd: int, directory_fd: int) -> None:
    """Tell the monitor, which has not heard yet that the container's command executes.

    Raises
    ------
    ContainerError: the container has ended meanwhile. StartError: the monitor was killed.
    """
    with ExitStack() as owned:
        operations, group = executor.decide_for_monitor(ExecOptions(command=check.command))
        flags, passed = 0, []
        if group is not None:
            version_2 = group.into_fd is not None
            name = "cgroup.freeze" if version_2 else "freezer.state"
            with suppress(FileNotFoundError):  # where nothing freezes, nothing is paused
                passed.append(os.open(f"{group.path}/{name}", os.O_RDONLY | os.O_CLOEXEC))
                owned.callback(os.close, passed[-1])
                flags |= _FROZEN_FILE
            if group.into_fd is not None:
                passed.append(group.into_fd)
                flags |= _CGROUP
            passed += group.tasks_fds
        tasks = 0 if group is None else len(group.tasks_fds)
        if tasks > _MAX_TASKS:
            raise ContainerError("the container is in too many control groups")
        plan = os.memfd_create("pyrtc-plan", os.MFD_CLOEXEC)
        owned.callback(os.close, plan)
        os.write(plan, _plan(operations, _FIXED_SLOTS + tasks))
        _write_first(directory_fd)
        times = (check.interval, check.timeout, check.start_period, check.start_interval)
        message = _MESSAGE.pack(*(round(seconds * 1e9) for seconds in times), check.retries, flags, tasks, 0)
        _send(control_fd, message, (plan, *passed))


def _send(control_fd: int, message: bytes, fds: "Sequence[int]") -> None:
    import socket

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=os.dup(control_fd)) as control:
            socket.send_fds(control, [message], fds, socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError):
        raise StartError("cannot start the container: its monitor was killed", step="monitor") from None


def _plan(operations: "Sequence[bytes]", slots: int) -> bytes:
    """Return a plan whose descriptors the monitor fills in."""
    table = struct.pack(f"={slots}i", *(-1,) * slots)
    table += b"\0" * (-len(table) % 8)
    body = b"".join(operations)
    size = _HEADER.size + len(table) + len(body)
    return _HEADER.pack(_PLAN_MAGIC, size, slots, len(operations)) + table + body


def _write_first(directory_fd: int) -> None:
    """Whoever looks before the first check has ended finds that the container is starting."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(FILE, flags, 0o600, dir_fd=directory_fd)
    try:
        os.write(fd, STARTING)
    finally:
        os.close(fd)
