"""Copies of trees, and of single files to where something is already."""

import os
from collections.abc import Sequence

from pyrtc._core import ffi, lib
from pyrtc.core.error import check
from pyrtc.values import dataclass

__all__ = [
    "COPY_CAPABILITIES",
    "COPY_DEVICES",
    "COPY_DIRECTORIES",
    "COPY_OWNERS",
    "CopyResult",
    "copy_entry",
    "copy_tree",
]

COPY_OWNERS, COPY_DEVICES, COPY_CAPABILITIES, COPY_DIRECTORIES = 2, 4, 8, 16


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
