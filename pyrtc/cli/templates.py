"""The part of Go's templates that people type after --format: fields, `json`, literal text, `table`."""

import json
import re
from collections.abc import Mapping, Sequence

from pyrtc.errors import UsageError

__all__ = ["printable", "render", "table"]

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_FIELD = re.compile(r"(?:(json)\s+)?\.((?:[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)*)?)")
_ESCAPES = {"\\t": "\t", "\\n": "\n"}


def render(template: str, values: Mapping[str, object], known: Sequence[str] | None = None) -> str:
    """Fill a template from values, by dotted path.

    Parameters
    ----------
    known: the fields there may be, for things of one shape; None: whatever values hold, and what is missing has no
    value.

    Raises
    ------
    UsageError: a field that cannot be, or an action that is none of `{{.Field}}`, `{{.Field.Inner}}` and `{{json
    .Field}}`.
    """

    def action(match: re.Match[str]) -> str:
        field = _FIELD.fullmatch(match[1])
        if field is None:
            raise UsageError(f"template parsing error: {match[0]}: write {{{{.Field}}}} or {{{{json .Field}}}}")
        value: object = values
        for name in field[2].split(".") if field[2] else ():
            if known is not None and name not in known:
                raise UsageError(f"template: can't evaluate field {name}; there are {', '.join(known)}")
            value = value.get(name) if isinstance(value, Mapping) else None
        return json.dumps(value, ensure_ascii=False) if field[1] else _go(value)

    for escape, character in _ESCAPES.items():
        template = template.replace(escape, character)
    return _ACTION.sub(action, template)


def _go(value: object) -> str:
    """Write a value as Go's fmt does."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{_go(value[key])}' for key in sorted(value))}]"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(map(_go, value))}]"
    return str(value)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Align columns as Docker does, three blanks between them; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def printable(text: str) -> str:
    """Escape what could steer the terminal: values come from images."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1] for letter in text)
