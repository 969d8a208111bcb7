"""What containers cost that live: `python -m benchmarks life`."""

import compileall
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pyrtc
from benchmarks.launcher import Launcher, hybrid_mounts
from benchmarks.measure import Contender, Series, Settings, execute, round_robin
from benchmarks.peers import PYRTC, Podman, Runtime
from benchmarks.report import Report
from pyrtc.image.images import Images

__all__ = ["measure"]

IDLE = ("sleep", "infinity")
# A process 1 that ends on SIGTERM, as a server does; without a handler the kernel ignores the signal for it.
POLITE = ("sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1 & wait $!; done")
MANY, MOST = 200, 500  # containers that run at once
SNAPSHOT_MEGABYTES, COMMIT_MEGABYTES = 500, 200
WRITE = "dd if=/dev/urandom of=/data bs=1M count={} status=none && sync /data && touch /done && echo written"


class _Bench:
    def __init__(self, settings: Settings, report: Report, engine: pyrtc.Engine, launcher: Launcher) -> None:
        self.settings, self.report, self.engine, self.launcher = settings, report, engine, launcher
        self.image = settings.image

    def take_turns(self, title: str, contenders: list[Contender], rounds: int) -> dict[str, Series]:
        taken = round_robin(contenders, rounds, warm_up=2, pause=self.settings.pause)
        self.report.section(title, taken.values())
        return taken

    def detached(self, *command: str) -> pyrtc.Container:
        """Start a container that belongs to nobody."""
        return self.engine.containers.run(self.image, command or IDLE)


def measure(settings: Settings, report: Report) -> None:
    """Measure everything this machine allows."""
    store = settings.disk / "store"
    compileall.compile_dir(Path(pyrtc.__file__).parent, quiet=1)
    with pyrtc.Engine(store) as engine, ExitStack() as ending:
        Images(engine.store).load(f"oci:{settings.layout}:{settings.image}")
        launcher = Launcher()
        ending.callback(launcher.close)
        if hybrid_mounts():
            report.note("crun and podman see control groups of version 1 only: they refuse both versions at once")
        bench = _Bench(settings, report, engine, launcher)
        for part in (_execute, _detach, _end, _crowd, _snapshot, _commit):
            part(bench)


def _execute(bench: _Bench) -> None:
    with ExitStack() as ending:
        own = bench.detached()
        ending.callback(own.remove, force=True)

        def execute_true() -> None:
            own.exec(["true"], check=True)

        contenders = [Contender("Container.exec(['true'])", execute_true)]
        if Runtime.installed("crun"):
            rootfs = bench.settings.disk / "rootfs"
            rootfs.mkdir()
            own.export(bench.settings.disk / "rootfs.tar")
            execute("tar", "-xpf", bench.settings.disk / "rootfs.tar", "-C", rootfs)
            crun = Runtime("crun", bench.settings.disk, rootfs, bench.launcher)
            name = crun.sleeper()
            ending.callback(crun.remove, name)
            contenders.append(Contender("crun exec", partial(crun.exec_true, name)))
        taken = bench.take_turns("true in a container that runs (ms)", contenders, bench.settings.rounds)
    if "crun exec" in taken:
        ratio = taken["Container.exec(['true'])"].median / taken["crun exec"].median
        bench.report.goal("exec in a running container to crun exec", ratio, 0.5)


def _detach(bench: _Bench) -> None:
    started: list[pyrtc.Container] = []

    def clear() -> None:
        while started:
            started.pop().remove(force=True)

    contenders = [Contender("containers.run, detached", lambda: started.append(bench.detached()), after=clear)]
    podman = _podman(bench)
    if podman is not None:
        engine, image = podman
        words = engine.run_detached(image, "pyrtc-benchmark-detach", *IDLE)
        remove = engine.words("rm", "-f", "-t", "0", "pyrtc-benchmark-detach")
        contenders.append(
            Contender(
                "podman run -d", lambda: bench.launcher.run(words) * 1000, after=lambda: bench.launcher.run(remove)
            )
        )
    taken = bench.take_turns("a detached container, until its command runs (ms)", contenders, bench.settings.rounds)
    bench.report.goal("run -d from Python", taken["containers.run, detached"].median, 6, "ms")


