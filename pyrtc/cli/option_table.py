"""Options as a table: the same rows parse a command line and print its help.

The grammar is the one Docker's users type: `--name value`, `--name=value`, `-n value`, `-nvalue`, `-n=value`, clusters
of short flags (`-it`), flags that may be given a truth value (`--rm=false`), `--` before what is no option. argparse is
left out because importing it takes longer than starting a container, and dataclasses for the same reason.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

from pyrtc.errors import UsageError

__all__ = [
    "Answer",
    "ArgumentError",
    "Group",
    "Option",
    "OptionError",
    "Parsed",
    "Question",
    "nearest",
    "pair",
    "parse",
    "render_help",
    "truth",
]

T = TypeVar("T")

HELP_COLUMN = 36
HELP_WIDTH = 116
# As Go's strconv.ParseBool reads them.
TRUTH = {
    **dict.fromkeys(("1", "t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("0", "f", "F", "false", "False", "FALSE"), False),
}


class OptionError(UsageError):
    """An option that there is not, or whose value is missing or malformed: 125 in every command, as in Docker."""


class ArgumentError(UsageError):
    """No such command, arguments that are missing or too many, or no terminal: 1 in every command, as in Docker."""

    exit_code = 1


class Option:
    """One row.

    Parameters
    ----------
    spelling: how help writes it, `-e, --env`; the first long name identifies the option, the others are aliases.
    metavar: what help calls its value; "" makes it a flag.
    help: what it does, in a line or two.
    repeat: every value counts; otherwise the last one wins.
    """

    __slots__ = ("help", "metavar", "repeat", "spelling")

    def __init__(self, spelling: str, metavar: str, help: str, repeat: bool = False) -> None:
        self.spelling = spelling
        self.metavar = metavar
        self.help = help
        self.repeat = repeat

    @property
    def key(self) -> str:
        """The first long name."""
        return next(name for name in self.spelling.split(", ") if name.startswith("--"))


class Group:
    """Options that help shows under one title."""

    __slots__ = ("options", "title")

    def __init__(self, title: str, options: tuple[Option, ...]) -> None:
        self.title = title
        self.options = options


class Question(list[str]):
    """Words for a command that is asked what it takes, for completion: it reads its options and gets to `parse`."""

    def __init__(self) -> None:
        super().__init__(["--help"])


class Answer(Exception):
    """What a command takes: its options, and whether they may follow arguments; or the commands below a noun."""

    def __init__(
        self,
        groups: Sequence[Group] = (),
        *,
        interspersed: bool = True,
        verbs: Mapping[str, tuple[str, str, str]] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.groups = groups
        self.interspersed = interspersed
        self.verbs = verbs


class Parsed:
    """What was typed: the words of each option, and what is left over.

    Attributes
    ----------
    arguments: the words that are no options.
    """

    def __init__(self, words: dict[str, list[str]], spellings: dict[str, str], arguments: list[str]) -> None:
        self._words = words
        self._spellings = spellings
        self.arguments = arguments

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return a flag's truth value, or the default when it was not typed."""
        words = self._words.get(key)
        return TRUTH[words[-1]] if words else default

    def word(self, key: str) -> str | None:
        """Return the option's value as it was typed, None when it was not."""
        words = self._words.get(key)
        return words[-1] if words else None

    def words(self, key: str) -> tuple[str, ...]:
        """Return every value of a repeated option in the order typed."""
        return tuple(self._words.get(key, ()))

    def one(self, key: str, convert: Callable[[str], T], *, late: bool = False) -> T | None:
        """Return the option's value, converted; None when it was not typed.

        Parameters
        ----------
        late: one that Docker's client takes as it is and whose meaning is found out later: a wrong one ends with the
            command's code and not with that of a wrong option.

        Raises
        ------
        OptionError: convert's, with the value and the option named before its reason; UsageError where it is late.
        """
        words = self._words.get(key)
        return self._convert(key, words[-1], convert, UsageError if late else OptionError) if words else None

    def all(self, key: str, convert: Callable[[str], T]) -> tuple[T, ...]:
        """Return every value of a repeated option, converted, in the order typed; raises as `one` does."""
        return tuple(self._convert(key, word, convert) for word in self._words.get(key, ()))

    def _convert(self, key: str, word: str, convert: Callable[[str], T], kind: type[UsageError] = OptionError) -> T:
        try:
            return convert(word)
        except UsageError as error:
            raise kind(f'invalid value "{word}" for {self._spellings[key]}: {error}') from None


