"""A network namespace in which pyrtc runs as root and may do what it likes to bridges, nftables and addresses.

`place` is a fixture: import it. Nothing here changes the namespaces of the test's own process; what is to happen in the
place is a process of its own. There /run/pyrtc is memory, lo is up and, unless a test says otherwise, `wan0` leads to a
second namespace, the outside, which routes nothing back: what comes out there unmasqueraded gets no answer.

    place.run("ip", "-json", "addr")          # a command in it, to its end
    place.pyrtc("run", "-d", "-p", "80", ...) # the command line, with the store of this test
    place.python("import pyrtc; ...")         # a program in it, which has pyrtc
    place.outside.run("nc", HOST, "8080")     # from another machine

Whatever it is asked for has to be gone before the test ends: `place.assert_clean()`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 30.0  # seconds for what takes milliseconds on a machine that is not busy
HOST, OUTSIDE = "198.51.100.1", "198.51.100.2"  # of wan0, and of the outside's end of it
HOST6, OUTSIDE6 = "2001:db8:51::1", "2001:db8:51::2"

_HOLD = (
    "mkdir -p /run/pyrtc && mount -t tmpfs tmpfs /run/pyrtc && ip link set lo up && echo ready && exec sleep 1000000"
)


class Namespace:
    """A network namespace, held by a process until it is closed."""

    def __init__(self, command: str, *options: str) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", *options, "sh", "-ec", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._holder.stdout is not None and self._holder.stderr is not None
        if self._holder.stdout.readline() != b"ready\n":
            error = self._holder.stderr.read().decode(errors="replace")
            self.close()
            # Nothing but the missing right: whatever else goes wrong has to be seen.
            assert "unshare failed: Operation not permitted" in error, error
            pytest.skip(f"needs the right to make a network namespace: {error}")
        self.pid = self._holder.pid

    @property
    def enter(self) -> list[str]:
        """The words before a command that put it here."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", f"--mount=/proc/{self.pid}/ns/mnt", "--"]

    def run(self, *words: str | Path, check: bool = True, **keywords: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command here to its end; what it wrote is text."""
        done = subprocess.run(
            [*self.enter, *map(str, words)],
            **{
                "stdin": None if "input" in keywords else subprocess.DEVNULL,
                "capture_output": True,
                "text": True,
                "timeout": 100,
                "check": False,
                **keywords,
            },
        )
        assert not check or done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done

    def popen(self, *words: str | Path, **keywords: Any) -> "subprocess.Popen[bytes]":
        """Start a command here."""
        return subprocess.Popen([*self.enter, *map(str, words)], **keywords)

    def links(self) -> dict[str, dict[str, Any]]:
        """Return what `ip -details addr` says of every device, by its name."""
        found = json.loads(self.run("ip", "-json", "-details", "addr").stdout)
        return {link["ifname"]: link for link in found}

    def close(self) -> None:
        """Let go of it; it goes when nothing else is in it."""
        self._holder.kill()
        self._holder.communicate()


class Place(Namespace):
    """Where pyrtc runs.

    Attributes
    ----------
    outside: another machine. environment: of what is started here. root: the store.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(_HOLD)
        self.root = root
        self.environment = {**os.environ, "PYRTC_ROOT": str(root)}
        self.outside = Namespace("ip link set lo up && echo ready && exec sleep 1000000")
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        self.run("ip", "link", "add", "wan0", "type", "veth", "peer", "name", "wan1", "netns", str(self.outside.pid))
        for space, device, here, here6, there, there6 in (
            (self, "wan0", HOST, HOST6, OUTSIDE, OUTSIDE6),
            (self.outside, "wan1", OUTSIDE, OUTSIDE6, None, None),
        ):
            space.run("ip", "addr", "add", f"{here}/24", "dev", device)
            space.run("ip", "addr", "add", f"{here6}/64", "dev", device, "nodad")
            space.run("ip", "link", "set", device, "up")
            if there is not None and there6 is not None:
                space.run("ip", "route", "add", "default", "via", there)
                space.run("ip", "-6", "route", "add", "default", "via", there6)

    def run(self, *words: str | Path, check: bool = True, **keywords: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command here to its end; what it wrote is text."""
        return super().run(*words, check=check, **{"env": getattr(self, "environment", None), **keywords})

    def popen(self, *words: str | Path, **keywords: Any) -> "subprocess.Popen[bytes]":
        """Start a command here."""
        return super().popen(*words, **{"env": self.environment, **keywords})

    def pyrtc(self, *words: str | Path, check: bool = True, **keywords: Any) -> "subprocess.CompletedProcess[str]":
        """Run the command line here."""
        return self.run(sys.executable, "-m", "pyrtc.cli.main", *words, check=check, **keywords)

    def python(self, source: str, *arguments: str, **keywords: Any) -> str:
        """Run a program here and return what it prints."""
        return self.run(sys.executable, "-c", source, *arguments, **keywords).stdout

    def tables(self) -> list[str]:
        """Return the tables of nftables that are here, as `inet pyrtc`."""
        found = json.loads(self.run("nft", "--json", "list", "tables").stdout)["nftables"]
        return [f"{item['table']['family']} {item['table']['name']}" for item in found if "table" in item]

    def assert_clean(self) -> None:
        """Fail where a device, a table, a name of a namespace or a file of pyrtc's is left here."""
        assert eventually(lambda: set(self.links()) == {"lo", "wan0"}), self.links().keys()
        assert not self.tables()
        files = self.run("find", "/run/pyrtc", "-type", "f", "!", "-name", "*.lock", "!", "-path", "*/userns/*").stdout
        assert not files.strip(), files

    def close(self) -> None:
        """Let go of both."""
        super().close()
        if hasattr(self, "outside"):
            self.outside.close()


def eventually(holds: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Whether something comes to be true in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A place of this test's own, with an empty store."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    opened = Place(tmp_path / "store")
    try:
        yield opened
    finally:
        _end_containers(opened)
        opened.close()


def _end_containers(place: Place) -> None:
    """Kill what a failed test left running here: it holds the namespace."""
    here = os.stat(f"/proc/{place.pid}/ns/net").st_ino
    if any((place.root / "containers").glob("*")):
        place.pyrtc("rm", "--force", *place.pyrtc("ps", "-aq").stdout.split(), check=False)
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) not in (place.pid, os.getpid()):
            try:
                if os.stat(f"/proc/{name}/ns/net").st_ino == here:
                    os.kill(int(name), signal.SIGKILL)
            except OSError:
                continue  # it has ended
