"""One run of the comparison: everything that is needed is made, measured and removed."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from benchmarks.comparison.anatomy import measure_anatomy
from benchmarks.comparison.clock import Clock
from benchmarks.comparison.costs import measure_costs
from benchmarks.comparison.engines import Engines
from benchmarks.comparison.experiments import Results
from benchmarks.comparison.guest import make_guest
from benchmarks.comparison.images import Layer, compile_workload, disk_image, layout, write_tree
from benchmarks.comparison.instances import Machine, Source, Way, ways
from benchmarks.comparison.isolation import find_isolation
from benchmarks.comparison.many import measure_many
from benchmarks.comparison.page import alone, page, pictures
from benchmarks.comparison.shipping import measure_shipping
from benchmarks.comparison.starts import measure_starts
from pyrtc.engine import Engine
from pyrtc.image.images import Images

__all__ = ["PARTS", "QUICK_DISK", "WHOLE_DISK", "compare_all", "write_report"]

PARTS = ("start", "many", "shipping", "costs", "anatomy", "isolation")
SIZES, QUICK_SIZES = (2, 120, 600, 2048), (2, 60)  # MB
QUICK_DISK, WHOLE_DISK = 12 << 30, 40 << 30  # bytes, sparse: every form of every image, and 10 GB of instances
LANDMARK = 120  # MB: the image of parts 2, 5 and 6
QUICK_SECONDS, WHOLE_SECONDS = 100, 18 * 60  # everything but the end: removing, and drawing
# About the seconds that each takes of a whole run and of a quick one, what it prepares included; clock.py.
WEIGHTS = {
    "start/time": (380, 30),
    "start/cost": (150, 10),
    "many/instances": (150, 8),
    "anatomy/peers": (60, 8),
    "anatomy/trace": (3, 1),
    "anatomy/layers": (15, 4),
    "anatomy/running": (15, 3),
    "anatomy/caller": (30, 3),
    "costs/write": (90, 8),
    "costs/layers": (80, 12),
    "shipping/update": (120, 20),
}


def compare_all(results: Results, disk: Path, parts: Sequence[str], *, quick: bool) -> None:
    """Measure the parts that results does not have yet. disk: an empty file system."""
    chosen = [key for key in WEIGHTS if key.split("/")[0] in parts and not results.has(key)]
    seconds = QUICK_SECONDS if quick else WHOLE_SECONDS
    results.limit(Clock(seconds, {key: WEIGHTS[key][quick] for key in chosen}))
    scratch = disk / "compared"
    scratch.mkdir()
    program = compile_workload(scratch)
    with ExitStack() as stack, Engine(disk / "store") as engine:
        sources = {}
        of_starts = "start" in parts and not (results.has("start/time") and results.has("start/cost"))
        for megabytes in QUICK_SIZES if quick else SIZES:
            if of_starts or megabytes in (LANDMARK, *QUICK_SIZES):
                results.doing(f"an image of {megabytes} MB: tree, disk, layout")
                sources[megabytes] = _source(scratch, engine, program, megabytes)
        landmark = sources.get(LANDMARK) or sources[max(QUICK_SIZES)]
        engines = Engines(disk)
        stack.callback(engines.close)
        for reason in engines.missing:
            results.note(reason)
        found = ways(disk, engine)
        if of_starts:
            results.doing("a virtual machine")
            machine = _machine(results, scratch, sources[min(sources)])
            every = [*found[:3], *([machine] if machine else []), *found[3:], *engines.found]
            measure_starts(results, disk, list(sources.values()), every, quick=quick)
        if "many" in parts:
            measure_many(results, disk, landmark, found, most=40 if quick else 200, seconds=3 if quick else 60)
        if "isolation" in parts:
            find_isolation(results, disk, engine, landmark, program, engines.found)
        if "anatomy" in parts:
            measure_anatomy(results, disk, engine, landmark, program, engines.found, quick=quick)
        if "costs" in parts:
            measure_costs(results, disk, engine, program, quick=quick)
        if "shipping" in parts:
            base = 40_000_000 if quick else 200_000_000
            measure_shipping(results, disk, program, base=base, new=base // 20, quick=quick)


def _source(scratch: Path, engine: Engine, program: Path, megabytes: int) -> Source:
    name = f"image-{megabytes}"
    tree = write_tree(scratch / f"tree-{megabytes}", megabytes << 20, program)
    with ThreadPoolExecutor(1) as pool:
        disk = pool.submit(disk_image, scratch / f"disk-{megabytes}.img", tree)
        layout(scratch / "layout", name, [Layer(tree.path)])
        Images(engine.store).load(f"oci:{scratch / 'layout'}:{name}")
        return Source(name, megabytes, tree, disk.result(), scratch / "layout")


def _machine(results: Results, scratch: Path, source: Source) -> Way | None:
    """Return a virtual machine that boots: with KVM if that works, else without."""
    if not shutil.which("qemu-system-x86_64"):
        results.note("no virtual machine: qemu-system-x86_64 is missing")
        return None
    try:
        kernel, initrd = make_guest(scratch / "guest")
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        results.note(f"no virtual machine: {error}")
        return None
    reason = "/dev/kvm is missing or closed"
    for kvm in (True, False):
        if kvm and not os.access("/dev/kvm", os.R_OK | os.W_OK):
            continue
        machine = Machine(scratch, kernel, initrd, kvm=kvm)
        try:
            machine.start(source, 0).end()
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            reason = str(error)
            continue
        if not kvm:
            results.note(f"virtual machines run without KVM, many times slower than with it: {reason}")
        return machine
    results.note(f"no virtual machine: {reason}")
    return None


def write_report(results: Results, out: Path) -> Path:
    """Write report.html and its pictures; returns the page."""
    target = out / "report.html"
    target.write_text(page(results.document))
    directory = out / "pictures"
    directory.mkdir(exist_ok=True)
    for name, svg in pictures(results.document):
        (directory / f"{name}.svg").write_text(alone(svg))
    return target
