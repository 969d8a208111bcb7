"""What lies between the thread that inflates a layer and its unpacker: memory, or a pipe to another process."""

import fcntl
import os
import threading
from contextlib import suppress
from typing import Protocol

from pyrtc import core
from pyrtc.image.compression import CHUNK
from pyrtc.store.descriptors import Private

__all__ = ["Channel", "PieceChannel", "PipeChannel"]

_PIPE_SIZE = 1 << 20  # what an ordinary user may set (/proc/sys/fs/pipe-max-size)


class Channel(Protocol):
    """One thread calls `put` and `end`, another one has `source` unpacked, and then calls `stop` and `close`."""

    @property
    def source(self) -> int | core.Pieces:
        """The reading end, as `Trees.untar` takes it."""

    def put(self, piece: bytes) -> bool:
        """Hand a piece on, when there is room; False when nobody wants it any more."""

    def end(self) -> None:
        """Say that no more will come."""

    def stop(self) -> None:
        """Take no more: whoever waits in `put` goes on. Returns when `end` was called, or cannot wait for anything."""

    def close(self) -> None:
        """Give everything back; neither end is used any more."""


class PieceChannel:
    """To an unpacker in this process."""

    def __init__(self) -> None:
        self.source = core.Pieces()

    def put(self, piece: bytes) -> bool:
        """Hand a piece on."""
        return self.source.put(piece)

    def end(self) -> None:
        """Say that no more will come."""
        self.source.end()

    def stop(self) -> None:
        """Take no more."""
        self.source.stop()

    def close(self) -> None:
        """Do nothing: the memory goes with the object."""


class PipeChannel:
    """To an unpacker in another process."""

    def __init__(self) -> None:
        self._read, self._write = (Private(fd) for fd in os.pipe2(os.O_CLOEXEC))
        with suppress(PermissionError):  # the user's pipes are at their limit: a small one is slower and right
            fcntl.fcntl(self._write.fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        self._halt = threading.Event()

    @property
    def source(self) -> int:
        """The reading end."""
        return self._read.fd

    def put(self, piece: bytes) -> bool:
        """Write a piece."""
        view = memoryview(piece)
        while view and not self._halt.is_set():
            view = view[os.write(self._write.fd, view) :]
        return not self._halt.is_set()

    def end(self) -> None:
        """Close the writing end."""
        self._write.close()

    def stop(self) -> None:
        """Empty the pipe to its end.

        Emptied rather than closed: a write into a pipe without a reader is a signal, which the embedding program may
        have made deadly.
        """
        self._halt.set()
        while os.read(self._read.fd, CHUNK):
            pass

    def close(self) -> None:
        """Close the reading end."""
        self._read.close()
