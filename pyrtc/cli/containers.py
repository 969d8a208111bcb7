"""`pyrtc ps`, also `pyrtc container ls`."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pyrtc.cli.image_command import image_command
from pyrtc.cli.option_table import Group, Option, pair, parse, render_help
from pyrtc.cli.port_texts import column
from pyrtc.cli.tables import age, print_rows, size_text
from pyrtc.errors import UsageError

if TYPE_CHECKING:
    from pyrtc.engine import Engine
    from pyrtc.listing import ContainerInfo

    OpenEngine = Callable[[], AbstractContextManager[Engine]]

__all__ = ["ps", "quoted", "read_filters", "status_text"]

OPTIONS = (
    Group(
        "Options",
        (
            Option("-a, --all", "", "list those that do not run too"),
            Option("-q, --quiet", "", "print ids only"),
            Option("-s, --size", "", "print what they have written, and that with their images; takes a walk over it"),
            Option("-n, --last", "N", "list the N that were made last, whatever they do"),
            Option("-l, --latest", "", "list the one that was made last, whatever it does"),
            Option("--no-trunc", "", "print whole ids and commands"),
            Option(
                "-f, --filter",
                "KEY=VALUE",
                "list some: id=DIGITS, name=PATTERN, status=created|restarting|running|paused|exited|dead, "
                "exited=CODE, label=NAME[=VALUE], ancestor=IMAGE, before=NAME, since=NAME, volume=NAME|PATH, "
                "network=NAME, health=starting|healthy|unhealthy|none, publish=PORT[-LAST][/udp], "
                "expose=PORT[-LAST][/udp]",
                repeat=True,
            ),
            Option(
                "--format",
                "FORMAT",
                "table, json, or a template of .ID .Image .Command .CreatedAt .RunningFor .Ports .State .Status .Size "
                ".Names .Labels .Mounts .LocalVolumes .Networks and .Label \"NAME\", with 'table ' before it for "
                "aligned columns",
            ),
            Option("--help", "", "print this"),
        ),
    ),
)
SHORT_ID = 12
COMMAND_WIDTH = 20
COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
HEADINGS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "State": "STATE",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Networks": "NETWORKS",
    "Size": "SIZE",
}


@image_command
def ps(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc ps`."""
    parsed = parse(argv, OPTIONS, interspersed=True)
    if parsed.flag("--help"):
        print(render_help("pyrtc ps [OPTIONS]", "List containers, the newest first.", OPTIONS))
        return 0
    if parsed.arguments:
        raise UsageError(f"unexpected argument: {parsed.arguments[0]}")
    from pyrtc.listing import ContainerFilter

    whole, form = parsed.flag("--no-trunc"), parsed.word("--format") or "table"
    wanted = ContainerFilter(read_filters(parsed.words("--filter")))
    last = 1 if parsed.flag("--latest") else parsed.one("--last", _count)
    found = wanted.choose(_everything(open_engine))
    if last is not None:
        found = found[:last]
    elif not parsed.flag("--all") and not wanted.wants_ended:
        found = tuple(info for info in found if info.state in ("running", "paused", "restarting"))
    if parsed.flag("--quiet"):
        for info in found:
            print(info.id if whole else info.id[:SHORT_ID])
        return 0
    sized = parsed.flag("--size") or ".Size" in form
    sizes = _sizes(found, open_engine) if sized else {}
    now = time.time()
    rows = [_row(info, now, sizes.get(info.id, ""), whole=whole) for info in found]
    print_rows(rows, form, (*COLUMNS, "Size") if sized else COLUMNS, HEADINGS)
    return 0


def _count(word: str) -> int:
    try:
        return max(0, int(word))
    except ValueError:
        raise UsageError("say how many") from None


def read_filters(words: Sequence[str]) -> dict[str, list[str]]:
    """Read the values of --filter.

    Raises
    ------
    OptionError: one is none; which keys there are is for who gets them to say.
    """
    filters: dict[str, list[str]] = {}
    for text in words:
        key, value = pair(text)
        filters.setdefault(key, []).append(value)
    return filters


def _everything(open_engine: "OpenEngine | None") -> "Sequence[ContainerInfo]":
    """Return all containers. Only where killed processes left something to put right is a whole engine opened."""
    if open_engine is None:
        from pyrtc.listing import read_list
        from pyrtc.store.root import default_root

        listing = read_list(default_root())
        if not listing.stale:
            return listing.containers
        from pyrtc.cli.opened import opened_engine

        open_engine = opened_engine
    with open_engine() as engine:
        return engine.containers.infos(all=True)


def _sizes(infos: "Sequence[ContainerInfo]", open_engine: "OpenEngine | None") -> dict[str, str]:
    from pyrtc.cli.opened import opened_engine
    from pyrtc.errors import ContainerNotFound

    texts = {}
    with (open_engine or opened_engine)() as engine:
        for info in infos:
            try:
                size = engine.containers.get(info.id).size()
            except ContainerNotFound:  # it has gone meanwhile
                continue
            texts[info.id] = f"{size_text(size.written)} (virtual {size_text(size.total)})"
    return texts


def _row(info: "ContainerInfo", now: float, size: str, *, whole: bool) -> dict[str, str]:
    command = quoted(" ".join(info.command))
    if not whole and len(command) > COMMAND_WIDTH:
        command = f'{command[: COMMAND_WIDTH - 2]}…"'
    image = info.image.removeprefix("sha256:")[:SHORT_ID] if info.image.startswith("sha256:") else info.image
    volumes = [source for source, _target in info.mounts if not source.startswith("/")]
    return {
        "ID": info.id if whole else info.id[:SHORT_ID],
        "Image": image,
        "Command": command,
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(info.created)),
        "RunningFor": f"{age(now - info.created)} ago",
        "Status": status_text(info, now),
        "State": info.state,
        "Ports": column(info.ports) if info.ports else "",
        "Names": info.name,
        "Labels": ",".join(f"{name}={value}" for name, value in info.labels),
        "Mounts": ",".join(source if whole else _short_mount(source) for source, _target in info.mounts),
        "LocalVolumes": str(len(volumes)),
        "Networks": ",".join(info.networks) or info.network,
        "Size": size,
    }


def _short_mount(source: str) -> str:
    return source if len(source) <= 15 else f"{source[:14]}…"


def status_text(info: "ContainerInfo", now: float) -> str:
    """Return what Docker writes under STATUS."""
    code = info.returncode
    if info.state in ("running", "paused"):
        words = f"Up {age(now - (info.started or info.created))}"
        if info.state == "paused":
            return f"{words} (Paused)"
        if info.health == "none":
            return words
        return f"{words} ({'health: starting' if info.health == 'starting' else info.health})"
    if info.state in ("exited", "restarting"):
        verb = info.state.capitalize()
        words = verb if code is None else f"{verb} ({code})"
        return words if info.finished is None else f"{words} {age(now - info.finished)} ago"
    return info.state.capitalize()


def quoted(text: str) -> str:
    """Put text in quotes; what is not printable is escaped, so that a command cannot steer the terminal."""
    letters = (letter if letter.isprintable() and letter not in '"\\' else _escaped(letter) for letter in text)
    return f'"{"".join(letters)}"'


def _escaped(letter: str) -> str:
    return f"\\{letter}" if letter in '"\\' else ascii(letter)[1:-1]
