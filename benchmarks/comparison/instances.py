"""Ways of having one more instance of an image: by a copy of everything, as virtual machines have it, and by layers.

A way starts the workload of an instance and says how long that took, from the request to the first word that the
workload wrote. Copying comes with the least work around it that can run a program (chroot, no isolation at all), so
that what is compared is the copy, to the copy's advantage.
"""

import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyrtc
from benchmarks.comparison.images import Tree
from pyrtc.container import Running
from pyrtc.engine import Engine

__all__ = ["Instance", "Source", "Way", "begun", "drop_caches", "spawn", "ways"]

WORD = b"running\n"
PATIENCE = 120.0  # seconds for a workload to write its word; a virtual machine without KVM takes long


@dataclass(frozen=True, slots=True)
class Source:
    """One image in every form that somebody needs. name: in the engine's store and of the layout."""

    name: str
    megabytes: float
    tree: Tree
    disk: Path
    layout: Path


@dataclass(slots=True)
class Instance:
    """One that runs: what it takes to end it."""

    milliseconds: float
    process: "subprocess.Popen[bytes] | None" = None
    running: Running | None = None
    files: list[Path] = field(default_factory=list)
    mount: Path | None = None
    undo: list[list[str]] = field(default_factory=list)

    def end(self) -> None:
        """End it and remove what it was made of."""
        if self.running is not None:
            self.running.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
        for words in self.undo:
            subprocess.run(words, check=False, capture_output=True)
        if self.mount is not None:
            # A process that was killed lets go of the mount a moment later.
            for _ in range(200):
                if subprocess.run(["umount", self.mount], check=False, capture_output=True).returncode == 0:
                    break
                time.sleep(0.01)
        for path in self.files:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


class Way:
    """One way. name: as the report calls it; kind: see `Trial`."""

    name: str
    kind: str
    is_on_disk = True  # whether what it writes goes to the file system that is measured

    def start(self, source: Source, number: int) -> Instance:
        """Start instance number of an image, which stays until it is ended."""
        raise NotImplementedError


def begun(instance: Instance, begin: float) -> Instance:
    """Wait until the workload of an instance speaks, and say how long that took; without a word, it is ended."""
    with _ended_on_failure(instance):
        assert instance.process is not None
        _first_word(instance.process, begin + PATIENCE)
        instance.milliseconds = (time.perf_counter() - begin) * 1000
    return instance


@contextmanager
def _ended_on_failure(instance: Instance) -> Iterator[None]:
    try:
        yield
    except BaseException:
        instance.end()
        raise


def _first_word(process: "subprocess.Popen[bytes]", deadline: float) -> None:
    assert process.stdout is not None
    fd, said = process.stdout.fileno(), b""
    while WORD.strip() not in said:
        if not select.select([fd], [], [], max(0.0, deadline - time.perf_counter()))[0]:
            raise RuntimeError(f"the workload said nothing within {PATIENCE:g} s")
        block = os.read(fd, 4096)
        if not block:
            process.wait()
            text = said.decode(errors="replace").strip().splitlines()
            raise RuntimeError((text or [f"it ended with {process.returncode}"])[-1])
        said = (said + block)[-65536:]


def spawn(*words: str | Path) -> "subprocess.Popen[bytes]":
    """Start a program whose workload is to speak."""
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


class CopiedTree(Way):
    """cp -a of the whole tree, then chroot."""

    name, kind = "copy the tree (cp -a), chroot", "copy"

    def __init__(self, disk: Path) -> None:
        self._disk = disk

    def start(self, source: Source, number: int) -> Instance:
        """Copy and start."""
        target = self._disk / f"copy-{number}"
        instance = Instance(0.0, files=[target])
        words: list[str | Path] = ["cp", "-a", "--reflink=auto", source.tree.path, target]
        begin = time.perf_counter()
        with _ended_on_failure(instance):
            subprocess.run(words, check=True, capture_output=True)
            instance.process = spawn("chroot", target, "/bin/workload", "sleep")
        return begun(instance, begin)


