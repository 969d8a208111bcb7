"""`pyrtc top`: the processes of a container, in the columns of ps(1)."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pyrtc.cli.image_command import image_command
from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import Answer, Group, Option, Question
from pyrtc.cli.tables import printable, table
from pyrtc.errors import UsageError

if TYPE_CHECKING:
    from pyrtc.engine import Engine
    from pyrtc.processes import ProcessInfo

    OpenEngine = Callable[[], AbstractContextManager[Engine]]

__all__ = ["top"]

USAGE = "pyrtc top CONTAINER [PS OPTIONS]"
HELP = f"""\
Usage:  {USAGE}

Show the processes of a container, as this machine numbers them. Nothing runs in the container for that.

PS options are -ef (the default), aux, and -o with a list of columns:
  """
FULL = ("uid", "pid", "ppid", "c", "stime", "tty", "time", "cmd")
USER = ("user", "pid", "%cpu", "%mem", "vsz", "rss", "tty", "stat", "start", "time", "command")
# ps(1) has several names for one thing; the heading is of the name that was used.
ALIASES = {
    "args": "cmd",
    "command": "cmd",
    "comm": "name",
    "ucmd": "name",
    "pcpu": "%cpu",
    "pmem": "%mem",
    "tt": "tty",
    "tname": "tty",
    "euid": "uid#",
    "euser": "user",
    "cputime": "time",
    "vsize": "vsz",
    "rssize": "rss",
    "rsz": "rss",
    "thcount": "nlwp",
    "nice": "ni",
    "start_time": "stime",
    "s": "state",
    "stat": "state",
}


@image_command
def top(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc top`."""
    if isinstance(argv, Question):
        raise Answer((Group("Options", (Option("--help", "", "print this"),)),), interspersed=False)
    if argv[:1] == ["--help"]:
        print(HELP + " ".join(sorted({*FULL, *_COLUMNS, *ALIASES} - {"uid#"})))
        return 0
    if not argv or argv[0].startswith("-"):
        raise UsageError(f"the container is missing: {USAGE}")
    columns = _columns(argv[1:])
    with (open_engine or opened_engine)() as engine:
        found = engine.containers.get(argv[0]).top()
    now = time.time()
    rows = [[heading for heading, _ in columns]]
    rows += [[_cell(process, column, now) for _, column in columns] for process in found]
    print(printable(table([[cell.replace("\n", " ").replace("\t", " ") for cell in row] for row in rows])))
    return 0


def _columns(words: Sequence[str]) -> list[tuple[str, str]]:
    """Read options of ps(1): heading and column of each that is wanted.

    Raises
    ------
    UsageError: an option or column that this does not know.
    """
    chosen: list[tuple[str, str]] = []
    style: Sequence[str] = FULL
    rest = list(words)
    while rest:
        word = rest.pop(0)
        letters = word.removeprefix("-")
        if word in ("-o", "o", "--format", "-eo", "-Ao") or (letters.startswith("o") and word.startswith("-")):
            listed = letters[1:] if len(letters) > 1 and letters[0] == "o" else ""
            if not listed and not rest:
                raise UsageError(f"ps option needs a value: {word} COLUMN[,COLUMN...]")
            chosen += _listed(listed or rest.pop(0))
        elif word.startswith("--format="):
            chosen += _listed(word.partition("=")[2])
        elif letters and set(letters) <= set("efAwW"):
            style = FULL
        elif letters and set(letters) <= set("auxwW"):
            style = USER
        else:
            raise UsageError(f"unknown ps option: {word}: there are -ef, aux, and -o COLUMN[,COLUMN...]")
    return chosen or [(name.upper(), name) for name in style]


def _listed(text: str) -> list[tuple[str, str]]:
    found = []
    for part in text.replace(" ", ",").split(","):
        name, equals, heading = part.partition("=")
        if not name:
            continue
        if name not in _COLUMNS and name not in ALIASES:
            from pyrtc.cli.option_table import nearest

            known = sorted({*_COLUMNS, *ALIASES} - {"uid#"})
            raise UsageError(f"unknown column of ps: {name}{nearest(name, known)}; there are {', '.join(known)}")
        column = "uid#" if name == "uid" else name  # -o uid is a number, UID of -f a name
        found.append((heading if equals else _heading(name), column))
    return found


def _heading(name: str) -> str:
    return {"args": "COMMAND", "cmd": "CMD", "comm": "COMMAND", "pcpu": "%CPU", "pmem": "%MEM", "state": "S"}.get(
        name, name.upper()
    )


def _cell(process: "ProcessInfo", column: str, now: float) -> str:
    return _COLUMNS[ALIASES.get(column, column)](process, now)


def _share(process: "ProcessInfo", now: float) -> float:
    """Return the percentage of a CPU that a process has used over its life."""
    return process.cpu_seconds / max(now - process.started, 0.01) * 100.0


def _user(process: "ProcessInfo", _now: float) -> str:
    """Return the user's name on this machine; its number where it has none, or a longer one than ps shows."""
    import pwd

    try:
        name = pwd.getpwuid(process.uid).pw_name
    except KeyError:
        return str(process.uid)
    return name if len(name) <= 8 else str(process.uid)


def _start(process: "ProcessInfo", now: float) -> str:
    begun, today = time.localtime(process.started), time.localtime(now)
    if begun[:3] == today[:3]:
        return time.strftime("%H:%M", begun)
    return time.strftime("%b%d" if begun[0] == today[0] else "%Y", begun)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{f'{days}-' if days else ''}{hours:02}:{minutes:02}:{rest:02}"


def _elapsed(process: "ProcessInfo", now: float) -> str:
    text = _clock(max(0.0, now - process.started))
    return text.removeprefix("00:")


def _memory_share(process: "ProcessInfo", _now: float) -> str:
    import os

    return f"{process.resident / (os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')) * 100.0:.1f}"


_COLUMNS: "dict[str, Callable[[ProcessInfo, float], str]]" = {
    "uid": _user,
    "uid#": lambda process, _now: str(process.uid),
    "user": _user,
    "pid": lambda process, _now: str(process.pid),
    "ppid": lambda process, _now: str(process.ppid),
    "c": lambda process, now: str(min(99, int(_share(process, now)))),
    "%cpu": lambda process, now: f"{_share(process, now):.1f}",
    "%mem": _memory_share,
    "vsz": lambda process, _now: str(process.virtual >> 10),
    "rss": lambda process, _now: str(process.resident >> 10),
    "stime": _start,
    "start": _start,
    "tty": lambda process, _now: process.tty or "?",
    "time": lambda process, _now: _clock(process.cpu_seconds),
    "etime": _elapsed,
    "etimes": lambda process, now: str(int(max(0.0, now - process.started))),
    "state": lambda process, _now: process.state,
    "nlwp": lambda process, _now: str(process.threads),
    "ni": lambda process, _now: str(process.nice),
    "pri": lambda process, _now: str(process.priority),
    "name": lambda process, _now: process.name,
    "cmd": lambda process, _now: process.command,
}
