"""Part 4, what layers cost: the first write to a file below, reading through many layers, names, against copies.

Where full copies win, the figures say so: they have paid at the start.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyrtc
from benchmarks.comparison.experiments import Experiment, Measure, Results, Trial
from benchmarks.comparison.images import Layer, layout, write_tree
from pyrtc.engine import Engine
from pyrtc.image.images import Images

__all__ = ["measure_costs"]

FILES = 40 << 20  # bytes of all files of the images with many layers


def measure_costs(results: Results, disk: Path, engine: Engine, program: Path, *, quick: bool) -> None:
    """Measure first writes, mode changes and renames at every file size, and reading through many layers."""
    scratch = disk / "costs"
    scratch.mkdir()
    try:
        _first_writes(results, scratch, engine, program, quick=quick)
        _many_layers(results, scratch, engine, program, quick=quick)
    finally:
        shutil.rmtree(scratch)


# ---- one file -------------------------------------------------------------------------------------------------------


def _first_writes(results: Results, scratch: Path, engine: Engine, program: Path, *, quick: bool) -> None:
    experiment = Experiment(
        "costs/write",
        "The first change of a file in a lower layer",
        "Each sample is the first change in a new container, timed inside it: opening a file and writing one "
        "byte, which makes "
        "the kernel copy the whole file up; changing its mode, with that copy and, on a mount with metacopy=on that "
        "pyrtc does not use, without it; renaming it; and the write where --copy-up has copied it before the "
        "command ran. Beside it the same write in a container with a full copy, "
        "which "
        "copied everything before it began, and a plain copy of the file.",
        {"time": Measure("time of the operation", "ms")},
        x="size of the file (MB)",
    )
    if results.is_settled(experiment):
        return
    results.doing("files to write to")
    sizes = [10**3, 64 * 10**3, 10**6, 16 * 10**6] + ([] if quick else [128 * 10**6, 10**9])
    tree = write_tree(scratch / "files", 1 << 20, program).path
    block = os.urandom(1 << 16)
    for size in sizes:
        with (tree / f"file-{size}").open("wb") as file:
            for place in range(0, size, len(block)):
                file.write(block[: size - place])
    layout(scratch / "layout", "files", [Layer(tree)])
    Images(engine.store).load(f"oci:{scratch / 'layout'}:files")
    trials = []
    for size in sizes:
        rounds = 6 if quick or size > 32 * 10**6 else 10
        path = f"/file-{size}"
        run = partial(_inside, engine, "files")
        ways: list[tuple[str, str, Callable[[], Mapping[str, float]]]] = [
            ("write one byte, layers", "layers", partial(run, "write", path)),
            ("write one byte, copied up before (--copy-up)", "layers", partial(run, "write", path, copy_up=[path])),
            ("change the mode, layers", "layers", partial(run, "chmod", path)),
            ("rename, layers", "layers", partial(run, "rename", path, f"{path}-new")),
            ("change the mode, layers with metacopy", "peer", partial(_metacopy, scratch, tree, program, path)),
            ("copy the file", "copy", partial(_copy, scratch, tree / path[1:])),
        ]
        if size <= 16 * 10**6:  # each of these copies all files first
            ways.append(("write one byte, full copy", "copy", partial(run, "write", path, driver="copy")))
        trials += [Trial(name, kind, way, x=size / 1e6, rounds=rounds) for name, kind, way in ways]
    results.run(experiment, trials)
    Images(engine.store).remove("files")


def _inside(engine: Engine, image: str, *words: str, **options: Any) -> Mapping[str, float]:  # noqa: ANN401
    """Run the workload in a new container; returns what it timed."""
    done = pyrtc.run(image, ["/bin/workload", *words], engine=engine, check=True, **options)
    return {"time": int(done.stdout) / 1e6}


def _metacopy(scratch: Path, tree: Path, program: Path, path: str) -> Mapping[str, float]:
    base = scratch / "metacopy"
    for name in ("upper", "work", "merged"):
        (base / name).mkdir(parents=True)
    options = f"lowerdir={tree},upperdir={base}/upper,workdir={base}/work,metacopy=on"
    words: list[str | Path] = ["mount", "-t", "overlay", "-o", options, "none", base / "merged"]
    subprocess.run(words, check=True, capture_output=True)
    try:
        done = subprocess.run([program, "chmod", f"{base}/merged{path}"], check=True, capture_output=True, text=True)
    finally:
        subprocess.run(["umount", base / "merged"], check=True)
        shutil.rmtree(base)
    return {"time": int(done.stdout) / 1e6}


def _copy(scratch: Path, source: Path) -> Mapping[str, float]:
    target = scratch / "copied"
    begin = time.perf_counter()
    shutil.copyfile(source, target)
    taken = time.perf_counter() - begin
    target.unlink()
    return {"time": taken * 1000}


# ---- many layers ----------------------------------------------------------------------------------------------------


def _many_layers(results: Results, scratch: Path, engine: Engine, program: Path, *, quick: bool) -> None:
    experiment = Experiment(
        "costs/layers",
        "The same files in one layer or in many",
        f"{FILES >> 20} MB of small files, spread over so many layers. Timed inside a container: looking at every "
        "name, "
        "reading every file, both with warm caches; and from outside, the start of a container. Beside it the "
        "same in "
        "a full copy.",
        {"time": Measure("time of the operation", "ms")},
        x="layers",
    )
    if results.is_settled(experiment):
        return
    counts: Sequence[int] = (1, 10, 40) if quick else (1, 10, 50, 100)
    results.doing("images with many layers")
    trials = []
    for count in counts:
        name = f"layers-{count}"
        base = scratch / name
        parts = [write_tree(base / "0", FILES // count, program).path]
        parts += [write_tree(base / str(n), FILES // count, None, seed=n + 1).path for n in range(1, count)]
        layout(base / "layout", name, [Layer(part) for part in parts])
        Images(engine.store).load(f"oci:{base / 'layout'}:{name}")
        shutil.rmtree(base)
        for what, words in (("look at every name", ("walk", "/data")), ("read every file", ("read", "/data"))):
            layered = partial(_twice, engine, name, words)
            trials.append(Trial(f"{what}, layers", "layers", layered, x=count, rounds=6 if quick else 10))
            copied = partial(_twice, engine, name, words, driver="copy")
            trials.append(Trial(f"{what}, full copy", "copy", copied, x=count, rounds=6 if quick else 8))
        trials.append(Trial("start a container", "layers", partial(_start, engine, name), x=count, rounds=20))
    results.run(experiment, trials)
    for count in counts:
        Images(engine.store).remove(f"layers-{count}")


def _twice(engine: Engine, image: str, words: tuple[str, ...], **options: Any) -> Mapping[str, float]:  # noqa: ANN401
    """Time the second time that a container does something: the first fills the caches of the new mount."""
    options = {**options, "remove": True}
    with pyrtc.Container(image, ["/bin/workload", "sleep"], engine=engine, **options) as container:
        container.exec(["/bin/workload", *words], check=True)
        done = container.exec(["/bin/workload", *words], check=True)
    return {"time": int(done.stdout) / 1e6}


def _start(engine: Engine, image: str) -> Mapping[str, float]:
    begin = time.perf_counter()
    pyrtc.run(image, ["/bin/workload", "first"], engine=engine, check=True)
    return {"time": (time.perf_counter() - begin) * 1000}
