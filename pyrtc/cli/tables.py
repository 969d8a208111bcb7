"""Lists as Docker prints them: aligned columns, templates or JSON; sizes; the question before a prune."""

import sys
from collections.abc import Mapping, Sequence

__all__ = ["agreed", "print_rows", "size_text"]


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
    import json

    from pyrtc.cli.templates import printable, render, table

    fields = tuple(headings)
    if form == "table":
        cells = [tuple(str(values[column]) for column in columns) for values in (headings, *rows)]
        print(printable(table(cells)))
    elif form.startswith("table "):
        template = form.removeprefix("table ").strip()
        lines = [render(template, values, fields) for values in (headings, *rows)]
        cells = [tuple(line.split("\t")) for line in lines]
        print(printable(table(cells)))
    elif form == "json":
        for row in rows:
            print(json.dumps(row))
    else:
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
