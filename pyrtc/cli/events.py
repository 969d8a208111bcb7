"""`pyrtc events`: what happens in the store, as Docker prints it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pyrtc.cli.containers import read_filters
from pyrtc.cli.image_command import HELP, image_command, parse_options
from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import Group, Option
from pyrtc.errors import UsageError

if TYPE_CHECKING:
    from pyrtc.engine import Engine
    from pyrtc.events import Event

    OpenEngine = Callable[[], AbstractContextManager[Engine]]

__all__ = ["document_of", "events", "line_of"]

OPTIONS = (
    Group(
        "Options",
        (
            Option("--since", "TIME", "first what has happened since then: a length of time like 10m, or a time"),
            Option("--until", "TIME", "end then; without it wait for what happens"),
            Option(
                "-f, --filter",
                "KEY=VALUE",
                "only some: type=container|image|volume|network, event=ACTION, container=NAME, image=NAME, "
                "volume=NAME, network=NAME, label=NAME[=VALUE], scope=local",
                repeat=True,
            ),
            Option(
                "--format",
                "FORMAT",
                "json, or a template of .Time .TimeNano .Type .Action .Actor .ID .Status .From .Scope",
            ),
            HELP,
        ),
    ),
)
FIELDS = ("Action", "Actor", "From", "ID", "Scope", "Status", "Time", "TimeNano", "Type")


@image_command
def events(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc events`."""
    usage = "pyrtc events [OPTIONS]"
    parsed = parse_options(argv, OPTIONS, usage, "Tell what happens in the store, and what happened.")
    if parsed is None:
        return 0
    if parsed.arguments:
        raise UsageError(f"unexpected argument: {parsed.arguments[0]}")
    filters = read_filters(parsed.words("--filter"))
    since, until = (parsed.one(option, _moment, late=True) for option in ("--since", "--until"))
    form = parsed.word("--format")
    with (open_engine or opened_engine)() as engine:
        for event in engine.events(since=since, until=until, filters=filters, follow=True):
            print(_text(event, form), flush=True)
    return 0


def _moment(word: str) -> float:
    from pyrtc.moments import until

    try:
        return until(word)
    except ValueError:
        raise UsageError("write a length of time like 10m, a time like 2026-01-31T12:00:00, or seconds") from None


def _text(event: "Event", form: str | None) -> str:
    # In the template, too, the whole is what the API tells, not the fields by their names in templates.
    if form is not None and form.replace(" ", "") in ("json", "{{json.}}"):
        import json

        return json.dumps(document_of(event), separators=(",", ":"))
    from pyrtc.cli.tables import one_line, printable

    if form is None:
        return one_line(line_of(event))
    from pyrtc.cli.templates import render

    document = document_of(event)
    values = {
        **{name: document[name] for name in ("Type", "Action", "Actor")},
        "ID": event.id,
        "Status": event.action,
        "From": document.get("from", ""),
        "Scope": "local",
        "Time": document["time"],
        "TimeNano": event.time_ns,
    }
    return printable(render(form, values, FIELDS))


def line_of(event: "Event") -> str:
    """Return the line that `docker events` prints."""
    import time

    seconds, fraction = divmod(event.time_ns, 1_000_000_000)
    moment = time.localtime(seconds)
    zone = time.strftime("%z", moment)
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{fraction:09d}{zone[:3]}:{zone[3:]}"
    told = ", ".join(f"{name}={value}" for name, value in event.attributes)
    return f"{stamp} {event.kind} {event.action} {event.id}{f' ({told})' if told else ''}"


def document_of(event: "Event") -> dict[str, object]:
    """Return the object that Docker's API tells of an event."""
    image = event.attribute("image")
    return {
        **({"status": event.action, "id": event.id} if event.kind in ("container", "image") else {}),
        **({"from": image} if event.kind == "container" and image is not None else {}),
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": dict(event.attributes)},
        "scope": "local",
        "time": event.time_ns // 1_000_000_000,
        "timeNano": event.time_ns,
    }
