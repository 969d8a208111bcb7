"""Executing a plan: spawn pyrtc-init, write its id maps, hear from it until the command runs."""

import errno
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress

from pyrtc import core
from pyrtc.errors import (
    CommandNotExecutable,
    CommandNotFound,
    ContainerError,
    PyrtcError,
    StartError,
    UnsupportedError,
    reason,
)
from pyrtc.ids import write_maps
from pyrtc.runtime.helper import entrust, helper_fd, release
from pyrtc.runtime.ids import Parent, write_nested_maps
from pyrtc.runtime.namespaces import CLONE_NEWNET, CLONE_NEWUSER
from pyrtc.runtime.plan import Plan, words
from pyrtc.runtime.spare_network import spare_networks
from pyrtc.runtime.spec import Spec
from pyrtc.values import dataclass

__all__ = ["Started", "abandon", "failure", "start"]


@dataclass(frozen=True, slots=True)
class Started:
    """A container whose command runs. pidfd and terminal_fd are the caller's to close."""

    pid: int
    pidfd: int
    terminal_fd: int | None


def start(
    spec: Spec,
    plan: Plan,
    *,
    cgroup_fd: int | None = None,
    kill_fd: int | None = None,
    network_ready: bool = False,
    userns_fd: int = -1,
    parent: Parent | None = None,
    mark: Callable[[str], object] | None = None,
    on_created: Callable[[int, int], object] | None = None,
) -> Started:
    """Start the container; returns when its command is executing.

    Parameters
    ----------
    network_ready: the plan enters a network namespace that was made ahead.
    userns_fd: the user namespace that it is born in, which has its maps; -1: a new one, if the spec has maps.
    parent: what that new one is a child of; None: this process's.
    cgroup_fd: version 2 directory to be born in. kill_fd: the container's cgroup.kill, where it has no pid namespace.
    mark: called with the name of a step at its end, where the start is traced.
    on_created: called with the id and the pidfd of process 1 when its ids are mapped and before it is let go: the place
        to give it a network. What it raises ends the start.

    Raises
    ------
    CommandNotFound, CommandNotExecutable, StartError, UnsupportedError: with the step that failed; nothing is left.
    """
    flags = clone_flags(spec, network_ready=network_ready, userns_fd=userns_fd)
    group = -1 if cgroup_fd is None else cgroup_fd
    born_fd = born_in(userns_fd, parent)
    try:
        child = core.spawn(helper_fd(), plan.operations, plan.slots, flags, group, userns_fd=born_fd)
    except StartError as error:
        raise refused_clone(error, spec) from None
    if mark is not None:
        mark("clone the first process")
    try:
        entrust(child.pidfd, kill_fd)
        map_ids(spec, child.pid, child.status_fd, userns_fd=userns_fd, parent=parent)
        if on_created is not None:
            on_created(child.pid, child.pidfd)
        core.go_on(child.status_fd)
        if mark is not None:
            mark("entrust it to the warden")
        refill_networks(spec, network_ready=network_ready)
        if mark is not None:
            mark("make the next network namespace")
        terminal_fd = until_running(child.status_fd, plan)
    except BaseException:
        abandon(child.pidfd)
        raise
    finally:
        os.close(child.status_fd)
    return Started(child.pid, child.pidfd, terminal_fd)


def clone_flags(spec: Spec, *, network_ready: bool, userns_fd: int = -1) -> int:
    """Return the namespaces that are made for process 1."""
    there = (CLONE_NEWNET if network_ready else 0) | (CLONE_NEWUSER if userns_fd >= 0 else 0)
    return spec.clone_flags & ~there


def born_in(userns_fd: int, parent: Parent | None) -> int:
    """Return the user namespace from which process 1 is cloned, -1 for this process's."""
    return parent.fd if userns_fd < 0 and parent is not None else userns_fd


def map_ids(spec: Spec, pid: int, status_fd: int, *, userns_fd: int = -1, parent: Parent | None = None) -> None:
    """Write the id maps of a container in a user namespace, if it is a new one, and let it go on to its next stop.

    Raises
    ------
    StartError: the kernel or newuidmap refuses.
    """
    if spec.id_maps is not None:
        if userns_fd < 0 and parent is not None:
            write_nested_maps(pid, spec.id_maps, parent)
        elif userns_fd < 0:
            write_maps(pid, spec.id_maps)
        core.go_on(status_fd)


def refill_networks(spec: Spec, *, network_ready: bool) -> None:
    """While pyrtc-init works, make what the next start will need."""
    if network_ready or (spec.own_network and spec.id_maps is None):
        spare_networks.refill()


def abandon(pidfd: int) -> None:
    """End a container that nobody is to have, and close its pidfd."""
    try:
        release(pidfd)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        with suppress(ContainerError):
            core.reap(pidfd)
    finally:
        os.close(pidfd)


def until_running(status_fd: int, plan: Plan) -> int | None:
    """Read reports until the socket ends, which is when the command runs; returns the master of its terminal.

    Raises
    ------
    CommandNotFound, CommandNotExecutable, StartError, UnsupportedError: with the step that failed.
    """
    terminal_fd: int | None = None
    try:
        while (report := core.next_report(status_fd)) is not None:
            if report.terminal_fd is None:
                raise failure(plan.operations, report, "start the container")
            terminal_fd = report.terminal_fd
    except BaseException:
        if terminal_fd is not None:
            os.close(terminal_fd)
        raise
    return terminal_fd


