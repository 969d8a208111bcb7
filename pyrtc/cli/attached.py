"""`pyrtc attach`, and staying with a container that `pyrtc start -a` starts: the user's terminal at its monitor.

The monitor owns the container's streams (protocol: csrc/monitor.h); leaving it is only closing a socket.
"""

import contextlib
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pyrtc.cli.detach_keys import DEFAULT, DetachKeys, detach_keys
from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import Group, Option, parse, render_help
from pyrtc.cli.signals import CONTROL, ENDING, FORWARDED, Interrupted, SignalInbox
from pyrtc.errors import ContainerError, UsageError

if TYPE_CHECKING:
    from pyrtc.cli.terminal import RawMode
    from pyrtc.engine import Engine
    from pyrtc.live import Container

__all__ = ["ATTACH_OPTIONS", "attach", "attach_to", "start_attached"]

USAGE = "pyrtc attach [OPTIONS] CONTAINER"
SUMMARY = "Show what a running container writes from now on, and pass it what you type."
ATTACH_OPTIONS = (
    Group(
        "Options",
        (
            Option("--no-stdin", "", "only look on"),
            Option("--sig-proxy", "", "pass signals on, the default; with =false they only end pyrtc attach"),
            Option("--detach-keys", "KEYS", f"what to type to leave it running; default: {DEFAULT}"),
            Option("--help", "", "print this"),
        ),
    ),
)
ENDING_TEXT = """\
The exit code is the container's when it ends, 0 when you leave it with the detach keys. These work where the
container has a terminal (-t) and you sit at one. What it wrote before: pyrtc logs."""

OUTPUT, INPUT = 1, 2  # flags of the first message
LARGEST = 32768
BLOCK = 16384
EXIT = struct.Struct("<xii")


def attach(argv: list[str], open_engine: "Callable[[], AbstractContextManager[Engine]] | None" = None) -> int:
    """Run `pyrtc attach`."""
    parsed = parse(argv, ATTACH_OPTIONS, interspersed=True)
    if parsed.flag("--help"):
        print(render_help(USAGE, SUMMARY, ATTACH_OPTIONS, ending=ENDING_TEXT))
        return 0
    if len(parsed.arguments) != 1:
        raise UsageError(f"name one container: {USAGE}")
    keys = parsed.one("--detach-keys", detach_keys)
    with (open_engine or opened_engine)() as engine:
        engine.containers.reap()
        return attach_to(
            engine.containers.get(parsed.arguments[0]),
            stdin=not parsed.flag("--no-stdin"),
            detach_keys=detach_keys(DEFAULT) if keys is None else keys,
            sig_proxy=parsed.flag("--sig-proxy", default=True),
        )


def start_attached(container: "Container", *, interactive: bool, detach_keys: str | None) -> int:
    """Start a container that does not run, and stay with it; return its exit code, 0 when the user left it."""
    keys = _keys(detach_keys)
    if container.status in ("running", "paused", "restarting"):
        return attach_to(container, stdin=interactive, detach_keys=keys)
    options, directory = container.options, container.record.directory
    assert directory is not None  # else it has no options
    with SignalInbox(FORWARDED) as inbox:
        seat = _Seat(container, inbox, terminal=options.tty, keys=keys, sig_proxy=True)
        # Connected before its command is let go, it misses nothing of what that writes.
        stdin = interactive and options.interactive
        container.start(on_created=lambda: seat.connect_early(directory, stdin=stdin))
        inbox.forward_all()
        code = seat.attend(directory, stdin=stdin)
    return container.wait().returncode if code is None else code


def _keys(word: str | None) -> bytes:
    try:
        return detach_keys(DEFAULT if word is None else word)
    except UsageError as error:
        raise UsageError(f'invalid value "{word}" for --detach-keys: {error}') from None


