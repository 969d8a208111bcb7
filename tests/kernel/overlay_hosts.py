"""Several hosts on this one: network namespaces on a bridge, each with a store and a /run/pyrtc of its own, and etcd.

`cloud` is a fixture: import it.

    cloud.hosts[0].python("...")     # a program on a host; `store` is open in it
    cloud.etcd[1].stop()             # kill one of three members, each on a machine of its own
    cloud.cut(cloud.hosts[2])        # a host that nobody reaches; cloud.heal(...) lets it back
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from network_place import PATIENCE, Namespace, eventually

NET = "192.0.2"
_HOLD_SWITCH = (
    "ip link set lo up && ip link add sw type bridge && ip link set sw up && echo ready && exec sleep 1000000"
)
_HOLD = (
    "mkdir -p /run/pyrtc && mount -t tmpfs tmpfs /run/pyrtc && ip link set lo up && echo ready && exec sleep 1000000"
)
IMAGE = "host"  # this machine's own files
PRELUDE = "import os, sys, json\nfrom pyrtc.store import Store\nstore = Store(os.environ['PYRTC_ROOT'])\n"


class Machine(Namespace):
    """A machine on the switch. address: its own."""

    def __init__(self, switch: Namespace, number: int, command: str, mtu: int = 1500) -> None:
        super().__init__(command)
        self._switch = switch
        self.port = f"p{number}"
        self.address = f"{NET}.{number}"
        try:
            self._plug_in(switch, mtu)
        except BaseException:
            super().close()
            raise

    def _plug_in(self, switch: Namespace, mtu: int) -> None:
        peer = ("peer", "name", "up0", "mtu", str(mtu), "netns", str(self.pid))
        switch.run("ip", "link", "add", self.port, "mtu", str(mtu), "type", "veth", *peer)
        switch.run("ip", "link", "set", self.port, "master", "sw", "up")
        self.run("ip", "addr", "add", f"{self.address}/24", "dev", "up0")
        self.run("ip", "link", "set", "up0", "up")

    def connect(self, *, up: bool) -> None:
        """Pull the machine's cable, or put it back."""
        self._switch.run("ip", "link", "set", self.port, "master" if up else "nomaster", *(["sw"] if up else []))


