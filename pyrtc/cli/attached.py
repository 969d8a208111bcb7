"""`pyrtc attach`, and staying with a container that `pyrtc start -a` starts: the user's terminal at its monitor.

The monitor owns the container's streams; leaving it is only closing a connection.
"""

import contextlib
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pyrtc.attaching import END_OF_INPUT, Attachment, connect, input_messages, size_message
from pyrtc.cli.detach_keys import DEFAULT, DetachKeys, detach_keys
from pyrtc.cli.image_command import image_command
from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import Group, Option, parse, render_help
from pyrtc.cli.signals import CONTROL, ENDING, FORWARDED, Interrupted, SignalInbox
from pyrtc.errors import ContainerError, ContainerNotFound, UsageError
from pyrtc.states import is_alive

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

BLOCK = 16384  # bytes read at once of what the user types
# How long the window has another size: what draws on it, such as a shell at its prompt, compares the size that it finds
# after SIGWINCH with the one before, so it must have been scheduled in between.
REDRAW_TIME = 0.1  # seconds


@image_command
def attach(argv: list[str], open_engine: "Callable[[], AbstractContextManager[Engine]] | None" = None) -> int:
    """Run `pyrtc attach`."""
    parsed = parse(argv, ATTACH_OPTIONS, interspersed=True)
    if parsed.flag("--help"):
        print(render_help(USAGE, SUMMARY, ATTACH_OPTIONS, ending=ENDING_TEXT))
        return 0
    if len(parsed.arguments) != 1:
        raise UsageError(f"name one container: {USAGE}")
    keys = parsed.one("--detach-keys", detach_keys, late=True)
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
    options = container.options
    connected: list[Attachment] = []
    with SignalInbox(FORWARDED) as inbox:
        seat = _Seat(container, inbox, terminal=options.tty, keys=keys, sig_proxy=True)
        # Connected before its command is let go, it misses nothing of what that writes.
        container.start(on_created=lambda: connected.append(container.attach()))
        inbox.forward_all()
        # Somebody else may have started it meanwhile.
        attachment = connected[0] if connected else container.attach()
        # What has just started draws by itself, and is to find the right size.
        code = seat.attend(attachment, stdin=interactive and options.interactive, redraw=False)
    if seat.left:
        _tell_left(container)
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
    options = container.options
    # Before it is connected: whoever sees that it is may send a signal to the container at once.
    with SignalInbox(FORWARDED if sig_proxy else CONTROL) as inbox:
        attachment = container.attach()
        inbox.forward_all()
        seat = _Seat(container, inbox, terminal=options.tty, keys=detach_keys, sig_proxy=sig_proxy)
        code = seat.attend(attachment, stdin=stdin and options.interactive)
    if seat.left:
        _tell_left(container)
    if code is None:  # the monitor is gone without a word
        return container.wait().returncode
    return code


def _tell_left(container: "Container") -> None:
    from pyrtc.ended import event_attributes
    from pyrtc.events import emit

    with contextlib.suppress(ContainerNotFound):  # it has ended and gone meanwhile
        emit(container.engine.store, "container", "detach", container.id, event_attributes(container.record))


