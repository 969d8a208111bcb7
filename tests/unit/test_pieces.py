"""A layer's stream in memory: it unpacks to what it does from a file, wherever its pieces end."""

import os
import threading
import time

import pytest
from tar_builder import END, directory, extension, file, hardlink, pax, symlink

from pyrtc import core
from pyrtc.errors import ImageError
from pyrtc.store.trees import trees_for

LONG = "n" * 180
STREAM = b"".join(
    (
        directory("d", 0o755),
        file("d/empty"),
        file("d/block", b"b" * 512),
        file("d/odd", os.urandom(3001)),
        pax(("path", f"d/{LONG}")) + file("short", b"long"),
        extension(b"d/gnu" + b"g" * 120 + b"\0", "L") + file("gnu", b"name"),
        file("d/large", os.urandom(700_000)),
        symlink("d/link", "odd"),
        hardlink("d/again", "d/odd"),
        END,
    )
)


def feed(pieces: core.Pieces, data: bytes, size: int) -> threading.Thread:
    """Write a stream in pieces of so many bytes from another thread, as long as they are wanted."""

    def run() -> None:
        # Copied, so that nothing but the stream keeps a piece where it is.
        for start in range(0, len(data), size):
            if not pieces.put(bytes(bytearray(data[start : start + size]))):
                break
        pieces.end()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def from_pieces(root, data: bytes, size: int) -> core.UntarResult:
    root.mkdir()
    pieces, root_fd = core.Pieces(), os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    thread = feed(pieces, data, size)
    try:
        return core.untar(pieces, root_fd, rootless=True)
    finally:
        pieces.stop()
        thread.join()
        os.close(root_fd)


def fingerprint(root) -> str:
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return trees_for(rootless=True).fingerprint(root_fd).tree
    finally:
        os.close(root_fd)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    root, stream = tmp_path_factory.mktemp("from-file") / "r", tmp_path_factory.mktemp("stream") / "s"
    root.mkdir()
    stream.write_bytes(STREAM)
    stream_fd, root_fd = os.open(stream, os.O_RDONLY), os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    result = core.untar(stream_fd, root_fd, rootless=True)
    os.close(stream_fd)
    os.close(root_fd)
    return result, fingerprint(root), root


@pytest.mark.parametrize("size", [61, 511, 512, 513, 1024, 4095, 65536, 300_000, len(STREAM)])
def test_where_pieces_end_does_not_matter(tmp_path, expected, size):
    result, tree, root = expected
    assert from_pieces(tmp_path / "r", STREAM, size) == result
    assert fingerprint(tmp_path / "r") == tree
    for path in (path for path in root.rglob("*") if path.is_file()):
        assert (tmp_path / "r" / path.relative_to(root)).read_bytes() == path.read_bytes()


def test_single_bytes(tmp_path):
    assert from_pieces(tmp_path / "r", file("x", b"abc") + END, 1).entries == 1
    assert (tmp_path / "r/x").read_bytes() == b"abc"


@pytest.mark.parametrize("kept", [1, 511, 512, 700, 2000, len(STREAM) - 300_000])
@pytest.mark.parametrize("size", [512, 4096, 300_000])
def test_a_stream_that_is_cut_off(tmp_path, kept, size):
    if kept == 512:  # a whole header of a directory: an end where a header would be
        assert from_pieces(tmp_path / "r", STREAM[:kept], size).entries == 1
        return
    with pytest.raises(ImageError, match="truncated"):
        from_pieces(tmp_path / "r", STREAM[:kept], size)


def test_no_stream_at_all(tmp_path):
    assert from_pieces(tmp_path / "r", b"", 1).entries == 0


def test_the_writer_is_let_go_when_the_reader_fails(tmp_path):
    bad = file("../x", b"x") + bytes(50 << 20)
    with pytest.raises(ImageError, match="leads out"):
        from_pieces(tmp_path / "r", bad, 1 << 16)  # joins the writer


def test_the_writer_waits_for_room(tmp_path):
    pieces, written = core.Pieces(), []

    def run() -> None:
        for number in range(100):
            if not pieces.put(bytes(4096)):
                return
            written.append(number)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 10
    while len(written) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(written) == 4
    pieces.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert len(written) == 4


def test_the_reader_waits_without_the_interpreter_lock(tmp_path):
    """A writer that is slow finds the interpreter free, and the reader gets what comes last."""
    (tmp_path / "r").mkdir()
    root_fd = os.open(tmp_path / "r", os.O_RDONLY | os.O_DIRECTORY)
    pieces = core.Pieces()

    def run() -> None:
        for piece in (file("x", b"x" * 600)[:700], file("x", b"x" * 600)[700:], END):
            time.sleep(0.05)
            pieces.put(piece)
        pieces.end()

    thread = threading.Thread(target=run)
    thread.start()
    assert core.untar(pieces, root_fd, rootless=True).bytes == 600
    thread.join()
    os.close(root_fd)
