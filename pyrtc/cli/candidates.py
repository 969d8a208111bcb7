"""`pyrtc __complete WORD...`: what could stand in place of the last word, for the shells' completion scripts.

A line is a candidate, a tab and what it is; a line `:files` or `:directories` asks the shell for those as well.
Whatever goes wrong, nothing is offered and nothing is said: a message in the middle of a command line helps nobody.
"""

import contextlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from pyrtc.cli.option_table import TRUTH, Answer, Group, Option, Question

if TYPE_CHECKING:
    from pyrtc.engine import Engine

__all__ = ["candidates", "complete"]

Candidate = tuple[str, str]
Commands = Mapping[str, tuple[str, str, str]]

FILES, DIRECTORIES = ":files", ":directories"
# What a command's arguments are: the last stands for all that follow.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("run", "create"), ("image", FILES)),
    "exec": ("running", FILES),
    **dict.fromkeys(("stop", "kill", "pause", "stats", "unpause", "wait"), ("running",)),
    **dict.fromkeys(("attach", "top"), ("running", "")),
    **dict.fromkeys(("start", "restart", "rm", "logs", "inspect", "update", "diff"), ("container",)),
    **dict.fromkeys(("port", "rename", "export", "commit"), ("container", "")),
    "cp": (FILES,),
    **dict.fromkeys(("rmi", "image rm", "image inspect", "save", "image save"), ("image",)),
    **dict.fromkeys(("push", "history", "tag", "image tag", "image history"), ("image", "")),
    "images": ("image", ""),
    **dict.fromkeys(("load", "import", "image load", "image import", "build"), (FILES, "")),
    **dict.fromkeys(("volume inspect", "volume rm"), ("volume",)),
    **dict.fromkeys(("network inspect", "network rm"), ("network",)),
    **dict.fromkeys(("network connect", "network disconnect"), ("network", "container", "")),
    "help": ("command", ""),
    "completion": ("shell", ""),
}
# What an option takes, by the name that help gives its value, or by its own.
VALUES = {
    "FILE": FILES,
    "DIR": DIRECTORIES,
    "--volume": FILES,
    "--device": FILES,
    "--cidfile": FILES,
    "--root": DIRECTORIES,
}
GLOBAL = (
    Group(
        "Options",
        (
            Option("--root", "DIR", "keep images and containers in DIR"),
            Option("--version", "", "print the version"),
            Option("--help", "", "print help"),
        ),
    ),
)


def complete(argv: list[str]) -> int:
    """Run `pyrtc __complete`."""
    with contextlib.suppress(Exception):
        for word, text in candidates(argv):
            print(f"{word}\t{text}" if text else word)
    return 0


def candidates(words: Sequence[str]) -> list[Candidate]:
    """Return what the last of the words after `pyrtc` could be, with what it is."""
    *before, current = list(words) or [""]
    rest = iter(before)
    command = _skip_global(rest)
    if command is None:
        return _options(GLOBAL, current, ()) if current.startswith("-") else _commands(_all_commands(), current)
    if command.startswith("-"):  # an option that waits for its value
        return _value(_row(GLOBAL, command), command, current)
    row = _all_commands().get(command)
    if row is None:
        return []
    answer = _ask(row)
    if answer.verbs:
        verb = next(rest, None)
        if verb is None:
            return _commands(answer.verbs, current)
        if verb not in answer.verbs:
            return []
        command, answer = f"{command} {verb}", _ask(answer.verbs[verb])
    return _words(command, answer, list(rest), current)


def _skip_global(rest: Iterator[str]) -> str | None:
    """Return the command, an option whose value comes next, or None when neither was typed yet."""
    for word in rest:
        if not word.startswith("-"):
            return word
        name, equals, value = word.partition("=")
        if name == "--root":
            if not equals:
                following = next(rest, None)
                if following is None:
                    return name
                value = following
            os.environ["PYRTC_ROOT"] = os.path.abspath(os.path.expanduser(value))  # noqa: PTH100, PTH111
    return None


def _words(command: str, answer: Answer, before: list[str], current: str) -> list[Candidate]:
    rows = {name: option for group in answer.groups for option in group.options for name in option.spelling.split(", ")}
    arguments, used, options_end = 0, set[str](), False
    waiting: tuple[Option, str] | None = None
    for word in before:
        if waiting is not None:
            waiting = None
        elif options_end or word == "-" or not word.startswith("-"):
            arguments += 1
            options_end = options_end or not answer.interspersed
        elif word == "--":
            options_end = True
        else:
            name, equals, _ = word.partition("=")
            if not word.startswith("--") and name not in rows:  # a cluster, of which the last may take a value
                name, equals = f"-{word[-1]}", ""
            option = rows.get(name)
            if option is not None:
                used |= set() if option.repeat else {option.key}
                waiting = (option, name) if option.metavar and not equals else None
    if waiting is not None:
        return _value(*waiting, current)
    if current.startswith("-") and not options_end:
        name, equals, value = current.partition("=")
        if equals and name in rows:
            offered = _value(rows[name], name, value)
            return [(word if word.startswith(":") else f"{name}={word}", text) for word, text in offered]
        return _options(answer.groups, current, used)
    kinds = ARGUMENTS.get(command, ())
    kind = kinds[min(arguments, len(kinds) - 1)] if kinds else ""
    return _of_kind(kind, current)