class CopiedDisk(Way):
    """A copy of a raw disk, mounted, then chroot."""

    name, kind = "copy a disk image, loop mount, chroot", "copy"

    def __init__(self, disk: Path) -> None:
        self._disk = disk

    def start(self, source: Source, number: int) -> Instance:
        """Copy, mount and start."""
        copy, mount = self._disk / f"copied-{number}.img", self._disk / f"mount-{number}"
        mount.mkdir()
        instance = Instance(0.0, files=[copy, mount])
        begin = time.perf_counter()
        with _ended_on_failure(instance):
            _copy_disk(source.disk, copy)
            subprocess.run(["mount", "-o", "loop", copy, mount], check=True, capture_output=True)
            instance.mount = mount
            instance.process = spawn("chroot", mount, "/bin/workload", "sleep")
        return begun(instance, begin)


def _copy_disk(disk: Path, copy: Path) -> None:
    words: list[str | Path] = ["cp", "--sparse=always", "--reflink=auto", disk, copy]
    subprocess.run(words, check=True, capture_output=True)


class Machine(Way):
    """A virtual machine on a full copy of its disk."""

    kind = "machine"

    def __init__(self, disk: Path, kernel: Path, initrd: Path, *, kvm: bool) -> None:
        self.name = f"copy a disk image, boot qemu ({'KVM' if kvm else 'TCG: no KVM here'})"
        self._disk, self._kernel, self._initrd, self._kvm = disk, kernel, initrd, kvm

    def start(self, source: Source, number: int) -> Instance:
        """Copy and boot; the time is that of the first word on the serial console."""
        copy = self._disk / f"machine-{number}.img"
        words: list[str | Path] = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "256",
            "-serial", "stdio", "-kernel", self._kernel, "-initrd", self._initrd,
            "-append", "console=ttyS0 quiet loglevel=0 panic=-1 tsc=reliable",
            "-drive", f"file={copy},format=raw,if=virtio,cache=writeback",
        ]  # fmt: skip
        words += ["-enable-kvm", "-cpu", "host"] if self._kvm else ["-accel", "tcg"]
        instance = Instance(0.0, files=[copy])
        begin = time.perf_counter()
        with _ended_on_failure(instance):
            _copy_disk(source.disk, copy)
            instance.process = spawn(*words)
        return begun(instance, begin)


class Layered(Way):
    """pyrtc: an image's layers below an R/W layer of the instance's own, fully isolated."""

    def __init__(self, engine: Engine, name: str, kind: str, **options: Any) -> None:  # noqa: ANN401  (of RunOptions)
        self.name, self.kind = name, kind
        self._engine, self._options = engine, options

    def start(self, source: Source, number: int) -> Instance:
        """Start a container."""
        del number
        options = pyrtc.RunOptions(command=("/bin/workload", "sleep"), **self._options)
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            begin = time.perf_counter()
            try:
                running = self._engine.start(source.name, options, stdin=None, stdout=theirs, stderr=theirs)
            finally:
                os.close(theirs)
            said = os.read(ours, len(WORD))
            taken = (time.perf_counter() - begin) * 1000
        finally:
            os.close(ours)
        instance = Instance(taken, running=running)
        if said != WORD:
            instance.end()
            raise RuntimeError(f"the workload wrote {said!r}")
        return instance


def ways(disk: Path, engine: Engine) -> list[Way]:
    """Return the ways that need nothing but this tree."""
    return [
        CopiedTree(disk),
        CopiedDisk(disk),
        Layered(engine, "pyrtc, copy driver", "copy", driver="copy"),
        Layered(engine, "pyrtc, layers, R/W layer on disk", "layers"),
        Layered(engine, "pyrtc, layers, R/W layer in memory", "layers", rw_layer="memory"),
    ]


def drop_caches() -> None:
    """Write back and forget what the kernel keeps of files, where it lets us."""
    os.sync()
    with suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
