"""Layers: from a tar stream to a tree, and back."""

import errno
import os
from collections.abc import Sequence

from pyrtc._core import ffi, lib
from pyrtc.core.error import check
from pyrtc.core.pieces import Pieces
from pyrtc.errors import ImageError, StoreError
from pyrtc.values import dataclass

__all__ = ["TardiffResult", "UntarLimits", "UntarResult", "tardiff", "untar", "untar_alone"]


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
    stream: int | Pieces,
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
    stream: a descriptor, or what another thread of this process writes.
    lower_fds: the layers below, top first. rootless: the caller may not change owners; keep_owners: it may all the
    same, being root of a user namespace. plain: no layer but a plain tree, in which names like .wh.x are ordinary.

    Raises
    ------
    ImageError: the stream is damaged, hostile or beyond the limits.
    StoreError: there is no space, or the file system or this user's rights do not allow it.
        Either way what was unpacked so far is left for the caller to remove.
    """
    result = _untar(stream, root_fd, lower_fds, (rootless, keep_owners, plain, False), limits)
    assert result is not None
    return result


def untar_alone(
    stream: int | Pieces,
    root_fd: int,
    *,
    rootless: bool = False,
    keep_owners: bool = False,
    limits: UntarLimits = UntarLimits(),
) -> UntarResult | None:
    """Unpack a layer if its tree is the same above any layers; None as soon as it is not, with the stream half read.

    Raises as `untar` does.
    """
    return _untar(stream, root_fd, (), (rootless, keep_owners, False, True), limits)


# What no image is to blame for.
_STORE_ERRORS = frozenset(
    getattr(errno, name)
    for name in ["EACCES", "EBADF", "EDQUOT", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "EPERM", "EROFS", "ESTALE"]
)


def _untar(
    stream: int | Pieces,
    root_fd: int,
    lower_fds: Sequence[int],
    flags: tuple[bool, bool, bool, bool],
    limits: UntarLimits,
) -> UntarResult | None:
    error, result = ffi.new("struct pyrtc_error *"), ffi.new("struct pyrtc_untar_result *")
    lowers = ffi.new("int32_t[]", list(lower_fds))
    rootless, keep_owners, plain, alone = flags
    options = ffi.new(
        "struct pyrtc_untar_options *",
        {
            "stream_fd": stream if isinstance(stream, int) else -1,
            "pieces": stream.handle if isinstance(stream, Pieces) else ffi.NULL,
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
