"""The client of a container's monitor: its output as it comes, its input, how it ends (protocol: csrc/monitor.h)."""

import errno
import os
import select
import struct
import time
from types import TracebackType
from typing import Literal

from pyrtc import core
from pyrtc.errors import ContainerError
from pyrtc.values import dataclass

__all__ = ["AttachedExit", "Attachment", "attach"]

Stream = Literal["stdout", "stderr"]

_NAME = "attach"
_LARGEST = 32768
_PIECE = 16383  # of input; with its kind four pages of the monitor's
_EXIT = struct.Struct("<xii")
_STREAMS: dict[bytes, Stream] = {b"O": "stdout", b"E": "stderr"}
_OUTPUT, _INPUT, _INPUT_ONCE = 1, 2, 4


@dataclass(frozen=True, slots=True)
class AttachedExit:
    """How a container ended. code: of its command, 128 + n where signal n killed it. signal: n, or 0."""

    code: int
    signal: int


def attach(
    directory_fd: int, *, output: bool = True, stdin: bool = False, stdin_once: bool = False
) -> "Attachment | None":
    """Connect to the monitor of the container whose directory this is; None where there is none any more.

    Who is connected before the container is let go (`start_watched`'s on_created) misses nothing of its output.

    Parameters
    ----------
    output: receive it. stdin: be allowed to write to it; several clients may. stdin_once: stdin ends with this client.

    Raises
    ------
    ContainerError: it cannot be connected to.
    """
    try:
        fd = core.connect_at(directory_fd, _NAME)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise ContainerError(f"cannot reach the monitor of the container: {error.strerror}") from error
    flags = (_OUTPUT if output else 0) | (_INPUT if stdin else 0) | (_INPUT_ONCE if stdin and stdin_once else 0)
    try:
        core.send_message(fd, b"A" + bytes([flags]))
        os.set_blocking(fd, False)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EPIPE, errno.ECONNRESET):
            return None  # it was about to end
        raise ContainerError(f"cannot reach the monitor of the container: {error.strerror}") from error
    except BaseException:
        os.close(fd)
        raise
    return Attachment(fd)


class Attachment:
    """A connection to a running container. One thread may read while another writes.

    A client that wants output and does not read it holds the container back, and is dropped after five seconds.

    Attributes
    ----------
    exit: how the container ended, once `read` has returned None or `wait` has returned; None where the monitor was
        killed or has dropped this client.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._over = False
        self.exit: AttachedExit | None = None

    def __enter__(self) -> "Attachment":
        """Return the connection."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def fileno(self) -> int:
        """Return the descriptor, which does not block: readable when `read` has something to return."""
        return self._fd

    def read(self, timeout: float | None = None) -> tuple[Stream, bytes] | None:
        """Return the next piece of output, or None at the end; a terminal's is all stdout.

        Raises
        ------
        TimeoutError: there was nothing to read for `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._over:
            message = self._receive(deadline)
            stream = _STREAMS.get(message[:1])
            if stream is not None:
                return stream, message[1:]
            if message[:1] == b"X" and len(message) >= _EXIT.size:
                self.exit = AttachedExit(*_EXIT.unpack_from(message))
                self._over = True
            elif not message:
                self._over = True
        return None

    def _receive(self, deadline: float | None) -> bytes:
        while True:
            try:
                return os.read(self._fd, _LARGEST)
            except BlockingIOError:
                self._wait_for(select.POLLIN, deadline)
            except ConnectionResetError:  # it ended without having read what it was sent; told once
                continue

    def _wait_for(self, event: int, deadline: float | None) -> None:
        poller = select.poll()
        poller.register(self._fd, event)
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if not poller.poll(left):
            raise TimeoutError("the container's monitor has nothing to say")

    def wait(self, timeout: float | None = None) -> AttachedExit | None:
        """Wait for the end, throwing away the output that comes until then; see `exit`.

        By then all output is in the log and the monitor has written how the container ended.

        Raises
        ------
        TimeoutError: the container still runs after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.read(None if deadline is None else max(0.0, deadline - time.monotonic())) is not None:
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError("the container still runs")
        return self.exit

    def write(self, data: bytes | memoryview) -> None:
        """Write to the container's stdin, waiting until the monitor has taken all of it.

        Who writes much to a container that answers must read in another thread meanwhile.

        Raises
        ------
        BrokenPipeError: the container has ended.
        """
        view = memoryview(data)
        while view:
            taken = self.write_now(view)
            if not taken:
                self._wait_for(select.POLLOUT, None)
            view = view[taken:]

    def write_now(self, data: bytes | memoryview) -> int:
        """Write what can be written without waiting, and return how much that was; for an event loop.

        Raises
        ------
        BrokenPipeError: the container has ended.
        """
        piece = bytes(memoryview(data)[:_PIECE])
        try:
            core.send_message(self._fd, b"I" + piece)
        except (BlockingIOError, InterruptedError):
            return 0
        except ConnectionResetError:
            raise BrokenPipeError(errno.EPIPE, "the container has ended") from None
        return len(piece)

    def close_stdin(self) -> None:
        """Close the container's stdin, for everybody. A terminal has no such end: write its end of input, b"\\x04"."""
        self._say(b"C")

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the container's terminal; without one nothing happens."""
        self._say(struct.pack("<cHH", b"W", min(max(rows, 0), 65535), min(max(columns, 0), 65535)))

    def claim(self) -> None:
        """Say that what is due at the end is this process's: the monitor will not start its end command."""
        self._say(b"Q")

    def _say(self, message: bytes) -> None:
        """Send what nothing may get lost of, unless the container has ended."""
        while True:
            try:
                core.send_message(self._fd, message)
                return
            except (BlockingIOError, InterruptedError):
                self._wait_for(select.POLLOUT, None)
            except (BrokenPipeError, ConnectionResetError):
                return

    def close(self) -> None:
        """Let the container go on alone."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
