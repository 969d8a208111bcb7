"""Tar archives byte by byte, right or wrong: what tarfile would never write."""

import contextlib
import os
import threading
from pathlib import Path

from pyrtc import core

USTAR = b"ustar\x0000"
GNU = b"ustar  \x00"
V7 = bytes(8)
END = bytes(1024)


def number(value: int | bytes, size: int) -> bytes:
    """Return a header's number field: octal, or base-256 for what octal cannot hold; bytes are taken as they are."""
    if isinstance(value, bytes):
        return value.ljust(size, b"\0")
    if 0 <= value < 8 ** (size - 1):
        return b"%0*o\0" % (size - 1, value)
    return bytes([0x80 if value >= 0 else 0xFF]) + value.to_bytes(size - 1, "big", signed=True)


def pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def header(
    name: bytes | str = b"",
    *,
    type: str = "0",
    size: int | bytes = 0,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 1_000_000_000,
    link: bytes | str = b"",
    magic: bytes = USTAR,
    major: int | bytes = 0,
    minor: int | bytes = 0,
    prefix: bytes = b"",
    patch: dict[int, bytes] | None = None,
    signed_checksum: bool = False,
) -> bytes:
    """Return one header block with a right checksum; `patch` overwrites bytes before it is computed."""
    block = bytearray(512)
    block[0:100] = os.fsencode(name)[:100].ljust(100, b"\0")
    block[100:108] = number(mode, 8)
    block[108:116] = number(uid, 8)
    block[116:124] = number(gid, 8)
    block[124:136] = number(size, 12)
    block[136:148] = number(mtime, 12)
    block[148:156] = b" " * 8
    block[156:157] = type.encode("latin-1")
    block[157:257] = os.fsencode(link)[:100].ljust(100, b"\0")
    block[257:265] = magic
    if magic != V7:
        block[329:337] = number(major, 8)
        block[337:345] = number(minor, 8)
    block[345 : 345 + len(prefix)] = prefix
    for at, data in (patch or {}).items():
        block[at : at + len(data)] = data
    total = sum(byte - 256 if signed_checksum and byte > 127 else byte for byte in block)
    block[148:156] = b"%06o\0 " % total
    return bytes(block)


def file(name: bytes | str, data: bytes = b"", **fields: object) -> bytes:
    return header(name, size=len(data), **fields) + pad(data)  # type: ignore[arg-type]


def directory(name: bytes | str, mode: int = 0o755, **fields: object) -> bytes:
    return header(name, type="5", mode=mode, **fields)  # type: ignore[arg-type]


def symlink(name: bytes | str, target: bytes | str, **fields: object) -> bytes:
    return header(name, type="2", link=target, mode=0o777, **fields)  # type: ignore[arg-type]


def hardlink(name: bytes | str, target: bytes | str, **fields: object) -> bytes:
    return header(name, type="1", link=target, **fields)  # type: ignore[arg-type]


def whiteout(path: str) -> bytes:
    head, _, tail = path.rpartition("/")
    return file(f"{head}/.wh.{tail}" if head else f".wh.{tail}")


def opaque(path: str) -> bytes:
    return file(f"{path}/.wh..wh..opq")


def record(key: bytes | str, value: bytes | str) -> bytes:
    """Return one PAX record, its length counted in."""
    body = b" " + os.fsencode(key) + b"=" + os.fsencode(value) + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length += 1
    return str(length).encode() + body


def extension(body: bytes, type: str = "x") -> bytes:
    return header(b"././@PaxHeader", type=type, size=len(body)) + pad(body)


def pax(*records: tuple[bytes | str, bytes | str], type: str = "x") -> bytes:
    return extension(b"".join(record(key, value) for key, value in records), type)


@contextlib.contextmanager
def stream(data: bytes, *, pipe: bool = False):
    """Offer the bytes as a descriptor: a file in memory, or a pipe that a thread fills."""
    if not pipe:
        fd = os.memfd_create("archive")
        with open(fd, "wb", closefd=False) as out:
            out.write(data)
        os.lseek(fd, 0, os.SEEK_SET)
        try:
            yield fd
        finally:
            os.close(fd)
        return
    source, sink = os.pipe()

    def fill() -> None:
        with contextlib.suppress(BrokenPipeError), open(sink, "wb") as out:
            out.write(data)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield source
    finally:
        os.close(source)
        thread.join()


def unpack(root: Path, *parts: bytes, lowers: tuple[Path, ...] = (), pipe: bool = False, end: bytes = END, **options):
    """Unpack the parts and an end into the new directory root, above the given layers, the topmost first."""
    root.mkdir()
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (root, *lowers)]
    options.setdefault("rootless", os.geteuid() != 0)
    try:
        with stream(b"".join(parts) + end, pipe=pipe) as source:
            return core.untar(source, fds[0], lower_fds=fds[1:], **options)
    finally:
        for fd in fds:
            os.close(fd)
