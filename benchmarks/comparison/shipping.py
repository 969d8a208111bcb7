"""Part 3, shipping an update: a new version of one layer of an application, to a server that runs the old one."""

import gzip
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.comparison.experiments import Experiment, Measure, Results, Trial
from benchmarks.comparison.images import Layer, Tree, disk_image, layout, write_tree
from benchmarks.peers import PYRTC, Podman
from benchmarks.registry import Registry, registry

__all__ = ["measure_shipping"]

LAYERS = 4  # of the base


def measure_shipping(results: Results, disk: Path, program: Path, *, base: int, new: int, quick: bool) -> None:
    """Ship the second version of an image of `base` bytes with `new` bytes of application on top."""
    experiment = Experiment(
        "shipping/update",
        "Shipping a new version",
        f"An image of {LAYERS} layers, {base / 1e6:.0f} MB, and one of {new / 1e6:.0f} MB for the application, "
        "gzip, in docker-registry on loopback. The server has version 1 and gets version 2, of which only the "
        "application's layer is new; or it gets everything: all layers, or a compressed disk image or tree over HTTP, "
        "written as a disk or with tar. Bytes are those that the servers sent; times go until it is on the disk, "
        "over loopback: on a real line the bytes decide.",
        {"seconds": Measure("seconds", "s"), "bytes": Measure("bytes sent", "MB")},
    )
    if results.is_settled(experiment):
        return
    for name in ("docker-registry", "skopeo"):
        if not shutil.which(name):
            results.note(f"no part 3: {name} is missing")
            return
    results.doing("images to ship")
    scratch = disk / "shipping"
    scratch.mkdir()
    try:
        _measure(results, experiment, scratch, program, base, new, quick=quick)
    finally:
        shutil.rmtree(scratch)


