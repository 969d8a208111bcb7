"""Other engines, where this machine has them: what each is asked to do, so that it does the same as pyrtc."""

import itertools
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.bundle import write_bundle
from benchmarks.launcher import Launcher
from benchmarks.measure import Contender, execute

__all__ = ["PYRTC", "Podman", "Runtime", "bubblewrap", "bubblewrap_words", "docker_answers", "versions"]

PYRTC = Path(sys.executable).with_name("pyrtc")


def bubblewrap(rootfs: Path, *command: str) -> Contender | None:
    """Return bwrap --unshare-all: new namespaces, /proc and /dev; no system call filter, no control group."""
    words = bubblewrap_words(rootfs, *(command or ("true",)))
    return None if words is None else Contender("bwrap --unshare-all", partial(execute, *words))


def bubblewrap_words(rootfs: Path, *command: str) -> list[str | Path] | None:
    """Return the words that run a command so; None where there is no bwrap."""
    if not shutil.which("bwrap"):
        return None
    return ["bwrap", "--unshare-all", "--bind", rootfs, "/", "--proc", "/proc", "--dev", "/dev", *command]


class Runtime:
    """crun or runc with a bundle of equal isolation; every container has a name and a control group of its own."""

    def __init__(
        self,
        name: str,
        scratch: Path,
        rootfs: Path,
        launcher: Launcher,
        *,
        limits: bool = False,
        command: Sequence[str] = ("true",),
    ) -> None:
        self.name = name
        label = f"{name}-limits" if limits else name
        self._bundle, self._state = scratch / f"bundle-{label}", scratch / f"state-{label}"
        self._launcher, self._rootfs = launcher, rootfs
        self._label = label
        self._numbers = itertools.count()
        if not self._bundle.exists():
            write_bundle(name, self._bundle, rootfs, limits=limits, command=command)

    @staticmethod
    def installed(name: str) -> bool:
        """Whether the command is there."""
        return shutil.which(name) is not None

    def command(self, *options: str) -> list[str | Path]:
        """Return the words that run one container more. options: of the runtime itself."""
        name = f"pyrtc-benchmark-{self._label}-{next(self._numbers)}"
        return [self.name, "--root", self._state, *options, "run", "--bundle", self._bundle, name]

    def sleeper(self) -> str:
        """Start a container that sleeps; returns its name."""
        bundle = self._bundle.with_name(f"{self._bundle.name}-sleeps")
        if not bundle.exists():
            write_bundle(self.name, bundle, self._rootfs, limits=False, command=("sleep", "infinity"))
        name = f"pyrtc-benchmark-{self._label}-{next(self._numbers)}"
        self._launcher.run([self.name, "--root", self._state, "run", "--detach", "--bundle", bundle, name])
        return name

    def exec_true(self, name: str) -> float:
        """Run `true` in it; returns milliseconds."""
        return self._launcher.run([self.name, "--root", self._state, "exec", name, "true"]) * 1000

    def remove(self, name: str) -> None:
        """End a sleeping container."""
        self._launcher.run([self.name, "--root", self._state, "delete", "--force", name])

    def run(self, *options: str) -> float:
        """Run one container; returns milliseconds."""
        return self._launcher.run(self.command(*options)) * 1000

    def rate(self, workers: int, each: int) -> float:
        """Run workers x each containers, so many at a time; returns containers per second."""
        commands = [self.command() for _ in range(workers * each)]
        return len(commands) / self._launcher.run(*commands, workers=workers)


class Podman:
    """podman with a storage of its own."""

    def __init__(self, storage: Path) -> None:
        self._words = (
            "podman", "--root", str(storage / "root"), "--runroot", str(storage / "run"), "--storage-driver", "overlay",
            "--cgroup-manager", "cgroupfs", "--log-level", "error",
        )  # fmt: skip

    @staticmethod
    def installed() -> bool:
        """Whether the command is there."""
        return shutil.which("podman") is not None

    def pull(self, source: str) -> str:
        """Take an image from oci:DIR:NAME and return its id."""
        done = subprocess.run([*self._words, "pull", "-q", source], check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    def pull_words(self, name: str) -> list[str]:
        """Return the words that pull from a registry without TLS."""
        return [*self._words, "pull", "-q", "--tls-verify=false", name]

    def remove(self, image: str) -> None:
        """Remove an image, so that it can be taken again."""
        subprocess.run([*self._words, "rmi", "-f", image], check=True, stdout=subprocess.DEVNULL)

    def run_true(self, image: str) -> list[str]:
        """Return the words that run `true` without a network."""
        return self.run_once(image, "true")

    def run_once(self, image: str, *command: str) -> list[str]:
        """Return the words that run a command and remove the container."""
        return [*self._run(), "--rm", image, *command]

    def run_detached(self, image: str, name: str, *command: str) -> list[str]:
        """Return the words that start a container and leave it."""
        return [*self._run(), "-d", "--name", name, image, *command]

    def run_attached(self, image: str, name: str, *command: str) -> list[str]:
        """Return the words that start a container and stay with it."""
        return [*self._run(), "--name", name, image, *command]

    def words(self, *words: str) -> list[str]:
        """Return any other command."""
        return [*self._words, *words]

    def _run(self) -> list[str]:
        # podman asks for higher limits than root may have where it lacks CAP_SYS_RESOURCE.
        return [*self._words, "run", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]


def versions() -> str:
    """Return what the peers on this machine call themselves."""
    answers = []
    for name in ("bwrap", "crun", "runc", "podman", "umoci"):
        if shutil.which(name):
            done = subprocess.run([name, "--version"], capture_output=True, text=True, check=False)
            first = done.stdout.partition("\n")[0].split()
            answers.append(f"{name} {next((word for word in first if word[0].isdigit()), '?')}")
    return ", ".join(answers) or "no peers on this machine"


def docker_answers() -> bool:
    """Whether there is a docker client and a daemon behind it."""
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0
