"""Pulls that were interrupted: the next one, in whatever process, goes on with what they had fetched."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from image_builder import layer
from servers import Exchange, Faulty, cut_after
from tar_builder import file
from test_faults import get, serve

from pyrtc.errors import RegistryUnreachable
from pyrtc.image.registry.pull import pull
from pyrtc.store import Store
from pyrtc.store.check import check_store
from pyrtc.store.usage import disk_usage

BIG = layer(file("data", random.Random(7).randbytes(900_000)))
PULL = """
import sys
from pyrtc.image.images import Images
from pyrtc.store import Store
with Store(sys.argv[1]) as store:
    Images(store).pull(sys.argv[2])
"""
DEADLINE = 30.0


def halves(store: Store) -> list[Path]:
    return sorted((store.root / "partial").iterdir())


def wait_for_size(store: Store, size: int) -> None:
    end = time.monotonic() + DEADLINE
    while not any(path.stat().st_size >= size for path in halves(store)):
        assert time.monotonic() < end
        time.sleep(0.02)


def stalled(size: int, go: threading.Event) -> object:
    """Send the first bytes of a blob, and the rest, which is broken off, when somebody has said so."""

    def action(exchange: Exchange) -> None:
        content = exchange.server.blobs[exchange.request.path.rpartition("/")[2]]
        exchange.begin(200, length=len(content))
        exchange.send(content[:size])
        go.wait(DEADLINE)
        exchange.cut()

    return action


@pytest.mark.parametrize("blobs", ["keep", "drop"])
def test_after_kill_9_another_process_goes_on(tmp_path: Path, faulty: Faulty, blobs: str) -> None:
    (blob,) = serve(faulty, BIG)
    go = threading.Event()
    faulty.on(blob["digest"], stalled(300_000, go), times=1)
    with Store(tmp_path / "store", blobs=blobs) as store:  # type: ignore[arg-type]
        process = subprocess.Popen([sys.executable, "-c", PULL, store.root, f"{faulty.host}/app:1"])
        wait_for_size(store, 300_000)
        assert store.partials.abandoned() == (), "it is locked by who writes it"
        process.send_signal(signal.SIGKILL)
        process.wait()
        go.set()
        # An ordinary user's unpacker has the lock, too, until it finds that it was left.
        end = time.monotonic() + DEADLINE
        while len(store.partials.abandoned()) != 1:
            assert time.monotonic() < end
            time.sleep(0.02)
        result = get(store, faulty)
        assert result.bytes_resumed == 300_000
        assert result.bytes_fetched == blob["size"] - 300_000
        assert [one.origin for one in result.layers] == ["fetched"]
        ranges = [request.headers.get("range") for request in faulty.seen(blob["digest"])]
        assert ranges == [None, "bytes=300000-"]
        assert (Path(result.image.layers[0]) / "data").read_bytes() == random.Random(7).randbytes(900_000)
        assert halves(store) == []
        if blobs == "keep":
            assert store.blobs.allocated(blob["digest"])
        assert check_store(store).clean


def test_a_connection_that_cannot_be_had_again(store: Store, faulty: Faulty) -> None:
    (blob,) = serve(faulty, BIG)
    faulty.on(blob["digest"], cut_after(100_000), times=1)
    faulty.on(blob["digest"], cut_after(0), times=5)
    with pytest.raises(RegistryUnreachable):
        get(store, faulty)
    assert [path.stat().st_size for path in halves(store)] == [100_000]
    faulty.rules.clear()
    result = get(store, faulty)
    assert (result.bytes_resumed, result.bytes_fetched) == (100_000, blob["size"] - 100_000)


@pytest.mark.parametrize("size", [1, 200_000, 2_000_000])
def test_what_is_left_is_not_believed(store: Store, faulty: Faulty, size: int) -> None:
    """Damaged, or more than there can be: it is thrown away, and the pull begins again by itself."""
    (blob,) = serve(faulty, BIG)
    path = store.root / "partial" / blob["digest"].replace(":", "-")
    path.write_bytes(b"x" * size)
    result = get(store, faulty)
    assert (result.bytes_resumed, result.bytes_fetched) == (0, blob["size"])
    assert (Path(result.image.layers[0]) / "data").read_bytes() == random.Random(7).randbytes(900_000)
    assert halves(store) == []


def test_a_whole_one_is_not_fetched(store: Store, faulty: Faulty) -> None:
    (blob,) = serve(faulty, BIG)
    path = store.root / "partial" / blob["digest"].replace(":", "-")
    path.write_bytes(faulty.blobs[blob["digest"]])
    result = get(store, faulty)
    assert (result.bytes_resumed, result.bytes_fetched) == (blob["size"], 0)
    assert faulty.seen(blob["digest"]) == []


def test_a_file_that_another_process_writes_is_left_alone(store: Store, faulty: Faulty) -> None:
    (blob,) = serve(faulty, BIG)
    held = store.partials.open(blob["digest"])
    assert held is not None
    os.write(held.fd, b"x" * 50)
    assert store.partials.open(blob["digest"]) is None
    assert get(store, faulty).bytes_fetched == blob["size"]
    assert [path.read_bytes() for path in halves(store)] == [b"x" * 50]
    held.close()


def test_what_nobody_goes_on_with_goes(store: Store, faulty: Faulty) -> None:
    old, new = store.root / "partial" / "sha256-old", store.root / "partial" / "sha256-new"
    for path in (old, new):
        path.write_bytes(b"x" * 5000)
    os.utime(old, (0, 0))
    assert disk_usage(store).leftovers.size >= 2 * 5000
    store.sweep()
    assert halves(store) == [new]
    swept = store.sweep(measure=True, partials=True)
    assert swept.freed is not None
    assert swept.freed >= 5000
    assert halves(store) == []


def test_cancelling_keeps_what_came(store: Store, faulty: Faulty) -> None:
    from pyrtc.image.cancelled import Cancelled
    from pyrtc.image.reference import Reference
    from pyrtc.image.registry.patience import Stop

    (blob,) = serve(faulty, BIG)
    go, stop = threading.Event(), Stop()
    faulty.on(blob["digest"], stalled(300_000, go), times=1)

    def interrupt() -> None:
        wait_for_size(store, 300_000)
        stop.set()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Cancelled):  # and not what the server's end of the connection would raise
        pull(store, Reference.parse(f"{faulty.host}/app:1"), stop=stop)
    thread.join()
    go.set()
    assert get(store, faulty).bytes_resumed == 300_000