def attach_to(container: "Container", *, stdin: bool, detach_keys: bytes, sig_proxy: bool = True) -> int:
    """Stay with a running container until it ends or the user leaves it; return its exit code, or 0.

    Parameters
    ----------
    stdin: pass on what comes from standard input, where the container was made to take it (-i).
    detach_keys: what `pyrtc.cli.detach_keys.detach_keys` returned.
    sig_proxy: signals go to the container; otherwise those that end a program end only this one.

    Raises
    ------
    ContainerError: it does not run, or has no monitor: it is in the foreground of another program.
    """
    status = container.status
    if status in ("paused", "restarting"):
        first = "unpause it first" if status == "paused" else "wait until it is running"
        raise ContainerError(f"You cannot attach to a {status} container, {first}")
    if status != "running":
        raise ContainerError("You cannot attach to a stopped container, start it first")
    directory = container.record.directory
    if directory is None or not container.record.monitor_pid:
        raise ContainerError(f"container {container.name} runs in the foreground of another program, which has it")
    options = container.options
    with SignalInbox(FORWARDED if sig_proxy else CONTROL) as inbox:
        inbox.forward_all()
        seat = _Seat(container, inbox, terminal=options.tty, keys=detach_keys, sig_proxy=sig_proxy)
        code = seat.attend(directory, stdin=stdin and options.interactive)
    if code is None:  # the monitor is gone without a word
        return container.wait().returncode
    return code


