"""Results as a table, as a verdict on what must be reached, and as JSON."""

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import Series

__all__ = ["Goal", "Report"]


@dataclass(frozen=True, slots=True)
class Goal:
    """Something that must be reached: value is to stay at or below limit, or with at_least to be at or above it."""

    text: str
    value: float
    limit: float
    unit: str = ""
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(slots=True)
class Report:
    """Everything one run of a benchmark found."""

    title: str
    regime: str
    sections: list[tuple[str, list[Series]]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def section(self, title: str, series: Iterable[Series]) -> None:
        """Add a group of contenders that took turns, and print it."""
        group = list(series)
        self.sections.append((title, group))
        print(f"\n{title}")
        width = max(len(one.name) for one in group)
        print(f"  {'':{width}}  {'median':>9} {'best':>9} {'p90':>9}")
        for one in group:
            figures = f"{one.median:9.2f} {one.best:9.2f} {one.p90:9.2f}"
            print(f"  {one.name:{width}}  {figures}  {one.unit} (n={len(one.values)})")

    def goal(self, text: str, value: float, limit: float, unit: str = "x", *, at_least: bool = False) -> None:
        """Add something that must be reached."""
        self.goals.append(Goal(text, value, limit, unit, at_least))

    def note(self, text: str) -> None:
        """Add what a reader must know of this run: what was left out and why."""
        self.notes.append(text)
        print(f"  note: {text}")

    def finish(self, target: Path | None) -> bool:
        """Print the verdict and write the JSON file; returns whether every goal was met."""
        print("\nWhat must be reached")
        width = max((len(goal.text) for goal in self.goals), default=0)
        for goal in self.goals:
            relation = ">=" if goal.at_least else "<="
            word = "met" if goal.met else "MISSED"
            print(f"  {goal.text:{width}}  {goal.value:8.2f} {relation} {goal.limit:g} {goal.unit:3}  {word}")
        if target is not None:
            target.write_text(json.dumps(self._document(), indent=1) + "\n")
        return all(goal.met for goal in self.goals)

    def _document(self) -> dict[str, object]:
        return {
            "title": self.title,
            "regime": self.regime,
            "machine": {
                "kernel": platform.release(),
                "architecture": platform.machine(),
                "processors": os.cpu_count(),
                "python": platform.python_version(),
            },
            "sections": [
                {
                    "title": title,
                    "series": [
                        {
                            "name": one.name,
                            "unit": one.unit,
                            "median": one.median,
                            "best": one.best,
                            "values": one.values,
                        }
                        for one in group
                    ],
                }
                for title, group in self.sections
            ],
            "goals": [
                {
                    "text": goal.text,
                    "value": goal.value,
                    "limit": goal.limit,
                    "unit": goal.unit,
                    "at_least": goal.at_least,
                    "met": goal.met,
                }
                for goal in self.goals
            ],
            "notes": self.notes,
        }
