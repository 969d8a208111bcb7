"""Other container engines as ways of having an instance: podman, docker, lxc and systemd-nspawn, with layers of theirs.

Each runs a command to its end, too, so that whole starts can be compared and its isolation be read from inside.
"""

import itertools
import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.comparison.instances import Instance, Source, Way, begun, spawn
from benchmarks.launcher import Shelter
from benchmarks.peers import Podman

__all__ = ["Engines", "Peer"]


class Peer(Way):
    """Another engine. short: as it is called beside runtimes."""

    kind = "peer"
    short: str

    def __init__(self, prefix: list[str]) -> None:
        self.prefix = prefix
        self._numbers = itertools.count()

    def prepare(self, source: Source) -> None:
        """Bring in an image, once.

        Raises
        ------
        subprocess.CalledProcessError: it cannot.
        """

    def once(self, source: Source, *command: str) -> list[str | Path]:
        """Return the words that run a command in one container more and leave nothing; the image is there."""
        raise NotImplementedError

    def close(self) -> None:
        """Remove what was brought in."""


class PodmanLayers(Peer):
    """podman run, without a network, with a storage of its own."""

    name, short = "podman run (overlay)", "podman run"

    def __init__(self, disk: Path, prefix: list[str]) -> None:
        super().__init__(prefix)
        self._podman = Podman(disk / "s")  # podman refuses long names
        self._images: dict[str, str] = {}

    def prepare(self, source: Source) -> None:
        """Pull from the layout."""
        if source.name not in self._images:
            self._images[source.name] = self._podman.pull(f"oci:{source.layout}:{source.name}")

    def once(self, source: Source, *command: str) -> list[str | Path]:
        """podman run --rm."""
        return [*self.prefix, *self._podman.run_once(self._images[source.name], *command)]

    def start(self, source: Source, number: int) -> Instance:
        """Start a container; the image is taken from the layout before, once."""
        self.prepare(source)
        name = f"pyrtc-benchmark-{number}"
        words = self._podman.run_attached(self._images[source.name], name, "/bin/workload", "sleep")
        begin = time.perf_counter()
        process = spawn(*self.prefix, *words)
        remove = [*self.prefix, *self._podman.words("rm", "-f", "-t", "0", name)]
        return begun(Instance(0.0, process, undo=[remove]), begin)


class DockerLayers(Peer):
    """docker run, without a network; its daemon keeps its files elsewhere."""

    name, short = "docker run (overlay)", "docker run"
    is_on_disk = False

    def __init__(self, prefix: list[str]) -> None:
        super().__init__(prefix)
        self._known: set[str] = set()

    @staticmethod
    def _image(source: Source) -> str:
        return f"pyrtc-benchmark:{source.name}"

    def prepare(self, source: Source) -> None:
        """Import the tree."""
        image = self._image(source)
        if image in self._known:
            return
        # A run that was killed has left it with the daemon.
        found = subprocess.run(["docker", "image", "inspect", image], check=False, capture_output=True)
        if found.returncode:
            with subprocess.Popen(["tar", "-C", source.tree.path, "-c", "."], stdout=subprocess.PIPE) as tar:
                subprocess.run(["docker", "import", "-", image], stdin=tar.stdout, check=True, capture_output=True)
        self._known.add(image)

    def once(self, source: Source, *command: str) -> list[str | Path]:
        """docker run --rm."""
        return ["docker", "run", "--rm", "--network", "none", self._image(source), *command]

    def start(self, source: Source, number: int) -> Instance:
        """Start a container."""
        self.prepare(source)
        name = f"pyrtc-benchmark-{os.getpid()}-{number}"
        words = ["docker", "run", "--name", name, "--network", "none", self._image(source), "/bin/workload", "sleep"]
        begin = time.perf_counter()
        process = spawn(*words)
        return begun(Instance(0.0, process, undo=[["docker", "rm", "-f", name]]), begin)

    def close(self) -> None:
        """Remove the images."""
        for image in sorted(self._known):
            subprocess.run(["docker", "rmi", "-f", image], check=False, capture_output=True)


