"""Keeping the compressed form of a layer while it streams by.

A layer that came in a form that registries take, gzip or zstd, is kept as it came, so that a push or save gives it back
byte for byte. One that came in another form, uncompressed in a docker-archive most often, is kept as gzip: its bytes
come back when it is decompressed, so its diffID and the image's id stay what they were, and the disk does not hold
everything twice in full.
"""

import hashlib
import os
from collections.abc import Callable
from typing import Protocol

from pyrtc.errors import StoreError
from pyrtc.image.compression import GZIP, ZSTD, Format, detect
from pyrtc.values import dataclass

__all__ = ["GzipWriter", "Keeper", "StagedBlob", "gzip_layer_type", "layer_type"]

_SUFFIX = {"gzip": "gzip", "zstd": "zstd"}
# The second of four levels is as fast as unpacking is on one core, and packs like gzip -3.
_GZIP_LEVEL = 2


@dataclass(frozen=True, slots=True)
class StagedBlob:
    """A compressed layer in a file of staging. digest, size: of the file; diff_id: of what it decompresses to."""

    name: str
    digest: str
    diff_id: str
    size: int
    media_type: str


def layer_type(form: Format, claimed: str) -> str:
    """Return the media type of a layer that has this form in fact, of the family (OCI or Docker) that was claimed."""
    suffix = _SUFFIX.get(form.name, "")
    if "vnd.docker." in claimed:
        return "application/vnd.docker.image.rootfs.diff.tar" + (f".{suffix}" if suffix else "")
    return "application/vnd.oci.image.layer.v1.tar" + (f"+{suffix}" if suffix else "")


def gzip_layer_type(claimed: str = "") -> str:
    """Return the media type of a layer that was compressed here."""
    return layer_type(GZIP, claimed)


class _Sink(Protocol):
    def __call__(self, data: bytes, /) -> object: ...


class GzipWriter:
    """Compresses to gzip; the same input always gives the same bytes, without a name or time in the header."""

    def __init__(self, sink: _Sink) -> None:
        from isal import igzip_lib, isal_zlib

        self._compressor = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, 16 + igzip_lib.MAX_HIST_BITS)
        self._sink = sink

    def write(self, data: bytes | memoryview) -> None:
        """Take a piece."""
        packed = self._compressor.compress(data)
        if packed:
            self._sink(packed)

    def finish(self) -> None:
        """Write what is left."""
        self._sink(self._compressor.flush())


class Keeper:
    """Takes a layer's bytes from two places of one stream, as they came and decompressed, and keeps one of both.

    Parameters
    ----------
    put: the bytes as they came are in a file already; puts it into a directory under a name. They are not written
    again then.
    """

    def __init__(
        self, directory_fd: int, name: str, media_type: str, put: Callable[[int, str], None] | None = None
    ) -> None:
        self._name = name
        self._directory = directory_fd
        self._put = put
        self._claimed = media_type
        self._head = b""
        self._form: Format | None = None
        self._gzip: GzipWriter | None = None
        self._hash = hashlib.sha256(usedforsecurity=False)
        self._size = 0
        # Truncated: a layer that turns out to depend on those below is read twice.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(name, flags, 0o600, dir_fd=directory_fd)

    def came(self, chunk: bytes) -> None:
        """Take bytes as they came.

        Raises
        ------
        StoreError: the disk is full or broken.
        """
        if self._form is None:
            self._head += chunk
            if len(self._head) < 6:  # what `detect` wants to see
                return
            self._decide()
        elif self._gzip is None:
            self._came(chunk)

    def decompressed(self, piece: bytes) -> None:
        """Take bytes that were decompressed from those that came before. Raises as `came` does."""
        if self._form is None:
            self._decide()
        if self._gzip is not None:
            self._gzip.write(piece)

    def _decide(self) -> None:
        self._form = detect(self._head)
        if self._form in (GZIP, ZSTD):
            self._came(self._head)
        else:
            self._gzip = GzipWriter(self._compressed)
        self._head = b""

    def _came(self, data: bytes) -> None:
        if self._put is None:
            self._write(data)

    def _compressed(self, data: bytes) -> None:
        self._hash.update(data)
        self._size += len(data)
        self._write(data)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise StoreError(
                f'cannot keep the compressed layer: {error.strerror}; with the setting blobs = "drop" only its tree '
                "is stored"
            ) from error

    def finish(self, blob_digest: str, blob_size: int, diff_id: str) -> StagedBlob:
        """Say what is kept, now that all bytes have come; they are not on the disk yet."""
        if self._form is None:
            self._decide()
        assert self._form is not None
        if self._gzip is None:
            if self._put is not None:
                self.close()
                os.unlink(self._name, dir_fd=self._directory)
                self._put(self._directory, self._name)
            return StagedBlob(self._name, blob_digest, diff_id, blob_size, layer_type(self._form, self._claimed))
        self._gzip.finish()
        digest = f"sha256:{self._hash.hexdigest()}"
        return StagedBlob(self._name, digest, diff_id, self._size, gzip_layer_type(self._claimed))

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
