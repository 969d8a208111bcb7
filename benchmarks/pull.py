"""What it costs to bring images from a registry on loopback: `python -m benchmarks pull`."""

import hashlib
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import Contender, Settings, execute, round_robin
from benchmarks.peers import PYRTC, Podman, docker_answers
from benchmarks.registry import Registry, Variant, registry
from benchmarks.report import Report
from benchmarks.unpack import manifest_of
from pyrtc import core
from pyrtc.image.compression import CHUNK, decompress

__all__ = ["measure"]

_VARIANTS = 8  # images with the same base, pulled at once
_NEW_LAYER = 10_000_000  # bytes of what only one of them has


def measure(settings: Settings, report: Report) -> None:
    """Measure everything this machine allows."""
    for program in ("docker-registry", "skopeo"):
        if not shutil.which(program):
            raise SystemExit(f"{program} is missing: scripts/packages test installs it")
    manifest = manifest_of(settings.layout, settings.image)
    size = sum(layer["size"] for layer in manifest["layers"])
    report.note(f"image {settings.image}: {len(manifest['layers'])} layers, {size / 1e6:.0f} MB compressed")
    scratch = settings.disk / "scratch"
    scratch.mkdir()
    with registry(scratch) as server:
        name = server.copy(settings.layout, settings.image, "bench/app:1")
        _cold(settings, report, name)
        _alone(settings, report, server, manifest)
        _shared(settings, report, server, manifest, name)
        _many(settings, report, server, manifest)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        core.sync_filesystem(fd)
    finally:
        os.close(fd)


def _contender(settings: Settings, name: str, run: Callable[[], None], directory: Path) -> Contender:
    # What others wrote must be on the disk before, and what this one writes is removed after.
    return Contender(name, run, before=lambda: _sync(settings.disk), after=lambda: _remove(directory))


def _remove(directory: Path) -> None:
    # containers-storage mounts its own directory onto itself.
    subprocess.run(["umount", "-q", directory / "root" / "overlay"], check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["rm", "-rf", directory], check=True)  # rmtree in Python takes as long as a pull


def _pull(root: Path, name: str, *, blobs: str = "keep") -> None:
    execute("env", f"PYRTC_BLOBS={blobs}", PYRTC, "--root", root, "pull", "-q", name)


# ---- a cold pull ----------------------------------------------------------------------------------------------------


def _cold(settings: Settings, report: Report, name: str) -> None:
    disk = settings.disk
    store, peer = disk / "store", disk / "peer"
    # skopeo finds out by itself where its storage is; an absolute path that is new every time is a cold one.
    storage = f"containers-storage:[overlay@{peer}/root+{peer}/run]{name}"
    skopeo = partial(execute, "skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{name}", storage)
    contenders = [
        _contender(settings, "pyrtc pull", lambda: _pull(store, name), store),
        _contender(settings, "pyrtc pull, blobs dropped", lambda: _pull(store, name, blobs="drop"), store),
        _contender(settings, "skopeo to containers-storage", skopeo, peer),
    ]
    if Podman.installed():
        podman = Podman(peer)
        contenders.append(
            _contender(settings, "podman pull", lambda: execute(*podman.pull_words(name)), peer),
        )
    if docker_answers():
        after = partial(execute, "docker", "rmi", "-f", name)
        contenders.append(
            Contender("docker pull", partial(execute, "docker", "pull", "-q", name), lambda: _sync(disk), after)
        )
    taken = round_robin(contenders, settings.rounds, warm_up=1, pause=settings.pause, unit="s")
    report.section("a cold pull from docker-registry on loopback (s)", taken.values())
    ours = taken["pyrtc pull"].median
    for peer_name in ("skopeo to containers-storage", "podman pull"):
        if peer_name in taken:
            report.goal(f"pyrtc pull to {peer_name}", ours / taken[peer_name].median, 0.4)
    if "docker pull" in taken:
        report.goal("pyrtc pull to docker pull", ours / taken["docker pull"].median, 0.5)


# ---- its stages alone -----------------------------------------------------------------------------------------------


def _alone(settings: Settings, report: Report, server: Registry, manifest: dict[str, Any]) -> None:
    """Measure what a pull does, one thing at a time.

    A stage has the work of those before it ready in the page cache, all compressed layers and tars. It takes
    the layers one after another, on one thread. Unpacking ends with the same syncfs as a pull does; what the kernel
    writes meanwhile it writes on the other processors, which a pull needs for its other stages.
    """
    disk = settings.disk
    layers = [layer["digest"] for layer in manifest["layers"]]
    packed = [settings.layout / "blobs" / digest.replace(":", "/") for digest in layers]
    plain = disk / "plain"
    plain.mkdir()
    tars = [plain / str(number) for number in range(len(packed))]
    for source, target in zip(packed, tars, strict=True):
        with target.open("wb") as output:
            output.writelines(decompress(_chunks(source), what=str(source)))
    trees = disk / "trees"

    def download() -> None:
        for digest in layers:
            _fetch(f"http://{server.host}/v2/bench/app/blobs/{digest}")

    def hashes() -> None:
        for path in (*packed, *tars):
            _hash(path)

    def inflate() -> None:
        for path in packed:
            _inflate(path)

    def unpack() -> None:
        trees.mkdir()
        for tar in tars:
            _untar(tar, trees / tar.name)
        _sync(trees)

    contenders = [
        Contender("download", download),
        Contender("hash", hashes),
        Contender("inflate", inflate),
        Contender("unpack, then syncfs", unpack, before=lambda: _sync(disk), after=lambda: _remove(trees)),
        _contender(settings, "pyrtc pull", lambda: _pull(disk / "store", f"{server.host}/bench/app:1"), disk / "store"),
    ]
    taken = round_robin(contenders, settings.rounds, warm_up=1, pause=settings.pause, unit="s")
    report.section("the stages of a pull, each alone, and all of them (s)", taken.values())
    whole = taken.pop("pyrtc pull").median
    report.goal("pyrtc pull to its slowest stage alone", whole / max(one.median for one in taken.values()), 1.3)
    _remove(plain)


