"""`pyrtc run`: a container in the foreground."""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import ArgumentError, Group
from pyrtc.cli.run_options import GROUPS
from pyrtc.cli.run_request import Request, read_request
from pyrtc.errors import PyrtcError, UsageError

if TYPE_CHECKING:
    from pyrtc.container import Completed
    from pyrtc.engine import Engine
    from pyrtc.options import RunOptions

__all__ = ["create", "run"]

NOT_CREATED = 1  # Docker's code of create, unlike that of run, for what is wrong with more than its words
NOT_FOR_CREATE = ("--detach", "--plan", "--sig-proxy", "--trace")

USAGE = "pyrtc run [OPTIONS] IMAGE [COMMAND] [ARGUMENT...]"
SUMMARY = "Run a command in a new container and wait for it."
ENDING = """\
The exit code is the command's own; 128 + n when signal n ended it, 127 when the image has no such program, 126 when it
cannot be executed, 125 when pyrtc itself failed. IMAGE is a name or id of `pyrtc images`, or `host`, this system's own
root as a read-only layer. Options stand before IMAGE; what follows it is the command's.

  pyrtc run --rm -it debian bash
  pyrtc run --rm -v ./data:/data:ro -m 256m --cpus 1 --timeout 30 python:3.12 python /data/job.py"""


def run(argv: list[str], open_engine: "Callable[[], AbstractContextManager[Engine]] | None" = None) -> int:
    """Run `pyrtc run` with these words and return the exit code.

    Parameters
    ----------
    open_engine: what gives the engine; None opens the one on disk.
    """
    request = read_request(argv, os.environ)
    if request is None:
        from pyrtc.cli.option_table import render_help

        print(render_help(USAGE, SUMMARY, GROUPS, ending=ENDING))
        return 0
    options = request.options
    if request.detach and not request.plan:
        return _detached(request, open_engine, start=True)
    if options.restart.name != "no" and not request.plan:
        raise UsageError("--restart is for containers that are detached (-d): whoever waits sees the end of this one")
    if options.health is not None and options.health.test != ("NONE",) and not request.plan:
        raise UsageError("--health-* are for containers that are detached (-d): this one has no monitor to check it")
    if options.tty and options.interactive and not os.isatty(0):
        raise ArgumentError("the input device is not a TTY: leave out -t, or run pyrtc from a terminal")
    with (open_engine or opened_engine)() as engine:
        if request.plan:
            print(engine.plan(request.image, options))
            return 0
        completed = _run(engine, request)
    _explain(completed, options)
    if completed.trace:
        from pyrtc.cli.trace import show_trace

        show_trace(completed.trace)
    return completed.returncode


def create(argv: list[str], open_engine: "Callable[[], AbstractContextManager[Engine]] | None" = None) -> int:
    """Run `pyrtc create`."""
    groups = tuple(
        Group(group.title, tuple(o for o in group.options if o.key not in NOT_FOR_CREATE)) for group in GROUPS
    )
    request = read_request(argv, os.environ, "create", groups)
    if request is None:
        from pyrtc.cli.option_table import render_help

        usage = "pyrtc create [OPTIONS] IMAGE [COMMAND] [ARGUMENT...]"
        print(render_help(usage, "Make a container without starting it, and print its id.", groups))
        return 0
    try:
        return _detached(request, open_engine, start=False)
    except UsageError:
        raise
    except PyrtcError as error:
        error.exit_code = NOT_CREATED
        raise


def _detached(
    request: Request, open_engine: "Callable[[], AbstractContextManager[Engine]] | None", *, start: bool
) -> int:
    from pyrtc.watched import create, run

    with (open_engine or opened_engine)() as engine, _IdFile(request.id_file) as id_file:
        if start:
            made = run(engine, request.image, request.options)
            container_id, warnings = made.id, made.warnings
        else:
            container_id, warnings = create(engine, request.image, request.options), ()
        id_file.write(container_id)
        for warning in warnings:
            print(f"pyrtc: warning: {warning}", file=sys.stderr)
        print(container_id)
    return 0


def _run(engine: "Engine", request: Request) -> "Completed":
    from pyrtc.cli.foreground import Foreground
    from pyrtc.cli.signals import CONTROL, FORWARDED, SignalInbox

    options = request.options
    size = None
    if options.tty:
        from pyrtc.cli.terminal import window_size

        size = window_size(1, 0)
    with (
        _IdFile(request.id_file) as id_file,
        SignalInbox(FORWARDED if request.signal_proxy else CONTROL) as inbox,
        engine.start(request.image, options, stdin=0 if options.interactive else None, terminal_size=size) as running,
    ):
        inbox.forward_all()
        id_file.write(running.id)
        for warning in running.warnings:
            print(f"pyrtc: warning: {warning}", file=sys.stderr)
        foreground = Foreground(running, inbox, forward=request.signal_proxy, stop_timeout=options.stop_timeout)
        foreground.follow(interactive=options.interactive)
        return running.wait()


class _IdFile:
    """The file of --cidfile: made before the container, so that a taken name costs nothing; gone if the start fails."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> "_IdFile":
        if self._path is not None:
            try:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            except FileExistsError:
                raise UsageError(
                    f"container ID file found: make sure the other container is not running, or delete {self._path}"
                ) from None
            except OSError as error:
                raise PyrtcError(f"cannot make the container ID file {self._path}: {error.strerror}") from None
        return self

    def write(self, container_id: str) -> None:
        """Write the id, where there is a file."""
        if self._fd >= 0:
            os.write(self._fd, container_id.encode())
            os.close(self._fd)
            self._fd = -1

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0 and self._path is not None:
            os.close(self._fd)
            os.unlink(self._path)  # noqa: PTH108  (pathlib costs milliseconds to import)


def _explain(completed: "Completed", options: "RunOptions") -> None:
    """Say on standard error why a container was ended by its limits; its exit code alone does not tell."""
    outcome = completed.outcome.name
    if outcome == "TIMEOUT":
        print(f"pyrtc: the container was killed after {options.timeout:g} s (--timeout)", file=sys.stderr)
    elif outcome == "OOM_KILLED":
        memory = options.limits.memory
        limit = f"its limit of {memory / (1 << 20):g} MiB (--memory)" if memory is not None else "the machine's memory"
        print(f"pyrtc: the container was killed because it ran out of memory: {limit}", file=sys.stderr)
