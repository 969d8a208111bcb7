"""Overlay networks under change: python -m benchmarks.overlay [--containers N] [--seconds N] [--json FILE], as root.

Three hosts are network namespaces on one bridge, with three members of etcd. Containers come and go on all of them at
random; meanwhile a member of etcd is killed and comes back, and a host is cut off and let back. Looked at are:
addresses that two containers have at once, packets lost between containers that nobody touches, and the time from
healing until every host has told its kernel of every container of the others. At the end iperf3 says what a stream
between two hosts gets, in the overlay and without it.
"""

import argparse
import importlib
import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
CUT = 6.0  # seconds for which a host is cut off


class Trial:
    """One run."""

    def __init__(self, cloud: Any, containers: int) -> None:  # noqa: ANN401  (from the tests)
        self.cloud = cloud
        self.containers = containers
        self.stop = threading.Event()
        self.duplicates: list[str] = []
        self.failures: list[str] = []
        self.started = self.ended = 0

    def endpoints(self, host: Any) -> dict[str, str]:  # noqa: ANN401
        """Return the addresses and hardware addresses of a host's own containers, out of its store."""
        return self._rows(host, "SELECT ip4, mac FROM endpoints")

    def heard(self, host: Any) -> dict[str, str]:  # noqa: ANN401
        """Return what a host knows of the others."""
        return self._rows(host, "SELECT ip4, mac FROM overlay_endpoints")

    def _rows(self, host: Any, query: str) -> dict[str, str]:  # noqa: ANN401
        connection = sqlite3.connect(f"file:{host.root}/pyrtc.db?mode=ro", uri=True, timeout=30)
        try:
            return dict(connection.execute(query).fetchall())
        finally:
            connection.close()

    def look_for_duplicates(self) -> None:
        """Look all the time."""
        while not self.stop.wait(0.1):
            seen: dict[str, str] = {}
            for host in self.cloud.hosts:
                for address in self.endpoints(host):
                    if address in seen:
                        self.duplicates.append(f"{address} on {seen[address]} and {host.address}")
                    seen[address] = host.address

    def churn(self, host: Any, number: int) -> None:  # noqa: ANN401
        """Start and remove containers of one host at random."""
        running: list[str] = []
        count = 0
        while not self.stop.is_set():
            if len(running) < self.containers and (not running or random.random() < 0.7):  # noqa: S311
                name = f"x{number}-{count}"
                count += 1
                done = host.pyrtc(
                    "run", "-d", "--name", name, "--stop-timeout", "0", "--network", "web", "host", "sleep", "100000",
                    check=False,
                )  # fmt: skip
                if done.returncode:
                    self.failures.append(f"{host.address}: {done.stderr.strip()}")
                else:
                    running.append(name)
                    self.started += 1
            else:
                name = running.pop(random.randrange(len(running)))  # noqa: S311
                done = host.pyrtc("rm", "-f", name, check=False)
                self.ended += 1
                if done.returncode:
                    self.failures.append(f"{host.address}: {done.stderr.strip()}")

    def whole(self) -> bool:
        """Whether every host knows, and its kernel, what the others have."""
        own = [self.endpoints(host) for host in self.cloud.hosts]
        for number, host in enumerate(self.cloud.hosts):
            wanted = {
                address: mac for other, found in enumerate(own) if other != number for address, mac in found.items()
            }
            if self.heard(host) != wanted:
                return False
            told = re.findall(r"^(\S+) .* lladdr (\S+) extern_learn", host.run("ip", "neigh").stdout, re.MULTILINE)
            if dict(told) != wanted:
                return False
        return True

    def converged(self, begin: float, patience: float = 60) -> float:
        """Return the seconds since begin after which all was whole."""
        while not self.whole():
            if time.monotonic() > begin + patience:
                raise SystemExit("the hosts do not come to agree")
            time.sleep(0.02)
        return time.monotonic() - begin


def pings(host: Any, name: str, address: str) -> "subprocess.Popen[str]":  # noqa: ANN401
    """Ping from one container to another until killed, ten times a second; quietly, for nobody reads it meanwhile."""
    return subprocess.Popen(
        [*host.netns(name), "ping", "-q", "-i", "0.1", "-W", "2", address], stdout=subprocess.PIPE, text=True
    )


