"""A container's network namespace with an attendant, and no container: what an attendant does, by itself.

The host is a `network_place.Place`. The fixture `attended` is to be imported together with `place`.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from network_place import PATIENCE, Place, eventually

HOST_SIDE, INSIDE = "172.18.0.1", "172.18.0.2"
HOST_SIDE6, INSIDE6 = "fd00:18::1", "fd00:18::2"
BACK, FRONT = "ab" * 32, "cd" * 32  # ids of networks

# In the host's namespace: make the sockets, start the attendant, and go.
_START = """
import _socket as s, json, os, sys
from pyrtc.core.attendant import Proxy, start_attendant
from pyrtc.core.network import open_in
wanted = json.loads(sys.argv[1])
netns = os.open(f"/proc/{wanted['container']}/ns/net", os.O_RDONLY)
container = os.pidfd_open(wanted["container"])
words = {}
if wanted["name_server"]:
    words["datagram_fd"] = open_in(netns, s.AF_INET, s.SOCK_DGRAM, "127.0.0.11", 53, nonblocking=True)
    words["listen_fd"] = open_in(netns, s.AF_INET, s.SOCK_STREAM, "127.0.0.11", 53, listen=64, nonblocking=True)
    words["directory_fd"] = os.open(wanted["directory"], os.O_RDONLY | os.O_DIRECTORY)
    words["names_fd"] = os.open(wanted["names"], os.O_RDONLY | os.O_DIRECTORY)
proxies = []
for protocol, address, port, target, target_port in wanted["proxies"]:
    six = ":" in address
    listener = s.socket(s.AF_INET6 if six else s.AF_INET, s.SOCK_STREAM if protocol == "tcp" else s.SOCK_DGRAM)
    if six:
        listener.setsockopt(s.IPPROTO_IPV6, s.IPV6_V6ONLY, 1)
    listener.bind((address, port))
    if protocol == "tcp":
        listener.listen(128)
    listener.setblocking(False)
    packed = s.inet_pton(s.AF_INET6 if ":" in target else s.AF_INET, target)
    proxies.append(Proxy(listener.detach(), packed, target_port, protocol == "udp"))
held = []
for port in range(wanted["held"][0], wanted["held"][1]):
    holder = s.socket(s.AF_INET, s.SOCK_STREAM)
    holder.bind(("127.0.0.1", port))
    held.append(holder.detach())
