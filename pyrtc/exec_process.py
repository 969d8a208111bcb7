"""One command that executes in a container, as a caller sees it, and its streams."""

import io
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import IO

from pyrtc import core
from pyrtc.capture import Conversation, Pipes
from pyrtc.container import Completed, Outcome, Usage
from pyrtc.errors import ContainerError, UsageError
from pyrtc.runtime.cgroups import Cgroup
from pyrtc.runtime.helper import release
from pyrtc.runtime.start import Started

__all__ = ["ExecProcess", "Streams", "terminal_pipes"]

PIPE, STDOUT, DEVNULL = -1, -2, -3  # as in subprocess
_READ = select.POLLIN
_PATIENCE = 5.0  # seconds for what was killed to be gone


class ExecProcess:
    """A command that executes in a container; made by `Container.popen`.

    Like a `subprocess.Popen` it has streams, is waited for and signalled. Leaving a `with` block closes the streams and
    waits for the command; an exception in the block kills it first. It is killed with all that it started when this
    program dies, however it dies.

    Attributes
    ----------
    args: the command. pid: its process, as this machine numbers it. returncode: its exit code, 128 + n where signal n
        killed it, None while it runs.
    stdin, stdout, stderr: binary file objects where pipes were asked for, else None. With a terminal stdin and stdout
        are its two directions.
    pidfd: readable when it has ended, -1 afterwards. terminal_fd: the master of its terminal, or None.
    """

    def __init__(
        self,
        *,
        container_id: str,
        args: tuple[str, ...],
        started: Started,
        deadline: float | None,
        group: Cgroup | None,
        held: ExitStack,
        out_of_memory: Callable[[], bool] | None,
        on_end: Callable[[int], None] | None = None,
    ) -> None:
        self.container_id = container_id
        self.args = args
        self.pid = started.pid
        self.pidfd = started.pidfd
        self.terminal_fd = started.terminal_fd
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self.stderr: IO[bytes] | None = None
        self.deadline = deadline
        self._started = time.monotonic()
        self._group = group
        self._held = held
        self._out_of_memory = out_of_memory
        self._on_end = on_end
        self._reason: Outcome | None = None
        self._completed: Completed | None = None
        self._conversation: Conversation | None = None
        self._killed = False
        self._exit: core.Exit | None = None  # reaped
        self._ended = 0.0
        self._lock = threading.RLock()
        self._maker = os.getpid()

    # ---- what users call -----------------------------------------------------------------------------------------

    @property
    def returncode(self) -> int | None:
        """Its exit code as far as `poll` or `wait` has seen it."""
        return None if self._completed is None else self._completed.returncode

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""
        with self._lock:
            if self._completed is None and _is_readable(self.pidfd, 0):
                self.finish()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code. Nobody reads its pipes meanwhile.

        Raises
        ------
        TimeoutError: it still runs after `timeout` seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while self._completed is None:
            times = [at for at in (until, self.deadline) if at is not None]
            at = min(times, default=None)
            if _is_readable(self.pidfd, None if at is None else max(0.0, (at - time.monotonic()) * 1000)):
                with self._lock:
                    if self._completed is None:
                        self.finish()
                break
            if self.deadline is not None and at == self.deadline:
                self.kill(Outcome.TIMEOUT)
                self.deadline = None
            elif self._completed is None:
                raise TimeoutError(f"{' '.join(self.args)!r} still runs after {timeout:g} s")
        assert self._completed is not None
        return self._completed.returncode

    def communicate(
        self, input: bytes | None = None, timeout: float | None = None
    ) -> tuple[bytes | None, bytes | None]:
        """Write input to its standard input and close that, read what it writes, and wait for its end.

        Returns
        -------
        What it wrote to stdout and to stderr, all in memory; None for what is no pipe.

        Raises
        ------
        TimeoutError: it still runs after `timeout` seconds. It goes on, and nothing is lost: call this again, without
            input. UsageError: input, though its standard input is no pipe, or with a second call.
        """
        until = None if timeout is None else time.monotonic() + timeout
        if input and (self._conversation is not None or self.stdin is None):
            raise UsageError("there is input, but standard input is no pipe, or this is the second call")
        if self._conversation is None:
            self._conversation = Conversation(self.stdin, self.stdout, self.stderr, input)
        if not self._conversation.go_on(until):
            raise TimeoutError(f"{' '.join(self.args)!r} still runs after {timeout:g} s")
        self.wait(None if until is None else max(0.0, until - time.monotonic()))
        return self._conversation.output()

    def send_signal(self, number: int) -> None:
        """Send a signal to the command. One that has ended is not an error."""
        with self._lock, suppress(ProcessLookupError):
            if self.pidfd >= 0:
                signal.pidfd_send_signal(self.pidfd, number)

    signal = send_signal

    def terminate(self) -> None:
        """Ask it to end: SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self, reason: Outcome | None = None) -> None:
        """Kill it and what it started; reason becomes its outcome.

        What it started is found by its control group. Where there is none to be had (an ordinary user without a
        delegated one), it is its process group, which a program can leave.
        """
        with self._lock:
            if self._exit is not None or self.pidfd < 0:
                return
            if self._reason is None:
                self._reason = reason
            self._killed = True
            if self._group is not None:
                with suppress(ContainerError):  # the whole container is gone
                    self._group.kill()
            # Its number cannot be another's before it is reaped.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal.

        Raises
        ------
        UsageError: it has none.
        """
        import termios

        if self.terminal_fd is None:
            raise UsageError("the command has no terminal: it takes tty=True")
        termios.tcsetwinsize(self.terminal_fd, (rows, columns))

    def __iter__(self) -> Iterator[bytes]:
        """Yield the lines of its standard output, with their ends."""
        if self.stdout is None:
            raise UsageError("the command's output is not a pipe: there are no lines to read")
        return iter(self.stdout)

    def __enter__(self) -> "ExecProcess":
        """Return it."""
        return self

    def __exit__(self, kind: object, *_exception: object) -> None:
        """Close its streams and wait for its end, killing it if something went wrong."""
        if os.getpid() != self._maker:
            return
        if kind is not None:
            self.kill()
        self._close_streams()
        self.wait()

    def close(self) -> None:
        """Kill it with what it started, if it still runs, and close its streams. In a forked child: do nothing."""
        if os.getpid() != self._maker:
            return
        self._close_streams()
        if self._completed is None and self.pidfd >= 0:
            self.kill()
            self.wait()
        self._end()

    def __del__(self) -> None:
        """Let one that runs run on, as subprocess does."""
        if getattr(self, "pidfd", -1) < 0 or os.getpid() != self._maker:
            return
        if self._exit is None:
            with suppress(RuntimeError):  # the interpreter ends, and with it the command
                self.reap_at_its_end()
        else:
            self._end()

    def reap_at_its_end(self) -> None:
        """Have it reaped when it ends, though nobody may be waiting for it then."""
        from pyrtc.exec_reaper import watch

        watch(self.pidfd, self._reap_unless_done)

    def _reap_unless_done(self) -> None:
        with self._lock, suppress(ContainerError):  # whoever waits is told that somebody else reaped it
            if self.pidfd >= 0:
                self._reap()

    def _reap(self) -> core.Exit:
        """Reap it, after its end, once."""
        if self._exit is None:
            end = core.reap(self.pidfd)
            assert end is not None
            self._exit, self._ended = end, time.monotonic()
            if self._on_end is not None:
                self._on_end(128 + end.status if end.signaled else end.status)
        return self._exit

    # ---- for whoever moves its bytes -----------------------------------------------------------------------------

    def remaining_ms(self) -> float | None:
        """Milliseconds until the timeout, for poll(2); None without one."""
        return None if self.deadline is None else max(0.0, (self.deadline - time.monotonic()) * 1000)

    def finish(self, stdout: bytes = b"", stderr: bytes = b"", *, truncated: bool = False) -> Completed:
        """Reap it, after its end, and gather outcome and usage.

        Raises
        ------
        ContainerError: somebody else reaped it, and this kernel does not tell any more how it ended.
        """
        with self._lock:
            try:
                self._completed = self._gather(stdout, stderr, truncated)
            finally:
                self._end()
            return self._completed

    @property
    def completed(self) -> Completed | None:
        """How it ended, None while it runs or nobody has waited for it."""
        return self._completed

    def open_terminal(self) -> None:
        """Make file objects of its terminal."""
        assert self.terminal_fd is not None
        self.stdin = io.FileIO(os.dup(self.terminal_fd), "wb")
        self.stdout = io.BufferedReader(_TerminalReader(os.dup(self.terminal_fd), "rb"))

    def _gather(self, stdout: bytes, stderr: bytes, truncated: bool) -> Completed:
        end = self._reap()
        if self._killed and self._group is not None:
            self._group.wait_empty(_PATIENCE)
        wall = self._ended - self._started
        outcome = Outcome.SIGNALED if end.signaled else Outcome.EXITED
        if self._reason is not None and end.signaled:
            outcome = self._reason
        elif end.signaled and end.status == signal.SIGKILL and self._out_of_memory is not None:
            outcome = Outcome.OOM_KILLED if self._out_of_memory() else outcome
        user, system = end.user_us / 1e6, end.system_us / 1e6
        counted = None if self._group is None else self._group.cpu_seconds
        return Completed(
            id=self.container_id,
            args=self.args,
            returncode=128 + end.status if end.signaled else end.status,
            outcome=outcome,
            usage=Usage(
                wall,
                max(user + system, counted or 0.0),
                user,
                system,
                read_bytes=end.read_bytes,
                written_bytes=end.written_bytes,
            ),
            stdout=stdout,
            stderr=stderr,
            truncated=truncated,
            signal=end.status if end.signaled else None,
        )

    def _close_streams(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with suppress(OSError):  # what was not written yet has nobody to read it
                    stream.close()

    def _end(self) -> None:
        """Release what it held; may be repeated."""
        with self._lock:
            pidfd, self.pidfd = self.pidfd, -1
            if pidfd >= 0:
                release(pidfd)
                os.close(pidfd)
            terminal_fd, self.terminal_fd = self.terminal_fd, None
            if terminal_fd is not None:
                os.close(terminal_fd)
            self._held.close()


def _is_readable(fd: int, timeout_ms: float | None) -> bool:
    if fd < 0:
        return True
    poller = select.poll()
    poller.register(fd, _READ)
    return bool(core.poll(poller, timeout_ms))


class _TerminalReader(io.FileIO):
    """The master of a terminal: when nobody holds the other end any more, that is the end of the file."""

    def readinto(self, buffer: "bytearray | memoryview", /) -> int | None:  # type: ignore[override]
        try:
            return super().readinto(buffer)
        except OSError:
            return 0

    def readall(self) -> bytes:
        pieces = []
        while piece := self.read(1 << 16):
            pieces.append(piece)
        return b"".join(pieces)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return self.readall()
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(buffer) or 0])


