"""The version 2 terms."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc.runtime.cgroups import CgroupStats, Limits, v2

MIB = 1 << 20


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    (tmp_path / "c1").mkdir()
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd, tmp_path / "c1"
    os.close(fd)


def written(limits: Limits) -> list[tuple[str, str]]:
    return [setting.choices[0] for name in limits.controllers for setting in v2.settings(name, limits)]


@pytest.mark.parametrize(
    ("shares", "weight"), [(2, 1), (1024, 100), (262144, 10000), (512, 59), (2048, 174), (0, 1), (1 << 40, 10000)]
)
def test_cpu_weight_follows_the_agreed_curve(shares: int, weight: int) -> None:
    assert v2.cpu_weight(shares) == weight


@given(st.integers(2, 262144), st.integers(2, 262144))
def test_cpu_weight_keeps_the_order(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert 1 <= v2.cpu_weight(low) <= v2.cpu_weight(high) <= 10000


@pytest.mark.parametrize(("weight", "expected"), [(10, 1), (1000, 10000), (500, 4950)])
def test_io_weight_spans_the_range(weight: int, expected: int) -> None:
    assert v2.io_weight(weight) == expected


def test_memory_goes_as_a_whole() -> None:
    assert written(Limits(memory=64 * MIB, memory_swap=96 * MIB, memory_reservation=8 * MIB)) == [
        ("memory.max", str(64 * MIB)),
        ("memory.oom.group", "1"),
        ("memory.swap.max", str(32 * MIB)),
        ("memory.low", str(8 * MIB)),
    ]
    assert written(Limits(memory_reservation=8 * MIB)) == [("memory.low", str(8 * MIB))]


@pytest.mark.parametrize(("swap", "text"), [(None, str(64 * MIB)), (-1, "max"), (64 * MIB, "0")])
def test_swap_is_what_exceeds_memory(swap: int | None, text: str) -> None:
    assert ("memory.swap.max", text) in written(Limits(memory=64 * MIB, memory_swap=swap))


@pytest.mark.parametrize(("can_swap", "lost"), [(True, True), (False, False)])
def test_a_kernel_that_cannot_swap_keeps_every_swap_limit(
    monkeypatch: pytest.MonkeyPatch, can_swap: bool, lost: bool
) -> None:
    monkeypatch.setattr(v2.os.path, "exists", lambda _: can_swap)
    setting = v2.settings("memory", Limits(memory=64 * MIB, memory_swap=64 * MIB))[-1]
    assert bool(setting.without) is lost
    assert v2.settings("memory", Limits(memory=64 * MIB))[-1].without == ""


def test_the_rest_is_translated() -> None:
    assert written(Limits(cpus=0.5, cpu_shares=1024, cpuset_cpus="0", cpuset_mems="0", pids=7)) == [
        ("cpu.max", "50000 100000"),
        ("cpu.weight", "100"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
        ("pids.max", "7"),
    ]


def test_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v2, "block_device_number", lambda _: "8:0")
    limits = Limits(
        blkio_weight=500,
        device_read_bps=(("/dev/sda", 1000),),
        device_write_bps=(("/dev/sda", 2000),),
        device_read_iops=(("/dev/sda", 30),),
        device_write_iops=(("/dev/sda", 40),),
    )
    assert written(limits) == [
        ("io.bfq.weight", "500"),
        ("io.max", "8:0 rbps=1000"),
        ("io.max", "8:0 wbps=2000"),
        ("io.max", "8:0 riops=30"),
        ("io.max", "8:0 wiops=40"),
    ]
    assert v2.settings("io", limits)[0].choices[1] == ("io.weight", "default 4950")


def test_devices_have_no_file() -> None:
    assert v2.settings("devices", Limits(devices=())) == []


def test_statistics(node: tuple[int, Path]) -> None:
    fd, child = node
    files = {
        "cpu.stat": "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n"
        "nr_periods 9\nnr_throttled 2\nthrottled_usec 250000\n",
        "memory.current": "5000\n",
        "memory.peak": "9000\n",
        "memory.stat": "anon 1\ninactive_file 2000\n",
        "memory.max": "max\n",
        "memory.events": "low 0\noom 2\noom_kill 1\n",
        "pids.current": "3\n",
        "pids.peak": "5\n",
        "pids.max": "10\n",
        "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2\n8:16 rbytes=5 wbytes=0 rios=1 wios=0\n7:0 \n",
    }
    for name, text in files.items():
        (child / name).write_text(text)
    assert CgroupStats(**v2.stats(fd, "c1")) == CgroupStats(
        cpu_usage=1.5,
        cpu_user=1.0,
        cpu_system=0.5,
        cpu_periods=9,
        cpu_throttled_periods=2,
        cpu_throttled=0.25,
        memory=3000,
        memory_peak=9000,
        memory_limit=None,
        oom_kills=1,
        pids=3,
        pids_peak=5,
        pids_limit=10,
        io_read_bytes=15,
        io_write_bytes=20,
        io_reads=2,
        io_writes=2,
    )


def test_what_is_not_counted_is_none(node: tuple[int, Path]) -> None:
    fd, child = node
    (child / "cpu.stat").write_text("usage_usec 1\nuser_usec 1\nsystem_usec 0\n")
    stats = CgroupStats(**v2.stats(fd, "c1"))
    assert (stats.cpu_usage, stats.cpu_throttled, stats.memory, stats.pids, stats.io_reads) == (1e-6, *(None,) * 4)
