"""Trees and files: opened within bounds, measured, removed, watched, written to the disk."""

import os

from pyrtc._core import ffi, lib
from pyrtc.core.error import check

__all__ = [
    "RESOLVE_BENEATH",
    "RESOLVE_IN_ROOT",
    "RESOLVE_NO_MAGICLINKS",
    "RESOLVE_NO_SYMLINKS",
    "kernel_interface",
    "measure_tree",
    "openat2",
    "remove_tree",
    "sync_filesystem",
    "watch_directory",
]

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


def kernel_interface(fd: int) -> bool:
    """Whether what is open at fd is an interface of the kernel, as the files of /proc and /sys are."""
    return bool(lib.pyrtc_kernel_interface(fd))


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
