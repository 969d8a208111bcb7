"""An ordinary user in a network namespace that leads to another machine, and servers and clients to try it with.

Root makes the place, and runs pyrtc in it as a user who exists only there. Ordinary users can neither make that place
nor, mostly, open /dev/net/tun in their tests. `user` is a fixture: import it, and `place`.
"""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from network_place import OUTSIDE, Namespace, Place, eventually, place

import pyrtc

__all__ = [
    "COUNT",
    "FETCH",
    "FIRST",
    "PROGRAMS",
    "UID",
    "Server",
    "User",
    "ask",
    "hide",
    "only",
    "place",
    "port_server",
    "udp_server",
    "user",
]

UID = 64322  # of the user; nobody's on a usual system
FIRST, COUNT = 0x4100_0000, 65536  # its subordinate ids
PROGRAMS = ("pasta", "slirp4netns")
_SERVING = ("pyrtc-keeper", "pyrtc-network", "pasta", "pasta.avx2", "passt.avx2", "slirp4netns")


class User:
    """An ordinary user in a place. base: a directory of its own, with its store."""

    def __init__(self, place: Place, base: Path) -> None:
        self.place = place
        self.base = base
        self.path = os.environ.get("PATH", os.defpath)
        runtime = base / "run"
        for directory in (base, base / "store", runtime):
            directory.mkdir(exist_ok=True)
            os.chown(directory, UID, UID)
            directory.chmod(0o700)
        base.chmod(0o755)
        self.environment = {
            "HOME": str(base),
            "LANG": "C.UTF-8",
            "PYRTC_ROOT": str(base / "store"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(Path(pyrtc.__file__).parents[1]),
            "XDG_RUNTIME_DIR": str(runtime),
        }

    def words(self, *words: str | Path) -> list[str]:
        settings = [f"{name}={value}" for name, value in {**self.environment, "PATH": self.path}.items()]
        return ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--inh-caps=-all", "env", "-i",
                *settings, *map(str, words)]  # fmt: skip

    def run(self, *words: str | Path, check: bool = True) -> "subprocess.CompletedProcess[str]":
        return self.place.run(*self.words(*words), check=check)

    def pyrtc(self, *words: str | Path, check: bool = True) -> "subprocess.CompletedProcess[str]":
        return self.run(sys.executable, "-m", "pyrtc.cli.main", *words, check=check)

    def popen(self, *words: str | Path, **keywords: Any) -> "subprocess.Popen[bytes]":
        return self.place.popen(*self.words(*words), **keywords)

    def inside(self, script: str, *options: str, check: bool = True) -> str:
        """What a script in a container says."""
        done = self.pyrtc("run", "--rm", *(options or ("--network=bridge",)), "host", "sh", "-c", script, check=check)
        return done.stdout

    def serving(self) -> list[int]:
        """The keepers, and the programs that they keep."""
        return [pid for pid, _name in self.named()]

    def keepers(self) -> list[int]:
        return [pid for pid, name in self.named() if name == "pyrtc-keeper"]

    def named(self) -> Iterator[tuple[int, str]]:
        """Yield what serves networks, with the names of the processes."""
        here = os.stat(f"/proc/{self.place.pid}/ns/net").st_ino
        for process in Path("/proc").glob("[0-9]*"):
            try:
                said = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
                # Others of this id may be in other places: another run of these tests.
                is_here = os.stat(process / "ns/net").st_ino == here
                is_here |= str(self.base).encode() in (process / "cmdline").read_bytes()
            except OSError:  # it has ended
                continue
            is_ours = is_here and said["Uid"].split()[0] == str(UID) and said["State"][0] not in "ZX"
            if is_ours and said["Name"] in _SERVING:
                yield int(process.name), said["Name"]

    def nothing_is_left(self) -> bool:
        files = [path for path in (self.base / "run").rglob("*") if path.suffix != ".lock" and path.name != "pyrtc"]
        return not self.serving() and not files


def hide(place: Place, base: Path, path: str, text: str) -> None:
    """Let a file of /etc say something else in the place."""
    other = base / path.replace("/", "_")
    other.write_text(text)
    place.run("mount", "--bind", other, path)


# The host's resolver, which knows no name: one that does not answer would let whoever asks wait for ten seconds.
_NO_NAMES = """
import socket, sys
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
made.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    message, asker = made.recvfrom(4096)
    made.sendto(message[:2] + bytes([0x81, 0x83]) + message[4:], asker)
"""


