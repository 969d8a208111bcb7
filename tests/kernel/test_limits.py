"""Limits of a container as its processes meet them, and what is measured."""

import os
import time

import pytest
from conftest import ROOT, Probe

from pyrtc.container import Outcome
from pyrtc.errors import LimitError, UsageError
from pyrtc.runtime.cgroups import detect

MIB = 1 << 20

pytestmark = pytest.mark.skipif(detect().mode == "none", reason="needs mounted control groups")


def need(*controllers: str) -> None:
    machine = detect()
    for controller in controllers:
        if controller not in machine.places:
            pytest.skip(f"needs the {controller} controller: {'; '.join(machine.missing[controller])}")


def test_memory(probe: Probe) -> None:
    need("memory")
    done = probe.run("take", str(200 * MIB), memory="32m", memory_swap="32m")
    assert done.outcome is Outcome.OOM_KILLED
    assert done.returncode == 137
    done = probe.run("take", str(16 * MIB), memory="64m")
    assert done.outcome is Outcome.EXITED
    assert done.usage.memory_peak is not None
    assert 16 * MIB <= done.usage.memory_peak <= 64 * MIB


def test_memory_of_a_child_that_is_killed(probe: Probe) -> None:
    """The command survives and says so: an exit code of its own is no OOM kill when it is 0."""
    need("memory")
    done = probe.run("take", str(200 * MIB), memory="32m", memory_swap="32m", init=True)
    assert done.outcome is Outcome.OOM_KILLED
    assert done.returncode == 137


def test_files_in_memory_count(probe: Probe) -> None:
    from pyrtc.options import Tmpfs

    need("memory")
    done = probe.run(
        "words",
        "x",
        ",",
        "exec",
        "/probe",
        "pour",
        str(100 * MIB),
        "1",
        memory="32m",
        memory_swap="32m",
        mounts=[Tmpfs("/t")],
        run={"max_output": 1000},
    )
    assert done.outcome is Outcome.EXITED  # what goes through a pipe does not
    done = probe.run("take", str(20 * MIB), memory="48m", rw_layer="memory")
    assert done.outcome is Outcome.EXITED


def test_processes(probe: Probe) -> None:
    need("pids")
    done = probe.run("forks", "100", pids=10)
    made = int(done.stdout.split(b"\x1e")[0])
    assert made == 9
    assert done.usage.pids_peak == 10
    assert int(probe.run("forks", "30", pids=-1).stdout.split(b"\x1e")[0]) == 30
    assert int(probe.run("forks", "100", pids=10, init=True).stdout.split(b"\x1e")[0]) == 8


def test_cpus(probe: Probe) -> None:
    need("cpu")
    began = time.monotonic()
    done = probe.run("spin", "0.6", cpus=0.2)
    assert time.monotonic() - began < 30
    assert done.usage.cpu_seconds < 0.4
    with pytest.raises(UsageError):
        probe.run("ids", cpus=(os.cpu_count() or 1) + 1)


def test_cpusets(probe: Probe) -> None:
    need("cpuset")
    first = min(os.sched_getaffinity(0))
    assert probe.one("affinity", cpuset_cpus=str(first)) == "1"
    with pytest.raises(UsageError):
        probe.run("ids", cpuset_cpus="4000")


@pytest.mark.parametrize(
    "options",
    [
        {"memory": "1m"},
        {"memory": "64m", "memory_swap": "32m"},
        {"memory_swap": "64m"},
        {"memory": "64m", "memory_reservation": "128m"},
        {"cpus": 0},
        {"cpu_shares": 1},
        {"pids": -2},
        {"blkio_weight": 5},
        {"cpuset_cpus": "x"},
        {"device_read_bps": [("/dev/null", 1)]},
    ],
    ids=str,
)
def test_limits_that_cannot_mean_anything(probe: Probe, options: dict[str, object]) -> None:
    with pytest.raises((UsageError, LimitError)):
        probe.run("ids", **options)


def test_all_at_once(probe: Probe) -> None:
    if not ROOT:
        pytest.skip("needs root: an ordinary user has the controllers that are delegated")
    need("memory", "cpu", "pids", "cpuset")
    for _ in range(3):
        done = probe.run("ids", memory="64m", cpus=0.5, pids=20, cpu_shares=512, cpuset_cpus="0", cpuset_mems="0")
        assert done.returncode == 0
        assert done.warnings == ()


def test_what_is_measured(probe: Probe) -> None:
    done = probe.run("burn", "0.3", ",", "take", str(8 * MIB), accounting=True)
    usage = done.usage
    assert 0.25 <= usage.wall_seconds < 60
    assert 0.25 <= usage.cpu_seconds <= usage.wall_seconds + 0.5
    assert usage.user_seconds + usage.system_seconds == pytest.approx(usage.cpu_seconds, abs=0.2)
    if "memory" in detect().places:
        assert usage.memory_peak is not None
        assert usage.memory_peak >= 8 * MIB
    if "pids" in detect().places:
        assert usage.pids_peak == 1


def test_best_effort(probe: Probe) -> None:
    """A limit that this machine cannot have is an error, unless the caller goes on without it."""
    missing = [name for name in ("memory", "cpu", "pids", "io") if name not in detect().places]
    if not missing:
        pytest.skip("needs a machine that lacks a controller")
    option = {"memory": {"memory": "64m"}, "cpu": {"cpus": 0.5}, "pids": {"pids": 10}, "io": {"blkio_weight": 100}}[
        missing[0]
    ]
    with pytest.raises(LimitError):
        probe.run("ids", **option)
    assert probe.run("ids", best_effort=True, **option).warnings


def test_a_fork_bomb_ends_with_its_timeout(probe: Probe) -> None:
    need("pids")
    began = time.monotonic()
    done = probe.run("forks", "1000", ",", "sleep", "1000", pids=200, timeout=0.5)
    assert done.outcome is Outcome.TIMEOUT
    assert time.monotonic() - began < 30
