"""Other engines, where this machine has them: what each is asked to do, so that it does the same as pyrtc."""

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.bundle import write_bundle
from benchmarks.measure import Contender, execute

__all__ = ["PYRTC", "Podman", "bubblewrap", "docker_answers", "runtime"]

PYRTC = Path(sys.executable).with_name("pyrtc")


def bubblewrap(rootfs: Path) -> Contender | None:
    """Return bwrap --unshare-all: new namespaces, /proc and /dev; no system call filter, no control group."""
    if not shutil.which("bwrap"):
        return None
    words = ("bwrap", "--unshare-all", "--bind", rootfs, "/", "--proc", "/proc", "--dev", "/dev", "true")
    return Contender("bwrap --unshare-all", partial(execute, *words))


def runtime(name: str, scratch: Path, rootfs: Path, *options: str, limits: bool = False) -> Callable[[], None] | None:
    """Return `crun run` or `runc run` of a bundle of equal isolation, each time under a new name."""
    if not shutil.which(name):
        return None
    label = "-".join(
        [name, *(option.strip("-").replace("=", "-") for option in options), *(["limits"] if limits else [])]
    )
    bundle, state = scratch / f"bundle-{label}", scratch / f"state-{label}"
    write_bundle(name, bundle, rootfs, limits=limits)
    numbers = itertools.count()

    def run() -> None:
        execute(name, "--root", state, *options, "run", "--bundle", bundle, f"{label}-{next(numbers)}")

    return run


class Podman:
    """podman with a storage of its own."""

    def __init__(self, storage: Path) -> None:
        self.words = (
            "podman", "--root", str(storage / "root"), "--runroot", str(storage / "run"), "--storage-driver", "overlay",
            "--cgroup-manager", "cgroupfs", "--log-level", "error",
        )  # fmt: skip

    @staticmethod
    def installed() -> bool:
        """Whether the command is there."""
        return shutil.which("podman") is not None

    def pull(self, source: str) -> str:
        """Take an image from oci:DIR:NAME and return its id."""
        done = subprocess.run([*self.words, "pull", "-q", source], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def remove(self, image: str) -> None:
        """Remove an image, so that it can be taken again."""
        subprocess.run([*self.words, "rmi", "-f", image], check=True, capture_output=True)

    def run_true(self, image: str) -> Callable[[], None]:
        """Return a run of `true` without a network."""
        return partial(execute, *self.words, "run", "--rm", "--network", "none", image, "true")


def docker_answers() -> bool:
    """Whether there is a docker client and a daemon behind it."""
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0
