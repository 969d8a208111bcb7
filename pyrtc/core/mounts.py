"""Mounts that are made before a container exists, and namespaces: new ones, and those that this process enters."""

import os
from collections.abc import Sequence

from pyrtc._core import ffi, lib
from pyrtc.core.error import check
from pyrtc.errors import UnsupportedError

__all__ = [
    "attach_mount",
    "clone_mount",
    "file_ids",
    "join_namespace",
    "make_netns",
    "mount_overlay",
    "mount_view",
    "own_mounts",
    "unshare",
]


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


def attach_mount(mount_fd: int, target_fd: int) -> None:
    """Attach a detached mount to the directory or file at target_fd.

    Raises
    ------
    UnsupportedError: the kernel or the user's rights refuse.
    """
    error = ffi.new("struct pyrtc_error *")
    check(lib.pyrtc_attach_mount(mount_fd, target_fd, error), error, UnsupportedError)


def make_netns(userns_fd: int = -1) -> int:
    """Return a descriptor of a new network namespace whose loopback device is up.

    userns_fd: the user namespace that it shall belong to; -1: this process's.

    Raises
    ------
    UnsupportedError: this user cannot make one.
    """
    error = ffi.new("struct pyrtc_error *")
    return check(lib.pyrtc_make_netns(userns_fd, error), error, UnsupportedError)


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


def unshare(flags: int) -> None:
    """Move this process into new namespaces; it must have one thread.

    Raises
    ------
    UnsupportedError: the kernel or the user's rights refuse.
    """
    error = ffi.new("struct pyrtc_error *")
    check(lib.pyrtc_unshare(flags, error), error, UnsupportedError)


def file_ids(uid: int, gid: int) -> None:
    """Make files as another user from now on, with all rights kept; for a process of its own.

    Raises
    ------
    UnsupportedError: this process may not.
    """
    error = ffi.new("struct pyrtc_error *")
    check(lib.pyrtc_file_ids(uid, gid, error), error, UnsupportedError)
