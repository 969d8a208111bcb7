"""A command under a terminal of its own, as a person has it: send keys, expect output, resize, look at the modes."""

import contextlib
import os
import select
import signal
import subprocess
import termios
import time


class PtySession:
    """Run argv as the foreground job of a new session whose terminal is a pty.

    stdin, stdout: "tty", or a descriptor to use instead of the terminal.
    """

    def __init__(self, argv, *, env=None, rows=24, columns=80, stdin="tty", stdout="tty"):
        self.master, slave = os.openpty()
        self.slave = slave  # kept open: modes can be read after the command has ended
        termios.tcsetwinsize(self.master, (rows, columns))
        self.modes_before = termios.tcgetattr(slave)
        self.output = b""
        self._position = 0
        self.process = subprocess.Popen(
            argv,
            stdin=slave if stdin == "tty" else stdin,
            stdout=slave if stdout == "tty" else stdout,
            stderr=slave,
            env=env,
            start_new_session=True,
            preexec_fn=lambda: _take_terminal(slave),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for fd in (self.master, self.slave):
            with contextlib.suppress(OSError):
                os.close(fd)

    def read(self, timeout):
        """Take what arrives within the time."""
        if not select.select([self.master], [], [], timeout)[0]:
            return False
        try:
            piece = os.read(self.master, 65536)
        except OSError:
            return False
        self.output += piece
        return bool(piece)

    def expect(self, text, timeout=20.0):
        """Wait until text has been printed, after what was expected before."""
        wanted = text.encode()
        deadline = time.monotonic() + timeout
        while True:
            at = self.output.find(wanted, self._position)
            if at >= 0:
                self._position = at + len(wanted)
                return
            left = deadline - time.monotonic()
            if left <= 0 or (not self.read(min(left, 0.2)) and self.process.poll() is not None and not self.read(0)):
                raise AssertionError(f"{text!r} was not printed; this was: {self.output[self._position :]!r}")

    def send(self, text):
        """Type."""
        os.write(self.master, text.encode())

    def resize(self, rows, columns):
        """Change the window; the kernel sends SIGWINCH to the foreground job."""
        termios.tcsetwinsize(self.master, (rows, columns))

    def wait(self, timeout=20.0):
        """Return the exit code, reading all output meanwhile."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            self.read(0.05)
            if time.monotonic() > deadline:
                raise AssertionError(f"it did not end; this was printed: {self.output[self._position :]!r}")
        while self.read(0.05):
            pass
        return self.process.returncode

    def modes(self):
        """The terminal's modes now."""
        return termios.tcgetattr(self.slave)

    def is_raw(self):
        """Say whether keys are passed on as they are typed."""
        return not self.modes()[3] & termios.ICANON

    def wait_until(self, condition, timeout=20.0):
        """Wait for something that does not announce itself."""
        deadline = time.monotonic() + timeout
        while not condition():
            self.read(0.02)
            if time.monotonic() > deadline:
                raise AssertionError(f"it did not happen; this was printed: {self.output!r}")

    def state(self):
        """The state letter of the command's process, T when it is stopped."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]


def _take_terminal(slave):
    import fcntl

    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
