"""What templates can call, and how values are written: as Go's fmt and text/template do."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["FUNCTIONS", "go_text"]


def go_text(value: object) -> str:
    """Write a value as Go's fmt does."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{go_text(value[key])}' for key in sorted(value))}]"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(map(go_text, value))}]"
    return str(value)


def _index(value: Any, *keys: Any) -> object:  # noqa: ANN401
    for key in keys:
        if value is None:
            raise ValueError("index of untyped nil")
        if isinstance(value, Mapping):
            value = value.get(key)
            continue
        if not isinstance(value, (list, tuple, str)) or not isinstance(key, int) or isinstance(key, bool):
            raise TypeError(f"can't index {go_text(value)[:40]} with {go_text(key)}")
        if not 0 <= key < len(value):
            raise IndexError(f"index out of range: {key}")
        value = value[key]
    return value


def _label(labels: Any, name: str) -> object:  # noqa: ANN401
    """Return one label, out of a document's mapping or out of a list's ``a=b,c=d``; empty where there is none."""
    if labels == "LABELS":  # a table's heading: the last part of the name, as Docker has it
        return name.rpartition(".")[2].replace("-", " ").replace("_", " ")
    if isinstance(labels, str):
        labels = dict(pair.partition("=")[::2] for pair in labels.split(","))
    return (labels or {}).get(name, "")


def _slice(value: Any, start: int = 0, end: int | None = None) -> object:  # noqa: ANN401
    if not 0 <= start <= (len(value) if end is None else end) <= len(value):
        raise IndexError("slice index out of range")
    return value[start:end]


def _print(*values: object, end: str = "") -> str:
    """Go's Sprint puts a blank between two operands that are no strings, Sprintln between all."""
    if end:
        return " ".join(map(go_text, values)) + end
    parts: list[str] = []
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            parts.append(" ")
        parts.append(go_text(value))
    return "".join(parts)


def _printf(form: str, *values: object) -> str:
    left = list(values)

    def fill(match: re.Match[str]) -> str:
        if match[2] == "%":
            return "%"
        if not left:
            raise ValueError(f"missing value for {match[0]}")
        value = left.pop(0)
        if match[2] == "d" and not isinstance(value, int):
            raise ValueError(f"{match[0]} needs a whole number, not {go_text(value)[:40]}")
        if match[2] == "q":
            return f"%{match[1]}s" % json.dumps(go_text(value), ensure_ascii=False)
        return f"%{match[1]}{'s' if match[2] == 'v' else match[2]}" % (value if match[2] in "df" else go_text(value))

    text = re.sub(r"%([-0-9.]*)([sdvqf%])", fill, form)
    if left:
        raise ValueError(f"{len(left)} values too many for {form!r}")
    return text


def _compare(test: Callable[[Any, Any], bool]) -> Callable[..., bool]:
    return lambda left, right: test(left, right)


def _and(*values: object) -> object:
    return next((value for value in values if not value), values[-1])


def _or(*values: object) -> object:
    return next((value for value in values if value), values[-1])


FUNCTIONS: dict[str, Callable[..., object]] = {
    "and": _and,
    "eq": lambda first, *others: any(first == other for other in others),
    "ge": _compare(lambda left, right: left >= right),
    "gt": _compare(lambda left, right: left > right),
    "index": _index,
    "label": _label,
    "join": lambda values, separator: str(separator).join(map(go_text, values or ())),
    "json": lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
    "le": _compare(lambda left, right: left <= right),
    "len": lambda value: len(value) if value is not None else 0,
    "lower": lambda value: str(value).lower(),
    "lt": _compare(lambda left, right: left < right),
    "ne": _compare(lambda left, right: left != right),
    "not": lambda value: not value,
    "or": _or,
    "pad": lambda text, before, after: " " * before + str(text) + " " * after if text else text,
    "print": _print,
    "printf": _printf,
    "println": lambda *values: _print(*values, end="\n"),
    "slice": _slice,
    "split": lambda text, separator: str(text).split(str(separator)),
    "title": lambda value: str(value).title(),
    "truncate": lambda text, size: str(text)[:size],
    "upper": lambda value: str(value).upper(),
}
