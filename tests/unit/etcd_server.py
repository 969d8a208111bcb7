"""A real etcd of one member, in a directory of its own, on ports of this machine's loopback that are free."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyrtc.errors import PyrtcError
from pyrtc.network.overlay.etcd import Etcd
from pyrtc.network.overlay.gateway import Gateway, Tls


@contextmanager
def refusing(count: int = 1) -> Iterator[list[str]]:
    """URLs where nobody listens, and nobody else can meanwhile."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        yield [f"http://127.0.0.1:{sock.getsockname()[1]}" for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def eventually(holds: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


class EtcdServer:
    """One member. url: where it is spoken to."""

    def __init__(self, directory: Path, *options: str, scheme: str = "http", tls: Tls | None = None) -> None:
        if shutil.which("etcd") is None:
            pytest.skip("etcd is not installed: apt-get install etcd-server")
        self.directory = directory
        self.options = options
        self.tls = tls
        self.process: subprocess.Popen[bytes] | None = None
        for attempt in range(5):
            client, peer = free_ports(2)  # somebody else may take them at any moment
            self.url = f"{scheme}://127.0.0.1:{client}"
            self._peer = f"http://127.0.0.1:{peer}"
            try:
                self.start()
                return
            except AssertionError:
                shutil.rmtree(f"{directory}/data", ignore_errors=True)
                if attempt == 4:
                    raise

    def start(self) -> None:
        command = ["etcd", "--name", "m", "--data-dir", f"{self.directory}/data", "--log-outputs", "stderr"]
        command += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url]
        command += ["--listen-peer-urls", self._peer, "--initial-advertise-peer-urls", self._peer]
        command += ["--initial-cluster", f"m={self._peer}", *self.options]
        with open(f"{self.directory}/log", "ab") as log:
            environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.client(timeout=5).get("x")
                return
            except PyrtcError as error:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    said = Path(f"{self.directory}/log").read_text(errors="replace")[-3000:]
                    self.stop()
                    raise AssertionError(f"etcd does not start: {error}\n{said}") from error
                time.sleep(0.1)

    def client(self, *, timeout: float = 30) -> Etcd:
        return Etcd(Gateway([self.url], self.tls, timeout=timeout))

    def stop(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()
            self.process = None
