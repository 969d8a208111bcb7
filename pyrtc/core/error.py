"""From what C functions say of their failures to exceptions."""

import errno
from typing import Any

from pyrtc._core import ffi
from pyrtc.errors import PyrtcError, StoreError, UnsupportedError, reason

__all__ = ["check"]


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