def _row(groups: Sequence[Group], name: str) -> Option:
    return next(option for group in groups for option in group.options if name in option.spelling.split(", "))


def _options(groups: Sequence[Group], current: str, used: Iterable[str]) -> list[Candidate]:
    return [
        (name, option.help)
        for group in groups
        for option in group.options
        if option.key not in used
        for name in option.spelling.split(", ")
        if name.startswith(current) and (len(name) > 2 or current == name)
    ]


def _value(option: Option, name: str, current: str) -> list[Candidate]:
    """Offer values: of a choice, from the file system, or names out of the store."""
    if not option.metavar:
        return [(word, "") for word in TRUTH if word in ("true", "false") and word.startswith(current)]
    if option.key == "--network":
        return _networks(current)
    kind = VALUES.get(option.key) or VALUES.get(name) or VALUES.get(option.metavar)
    offered = _volumes(current) if option.key == "--volume" and "/" not in current and ":" not in current else []
    if kind is not None:
        return [*offered, (kind, "")]
    choices = option.metavar.split("|")
    if len(choices) > 1 and all(choice.islower() for choice in choices):
        return [(choice, "") for choice in choices if choice.startswith(current)]
    return offered


def _of_kind(kind: str, current: str) -> list[Candidate]:
    if kind.startswith(":"):
        return [(kind, "")]
    if kind == "command":
        return _commands(_all_commands(), current)
    if kind == "shell":
        return [(shell, "") for shell in ("bash", "fish", "zsh") if shell.startswith(current)]
    makers: dict[str, Callable[[str], list[Candidate]]] = {
        "image": _images,
        "network": _networks,
        "volume": _volumes,
        "container": lambda word: _containers(word, running=False),
        "running": lambda word: _containers(word, running=True),
    }
    return makers[kind](current) if kind else []


def _commands(commands: Commands, current: str) -> list[Candidate]:
    return [(name, text) for name, (_, _, text) in commands.items() if name.startswith(current)]


def _all_commands() -> Commands:
    from pyrtc.cli.main import COMMANDS

    return {name: row for group in COMMANDS.values() for name, row in group.items()}


def _ask(row: tuple[str, str, str]) -> Answer:
    """Have a command say what it takes; it does nothing else, and one that reads no options prints its help, unseen."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            getattr(import_module(row[0]), row[1])(Question())
    except Answer as answer:
        return answer
    return Answer()


def _engine() -> "Engine | None":
    """Open the store, if there is one: looking for names must not make it."""
    from pyrtc.engine import Engine
    from pyrtc.store import default_root

    return Engine() if os.path.exists(f"{default_root()}/pyrtc.db") else None  # noqa: PTH110


def _containers(current: str, *, running: bool) -> list[Candidate]:
    engine = _engine()
    if engine is None:
        return []
    with engine:
        found = engine.store.containers.list()
    names = [
        (record.name, record.image_id if record.image_id == "host" else "")
        for record in found
        if record.name.startswith(current) and (record.state == "running" or not running)
    ]
    ids = [
        (record.id[:12], record.name)
        for record in found
        if current and record.id.startswith(current) and (record.state == "running" or not running)
    ]
    return [*names, *ids]


def _images(current: str) -> list[Candidate]:
    from pyrtc.image.reference import Reference

    offered = [("host", "this system's own root")]
    engine = _engine()
    if engine is not None:
        with engine:
            names = [name for image in engine.store.images.list() for name in image.names]
        for name in names:
            familiar = Reference.parse(name).familiar
            offered.append((familiar, ""))
            if familiar != name and current and name.startswith(current):
                offered.append((name, ""))
    return [(name, text) for name, text in offered if name.startswith(current)]


def _networks(current: str) -> list[Candidate]:
    offered = {"none": "nothing but loopback", "host": "this machine's", "bridge": "the default bridge"}
    engine = _engine()
    if engine is not None:
        with engine:
            offered |= {item.name: item.driver for item in engine.store.networks.list() if not item.predefined}
    return [(name, text) for name, text in offered.items() if name.startswith(current)]


def _volumes(current: str) -> list[Candidate]:
    engine = _engine()
    if engine is None:
        return []
    with engine:
        found = engine.store.volumes.list()
    return [(volume.name, "") for volume in found if volume.name.startswith(current) and not volume.anonymous]