def connect(directory: str) -> socket.socket | None:
    """Connect to the monitor of the container whose directory this is; None where it has gone."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        # A socket's address holds 108 bytes, a store's path may be longer.
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{fd}/attach")
        finally:
            os.close(fd)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise ContainerError(f"cannot reach the container's monitor: {error.strerror}") from None
    return connection


class _Seat:
    """The user's descriptors on one side, the monitor's socket on the other; neither waits for the other."""

    def __init__(
        self, container: "Container", inbox: SignalInbox, *, terminal: bool, keys: bytes, sig_proxy: bool
    ) -> None:
        self._container = container
        self._inbox = inbox
        self._terminal = terminal
        self._finder = DetachKeys(keys)
        self._sig_proxy = sig_proxy
        self._socket: socket.socket | None = None
        self._early: socket.socket | None = None
        self._raw: RawMode | None = None
        self._stdin: int | None = None
        self._to_monitor: list[bytes] = []  # whole messages
        self._to_user: tuple[int, bytes] | None = None
        self._code: int | None = None
        self._left = False

    def attend(self, directory: str, *, stdin: bool) -> int | None:
        """Return the exit code, 0 when the user left, None when the monitor ended without saying it."""
        with contextlib.ExitStack() as stack:
            if self._terminal and stdin and os.isatty(0):
                from pyrtc.cli.terminal import RawMode

                self._raw = stack.enter_context(RawMode(0))
            self._stdin = 0 if stdin else None
            missed = False
            while self._enter(directory, stack, stdin=stdin):
                if missed:
                    print("pyrtc: warning: output was missed, see pyrtc logs", file=sys.stderr, end="\r\n")
                if self._relay():
                    return 0 if self._left else self._code
                missed = True  # it does not wait longer than some seconds for one who does not read
            return None

    def connect_early(self, directory: str, *, stdin: bool) -> None:
        """Connect to a monitor whose container is about to run, for `attend`, and ask for all that it writes."""
        self._early = connect(directory)
        if self._early is not None:
            self._early.send(self._hello(stdin=stdin))

    @staticmethod
    def _hello(*, stdin: bool) -> bytes:
        return b"A" + bytes([OUTPUT | (INPUT if stdin else 0)])

    def _enter(self, directory: str, stack: contextlib.ExitStack, *, stdin: bool) -> bool:
        connection, self._early = self._early, None
        self._to_monitor = [] if connection is not None else [self._hello(stdin=stdin)]
        if connection is None:
            if self._container.status not in ("running", "paused"):
                return False
            connection = connect(directory)
        if connection is None:
            return False
        stack.callback(connection.close)
        connection.setblocking(False)
        self._socket = connection
        if self._terminal:
            self._resize(redraw=True)
        return True

    def _relay(self) -> bool:
        """Copy until the end; False when the monitor hung up without a word."""
        assert self._socket is not None
        while True:
            ready = self._poll(self._socket.fileno())
            for number in self._inbox.read() if self._inbox.fd in ready else b"":
                self._answer(number)
            if self._to_user is not None and self._to_user[0] in ready:
                self._show()
            if self._stdin is not None and self._stdin in ready:
                self._type()
            if self._left:
                return True
            events = ready.get(self._socket.fileno(), 0)
            self._send()
            if self._to_user is None and events & ~select.POLLOUT:
                message = self._receive()
                if message is None:
                    continue
                if not message:
                    return False
                if message[:1] == b"X" and len(message) >= EXIT.size:
                    code, number = EXIT.unpack_from(message)
                    self._code = 128 + number if number else code
                    return True
                if message[:1] in (b"O", b"E"):
                    self._to_user = (1 if message[:1] == b"O" else 2, message[1:])

    def _poll(self, monitor: int) -> dict[int, int]:
        poll = select.poll()
        poll.register(self._inbox.fd, select.POLLIN)
        events = (select.POLLIN if self._to_user is None else 0) | (select.POLLOUT if self._to_monitor else 0)
        if events:
            poll.register(monitor, events)
        if self._to_user is not None:
            poll.register(self._to_user[0], select.POLLOUT)
        if self._stdin is not None and not self._to_monitor:
            poll.register(self._stdin, select.POLLIN)
        return dict(poll.poll())

    def _receive(self) -> bytes | None:
        assert self._socket is not None
        try:
            return self._socket.recv(LARGEST)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return b""

    def _send(self) -> None:
        assert self._socket is not None
        try:
            while self._to_monitor:
                self._socket.send(self._to_monitor[0])
                del self._to_monitor[0]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            # What it said before it went is still to be read.
            self._to_monitor.clear()
            self._stdin = None

    def _show(self) -> None:
        assert self._to_user is not None
        fd, data = self._to_user
        try:
            # A pipe or terminal that poll(2) calls writable takes a page without blocking.
            data = data[os.write(fd, data[:4096]) :]
        except BlockingIOError:
            return
        self._to_user = (fd, data) if data else None

    def _type(self) -> None:
        try:
            typed = os.read(0, BLOCK)
        except BlockingIOError:
            return
        except OSError:  # the terminal has gone
            typed = b""
        if not typed:
            self._stdin = None
            if self._raw is not None:
                self._left = True
            else:
                self._to_monitor.append(b"C")
            return
        if self._raw is not None:
            typed, self._left = self._finder.feed(typed)
        if typed:
            self._to_monitor.append(b"I" + typed)
            if self._left:
                self._send()

    def _answer(self, number: int) -> None:
        if number == signal.SIGWINCH:
            if self._terminal:
                self._resize()
        elif number == signal.SIGTSTP:
            if self._raw is not None:
                self._raw.leave()
            os.kill(os.getpid(), signal.SIGSTOP)
        elif number == signal.SIGCONT:
            if self._raw is not None:
                self._raw.again()
            if self._terminal:
                self._resize(redraw=True)
        elif self._sig_proxy:
            with contextlib.suppress(ContainerError):  # it has ended meanwhile; the monitor is about to say so
                self._container.kill(number)
        elif number in ENDING:
            raise Interrupted(number)

    def _resize(self, *, redraw: bool = False) -> None:
        """Pass the window's size on; one that is another for a moment makes programs draw their screen again."""
        from pyrtc.cli.terminal import window_size

        size = window_size(1, 0)
        if size is not None:
            self._to_monitor += [_size(size[0] + 1, size[1] + 1)] if redraw else []
            self._to_monitor.append(_size(*size))


def _size(rows: int, columns: int) -> bytes:
    return struct.pack("<cHH", b"W", min(rows, 65535), min(columns, 65535))
