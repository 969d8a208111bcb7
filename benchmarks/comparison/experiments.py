"""Taking samples in turns, and keeping every one in results.json, so that a run that was stopped goes on.

An experiment is a question with several answers: contenders, perhaps at several sizes. Each round gives every one its
turn, so that what else the machine does falls on all. No sample is left out. Turns end by count, and by the clock.
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

from benchmarks.comparison.clock import Clock, level
from pyrtc.errors import PyrtcError

__all__ = ["Experiment", "Measure", "Results", "Trial"]

FORMAT = 2
_LATER = "not measured, the time was up; the same command again goes on"
FEWEST = 3  # samples that even the slow have, if the time of their experiment allows
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
    and returns the numbers by the names of measures. x: the size. rounds: how often it is measured at most; what takes
    long, less often. warm_up: turns before that do not count.
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
    """Everything one run of the comparison found, in a file from the first round on.

    Parameters
    ----------
    path: results.json; one that is there is gone on with, unless it is of other settings.
    """

    def __init__(self, path: Path, machine: Mapping[str, object], peers: Mapping[str, str | None], mode: str) -> None:
        self._path = path
        self._clock: Clock | None = None
        self.document: dict[str, Any] = {}
        if path.exists():
            self.document = json.loads(path.read_text())
            if (self.document.get("format"), self.document.get("mode")) != (FORMAT, mode):
                raise SystemExit(f"{path} is of a run with other settings: give another --out, or remove it")
            done = sum(map(self.has, self.document["experiments"]))
            begun = len(self.document["experiments"]) - done
            print(f"{path} is gone on with: {done} experiments are there, {begun} more were begun", flush=True)
        self.document.setdefault("format", FORMAT)
        self.document.setdefault("mode", mode)
        self.document.setdefault("made", time.strftime("%Y-%m-%d"))
        self.document["machine"] = dict(machine)
        self.document["peers"] = dict(peers)
        self.document.setdefault("experiments", {})
        # What was missing in the run before may be there now; what is missing still will be said again.
        self.document["notes"] = []
        self._save()

    def limit(self, clock: Clock) -> None:
        """Have everything from now on end by a clock."""
        self._clock = clock

    def deadline(self, key: str) -> float:
        """Return when an experiment is to be over, by time.monotonic; asked once, when it begins."""
        return float("inf") if self._clock is None else self._clock.deadline(key)

    def _save(self) -> None:
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self.document, indent=1) + "\n")
        part.replace(self._path)

    def has(self, key: str) -> bool:
        """Whether an experiment was made already, all of it."""
        found = self.document["experiments"].get(key)
        return found is not None and not found["unfinished"]

    def is_settled(self, experiment: Experiment) -> bool:
        """Whether nothing is to be prepared for an experiment: it is there, or there is no time for it."""
        if self.has(experiment.key):
            print(f"{experiment.title}: kept from before", flush=True)
            return True
        if self._clock is not None and self._clock.is_over:
            self.note(f"{experiment.title}: {_LATER}")
            return True
        return False

    def note(self, text: str) -> None:
        """Keep what a reader must know: what was left out, and why."""
        if text not in self.document["notes"]:
            self.document["notes"].append(text)
            _progress(f"  note: {text}", end=True)
            self._save()

    def doing(self, text: str) -> None:
        """Say what is prepared."""
        _progress(text, end=not sys.stdout.isatty())

    def progress(self, text: str) -> None:
        """Say on a terminal how far something is."""
        _progress(text)

    def fact(self, key: str, value: object) -> None:
        """Keep something that is no sample, such as a table."""
        self.document.setdefault("facts", {})[key] = value
        self._save()

    def run(self, experiment: Experiment, trials: Sequence[Trial]) -> None:
        """Take the samples of an experiment that are not there: as many as trials ask for, or as its time allows.

        What takes little has all its turns. What takes long shares what is left, and has fewer.
        """
        if self.is_settled(experiment):
            return
        deadline, begun = self.deadline(experiment.key), time.monotonic()
        kept = self.document["experiments"].get(experiment.key, {"series": [], "seconds": 0.0})
        before = {(one["name"], one["x"]): one for one in kept["series"]}
        series = [_Series(trial, self, before.get((trial.name, trial.x))) for trial in trials]
        if before:
            _progress(
                f"{experiment.title}: gone on with, {sum(one.count for one in series)} samples are there", end=True
            )
        most = max((one.left for one in series), default=0)
        limit = "" if deadline == float("inf") else f", {deadline - begun:.0f} s at most"
        self.doing(f"{experiment.title}: {len(series)} to be measured{limit}")
        for turn in range(most):
            remaining = deadline - time.monotonic()
            each = level([one.left * one.cost for one in series], remaining)
            going = [one for one in series if one.left and one.has_time(each, remaining)]
            if not going or (self._clock is not None and self._clock.is_over):
                break
            for one in going:
                # The first turns of all may take longer than there is; each is had once.
                if one.count == 0 or time.monotonic() < deadline:
                    one.take()
            seconds = kept["seconds"] + time.monotonic() - begun
            self.put(experiment, [one.document() for one in series if one.values], seconds, unfinished=True)
            left = "" if deadline == float("inf") else f", {max(0.0, deadline - time.monotonic()):.0f} s left"
            _progress(f"{experiment.title}: round {turn + 1} of {most}{left}")
        missing = [one.label for one in series if one.count == 0 and not one.is_broken]
        if missing:
            self.note(f"{experiment.title}: {', '.join(missing)}: {_LATER}")
        seconds = kept["seconds"] + time.monotonic() - begun
        _progress(f"{experiment.title}: {seconds:.0f} s", end=True)
        # What was not measured at all is gone on with by the next run.
        self.put(experiment, [one.document() for one in series if one.values], seconds, unfinished=bool(missing))

    def put(
        self, experiment: Experiment, series: list[dict[str, Any]], seconds: float, *, unfinished: bool = False
    ) -> None:
        """Keep samples. series: name, kind, x, values by measure, load. unfinished: there are to be more."""
        self.document["experiments"][experiment.key] = {
            "title": experiment.title,
            "how": experiment.how,
            "x": experiment.x,
            "measures": {name: {"label": one.label, "unit": one.unit} for name, one in experiment.measures.items()},
            "series": series,
            "seconds": round(seconds, 1),
            "unfinished": unfinished,
        }
        self._save()


class _Series:
    """The samples of one trial."""

    def __init__(self, trial: Trial, results: Results, before: dict[str, Any] | None) -> None:
        self._trial = trial
        self._results = results
        self._warm_up = trial.warm_up
        self._spent: list[float] = []
        self.is_broken = False
        self.values: dict[str, list[float]] = before["values"] if before else {}
        self._load: list[float] = before["load"] if before else []

    @property
    def label(self) -> str:
        return self._trial.name if self._trial.x is None else f"{self._trial.name} at {self._trial.x:g}"

    @property
    def count(self) -> int:
        return len(self._load)

    @property
    def left(self) -> int:
        """How many turns it wants still."""
        return 0 if self.is_broken else self._warm_up + max(0, self._trial.rounds - self.count)

    @property
    def cost(self) -> float:
        """Seconds of a turn, everything around it included; 0 before the first."""
        return sum(self._spent) / len(self._spent) if self._spent else 0.0

    def has_time(self, each: float, remaining: float) -> bool:
        """Whether it has another turn when every one may have so many seconds, and all so many remain."""
        if self.count < FEWEST:
            return self.count == 0 or remaining > 0
        return self.cost <= each

    def take(self) -> None:
        """Have a turn."""
        begun = time.monotonic()
        time.sleep(PAUSE)
        try:
            found = self._trial.run()
        except (OSError, subprocess.CalledProcessError, RuntimeError, PyrtcError) as error:
            self.is_broken = True
            self._results.note(f"{self.label} does not work here: {_reason(error)}")
            return
        finally:
            self._spent.append(time.monotonic() - begun)
        if self._warm_up:
            self._warm_up -= 1
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
