"""`pyrtc ps`."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import Group, Option, nearest, parse, render_help
from pyrtc.cli.tables import age, print_rows
from pyrtc.errors import UsageError

if TYPE_CHECKING:
    from pyrtc.containers import ContainerInfo
    from pyrtc.engine import Engine

    OpenEngine = Callable[[], AbstractContextManager[Engine]]

__all__ = ["age", "ps", "quoted"]

PS_OPTIONS = (
    Group(
        "Options",
        (
            Option("-a, --all", "", "list those that have ended too"),
            Option("-q, --quiet", "", "print ids only"),
            Option("--no-trunc", "", "print whole ids and commands"),
            Option(
                "-f, --filter",
                "KEY=VALUE",
                "list some: id=DIGITS, name=PART, status=running|created|exited, exited=CODE, label=NAME[=VALUE], "
                "ancestor=IMAGE",
                repeat=True,
            ),
            Option(
                "--format",
                "FORMAT",
                "table, json, or a template of .ID .Image .Command .CreatedAt .RunningFor .Status .State .Names "
                ".Labels and .Label \"NAME\", with 'table ' before it for aligned columns",
            ),
            Option("--help", "", "print this"),
        ),
    ),
)
SHORT_ID = 12
COMMAND_WIDTH = 20
FILTERS = ("ancestor", "exited", "id", "label", "name", "status")
COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Names")
HEADINGS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "State": "STATE",
    "Names": "NAMES",
    "Labels": "LABELS",
}


def ps(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc ps`."""
    parsed = parse(argv, PS_OPTIONS, interspersed=True)
    if parsed.flag("--help"):
        print(render_help("pyrtc ps [OPTIONS]", "List containers, the newest first.", PS_OPTIONS))
        return 0
    if parsed.arguments:
        raise UsageError(f"unexpected argument: {parsed.arguments[0]}")
    whole = parsed.flag("--no-trunc")
    filters = _filters(parsed.words("--filter"))
    # As in Docker, a filter on what only ended containers have lists those.
    every = parsed.flag("--all") or any(key in ("status", "exited") for key, _ in filters)
    with (open_engine or opened_engine)() as engine:
        found = [info for info in engine.containers.infos(all=every) if _passes(info, filters)]
    if parsed.flag("--quiet"):
        for info in found:
            print(info.id if whole else info.id[:SHORT_ID])
        return 0
    now = time.time()
    rows = [_row(info, now, whole=whole) for info in found]
    print_rows(rows, parsed.word("--format") or "table", COLUMNS, HEADINGS)
    return 0


def _filters(words: Sequence[str]) -> list[tuple[str, str]]:
    filters = []
    for text in words:
        key, equals, value = text.partition("=")
        if key not in FILTERS or not equals:
            raise UsageError(f"invalid filter {text}{nearest(key, FILTERS)}: write KEY=VALUE")
        if key == "status" and value not in ("created", "running", "exited"):
            raise UsageError(f"invalid filter {text}: say created, running or exited")
        if key == "exited" and not value.lstrip("-").isdigit():
            raise UsageError(f"invalid filter {text}: say an exit code")
        filters.append((key, value))
    return filters


def _passes(info: "ContainerInfo", filters: Sequence[tuple[str, str]]) -> bool:
    """Say whether a container is wanted: of filters of one kind any must fit, of each kind one."""
    fits: dict[str, bool] = {}
    for key, value in filters:
        fits[key] = fits.get(key, False) or _fits(info, key, value)
    return all(fits.values())


def _fits(info: "ContainerInfo", key: str, value: str) -> bool:
    if key == "id":
        return info.id.startswith(value)
    if key == "name":
        return value in info.name
    if key == "status":
        return info.state == {"created": "creating"}.get(value, value)
    if key == "exited":
        return info.state == "exited" and info.returncode == int(value)
    if key == "label":
        name, equals, wanted = value.partition("=")
        labels = dict(info.labels)
        return name in labels and (not equals or labels[name] == wanted)
    digits = info.image_id.partition(":")[2]
    by_id = len(value) >= 4 and digits.startswith(value.removeprefix("sha256:"))
    return by_id or _image_name(info.image) == _image_name(value) or info.image == value


def _image_name(text: str) -> str:
    from pyrtc.errors import ImageError
    from pyrtc.image.reference import Reference

    try:
        return Reference.parse(text).with_default_tag().canonical
    except ImageError:
        return text


def _row(info: "ContainerInfo", now: float, *, whole: bool) -> dict[str, str]:
    command = quoted(" ".join(info.command))
    if not whole and len(command) > COMMAND_WIDTH:
        command = f'{command[: COMMAND_WIDTH - 2]}…"'
    past = age(now - info.created)
    status = {"running": f"Up {past}", "creating": "Created"}.get(info.state, "Exited")
    if info.state == "exited" and info.returncode is not None:
        status = f"Exited ({info.returncode})"
    image = info.image.removeprefix("sha256:")[:SHORT_ID] if info.image.startswith("sha256:") else info.image
    return {
        "ID": info.id if whole else info.id[:SHORT_ID],
        "Image": image,
        "Command": command,
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(info.created)),
        "RunningFor": f"{past} ago",
        "Status": status,
        "State": {"creating": "created"}.get(info.state, info.state),
        "Names": info.name,
        "Labels": ",".join(f"{name}={value}" for name, value in info.labels),
    }


def quoted(text: str) -> str:
    """Put text in quotes; what is not printable is escaped, so that a command cannot steer the terminal."""
    letters = (letter if letter.isprintable() and letter not in '"\\' else _escaped(letter) for letter in text)
    return f'"{"".join(letters)}"'


def _escaped(letter: str) -> str:
    return f"\\{letter}" if letter in '"\\' else ascii(letter)[1:-1]
