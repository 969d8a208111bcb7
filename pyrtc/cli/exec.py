"""`pyrtc exec`: one more command in a container that runs."""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pyrtc.cli.environment import variable, variable_file
from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import ArgumentError, Group, Option, Parsed, parse, render_help
from pyrtc.errors import ContainerError
from pyrtc.options import ExecOptions

if TYPE_CHECKING:
    from pyrtc.engine import Engine
    from pyrtc.exec import Executor

__all__ = ["exec_"]

GROUPS = (
    Group(
        "Options",
        (
            Option("-i, --interactive", "", "pass standard input on; without it the command reads /dev/null"),
            Option("-t, --tty", "", "give the command a terminal"),
            Option("-d, --detach", "", "return as soon as the command executes; its output goes nowhere"),
            Option("-e, --env", "VAR[=VALUE]", "set a variable; without =VALUE pass your own on", repeat=True),
            Option("--env-file", "FILE", "set the variables of a file, one a line, # starts a comment", repeat=True),
            Option("-u, --user", "USER[:GROUP]", "run as this user, by name or number; default: the container's"),
            Option("-w, --workdir", "DIR", "start in DIR; default: the container's"),
            Option("--privileged", "", "give the command every capability that the container's user namespace has"),
            Option("--help", "", "print this"),
        ),
    ),
)
USAGE = "pyrtc exec [OPTIONS] CONTAINER COMMAND [ARGUMENT...]"
SUMMARY = "Execute a command in a running container."
ENDING = """\
The exit code is the command's own; 128 + n when signal n ended it, 127 when the container has no such program, 126 when
it cannot be executed, 1 when the container does not run, 125 when pyrtc itself failed. The command dies with pyrtc,
unless it is detached."""
NOT_RUNNING = 1  # Docker's code for that
UNAVAILABLE = {"--detach-keys": "a command that was begun with a terminal ends with it; -d begins one that stays"}


def exec_(argv: list[str], open_engine: "Callable[[], AbstractContextManager[Engine]] | None" = None) -> int:
    """Run `pyrtc exec` with these words and return the exit code."""
    parsed = parse(argv, GROUPS, unavailable=UNAVAILABLE)
    if parsed.flag("--help"):
        print(render_help(USAGE, SUMMARY, GROUPS, ending=ENDING))
        return 0
    if len(parsed.arguments) < 2:
        raise ArgumentError(f"the {'command' if parsed.arguments else 'container'} is missing: {USAGE}")
    name, *command = parsed.arguments
    asked = _options(parsed, tuple(command), os.environ)
    interactive = parsed.flag("--interactive")
    if asked.tty and interactive and not asked.detached and not os.isatty(0):
        raise ArgumentError("the input device is not a TTY: leave out -t, or run pyrtc from a terminal")
    try:
        with (open_engine or opened_engine)() as engine:
            from pyrtc.exec import executor_of

            executor = executor_of(engine.containers.get(name))
            if asked.detached:
                executor.spawn(asked)
                return 0
            return _attend(executor, asked, interactive=interactive)
    except ContainerError as error:  # it is missing, does not run, or is paused
        error.exit_code = NOT_RUNNING
        raise


def _options(parsed: Parsed, command: tuple[str, ...], host: Mapping[str, str]) -> ExecOptions:
    variables = [
        *(pair for file in parsed.all("--env-file", lambda path: variable_file(path, host)) for pair in file),
        *(pair for pair in parsed.all("--env", lambda word: variable(word, host)) if pair is not None),
    ]
    return ExecOptions(
        command=command,
        env=tuple(dict(variables).items()),
        workdir=parsed.word("--workdir") or None,
        user=parsed.word("--user") or None,
        privileged=parsed.flag("--privileged"),
        tty=parsed.flag("--tty"),
        detached=parsed.flag("--detach"),
    )


def _attend(executor: "Executor", asked: ExecOptions, *, interactive: bool) -> int:
    from pyrtc.cli.foreground import Foreground
    from pyrtc.cli.signals import FORWARDED, SignalInbox
    from pyrtc.cli.terminal import window_size

    size = window_size(1, 0) if asked.tty else None
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with SignalInbox(FORWARDED) as inbox:
            stdio = (-1, -1, -1) if asked.tty else (0 if interactive else null, 1, 2)
            process = executor.start(asked, stdio, terminal_size=size)
            try:
                inbox.forward_all()
                Foreground(process, inbox).follow(interactive=interactive)
                return process.wait()
            finally:
                process.close()
    finally:
        os.close(null)
