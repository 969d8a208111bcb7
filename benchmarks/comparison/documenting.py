"""The latest run in the documentation: `python -m benchmarks document RESULTS` writes its part of benchmarks.md."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.comparison.claims import claims
from benchmarks.comparison.page import about_machine, alone, pictures

__all__ = ["document", "section"]

BEGIN = "<!-- begin: written by `python -m benchmarks document` -->"
END = "<!-- end -->"
# The pictures that are shown, in their order; all of them are in the report.
SHOWN = (
    "start-time-time",
    "start-cost-disk",
    "many-instances-total",
    "shipping-update-bytes",
    "costs-write-time",
    "costs-layers-time",
    "anatomy-peers-time",
    "anatomy-trace-time",
)


def document(results: Path, docs: Path) -> int:
    """Put a results.json into docs/benchmarks.md and docs/pictures; 0, or 1 when there is no place for it."""
    found = json.loads(results.read_text())
    page = docs / "benchmarks.md"
    text = page.read_text()
    if BEGIN not in text or END not in text.partition(BEGIN)[2]:
        print(f"{page} has no lines {BEGIN} and {END} between which it is to be written")
        return 1
    drawn = {name: alone(svg) for name, svg in pictures(found) if name in SHOWN}
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    directory = docs / "pictures"
    directory.mkdir(exist_ok=True)
    for old in directory.glob("*.svg"):
        if old.stem not in drawn:
            old.unlink()
    for name, svg in drawn.items():
        (directory / f"{name}.svg").write_text(svg)
    page.write_text(f"{before}{BEGIN}\n{''.join(section(found, list(drawn)))}{END}{after}")
    print(f"{page} and {len(drawn)} pictures tell of {results}")
    return 0


def section(found: dict[str, Any], drawn: list[str]) -> Iterator[str]:
    """Yield the lines of the documentation. drawn: the pictures that there are."""
    yield f"\n{about_machine(found)}\n\n"
    yield "".join(f"- {claim}\n" for claim in claims(found))
    for name in SHOWN:
        if name in drawn:
            part, experiment, _measure = name.rsplit("-", 2)
            title = found["experiments"][f"{part}/{experiment}"]["title"]
            yield f"\n![{title}](pictures/{name}.svg)\n"
    if found["notes"]:
        yield "\nWhat a reader must know:\n\n"
        yield "".join(f"- {note}\n" for note in found["notes"])
    yield "\n"