os.pipe2(0)  # what a caller leaves open is not the attendant's
program = os.open(wanted["program"], os.O_RDONLY)
pid, _ = start_attendant(program, container, proxies=proxies, held=held, **words)
print(pid)
"""


class Attended:
    """The namespace of a container, held by a process that stands for its process 1.

    Attributes
    ----------
    pid: of the container. attendant: pid, once it was started. directory: of the container.
    """

    def __init__(self, place: Place, directory: Path) -> None:
        self.place = place
        self.directory, self.names = directory / "container", directory / "networks"
        self.directory.mkdir()
        self.names.mkdir()
        self.attendant = 0
        self._servers: list[subprocess.Popen[bytes]] = []
        command = "ip link set lo up && echo ready && exec sleep 1000000"
        self.container = place.popen("unshare", "--net", "sh", "-ec", command, stdout=subprocess.PIPE)
        assert self.container.stdout is not None
        assert self.container.stdout.readline() == b"ready\n"
        self.pid = self.container.pid
        place.run("ip", "link", "add", "pv0", "type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        for run, device, four, six in (
            (place.run, "pv0", HOST_SIDE, HOST_SIDE6),
            (self.run, "eth0", INSIDE, INSIDE6),
        ):
            run("ip", "addr", "add", f"{four}/16", "dev", device)
            run("ip", "addr", "add", f"{six}/64", "dev", device, "nodad")
            run("ip", "link", "set", device, "up")

    @property
    def enter(self) -> list[str]:
        """The words before a command that put it into the container's network, from the host's place."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--"]

    def run(self, *words: str | Path, **keywords: object) -> "subprocess.CompletedProcess[str]":
        """Run a command in the container's network."""
        return self.place.run(*self.enter, *words, **keywords)

    def python(self, source: str, *arguments: str) -> str:
        """Run a program in the container's network; return what it prints."""
        return self.run(sys.executable, "-c", source, *arguments).stdout

    def knows(self, *networks: str, servers: Sequence[str] = (), forward: bool = True) -> None:
        """Say what the container is to know. servers: "ADDRESS" or "ADDRESS PORT" in hexadecimal digits."""
        lines = ["pyrtc-dns 1", *(["forward"] if forward else []), *(f"server {word} 0" for word in servers)]
        self._replace(self.directory / "dns", [*lines, *(f"network {name}" for name in networks)])

    def write(self, network: str, name: str, lines: Sequence[str]) -> None:
        """Say who is on a network."""
        (self.names / network).mkdir(exist_ok=True)
        ordered = sorted(lines, key=lambda line: line.encode())
        self._replace(self.names / network / "names", [f"pyrtc-names 1 {name}", *ordered])

    @staticmethod
    def _replace(path: Path, lines: Sequence[str]) -> None:
        new = path.with_suffix(".new")
        new.write_text("".join(line + "\n" for line in lines))
        new.rename(path)

    def start(
        self,
        proxies: Sequence[tuple[str, str, int, str, int]] = (),
        held: tuple[int, int] = (0, 0),
        *,
        name_server: bool = True,
    ) -> int:
        """Start the attendant. proxies: protocol, address and port on the host, address and port inside."""
        program = Path(__file__).parents[2] / "pyrtc" / "pyrtc-attendant"
        wanted: Mapping[str, object] = {
            "container": self.pid,
            "directory": str(self.directory),
            "names": str(self.names),
            "proxies": proxies,
            "held": held,
            "name_server": name_server,
            "program": str(program),
        }
        self.attendant = int(self.place.python(_START, json.dumps(wanted)))
        return self.attendant

    def serve(self, address: str, port: int = 53) -> Path:
        """Start a resolver on the host (`name_server.py`); return its log."""
        log = self.directory.parent / f"{address}-{port}.log"
        log.touch()
        script = Path(__file__).with_name("name_server.py")
        words = (sys.executable, str(script), address, str(port), str(log))
        server = self.place.popen(*words, stdout=subprocess.PIPE)
        self._servers.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        return log

    def dig(self, *words: str) -> "Answer":
        """Ask the name server of the container."""
        return Answer(self.run("dig", "@127.0.0.11", "+tries=1", "+time=15", "+nocookie", *words).stdout)

    def alive(self) -> bool:
        """Whether the attendant serves."""
        return running(self.attendant)

    def end(self) -> None:
        """End the container; wait until its attendant is gone, too."""
        self.container.kill()
        self.container.wait()
        if self.attendant:
            assert eventually(lambda: not running(self.attendant)), "the attendant outlives its container"

    def close(self) -> None:
        """End everything."""
        if self.container.stdout is not None:
            self.container.stdout.close()
        self.container.kill()
        self.container.wait()
        for server in self._servers:
            server.kill()
            server.communicate()
        if self.attendant and not eventually(lambda: not running(self.attendant), PATIENCE):
            os.kill(self.attendant, signal.SIGKILL)
            raise AssertionError("the attendant outlives its container")


class Answer:
    """What dig says. status: NOERROR and so on. records: data of the answer section. flags: words."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.status, self.flags, self.records = "", set[str](), list[str]()
        section = ""
        for line in text.splitlines():
            if "status: " in line:
                self.status = line.split("status: ")[1].split(",")[0]
            elif line.startswith(";; flags:"):
                self.flags = set(line.split(":")[1].split(";")[0].split())
            elif line.startswith(";; ") and line.endswith("SECTION:"):
                section = line
            elif section == ";; ANSWER SECTION:" and line and not line.startswith(";"):
                self.records.append(line.split(None, 4)[4])

    def __repr__(self) -> str:
        return self.text


def running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def attended(place: Place, tmp_path: Path) -> Iterator[Attended]:
    """The network of a container, without an attendant yet."""
    opened = Attended(place, tmp_path)
    try:
        yield opened
    finally:
        opened.close()
