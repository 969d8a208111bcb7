"""A stream that one thread makes and another uses, in pieces that nobody copies."""

from collections import deque

from pyrtc._core import ffi, lib
from pyrtc.core.error import check

__all__ = ["Pieces"]

_UNDER_WAY = 4


class Pieces:
    """Such a stream. One thread writes; `pyrtc.core.untar` reads, without the GIL."""

    def __init__(self) -> None:
        error, made = ffi.new("struct pyrtc_error *"), ffi.new("struct pyrtc_pieces **")
        check(lib.pyrtc_pieces_open(_UNDER_WAY, made, error), error)
        self.handle = ffi.gc(made[0], lib.pyrtc_pieces_close)
        # What may still be read, and the one that waits for room: only these objects keep the bytes where they are.
        self._alive: deque[bytes] = deque(maxlen=_UNDER_WAY + 1)

    def put(self, piece: bytes) -> bool:
        """Hand a piece on, when there is room; False when nobody wants it any more."""
        self._alive.append(piece)
        return not lib.pyrtc_pieces_put(self.handle, ffi.from_buffer("uint8_t[]", piece), len(piece))

    def end(self) -> None:
        """Say that no more will come."""
        lib.pyrtc_pieces_end(self.handle)

    def stop(self) -> None:
        """Take no more, as the reader: `put` does not wait any longer."""
        lib.pyrtc_pieces_stop(self.handle)
