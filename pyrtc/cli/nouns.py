"""Commands of two words, such as `pyrtc image ls`: a noun, and a table of what can be done with it."""

from collections.abc import Mapping

from pyrtc.cli.option_table import Answer, ArgumentError, OptionError, Question, nearest
from pyrtc.errors import UsageError

__all__ = ["Verbs", "run_noun"]

Verbs = Mapping[str, tuple[str, str, str]]  # word -> module and function that run it, what it does
_ALIASES = {"list": "ls", "remove": "rm"}  # Docker's, of every noun that has the verb


def run_noun(noun: str, summary: str, verbs: Verbs, argv: list[str]) -> int:
    """Run the command that the first word names; without one, or for --help, list them all.

    Raises
    ------
    ArgumentError: there is no such command. OptionError: an option where it should be.
    """
    if isinstance(argv, Question):
        raise Answer(verbs=verbs)
    word = argv[0] if argv else "--help"
    if word == "--help":
        lines = [f"Usage:  pyrtc {noun} COMMAND", "", summary, "", "Commands:"]
        width = max(10, *(len(name) + 2 for name in verbs))
        lines += [f"  {name:<{width}}{text}" for name, (_, _, text) in verbs.items()]
        print("\n".join([*lines, "", f"`pyrtc {noun} COMMAND --help` prints a command's options."]))
        return 0
    word = word if word in verbs else _ALIASES.get(word, word)
    if word not in verbs:
        if word.startswith("-"):
            raise OptionError(f"unknown option: {word}{nearest(word, ('--help',))}")
        raise ArgumentError(f"unknown command: {noun} {word}{nearest(word, verbs)}")
    from importlib import import_module

    module, function, _ = verbs[word]
    try:
        code: int = getattr(import_module(module), function)(argv[1:])
    except UsageError as error:
        error.command = f"{noun} {word}"
        raise
    return code
