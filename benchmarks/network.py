"""What networks cost: `python -m benchmarks network`, in a network namespace of this program's own.

Another machine is a second namespace behind a veth pair. Nothing here touches this machine's own devices and rules.
"""

import json
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyrtc
from benchmarks.launcher import Launcher
from benchmarks.measure import Contender, Series, Settings, execute, round_robin
from benchmarks.peers import Podman
from benchmarks.report import Report
from pyrtc.image.images import Images

__all__ = ["measure"]

HERE, THERE = "198.51.100.1", "198.51.100.2"
PORT = 5201  # iperf3's
WORKERS, EACH = 8, 25
IN_A_ROW = 25
SECONDS = 1  # of one measurement of throughput
QUERIES = 2000
# Asks the name server so often, and prints the microseconds that each answer took.
ASK = """
import socket, sys, time
name, count = sys.argv[1], int(sys.argv[2])
question = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\\0\\0\\1\\0\\1"
query = b"\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + question
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.connect(("127.0.0.11", 53))
for _ in range(count):
    begin = time.perf_counter()
    s.send(query)
    answer = s.recv(512)
    print((time.perf_counter() - begin) * 1e6)
    assert answer[3] & 15 == 0 and answer[7] == 1, answer
"""


class _Bench:
    def __init__(self, settings: Settings, report: Report, engine: pyrtc.Engine, outside: int) -> None:
        self.settings, self.report, self.engine, self.image = settings, report, engine, settings.image
        self.outside = ["nsenter", f"--net=/proc/{outside}/ns/net", "--"]

    def run(self, **options: Any) -> None:  # noqa: ANN401  (keywords of run)
        """Run `true`, from the call to the result."""
        pyrtc.run(self.image, ["true"], engine=self.engine, check=True, **options)

    def contender(self, name: str, **options: Any) -> Contender:  # noqa: ANN401
        """Return that under a name."""
        return Contender(name, lambda: self.run(**options))


def measure(settings: Settings, report: Report) -> None:
    """Measure everything this machine allows."""
    Path("/run/pyrtc").mkdir(parents=True, exist_ok=True)
    execute("mount", "-t", "tmpfs", "tmpfs", "/run/pyrtc")
    execute("ip", "link", "set", "lo", "up")
    with ExitStack() as ending:
        outside = ending.enter_context(_outside())
        engine = ending.enter_context(pyrtc.Engine(settings.disk / "store"))
        Images(engine.store).load(f"oci:{settings.layout}:{settings.image}")
        engine.networks.create("named")
        bench = _Bench(settings, report, engine, outside)
        for part in (_starts, _parallel, _ends, _command_line, _throughput, _names):
            part(bench)


@contextmanager
def _outside() -> Iterator[int]:
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "ip link set lo up; echo; exec sleep 1000000"],
                              stdout=subprocess.PIPE)  # fmt: skip
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        pid = str(holder.pid)
        execute("ip", "link", "add", "wan0", "type", "veth", "peer", "name", "wan1", "netns", pid)
        execute("ip", "addr", "add", f"{HERE}/24", "dev", "wan0")
        execute("ip", "link", "set", "wan0", "up")
        there = ("nsenter", f"--net=/proc/{pid}/ns/net", "--", "ip")
        execute(*there, "addr", "add", f"{THERE}/24", "dev", "wan1")
        execute(*there, "link", "set", "wan1", "up")
        yield holder.pid
    finally:
        holder.kill()
        holder.communicate()


