"""Lists as Docker prints them: aligned columns, templates or JSON; sizes, ages; the question before a prune."""

import sys
from collections.abc import Mapping, Sequence

__all__ = ["age", "agreed", "one_line", "print_rows", "printable", "size_text", "table"]


def print_rows(
    rows: Sequence[Mapping[str, object]], form: str, columns: Sequence[str], headings: Mapping[str, str]
) -> None:
    """Print rows of one shape.

    Parameters
    ----------
    form: ``table``, ``table TEMPLATE``, ``json`` (one object a line) or a template. columns: what a plain table shows.
    headings: of all fields that a row has.

    Raises
    ------
    UsageError: the template is none, or asks for another field.
    """
    fields = tuple(headings)
    if form == "table":
        cells = [tuple(one_line(str(values[column])) for column in columns) for values in (headings, *rows)]
        print(printable(table(cells)))
    elif form.startswith("table "):
        from pyrtc.cli.templates import render

        template = form.removeprefix("table ").strip()
        lines = [render(template, values, fields) for values in (headings, *rows)]
        cells = [tuple(line.split("\t")) for line in lines]
        print(printable(table(cells)))
    elif form == "json":
        import json

        for row in rows:
            print(json.dumps(row, separators=(",", ":"), sort_keys=True))
    else:
        from pyrtc.cli.templates import render

        # An empty list says nothing, but a wrong field is wrong in any case.
        render(form, headings, fields)
        for row in rows:
            print(printable(render(form, row, fields)))


def size_text(size: int) -> str:
    """Write a size as Docker does: three digits, powers of a thousand."""
    value, units = float(size), iter("BkMGTP")
    unit = next(units)
    while value >= 1000:
        value /= 1000
        unit = next(units)
    number = f"{value:.3g}" if value < 999.5 else f"{value:.0f}"
    return f"{number}{unit}" if unit == "B" else f"{number}{unit}B"


def agreed(which: str) -> bool:
    """Ask whether what is named may be removed."""
    print(f"WARNING! This will remove {which}.\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    return sys.stdin is not None and sys.stdin.readline().strip().lower() in ("y", "yes")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Align columns as Docker does, three blanks between them; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def printable(text: str) -> str:
    """Escape what could steer the terminal: values come from images."""
    if text.translate({ord("\n"): None, ord("\t"): None}).isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1] for letter in text)


def one_line(text: str) -> str:
    """Escape line ends, too, where a line is one thing: a name from a container must not look like two."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def age(seconds: float) -> str:
    """Return a length of time in words, rounded as Docker rounds it."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return _count(whole, "second")
    minutes = whole // 60
    if minutes < 60:
        return "About a minute" if minutes == 1 else _count(minutes, "minute")
    hours = round(seconds / 3600)
    if hours < 48:
        return "About an hour" if hours == 1 else _count(hours, "hour")
    if hours < 24 * 14:
        return _count(hours // 24, "day")
    if hours < 24 * 60:
        return _count(hours // 24 // 7, "week")
    if hours < 24 * 365 * 2:
        return _count(hours // 24 // 30, "month")
    return _count(hours // 24 // 365, "year")


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