def truth(word: str) -> bool:
    """Read a truth value: true or false, 1 or 0, t or f.

    Raises
    ------
    UsageError: the word is none of these.
    """
    try:
        return TRUTH[word]
    except KeyError:
        raise UsageError("say true or false") from None


def pair(text: str) -> tuple[str, str]:
    """Read a filter, KEY=VALUE.

    Raises
    ------
    OptionError: it is none.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise OptionError(f"invalid filter {text!r}: write KEY=VALUE")
    return key, value


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for the closest of the known words, or nothing when none is close."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


def parse(
    argv: Sequence[str],
    groups: Sequence[Group],
    *,
    interspersed: bool = False,
    unavailable: Mapping[str, str] = MappingProxyType({}),
) -> Parsed:
    """Read the options of argv.

    Parameters
    ----------
    interspersed: options may follow arguments; otherwise everything from the first argument on is left alone, so that
        the options of a container's command are its own.
    unavailable: names that are refused, with the reason, where others are unknown.

    Raises
    ------
    OptionError: an unknown option, a missing value, a flag with a value that is neither true nor false.
    """
    if isinstance(argv, Question):
        raise Answer(groups, interspersed=interspersed)
    rows = {name: option for group in groups for option in group.options for name in option.spelling.split(", ")}
    words: dict[str, list[str]] = {}
    spellings: dict[str, str] = {}
    arguments: list[str] = []

    def note(option: Option, word: str) -> None:
        if not option.metavar and word not in TRUTH:
            raise OptionError(f'invalid value "{word}" for {option.spelling}: say true or false')
        key = option.key
        spellings[key] = option.spelling
        words.setdefault(key, []).append(word)

    rest = iter(argv)
    for word in rest:
        if word == "--":
            arguments.extend(rest)
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            option = rows.get(name)
            if option is None:
                if name in unavailable:
                    raise OptionError(f"option not available: {name}: {unavailable[name]}")
                raise OptionError(f"unknown option: {name}{nearest(name, (row for row in rows if len(row) > 2))}")
            if not equals:
                value = _following(option, name, rest) if option.metavar else "true"
            note(option, value)
        elif word.startswith("-") and word != "-":
            for position, letter in enumerate(word[1:], start=1):
                option = rows.get(f"-{letter}")
                if option is None:
                    if f"-{letter}" in unavailable:
                        raise OptionError(f"option not available: -{letter}: {unavailable[f'-{letter}']}")
                    # `-name x` is one dash short of what was meant more often than a cluster of five flags.
                    hint = f"; did you mean -{word}?" if f"-{word.partition('=')[0]}" in rows else ""
                    raise OptionError(f"unknown option: -{letter} in {word}{hint}")
                tail = word[position + 1 :]
                if option.metavar:
                    note(option, tail.removeprefix("=") if tail else _following(option, f"-{letter}", rest))
                    break
                if tail.startswith("="):
                    note(option, tail[1:])
                    break
                note(option, "true")
        else:
            arguments.append(word)
            if not interspersed:
                arguments.extend(rest)
    return Parsed(words, spellings, arguments)


def _following(option: Option, name: str, rest: Iterator[str]) -> str:
    """Take an option's value from the next word, whatever that looks like: `--memory-swap -1` is good."""
    word = next(rest, None)
    if word is None:
        raise OptionError(f"option needs a value: {name} {option.metavar}")
    return word


def render_help(usage: str, summary: str, groups: Sequence[Group], *, ending: str = "") -> str:
    """Return a command's help: usage, what it does, each group of options with one entry an option."""
    from textwrap import wrap

    lines = [f"Usage:  {usage}", "", summary]
    for group in groups:
        lines += ["", f"{group.title}:"]
        for option in group.options:
            # Options without a short name are indented to stand below the long names of the others.
            indent = "  " if not option.spelling.startswith("--") else "      "
            left = f"{indent}{option.spelling} {option.metavar}".rstrip()
            texts = wrap(option.help, HELP_WIDTH - HELP_COLUMN, break_on_hyphens=False)
            if len(left) >= HELP_COLUMN - 1:
                lines.append(left)
                left = ""
            lines.append(f"{left:<{HELP_COLUMN}}{texts[0]}")
            lines += [f"{'':<{HELP_COLUMN}}{text}" for text in texts[1:]]
    if ending:
        lines += ["", ending]
    return "\n".join(lines)
