"""What became slower from one results.json to another: `python -m benchmarks compare OLD NEW`.

Two runs find the machine in two states. What is not pyrtc's (copies with cp, other engines, fork+exec) tells by how
much: ratios of pyrtc's are divided by the middle ratio of those in the same experiment.
"""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.comparison.claims import ratios
from benchmarks.comparison.statistics import Ratio, ratio
from pyrtc.values import dataclass

__all__ = ["Change", "changes", "compare", "repeated"]

LIMIT = 1.15  # a change within this is noise on most machines
ENOUGH = 3  # samples of both runs, to call something worse or better
_OWN = "pyrtc"


@dataclass(frozen=True, slots=True)
class Change:
    """One series of both runs. ratio: new to old, with the machine's own change taken out."""

    experiment: str
    name: str
    measure: str
    x: float | None
    ratio: Ratio

    @property
    def is_worse(self) -> bool:
        """Whether the whole interval is beyond what noise explains; one or two samples explain nothing."""
        return self.ratio.count >= ENOUGH and self.ratio.low > LIMIT

    @property
    def is_better(self) -> bool:
        """The same, the other way round."""
        return self.ratio.count >= ENOUGH and self.ratio.high < 1 / LIMIT


def changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    """Yield what both runs have of pyrtc's."""
    for key, before in old["experiments"].items():
        after = new["experiments"].get(key)
        for measure in before["measures"] if after else ():
            pairs = [
                (series["name"], series["x"], ratio(match["values"][measure], series["values"][measure]))
                for series in before["series"]
                if series["values"].get(measure)
                and statistics.median(series["values"][measure]) > 0
                and (match := _match(after, series, measure)) is not None
            ]
            others = [found.value for name, _x, found in pairs if not name.startswith(_OWN)]
            scale = statistics.median(others) if others else 1.0
            for name, x, found in pairs:
                if name.startswith(_OWN):
                    scaled = Ratio(found.value / scale, found.low / scale, found.high / scale, found.count)
                    yield Change(key, name, measure, x, scaled)


def _match(experiment: dict[str, Any], series: dict[str, Any], measure: str) -> dict[str, Any] | None:
    for one in experiment["series"]:
        if (one["name"], one["x"]) == (series["name"], series["x"]) and one["values"].get(measure):
            found: dict[str, Any] = one
            return found if statistics.median(found["values"][measure]) > 0 else None
    return None


def repeated(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, Ratio, Ratio]]:
    """Yield every ratio that both reports have, with its name."""
    before = dict(ratios(old))
    for name, found in ratios(new):
        if name in before:
            yield name, before[name], found


def _print_repeated(old: dict[str, Any], new: dict[str, Any]) -> None:
    total = within = 0
    print("\nratios of both reports, and by how much the second differs")
    for name, before, after in repeated(old, new):
        # A ratio that doubles and one that halves are equally far from the same.
        change = after.value / before.value if before.value > 0 and after.value > 0 else 1.0
        is_far = max(change, 1 / change) > LIMIT
        total, within = total + 1, within + (not is_far)
        print(f"{name}: {before}, {after}: {(change - 1) * 100:+.0f} %{' DIFFERS' * is_far}")
    print(f"{within} of {total} ratios repeat within {(LIMIT - 1) * 100:.0f} %")


def compare(old: Path, new: Path) -> int:
    """Print every change; 1 when something became worse."""
    documents = [json.loads(path.read_text()) for path in (old, new)]
    if documents[0].get("mode") != documents[1].get("mode"):
        print(f"note: one run was {documents[0].get('mode')}, the other {documents[1].get('mode')}")
    worse = 0
    for change in changes(*documents):
        word = "WORSE" if change.is_worse else "better" if change.is_better else ""
        worse += change.is_worse
        size = "" if change.x is None else f" at {change.x:g}"
        print(f"{change.experiment:18} {change.name}{size}, {change.measure}: {change.ratio} {word}")
    _print_repeated(*documents)
    print(f"\n{worse} became worse by more than {(LIMIT - 1) * 100:.0f} %" if worse else "\nnothing became worse")
    return 1 if worse else 0
