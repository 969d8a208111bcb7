"""Network rates: what iperf3 and tc say of them, as root in a place of the test's own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import needs_user
from network_place import Place, eventually, place
from test_network_starts import about, clean, run, settings

from pyrtc.network.shaping import bucket

__all__ = ["place"]

MBIT = 1_000_000
ATTEMPTS = 4  # a machine that has no time falls below the rate, and nothing else does


def measured(place: Place, address: str, *words: str) -> float:
    """Return the bits per second of what arrived."""
    done = place.run("iperf3", "-c", address, "-J", "-O", "1", "-t", "1", *words, check=False)
    said = json.loads(done.stdout)
    assert "end" in said and "sum" in {**said["end"], "sum": 0}, said
    end = said["end"]
    if "sum_received" in end and end["sum_received"].get("bits_per_second"):
        return float(end["sum_received"]["bits_per_second"])
    total = end["sum"]
    return float(total["bits_per_second"]) * (1 - float(total["lost_percent"]) / 100)


def is_near(rate: int, measure: Any) -> bool:
    """Whether a measurement comes near the rate: never above it, however often one looks."""
    seen = []
    for _ in range(ATTEMPTS):
        seen.append(measure() / rate)
        assert seen[-1] < 1.05, seen
        if seen[-1] > 0.93:
            return True
    raise AssertionError(seen)


def iperf(place: Place, *words: str) -> str:
    """Start a container with an iperf3 server and return its address."""
    run(place, "--name", "fast", "--network", "bridge", *words, command=["iperf3", "-s", "--forceflush"])
    address: str = settings(place, "fast")["IPAddress"]
    assert eventually(lambda: "listening" in place.pyrtc("logs", "fast").stdout)
    return address


def queues(place: Place, device: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(place.run("tc", "-json", "qdisc", "show", "dev", device).stdout)
    return found


def inner_queues(place: Place, container: str = "fast") -> list[dict[str, Any]]:
    pid = about(place, container)["State"]["Pid"]
    shown = place.run("nsenter", f"--net=/proc/{pid}/ns/net", "tc", "-json", "qdisc", "show", "dev", "eth0").stdout
    found: list[dict[str, Any]] = json.loads(shown)
    return found


def kinds(found: list[dict[str, Any]]) -> list[str]:
    return [queue["kind"] for queue in found]


def host_end(place: Place) -> str:
    return next(name for name in place.links() if name.startswith("pv"))


def test_rates_hold_both_ways_and_change_while_it_runs(place: Place) -> None:
    address = iperf(place, "--network-rate-in", "20mbit", "--network-rate-out", "40mbit")
    assert is_near(20 * MBIT, lambda: measured(place, address))
    assert is_near(40 * MBIT, lambda: measured(place, address, "-R"))
    assert is_near(20 * MBIT, lambda: measured(place, address, "-u", "-b", "100M"))
    assert is_near(40 * MBIT, lambda: measured(place, address, "-R", "-u", "-b", "100M"))
    config = about(place, "fast")["HostConfig"]
    assert (config["NetworkRateIn"], config["NetworkRateOut"]) == (20 * MBIT, 40 * MBIT)
    place.pyrtc("update", "--network-rate-in", "60mbit", "--network-rate-out", "10mbit", "fast")
    assert is_near(60 * MBIT, lambda: measured(place, address))
    assert is_near(10 * MBIT, lambda: measured(place, address, "-R"))
    place.pyrtc("update", "--network-rate-in", "0", "--network-rate-out", "0", "fast")
    assert "tbf" not in kinds(queues(place, host_end(place)) + inner_queues(place))
    assert measured(place, address) > 100 * MBIT
    config = about(place, "fast")["HostConfig"]
    assert (config["NetworkRateIn"], config["NetworkRateOut"]) == (0, 0)
    clean(place)


def test_what_has_net_admin_cannot_take_its_limit_away(place: Place) -> None:
    address = iperf(place, "--network-rate-out", "20mbit", "--cap-add", "NET_ADMIN")
    assert "tbf" not in kinds(inner_queues(place))
    for command in ("tc qdisc del dev eth0 root", "tc qdisc replace dev eth0 root pfifo"):
        place.pyrtc("exec", "fast", *command.split(), check=False)
    assert is_near(20 * MBIT, lambda: measured(place, address, "-R"))
    detour = next(name for name in place.links() if name.startswith("pi"))
    place.pyrtc("update", "--network-rate-out", "50mbit", "fast")
    assert is_near(50 * MBIT, lambda: measured(place, address, "-R", "-u", "-b", "100M"))
    assert measured(place, address) > 100 * MBIT, "what it receives is not limited"
    place.pyrtc("update", "--network-rate-out", "0", "fast")
    assert detour not in place.links()
    assert "ingress" not in kinds(queues(place, host_end(place)))
    place.pyrtc("update", "--network-rate-out", "1gbit", "fast")
    assert detour in place.links()
    place.pyrtc("restart", "fast")
    assert [name[:2] for name in place.links()].count("pi") == 1, "that of the next life"
    place.pyrtc("stop", "fast")
    assert not [name for name in place.links() if name.startswith("pi")]
    clean(place)


def test_more_networks(place: Place) -> None:
    place.pyrtc("network", "create", "other")
    run(place, "--name", "fast", "--network", "bridge", "--network-rate-in", "5mbit", "--network-rate-out", "5mbit")
    place.pyrtc("network", "connect", "other", "fast")
    ends = [name for name in place.links() if name.startswith("pv")]
    assert [kinds(queues(place, name)) for name in ends] == [["tbf"], ["tbf"]]
    pid = about(place, "fast")["State"]["Pid"]
    shown = place.run("nsenter", f"--net=/proc/{pid}/ns/net", "tc", "-json", "qdisc", "show").stdout
    assert sorted(queue["dev"] for queue in json.loads(shown) if queue["kind"] == "tbf") == ["eth0", "eth1"]
    place.pyrtc("network", "disconnect", "other", "fast")
    clean(place)


def test_in_a_user_namespace_of_its_own_and_with_a_running_event_loop(place: Place) -> None:
    answer = place.python(
        "import asyncio, json, pyrtc.aio\n"
        "async def main():\n"
        "    async with pyrtc.aio.Container('host', ['tc', '-json', 'qdisc', 'show', 'dev', 'eth0'], userns='auto',\n"
        "            network='bridge', network_in=8_000_000, network_out='3mbit') as container:\n"
        "        await container.wait()\n"
        "        print(''.join([line.text async for line in container.logs()]))\n"
        "asyncio.run(main())"
    )
    assert json.loads(answer)[0]["options"]["rate"] == 3_000_000 // 8
    clean(place)


@pytest.mark.parametrize("network", ["none", "host", "container:first"])
def test_there_is_nothing_to_limit(place: Place, network: str) -> None:
    run(place, "--name", "first", "--network", "none")
    for command in ("run", "create"):
        refused = place.pyrtc(command, "--network", network, "--network-rate-in", "1mbit", "host", "true", check=False)
        assert refused.returncode == 125
        assert "network devices of the container's own" in refused.stderr
    refused = place.pyrtc("update", "--network-rate-out", "1mbit", "first", check=False)
    assert refused.returncode == 1 and "network devices of the container's own" in refused.stderr
    clean(place)


def test_a_refused_change_changes_nothing(place: Place) -> None:
    run(place, "--name", "fast", "--network", "bridge", "--network-rate-in", "5mbit", "--memory", "64m")
    before = queues(place, host_end(place))
    refused = place.pyrtc(
        "update", "--network-rate-in", "9mbit", "--device-read-bps", "/dev/null:1m", "fast", check=False
    )
    assert refused.returncode != 0
    assert queues(place, host_end(place)) == before
    assert about(place, "fast")["HostConfig"]["NetworkRateIn"] == 5 * MBIT
    clean(place)


def test_macvlan_sends_through_this_hosts_hands_only(place: Place) -> None:
    place.pyrtc("network", "create", "-d", "macvlan", "-o", "parent=wan0", "--subnet", "192.0.2.0/24", "far")
    refused = place.pyrtc("run", "--network", "far", "--network-rate-in", "1mbit", "host", "true", check=False)
    assert refused.returncode == 125 and "macvlan" in refused.stderr
    done = place.pyrtc(
        *("run", "--network", "far", "--network-rate-out", "1mbit", "host", "tc", "qdisc", "show", "dev", "eth0")
    )
    assert "tbf" in done.stdout
    clean(place)


def test_words_that_are_no_rates(place: Place) -> None:
    for word in ("fast", "10mb", "10mbps", "-1", "7999", "33gbit"):
        refused = place.pyrtc("run", "--network", "bridge", "--network-rate-in", word, "host", "true", check=False)
        assert refused.returncode == 125, word
        assert "rate" in refused.stderr
    clean(place)


def test_buckets_take_a_frame_and_no_more_than_a_fraction_of_a_second() -> None:
    for rate in (8000, 10**6, 10**7, 10**9, 32 * 10**9):
        made = bucket(rate, 1500)
        assert made["burst"] >= 1518
        assert made["burst"] <= max(rate // 8 // 10, 2 * 1518)
        assert made["limit"] > made["burst"]
        assert all(value < 1 << 32 for value in made.values())


@needs_user
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--network-rate-in", "1mbit"), "ordinary user"),
        (("--network-rate-out", "1mbit"), "ordinary user"),
        (("--egress", "local"), "this container is alone on its own"),
    ],
)
def test_what_an_ordinary_users_network_lacks_is_said(tmp_path: Path, words: tuple[str, str], said: str) -> None:
    command = [sys.executable, "-m", "pyrtc.cli.main", "run", "--network", "bridge", *words, "host", "true"]
    environment = {**os.environ, "PYRTC_ROOT": str(tmp_path / "store")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=100)
    assert done.returncode == 125
    assert said in done.stderr, done.stderr
