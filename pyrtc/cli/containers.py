"""`pyrtc ps`, `pyrtc stop` and `pyrtc rm`."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import Group, Option, parse, render_help
from pyrtc.cli.tables import age
from pyrtc.errors import ContainerNotFound, PyrtcError, UsageError
from pyrtc.quantities import stop_timeout

if TYPE_CHECKING:
    from pyrtc.containers import ContainerInfo
    from pyrtc.engine import Engine

    OpenEngine = Callable[[], AbstractContextManager[Engine]]

__all__ = ["age", "ps", "quoted", "rm", "stop"]

PS_OPTIONS = (
    Group(
        "Options",
        (
            Option("-a, --all", "", "list those that have ended too"),
            Option("-q, --quiet", "", "print ids only"),
            Option("--no-trunc", "", "print whole ids and commands"),
            Option("--help", "", "print this"),
        ),
    ),
)
RM_OPTIONS = (
    Group(
        "Options",
        (
            Option("-f, --force", "", "kill those that run first; one that is missing is no failure"),
            Option("--help", "", "print this"),
        ),
    ),
)
STOP_OPTIONS = (
    Group(
        "Options",
        (
            Option("-t, --time", "TIME", "wait this long before killing; default: the container's own stop time-out"),
            Option("--help", "", "print this"),
        ),
    ),
)
SHORT_ID = 12
COMMAND_WIDTH = 20


def ps(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc ps`."""
    parsed = parse(argv, PS_OPTIONS, interspersed=True)
    if parsed.flag("--help"):
        print(render_help("pyrtc ps [OPTIONS]", "List containers, the newest first.", PS_OPTIONS))
        return 0
    if parsed.arguments:
        raise UsageError(f"unexpected argument: {parsed.arguments[0]}")
    whole = parsed.flag("--no-trunc")
    with (open_engine or opened_engine)() as engine:
        found = engine.containers.list(all=parsed.flag("--all"))
    if parsed.flag("--quiet"):
        for info in found:
            print(info.id if whole else info.id[:SHORT_ID])
        return 0
    now = time.time()
    rows = [("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES")]
    rows += [_row(info, now, whole=whole) for info in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def stop(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc stop`: each name is tried, whatever happens to the others."""
    parsed = parse(argv, STOP_OPTIONS, interspersed=True)
    if parsed.flag("--help"):
        usage = "pyrtc stop [OPTIONS] NAME..."
        print(render_help(usage, "Ask containers to end; kill those that do not.", STOP_OPTIONS))
        return 0
    if not parsed.arguments:
        raise UsageError("the container is missing: pyrtc stop [OPTIONS] NAME...")
    timeout = parsed.one("--time", stop_timeout)
    with (open_engine or opened_engine)() as engine:
        return _each(parsed.arguments, lambda name: engine.containers.stop(name, timeout=timeout))


def _each(names: Sequence[str], act: "Callable[[str], object]") -> int:
    """Act on each container and print its name; a failure is told and does not keep the others from their turn."""
    code = 0
    for name in names:
        try:
            act(name)
            print(name)
        except PyrtcError as error:
            print(f"pyrtc: {error}", file=sys.stderr)
            code = error.exit_code
    return code


def rm(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc rm`: each name is tried, whatever happens to the others."""
    parsed = parse(argv, RM_OPTIONS, interspersed=True)
    if parsed.flag("--help"):
        print(render_help("pyrtc rm [OPTIONS] NAME...", "Remove containers, by name or id.", RM_OPTIONS))
        return 0
    if not parsed.arguments:
        raise UsageError("the container is missing: pyrtc rm [OPTIONS] NAME...")
    force = parsed.flag("--force")
    code = 0
    with (open_engine or opened_engine)() as engine:
        for name in parsed.arguments:
            try:
                engine.containers.remove(name, force=force)
                print(name)
            except PyrtcError as error:
                print(f"pyrtc: {error}", file=sys.stderr)
                if not (force and isinstance(error, ContainerNotFound)):
                    code = error.exit_code
    return code


def _row(info: "ContainerInfo", now: float, *, whole: bool) -> tuple[str, str, str, str, str, str]:
    command = quoted(" ".join(info.command))
    if not whole and len(command) > COMMAND_WIDTH:
        command = f'{command[: COMMAND_WIDTH - 2]}…"'
    past = age(now - info.created)
    status = {"running": f"Up {past}", "creating": "Created"}.get(info.state, "Exited")
    if info.state == "exited" and info.returncode is not None:
        status = f"Exited ({info.returncode})"
    return (
        info.id if whole else info.id[:SHORT_ID],
        info.image.removeprefix("sha256:")[:SHORT_ID] if info.image.startswith("sha256:") else info.image,
        command,
        f"{past} ago",
        status,
        info.name,
    )


def quoted(text: str) -> str:
    """Put text in quotes; what is not printable is escaped, so that a command cannot steer the terminal."""
    letters = (letter if letter.isprintable() and letter not in '"\\' else _escaped(letter) for letter in text)
    return f'"{"".join(letters)}"'


def _escaped(letter: str) -> str:
    return f"\\{letter}" if letter in '"\\' else ascii(letter)[1:-1]