@pytest.fixture
def user(place: Place) -> Iterator[User]:
    missing = [name for name in ("setpriv", "newuidmap", "newgidmap", *PROGRAMS) if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    if not all(os.stat(path).st_mode & stat.S_IXOTH for path in Path(__file__).parents):
        pytest.skip("needs the tests to be readable by everybody")
    base = Path(tempfile.mkdtemp(prefix="pyrtc-rootless-"))
    resolver = place.outside.popen(sys.executable, "-c", _NO_NAMES, OUTSIDE, stdout=subprocess.PIPE)
    try:
        assert resolver.stdout is not None
        assert resolver.stdout.readline() == b"ready\n"
        base.chmod(0o755)
        made = User(place, base / "home")
        passwd = Path("/etc/passwd").read_text() + f"pyrtc-network:x:{UID}:{UID}::{base}/home:/bin/sh\n"
        hide(place, base, "/etc/passwd", passwd)
        for name in ("/etc/subuid", "/etc/subgid"):
            hide(place, base, name, f"pyrtc-network:{FIRST}:{COUNT}\n")
        hide(place, base, "/etc/resolv.conf", f"nameserver {OUTSIDE}\nsearch example.test\n")
        place.run("mount", "-t", "tmpfs", "tmpfs", "/dev/net")
        place.run("mknod", "--mode=666", "/dev/net/tun", "c", "10", "200")
        if place.run("sh", "-c", ": <>/dev/net/tun", check=False).returncode:
            pytest.skip("needs a kernel with tun, and the right to open it")
        yield made
        made.pyrtc("rm", "--force", *made.pyrtc("ps", "-aq").stdout.split() or ["none"], check=False)
        assert eventually(made.nothing_is_left), made.serving()
    finally:
        resolver.kill()
        resolver.communicate()
        for name in ("/etc/passwd", "/etc/subuid", "/etc/subgid", "/etc/resolv.conf", "/dev/net"):
            place.run("umount", name, check=False)
        shutil.rmtree(base)


def only(user: User, *programs: str) -> None:
    """Let the user find these of the two programs, and everything else that it needs."""
    directory = user.base.parent / "bin"
    directory.mkdir()
    wanted = ("newuidmap", "newgidmap", "env", *programs)
    for name in wanted:
        found = shutil.which(name)
        assert found is not None
        (directory / name).symlink_to(found)
    user.path = str(directory)


# ---- servers and clients ------------------------------------------------------------------------------------------

SERVER = textwrap.dedent(
    """\
    import socket, sys, threading
    def tcp(where):
        family = socket.AF_INET6 if ":" in where else socket.AF_INET
        made = socket.create_server((where, int(sys.argv[1])), family=family)
        def serve():
            while True:
                asked, peer = made.accept()
                with asked:
                    asked.recv(100)
                    asked.sendall((sys.argv[2] + " " + peer[0] + "\\n").encode())
        threading.Thread(target=serve).start()
    for where in sys.argv[3:]:
        tcp(where)
    print("ready", flush=True)
    """
)


class Server:
    """Says a word and who asks, on a TCP port of some addresses of a namespace."""

    def __init__(self, where: Namespace, port: int, word: str, *addresses: str) -> None:
        python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
        self.process = where.popen(python, "-c", SERVER, str(port), word, *addresses, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.communicate()


ASK = textwrap.dedent(
    """\
    import socket, sys
    host, port, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    try:
        if kind in ("tcp", "silent"):
            with socket.create_connection((host, port), 3) as asked:
                if kind == "tcp":
                    asked.sendall(b"x")
                said = asked.makefile().readline()
        else:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as asked:
                asked.settimeout(1)
                asked.connect((host, port))
                asked.send(b"x\\n")
                said = asked.recv(100).decode()
        print(said.strip() or "nothing")
    except OSError as error:
        print("!", type(error).__name__, error)
    """
)


def ask(where: Namespace, host: str, port: int, kind: str = "tcp") -> str:
    return where.run(sys.executable, "-c", ASK, host, str(port), kind).stdout.strip()


def port_server(port: int, *, speaks_later: bool = True) -> list[str]:
    """A command that tells each TCP client on a port its address once that has said something, for the image `host`."""
    source = textwrap.dedent(
        f"""\
        import socket
        made = socket.create_server(("::", {port}), family=socket.AF_INET6, dualstack_ipv6=True)
        while True:
            asked, peer = made.accept()
            with asked:
                asked.recv(100) if {speaks_later} else None
                asked.sendall(("hello " + peer[0].removeprefix("::ffff:") + "\\n").encode())
        """
    )
    return ["host", "/usr/bin/python3", "-c", source]


def udp_server(port: int) -> list[str]:
    source = textwrap.dedent(
        f"""\
        import socket
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        made.bind(("::", {port}))
        while True:
            said, peer = made.recvfrom(100)
            made.sendto(("hello " + peer[0].removeprefix("::ffff:") + "\\n").encode(), peer)
        """
    )
    return ["host", "/usr/bin/python3", "-c", source]


# What servers say to a container, or "refused": FETCH TRIES HOST/PORT...; a try takes five seconds at most.
FETCH = textwrap.dedent(
    """\
    /usr/bin/python3 -c '
    import socket, sys
    from concurrent.futures import ThreadPoolExecutor
    def fetch(where):
        host, port = where.rsplit("/", 1)
        for _ in range(int(sys.argv[1])):
            try:
                with socket.create_connection((host, int(port)), 5) as asked:
                    asked.sendall(b"x")
                    return asked.makefile().readline().strip() or "nothing"
            except OSError as error:
                print(where, error, file=sys.stderr)
        return "refused"
    with ThreadPoolExecutor(20) as pool:
        print(*pool.map(fetch, sys.argv[2:]), sep="\\n")
    ' """
)
