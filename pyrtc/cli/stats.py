"""`pyrtc stats`: what containers use, as a table that lives."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING

from pyrtc.cli.image_command import HELP, image_command, parse_options
from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import Group, Option
from pyrtc.cli.tables import print_rows
from pyrtc.errors import ContainerError, ContainerNotFound

if TYPE_CHECKING:
    from pyrtc.engine import Engine
    from pyrtc.live import Container
    from pyrtc.stats import Sampler, Stats

    OpenEngine = Callable[[], AbstractContextManager[Engine]]

__all__ = ["binary_size", "stats"]

OPTIONS = (
    Group(
        "Options",
        (
            Option("-a, --all", "", "those that do not run, too"),
            Option("--no-stream", "", "print once and end"),
            Option("--no-trunc", "", "print whole ids"),
            Option(
                "--format",
                "FORMAT",
                "table, json, or a template of .Container .ID .Name .CPUPerc .MemUsage .MemPerc .NetIO .BlockIO .PIDs",
            ),
            HELP,
        ),
    ),
)
COLUMNS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
HEADINGS = {
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
    "Container": "CONTAINER",
}
INTERVAL = 1.0  # seconds between two tables
FIRST_INTERVAL = 0.2  # seconds that the first shares of the CPU are measured over
UNKNOWN = "--"
CLEAR = "\033[H\033[J"  # the cursor home, and everything below it away


@image_command
def stats(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc stats`."""
    usage = "pyrtc stats [OPTIONS] [CONTAINER...]"
    parsed = parse_options(argv, OPTIONS, usage, "Show what containers use, again and again.")
    if parsed is None:
        return 0
    from pyrtc.stats import Sampler

    form, whole = parsed.word("--format") or "table", parsed.flag("--no-trunc")
    live = form.startswith("table") and sys.stdout.isatty() and not parsed.flag("--no-stream")
    sampler = Sampler()
    with (open_engine or opened_engine)() as engine:
        named = [engine.containers.get(name) for name in parsed.arguments]  # a name that is wrong is so at once
        every = parsed.flag("--all")
        _sample(named or engine.containers.list(all=every), sampler)
        time.sleep(FIRST_INTERVAL)
        while True:
            begin = time.monotonic()
            found = _sample(named or engine.containers.list(all=every), sampler)
            if named and not found:
                return 0  # all of them have been removed
            if live:
                print(CLEAR, end="")
            print_rows([_row(item, whole=whole) for item in found], form, COLUMNS, HEADINGS)
            sys.stdout.flush()
            if parsed.flag("--no-stream"):
                return 0
            time.sleep(max(0.0, INTERVAL - (time.monotonic() - begin)))


def _sample(containers: "Sequence[Container]", sampler: "Sampler") -> "list[Stats | tuple[str, str]]":
    """Return what each container uses; of one that does not run only its id and name."""
    found: list[Stats | tuple[str, str]] = []
    for container in containers:
        try:
            found.append(sampler.take(container))
        except ContainerNotFound:
            continue
        except ContainerError:
            with suppress(ContainerNotFound):
                found.append((container.id, container.name))
    return found


def _row(item: "Stats | tuple[str, str]", *, whole: bool) -> dict[str, str]:
    if isinstance(item, tuple):
        container_id, name = item
        numbers = {
            "CPUPerc": UNKNOWN,
            "MemUsage": f"{UNKNOWN} / {UNKNOWN}",
            "MemPerc": UNKNOWN,
            "NetIO": UNKNOWN,
            "BlockIO": UNKNOWN,
            "PIDs": UNKNOWN,
        }
    else:
        container_id, name = item.id, item.name
        numbers = {
            "CPUPerc": _percent(item.cpu_percent),
            "MemUsage": f"{binary_size(item.memory)} / {binary_size(item.memory_limit)}",
            "MemPerc": _percent(item.memory_percent),
            "NetIO": _pair(item.received_bytes, item.sent_bytes),
            "BlockIO": _pair(item.read_bytes, item.written_bytes),
            "PIDs": UNKNOWN if item.pids is None else str(item.pids),
        }
    shown = container_id if whole else container_id[:12]
    return {"ID": shown, "Container": shown, "Name": name, **numbers}


def _percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}%"


def _pair(first: int | None, second: int | None) -> str:
    from pyrtc.cli.tables import size_text

    if first is None or second is None:
        return UNKNOWN
    return f"{size_text(first)} / {size_text(second)}"


def binary_size(size: int | None) -> str:
    """Write bytes as Docker writes memory: four digits, powers of 1024."""
    if size is None:
        return UNKNOWN
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.4g}{unit}"
