"""The version 1 terms."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrtc.runtime.cgroups import DeviceRule, Limits, v1

MIB = 1 << 20


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    (tmp_path / "c1").mkdir()
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd, tmp_path / "c1"
    os.close(fd)


def written(limits: Limits) -> list[tuple[str, str]]:
    return [setting.choices[0] for name in limits.controllers for setting in v1.settings(name, limits)]


def test_the_memory_limit_is_written_before_memory_and_swap() -> None:
    assert written(Limits(memory=64 * MIB, memory_swap=96 * MIB, memory_reservation=8 * MIB)) == [
        ("memory.limit_in_bytes", str(64 * MIB)),
        ("memory.memsw.limit_in_bytes", str(96 * MIB)),
        ("memory.soft_limit_in_bytes", str(8 * MIB)),
    ]


def test_swap_accounting_is_needed_only_when_swap_was_named() -> None:
    implied = v1.settings("memory", Limits(memory=64 * MIB))[1]
    assert (implied.choices, implied.without) == ((("memory.memsw.limit_in_bytes", str(128 * MIB)),), "")
    asked = v1.settings("memory", Limits(memory=64 * MIB, memory_swap=-1))[1]
    assert asked.choices == (("memory.memsw.limit_in_bytes", "-1"),)
    assert "swapaccount=1" in asked.without


@pytest.mark.parametrize(("cpus", "quota"), [(0.5, "50000"), (1, "100000"), (0.01, "1000"), (0.333, "33300")])
def test_cpus_are_a_quota_of_the_usual_period(cpus: float, quota: str) -> None:
    assert written(Limits(cpus=cpus)) == [("cpu.cfs_quota_us", quota)]


def test_the_rest_is_written_as_it_is() -> None:
    assert written(Limits(cpu_shares=512, cpuset_cpus="0", cpuset_mems="0", pids=7)) == [
        ("cpu.shares", "512"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
        ("pids.max", "7"),
    ]


def test_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v1, "block_device_number", {"/dev/sda": "8:0", "8:16": "8:16"}.__getitem__)
    limits = Limits(
        blkio_weight=300,
        device_read_bps=(("/dev/sda", 1000), ("8:16", 2000)),
        device_write_iops=(("/dev/sda", 30),),
    )
    assert written(limits) == [
        ("blkio.bfq.weight", "300"),
        ("blkio.throttle.read_bps_device", "8:0 1000"),
        ("blkio.throttle.read_bps_device", "8:16 2000"),
        ("blkio.throttle.write_iops_device", "8:0 30"),
    ]
    assert v1.settings("io", limits)[0].choices[1] == ("blkio.weight", "300")


def test_devices_are_denied_before_some_are_allowed() -> None:
    rules = (DeviceRule("c", 1, 3, "rwm"), DeviceRule("b", 8, None, "r"))
    assert written(Limits(devices=rules)) == [
        ("devices.deny", "a"),
        ("devices.allow", "c 1:3 rwm"),
        ("devices.allow", "b 8:* r"),
    ]
    assert written(Limits(devices=())) == [("devices.deny", "a")]


def test_reading_every_device_is_not_everything() -> None:
    """The kernel takes any line that starts with `a` as full access."""
    assert written(Limits(devices=(DeviceRule("a", None, None, "r"),)))[1:] == [
        ("devices.allow", "b *:* r"),
        ("devices.allow", "c *:* r"),
    ]
    assert written(Limits(devices=(DeviceRule("a", None, None, "mrw"),)))[1:] == [("devices.allow", "a *:* mrw")]


def test_a_cpuset_takes_what_its_parent_has(node: tuple[int, Path], tmp_path: Path) -> None:
    fd, child = node
    (tmp_path / "cpuset.cpus").write_text("0-3\n")
    (tmp_path / "cpuset.mems").write_text("0\n")
    (child / "cpuset.cpus").write_text("\n")
    (child / "cpuset.mems").write_text("1\n")
    v1.inherit_cpuset(fd, "c1")
    assert (child / "cpuset.cpus").read_text() == "0-3"
    assert (child / "cpuset.mems").read_text() == "1\n"


def test_memory_is_counted_without_idle_cache(node: tuple[int, Path]) -> None:
    fd, child = node
    (child / "memory.usage_in_bytes").write_text("5000\n")
    (child / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 2000\n")
    (child / "memory.max_usage_in_bytes").write_text("9000\n")
    (child / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (child / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert v1.stats("memory", fd, "c1") == {
        "memory": 3000,
        "memory_peak": 9000,
        "memory_limit": None,
        "oom_kills": 3,
    }
    (child / "memory.limit_in_bytes").write_text("67108864\n")
    assert v1.stats("memory", fd, "c1")["memory_limit"] == 67108864


def test_cpu_time_and_throttling(node: tuple[int, Path]) -> None:
    fd, child = node
    assert v1.stats("cpu", fd, "c1") == {}
    (child / "cpu.stat").write_text("nr_periods 10\nnr_throttled 4\nthrottled_time 2500000000\n")
    (child / "cpuacct.usage").write_text("1500000000\n")
    (child / "cpuacct.usage_user").write_text("1000000000\n")
    assert v1.stats("cpu", fd, "c1") == {"cpu_periods": 10, "cpu_throttled_periods": 4, "cpu_throttled": 2.5}
    assert v1.stats("cpuacct", fd, "c1") == {"cpu_usage": 1.5, "cpu_user": 1.0}


def test_processes_and_disks(node: tuple[int, Path]) -> None:
    fd, child = node
    (child / "pids.current").write_text("3\n")
    (child / "pids.max").write_text("max\n")
    (child / "blkio.throttle.io_service_bytes_recursive").write_text(
        "8:0 Read 10\n8:0 Write 20\n8:16 Read 5\nTotal 35\n"
    )
    assert v1.stats("pids", fd, "c1") == {"pids": 3, "pids_peak": None, "pids_limit": None}
    assert v1.stats("io", fd, "c1") == {
        "io_read_bytes": 15,
        "io_write_bytes": 20,
        "io_reads": None,
        "io_writes": None,
    }