def terminal_pipes(terminal_fd: int, *, feed: bool) -> Pipes:
    """Return the two directions of a terminal's master as pipes are for a capture."""
    pipes = Pipes()
    try:
        os.set_blocking(terminal_fd, False)
        pipes.ours["stdout"] = os.dup(terminal_fd)
        if feed:
            pipes.ours["stdin"] = os.dup(terminal_fd)
    except BaseException:
        pipes.close()
        raise
    return pipes


class Streams:
    """The three streams of a command as `Container.popen` is asked for them; closed unless they are taken."""

    def __init__(
        self, stdin: int | IO[bytes] | None, stdout: int | IO[bytes] | None, stderr: int | IO[bytes] | None
    ) -> None:
        self._owned: list[int] = []
        self._ours: list[int | None] = []
        self.theirs: list[int] = []
        try:
            for number, wanted in enumerate((stdin, stdout, stderr)):
                self._open(number, wanted)
        except BaseException:
            self.close()
            raise

    def _open(self, number: int, wanted: int | IO[bytes] | None) -> None:
        ours, theirs = None, -1
        if wanted is None or wanted == DEVNULL:
            theirs = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            self._owned.append(theirs)
        elif wanted == PIPE:
            ends = os.pipe2(os.O_CLOEXEC)
            self._owned += ends
            theirs, ours = ends if number == 0 else ends[::-1]
        elif wanted == STDOUT and number == 2:
            theirs = self.theirs[1]
        elif isinstance(wanted, int):
            if wanted < 0:
                raise UsageError(f"{wanted}: a stream is subprocess.PIPE, DEVNULL, a descriptor or a file")
            theirs = wanted
        else:
            theirs = wanted.fileno()
        self._ours.append(ours)
        self.theirs.append(theirs)

    def take(self) -> tuple[IO[bytes] | None, IO[bytes] | None, IO[bytes] | None]:
        """Return the caller's ends as file objects, which are its to close."""
        files: list[IO[bytes] | None] = []
        for number, fd in enumerate(self._ours):
            if fd is None:
                files.append(None)
                continue
            files.append(io.BufferedWriter(io.FileIO(fd, "wb")) if number == 0 else io.BufferedReader(io.FileIO(fd)))
            self._owned.remove(fd)
        return files[0], files[1], files[2]

    def close(self) -> None:
        """Close what was not taken."""
        while self._owned:
            os.close(self._owned.pop())
