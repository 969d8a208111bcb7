"""Engines on stores of their own, small images made of a few files, and the probe that runs inside.

Everything works as root and, where a test does not say otherwise, as an ordinary user.
"""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pyrtc.api import make_options
from pyrtc.container import Completed
from pyrtc.engine import Engine
from pyrtc.image.images import Images

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root")
needs_user = pytest.mark.skipif(ROOT, reason="is about an ordinary user, this is root")

# What takes longest, in this order: where files are tested side by side, these begin first, and nobody waits for one of
# them alone at the end.
LONG = (
    "test_user_networks", "test_rootless_network", "test_network_connect", "test_overlay", "test_network_starts",
    "test_rootless", "test_shaping", "test_cp", "test_egress", "test_escapes", "test_attendant_forward",
    "test_lifecycle",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the long files first."""
    order = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


@dataclass(frozen=True)
class Link:
    """A symbolic link in an image."""

    target: str


@dataclass(frozen=True)
class Node:
    """A device node (kind b or c) or a FIFO (kind p) in an image."""

    kind: str
    major: int = 0
    minor: int = 0


@dataclass(frozen=True)
class File:
    """A file of an image with a mode and an owner of its own; content None makes a directory."""

    content: bytes | None = b""
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


Entry = bytes | str | None | Link | Node | File  # None: a directory


@pytest.fixture(scope="session")
def probe_binary(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The static probe program."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler for the probe")
    target = tmp_path_factory.mktemp("probe") / "probe"
    source = Path(__file__).with_name("probe.c")
    command = [compiler, "-static", "-O1", "-s", "-Wall", "-Wextra", "-o", target, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target.read_bytes()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine on a store of this test's own; nothing of its containers may be left afterwards."""
    with Engine(tmp_path / "store") as opened:
        yield opened
        _remove_layers(opened)
        left = opened.store.containers.list()
        assert not left, f"containers are left: {left}"
        assert not os.listdir(opened.store.containers.path), "directories of containers are left"


def _remove_layers(engine: Engine) -> None:
    """Remove an ordinary user's layers as pyrtc does: pytest cannot, where files have owners of the subordinate ids."""
    layers = engine.store.root / "layers"
    if ROOT or not layers.exists():
        return
    parent = os.open(layers, os.O_PATH | os.O_DIRECTORY)
    try:
        for name in os.listdir(layers):
            engine.store.trees.remove(parent, name)
    finally:
        os.close(parent)


def tar_of(entries: Mapping[str, Entry]) -> bytes:
    """Return a tar archive with these entries, named without a leading slash, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, entry in entries.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            content = None
            if isinstance(entry, File):
                info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
                entry = entry.content
            if entry is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(entry, Link):
                info.type, info.linkname = tarfile.SYMTYPE, entry.target
            elif isinstance(entry, Node):
                info.type = {"b": tarfile.BLKTYPE, "c": tarfile.CHRTYPE, "p": tarfile.FIFOTYPE}[entry.kind]
                info.devmajor, info.devminor = entry.major, entry.minor
            else:
                content = entry.encode() if isinstance(entry, str) else entry
                info.size = len(content)
            archive.addfile(info, None if content is None else io.BytesIO(content))
    return buffer.getvalue()


ImageFactory = Callable[..., str]


@pytest.fixture
def image(engine: Engine, tmp_path: Path, probe_binary: bytes) -> ImageFactory:
    """Make an image: image({"etc/passwd": "...", "dev": Link("/x")}, "USER 7") returns its name; it holds /probe."""
    made = 0

    def make(entries: Mapping[str, Entry] | None = None, *changes: str) -> str:
        nonlocal made
        made += 1
        name = f"test:{made}"
        path = tmp_path / f"image{made}.tar"
        path.write_bytes(tar_of({"probe": probe_binary, **(entries or {})}))
        Images(engine.store).import_(path, name, changes=changes)
        path.unlink()
        return name

    return make


class Probe:
    """Runs the probe in containers of one image."""

    def __init__(self, engine: Engine, image: str) -> None:
        self.engine = engine
        self.image = image

    def run(self, *command: str, run: Mapping[str, Any] | None = None, **options: Any) -> Completed:
        """Run probe with these words. run: keywords of Engine.run, the others are those of pyrtc.run."""
        words = ("/probe", *command)
        return self.engine.run(self.image, make_options(words, **options), **(run or {}))

    def ask(self, *commands: str | Sequence[str], **options: Any) -> list[str]:
        """Run several probe commands in one container and return their answers."""
        words: list[str] = []
        for command in commands:
            words += [*([","] if words else []), *(command.split() if isinstance(command, str) else command)]
        done = self.run(*words, **options)
        assert done.returncode == 0, (done.returncode, done.outcome, done.stdout, done.stderr)
        answers = done.stdout.decode(errors="surrogateescape").split("\x1e")[:-1]
        assert len(answers) == len(commands)
        return answers

    def one(self, command: str | Sequence[str], **options: Any) -> str:
        """Run one probe command and return its answer."""
        return self.ask(command, **options)[0]


@pytest.fixture
def probe(engine: Engine, image: ImageFactory) -> Probe:
    """The probe in an image that holds nothing else."""
    return Probe(engine, image())
