"""Variables and labels: `-e VAR[=VALUE]`, `--env-file`, `--label`, `--label-file`; the files follow Docker's rules."""

from collections.abc import Iterator, Mapping

from pyrtc.errors import UsageError

__all__ = ["Pair", "label", "label_file", "parse_env_lines", "read_lines", "variable", "variable_file"]

Pair = tuple[str, str]

MAX_FILE = 16 << 20


def variable(word: str, host: Mapping[str, str]) -> Pair | None:
    """Read `VAR=VALUE`, or `VAR` alone, which takes the value of the host; None where the host has none."""
    name, equals, value = word.partition("=")
    if not name:
        raise UsageError("no variable name; write VAR=VALUE, or VAR to pass on your own")
    if "\0" in word:
        raise UsageError("a variable cannot hold a NUL byte")
    if equals:
        return name, value
    return (name, host[name]) if name in host else None


def label(word: str) -> Pair:
    """Read `KEY=VALUE`, or `KEY` alone for an empty value."""
    key, _, value = word.partition("=")
    if not key:
        raise UsageError("no key; write KEY=VALUE")
    return key, value


def variable_file(path: str, host: Mapping[str, str]) -> tuple[Pair, ...]:
    """Read a file of variables: one a line, nothing quoted, `#` comments, `VAR` alone takes the value of the host."""
    return tuple(
        pair
        for name, value in parse_env_lines(read_lines(path))
        if (pair := (name, value) if value is not None else variable(name, host)) is not None
    )


def label_file(path: str) -> tuple[Pair, ...]:
    """Read a file of labels, one a line, as `variable_file` does; a key alone has an empty value."""
    return tuple((name, value or "") for name, value in parse_env_lines(read_lines(path)))


def read_lines(path: str) -> list[str]:
    """Return the lines of a text file.

    Raises
    ------
    UsageError: it cannot be read, is not UTF-8, or holds more than 16 MiB.
    """
    if "\0" in path:
        raise UsageError("cannot read it: its name has a NUL in it")
    try:
        with open(path, "rb") as file:  # noqa: PTH123  (pathlib costs milliseconds to import)
            data = file.read(MAX_FILE + 1)
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
    except OSError as error:
        raise UsageError(f"cannot read it: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"byte {error.start} is not UTF-8") from None
    if len(data) > MAX_FILE:
        raise UsageError("it is larger than 16 MiB")
    return [line.removesuffix("\r") for line in text.split("\n")]


def parse_env_lines(lines: list[str]) -> Iterator[tuple[str, str | None]]:
    """Yield name and value of each line that is no comment; the value is None where the line has no `=`.

    White space before the name is dropped, and nothing else: values keep their spaces and quotes.
    """
    for number, line in enumerate(lines, start=1):
        text = line.lstrip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not name:
            raise UsageError(f"line {number} has no variable name: {line!r}")
        if any(letter.isspace() for letter in name):
            raise UsageError(f"line {number}: the variable {name!r} contains white space")
        if "\0" in text:
            raise UsageError(f"line {number} contains a NUL byte")
        yield name, value if equals else None
