"""Images to compare with: trees of any size, as layouts for engines and as trees and disks for those that copy.

A tree has the files of a Debian system of its size: many small ones and few large ones, text that compresses to about
two fifths. It is the same on every machine, and whatever its size it runs the same static program.
"""

import gzip
import hashlib
import io
import json
import math
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Layer", "Tree", "compile_workload", "disk_image", "layout", "write_tree"]

DIRECTORIES = ("bin", "data", "dev", "etc", "proc", "run", "sys", "tmp", "usr")  # systemd-nspawn wants the last
MEDIAN, SPREAD, LARGEST = 3000, 1.8, 32 << 20  # bytes of a file: log-normal, as /usr has them; the mean is 15,000
EACH = 200  # files of a directory
_POOL = 1 << 20
_SOURCE = Path(__file__).with_name("workload.c")
_OTHERS = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Tree:
    """A root tree. size: bytes in its files; files: how many."""

    path: Path
    size: int
    files: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a layout. tree: what is in it; prefix: where it appears in the image, "" for the root."""

    tree: Path
    prefix: str = ""


def compile_workload(directory: Path) -> Path:
    """Compile what runs in every instance, statically; returns the program.

    Raises
    ------
    subprocess.CalledProcessError: there is no C compiler, or no static C library (libc6-dev).
    """
    program = directory / "workload"
    subprocess.run(["cc", "-O2", "-static", "-s", "-o", program, _SOURCE], check=True)
    return program


def write_tree(path: Path, size: int, program: Path | None, *, seed: int = 1) -> Tree:
    """Write a tree of about so many bytes.

    Parameters
    ----------
    program: the workload, as /bin/workload; None for a tree that is only more files, a layer.
    seed: another one gives other files.
    """
    path.mkdir(parents=True)
    path.chmod(0o755)
    written = count = 0
    if program is not None:
        for name in DIRECTORIES:
            (path / name).mkdir()
        shutil.copy(program, path / "bin/workload")
        written, count = program.stat().st_size, 1
    for number, content in enumerate(_files(size - written, seed)):
        directory = path / "data" / f"{seed}-{number // EACH:04d}"
        if number % EACH == 0:
            directory.mkdir(parents=True)
        (directory / f"file{number:06d}").write_bytes(content)
        written, count = written + len(content), count + 1
    return Tree(path, written, count)


def _files(size: int, seed: int) -> Iterator[bytes]:
    """Contents of files that are so large together."""
    numbers = random.Random(seed)  # noqa: S311  (files, no secrets)
    words = [bytes(numbers.choices(range(97, 123), k=numbers.randint(2, 12))) for _ in range(4000)]
    pool = b" ".join(numbers.choices(words, k=_POOL // 7))
    while size > 0:
        wanted = min(size, LARGEST, max(1, int(numbers.lognormvariate(math.log(MEDIAN), SPREAD))))
        begin = numbers.randrange(len(pool))
        content = (pool[begin:] + pool * (wanted // len(pool) + 1))[:wanted]
        size -= wanted
        yield content


def layout(
    path: Path,
    name: str,
    layers: list[Layer],
    *,
    compressed: bool = False,
    written: dict[Layer, tuple[dict[str, object], str]] | None = None,
) -> None:
    """Add an image to an OCI layout, which is made when it is missing.

    layers: from the bottom. compressed: gzip, level 6, as registries have them. written: keeps what was written, for
    the next image with the same layers.
    """
    written = {} if written is None else written
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    described, plain = [], []
    for layer in layers:
        if layer not in written:
            written[layer] = _write_layer(blobs, layer, compressed=compressed)
        descriptor, diff_id = written[layer]
        described.append(descriptor)
        plain.append(diff_id)
    architecture = _OTHERS.get(os.uname().machine, os.uname().machine)
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/bin/workload", "first"]},
        "rootfs": {"type": "layers", "diff_ids": plain},
    }
    kind = "application/vnd.oci.image."
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}manifest.v1+json",
        "config": _write_json(blobs, config, f"{kind}config.v1+json"),
        "layers": described,
    }
    entry = _write_json(blobs, manifest, f"{kind}manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": name}
    index = path / "index.json"
    known = json.loads(index.read_text())["manifests"] if index.exists() else []
    index.write_text(json.dumps({"schemaVersion": 2, "manifests": [*known, entry]}))


def _write_json(blobs: Path, document: object, media_type: str) -> dict[str, object]:
    content = json.dumps(document, sort_keys=True).encode()
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def _write_layer(blobs: Path, layer: Layer, *, compressed: bool) -> tuple[dict[str, object], str]:
    """Write a layer's blob; returns its descriptor and the digest of its plain tar."""
    part = blobs / "part"
    with part.open("wb") as raw:
        outer = gzip.GzipFile("", "wb", 6, raw, mtime=0) if compressed else raw
        plain = _Hashing(outer)
        with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            tar.add(layer.tree, layer.prefix or ".", filter=_anonymous)
        if compressed:
            outer.close()
    digest = hashlib.sha256()
    with part.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    name = digest.hexdigest()
    descriptor: dict[str, object] = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if compressed else ""),
        "digest": f"sha256:{name}",
        "size": part.stat().st_size,
    }
    part.rename(blobs / name)
    return descriptor, f"sha256:{plain.digest.hexdigest()}"


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


class _Hashing(io.RawIOBase):
    """A stream that hashes what passes to another."""

    def __init__(self, target: "io.BufferedWriter | gzip.GzipFile") -> None:
        self.digest = hashlib.sha256()
        self._target = target

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        self.digest.update(data)
        self._target.write(data)
        return len(data)


def disk_image(path: Path, tree: Tree) -> Path:
    """Make a raw ext4 disk with a tree in it, sparse, with a tenth of room; returns its path."""
    # An inode and part of a block go with every file.
    size = int((tree.size + tree.files * 5000) * 1.1) + (16 << 20)
    with path.open("wb") as file:
        file.truncate(size + (-size) % 4096)
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard", "-d", tree.path, path],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return path