class Member(Machine):
    """A machine that runs one member of etcd."""

    def __init__(self, switch: Namespace, number: int, directory: Path, members: list[int]) -> None:
        super().__init__(switch, number, _HOLD)
        self.url = f"http://{self.address}:2379"
        self._directory = directory
        cluster = ",".join(f"m{member}=http://{NET}.{member}:2380" for member in members)
        self._command = [
            "etcd", "--name", f"m{number}", "--data-dir", "/run/pyrtc/etcd", "--log-outputs", "stderr",
            "--listen-client-urls", f"{self.url},http://127.0.0.1:2379", "--advertise-client-urls", self.url,
            "--listen-peer-urls", f"http://{self.address}:2380",
            "--initial-advertise-peer-urls", f"http://{self.address}:2380", "--initial-cluster", cluster,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start etcd, with what it had before."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
        with open(f"{self._directory}/log{self.port}", "ab") as log:
            self._process = self.popen(
                *self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Let go of the machine."""
        self.stop()
        super().close()


class Host(Machine):
    """A host of containers."""

    def __init__(self, switch: Namespace, number: int, directory: Path, mtu: int = 1500) -> None:
        super().__init__(switch, number, _HOLD, mtu)
        self.root = directory / f"store{number}"
        self.environment = {**os.environ, "PYRTC_ROOT": str(self.root)}

    def run(self, *words: str | Path, check: bool = True, **keywords: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command here to its end; what it wrote is text."""
        return super().run(*words, check=check, **{"env": getattr(self, "environment", None), **keywords})

    def pyrtc(self, *words: str | Path, check: bool = True, **keywords: Any) -> "subprocess.CompletedProcess[str]":
        """Run the command line here."""
        return self.run(sys.executable, "-m", "pyrtc.cli.main", *words, check=check, **keywords)

    def python(self, source: str, *arguments: str, **keywords: Any) -> str:
        """Run a program here that has `store` open; return what it prints."""
        return self.run(sys.executable, "-c", PRELUDE + source, *arguments, **keywords).stdout

    def container(self, name: str, *options: str, network: str = "web") -> str:
        """Start a container that sleeps on the overlay network; return its address."""
        words = ("-d", "--name", name, "--stop-timeout", "0", "--network", network)
        self.pyrtc("run", *words, *options, IMAGE, "sleep", "100000")
        return self.address_of(name, network)

    def address_of(self, name: str, network: str = "web") -> str:
        """Return the address of a container that runs here."""
        (document,) = json.loads(self.pyrtc("inspect", name).stdout)
        address: str = document["NetworkSettings"]["Networks"][network]["IPAddress"]
        return address

    def pings(self, name: str, target: str, size: int = 56) -> bool:
        """Whether a container here reaches another one at once, with so many bytes in one packet."""
        words = ("ping", "-c", "1", "-W", "2", "-M", "do", "-s", str(size), target)
        return self.pyrtc("exec", name, *words, check=False).returncode == 0

    def netns(self, name: str) -> list[str]:
        """Return the words before a command of this host that put it into a container's network."""
        pid = self.pyrtc("inspect", "--format", "{{.State.Pid}}", name).stdout.strip()
        return ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]

    def processes(self, command: str) -> list[int]:
        """Return the pids of the processes of this name on the host, in the order of their start."""
        here = os.stat(f"/proc/{self.pid}/ns/net").st_ino
        found = {}
        for name in os.listdir("/proc"):
            try:
                if name.isdecimal() and os.stat(f"/proc/{name}/ns/net").st_ino == here:
                    fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                    if Path(f"/proc/{name}/comm").read_text().strip() == command:
                        found[int(name)] = int(fields[19])
            except OSError:
                continue
        return sorted(found, key=lambda pid: found[pid])

    def watchers(self) -> list[int]:
        """Return the pids of the watcher and of the one that waits, in the order of their start."""
        return self.processes("pyrtc-overlay")

    def close(self) -> None:
        """Let go of the machine, with its containers and what else is left on it."""
        left = self.pyrtc("ps", "-aq", check=False).stdout.split()
        if left:
            self.pyrtc("rm", "-f", *left, check=False)
        here = os.stat(f"/proc/{self.pid}/ns/net").st_ino
        for name in os.listdir("/proc"):
            try:
                other = name.isdecimal() and int(name) not in (self.pid, os.getpid())
                if other and os.stat(f"/proc/{name}/ns/net").st_ino == here:
                    os.kill(int(name), signal.SIGKILL)
            except OSError:
                continue
        super().close()


class Cloud:
    """Hosts and members of etcd on one switch."""

    def __init__(self, directory: Path, hosts: int = 3, members: int = 1, mtu: int = 1500) -> None:
        self._open: list[Namespace] = []
        self.addresses: dict[str, str] = {}  # of containers, by name
        try:
            self.switch = self._opened(Namespace(_HOLD_SWITCH))
            numbers = list(range(201, 201 + members))
            self.etcd = [self._opened(Member(self.switch, number, directory, numbers)) for number in numbers]
            self.hosts = [self._opened(Host(self.switch, number, directory, mtu)) for number in range(1, 1 + hosts)]
        except BaseException:
            self.close()
            raise
        self.urls = ",".join(member.url for member in self.etcd)

    def _opened(self, machine: Any) -> Any:
        self._open.append(machine)
        return machine

    def join(self, *hosts: Host, options: "Callable[[Host], tuple[str, ...]]" = lambda host: ()) -> None:
        """Have hosts join, all by default, once etcd is there. options: further ones of each."""
        for host in hosts or self.hosts:
            deadline = time.monotonic() + PATIENCE
            words = ("cluster", "join", "--etcd", self.urls, "--name", f"h{host.address.rpartition('.')[2]}")
            words += options(host)
            while (done := host.pyrtc(*words, check=False)).returncode:
                assert time.monotonic() < deadline and "cannot be reached" in done.stderr, done.stderr
                time.sleep(0.3)

    def cut(self, machine: Machine) -> None:
        """Let nobody reach a machine, and it nobody."""
        machine.connect(up=False)

    def heal(self, machine: Machine) -> None:
        """Let it back."""
        machine.connect(up=True)

    def close(self) -> None:
        """Let go of all."""
        for machine in reversed(self._open):
            machine.close()


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    """Three hosts and one member of etcd."""
    opened = open_cloud(tmp_path)
    yield opened
    opened.close()


def open_cloud(directory: Path, **numbers: int) -> Cloud:
    """Return hosts and etcd; the caller closes them."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed: apt-get install etcd-server")
    return Cloud(directory, **numbers)


__all__ = ["Cloud", "Host", "cloud", "eventually", "open_cloud"]