class Nspawn(Peer):
    """systemd-nspawn with an overlay in memory over the tree."""

    name, short = "systemd-nspawn --volatile=overlay", "systemd-nspawn"

    def __init__(self, prefix: list[str]) -> None:
        super().__init__(prefix)
        self._others = _groups(*_NSPAWN_GROUPS)

    def close(self) -> None:
        """Remove the groups that were not there before."""
        _remove_groups(_groups(*_NSPAWN_GROUPS) - self._others)

    def once(self, source: Source, *command: str) -> list[str | Path]:
        """Run it on the tree itself, without a unit of its own, so that systemd need not be running."""
        return [
            "systemd-nspawn", "-q", "-D", source.tree.path, "--volatile=overlay", "--register=no", "--keep-unit",
            "-M", f"pyrtc-benchmark-{next(self._numbers)}", "--private-network", *command,
        ]  # fmt: skip

    def start(self, source: Source, number: int) -> Instance:
        """Start it."""
        del number
        begin = time.perf_counter()
        return begun(Instance(0.0, spawn(*self.once(source, "/bin/workload", "sleep"))), begin)


class Lxc(Peer):
    """lxc-execute with an overlay over the tree."""

    name, short = "lxc-execute (overlay)", "lxc-execute"

    def __init__(self, disk: Path, prefix: list[str]) -> None:
        super().__init__(prefix)
        self._base = disk / "lxc"

    def _configured(self, source: Source, upper: Path, name: str) -> list[str | Path]:
        """Write what lxc wants to know of a container, and return the words that run it."""
        upper.mkdir(parents=True, exist_ok=True)
        (self._base / "state").mkdir(exist_ok=True)
        config = upper.with_suffix(".conf")
        config.write_text(
            f"lxc.uts.name = {name}\nlxc.rootfs.path = overlayfs:{source.tree.path}:{upper}\nlxc.net.0.type = empty\n"
            "lxc.apparmor.profile = unconfined\nlxc.mount.auto = proc:mixed sys:ro\n"
        )
        return ["lxc-execute", "-P", self._base / "state", "-n", name, "-f", config, "--"]

    def once(self, source: Source, *command: str) -> list[str | Path]:
        """Run it with an upper directory that the next has, too: the workload writes nothing."""
        name = f"pyrtc-benchmark-once-{next(self._numbers)}"
        return [*self._configured(source, self._base / "once", name), *command]

    def start(self, source: Source, number: int) -> Instance:
        """Start it with a new upper directory."""
        name, upper = f"pyrtc-benchmark-{number}", self._base / f"upper-{number}"
        begin = time.perf_counter()
        words = self._configured(source, upper, name)
        process = spawn(*words, "/bin/workload", "sleep")
        stop = ["lxc-stop", "-P", str(self._base / "state"), "-k", "-n", name]
        files = [upper, upper.with_suffix(".conf")]
        return begun(Instance(0.0, process, files=files, undo=[stop]), begin)

    def close(self) -> None:
        """Remove the groups of those that were killed."""
        _remove_groups(_groups(*_LXC_GROUPS))


_GROUPS = Path("/sys/fs/cgroup")
# What lxc and systemd-nspawn leave of control groups when they are killed: of the first by the benchmark's names, of
# the second beside the groups of whoever called it.
_LXC_GROUPS = ("lxc.payload.pyrtc-benchmark-*", "lxc.monitor.pyrtc-benchmark-*")
_NSPAWN_GROUPS = ("payload", "supervisor")


def _groups(*names: str) -> set[Path]:
    return {path for name in names for pattern in (name, f"*/{name}") for path in _GROUPS.glob(pattern)}


def _remove_groups(groups: set[Path]) -> None:
    for path in groups:
        with suppress(OSError):  # somebody is in it
            path.rmdir()


class Engines:
    """The engines of this machine, and why the others are not in it.

    Attributes
    ----------
    found: those that are there. missing: what there is instead of the others, in words.
    """

    def __init__(self, disk: Path) -> None:
        self.missing: list[str] = []
        self.found: list[Peer] = []
        self._shelter = Shelter()
        prefix = self._shelter.prefix
        if self._has("podman"):
            self.found.append(PodmanLayers(disk, prefix))
        if self._has("docker") and self._docker_answers():
            self.found.append(DockerLayers(prefix))
        if self._has("systemd-nspawn"):
            self.found.append(Nspawn(prefix))
        if self._has("lxc-execute"):
            self.found.append(Lxc(disk, prefix))

    def _has(self, program: str) -> bool:
        if shutil.which(program):
            return True
        self.missing.append(f"{program} is not here: its rows are missing")
        return False

    def _docker_answers(self) -> bool:
        done = subprocess.run(["docker", "version"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return True
        said = (done.stderr.strip() or "no answer").splitlines()[-1]
        daemon = "start it" if shutil.which("dockerd") else "install it (docker.io) and start it"
        self.missing.append(f"docker's daemon does not answer ({said}): {daemon}; its rows are missing")
        return False

    def close(self) -> None:
        """Remove what they brought in."""
        for peer in self.found:
            peer.close()
        self._shelter.close()
