"""A thin typed layer over the C core: fills structs, raises errors, decides nothing.

Descriptors go in and come out; whoever passes one keeps it, whoever receives one closes it.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

from pyrtc._core import ffi, lib
from pyrtc.errors import ImageError, PyrtcError, StoreError, UnsupportedError, reason

__all__ = [
    "CopyResult",
    "UntarLimits",
    "UntarResult",
    "clone_mount",
    "copy_tree",
    "mount_overlay",
    "remove_tree",
    "untar",
]


def check(result: int, error: "ffi.CData", failure: type[PyrtcError] = StoreError) -> int:
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
    tree is right above any layers and may be shared by images that differ below it.
    """

    entries: int
    bytes: int
    stream_bytes: int
    skipped: int
    depends: int


def untar(
    stream_fd: int,
    root_fd: int,
    *,
    lower_fds: Sequence[int] = (),
    rootless: bool = False,
    plain: bool = False,
    limits: UntarLimits = UntarLimits(),  # noqa: B008  (frozen)
) -> UntarResult:
    """Unpack the tar stream into the empty directory root_fd. Blocks without the GIL until the stream ends.

    Raises
    ------
    ImageError: the stream is damaged, hostile or beyond the limits. What was unpacked so far is left for the caller
        to remove.
    """
    error, result = ffi.new("struct pyrtc_error *"), ffi.new("struct pyrtc_untar_result *")
    lowers = ffi.new("int32_t[]", list(lower_fds))
    options = ffi.new(
        "struct pyrtc_untar_options *",
        {
            "stream_fd": stream_fd,
            "root_fd": root_fd,
            "lower_fds": lowers,
            "lower_count": len(lower_fds),
            "rootless": rootless,
            "plain": plain,
            "max_entries": limits.entries,
            "max_bytes": limits.bytes,
            "max_file_size": limits.file_size,
            "max_depth": limits.depth,
            "max_pax_bytes": limits.pax_bytes,
        },
    )
    check(lib.pyrtc_untar(options, result, error), error, ImageError)
    return UntarResult(result.entries, result.bytes, result.stream_bytes, result.skipped, result.depends)


@dataclass(frozen=True, slots=True)
class CopyResult:
    """What a copy moved: entries, bytes of data copied, files that share their blocks with the source."""

    entries: int
    bytes: int
    reflinked: int


def copy_tree(source_fd: int, target_fd: int, *, keep_owner: bool = True) -> CopyResult:
    """Copy the contents of one directory into another with every attribute; see copyup.c.

    Raises
    ------
    StoreError: a file cannot be read or made; names it.
    """
    error, result = ffi.new("struct pyrtc_error *"), ffi.new("struct pyrtc_copy_result *")
    flags = 0 if keep_owner else lib.PYRTC_COPY_NO_OWNER
    check(lib.pyrtc_copy_tree(source_fd, target_fd, flags, result, error), error)
    return CopyResult(result.entries, result.bytes, result.reflinked)


def remove_tree(parent_fd: int, name: str) -> None:
    """Remove parent_fd/name and everything below it; follows no link and enters no other mount. Missing is fine.

    Raises
    ------
    StoreError: something below cannot be removed; names it.
    """
    error = ffi.new("struct pyrtc_error *")
    check(lib.pyrtc_remove_tree(parent_fd, os.fsencode(name), error), error)


def clone_mount(fd: int, *, recursive: bool = False, attributes: int = 0, userns_fd: int = -1) -> int:
    """Return a detached copy of the mount (or part of it) at fd, with attributes set and owners mapped.

    Raises
    ------
    UnsupportedError: the file system cannot map owners.
    """
    error = ffi.new("struct pyrtc_error *")
    result = lib.pyrtc_clone_mount(fd, recursive, attributes, userns_fd, error)
    return check(result, error, UnsupportedError)


def mount_overlay(lower_fds: Sequence[int], upper_fd: int, work_fd: int, *, flags: int = 0) -> int:
    """Return a detached overlay mount of the layers (top first) under the R/W directory upper_fd.

    Raises
    ------
    UnsupportedError: overlayfs refuses these directories; the text says why where that can be told.
    """
    error = ffi.new("struct pyrtc_error *")
    lowers = ffi.new("int32_t[]", list(lower_fds))
    result = lib.pyrtc_mount_overlay(lowers, len(lower_fds), upper_fd, work_fd, flags, error)
    return check(result, error, UnsupportedError)
