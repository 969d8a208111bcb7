"""The client of a container's monitor: its output as it comes, its input, how it ends (protocol: csrc/monitor.h)."""

import errno
import os
import select
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Literal

from pyrtc import core
from pyrtc.errors import ContainerError, UsageError
from pyrtc.values import dataclass

__all__ = ["END_OF_INPUT", "AttachedExit", "Attachment", "attach", "claim_end", "input_messages", "size_message"]

Stream = Literal["stdout", "stderr"]

_NAME = "attach"
_LARGEST = 32768
_PIECE = 16383  # of input; with its kind four pages of the monitor's
_EXIT = struct.Struct("<xii")
_STREAMS: dict[bytes, Stream] = {b"O": "stdout", b"E": "stderr"}
_OUTPUT, _INPUT, _INPUT_ONCE = 1, 2, 4
END_OF_INPUT = b"C"


def input_messages(data: bytes | memoryview) -> Iterator[bytes]:
    """Yield the messages that carry what is written to a container's stdin."""
    view = memoryview(data)
    for at in range(0, len(view), _PIECE):
        yield b"I" + bytes(view[at : at + _PIECE])


def size_message(rows: int, columns: int) -> bytes:
    """Return the message that sets the size of a container's terminal."""
    return struct.pack("<cHH", b"W", min(max(rows, 0), 65535), min(max(columns, 0), 65535))


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
    return Attachment(fd, writable=stdin)


class Attachment:
    """A connection to a running container; made by `Container.attach`. One thread may read while another writes.

    >>> with container.attach() as attachment:
    ...     attachment.write(b"status\\n")
    ...     for stream, data in attachment:
    ...         print(stream, data)
    ...     print(attachment.exit)

    Leaving the `with` block, or closing it, lets the container go on alone. A client that wants output and does not
    read it holds the container back, and is dropped after five seconds.

    Attributes
    ----------
    exit: how the container ended, once there is no more to read; None where nobody told: its monitor was killed, or has
        dropped this client, whose container runs on then.
    """

    def __init__(self, fd: int, *, writable: bool) -> None:
        self._fd = fd
        self._writable = writable
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

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._fd < 0

    def __iter__(self) -> Iterator[tuple[Stream, bytes]]:
        """Yield what `read` returns, to the end."""
        while (piece := self.read()) is not None:
            yield piece

    def fileno(self) -> int:
        """Return the descriptor, which does not block: readable when `read` has something to return.

        Raises
        ------
        ValueError: it is closed.
        """
        if self._fd < 0:
            raise ValueError("the attachment is closed")
        return self._fd

    def read(self, timeout: float | None = None) -> tuple[Stream, bytes] | None:
        """Return the next piece of output and its stream, or None at the end; a terminal's is all stdout.

        Parameters
        ----------
        timeout: seconds to wait for one; 0 does not wait.

        Raises
        ------
        TimeoutError: there was nothing to read for so long. ValueError: it is closed.
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
                return os.read(self.fileno(), _LARGEST)
            except BlockingIOError:
                self._wait_for(select.POLLIN, deadline)
            except ConnectionResetError:  # it ended without having read what it was sent; told once
                continue

    def _wait_for(self, event: int, deadline: float | None) -> None:
        poller = select.poll()
        poller.register(self.fileno(), event)
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if not core.poll(poller, left):
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
        """Write to the container's stdin, waiting until its monitor has taken all of it.

        Who writes much to a container that answers must read in another thread meanwhile.

        Raises
        ------
        BrokenPipeError: the container has ended. UsageError: it takes no input: it was made without interactive=True.
        """
        self.check_writable()
        for message in input_messages(data):
            self._send(message)

    def close_stdin(self) -> None:
        """Close the container's stdin, for everybody. A terminal has no such end: write its end of input, b"\\x04".

        Raises
        ------
        UsageError: as for `write`.
        """
        self.check_writable()
        with suppress(BrokenPipeError):  # the container has ended, and its stdin with it
            self._send(END_OF_INPUT)

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the container's terminal; without one nothing happens."""
        with suppress(BrokenPipeError):
            self._send(size_message(rows, columns))

    def check_writable(self) -> None:
        """Raise UsageError where the container takes no input: its monitor would hang up."""
        if not self._writable:
            raise UsageError("the container takes no input: it was made without interactive=True")

    def _send(self, message: bytes) -> None:
        while not self.send_now(message):
            self._wait_for(select.POLLOUT, None)

    def send_now(self, message: bytes) -> bool:
        """Send one of this module's messages; False where that takes waiting. For event loops.

        Raises
        ------
        BrokenPipeError: the container has ended. ValueError: it is closed.
        """
        try:
            core.send_message(self.fileno(), message)
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionResetError:
            raise BrokenPipeError(errno.EPIPE, "the container has ended") from None
        return True

    def close(self) -> None:
        """Let the container go on alone."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        """Close it, if nobody has."""
        self.close()


def claim_end(attachment: Attachment) -> None:
    """Tell the monitor that what is due at the end is this process's: it will not start its end command."""
    with suppress(BrokenPipeError):  # it is over: whoever holds the container's lock sees what was done
        attachment._send(b"Q")