def _chunks(path: Path) -> Any:  # noqa: ANN401  (an iterator of pieces)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _fetch(url: str) -> None:
    with urllib.request.urlopen(url) as response:  # noqa: S310  (a registry of our own)
        while response.read1(CHUNK):
            pass


def _hash(path: Path) -> None:
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        digest.update(chunk)


def _inflate(path: Path) -> None:
    for _ in decompress(_chunks(path), what=str(path)):
        pass


def _untar(tar: Path, target: Path) -> None:
    target.mkdir()
    source_fd, target_fd = os.open(tar, os.O_RDONLY), os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        core.untar(source_fd, target_fd, plain=True)
    finally:
        os.close(source_fd)
        os.close(target_fd)


# ---- what is there already ------------------------------------------------------------------------------------------


def _shared(settings: Settings, report: Report, server: Registry, manifest: dict[str, Any], name: str) -> None:
    """Measure a pull that lacks one layer, and one that lacks nothing."""
    disk = settings.disk
    store, copy = disk / "store", disk / "copy"
    variant = Variant(settings.layout, manifest, disk / "variant", 0, _NEW_LAYER)
    second = server.copy(variant.path, "variant", "bench/second:1")
    single = Variant(settings.layout, {**manifest, "layers": manifest["layers"][-1:]}, disk / "single", 1, _NEW_LAYER)
    alone = server.copy(single.path, "variant", "bench/single:1")
    _pull(store, name)
    mark = server.mark()
    _pull(store, second)
    bytes_sent = server.sent(mark)
    execute(PYRTC, "--root", store, "rmi", second)
    missing = bytes_sent.get(variant.new_digest, 0)
    others = sum(size for digest, size in bytes_sent.items() if digest != variant.new_digest)

    def remove(reference: str) -> None:
        execute(PYRTC, "--root", store, "rmi", reference)

    contenders = [
        Contender("one layer of five", lambda: _pull(store, second), lambda: _sync(disk), lambda: remove(second)),
        _contender(settings, "an image of only that layer's size", lambda: _pull(copy, alone), copy),
    ]
    taken = round_robin(contenders, settings.rounds, warm_up=1, pause=settings.pause, unit="s")
    report.section("a second image that shares 4 of 5 layers (s)", taken.values())
    report.goal("bytes of layers from the registry to those of the missing layer", missing / variant.new_size, 1.0)
    report.goal("bytes of all else from the registry", others / 1000, 20, "kB")
    ratio = taken["one layer of five"].median / taken["an image of only that layer's size"].median
    report.goal("one layer of five to an image of one such layer", ratio, 1.5)

    current = Contender("pyrtc pull, nothing new", lambda: _pull(store, name))
    again = round_robin([current], settings.rounds * 4, warm_up=2, pause=0.1)
    report.section("an image that is up to date, whole process (ms)", again.values())
    report.goal("pyrtc pull, nothing new", again["pyrtc pull, nothing new"].median, 100, "ms")
    _remove(store)


# ---- many at once ---------------------------------------------------------------------------------------------------


def _many(settings: Settings, report: Report, server: Registry, manifest: dict[str, Any]) -> None:
    """Measure processes that pull images with the same base at the same time."""
    disk = settings.disk
    names, wanted = [], {}
    for number in range(_VARIANTS):
        variant = Variant(settings.layout, manifest, disk / f"many-{number}", 10 + number, _NEW_LAYER)
        names.append(server.copy(variant.path, "variant", f"bench/many-{number}:1"))
        wanted[variant.new_digest] = variant.new_size
    wanted |= {layer["digest"]: layer["size"] for layer in manifest["layers"][:-1]}
    store, peer = disk / "store", disk / "peer"
    mark = server.mark()
    _at_once([[PYRTC, "--root", store, "pull", "-q", name] for name in names])
    sent = server.sent(mark)
    _remove(store)
    again = sum(sent.get(digest, 0) for digest in wanted) / sum(wanted.values())

    contenders = [
        _contender(
            settings,
            "pyrtc pull",
            lambda: _at_once([[PYRTC, "--root", store, "pull", "-q", name] for name in names]),
            store,
        )
    ]
    if Podman.installed():
        podman = Podman(peer)
        contenders.append(
            _contender(settings, "podman pull", lambda: _at_once([podman.pull_words(name) for name in names]), peer)
        )
    taken = round_robin(contenders, max(1, settings.rounds // 2), warm_up=0, pause=settings.pause, unit="s")
    report.section(f"{_VARIANTS} processes, {_VARIANTS} images with 4 layers in common, at once (s)", taken.values())
    report.goal("bytes of layers from the registry, to each once", again, 1.0)


def _at_once(commands: Sequence[Sequence[str | Path]]) -> None:
    processes = [subprocess.Popen(words, stdout=subprocess.DEVNULL) for words in commands]
    codes = [process.wait() for process in processes]
    if any(codes):
        raise subprocess.CalledProcessError(max(codes), "pull")
