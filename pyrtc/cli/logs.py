"""`pyrtc logs`: what a container has written, and writes."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pyrtc.cli.image_command import image_command
from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import Group, Option, parse, render_help
from pyrtc.errors import UsageError

if TYPE_CHECKING:
    from pyrtc.engine import Engine
    from pyrtc.logs import LogPiece, LogSelection
    from pyrtc.store import ContainerRecord

__all__ = ["LOGS_OPTIONS", "logs"]

USAGE = "pyrtc logs [OPTIONS] CONTAINER"
SUMMARY = "Print what a container has written: its standard output to yours, its standard error to yours."
LOGS_OPTIONS = (
    Group(
        "Options",
        (
            Option("-f, --follow", "", "go on with what it writes, until it ends"),
            Option("-n, --tail", "NUMBER", "begin with the last lines; default: all"),
            Option("--since", "TIME", "leave out what is older: 10m, 2026-11-24T09:33:54Z, or seconds since the epoch"),
            Option("--until", "TIME", "leave out what is as new as this, or newer"),
            Option("-t, --timestamps", "", "print before each line when it was written"),
            Option("--help", "", "print this"),
        ),
    ),
)
UNAVAILABLE = {"--details": "a log keeps nothing beside the lines; labels are shown by pyrtc inspect"}
ENDING = """\
  pyrtc logs -f web
  pyrtc logs --tail 20 --since 1h web 2>/dev/null"""


@image_command
def logs(argv: list[str], open_engine: "Callable[[], AbstractContextManager[Engine]] | None" = None) -> int:
    """Run `pyrtc logs`."""
    parsed = parse(argv, LOGS_OPTIONS, interspersed=True, unavailable=UNAVAILABLE)
    if parsed.flag("--help"):
        print(render_help(USAGE, SUMMARY, LOGS_OPTIONS, ending=ENDING))
        return 0
    if len(parsed.arguments) != 1:
        raise UsageError(f"name one container: {USAGE}")
    from pyrtc.logs import LogSelection, moment_ns

    selection = LogSelection(
        since_ns=parsed.one("--since", moment_ns, late=True),
        until_ns=parsed.one("--until", moment_ns, late=True),
        tail=parsed.one("--tail", _tail, late=True),
    )
    with (open_engine or opened_engine)() as engine:
        engine.containers.reap()
        record = engine.store.containers.get(parsed.arguments[0])
        batches = _batches(record, selection, follow=parsed.flag("--follow"))
        _print(batches, timestamps=parsed.flag("--timestamps"))
    return 0


def _batches(record: "ContainerRecord", selection: "LogSelection", *, follow: bool) -> "Iterator[list[LogPiece]]":
    from pyrtc.log_follow import follow_batches, log_directory, monitor_of, read_batches

    directory = log_directory(record)
    if follow:
        return follow_batches(directory, selection, monitor_of(record), _warn)
    return read_batches(directory, selection, _warn)


def _warn(damaged: int) -> None:
    print(f"pyrtc: warning: {damaged} damaged records of the log were left out", file=sys.stderr)


def _tail(word: str) -> int | None:
    if word == "all":
        return None
    if not word.isascii() or not word.isdigit():
        raise UsageError("not a number of lines; write for example 20, or all")
    return int(word[:18])


def _print(batches: "Iterator[list[LogPiece]]", *, timestamps: bool) -> None:
    """Write each batch as soon as it is there, byte for byte, with few calls."""
    from itertools import groupby

    from pyrtc.logs import format_time

    begins = {"stdout": True, "stderr": True}  # whether the next piece begins a line
    for batch in batches:
        for stream, pieces in groupby(batch, lambda piece: piece.stream):
            data = bytearray()
            for piece in pieces:
                if timestamps and begins[stream]:
                    data += f"{format_time(piece.time_ns)} ".encode()
                data += piece.data
                begins[stream] = piece.ends
            _write(1 if stream == "stdout" else 2, data)


def _write(fd: int, data: bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
