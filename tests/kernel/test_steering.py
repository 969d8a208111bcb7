"""Seeing what containers do and use, and changing their limits while they run."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ImageFactory

import pyrtc
from pyrtc import RunOptions, aio
from pyrtc.cli.main import main
from pyrtc.engine import Engine
from pyrtc.errors import ContainerError, ContainerNotFound, LimitError, UnsupportedError, UsageError
from pyrtc.options import RestartPolicy
from pyrtc.runtime.cgroups import Cgroup, detect

MIB = 1 << 20
MACHINE = detect()
HAS_GROUPS = MACHINE.mode != "none" and (MACHINE.unified is not None or "freezer" in MACHINE.places)
needs_groups = pytest.mark.skipif(not HAS_GROUPS, reason="needs control groups of this user's")
needs_no_groups = pytest.mark.skipif(HAS_GROUPS, reason="is about users who may not make control groups")


def need(*controllers: str) -> None:
    for controller in controllers:
        if controller not in MACHINE.places:
            pytest.skip(f"needs the {controller} controller: {'; '.join(MACHINE.missing[controller])}")


class Maker:
    """Starts detached containers, and removes them at the end."""

    def __init__(self, engine: Engine, image: str) -> None:
        self.engine = engine
        self.image = image
        self.made: list[pyrtc.Container] = []

    def __call__(self, *words: str, **options: object) -> pyrtc.Container:
        self.made.append(self.engine.containers.run(self.image, ["/probe", *words], **options))  # type: ignore[arg-type]
        return self.made[-1]


@pytest.fixture
def run(engine: Engine, image: ImageFactory) -> Iterator[Maker]:
    maker = Maker(engine, image())
    yield maker
    for container in maker.made:
        with contextlib.suppress(ContainerNotFound):
            container.remove(force=True, volumes=True)


def control(container: pyrtc.Container, controller: str, v1: str, v2: str) -> str:
    """Return what a control file of a container says."""
    group = Cgroup.open(container.id)
    place = group.hierarchy.places[controller]
    node = next(node for node in group.nodes if node.place is place)
    return Path(node.path, v1 if place.version == 1 else v2).read_text().strip()


# ---- stats ----------------------------------------------------------------------------------------------------------


@needs_groups
def test_stats(run: Maker) -> None:
    container = run("take", str(16 * MIB), ",", "spin", "1000", name="busy", memory="64m")
    time.sleep(0.2)
    found = container.stats(interval=0.4)
    assert (found.id, found.name) == (container.id, "busy")
    assert found.cpu_percent is not None and 20 < found.cpu_percent < 130
    assert found.cpu_seconds is not None and found.cpu_seconds > 0.1
    assert (found.received_bytes, found.sent_bytes) == (0, 0)
    assert found.pids == 1
    if "memory" in MACHINE.places:
        assert found.memory is not None and found.memory_limit == 64 * MIB
        assert found.memory_peak is not None and found.memory_peak >= 16 * MIB
        assert found.memory_percent == pytest.approx(found.memory / (64 * MIB) * 100)
    first = container.stats(interval=0)
    assert first.cpu_percent is None and first.cpu_seconds >= found.cpu_seconds  # type: ignore[operator]


@needs_groups
def test_stats_cost_little(run: Maker) -> None:
    container = run("sleep", "1000")
    container.stats(interval=0)
    begin = time.perf_counter()
    for _ in range(20):
        container.stats(interval=0)
    assert (time.perf_counter() - begin) / 20 < 0.02


@needs_groups
def test_half_a_cpu(run: Maker) -> None:
    need("cpu")
    container = run("spin", "1000", cpus=0.2)
    time.sleep(0.3)
    share = container.stats(interval=1.0).cpu_percent
    assert share is not None and share < 35


@needs_groups
def test_stats_of_one_that_was_begun_in_the_foreground(run: Maker) -> None:
    need("memory")
    done = run.engine.run(run.image, RunOptions(command=("/probe", "sleep", "0.5"), remove=False))
    container = run.engine.containers.get(done.id)
    run.made.append(container)
    container.start()
    assert container.stats(interval=0).memory is not None


def test_stats_without_a_limit_on_memory(run: Maker) -> None:
    need("memory")
    found = run("sleep", "1000").stats(interval=0)
    with open("/proc/meminfo") as file:
        assert found.memory_limit == int(file.readline().split()[1]) * 1024
    assert found.pids_limit is None


@needs_groups
def test_stats_again_and_again(run: Maker) -> None:
    container = run("spin", "0.6")
    found = list(container.stats(stream=True, interval=0.1))
    assert 3 <= len(found) <= 10
    assert found[0].cpu_percent is None and all(one.cpu_percent is not None for one in found[1:])
    with pytest.raises(ContainerError, match="not running"):
        container.stats()


@needs_groups
def test_stats_in_a_loop(run: Maker) -> None:
    container = aio.Container.of(run("spin", "0.5"))

    async def watch() -> tuple[object, int]:
        first = await container.stats(interval=0.05)
        return first.cpu_percent, len([one async for one in container.stats(stream=True, interval=0.1)])

    share, count = asyncio.run(watch())
    assert share is not None and 1 <= count <= 8


@needs_groups
def test_stats_on_the_command_line(
    run: Maker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("sleep", "1000", name="web")
    ended = run("exit", "3", name="old")
    ended.wait()
    monkeypatch.setenv("PYRTC_ROOT", run.engine.store.path)
    assert main(["stats", "--no-stream"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split("   ")[0] == "CONTAINER ID" and [row.split()[1] for row in rows] == ["web"]
    assert main(["stats", "--no-stream", "-a", "--format", "{{.Name}} {{.CPUPerc}} {{.PIDs}}"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "old -- --" and rows[1].startswith("web 0.0")
    assert main(["stats", "--no-stream", "nobody"]) == 1


@needs_no_groups
def test_stats_without_control_groups(run: Maker) -> None:
    found = run("sleep", "1000").stats()
    assert (found.cpu_percent, found.memory, found.pids, found.received_bytes) == (None, None, None, 0)


# ---- top ------------------------------------------------------------------------------------------------------------


def test_top(run: Maker) -> None:
    container = run("forks", "3", ",", "sleep", "1000")
    deadline = time.monotonic() + 10
    while len(found := container.top()) < 4:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    first = next(one for one in found if one.pid == container.pid)
    assert first.command == "/probe forks 3 , sleep 1000" and first.name == "probe"
    assert [one.ppid for one in found if one is not first] == [first.pid] * 3
    assert abs(first.started - time.time()) < 60 and first.threads == 1 and first.tty == ""
    assert first.uid == os.geteuid() and first.resident <= first.virtual
    container.stop(timeout=0)
    with pytest.raises(ContainerError, match="not running"):
        container.top()


def test_top_tells_nothing_of_others(run: Maker) -> None:
    one, other = run("sleep", "1000"), run("sleep", "1000")
    assert [found.pid for found in one.top()] == [one.pid]
    assert [found.pid for found in other.top()] == [other.pid]


def test_top_on_the_command_line(
    run: Maker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    container = run("sleep", "1000", ",", "words", "\x1b[2J\nsecond\tline", name="web")
    monkeypatch.setenv("PYRTC_ROOT", run.engine.store.path)
    assert main(["top", "web"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert row.split()[1] == str(container.pid) and row.endswith("words \\x1b[2J second line")
    assert main(["top", "web", "aux"]) == 0
    assert capsys.readouterr().out.split()[:4] == ["USER", "PID", "%CPU", "%MEM"]
    assert main(["top", "web", "-o", "pid,comm=NAME,nlwp"]) == 0
    assert capsys.readouterr().out.split() == ["PID", "NAME", "NLWP", str(container.pid), "probe", "1"]
    for words in (["-Z"], ["-o"], ["-o", "colour"], ["--forest"]):
        assert main(["top", "web", *words]) == 1
        assert "unknown" in (told := capsys.readouterr().err) or "needs a value" in told
    assert main(["top", "nobody"]) == 1 and main(["top"]) == 1


# ---- update ---------------------------------------------------------------------------------------------------------


@needs_groups
def test_update_what_runs(run: Maker) -> None:
    need("memory", "cpu", "pids")
    container = run("sleep", "1000", memory="64m", cpus=0.5, pids=50)
    assert container.update(memory="128m", cpus=0.25, pids=20, cpu_shares=512) == ()
    assert container.stats(interval=0).memory_limit == 128 * MIB
    assert container.stats(interval=0).pids_limit == 20
    assert control(container, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "25000"
    assert control(container, "cpu", "cpu.shares", "cpu.weight") == (
        "512" if MACHINE.places["cpu"].version == 1 else "59"
    )
    limits = container.options.limits
    assert (limits.memory, limits.cpus, limits.pids, limits.cpu_shares) == (128 * MIB, 0.25, 20, 512)
    container.update(memory="32m")  # down again
    assert container.stats(interval=0).memory_limit == 32 * MIB
    container.update(memory="96m", memory_swap="96m", memory_reservation="16m")
    assert container.stats(interval=0).memory_limit == 96 * MIB
    reservation = control(container, "memory", "memory.soft_limit_in_bytes", "memory.low")
    assert reservation == str(16 * MIB)


@needs_groups
def test_update_takes_limits_away(run: Maker) -> None:
    need("memory", "cpu", "pids")
    container = run("sleep", "1000", memory="64m", memory_reservation="16m", cpus=0.5, pids=50, cpu_shares=512)
    container.update(memory=None, memory_reservation=None, cpus=None, pids=None, cpu_shares=None)
    found = container.stats(interval=0)
    assert found.pids_limit is None and found.memory_limit > 64 * MIB  # type: ignore[operator]
    assert control(container, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] in ("-1", "max")
    assert control(container, "cpu", "cpu.shares", "cpu.weight") in ("1024", "100")
    limits = container.options.limits
    assert (limits.memory, limits.cpus, limits.pids, limits.cpu_shares) == (None, None, None, None)


@needs_groups
def test_update_of_cpus_to_run_on(run: Maker) -> None:
    need("cpuset")
    container = run("sleep", "1000")
    container.update(cpuset_cpus="0")
    assert control(container, "cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
    assert "Cpus_allowed_list:\t0\n" in Path(f"/proc/{container.pid}/status").read_text()
    container.update(cpuset_cpus=None)
    everywhere = Path("/proc/self/status").read_text().partition("Cpus_allowed_list:\t")[2].split()[0]
    assert f"Cpus_allowed_list:\t{everywhere}\n" in Path(f"/proc/{container.pid}/status").read_text()


@needs_groups
def test_update_holds_for_the_next_start(run: Maker) -> None:
    need("pids")
    container = run("sleep", "1000", pids=50)
    container.update(pids=20)
    container.restart(0)
    assert container.stats(interval=0).pids_limit == 20
    container.stop(0)
    container.update(pids=30, restart="on-failure:2")
    assert container.options.restart == RestartPolicy("on-failure", 2)
    container.start()
    assert container.stats(interval=0).pids_limit == 30
    assert [event.action for event in run.engine.events(filters={"event": "update"})] == ["update", "update"]


@needs_groups
def test_processes_enter_what_they_were_not_in(run: Maker) -> None:
    """In the foreground, on version 1, a container is only where its first limits needed it to be."""
    need("memory", "pids")
    engine = run.engine
    options = RunOptions(command=("/probe", "forks", "3", ",", "sleep", "1000"), remove=False)
    with engine.start(run.image, options, stdout=None, stderr=None) as running:
        run.made.append(container := engine.containers.get(running.id))
        warnings = container.update(memory="64m", pids=20)
        group = Cgroup.open(container.id)
        assert [("counted" in text) for text in warnings] == [True] * (MACHINE.places["memory"].version == 1)
        for controller in ("memory", "pids"):
            node = next(node for node in group.nodes if node.place is MACHINE.places[controller])
            assert set(node.process_ids()) == set(group.process_ids())
        assert group.stats().pids_limit == 20 and group.stats().memory_limit == 64 * MIB
    assert not any(Path(node.path).exists() for node in group.nodes)  # they go with the others


@needs_groups
def test_what_the_kernel_refuses_changes_nothing(run: Maker) -> None:
    need("memory", "cpu")
    if MACHINE.places["memory"].version == 2:
        pytest.skip("version 2 kills what does not fit into a new limit")
    container = run("take", str(60 * MIB), ",", "sleep", "1000", memory="128m", memory_swap="128m")
    deadline = time.monotonic() + 10
    while (container.stats(interval=0).memory or 0) < 50 * MIB:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(LimitError, match="memory"):
        container.update(cpus=0.5, memory="8m", memory_swap="8m")
    assert container.stats(interval=0).memory_limit == 128 * MIB
    assert control(container, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] in ("-1", "max")
    assert container.options.limits.memory == 128 * MIB and container.options.limits.cpus is None
    assert container.status == "running"


def test_updates_that_cannot_be(run: Maker) -> None:
    container = run("sleep", "1000", memory="64m", best_effort=True)
    for changes, text in (
        ({"memory": "1m"}, "minimum"),
        ({"memory_reservation": "128m"}, "reservation"),
        ({"cpus": 4096}, "range of CPUs"),
        ({"colour": "red"}, "colour"),
        ({"device_read_bps": [("/dev/null", "1m")]}, "block device|control group"),
        ({"restart": "sometimes"}, "no such policy"),
        ({}, "nothing to update"),
    ):
        with pytest.raises((UsageError, LimitError, UnsupportedError), match=text):
            container.update(**changes)  # type: ignore[arg-type]
    assert container.options.limits.memory == 64 * MIB
    passing = run("sleep", "1000", remove=True)
    with pytest.raises(UsageError, match="removed when it ends"):
        passing.update(restart="always")


@needs_no_groups
def test_update_without_control_groups(run: Maker) -> None:
    container = run("sleep", "1000")
    with pytest.raises(UnsupportedError, match="control group"):
        container.update(pids=20)
    assert container.options.limits.pids is None
    container.update(restart="always")
    assert container.options.restart.name == "always"


@needs_groups
def test_update_on_the_command_line(
    run: Maker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need("pids", "memory")
    one, other = run("sleep", "1000", name="one"), run("sleep", "1000", name="other")
    monkeypatch.setenv("PYRTC_ROOT", run.engine.store.path)
    assert main(["update", "-m", "64m", "--pids-limit", "20", "one", "nobody", "other"]) == 1
    done = capsys.readouterr()
    assert done.out == "one\nother\n" and "No such container: nobody" in done.err
    assert [one.options.limits.pids, other.options.limits.memory] == [20, 64 * MIB]
    assert main(["update", "-m", "0", "--pids-limit", "-1", "one"]) == 0
    assert (one.options.limits.memory, one.stats(interval=0).pids_limit) == (None, None)
    assert main(["update", "one"]) == 1 and main(["update", "-m", "64m"]) == 1
    assert main(["port", "one"]) == 0
    capsys.readouterr()
    assert main(["port", "one", "80"]) == 1
    assert "no public port '80/tcp' published for one" in capsys.readouterr().err


# ---- what is told of containers in the foreground -------------------------------------------------------------------


def test_the_command_line_tells_of_its_containers(run: Maker) -> None:
    engine = run.engine
    command = [sys.executable, "-m", "pyrtc.cli.main", "--root", engine.store.path]
    words = ["run", "--rm", "--name", "web", "--label", "tier=a", run.image, "/probe", "exit", "3"]
    assert subprocess.run([*command, *words], check=False).returncode == 3
    told = list(engine.events(filters={"type": "container"}))
    assert [event.action for event in told] == ["create", "start", "die", "destroy"]
    assert told[2].attribute("exitCode") == "3" and told[2].attribute("tier") == "a"
    assert {event.attribute("name") for event in told} == {"web"}
    engine.run(run.image, RunOptions(command=("/probe", "exit", "0")))  # many and short: nothing is told of these
    assert len(list(engine.events(filters={"type": "container"}))) == 4


@needs_groups
def test_what_a_container_used_is_kept(run: Maker) -> None:
    need("memory", "pids")
    container = run("take", str(200 * MIB), memory="32m", memory_swap="32m")
    container.wait()
    found = container.inspect()
    assert found.oom_killed and found.usage is not None and found.usage.memory_peak is not None
    assert found.usage.memory_peak >= 16 * MIB and found.usage.pids_peak == 1
    assert "oom" in [event.action for event in run.engine.events(filters={"container": container.id})]


def test_sizes(run: Maker) -> None:
    container = run("create", "/file", "x" * 5000, ",", "sleep", "1000")
    deadline = time.monotonic() + 10
    while container.size().written < 4096:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    size = container.size()
    assert size.total > size.written
