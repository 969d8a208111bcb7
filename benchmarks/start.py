"""What a container's start costs: `python -m benchmarks start`."""

import compileall
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyrtc
from benchmarks.bundle import MEMORY, PIDS
from benchmarks.launcher import Launcher, hybrid_mounts
from benchmarks.measure import Contender, Series, Settings, execute, round_robin
from benchmarks.peers import PYRTC, Podman, Runtime, bubblewrap, docker_answers
from benchmarks.report import Report
from pyrtc.image.images import Images

__all__ = ["measure"]

LIMITS: dict[str, Any] = {"memory": MEMORY, "cpus": 1.0, "pids": PIDS}
WORKERS, EACH = 8, 50
IN_A_ROW = 50
SETTLE = 0.5  # seconds before a row: the kernel still takes down namespaces and groups of the row before
BIG_MEGABYTES, BIG_THREADS = 4096, 16
HELPER = Path(pyrtc.__file__).with_name("pyrtc-init")


@dataclass(slots=True)
class _Bench:
    settings: Settings
    report: Report
    engine: pyrtc.Engine
    rootfs: Path
    launcher: Launcher

    def take_turns(
        self, title: str, contenders: list[Contender | None], rounds: int | None = None, *, in_a_row: int = 1
    ) -> dict[str, Series]:
        """Measure those that are there, and add them to the report."""
        present = [contender for contender in contenders if contender is not None]
        pause = self.settings.pause if in_a_row == 1 else SETTLE
        taken = round_robin(present, rounds or self.settings.rounds, pause=pause, in_a_row=in_a_row)
        self.report.section(title, taken.values())
        return taken

    def pyrtc(self, name: str, image: str | None = None, **options: Any) -> Contender:  # noqa: ANN401  (keywords of run)
        """Return pyrtc.run of `true`, from the call to the result."""
        wanted = image or self.settings.image

        def run() -> None:
            pyrtc.run(wanted, ["true"], engine=self.engine, check=True, **options)

        return Contender(name, run)

    def runtime(self, name: str, *options: str, limits: bool = False) -> Contender | None:
        """Return crun or runc, where it is there and works."""
        if not Runtime.installed(name):
            return None
        runtime = Runtime(name, self.settings.disk, self.rootfs, self.launcher, limits=limits)
        return self.working(Contender(" ".join([name, *options, "run"]), lambda: runtime.run(*options)))

    def working(self, contender: Contender) -> Contender | None:
        """Return a peer if it works here; say so if not."""
        try:
            contender.run()
        except subprocess.CalledProcessError as error:
            self.report.note(f"{contender.name} does not work on this machine: exit code {error.returncode}")
            return None
        return contender


def measure(settings: Settings, report: Report) -> None:
    """Measure everything this machine allows."""
    with pyrtc.Engine(settings.disk / "store") as engine:
        Images(engine.store).load(f"oci:{settings.layout}:{settings.image}")
        image = engine.store.image(settings.image)
        rootfs = settings.disk / "rootfs"
        with engine.start(settings.image, pyrtc.RunOptions(command=("true",), driver="copy", remove=False)) as running:
            running.wait()
        copy = next((settings.disk / "store" / "containers").iterdir()) / "upper"
        execute("cp", "-a", copy, rootfs)
        engine.containers.remove(running.id)
        report.note(
            f"image {settings.image}: {len(image.layers)} layer(s); bwrap, crun and runc get its tree ready on disk"
        )
        if hybrid_mounts():
            report.note("crun, runc and podman see control groups of version 1 only: they refuse both versions at once")
        launcher = Launcher()
        try:
            bench = _Bench(settings, report, engine, rootfs, launcher)
            for part in (_plain, _limited, _big, _parallel, _command_line, _memory):
                part(bench)
        finally:
            launcher.close()


