import bz2
import gzip
import lzma
import os
import struct
import sys
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc.errors import ImageError
from pyrtc.image.compression import CHUNK, ExpansionLimits, decompress, detect

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DATA = os.urandom(3000) + b"y" * 100_000
SKIPPABLE = struct.pack("<II", 0x184D2A53, 5) + b"hello"


def run(stored: bytes, step: int = 1000, **limits: int) -> bytes:
    pieces = (stored[at : at + step] for at in range(0, len(stored), step))
    output = list(decompress(pieces, what="the stream", limits=ExpansionLimits(**limits)))
    assert all(0 < len(piece) <= CHUNK for piece in output)
    return b"".join(output)


@pytest.mark.parametrize("step", [1, 3, 100, 5000, 1 << 20])
@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (gzip.compress(DATA, mtime=0), DATA),
        (gzip.compress(DATA, mtime=0) * 3, DATA * 3),
        (gzip.compress(DATA, mtime=0) + bytes(1500), DATA),
        (gzip.compress(b"", mtime=0) * 50 + gzip.compress(DATA, mtime=0), DATA),
        (gzip.compress(b"", mtime=0), b""),
        (zstd.compress(DATA), DATA),
        (zstd.compress(DATA) * 2, DATA * 2),
        (SKIPPABLE + zstd.compress(DATA) + SKIPPABLE + zstd.compress(DATA) + SKIPPABLE, DATA * 2),
        (lzma.compress(DATA), DATA),
        (lzma.compress(DATA) * 2 + bytes(8), DATA * 2),
        (bz2.compress(DATA) * 2, DATA * 2),
        (DATA, DATA),
        (b"", b""),
        (b"\x1f", b"\x1f"),
        (b"BZ", b"BZ"),
    ],
)
def test_round_trip(stored: bytes, expected: bytes, step: int) -> None:
    assert run(stored, step) == expected


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (gzip.compress(DATA, mtime=0)[:-1], "cut short"),
        (gzip.compress(DATA, mtime=0)[:5], "cut short"),
        (gzip.compress(DATA, mtime=0) + b"abc", "other data"),
        (gzip.compress(DATA, mtime=0) + b"\0\0\0a", "other data"),
        (gzip.compress(DATA, mtime=0)[:-8] + b"1234" + gzip.compress(DATA, mtime=0)[-4:], "damaged gzip"),
        (gzip.compress(DATA, mtime=0)[:-4] + b"1234", "damaged gzip"),
        (gzip.compress(DATA, mtime=0)[:2000] + b"1234" + gzip.compress(DATA, mtime=0)[2004:], "damaged gzip"),
        (zstd.compress(DATA)[:-1], "cut short"),
        (zstd.compress(DATA) + bytes(10), "other data"),
        (zstd.compress(DATA) + b"abc", "other data"),
        (SKIPPABLE[:-1], "cut short"),
        (lzma.compress(DATA)[:-1], "cut short"),
        (lzma.compress(DATA)[:-9] + b"123456789", "damaged xz"),
        (bz2.compress(DATA)[:-1], "cut short"),
    ],
)
def test_damage_is_found(stored: bytes, reason: str) -> None:
    for step in (7, 1 << 20):
        with pytest.raises(ImageError, match=reason):
            run(stored, step)


def test_windows_beyond_128_mib_are_refused() -> None:
    parameters = {zstd.CompressionParameter.window_log: 28, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=parameters)
    stored = compressor.compress(b"x" * 1000) + compressor.flush()
    with pytest.raises(ImageError, match="zstd"):
        run(stored)


def test_bombs_are_cut_off() -> None:
    with pytest.raises(ImageError, match="larger than"):
        run(gzip.compress(bytes(1 << 24)), size=1 << 20)
    with pytest.raises(ImageError, match="larger than"):
        run(bytes(1 << 21), size=1 << 20)
    with pytest.raises(ImageError, match="no honest archive"):
        run(zstd.compress(bytes(1 << 26)), free=1 << 20)
    with pytest.raises(ImageError, match="tiny gzip frames"):
        run(gzip.compress(b"", mtime=0) * 300, 1 << 20, frames=100)


def test_memory_does_not_follow_the_output() -> None:
    stored = zstd.compress(bytes(1 << 28))
    tracemalloc.start()
    try:
        size = sum(len(piece) for piece in decompress(iter([stored]), what="x"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 1 << 28
    assert peak < 8 * CHUNK


def test_many_members_cost_linear_time() -> None:
    import time

    def seconds(count: int) -> float:
        stored = gzip.compress(b"", mtime=0) * count
        start = time.process_time()
        run(stored, 1 << 20)
        return time.process_time() - start

    seconds(100)
    assert seconds(40_000) < 40 * max(seconds(4000), 0.005)


@given(st.binary(max_size=300))
def test_gzip_agrees_with_zlib(tail: bytes) -> None:
    stored = gzip.compress(b"abc")[:10] + tail
    try:
        decoder = zlib.decompressobj(31)
        expected: bytes | None = decoder.decompress(stored)
        if not decoder.eof or decoder.unused_data:
            expected = None
    except zlib.error:
        expected = None
    try:
        actual: bytes | None = run(stored)
    except ImageError:
        actual = None
    if expected is not None:
        assert actual == expected
    elif actual is not None:
        assert decoder.unused_data  # more members, or padding


@given(st.binary(max_size=20))
def test_detection_takes_anything(head: bytes) -> None:
    assert detect(head).name in ("uncompressed", "gzip", "zstd", "xz", "bzip2")
