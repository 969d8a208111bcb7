"""What a limit may be."""

import contextlib
import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc.errors import UsageError
from pyrtc.runtime.cgroups import DEFAULT_DEVICE_RULES, DeviceRule, Limits, limits
from pyrtc.runtime.cgroups.limits import block_device_number, parse_id_list

MIB = 1 << 20


def test_no_limits_need_no_controller() -> None:
    assert Limits().controllers == ()
    assert Limits(pids=-1).controllers == ()
    assert Limits(pids=0).controllers == ()


def test_limits_name_their_controllers() -> None:
    everything = Limits(
        memory=64 * MIB,
        cpus=0.5,
        cpu_shares=512,
        cpuset_cpus="0",
        pids=10,
        blkio_weight=100,
        device_read_bps=(("8:0", 1),),
        devices=(),
    )
    assert set(everything.controllers) == {"memory", "cpu", "cpuset", "pids", "io", "devices"}
    assert everything.given("cpu") == ("cpus", "cpu_shares")
    assert everything.given("io") == ("blkio_weight", "device_read_bps")
    assert everything.given("devices") == ("devices",)
    assert Limits(memory_reservation=6 * MIB).controllers == ("memory",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"memory": 6 * MIB - 1}, "minimum memory limit allowed is 6MB"),
        ({"memory": 0}, "minimum memory limit allowed is 6MB"),
        ({"memory": -1}, "minimum memory limit allowed is 6MB"),
        ({"memory": 1 << 63}, "memory=9223372036854775808"),
        ({"memory_swap": 64 * MIB}, "always set the memory limit"),
        ({"memory_swap": -1}, "always set the memory limit"),
        ({"memory": 64 * MIB, "memory_swap": 63 * MIB}, "cannot be smaller than the memory limit"),
        ({"memory": 64 * MIB, "memory_swap": -2}, "cannot be smaller than the memory limit"),
        ({"memory_reservation": MIB}, "minimum memory reservation allowed is 6MB"),
        ({"memory": 64 * MIB, "memory_reservation": 65 * MIB}, "cannot be less than the reservation"),
        ({"cpus": 0}, "the range of CPUs is from 0.01 to"),
        ({"cpus": float("nan")}, "the range of CPUs is from 0.01 to"),
        ({"cpus": (os.cpu_count() or 1) + 0.01}, "CPUs available"),
        ({"cpus": "1.5"}, "cpus='1.5': it is a number"),
        ({"memory": "64m"}, "memory='64m': it is a whole number"),
        ({"pids": 1.5}, "pids=1.5: it is a whole number"),
        ({"pids": True}, "pids=True: it is a whole number"),
        ({"cpu_shares": 1}, "from 2 to 262144"),
        ({"cpu_shares": 262145}, "from 2 to 262144"),
        ({"cpuset_cpus": ""}, "invalid value for CPUs"),
        ({"cpuset_cpus": "1-0"}, "invalid value for CPUs"),
        ({"cpuset_cpus": "0-99999999999"}, "invalid value for CPUs"),
        ({"cpuset_cpus": "0-8191"}, "requested CPUs are not available: requested 0-8191, available: 0"),
        ({"cpuset_mems": "4000"}, "requested memory nodes are not available"),
        ({"pids": -2}, "-1 stands for unlimited"),
        ({"pids": 4194305}, "-1 stands for unlimited"),
        ({"blkio_weight": 9}, "from 10 to 1000"),
        ({"blkio_weight": 1001}, "from 10 to 1000"),
        ({"device_write_bps": (("8:0", 0),)}, "device_write_bps=8:0:0: the rate must be a positive number"),
        ({"devices": (DeviceRule("c", 1, 3, "r"),) * 513}, "513 device rules: there can be 512 at most"),
        ({"device_read_iops": (("8:0", 1 << 63),)}, "the rate must be a positive number"),
    ],
)
def test_nonsense_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Limits(**values)  # type: ignore[arg-type]


def test_the_smallest_values_are_accepted() -> None:
    Limits(memory=6 * MIB, memory_swap=6 * MIB, memory_reservation=6 * MIB, cpus=0.01, cpu_shares=2, blkio_weight=10)
    Limits(memory=6 * MIB, memory_swap=-1, pids=1, cpuset_cpus="0", cpuset_mems="0")


def test_limits_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().memory = 1  # type: ignore[misc]


@pytest.mark.parametrize(("swap", "total"), [(None, 128), (0, 128), (64, 64), (100, 100)])
def test_swap_is_as_large_as_memory_unless_told(swap: int | None, total: int) -> None:
    given_swap = swap * MIB if swap else swap
    assert Limits(memory=64 * MIB, memory_swap=given_swap).swap_total == total * MIB


def test_swap_total_needs_memory() -> None:
    assert Limits().swap_total is None
    assert Limits(memory=64 * MIB, memory_swap=-1).swap_total == -1


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", {0}), ("0-2,5", {0, 1, 2, 5}), ("3,1,1-2", {1, 2, 3}), ("0, 2", {0, 2}), ("0-1\n", {0, 1})],
)
def test_id_lists_are_read(text: str, expected: set[int]) -> None:
    assert parse_id_list(text) == expected


@pytest.mark.parametrize("text", ["", ",", "a", "-1", "1-", "2-1", "0-8192", "1--2", "0x1", "\u0661", "1 2"])
def test_other_lists_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        parse_id_list(text)


@given(st.text(max_size=20))
def test_any_text_is_a_list_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert all(0 <= number <= 8191 for number in parse_id_list(text))


@pytest.mark.parametrize("text", ["c 1:3 rwm", "b 8:* r", "a *:* rwm", "c *:* m"])
def test_device_rules_are_read_and_written(text: str) -> None:
    assert str(DeviceRule.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "c 1:3", "c 1:3 x", "d 1:3 r", "c 1:3 rr", "c -1:3 r", "c 9999999:3 r", "a 1:* r", "c  1:3 r", "c 1:3 r\n"],
)
def test_other_device_rules_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="invalid device rule"):
        DeviceRule.parse(text)


def test_the_default_rules_open_nothing_harmful() -> None:
    opened = {(rule.type, rule.major, rule.minor) for rule in DEFAULT_DEVICE_RULES if set(rule.access) & set("rw")}
    assert ("c", 1, 1) not in opened  # mem
    assert ("c", None, None) not in opened
    assert not any(kind != "c" for kind, _, _ in opened)
    assert ("c", 1, 3) in opened


def test_a_disk_must_be_a_disk(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        block_device_number(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="is not a block device"):
        block_device_number("/dev/null")
    with pytest.raises(UsageError, match="has no block device 4095:1"):
        block_device_number("4095:1")


def test_a_partition_names_its_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {"/sys/dev/block/8:1", "/sys/dev/block/8:1/partition", "/sys/dev/block/8:0"}
    monkeypatch.setattr(limits.os.path, "exists", paths.__contains__)
    monkeypatch.setattr(limits.os.path, "realpath", lambda _: "/sys/devices/pci/block/sda/sda1")
    assert block_device_number("8:0") == "8:0"
    with pytest.raises(UsageError, match="limits are for whole disks, name /dev/sda"):
        block_device_number("8:1")
