"""An engine whose containers are plain processes of this machine, to test the command line without privilege.

As a program it is `pyrtc run` with this engine: python local_engine.py [OPTIONS] IMAGE COMMAND...
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import termios
import time

from pyrtc.container import Completed, Outcome, Usage
from pyrtc.errors import CommandNotFound


class LocalRunning:
    """A process with the face of pyrtc.container.Running."""

    def __init__(self, options, stdin, stdout, stderr, size):
        self.id = "f" * 64
        self.name = options.name or "local"
        self.warnings = ()
        self.terminal_fd = None
        self.deadline = None if options.timeout is None else time.monotonic() + options.timeout
        self.reason = None
        self.signals = []
        slave = None
        if options.tty:
            self.terminal_fd, slave = os.openpty()
            if size is not None:
                termios.tcsetwinsize(self.terminal_fd, size)
            stdin = stdout = stderr = slave
        elif stdin is None:
            stdin = subprocess.DEVNULL
        try:
            self.process = subprocess.Popen(
                options.command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=_die_with_parent if slave is None else _take_terminal,
            )
        except FileNotFoundError:
            raise CommandNotFound(f"cannot start {options.command[0]}: no such program") from None
        finally:
            if slave is not None:
                os.close(slave)
        self.pidfd = os.pidfd_open(self.process.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.wait()

    def signal(self, number):
        self.signals.append(number)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def kill(self, reason=None):
        self.reason = self.reason or reason
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def remaining_ms(self):
        return None if self.deadline is None else max(0.0, (self.deadline - time.monotonic()) * 1000)

    def wait(self):
        code = self.process.wait()
        for fd in {self.terminal_fd, self.pidfd} - {None}:
            with contextlib.suppress(OSError):
                os.close(fd)
        outcome = Outcome.EXITED if code >= 0 else self.reason or Outcome.SIGNALED
        usage = Usage(0.0, 0.0, 0.0, 0.0, 0, None, 0, 0)
        return Completed(
            id=self.id,
            args=tuple(self.process.args),
            returncode=code if code >= 0 else 128 - code,
            outcome=outcome,
            usage=usage,
            signal=-code if code < 0 else None,
        )


class LocalEngine:
    """The part of pyrtc.engine.Engine that `pyrtc run` uses."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def start(self, image, options, *, stdin=None, stdout=1, stderr=2, terminal_size=None):
        return LocalRunning(options, stdin, stdout, stderr, terminal_size)

    def plan(self, image, options):
        return f"plan of {image}"


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a container goes with who runs it


def _take_terminal():
    _die_with_parent()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


if __name__ == "__main__":
    from pyrtc.cli import main, run

    run.opened_engine = LocalEngine
    sys.exit(main.main(["run", *sys.argv[1:]]))
