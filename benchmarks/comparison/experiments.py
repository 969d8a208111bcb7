"""Taking samples in turns, and keeping every one in results.json, so that a run that was stopped goes on.

An experiment is a question with several answers: contenders, perhaps at several sizes. Each round gives every one its
turn, so that what else the machine does falls on all. No sample is left out.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Experiment", "Measure", "Results", "Trial"]

FORMAT = 1
PAUSE = 0.05  # seconds before each turn: the kernel takes down namespaces and groups of the turn before


@dataclass(frozen=True, slots=True)
class Measure:
    """A kind of number: what it is, and its unit."""

    label: str
    unit: str


@dataclass(frozen=True, slots=True)
class Trial:
    """A contender at one size.

    kind: ``layers``, ``copy``, ``machine`` (a virtual one), ``peer`` or ``bare``: how it is drawn. run: does it once
    and returns the numbers by the names of measures. x: the size. rounds: how often it is measured; the slow ones less.
    """

    name: str
    kind: str
    run: Callable[[], Mapping[str, float]]
    x: float | None = None
    rounds: int = 10
    warm_up: int = 1


@dataclass(frozen=True, slots=True)
class Experiment:
    """A question.

    key: its name in results.json, ``part/name``. how: what was done, for readers. x: label of the axis of sizes.
    """

    key: str
    title: str
    how: str
    measures: Mapping[str, Measure]
    x: str | None = None


class Results:
    """Everything one run of the comparison found, in a file from the first sample on.

    Parameters
    ----------
    path: results.json; one that is there is gone on with, unless it is of other settings.
    """

    def __init__(self, path: Path, machine: Mapping[str, object], peers: Mapping[str, str | None], mode: str) -> None:
        self._path = path
        self.document: dict[str, Any] = {}
        if path.exists():
            self.document = json.loads(path.read_text())
            if (self.document.get("format"), self.document.get("mode")) != (FORMAT, mode):
                raise SystemExit(f"{path} is of a run with other settings: give another --out, or remove it")
        self.document.setdefault("format", FORMAT)
        self.document.setdefault("mode", mode)
        self.document.setdefault("made", time.strftime("%Y-%m-%d"))
        self.document["machine"] = dict(machine)
        self.document["peers"] = dict(peers)
        self.document.setdefault("experiments", {})
        self.document.setdefault("notes", [])
        self._save()

    def _save(self) -> None:
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self.document, indent=1) + "\n")
        part.replace(self._path)

    def has(self, key: str) -> bool:
        """Whether an experiment was made already."""
        return key in self.document["experiments"]

    def note(self, text: str) -> None:
        """Keep what a reader must know: what was left out, and why."""
        if text not in self.document["notes"]:
            self.document["notes"].append(text)
            print(f"  note: {text}", flush=True)
            self._save()

    def fact(self, key: str, value: object) -> None:
        """Keep something that is no sample, such as a table."""
        self.document.setdefault("facts", {})[key] = value
        self._save()

    def run(self, experiment: Experiment, trials: Sequence[Trial]) -> None:
        """Take the samples of an experiment, unless they are there."""
        if self.has(experiment.key):
            print(f"{experiment.title}: kept from before")
            return
        begun = time.monotonic()
        series = [_Series(trial, self) for trial in trials]
        most = max((trial.rounds + trial.warm_up for trial in trials), default=0)
        for turn in range(most):
            for one in series:
                one.take(turn)
            _progress(f"{experiment.title}: round {turn + 1} of {most}")
        seconds = time.monotonic() - begun
        _progress(f"{experiment.title}: {seconds:.0f} s", end=True)
        self.put(experiment, [one.document() for one in series if one.values], seconds)

    def put(self, experiment: Experiment, series: list[dict[str, Any]], seconds: float) -> None:
        """Keep samples that were taken elsewhere. series: name, kind, x, values by measure, load."""
        self.document["experiments"][experiment.key] = {
            "title": experiment.title,
            "how": experiment.how,
            "x": experiment.x,
            "measures": {name: {"label": one.label, "unit": one.unit} for name, one in experiment.measures.items()},
            "series": series,
            "seconds": round(seconds, 1),
        }
        self._save()


class _Series:
    """The samples of one trial."""

    def __init__(self, trial: Trial, results: Results) -> None:
        self._trial = trial
        self._results = results
        self._broken = False
        self.values: dict[str, list[float]] = {}
        self._load: list[float] = []

    def take(self, turn: int) -> None:
        trial = self._trial
        if self._broken or turn >= trial.rounds + trial.warm_up:
            return
        time.sleep(PAUSE)
        try:
            found = trial.run()
        except (OSError, subprocess.CalledProcessError, RuntimeError) as error:
            self._broken = True
            self._results.note(f"{trial.name} does not work here: {_reason(error)}")
            return
        if turn < trial.warm_up:
            return
        self._load.append(round(os.getloadavg()[0], 2))
        for name, value in found.items():
            self.values.setdefault(name, []).append(value)

    def document(self) -> dict[str, Any]:
        trial = self._trial
        return {"name": trial.name, "kind": trial.kind, "x": trial.x, "values": self.values, "load": self._load}


def _reason(error: Exception) -> str:
    said = getattr(error, "stderr", None)
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return (text or str(error)).strip().splitlines()[-1][:200] if (text or str(error)).strip() else repr(error)


def _progress(text: str, *, end: bool = False) -> None:
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text}", end="\n" if end else "", flush=True)
    elif end:
        print(text, flush=True)
