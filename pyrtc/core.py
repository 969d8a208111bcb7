"""A thin typed layer over the C core: fills structs, raises errors, decides nothing.

Descriptors go in and come out; whoever passes one keeps it, whoever receives one closes it.
"""

import errno
import os
import signal
from collections.abc import Sequence
from typing import Any

from pyrtc._core import ffi, lib
from pyrtc.errors import (
    ContainerError,
    ImageError,
    LimitError,
    PyrtcError,
    StartError,
    StoreError,
    UnsupportedError,
    reason,
)
from pyrtc.values import dataclass

__all__ = [
    "Child",
    "CopyResult",
    "TardiffResult",
    "UntarLimits",
    "UntarResult",
    "attach_device_filter",
    "attach_mount",
    "clone_mount",
    "copy_entry",
    "copy_tree",
    "file_ids",
    "join_namespace",
    "kernel_interface",
    "measure_tree",
    "mount_overlay",
    "own_mounts",
    "remove_tree",
    "sync_filesystem",
    "tardiff",
    "untar",
    "untar_alone",
]


def check(result: int, error: Any, failure: type[PyrtcError] = StoreError) -> int:  # noqa: ANN401  (cffi)
    """Return a C function's result, or raise what its struct pyrtc_error says.

    Raises
    ------
    failure: the class for this room, except
    UnsupportedError: where the kernel says that it has no such call.
    """
    if result >= 0:
        return result
    step = ffi.string(error.step).decode()
    message = ffi.string(error.message).decode(errors="surrogateescape")
    parts = [f"cannot {step}" if step else "", message, reason(error.code) if error.code else ""]
    text = ": ".join(part for part in parts if part)
    if error.code == errno.ENOSYS:
        raise UnsupportedError(f"{text}: this kernel is too old for pyrtc, which needs Linux 5.12 or newer")
    exception = failure(text)
    exception.errno = error.code  # type: ignore[attr-defined]
    raise exception


@dataclass(frozen=True, slots=True)
class UntarLimits:
    """What one layer may hold at most; beyond it the layer is refused."""

    entries: int = 10_000_000
    bytes: int = 1 << 40
    file_size: int = 1 << 40
    depth: int = 256
    pax_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True)
class UntarResult:
    """What one layer held: entries, bytes of file data, bytes of the stream, entries left out.

    depends: decisions that were, or without lower_fds would have been, taken from the layers below. 0 means that the
    tree is right above any layers and may be shared by images that differ below it. (The attributes of the root
    directory itself, where the layer names none, are the topmost lower layer's and are not counted.)
    attributes_skipped: extended attributes and ACLs that were left out: those by which overlayfs steers, labels of the
    host's security modules, ACLs with names instead of ids, what this kind of file or this user cannot have.
    """

    entries: int
    bytes: int
    stream_bytes: int
    skipped: int
    depends: int
    attributes_skipped: int


def untar(
    stream_fd: int,
    root_fd: int,
    *,
    lower_fds: Sequence[int] = (),
    rootless: bool = False,
    keep_owners: bool = False,
    plain: bool = False,
    limits: UntarLimits = UntarLimits(),
) -> UntarResult:
    """Unpack the tar stream into the empty directory root_fd. Blocks without the GIL until the stream ends.

    Parameters
    ----------
    lower_fds: the layers below, top first. rootless: the caller may not change owners; keep_owners: it may all the
    same, being root of a user namespace. plain: no layer but a plain tree, in which names like .wh.x are ordinary.

    Raises
    ------
    ImageError: the stream is damaged, hostile or beyond the limits.
    StoreError: there is no space, or the file system or this user's rights do not allow it.
        Either way what was unpacked so far is left for the caller to remove.
    """
    result = _untar(stream_fd, root_fd, lower_fds, (rootless, keep_owners, plain, False), limits)
    assert result is not None
    return result


def untar_alone(
    stream_fd: int,
    root_fd: int,
    *,
    rootless: bool = False,
    keep_owners: bool = False,
    limits: UntarLimits = UntarLimits(),
) -> UntarResult | None:
    """Unpack a layer if its tree is the same above any layers; None as soon as it is not, with the stream half read.

    Raises as `untar` does.
    """
    return _untar(stream_fd, root_fd, (), (rootless, keep_owners, False, True), limits)


# What no image is to blame for.
_STORE_ERRORS = frozenset(
    getattr(errno, name)
    for name in ["EACCES", "EBADF", "EDQUOT", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "EPERM", "EROFS", "ESTALE"]
)


