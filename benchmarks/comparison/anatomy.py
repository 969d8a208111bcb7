"""Part 5, start anatomy: where the microseconds of a start go, and what it does not depend on."""

import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pyrtc
from benchmarks.comparison.engines import Peer
from benchmarks.comparison.experiments import Experiment, Measure, Results, Trial
from benchmarks.comparison.images import Layer, layout, write_tree
from benchmarks.comparison.instances import Source
from benchmarks.launcher import Launcher
from benchmarks.measure import execute
from benchmarks.peers import Runtime, bubblewrap_words
from benchmarks.worker import Worker
from pyrtc.engine import Engine
from pyrtc.image.images import Images

__all__ = ["measure_anatomy"]

TIME = {"time": Measure("time from the request to the end", "ms")}


def measure_anatomy(
    results: Results, disk: Path, engine: Engine, source: Source, program: Path, peers: Sequence[Peer], *, quick: bool
) -> None:
    """Compare whole starts with the peers', take pyrtc's apart, and vary what might matter."""
    _peers(results, disk, engine, source, program, peers, quick=quick)
    _traced(results, engine, source, quick=quick)
    _layers(results, disk, engine, program, quick=quick)
    _beside(results, engine, source, quick=quick)
    _callers(results, engine, source, quick=quick)


def _ours(engine: Engine, image: str) -> Mapping[str, float]:
    begin = time.perf_counter()
    pyrtc.run(image, ["/bin/workload", "first"], engine=engine, check=True)
    return {"time": (time.perf_counter() - begin) * 1000}


def _timed(words: Sequence[str | Path]) -> Mapping[str, float]:
    begin = time.perf_counter()
    try:
        execute(*words)
    except subprocess.CalledProcessError:
        # What it says went nowhere; asked again, it is heard.
        subprocess.run(words, check=True, capture_output=True)
        raise
    return {"time": (time.perf_counter() - begin) * 1000}


