"""Rounds of `kill -9` at random moments of commands that change a store, and what must hold after each.

Never: a corrupt or half image, a damaged database, a container that lives on, anything that a prune cannot free.
"""

import contextlib
import gzip
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("unit", "registry")]

from image_builder import Layout, config, docker_archive  # noqa: E402
from servers import DockerRegistry  # noqa: E402
from tar_builder import END, directory, file, hardlink, symlink  # noqa: E402

from pyrtc.engine import Engine  # noqa: E402
from pyrtc.errors import ContainerNotFound  # noqa: E402
from pyrtc.runtime.cgroups import Cgroup  # noqa: E402

__all__ = ["SEED", "Harness", "Outcome", "temporary"]

PROGRAM = "import sys; sys.path[:] = {path!r}; sys.argv[0] = 'pyrtc'; from pyrtc.cli.main import program; program()"
SLEEPER = "int main(int count, char **words) { (void)words; if (count > 1) for (;;) pause(); return 0; }\n"
LAYERS = 7
IMAGES = 6
PATIENCE = 120  # seconds for one command that is not killed
SEED = int(os.environ.get("PYRTC_KILL_SEED", "20240607"))  # of short runs: the same dice every time


@dataclass
class Outcome:
    """What happened: how many processes were killed in the middle, by command; and what went wrong."""

    rounds: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    finished: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class Harness:
    """A store, some images, and the dice."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.root = directory / "store"
        self.dice = random.Random(seed)
        self.outcome = Outcome()
        self.containers: set[str] = set()
        self.comm = f"k{os.getpid() % 100000}s{seed % 10000}"[:15]
        self.runs = self._sleeper()
        self.sources = self._images()
        self.registry = self._registry()
        self.durations = {
            "pull": 0.6,
            "push": 0.5,
            "load": 0.5,
            "rmi": 0.35,
            "prune": 0.35,
            "run": 0.35,
            "save": 0.4,
            "tag": 0.25,
            "check": 0.4,
        }

    def _sleeper(self) -> bytes | None:
        """A static program to run; None where there is no compiler or no right to start containers."""
        compiler = shutil.which("cc")
        if compiler is None or os.geteuid() != 0:
            return None
        target = self.directory / "sleeper"
        command = [compiler, "-static", "-Os", "-s", "-w", "-include", "unistd.h", "-x", "c", "-", "-o", target]
        done = subprocess.run(command, input=SLEEPER, text=True, capture_output=True, check=False)
        return target.read_bytes() if done.returncode == 0 else None

    def _registry(self) -> DockerRegistry | None:
        """A registry on loopback with all images; None where docker-registry is not installed."""
        if shutil.which("docker-registry") is None:
            return None
        registry = DockerRegistry(self.directory / "registry")
        try:
            with Engine(self.directory / "other") as engine:
                for name, source in self.sources:
                    engine.images.load(source)
                    engine.images.tag(name, f"127.0.0.1:{registry.port}/{name}")
                    engine.images.push(f"127.0.0.1:{registry.port}/{name}")
        except BaseException:
            registry.close()
            raise
        return registry

    def close(self) -> None:
        """End the registry."""
        if self.registry is not None:
            self.registry.close()

    def _images(self) -> list[tuple[str, str]]:
        """Make archives of both kinds whose images share layers; returns (name, source)."""
        layers = [self._layer(number) for number in range(LAYERS)]
        packed = [gzip.compress(content, 1) for content in layers]
        sources = []
        for number in range(IMAGES):
            name = f"image{number}"
            chosen = [0, *sorted(self.dice.sample(range(1, LAYERS), self.dice.randint(1, 4)))]
            document = config(*(layers[position] for position in chosen), variant=f"v{number}")
            if number % 2:
                path = self.directory / f"{name}.tar"
                path.write_bytes(docker_archive(([name], document, [layers[position] for position in chosen])))
                sources.append((name, str(path)))
            else:
                layout = Layout()
                descriptors = [
                    layout.blob(packed[position], "application/vnd.oci.image.layer.v1.tar+gzip") for position in chosen
                ]
                manifest = {
                    "schemaVersion": 2,
                    "config": layout.blob(document, "application/vnd.oci.image.config.v1+json"),
                    "layers": descriptors,
                }
                content = json.dumps(manifest).encode()
                layout.add(layout.blob(content, "application/vnd.oci.image.manifest.v1+json"), name)
                sources.append((name, f"oci:{layout.write(self.directory / name)}"))
        return sources

    def _layer(self, number: int) -> bytes:
        parts = [directory("bin"), directory(f"d{number}")]
        if number == 0 and self.runs is not None:
            parts.append(file(f"bin/{self.comm}", self.runs, mode=0o755))
        for index in range(self.dice.randint(3, 60)):
            size = self.dice.choice((0, 10, 5000, 5000, 60000))
            parts.append(file(f"d{number}/f{index}", self.dice.randbytes(size)))
        parts.append(symlink(f"d{number}/link", "f0"))
        parts.append(hardlink(f"d{number}/hard", f"d{number}/f1"))
        if number % 3 == 2:
            parts.append(file(f"implied{number % 2}/deep/file", b"x" * 100))
        if number % 3 == 1:
            parts.append(file(f"d{number - 1}/.wh.f0"))
        return b"".join(parts) + END

    # ---- a round -----------------------------------------------------------------------------------------------------

    def round(self) -> None:
        """Start one to three commands, kill each at its moment, look at what is left."""
        self.outcome.rounds += 1
        started = []
        for _ in range(self.dice.choice((1, 1, 2, 3))):
            verb, words = self._command()
            typical = self.durations[verb]
            moment = self.dice.uniform(0.02, 1.3 * typical)
            started.append((time.monotonic() + moment, verb, words, self._start(words)))
        for moment, verb, words, process in sorted(started, key=lambda item: item[0]):
            began = moment
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, began - time.monotonic()))
            if process.poll() is None:
                process.kill()
                self.outcome.killed[verb] += 1
            else:
                self.outcome.finished[verb] += 1
                # What ends sooner than it was given can be given less: kills should hit the middle.
                self.durations[verb] *= 0.95
            try:
                said = process.communicate(timeout=PATIENCE)[1].decode(errors="replace")
            except subprocess.TimeoutExpired:
                self._failed(f"{words}: something of it lives on and holds its standard error")
                continue
            if process.returncode < 0 or self._excusable(verb, process.returncode, said):
                if process.returncode < 0:
                    self.durations[verb] = min(3.0, self.durations[verb] * 1.03)
                continue
            self._failed(f"{words} ended with {process.returncode}: {said.strip()[-300:]}")
        self._look()

    def _command(self) -> tuple[str, list[str]]:
        name, source = self.dice.choice(self.sources)
        choices = [
            ("load", ["load", "-q", source]),
            ("load", ["load", "-q", source]),
            ("load", ["load", "-q", source]),
            ("rmi", ["rmi", "-f", name]),
            ("prune", ["image", "prune", "-af"]),
            ("prune", ["system", "prune", "-af", "--volumes"]),
            ("save", ["save", name, "-o", str(self.directory / "saved.tar")]),
            ("tag", ["tag", name, f"other{self.dice.randint(0, 3)}"]),
            ("check", ["system", "check", "--repair"]),
        ]
        if self.registry is not None:
            remote = f"127.0.0.1:{self.registry.port}/{name}"
            choices += [
                ("pull", ["pull", "-q", remote]),
                ("pull", ["pull", "-q", remote]),
                ("pull", ["pull", "-q", remote]),
                ("rmi", ["rmi", "-f", remote]),
                ("push", ["push", "-q", remote]),
            ]
        if self.runs is not None:
            program = f"/bin/{self.comm}"
            limits = ["--network", "none"]
            choices += [
                ("run", ["run", "--rm", *limits, name, program]),
                ("run", ["run", "--rm", *limits, name, program, "wait"]),
                ("run", ["run", *limits, "-v", "/data", name, program, "wait"]),
                ("run", ["run", *limits, "-v", f"vol{self.dice.randint(0, 1)}:/bin", name, program]),
            ]
        return self.dice.choice(choices)

    def _start(self, words: Sequence[str]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(path=sys.path), "--root", str(self.root), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def _excusable(self, verb: str, code: int, said: str) -> bool:
        """Others remove images meanwhile: that one is missing is an answer, that something is broken is none."""
        if code == 0:
            return True
        fine = (
            "No such image",
            "removed meanwhile",
            "removed while",
            "conflict:",
            "keep removing",
            "No such container",
        )
        if verb == "run" and "was removed" in said:
            return True
        # A layer that is taken away while it is written into an archive.
        gone = verb in ("save", "push") and any(text in said for text in ("cannot open the layer", "has lost the blob"))
        return gone or any(text in said for text in fine)

    def _failed(self, text: str) -> None:
        self.outcome.failures.append(f"round {self.outcome.rounds}: {text}")

    # ---- what must hold ----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self._no_process_is_left()
        with contextlib.closing(sqlite3.connect(self.root / "pyrtc.db")) as database:
            said = database.execute("PRAGMA integrity_check").fetchall()
            if said != [("ok",)]:
                self._failed(f"the database is damaged: {said}")
            if database.execute("PRAGMA foreign_key_check").fetchall():
                self._failed("rows name missing rows")
            self.containers.update(row[0] for row in database.execute("SELECT id FROM containers"))
        self._check("before anything was put right", leftovers=True)
        # The next command puts right what is left.
        self._must(["load", "-q", self.dice.choice(self.sources)[1]])
        self._check("after the next command", leftovers=False)
        if self.outcome.rounds % 10 == 0:
            self._everything_is_freed()

    def _no_process_is_left(self) -> None:
        deadline = time.monotonic() + 5
        while (left := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        if left:
            self._failed(f"containers of killed commands live on: {left}")
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _processes(self) -> list[int]:
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdecimal():
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{entry}/comm").read_text().strip() == self.comm:
                        found.append(int(entry))
        return found

    def _check(self, when: str, *, leftovers: bool) -> None:
        with Engine(self.root) as engine:
            report = engine.system.check(deep=self.dice.random() < 0.1)
            for problem in report.problems:
                if problem.kind != "leftover" or not leftovers:
                    self._failed(f"{when}: {problem}")
            for image in engine.images.list():
                content, _ = engine.images.documents(image)
                if f"sha256:{hashlib.sha256(content).hexdigest()}" != image.id:
                    self._failed(f"{when}: the config of {image.id} is another")
                if len(image.layers) != len(json.loads(content)["rootfs"]["diff_ids"]):
                    self._failed(f"{when}: {image.id} has {len(image.layers)} layers")
                if not all(Path(layer).is_dir() for layer in image.layers):
                    self._failed(f"{when}: a layer of {image.id} is missing")

    def _must(self, words: list[str]) -> None:
        process = self._start(words)
        try:
            said = process.communicate(timeout=PATIENCE)[1].decode(errors="replace")
        except subprocess.TimeoutExpired:
            process.kill()
            self._failed(f"{words} after the kill did not end within {PATIENCE} s, or something of it lives on")
            return
        if process.returncode:
            self._failed(f"{words} after the kill ended with {process.returncode}: {said.strip()[-300:]}")

    def _everything_is_freed(self) -> None:
        self._must(["system", "prune", "-af", "--volumes"])
        self._must(["volume", "prune", "-af"])
        for name in ("tmp", "layers", "containers", "volumes", "blobs/sha256", "locks"):
            path = self.root / name
            left = os.listdir(path) if path.exists() else []
            if left:
                self._failed(f"prune left in {name}: {left[:5]}")
        with contextlib.closing(sqlite3.connect(self.root / "pyrtc.db")) as database:
            for table in ("images", "layers", "layer_blobs", "names", "containers", "volumes", "image_layers"):
                (count,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()
                if count:
                    self._failed(f"prune left {count} rows in {table}")

    def _control_groups_are_empty(self) -> None:
        """Remove the control groups of dead containers, as any command would a minute later; nobody may be in them."""
        with Engine(self.root) as engine:
            self.containers.update(event.id for event in engine.events(filters={"type": "container"}))
        for container_id in self.containers:
            with contextlib.suppress(ContainerNotFound):
                if not Cgroup.open(container_id).remove_empty():
                    self._failed(f"processes of {container_id} live on in its control group")

    def run(self, rounds: int, *, until: float | None = None) -> Outcome:
        """Play rounds until they are done, time is up (monotonic seconds), or five things went wrong."""
        self._must(["load", "-q", self.sources[0][1]])
        while self.outcome.rounds < rounds and len(self.outcome.failures) < 5:
            if until is not None and time.monotonic() > until:
                break
            self.round()
        self._everything_is_freed()
        self._control_groups_are_empty()
        return self.outcome


def temporary() -> tempfile.TemporaryDirectory[str]:
    """A directory for one run."""
    return tempfile.TemporaryDirectory(prefix="pyrtc-kill-")