def _untar(
    stream_fd: int, root_fd: int, lower_fds: Sequence[int], flags: tuple[bool, bool, bool, bool], limits: UntarLimits
) -> UntarResult | None:
    error, result = ffi.new("struct pyrtc_error *"), ffi.new("struct pyrtc_untar_result *")
    lowers = ffi.new("int32_t[]", list(lower_fds))
    rootless, keep_owners, plain, alone = flags
    options = ffi.new(
        "struct pyrtc_untar_options *",
        {
            "stream_fd": stream_fd,
            "root_fd": root_fd,
            "lower_fds": lowers,
            "lower_count": len(lower_fds),
            "rootless": rootless,
            "keep_owners": keep_owners,
            "plain": plain,
            "alone": alone,
            "max_entries": limits.entries,
            "max_bytes": limits.bytes,
            "max_file_size": limits.file_size,
            "max_depth": limits.depth,
            "max_pax_bytes": limits.pax_bytes,
        },
    )
    given_up = lib.pyrtc_untar(options, result, error)
    if check(given_up, error, StoreError if error.code in _STORE_ERRORS else ImageError):
        return None
    return UntarResult(
        result.entries,
        result.bytes,
        result.stream_bytes,
        result.skipped,
        result.depends,
        result.attributes_skipped,
    )


@dataclass(frozen=True, slots=True)
class TardiffResult:
    """What a tree held: entries, bytes of file data, bytes of the stream; sockets and attributes that were left out.

    opaque: directories that hide what the layers below have there. whiteouts: names that are hidden one by one.
    """

    entries: int
    bytes: int
    stream_bytes: int
    skipped: int
    attributes_skipped: int
    opaque: int
    whiteouts: int


def tardiff(
    root_fd: int,
    stream_fd: int,
    *,
    latest: int | None = None,
    rootless: bool = False,
    no_owners: bool = False,
    headers_only: bool = False,
    plain: bool = False,
    left_out: Sequence[str] = (),
    limits: UntarLimits = UntarLimits(),
) -> TardiffResult:
    """Write a tree, in the form that overlayfs stacks, as a layer's uncompressed tar. Blocks without the GIL.

    Equal trees give equal bytes. If stream_fd is a pipe its reader must read to the end of the file in any case.

    Parameters
    ----------
    latest: seconds since the epoch; later times are written as this (SOURCE_DATE_EPOCH). rootless: opaque directories
    are marked in user.*. no_owners: everything is written as root's. headers_only: no file data and no end, which is
    no archive but something to hash. plain: no layer but a plain tree, without whiteouts, in which names like .wh.x
    are ordinary. left_out: paths relative to the root, without a slash before or after, that are passed over with
    what is below.

    Raises
    ------
    StoreError: a file cannot be read, or no layer can hold what is there; names it.
    """
    error, result = ffi.new("struct pyrtc_error *"), ffi.new("struct pyrtc_tardiff_result *")
    options = ffi.new(
        "struct pyrtc_tardiff_options *",
        {
            "root_fd": root_fd,
            "stream_fd": stream_fd,
            "latest": latest or 0,
            "clamp": latest is not None,
            "rootless": rootless,
            "no_owners": no_owners,
            "headers_only": headers_only,
            "max_entries": limits.entries,
            "max_bytes": limits.bytes,
        },
    )
    if plain:
        options.plain = 1
    if left_out:
        names = [ffi.new("char[]", os.fsencode(path)) for path in left_out]
        paths = ffi.new("char *[]", names)
        options.left_out, options.left_out_count = paths, len(names)
    check(lib.pyrtc_tardiff(options, result, error), error)
    return TardiffResult(
        result.entries,
        result.bytes,
        result.stream_bytes,
        result.skipped,
        result.attributes_skipped,
        result.opaque,
        result.whiteouts,
    )


@dataclass(frozen=True, slots=True)
class CopyResult:
    """What a copy moved: entries, bytes of data copied, files that share their blocks with the source.

    skipped: what `copy_entry` left out.
    """

    entries: int
    bytes: int
    reflinked: int
    skipped: int = 0


def copy_tree(source_fd: int, target_fd: int, *, keep_owner: bool = True, layer: bool = False) -> CopyResult:
    """Copy the contents of one directory into another with every attribute; see copyup.c.

    layer: whiteouts and marks of opaque directories are copied, too.

    Raises
    ------
    StoreError: a file cannot be read or made; names it.
    """
    error, result = ffi.new("struct pyrtc_error *"), ffi.new("struct pyrtc_copy_result *")
    flags = (0 if keep_owner else lib.PYRTC_COPY_NO_OWNER) | (lib.PYRTC_COPY_LAYER if layer else 0)
    check(lib.pyrtc_copy_tree(source_fd, target_fd, flags, result, error), error)
    return CopyResult(result.entries, result.bytes, result.reflinked)


