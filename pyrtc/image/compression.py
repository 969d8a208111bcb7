"""Decompression of streams that strangers wrote: gzip, zstd, xz and bzip2, told apart by their first bytes.

All four are sequences of frames (gzip calls them members): pigz and eStargz write many, zstd:chunked adds skippable
ones. One loop serves them all; what differs is the library's decoder for one frame. Output comes in bounded pieces, so
memory does not depend on the data, and what a stream may grow to is limited.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from pyrtc.errors import ImageError
from pyrtc.values import dataclass

__all__ = ["CHUNK", "ExpansionLimits", "Format", "decompress", "detect"]

CHUNK = 1 << 20  # bytes read and handed on at once: hashlib and the decoders work without the GIL on pieces like these
_PIECE = 1 << 18  # bytes decompressed at once: whoever hashes and unpacks them next finds them in a processor's cache
_SMALLEST_STEP = 4096
_ZSTD_WINDOW_LOG = 27  # 128 MiB, what a decoder must support (RFC 8878, 3.1.1.1.2) and Docker's accepts


class _Decoder(Protocol):
    """The decoder of one frame, as in the standard library's bz2 and lzma."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes | memoryview, max_length: int = -1) -> bytes: ...


@dataclass(frozen=True, slots=True)
class ExpansionLimits:
    """What a compressed stream may become.

    size: bytes of output at most. ratio: output per input once there are more than `free` bytes of output; deflate
    cannot exceed 1032, zstd and xz can. frames, frame_size: once there are more frames than this, they must have so
    many compressed bytes on average: each costs a new decoder.
    """

    size: int = 1 << 40
    ratio: int = 2000
    free: int = 1 << 32
    frames: int = 100_000
    frame_size: int = 64


_DEFAULT_LIMITS = ExpansionLimits()


def _gzip() -> _Decoder:
    from isal import igzip_lib

    decoder: _Decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)  # checks CRC and length, too
    return decoder


def _zstd() -> _Decoder:
    import sys

    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    decoder: _Decoder = zstd.ZstdDecompressor(options=options)
    return decoder


def _xz() -> _Decoder:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=256 << 20)


def _bzip2() -> _Decoder:
    import bz2

    return bz2.BZ2Decompressor()


@dataclass(frozen=True, slots=True)
class Format:
    """A compression format.

    decoder: makes a decoder for one frame; None: the bytes are what they are. first: the bytes that a frame may begin
    with. padded: zeros may follow the last frame.
    """

    name: str
    decoder: Callable[[], _Decoder] | None = None
    first: frozenset[int] = frozenset()
    padded: bool = True


PLAIN = Format("uncompressed")
GZIP = Format("gzip", _gzip, frozenset(b"\x1f"))
ZSTD = Format("zstd", _zstd, frozenset(range(0x50, 0x60)) | {0x28}, padded=False)
XZ = Format("xz", _xz, frozenset(b"\xfd"))
BZIP2 = Format("bzip2", _bzip2, frozenset(b"B"))


def detect(head: bytes) -> Format:
    """Tell the format by the first bytes of a stream (six are enough). What a media type claims is not looked at."""
    if head.startswith(b"\x1f\x8b\x08"):
        return GZIP
    # A zstd stream may begin with a skippable frame: magic 0x184D2A50 to 0x184D2A5F.
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return ZSTD
    if head.startswith(b"\xfd7zXZ\x00"):
        return XZ
    if head.startswith(b"BZh"):
        return BZIP2
    return PLAIN


def decompress(chunks: Iterator[bytes], *, what: str, limits: ExpansionLimits = _DEFAULT_LIMITS) -> Iterator[bytes]:
    """Yield the decompressed stream in pieces of at most `CHUNK` bytes.

    Parameters
    ----------
    chunks: the stream as it is stored, in pieces that are not empty. what: names it in errors.

    Raises
    ------
    ImageError: damaged, cut short, followed by something else, or beyond the limits.
    """
    first = next(chunks, b"")
    while first and len(first) < 6 and (more := next(chunks, b"")):
        first += more
    form = detect(first)
    if form.decoder is None:
        yield from _limited(_chain(first, chunks), what, limits)
    else:
        yield from _Frames(form, form.decoder, what, limits).run(_chain(first, chunks))


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _limited(chunks: Iterator[bytes], what: str, limits: ExpansionLimits) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limits.size:
            raise ImageError(f"{what} is larger than {limits.size} bytes")
        yield chunk


class _Frames:
    """The loop over the frames of one stream."""

    def __init__(self, form: Format, decoder: Callable[[], _Decoder], what: str, limits: ExpansionLimits) -> None:
        self._form = form
        self._new_decoder = decoder
        self._what = what
        self._limits = limits
        self._read = 0
        self._written = 0
        self._frames = 0
        self._in_padding = False

    def run(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the output of every frame."""
        decoder: _Decoder | None = None
        step = CHUNK
        for chunk in chunks:
            self._read += len(chunk)
            rest = memoryview(chunk)
            while rest:
                if decoder is None:
                    if self._is_padding(rest):
                        break
                    self._count_frame()
                    decoder = self._new_decoder()
                # A decoder copies what it does not use. Feeding little after a short frame keeps many short frames from
                # costing a copy of the whole chunk each.
                piece = rest[:step]
                yield from self._feed(decoder, piece)
                used = len(piece)
                if decoder.eof:
                    used -= len(decoder.unused_data)
                    decoder = None
                    step = max(_SMALLEST_STEP, 2 * used)
                else:
                    step *= 2
                step = min(step, CHUNK)
                rest = rest[used:]
        if decoder is not None:
            raise ImageError(f"{self._what} is cut short in the middle of its {self._form.name} data")

    def _feed(self, decoder: _Decoder, piece: memoryview) -> Iterator[bytes]:
        data: bytes | memoryview = piece
        while True:
            try:
                output = decoder.decompress(data, _PIECE)
            except (MemoryError, GeneratorExit):
                raise
            except Exception as error:  # each library has its own class; all mean the same
                raise ImageError(f"{self._what} holds damaged {self._form.name} data: {error}") from error
            if output:
                self._count(len(output))
                yield output
            if decoder.eof or decoder.needs_input:
                return
            data = b""

    def _count_frame(self) -> None:
        self._frames += 1
        limits = self._limits
        if self._frames > limits.frames and self._read < self._frames * limits.frame_size:
            raise ImageError(
                f"{self._what} consists of {self._frames} tiny {self._form.name} frames: no honest archive does"
            )

    def _count(self, size: int) -> None:
        self._written += size
        limits = self._limits
        if self._written > limits.size:
            raise ImageError(f"{self._what} is larger than {limits.size} bytes when decompressed")
        if self._written > limits.free and self._written > limits.ratio * self._read:
            raise ImageError(
                f"{self._what} grows {self._written // self._read} times when decompressed, to more than "
                f"{self._written} bytes: this is no honest archive"
            )

    def _is_padding(self, rest: memoryview) -> bool:
        """Say whether what follows a frame is nothing but zeros, as tapes and some registries leave them."""
        if self._in_padding or (self._form.padded and rest[0] == 0):
            self._in_padding = True
            if not any(rest):
                return True
        elif rest[0] in self._form.first:
            return False
        raise ImageError(f"{self._what} has other data after its {self._form.name} data")