def failure(operations: Sequence[bytes], report: core.Report, what: str) -> PyrtcError:
    """Return the exception that says which operation of a plan failed and why.

    what: what could not be done, as in "start the container".
    """
    index, code, call, detail = report.operation, report.errno, report.call, report.detail
    name, strings = words(operations[index]) if index < len(operations) else ("plan", [])
    if name == "exec":
        return _exec_failure(strings[0] if strings else "", code, call, detail)
    shown = name.removesuffix("_slot").replace("_", " ")
    step = f"{shown} {strings[1] if name in _SECOND else strings[0] if strings else ''}".strip()
    hint = _HINTS.get((call, code)) or _HINTS.get((name.removesuffix("_slot"), code)) or ""
    where = f" {detail}" if detail and detail not in step else ""
    text = f"cannot {what}: {step}: {call}{where}: {reason(code)}"
    kind = UnsupportedError if code in {errno.ENOSYS, errno.EOPNOTSUPP} else None
    if kind is not None:
        return kind(text + hint)
    return StartError(text + hint, step=step, errno=code)


# Operations whose second string is the path inside the container.
_SECOND = frozenset({"mount", "bind", "device", "symlink"})
_NO_OVERLAY = ": this kernel has no overlayfs, or its module is not loaded (modprobe overlay); or use --driver copy"
_NO_TARGET = ": the target is missing, and its file system is read-only; mount over something that is there"
_HINTS = {  # by the system call, which says more, or by the operation
    (
        "move_mount",
        errno.EINVAL,
    ): ": a directory is mounted over a directory and a file over a file; see what the two are",
    ("bind", errno.EROFS): _NO_TARGET,
    ("mount", errno.EROFS): _NO_TARGET,
    ("root_overlay", errno.ENODEV): _NO_OVERLAY,
    ("overlay", errno.ENODEV): _NO_OVERLAY,
    ("bind", errno.ESTALE): ": the source was replaced while the container was being started",
    (
        "bind",
        errno.EINVAL,
    ): ": an ordinary user cannot show a directory without what is mounted below it; bind that, too",
    ("overlay", errno.EINVAL): (
        ": the file system of the store cannot hold the R/W layer (NFS and overlayfs cannot); move it with --root,"
        " or use --rw-layer memory"
    ),
    ("bind", errno.EPERM): ": an ordinary user cannot lift the read-only or nosuid flags of a host mount",
    ("root_overlay", errno.EINVAL): (
        ": the file system of the store cannot hold the R/W layer (NFS and overlayfs cannot); move it with --root,"
        " or use --rw-layer memory or --driver copy"
    ),
    (
        "mount",
        errno.EPERM,
    ): ": the host's own /proc or /sys is partly covered, as in a container; pyrtc cannot show a new one",
    ("rlimit", errno.EPERM): (
        ": pyrtc's own hard limit is lower, and raising one needs CAP_SYS_RESOURCE, which ordinary users and a confined"
        " root lack; nofile also ends at /proc/sys/fs/nr_open"
    ),
    ("sysctl", errno.ENOENT): ": this kernel has no such setting",
    ("oom_score", errno.EACCES): ": lowering it needs CAP_SYS_RESOURCE, which ordinary users and a confined root lack",
    ("keyring", errno.EDQUOT): ": this user has too many keys (/proc/sys/kernel/keys/maxkeys)",
    ("mkdir", errno.ENOTDIR): ": it is there, or something above it, and is no directory",
    ("workdir", errno.ENOTDIR): ": it is not a directory",
    ("setns", errno.EPERM): ": this process has no rights over the container's namespaces; it is another user's",
    ("clone", errno.EAGAIN): ": the container has as many processes as its limit on pids lets it have",
    ("clone", errno.EPERM): ": the container's seccomp profile does not allow clone",
}


def _exec_failure(program: str, code: int, call: str, detail: str) -> StartError:
    """Say what Docker says, which scripts look for: 127 for a program that is not there, 126 where it cannot run."""
    if call == "interpreter":
        text = f"exec {detail}: no such file or directory: the program is there, its interpreter or loader is not"
        return CommandNotFound(text, step="exec", errno=code)
    if code in {errno.ENOENT, errno.ENOTDIR}:
        what = "no such file or directory" if "/" in program else "executable file not found in $PATH"
        return CommandNotFound(f'exec: "{program}": {what}', step="exec", errno=code)
    if code in {errno.EACCES, errno.EISDIR, errno.ENOEXEC, errno.EPERM, errno.ETXTBSY}:
        words_of = {
            errno.EACCES: "permission denied",
            errno.EISDIR: "is a directory",
            errno.ENOEXEC: "exec format error",
        }
        text = f'exec: "{program}": {words_of.get(code, os.strerror(code).lower())}'
        return CommandNotExecutable(text, step="exec", errno=code)
    return StartError(f'exec: "{program}": {call}: {reason(code)}', step="exec", errno=code)


def refused_clone(error: StartError, spec: Spec) -> PyrtcError:
    """Say what can be done about a clone that the kernel refused."""
    code = getattr(error, "errno", 0)
    if code == errno.EPERM and spec.clone_flags & CLONE_NEWUSER:
        hint = (
            "this system does not let ordinary users make user namespaces (kernel.unprivileged_userns_clone, AppArmor)"
        )
        return UnsupportedError(f"{error}: {hint}; run as root")
    if code == errno.EPERM:
        return UnsupportedError(f"{error}: root without CAP_SYS_ADMIN cannot make containers")
    if code == errno.ENOSPC:
        kind = "network namespaces" if spec.clone_flags & CLONE_NEWNET else "namespaces"
        return StartError(
            f"{error}: too many {kind} or nested too deep; see /proc/sys/user/max_*_namespaces", errno=code
        )
    return error