def copy_entry(
    source_fd: int,
    source_name: str | None,
    target_fd: int,
    target_name: str | None,
    *,
    owner: tuple[int, int],
    uids: Sequence[tuple[int, int, int]] = (),
    gids: Sequence[tuple[int, int, int]] = (),
    flags: int = 0,
    max_entries: int = (1 << 64) - 1,
    max_bytes: int = (1 << 64) - 1,
) -> CopyResult:
    """Copy a file or tree to where there may be something already; see copy_entry.c.

    Parameters
    ----------
    source_name: in the directory source_fd, not followed; None: what is in source_fd. target_name: likewise.
    owner: uid and gid of the copy. uids, gids: (id in the source, id in the target, count), with COPY_OWNERS whose
    the copy is, else who keeps set-user-id bits. flags: COPY_*.

    Raises
    ------
    StoreError: something cannot be read or made, or a limit is exceeded; names it and has .errno.
    """
    error, result = ffi.new("struct pyrtc_error *"), ffi.new("struct pyrtc_copy_result *")
    names = [ffi.NULL if name is None else ffi.new("char[]", os.fsencode(name)) for name in (source_name, target_name)]
    ranges = [ffi.new("struct pyrtc_id_range[]", [tuple(part) for part in parts]) for parts in (uids, gids)]
    options = ffi.new(
        "struct pyrtc_copy_options *",
        {
            "source_fd": source_fd,
            "target_fd": target_fd,
            "source_name": names[0],
            "target_name": names[1],
            "flags": flags,
            "uid": owner[0],
            "gid": owner[1],
            "uid_count": len(uids),
            "gid_count": len(gids),
            "uids": ranges[0],
            "gids": ranges[1],
            "max_entries": max_entries,
            "max_bytes": max_bytes,
        },
    )
    check(lib.pyrtc_copy_entry(options, result, error), error)
    return CopyResult(result.entries, result.bytes, result.reflinked, result.skipped)


COPY_OWNERS, COPY_DEVICES, COPY_CAPABILITIES, COPY_DIRECTORIES = 2, 4, 8, 16


def kernel_interface(fd: int) -> bool:
    """Whether what is open at fd is an interface of the kernel, as the files of /proc and /sys are."""
    return bool(lib.pyrtc_kernel_interface(fd))


def file_ids(uid: int, gid: int) -> None:
    """Make files as another user from now on, with all rights kept; for a process of its own.

    Raises
    ------
    UnsupportedError: this process may not.
    """
    error = ffi.new("struct pyrtc_error *")
    check(lib.pyrtc_file_ids(uid, gid, error), error, UnsupportedError)


def join_namespace(fd: int) -> None:
    """Move this process, which must have one thread, into the namespace of fd.

    Raises
    ------
    UnsupportedError: the kernel or the user's rights refuse.
    """
    error = ffi.new("struct pyrtc_error *")
    check(lib.pyrtc_join_namespace(fd, error), error, UnsupportedError)


def own_mounts() -> None:
    """Give this process, which must have one thread, mounts of its own.

    Raises
    ------
    UnsupportedError: the kernel or the user's rights refuse.
    """
    error = ffi.new("struct pyrtc_error *")
    check(lib.pyrtc_own_mounts(error), error, UnsupportedError)


def attach_mount(mount_fd: int, target_fd: int) -> None:
    """Attach a detached mount to the directory or file at target_fd.

    Raises
    ------
    UnsupportedError: the kernel or the user's rights refuse.
    """
    error = ffi.new("struct pyrtc_error *")
    check(lib.pyrtc_attach_mount(mount_fd, target_fd, error), error, UnsupportedError)


def measure_tree(parent_fd: int, name: str) -> int:
    """Return how many bytes the directory parent_fd/name takes on the disk with everything below it.

    Raises
    ------
    StoreError: something cannot be read; names it.
    """
    error, result = ffi.new("struct pyrtc_error *"), ffi.new("struct pyrtc_measure_result *")
    check(lib.pyrtc_measure_tree(parent_fd, os.fsencode(name), result, error), error)
    size: int = result.allocated
    return size


def remove_tree(parent_fd: int, name: str) -> None:
    """Remove parent_fd/name and everything below it; follows no link and enters no other mount. Missing is fine.

    Raises
    ------
    StoreError: something below cannot be removed; names it.
    """
    error = ffi.new("struct pyrtc_error *")
    check(lib.pyrtc_remove_tree(parent_fd, os.fsencode(name), error), error)


def sync_filesystem(fd: int) -> None:
    """Write everything that the file system of fd holds in memory to its disk; blocks without the GIL.

    Raises
    ------
    StoreError: the disk is full or broken.
    """
    error = ffi.new("struct pyrtc_error *")
    check(lib.pyrtc_sync_filesystem(fd, error), error)


