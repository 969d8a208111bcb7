"""What it costs to bring in an image, and to copy one: `python -m benchmarks unpack`."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyrtc
from benchmarks.measure import Contender, Settings, execute, round_robin
from benchmarks.peers import PYRTC, Podman, docker_answers
from benchmarks.report import Report
from pyrtc import core
from pyrtc.image.images import Images

__all__ = ["manifest_of", "measure"]


@dataclass(frozen=True, slots=True)
class _Layer:
    path: Path
    decompressor: str  # an option of tar


def measure(settings: Settings, report: Report) -> None:
    """Measure everything this machine allows."""
    layers = _layers(settings.layout, settings.image)
    size = sum(layer.path.stat().st_size for layer in layers)
    report.note(f"image {settings.image}: {len(layers)} layers, {size / 1e6:.0f} MB compressed")
    _loads(settings, report, layers)
    _copies(settings, report)


def _document(layout: Path, descriptor: dict[str, Any]) -> dict[str, Any]:
    algorithm, _, digest = descriptor["digest"].partition(":")
    document: dict[str, Any] = json.loads((layout / "blobs" / algorithm / digest).read_bytes())
    return document


def manifest_of(layout: Path, name: str) -> dict[str, Any]:
    """Return the manifest of an image in an OCI layout."""
    index = json.loads((layout / "index.json").read_text())
    for entry in index["manifests"]:
        if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == name:
            return _document(layout, entry)
    raise SystemExit(f"{layout} has no image named {name}")


def _layers(layout: Path, name: str) -> list[_Layer]:
    layers = []
    for descriptor in manifest_of(layout, name)["layers"]:
        algorithm, _, digest = descriptor["digest"].partition(":")
        kind = descriptor["mediaType"].rpartition("+")[2]
        option = {"gzip": "--gzip", "zstd": "--zstd"}.get(kind, "--no-auto-compress")
        layers.append(_Layer(layout / "blobs" / algorithm / digest, option))
    return layers


def _loads(settings: Settings, report: Report, layers: list[_Layer]) -> None:
    disk, source = settings.disk, f"oci:{settings.layout}:{settings.image}"
    plain, store = disk / "plain", disk / "store"

    def untar() -> None:
        for number, layer in enumerate(layers):
            target = plain / str(number)
            target.mkdir(parents=True)
            execute("tar", "-C", target, layer.decompressor, "-xf", layer.path)

    def untar_durably() -> None:
        untar()
        _sync(plain)

    def contender(name: str, run: Callable[[], None], directory: Path) -> Contender:
        # What others wrote must be on the disk before, and what this one writes is removed after.
        return Contender(name, run, before=lambda: _sync(disk), after=lambda: shutil.rmtree(directory))

    load = partial(execute, PYRTC, "--root", store, "load", "-q", "-i", source)
    contenders = [
        contender("pyrtc load", load, store),
        contender("tar -x, each layer", untar, plain),
        contender("tar -x, then syncfs", untar_durably, plain),
    ]
    contenders += _peer_loads(settings, source)
    taken = round_robin(contenders, settings.rounds, warm_up=1, pause=settings.pause, unit="s")
    report.section("an image from an OCI layout into an empty store (s)", taken.values())
    ratio = taken["pyrtc load"].median / taken["tar -x, each layer"].median
    report.goal("pyrtc load to tar -x of the layers", ratio, 1.0)
    if docker_answers():
        report.note("docker gets the same image as a docker-archive that holds the same compressed layers")


def _peer_loads(settings: Settings, source: str) -> list[Contender]:
    disk, contenders = settings.disk, []
    if shutil.which("umoci"):
        target = disk / "umoci"
        words = ("umoci", "--log", "error", "raw", "unpack", "--image", source.removeprefix("oci:"), target)
        contenders.append(
            Contender("umoci raw unpack", partial(execute, *words), lambda: _sync(disk), lambda: shutil.rmtree(target))
        )
    if Podman.installed():
        podman = Podman(disk / "podman")
        pulled: list[str] = []
        contenders.append(
            Contender(
                "podman pull",
                lambda: pulled.append(podman.pull(source)),
                lambda: _sync(disk),
                lambda: podman.remove(pulled.pop()),
            )
        )
    if docker_answers():
        archive = disk / "docker.tar"
        _write_docker_archive(settings, archive)
        contenders.append(
            Contender(
                "docker load",
                partial(execute, "docker", "load", "-q", "-i", archive),
                lambda: _sync(disk),
                partial(execute, "docker", "rmi", "-f", "pyrtc-benchmark:latest"),
            )
        )
    return contenders


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        core.sync_filesystem(fd)
    finally:
        os.close(fd)


def _write_docker_archive(settings: Settings, target: Path) -> None:
    manifest = manifest_of(settings.layout, settings.image)
    config = json.dumps(_document(settings.layout, manifest["config"])).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layers = _layers(settings.layout, settings.image)
    entry = {
        "Config": config_name,
        "RepoTags": ["pyrtc-benchmark:latest"],
        "Layers": [f"{layer.path.name}.tar" for layer in layers],
    }
    with tarfile.open(target, "w") as archive:
        for name, content in ((config_name, config), ("manifest.json", json.dumps([entry]).encode())):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for layer in layers:
            archive.add(layer.path, f"{layer.path.name}.tar")


def _copies(settings: Settings, report: Report) -> None:
    """Copy the merged root, as the driver `copy` does it for each of its containers."""
    disk = settings.disk
    merged, cloned, copied = disk / "merged", disk / "cloned", disk / "copied"
    with pyrtc.Engine(disk / "store") as engine:
        Images(engine.store).load(f"oci:{settings.layout}:{settings.image}")
        layers = engine.store.image(settings.image).layers
        merged.mkdir()
        if len(layers) > 1:
            what = ["-t", "overlay", "-o", f"lowerdir={':'.join(layers)}", "overlay"]
        else:
            what = ["--bind", layers[0]]
        subprocess.run(["mount", *what, merged], check=True)
        try:
            contenders = [
                Contender(
                    "pyrtc's copy", lambda: _clone(merged, cloned), lambda: _sync(disk), lambda: shutil.rmtree(cloned)
                ),
                Contender(
                    "cp -a",
                    partial(execute, "cp", "-a", merged, copied),
                    lambda: _sync(disk),
                    lambda: shutil.rmtree(copied),
                ),
            ]
            taken = round_robin(contenders, settings.rounds, warm_up=1, pause=settings.pause, unit="s")
        finally:
            subprocess.run(["umount", merged], check=True)
    report.section("a full private copy of that root (s)", taken.values())
    report.goal("the copy driver's clone to cp -a", taken["pyrtc's copy"].median / taken["cp -a"].median, 0.8)


def _clone(source: Path, target: Path) -> None:
    target.mkdir()
    source_fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    target_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        core.copy_tree(source_fd, target_fd)
    finally:
        os.close(source_fd)
        os.close(target_fd)