def _peers(
    results: Results, disk: Path, engine: Engine, source: Source, program: Path, peers: Sequence[Peer], *, quick: bool
) -> None:
    experiment = Experiment(
        "anatomy/peers",
        "A whole start, and what others need for theirs",
        "From the request to the end of the workload, which writes one word. pyrtc is called in a Python process, the "
        "others are spawned. bwrap, crun and runc get the tree ready on the disk. What each isolates stands in the "
        "table of part 6; who isolates less than pyrtc.run has a star.",
        TIME,
    )
    if results.is_settled(experiment):
        return
    rounds = 15 if quick else 60
    trials = [Trial("fork+exec", "bare", partial(_timed, [program, "first"]), rounds=rounds)]
    trials.append(Trial("pyrtc.run", "layers", partial(_ours, engine, source.name), rounds=rounds, warm_up=3))
    words = bubblewrap_words(source.tree.path, "/bin/workload", "first")
    if words is not None:
        trials.append(Trial("bwrap", "peer", partial(_timed, words), rounds=rounds))
    else:
        results.note("bwrap is not here: its rows are missing")
    launcher = Launcher()
    try:
        for name in ("crun", "runc"):
            if Runtime.installed(name):
                command = ("/bin/workload", "first")
                runtime = Runtime(name, disk / "anatomy", source.tree.path, launcher, command=command)
                trials.append(Trial(name, "peer", partial(_said, runtime.run), rounds=rounds))
            else:
                results.note(f"{name} is not here: its rows are missing")
        for peer in peers:
            run = partial(_once, peer, source)
            trials.append(Trial(peer.short, "peer", run, rounds=max(6, rounds // 4)))
        results.run(experiment, trials)
    finally:
        launcher.close()


def _once(peer: Peer, source: Source) -> Mapping[str, float]:
    peer.prepare(source)
    return _timed(peer.once(source, "/bin/workload", "first"))


def _said(run: "object") -> Mapping[str, float]:
    assert callable(run)
    return {"time": float(run())}


def _traced(results: Results, engine: Engine, source: Source, *, quick: bool) -> None:
    """Keep pyrtc's own trace of many starts: the median of each step."""
    experiment = Experiment(
        "anatomy/trace",
        "Where the time of a start goes",
        "pyrtc's own trace (pyrtc run --trace): each step of the caller and each operation of the first process, in "
        "their order. Green: steps of the caller; blue: operations of the first process. They overlap: the caller "
        "works on while the container is set up.",
        {"time": Measure("time of the step", "us")},
    )
    if results.is_settled(experiment):
        return
    results.deadline(experiment.key)  # it takes a second or two, and leaves the rest to others
    begun = time.monotonic()
    found: dict[tuple[str, str], list[float]] = {}
    for turn in range(20 if quick else 100):
        done = pyrtc.run(source.name, ["/bin/workload", "first"], engine=engine, check=True, trace=True)
        spent: dict[tuple[str, str], float] = {}
        for step in done.trace if turn > 2 else ():
            # A container's name is another one each time; what is done twice in a start counts together.
            key = (step.where, re.sub(r" [0-9a-f]{12}$", "", step.name))
            spent[key] = spent.get(key, 0.0) + step.microseconds
        for key, microseconds in spent.items():
            found.setdefault(key, []).append(microseconds)
    series: list[dict[str, object]] = [
        {
            "name": name,
            "kind": where,
            "x": None,
            "values": {"time": values},
            "load": [],
        }
        for (where, name), values in found.items()
    ]
    results.put(experiment, series, time.monotonic() - begun)


def _layers(results: Results, disk: Path, engine: Engine, program: Path, *, quick: bool) -> None:
    experiment = Experiment(
        "anatomy/layers",
        "The start beside the number of layers",
        "pyrtc.run of an image whose layers hold one file each.",
        TIME,
        x="layers",
    )
    if results.is_settled(experiment):
        return
    trials = []
    counts = (1, 10, 60, 127)
    parts = [Layer(write_tree(disk / "thin/0", 1, program).path)]
    for number in range(1, max(counts)):
        parts.append(Layer(write_tree(disk / f"thin/{number}", 100, None, seed=number + 1).path))
    written: dict[Layer, tuple[dict[str, object], str]] = {}
    for count in counts:
        layout(disk / "thin/layout", f"thin-{count}", parts[:count], written=written)
        Images(engine.store).load(f"oci:{disk}/thin/layout:thin-{count}")
        run = partial(_ours, engine, f"thin-{count}")
        trials.append(Trial("pyrtc.run", "layers", run, x=count, rounds=15 if quick else 40, warm_up=2))
    results.run(experiment, trials)


def _beside(results: Results, engine: Engine, source: Source, *, quick: bool) -> None:
    experiment = Experiment(
        "anatomy/running",
        "The start beside other containers that run",
        "pyrtc.run while so many detached containers of the same image run and sleep.",
        TIME,
        x="containers that run",
    )
    if results.is_settled(experiment):
        return
    results.deadline(experiment.key)  # it takes some ten seconds, and leaves the rest to others
    trials_of = partial(_ours, engine, source.name)
    series: list[dict[str, object]] = []
    begun = time.monotonic()
    with ExitStack() as stack:
        running = 0
        for count in (0, 20) if quick else (0, 50, 200):
            while running < count:
                container = engine.containers.run(source.name, ["/bin/workload", "sleep"])
                stack.callback(container.remove, force=True)
                running += 1
            values = []
            for turn in range(-2, 15 if quick else 40):
                time.sleep(0.05)
                found = trials_of()["time"]
                if turn >= 0:
                    values.append(found)
            series.append({"name": "pyrtc.run", "kind": "layers", "x": count, "values": {"time": values}, "load": []})
    results.put(experiment, series, time.monotonic() - begun)


def _callers(results: Results, engine: Engine, source: Source, *, quick: bool) -> None:
    experiment = Experiment(
        "anatomy/caller",
        "The start beside the caller's size",
        "pyrtc.run from a process with so much memory in use and 16 threads, and fork+exec from the same process "
        "with "
        "os.fork.",
        TIME,
        x="memory of the caller (MB)",
    )
    if results.is_settled(experiment):
        return
    sizes = (1, 500) if quick else (1, 500, 2000, 4000)
    with ExitStack() as stack:
        trials = []
        for size in sizes:
            worker = Worker(engine.store.path, source.name, size, 16, "/bin/workload", "first")
            stack.callback(worker.close)
            for name, kind, run in (("pyrtc.run", "layers", worker.run), ("os.fork, exec", "bare", worker.fork)):
                trials.append(Trial(name, kind, partial(_said, run), x=size, rounds=15 if quick else 40, warm_up=2))
        results.run(experiment, trials)