def _starts(bench: _Bench) -> None:
    none = "network none"
    contenders = [
        bench.contender(none),
        bench.contender("network bridge", network="bridge"),
        bench.contender("a network with names", network="named"),
        bench.contender("bridge, one port published", ports=[80]),
    ]
    turns = max(2, bench.settings.rounds // IN_A_ROW) * 2
    taken = round_robin(contenders, turns, in_a_row=IN_A_ROW, pause=0.5)
    bench.report.section(f"pyrtc.run(image, ['true']), {IN_A_ROW} in a row (ms)", taken.values())
    for name, text in (
        ("network bridge", "a bridge adds to a start"),
        ("a network with names", "a network with names adds"),
        ("bridge, one port published", "a published port adds, with its bridge"),
    ):
        more = taken[name].median - taken[none].median
        if name == "network bridge":
            bench.report.goal(text, more, 2.0, "ms")
        else:
            bench.report.note(f"{text} {more:.2f} ms")


def _parallel(bench: _Bench) -> None:
    errors: list[BaseException] = []

    def rate(**options: Any) -> float:  # noqa: ANN401
        begin = time.perf_counter()
        with ThreadPoolExecutor(WORKERS) as pool:
            for future in [pool.submit(bench.run, **options) for _ in range(WORKERS * EACH)]:
                if (error := future.exception()) is not None:
                    errors.append(error)
        return WORKERS * EACH / (time.perf_counter() - begin)

    contenders = [
        Contender("network none", rate),
        Contender("network bridge", lambda: rate(network="bridge")),
    ]
    taken = round_robin(contenders, 3, warm_up=1, pause=1.0, unit="starts/s", more_is_better=True)
    bench.report.section(f"{WORKERS} threads, {WORKERS * EACH} containers (starts per second)", taken.values())
    bench.report.goal(f"{WORKERS} parallel starters: errors", len(errors), 0, "")


def _ends(bench: _Bench) -> None:
    """What giving a network back adds to the end of a container, as its caller waits for it."""

    def ended(**options: Any) -> Contender:  # noqa: ANN401
        waiting: list[pyrtc.Running] = []

        def prepare() -> None:
            made = pyrtc.RunOptions(command=("sleep", "1000000"), **options)
            waiting.append(bench.engine.start(bench.image, made, stdin=None, stdout=None, stderr=None))

        return Contender(str(options.get("network", "none")), lambda: waiting.pop().close(), before=prepare)

    bridge = (pyrtc.NetworkAttachment("bridge"),)
    contenders = [ended(), ended(network="bridge", networks=bridge)]
    taken = round_robin(contenders, bench.settings.rounds, warm_up=2, pause=bench.settings.pause)
    bench.report.section("killing a container until it is gone (ms)", taken.values())
    bench.report.goal("a bridge adds to an end", taken["bridge"].median - taken["none"].median, 1.0, "ms")


def _command_line(bench: _Bench) -> None:
    if not Podman.installed():
        return
    launcher = Launcher()
    try:
        podman = Podman(bench.settings.disk / "podman")
        image = podman.pull(f"oci:{bench.settings.layout}:{bench.image}")
        without = podman.run_true(image)
        at = without.index("none")
        with_bridge = [*without[:at], "bridge", *without[at + 1 :]]
        store = bench.settings.disk / "store"
        own = ("--root", store, "run", "--rm")
        from benchmarks.peers import PYRTC

        contenders = [
            Contender("pyrtc run --rm", lambda: execute(PYRTC, *own, bench.image, "true")),
            Contender("pyrtc run --rm --network bridge",
                      lambda: execute(PYRTC, *own, "--network", "bridge", bench.image, "true")),
            Contender("podman run --rm --network none", lambda: launcher.run(without) * 1000),
            Contender("podman run --rm --network bridge", lambda: launcher.run(with_bridge) * 1000),
        ]  # fmt: skip
        try:
            contenders[-1].run()
        except subprocess.CalledProcessError as error:
            bench.report.note(f"podman has no bridge on this machine: exit code {error.returncode}")
            contenders.pop()
        taken = round_robin(contenders, max(5, bench.settings.rounds // 10), warm_up=1, pause=bench.settings.pause)
        bench.report.section("the whole command (ms)", taken.values())
        if len(contenders) == 4:
            ours, theirs = (
                taken[f"{name} run --rm --network bridge"].median - taken[without].median
                for name, without in (("pyrtc", "pyrtc run --rm"), ("podman", "podman run --rm --network none"))
            )
            bench.report.goal("a bridge in the whole command to podman's", ours / theirs, 0.5)
    finally:
        launcher.close()


def _throughput(bench: _Bench) -> None:
    """From this machine and from the other one, to a container and to a server without one."""
    server = ["iperf3", "--server"]
    if subprocess.run(["which", "iperf3"], stdout=subprocess.DEVNULL, check=False).returncode:
        bench.report.note("no iperf3 here: throughput is not measured")
        return

    plain = subprocess.Popen([*server, "--port", str(PORT + 1)], stdout=subprocess.DEVNULL)
    try:
        with pyrtc.Container("host", server, engine=bench.engine, ports={PORT: PORT}) as running:
            running.wait_for(port=PORT, timeout=20)
            address = _address(running)
            contenders = [
                Contender("this machine to the container", lambda: _gigabits(address)),
                Contender("this machine to the published port", lambda: _gigabits(HERE)),
                Contender("another machine to a server here", lambda: _gigabits(HERE, *bench.outside, port=PORT + 1)),
                Contender("another machine to the published port", lambda: _gigabits(HERE, *bench.outside)),
            ]
            rounds = max(9, bench.settings.rounds // 4)
            taken = round_robin(contenders, rounds, warm_up=1, pause=0.2, unit="Gbit/s", more_is_better=True)
    finally:
        plain.terminate()
        plain.wait()
    bench.report.section("throughput of one TCP connection (Gbit/s)", taken.values())
    # Both ends and the kernel share the processors with whatever else there is: only what was measured within the same
    # seconds is compared.
    for name, direct in (
        ("this machine to the published port", "this machine to the container"),
        ("another machine to the published port", "another machine to a server here"),
    ):
        pairs = zip(taken[name].values, taken[direct].values, strict=True)
        share = statistics.median(published / other for published, other in pairs)
        bench.report.goal(f"{name}, of {direct}, median of pairs", share, 0.8, at_least=True)


def _address(container: pyrtc.Container) -> str:
    return container.inspect().endpoints[0].ip4


def _gigabits(address: str, *enter: str, port: int = PORT) -> float:
    words = [*enter, "iperf3", "--client", address, "--port", str(port), "--time", str(SECONDS), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    if "error" in found:
        raise RuntimeError(f"iperf3 to {address}: {found['error']}")
    bits: float = found["end"]["sum_received"]["bits_per_second"]
    return bits / 1e9


def _names(bench: _Bench) -> None:
    with pyrtc.Container("host", ["sleep", "1000000"], engine=bench.engine, network="named", name="neighbour"):
        done = pyrtc.run("host", ["python3", "-c", ASK, "neighbour", str(QUERIES)], network="named",
                         engine=bench.engine, check=True)  # fmt: skip
    values = tuple(float(line) / 1000 for line in done.stdout.split())
    bench.report.section(f"{QUERIES} questions for a neighbour's name, from the container (ms)",
                         [Series("127.0.0.11", "ms", values)])  # fmt: skip
    bench.report.goal("a local name, median", statistics.median(values), 0.2, "ms")