def lost(ping: "subprocess.Popen[str]") -> tuple[int, int]:
    """End a ping; return the packets that were sent and those that got no answer."""
    ping.send_signal(2)
    text = ping.communicate()[0]
    sent, received = re.findall(r"(\d+) packets transmitted, (\d+) received", text)[0]
    return int(sent), int(sent) - int(received)


def stream(server: list[str], client: list[str], address: str) -> float:
    """Return the bits a second of one TCP stream of five seconds."""
    serving = subprocess.Popen([*server, "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL)
    try:
        time.sleep(1)
        done = subprocess.run(
            [*client, "iperf3", "-J", "-t", "5", "-c", address], capture_output=True, text=True, check=True, timeout=60
        )
        rate: float = json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]
        return rate
    finally:
        serving.kill()
        serving.wait()


def run(cloud: Any, containers: int, seconds: float) -> dict[str, object]:  # noqa: ANN401
    """Do it all; return the figures."""
    cloud.join()
    cloud.hosts[0].pyrtc("network", "create", "-d", "overlay", "web")
    stay = [host.container(f"stay{number}") for number, host in enumerate(cloud.hosts)]
    trial = Trial(cloud, containers)
    trial.converged(time.monotonic())
    untouched = [pings(cloud.hosts[0], "stay0", stay[1]), pings(cloud.hosts[1], "stay1", stay[0])]
    try:
        return measured(trial, seconds, stay, untouched)
    finally:
        for ping in untouched:
            ping.kill()


def measured(
    trial: Trial, seconds: float, stay: list[str], untouched: "list[subprocess.Popen[str]]"
) -> dict[str, object]:
    """Let containers come and go while hosts and members do; return the figures."""
    cloud = trial.cloud
    work = [threading.Thread(target=trial.look_for_duplicates)]
    work += [threading.Thread(target=trial.churn, args=(host, number)) for number, host in enumerate(cloud.hosts)]
    for thread in work:
        thread.start()
    try:
        time.sleep(seconds / 3)
        cloud.etcd[0].stop()
        time.sleep(seconds / 3)
        cloud.etcd[0].start()
        cloud.cut(cloud.hosts[2])
        time.sleep(CUT)
        cloud.heal(cloud.hosts[2])
        time.sleep(seconds / 3)
    finally:
        trial.stop.set()
        for thread in work:
            thread.join()
    quiet = trial.converged(time.monotonic())
    healed = []
    for step in range(3):  # healing by itself, with something to tell on both sides
        cloud.cut(cloud.hosts[2])
        cloud.hosts[2].container(f"inside{step}")
        cloud.hosts[0].container(f"outside{step}")
        time.sleep(CUT)
        begin = time.monotonic()
        cloud.heal(cloud.hosts[2])
        healed.append(trial.converged(begin))
    losses = [lost(ping) for ping in untouched]
    begin = time.monotonic()
    late = cloud.hosts[0].container("late")
    told = trial.converged(begin)
    reached = cloud.hosts[1].pings("stay1", late)
    overlay = stream(cloud.hosts[1].netns("stay1"), cloud.hosts[0].netns("stay0"), stay[1])
    underlay = stream(cloud.hosts[1].enter, cloud.hosts[0].enter, cloud.hosts[1].address)
    return {
        "containers_started": trial.started,
        "containers_removed": trial.ended,
        "containers_at_the_end": sum(len(trial.endpoints(host)) for host in cloud.hosts),
        "duplicate_addresses": trial.duplicates,
        "failed_commands": trial.failures[:10],
        "pings_between_untouched": losses,
        "converged_after_churn_s": round(quiet, 3),
        "converged_after_healing_s": [round(value, 3) for value in healed],
        "start_until_all_hosts_know_s": round(told, 3),
        "reached": reached,
        "overlay_gbit": round(overlay / 1e9, 2),
        "underlay_gbit": round(underlay / 1e9, 2),
    }


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--containers", type=int, default=20, help="on each host, at most")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("needs root: hosts are network namespaces")
    sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "kernel")]
    os.environ["PYTHONPATH"] = str(TESTS.parent)
    hosts = importlib.import_module("overlay_hosts")
    with tempfile.TemporaryDirectory() as directory:
        cloud = hosts.Cloud(Path(directory), members=3)
        try:
            figures = run(cloud, arguments.containers, arguments.seconds)
        finally:
            cloud.close()
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text)


if __name__ == "__main__":
    main()