def _end(bench: _Bench) -> None:
    waiting: list[pyrtc.Container] = []

    def prepare() -> None:
        container = bench.detached(*POLITE)
        container.wait_for(log="ready", timeout=10)
        waiting.append(container)

    def end() -> None:
        container = waiting.pop()
        container.stop()
        container.remove()

    contenders = [Contender("Container.stop() and remove()", end, before=prepare)]
    podman = _podman(bench)
    if podman is not None:
        engine, image = podman
        name = "pyrtc-benchmark-end"
        run = engine.run_detached(image, name, *POLITE)

        def prepare_podman() -> None:
            bench.launcher.run(run)
            time.sleep(0.3)  # until its handler is there

        def end_podman() -> float:
            return 1000 * sum(bench.launcher.run(engine.words(*words)) for words in (("stop", name), ("rm", name)))

        contenders.append(Contender("podman stop, podman rm", end_podman, before=prepare_podman))
    taken = bench.take_turns(
        "stop and rm; process 1 ends on SIGTERM (ms)", contenders, max(5, bench.settings.rounds // 3)
    )
    bench.report.goal("stop and rm", taken["Container.stop() and remove()"].median, 15, "ms")


def _crowd(bench: _Bench) -> None:
    """Measure beside containers that do nothing: memory, starts, and the list of them."""

    def run() -> None:
        pyrtc.run(bench.image, ["true"], engine=bench.engine, check=True)

    alone = _samples(bench, run)
    crowd: list[pyrtc.Container] = []
    try:
        crowd += [bench.detached() for _ in range(MANY)]
        memory = [_beside(container) for container in crowd]
        bench.report.section(
            f"memory beside an idle detached container, {MANY} running (PSS, KiB)",
            [Series("everything of pyrtc, per container", "KiB", tuple(memory))],
        )
        bench.report.goal("memory beside a detached container", statistics.fmean(memory), 600, "KiB")
        crowd += [bench.detached() for _ in range(MOST - MANY)]
        crowded = _samples(bench, run)
        bench.report.section(
            "pyrtc.run(image, ['true']) (ms)",
            [Series("nothing else runs", "ms", alone), Series(f"{MOST} containers run", "ms", crowded)],
        )
        ratio = statistics.median(crowded) / statistics.median(alone)
        bench.report.goal(f"a start beside {MOST} containers to one alone", ratio, 1.5)
        words = (PYRTC, "--root", bench.settings.disk / "store", "ps")
        taken = bench.take_turns(
            f"pyrtc ps, {MOST} containers, the whole command (ms)",
            [Contender("pyrtc ps", partial(execute, *words))],
            15,
        )
        bench.report.goal(f"ps with {MOST} containers", taken["pyrtc ps"].median, 80, "ms")
    finally:
        for container in crowd:
            container.remove(force=True)


def _samples(bench: _Bench, run: Callable[[], None]) -> tuple[float, ...]:
    return round_robin([Contender("run", run)], bench.settings.rounds, pause=bench.settings.pause)["run"].values


def _beside(container: pyrtc.Container) -> float:
    """Return the proportional set size of the processes of pyrtc that are there for this container."""
    monitor = container.record.monitor_pid
    for line in Path(f"/proc/{monitor}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return float(line.split()[1])
    raise RuntimeError(f"/proc/{monitor}/smaps_rollup does not tell the proportional set size")


@contextmanager
def _written(bench: _Bench, megabytes: int) -> Iterator[pyrtc.Container]:
    """Give a container that has written so much, and sleeps."""
    container = bench.detached("sh", "-c", f"{WRITE.format(megabytes)}; exec sleep infinity")
    try:
        container.wait_for(log="written", timeout=120)
        yield container
    finally:
        container.remove(force=True)


def _snapshot(bench: _Bench) -> None:
    rounds = max(3, bench.settings.rounds // 10)
    taken = []
    for _ in range(rounds):
        with _written(bench, SNAPSHOT_MEGABYTES) as container:
            container.stop(timeout=0)
            begin = time.perf_counter()
            snapshot = container.snapshot()
            done = pyrtc.run(snapshot, ["stat", "-c", "%s", "/data"], engine=bench.engine, check=True)
            taken.append((time.perf_counter() - begin) * 1000)
            if int(done.stdout) != SNAPSHOT_MEGABYTES << 20:
                raise RuntimeError("the sibling does not see what the container wrote")
        bench.engine.snapshots.remove(snapshot.id)
    bench.report.section(
        f"snapshot of {SNAPSHOT_MEGABYTES} MB of a stopped container, and a sibling's run (ms)",
        [Series("snapshot and run", "ms", tuple(taken))],
    )
    bench.report.goal("snapshot and a sibling's run", statistics.median(taken), 20, "ms")


def _commit(bench: _Bench) -> None:
    rounds = max(3, bench.settings.rounds // 10)
    name = "pyrtc-benchmark-commit"
    with ExitStack() as ending:
        own = ending.enter_context(_written(bench, COMMIT_MEGABYTES))
        made: list[str] = []

        def clear() -> None:
            while made:
                bench.engine.images.remove(made.pop())

        contenders = [Contender("Container.commit()", lambda: made.append(own.commit().id), after=clear)]
        podman = _podman(bench)
        if podman is not None:
            engine, image = podman
            write = f"{WRITE.format(COMMIT_MEGABYTES)}; exec sleep infinity"
            bench.launcher.run(engine.run_detached(image, name, "sh", "-c", write))
            ending.callback(bench.launcher.run, engine.words("rm", "-f", "-t", "0", name))
            wait = "until test -e /done; do sleep 0.1; done"
            bench.launcher.run(engine.words("exec", name, "sh", "-c", wait))
            commit = engine.words("commit", "-q", name, "localhost/pyrtc-benchmark-commit")
            contenders.append(
                Contender(
                    "podman commit",
                    lambda: bench.launcher.run(commit) * 1000,
                    after=lambda: bench.launcher.run(engine.words("rmi", "localhost/pyrtc-benchmark-commit")),
                )
            )
        taken = bench.take_turns(f"commit of {COMMIT_MEGABYTES} MB (ms)", contenders, rounds)
    if "podman commit" in taken:
        ratio = taken["Container.commit()"].median / taken["podman commit"].median
        bench.report.goal("commit to podman commit", ratio, 0.5)


def _podman(bench: _Bench) -> tuple[Podman, str] | None:
    if not Podman.installed():
        return None
    podman = Podman(bench.settings.disk / "podman")
    return podman, podman.pull(f"oci:{bench.settings.layout}:{bench.image}")