class _Seat:
    """The user's descriptors on one side, the monitor on the other; neither waits for the other."""

    def __init__(
        self, container: "Container", inbox: SignalInbox, *, terminal: bool, keys: bytes, sig_proxy: bool
    ) -> None:
        self._container = container
        self._inbox = inbox
        self._terminal = terminal
        self._finder = DetachKeys(keys)
        self._sig_proxy = sig_proxy
        self._raw: RawMode | None = None
        self._stdin: int | None = None
        self._to_monitor: deque[bytes] = deque()  # whole messages
        self._to_user: tuple[int, bytes] | None = None
        self._drawn: float | None = None  # when the window gets its own size again, by time.monotonic
        self.left = False

    def attend(self, attachment: Attachment, *, stdin: bool, redraw: bool = True) -> int | None:
        """Return the exit code, 0 when the user left, None when the monitor ended without saying it.

        redraw: make what draws on the terminal do so again, as its screen is not here.
        """
        with contextlib.ExitStack() as stack:
            if self._terminal and stdin and os.isatty(0):
                from pyrtc.cli.terminal import RawMode

                self._raw = stack.enter_context(RawMode(0))
            self._stdin = 0 if stdin else None
            while True:
                with attachment:
                    self._relay(attachment, redraw=redraw)
                if self.left:
                    return 0
                if attachment.exit is not None:
                    return attachment.exit.code
                # It does not wait longer than some seconds for one who does not read.
                again = self._connect_again()
                if again is None:
                    return None
                attachment, redraw = again, True
                print("pyrtc: warning: output was missed, see pyrtc logs", file=sys.stderr, end="\r\n")

    def _connect_again(self) -> Attachment | None:
        """Return another connection, None where the container or its monitor has ended."""
        try:
            record = self._container.record
        except ContainerNotFound:
            return None
        return connect(record, stdin=self._stdin is not None) if is_alive(record) else None

    def _relay(self, attachment: Attachment, *, redraw: bool) -> None:
        """Copy until the end, until the user leaves, or until the monitor hangs up."""
        self._to_monitor.clear()
        self._resize(redraw=redraw)
        try:
            self._copy(attachment)
        finally:
            if self._drawn is not None:  # left before the window had its own size again
                self._resize()
                self._send(attachment)

    def _copy(self, attachment: Attachment) -> None:
        while not self.left:
            ready = self._poll(attachment.fileno())
            if self._drawn is not None and time.monotonic() >= self._drawn:
                self._resize()
            for number in self._inbox.read() if self._inbox.fd in ready else b"":
                self._answer(number)
            if self._to_user is not None and self._to_user[0] in ready:
                self._show()
            if self._stdin is not None and self._stdin in ready:
                self._type()
            self._send(attachment)
            said = ready.get(attachment.fileno(), 0) & ~select.POLLOUT
            if said and self._to_user is None and not self._receive(attachment):
                return

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
        left = None if self._drawn is None else max(0.0, self._drawn - time.monotonic()) * 1000
        return dict(poll.poll(left))

    def _receive(self, attachment: Attachment) -> bool:
        """Take a piece of output; False at the end."""
        with contextlib.suppress(TimeoutError):  # woken for nothing
            piece = attachment.read(0)
            if piece is None:
                return False
            self._to_user = (1 if piece[0] == "stdout" else 2, piece[1])
        return True

    def _send(self, attachment: Attachment) -> None:
        try:
            while self._to_monitor and attachment.send_now(self._to_monitor[0]):
                self._to_monitor.popleft()
        except BrokenPipeError:
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
        if self._drawn is not None:  # what is typed is for a window of its own size
            self._resize()
        if not typed:
            self._stdin = None
            if self._raw is not None:
                self.left = True
            else:
                self._to_monitor.append(END_OF_INPUT)
            return
        if self._raw is not None:
            typed, self.left = self._finder.feed(typed)
        self._to_monitor += input_messages(typed)

    def _answer(self, number: int) -> None:
        if number == signal.SIGWINCH:
            self._resize()
        elif number == signal.SIGTSTP:
            if self._raw is not None:
                self._raw.leave()
            os.kill(os.getpid(), signal.SIGSTOP)
        elif number == signal.SIGCONT:
            if self._raw is not None:
                self._raw.again()
            self._resize(redraw=True)
        elif self._sig_proxy:
            with contextlib.suppress(ContainerError):  # it has ended meanwhile; the monitor is about to say so
                self._container.kill(number)
        elif number in ENDING:
            raise Interrupted(number)

    def _resize(self, *, redraw: bool = False) -> None:
        """Pass the window's size on; one that is another for a moment makes programs draw their screen again."""
        self._drawn = None
        if not self._terminal:
            return
        from pyrtc.cli.terminal import window_size

        size = window_size(1, 0)
        if size is None:
            return
        if redraw:
            self._drawn = time.monotonic() + REDRAW_TIME
        self._to_monitor.append(size_message(size[0] + redraw, size[1] + redraw))
