"""Hearing from the monitor of a container how it ends, without its output; the protocol is csrc/monitor.h's."""

import os
import select
import socket
import struct
import time

from pyrtc.errors import ContainerError

__all__ = ["ExitWatch", "watch_exit"]

_EXIT = struct.Struct("<xii")
_LARGEST = 32768


class ExitWatch:
    """A connection to a monitor; `close` it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """Return its descriptor, which is readable when there may be something to hear."""
        return self._connection.fileno()

    def wait(self, timeout: float | None = None) -> tuple[int, int] | None:
        """Return exit code and signal (0 for none) of process 1, None where the monitor was killed before it told.

        By then all output is in the log and the monitor has written how it ended.

        Raises
        ------
        TimeoutError: the container still runs after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        poller = select.poll()
        poller.register(self._connection, select.POLLIN)
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            if not poller.poll(left):
                raise TimeoutError("the container still runs")
            try:
                message = self._connection.recv(_LARGEST)
            except ConnectionResetError:
                return None
            if not message:
                return None
            if message[:1] == b"X" and len(message) >= _EXIT.size:
                code, signal = _EXIT.unpack_from(message)
                return code, signal

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def watch_exit(directory: str, *, claim: bool = False) -> ExitWatch | None:
    """Connect to the monitor of the container whose directory this is; None where there is none any more.

    Parameters
    ----------
    claim: say that the caller does what is due at the end, so that the monitor does not.

    Raises
    ------
    ContainerError: it cannot be connected to.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        # A socket's address holds 108 bytes, a store's path may be longer.
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{fd}/attach")
        finally:
            os.close(fd)
        connection.send(b"A\0")
        if claim:
            connection.send(b"Q")
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise ContainerError(f"cannot reach the monitor of the container in {directory}: {error.strerror}") from error
    return ExitWatch(connection)