def _plain(bench: _Bench) -> None:
    contenders = [
        Contender("fork+exec, no container", partial(execute, "/bin/true")),
        bench.pyrtc("pyrtc.run, R/W layer on disk"),
        bench.pyrtc("pyrtc.run, R/W layer in memory", rw_layer="memory"),
        bench.pyrtc("pyrtc.run host", "host"),
        bubblewrap(bench.rootfs),
        bench.runtime("crun"),
        bench.runtime("crun", "--cgroup-manager=disabled"),
        bench.runtime("runc"),
    ]
    what = "true in a container, no limits; pyrtc: from the call to the result, peers: from spawn to exit"
    turns = max(2, bench.settings.rounds // IN_A_ROW) * 2
    warm = bench.take_turns(f"{what}; {IN_A_ROW} in a row (ms)", contenders, turns, in_a_row=IN_A_ROW)
    own = warm["pyrtc.run, R/W layer on disk"]
    bench.report.goal("pyrtc.run(image, ['true']), median", own.median, 3.0, "ms")
    _ratio(bench, "the same to bwrap --unshare-all", own, warm, "bwrap --unshare-all", 0.8)
    _ratio(bench, "the same to crun run", own, warm, "crun run", 0.4)
    pause = f"{bench.settings.pause * 1000:g} ms"
    cold = bench.take_turns(f"{what}; each after {pause} of rest, with cold caches (ms)", contenders)
    own = cold["pyrtc.run, R/W layer on disk"]
    _ratio(bench, f"after {pause}, to bwrap --unshare-all", own, cold, "bwrap --unshare-all", 1.0)
    _ratio(bench, f"after {pause}, to crun run", own, cold, "crun run", 0.4)


def _limited(bench: _Bench) -> None:
    taken = bench.take_turns(
        f"with limits: memory {MEMORY >> 20} MiB, 1 CPU, {PIDS} processes (ms)",
        [
            bench.pyrtc("pyrtc.run with limits", **LIMITS),
            bench.runtime("crun", limits=True),
            bench.runtime("runc", limits=True),
        ],
    )
    _ratio(bench, "with limits to crun with limits", taken["pyrtc.run with limits"], taken, "crun run", 0.8)


def _big(bench: _Bench) -> None:
    from benchmarks.worker import Worker

    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    if available < BIG_MEGABYTES + 1024:
        bench.report.note(f"no row for a process of {BIG_MEGABYTES} MiB: {available} MiB of memory are free")
        return
    store, image = bench.settings.disk / "store", bench.settings.image
    small, big = Worker(store, image, 1, 0), Worker(store, image, BIG_MEGABYTES, BIG_THREADS)
    try:
        taken = bench.take_turns(
            f"from a process of {BIG_MEGABYTES >> 10} GiB with {BIG_THREADS} threads (ms)",
            [Contender("small process", small.run), Contender("big process", big.run)],
        )
    finally:
        small.close()
        big.close()
    _ratio(bench, "big process to small process", taken["big process"], taken, "small process", 1.3)


def _parallel(bench: _Bench) -> None:
    def rate(run: Callable[[], object]) -> float:
        begin = time.perf_counter()
        with ThreadPoolExecutor(WORKERS) as pool:
            for future in [pool.submit(run) for _ in range(WORKERS * EACH)]:
                future.result()
        return WORKERS * EACH / (time.perf_counter() - begin)

    run = partial(pyrtc.run, bench.settings.image, ["true"], engine=bench.engine, check=True)
    contenders = [Contender("pyrtc.run", lambda: rate(run))]
    if bench.runtime("crun"):
        crun = Runtime("crun", bench.settings.disk, bench.rootfs, bench.launcher)
        contenders.append(Contender("crun run", lambda: crun.rate(WORKERS, EACH)))
    taken = round_robin(contenders, 5, warm_up=1, pause=1.0, unit="starts/s", more_is_better=True)
    bench.report.section(f"{WORKERS} threads, {WORKERS * EACH} containers (starts per second)", taken.values())
    if "crun run" in taken:
        ratio = taken["pyrtc.run"].median / taken["crun run"].median
        bench.report.goal(f"{WORKERS} threads: rate to crun's", ratio, 3.0, at_least=True)


def _command_line(bench: _Bench) -> None:
    # An installed package has its bytecode; in a tree it may be missing or old.
    compileall.compile_dir(HELPER.parent, quiet=1)
    image, store = bench.settings.image, bench.settings.disk / "store"
    contenders: list[Contender | None] = [
        Contender("pyrtc run --rm", partial(execute, PYRTC, "--root", store, "run", "--rm", image, "true"))
    ]
    if Podman.installed():
        podman = Podman(bench.settings.disk / "podman")
        words = podman.run_true(podman.pull(f"oci:{bench.settings.layout}:{image}"))
        contender = Contender("podman run --rm", lambda: bench.launcher.run(words) * 1000)
        contenders.append(bench.working(contender))
    if docker_answers():
        name = _docker_image(bench.rootfs)
        run = partial(execute, "docker", "run", "--rm", "--network", "none", name, "true")
        contenders.append(Contender("docker run --rm", run))
    taken = bench.take_turns(
        "the whole command, interpreter and all (ms)", contenders, max(10, bench.settings.rounds // 4)
    )
    bench.report.goal("pyrtc run --rm, median", taken["pyrtc run --rm"].median, 50, "ms")
    _ratio(bench, "the same to podman run --network none", taken["pyrtc run --rm"], taken, "podman run --rm", 0.4)


def _docker_image(rootfs: Path) -> str:
    with subprocess.Popen(["tar", "-C", rootfs, "-c", "."], stdout=subprocess.PIPE) as tar:
        words = ["docker", "import", "-", "pyrtc-benchmark:latest"]
        subprocess.run(words, stdin=tar.stdout, stdout=subprocess.DEVNULL, check=True)
    return "pyrtc-benchmark:latest"


def _memory(bench: _Bench) -> None:
    """Report the helper's size, and what of pyrtc stays in memory while a container runs."""
    options = pyrtc.RunOptions(command=("sleep", "60"), init=True)
    with bench.engine.start(bench.settings.image, options, stdin=None, stdout=None, stderr=None) as running:
        warden = next(pid for pid in _children() if _name(pid) == "pyrtc-warden")
        sizes = {"warden (one for all containers)": warden, "process 1 of --init": running.pid}
        series = [Series(name, "KiB", (_proportional_kib(pid),)) for name, pid in sizes.items()]
    bench.report.section("memory beside the command: proportional set size (KiB)", series)
    bench.report.goal("memory beside the workload, with --init", sum(one.median for one in series) / 1024, 1.0, "MiB")
    bench.report.goal("size of pyrtc-init", HELPER.stat().st_size / 1000, 150, "kB")


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _proportional_kib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return float(line.split()[1])
    raise RuntimeError(f"/proc/{pid}/smaps_rollup does not tell the proportional set size")


def _ratio(bench: _Bench, text: str, own: Series, taken: dict[str, Series], peer: str, limit: float) -> None:
    """Compare medians, where the peer is there."""
    if peer in taken:
        bench.report.goal(text, own.median / taken[peer].median, limit)
    else:
        bench.report.note(f"not compared: {text}: this machine does not have it")