def watch_directory(directory_fd: int, mask: int) -> int:
    """Return a descriptor that is readable when something has happened to an entry of a directory; see inotify(7).

    Raises
    ------
    StoreError: this user has as many watches as the system allows.
    """
    error = ffi.new("struct pyrtc_error *")
    return check(lib.pyrtc_watch_directory(directory_fd, mask, error), error)


def clone_mount(fd: int, *, recursive: bool = False, attributes: int = 0, userns_fd: int = -1) -> int:
    """Return a detached copy of the mount (or part of it) at fd, with attributes set and owners mapped.

    Raises
    ------
    UnsupportedError: the file system cannot map owners.
    """
    error = ffi.new("struct pyrtc_error *")
    result = lib.pyrtc_clone_mount(fd, recursive, attributes, userns_fd, error)
    return check(result, error, UnsupportedError)


def mount_overlay(
    lower_fds: Sequence[int], upper_fd: int, work_fd: int, *, volatile: bool = False, userxattr: bool = False
) -> int:
    """Return a detached overlay mount of the layers (top first) under the R/W directory upper_fd.

    upper_fd, work_fd: -1 for a read-only mount of two layers or more. volatile: nothing is flushed to disk.
    userxattr: the layers are an ordinary user's.

    Raises
    ------
    UnsupportedError: overlayfs refuses these directories; the text says why where that can be told.
    """
    error = ffi.new("struct pyrtc_error *")
    lowers = ffi.new("int32_t[]", list(lower_fds))
    flags = (lib.PLAN_VOLATILE if volatile else 0) | (lib.PLAN_USERXATTR if userxattr else 0)
    result = lib.pyrtc_mount_overlay(lowers, len(lower_fds), upper_fd, work_fd, flags, error)
    return check(result, error, UnsupportedError)


def make_netns() -> int:
    """Return a descriptor of a new network namespace whose loopback device is up.

    Raises
    ------
    UnsupportedError: this user cannot make one.
    """
    error = ffi.new("struct pyrtc_error *")
    return check(lib.pyrtc_make_netns(error), error, UnsupportedError)


def mount_view(layers: Sequence[str], *, userxattr: bool = False, own_user: bool = False) -> int:
    """Return a read-only detached mount of two or more layers (top first).

    Parameters
    ----------
    userxattr: the layers are an ordinary user's. own_user: mount in a user namespace in which the caller is root.

    Raises
    ------
    UnsupportedError: this user or kernel cannot mount overlayfs.
    """
    error = ffi.new("struct pyrtc_error *")
    names = [ffi.new("char[]", os.fsencode(layer)) for layer in layers]
    flags = (lib.PYRTC_VIEW_USERXATTR if userxattr else 0) | (lib.PYRTC_VIEW_OWN_USER if own_user else 0)
    result = lib.pyrtc_mount_view(ffi.new("char *[]", names), len(names), flags, error)
    return check(result, error, UnsupportedError)


def unshare(flags: int) -> None:
    """Move this process into new namespaces; it must have one thread.

    Raises
    ------
    UnsupportedError: the kernel or the user's rights refuse.
    """
    error = ffi.new("struct pyrtc_error *")
    check(lib.pyrtc_unshare(flags, error), error, UnsupportedError)


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
    name_sender: bool = False,
) -> Child:
    """Start pyrtc-init in new namespaces with a plan; returns as soon as it is executing.

    name_sender: its reports tell which process they are of.

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
    arguments: Sequence[str] = (),
    environment: Sequence[str] = (),
) -> Monitored:
    """Start a monitor (see csrc/init/monitor.c) and pyrtc-init as its child, with a plan.

    Parameters
    ----------
    stdio: the monitor's ends of stdin, stdout and stderr. timeout_ns: nanoseconds, then it kills the container; 0:
        never. arguments, environment: what it executes at the end.

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
    OSError: as connect(2) would: FileNotFoundError, ConnectionRefusedError.
    """
    result: int = lib.pyrtc_connect_at(directory_fd, os.fsencode(name))
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


def start_warden(helper_fd: int) -> int:
    """Start this process's warden (see csrc/init/warden.c) and return its socket."""
    error = ffi.new("struct pyrtc_error *")
    return check(lib.pyrtc_start_warden(helper_fd, error), error, StartError)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. Times in microseconds, sizes in bytes."""

    status: int
    signaled: bool
    user_us: int
    system_us: int
    read_bytes: int
    written_bytes: int


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


O_PATH = os.O_PATH
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10


def openat2(directory_fd: int, path: str, flags: int, resolve: int) -> int:
    """Open a path with RESOLVE_* restrictions; the descriptor is close-on-exec.

    Raises
    ------
    OSError: as open(2) would, ELOOP or EXDEV where a restriction was hit.
    """
    result: int = lib.pyrtc_openat2(directory_fd, os.fsencode(path), flags, resolve)
    if result < 0:
        raise OSError(-result, os.strerror(-result), path)
    return result