def _measure(
    results: Results, experiment: Experiment, scratch: Path, program: Path, base: int, new: int, *, quick: bool
) -> None:
    parts = [Layer(write_tree(scratch / "base-0", base // LAYERS, program).path)]
    parts += [Layer(write_tree(scratch / f"base-{n}", base // LAYERS, None, seed=n + 1).path) for n in range(1, LAYERS)]
    versions = [Layer(write_tree(scratch / f"app-{n}", new, None, seed=100 + n).path, "srv") for n in (1, 2)]
    written: dict[Layer, tuple[dict[str, object], str]] = {}
    for number, version in enumerate(versions, 1):
        layout(scratch / "layout", f"v{number}", [*parts, version], compressed=True, written=written)
    whole = scratch / "whole"
    for part in (*parts, versions[1]):
        shutil.copytree(part.tree, whole / part.prefix, dirs_exist_ok=True)
    size = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    count = sum(1 for _ in whole.rglob("*"))
    image = disk_image(scratch / "disk.img", Tree(whole, size, count))
    served = scratch / "served"
    served.mkdir()
    with image.open("rb") as source, gzip.open(served / "disk.img.gz", "wb", 6) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    with (served / "tree.tar.gz").open("wb") as target:
        subprocess.run(["tar", "-C", whole, "-cz", "."], stdout=target, check=True)
    with registry(scratch) as server, _web(served) as web:
        names = [server.copy(scratch / "layout", f"v{number}", f"compared/app:{number}") for number in (1, 2)]
        rounds = 6 if quick else 8
        trials = [
            Trial(
                "pyrtc pull: the missing layer",
                "layers",
                partial(_pull, server, scratch / "store", names[1], names[0]),
                rounds=rounds,
            ),
            Trial(
                "pyrtc pull: every layer",
                "layers",
                partial(_pull, server, scratch / "store", names[1], None),
                rounds=rounds,
            ),
            Trial("disk image over HTTP, gzip", "copy", partial(_fetch, web, scratch / "fetched"), rounds=rounds),
            Trial("tree over HTTP, tar -xz", "copy", partial(_untar, web, scratch / "untarred"), rounds=rounds),
            Trial(
                "skopeo copy: the missing layer, into a layout",
                "peer",
                partial(_skopeo, server, scratch, names, False),
                rounds=rounds,
            ),
        ]
        if shutil.which("umoci"):
            unpacked = partial(_skopeo, server, scratch, names, True)
            trials.append(Trial("the same, then umoci unpack of everything", "peer", unpacked, rounds=rounds))
        else:
            results.note("umoci is not here: its rows are missing")
        if Podman.installed():
            podman = partial(_podman, server, scratch, names)
            trials.append(Trial("podman pull: the missing layer", "peer", podman, rounds=rounds))
        results.run(experiment, trials)


def _seconds(*words: str | Path) -> float:
    begin = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True)
    return time.perf_counter() - begin


def _pull(server: Registry, store: Path, name: str, before: str | None) -> Mapping[str, float]:
    pull = (PYRTC, "--root", store, "pull", "-q")
    if before is not None:
        subprocess.run([*pull, before], check=True, capture_output=True)
    mark = server.mark()
    taken = _seconds(*pull, name)
    found = {"seconds": taken, "bytes": sum(server.sent(mark).values()) / 1e6}
    subprocess.run(["rm", "-rf", store], check=True)
    return found


def _podman(server: Registry, scratch: Path, names: list[str]) -> Mapping[str, float]:
    storage = scratch / "podman"
    podman = Podman(storage)
    subprocess.run(podman.pull_words(names[0]), check=True, capture_output=True)
    mark = server.mark()
    taken = _seconds(*podman.pull_words(names[1]))
    found = {"seconds": taken, "bytes": sum(server.sent(mark).values()) / 1e6}
    subprocess.run(["umount", "-q", storage / "root/overlay"], check=False, capture_output=True)
    subprocess.run(["rm", "-rf", storage], check=True)
    return found


_FETCH = """
import gzip, os, sys, urllib.request
with urllib.request.urlopen(sys.argv[1]) as answer, gzip.open(answer) as plain, open(sys.argv[2], "wb") as disk:
    while block := plain.read(1 << 20):
        if block.count(0) == len(block):
            disk.seek(len(block), 1)
        else:
            disk.write(block)
    disk.truncate(disk.tell())
    os.fsync(disk.fileno())
"""


def _fetch(web: tuple[str, Path], target: Path) -> Mapping[str, float]:
    address, source = web
    taken = _seconds(sys.executable, "-c", _FETCH, address, target)
    target.unlink()
    return {"seconds": taken, "bytes": source.stat().st_size / 1e6}


_SEND = """
import shutil, sys, urllib.request
with urllib.request.urlopen(sys.argv[1]) as answer:
    shutil.copyfileobj(answer, sys.stdout.buffer, 1 << 20)
"""


def _untar(web: tuple[str, Path], target: Path) -> Mapping[str, float]:
    address, source = web[0].replace("disk.img", "tree.tar"), web[1].with_name("tree.tar.gz")
    target.mkdir()
    # The disk's times have its fsync in them, pulls theirs.
    script = '"$0" -c "$1" "$2" | tar -C "$3" -xz && sync -f "$3"'
    taken = _seconds("bash", "-o", "pipefail", "-c", script, sys.executable, _SEND, address, target)
    shutil.rmtree(target)
    return {"seconds": taken, "bytes": source.stat().st_size / 1e6}


def _skopeo(server: Registry, scratch: Path, names: list[str], unpack: bool) -> Mapping[str, float]:
    target, bundle = scratch / "kept", scratch / "bundle"
    words = ["skopeo", "copy", "-q", "--src-tls-verify=false"]
    subprocess.run([*words, f"docker://{names[0]}", f"oci:{target}:app"], check=True, capture_output=True)
    mark, begin = server.mark(), time.perf_counter()
    subprocess.run([*words, f"docker://{names[1]}", f"oci:{target}:app"], check=True, capture_output=True)
    if unpack:
        subprocess.run(["umoci", "unpack", "--image", f"{target}:app", bundle], check=True, capture_output=True)
    subprocess.run(["sync", "-f", scratch], check=True)
    found = {"seconds": time.perf_counter() - begin, "bytes": sum(server.sent(mark).values()) / 1e6}
    subprocess.run(["rm", "-rf", target, bundle], check=True)
    return found


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def _web(directory: Path) -> Iterator[tuple[str, Path]]:
    """Serve a directory on loopback; yields the disk's address and its file."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/disk.img.gz", directory / "disk.img.gz"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
