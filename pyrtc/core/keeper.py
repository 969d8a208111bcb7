"""Programs that serve a container and end with it (csrc/keeper.c)."""

import os
from collections.abc import Sequence

from pyrtc._core import ffi, lib
from pyrtc.core.error import check
from pyrtc.errors import StartError
from pyrtc.values import dataclass

__all__ = ["Kept", "keep"]


@dataclass(frozen=True, slots=True)
class Kept:
    """A program under its keeper; the descriptors are the caller's.

    control_fd: `go_on` says that nobody reads the errors any more; it ends when the program is gone. ready_fd: what the
    program says when it is ready. error_fd: its standard error.
    """

    control_fd: int
    ready_fd: int
    error_fd: int


def keep(
    helper_fd: int,
    watched_fd: int,
    arguments: Sequence[str],
    environment: Sequence[str],
    *,
    ready_number: int,
    held: Sequence[int] = (),
) -> Kept:
    """Start a program that ends with a container; it is nobody's child, and none of the caller's descriptors is its.

    Parameters
    ----------
    watched_fd: the container's pidfd. arguments: the first is the path of the program. ready_number: the descriptor on
        which it says that it is ready, 1 or 3. held: open for as long as the program may live, such as locks.

    Raises
    ------
    StartError: the kernel refuses the process.
    """
    error, result = ffi.new("struct pyrtc_error *"), ffi.new("struct pyrtc_kept *")
    words = b"".join(os.fsencode(word) + b"\0" for word in (*arguments, *environment))
    strings, held_array = ffi.from_buffer("uint8_t[]", words), ffi.new("int32_t[]", list(held))
    request = ffi.new(
        "struct pyrtc_keep *",
        {
            "helper_fd": helper_fd,
            "watched_fd": watched_fd,
            "ready_number": ready_number,
            "held": held_array,
            "held_count": len(held),
            "argument_count": len(arguments),
            "string_count": len(arguments) + len(environment),
            "strings": strings,
            "strings_size": len(words),
        },
    )
    result.control_fd = -1
    try:
        check(lib.pyrtc_keep(request, result, error), error, StartError)
        return Kept(result.control_fd, result.ready_fd, result.error_fd)
    except BaseException:
        if result.control_fd >= 0:  # an exception out of a signal handler; the container is not going to run
            for fd in (result.control_fd, result.ready_fd, result.error_fd):
                os.close(fd)
        raise
