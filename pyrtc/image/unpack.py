"""From the stored form of a layer to a tree: read, hash, decompress, hash again and unpack, side by side.

One thread reads, hashes and decompresses; another runs the unpacker on what comes out. Neither holds the GIL while it
works, so two cores are busy per layer, and several layers go on at once.
"""

import hashlib
import os
import select
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from pyrtc import core
from pyrtc.errors import DigestMismatch, ImageError, PyrtcError, StoreError
from pyrtc.image.cancelled import Cancelled
from pyrtc.image.channel import Channel, PieceChannel, PipeChannel
from pyrtc.image.compression import CHUNK, decompress
from pyrtc.image.keep import Keeper, StagedBlob
from pyrtc.store.trees import Trees
from pyrtc.values import dataclass

__all__ = ["LayerBlob", "LayerSource", "LayerWork", "Region", "Source", "Stream", "Unpacked"]

_POLL = 200  # milliseconds between looks at `cancelled` while a pipe that is being read is silent


_Untar = Callable[[int | core.Pieces], core.UntarResult | None]


class Source(Protocol):
    """Something that can be read in pieces."""

    @property
    def verifies(self) -> bool:
        """Whether `chunks` raises at its end unless what it gave has the digest that the source was made for."""

    def chunks(self, cancelled: threading.Event) -> Iterator[bytes]:
        """Yield the bytes from the first to the last; may stop with `Cancelled` when the event is set."""


class LayerSource(Source, Protocol):
    """Where a layer comes from; can be read more than once."""

    @property
    def what(self) -> str:
        """Its name for errors."""

    @property
    def size(self) -> int:
        """Bytes that will come."""

    @property
    def put(self) -> Callable[[int, str], None] | None:
        """Puts the file that holds the layer as it came into a directory of the store under a name, once it was read.

        None where there is no such file of the store's.
        """

    def start(self) -> None:
        """Begin what can be done before it is read: it will be, soon."""


@dataclass(frozen=True, slots=True)
class Region:
    """A part of an open file, read by offset, so that many threads can read one file."""

    fd: int
    offset: int
    size: int
    what: str

    @property
    def verifies(self) -> bool:
        """Files are only read here."""
        return False

    @property
    def put(self) -> Callable[[int, str], None] | None:
        """The file is the caller's, and has other things in it."""
        return None

    def start(self) -> None:
        """Do nothing: it is there."""

    def chunks(self, cancelled: threading.Event) -> Iterator[bytes]:
        """Yield the bytes.

        Raises
        ------
        ImageError: the file ends before the region does.
        """
        offset, end = self.offset, self.offset + self.size
        while offset < end:
            chunk = os.pread(self.fd, min(CHUNK, end - offset), offset)
            if not chunk:
                raise ImageError(f"{self.what} is cut short: {end - offset} of {self.size} bytes are missing")
            offset += len(chunk)
            yield chunk

    def read(self, limit: int) -> bytes:
        """Return all bytes at once.

        Raises
        ------
        ImageError: there are more than limit, or the file is cut short.
        """
        if self.size > limit:
            raise ImageError(f"{self.what} has {self.size} bytes; {limit} are allowed")
        return b"".join(self.chunks(threading.Event()))


@dataclass(frozen=True, slots=True)
class Stream:
    """An open file or pipe, read from where it is to its end."""

    fd: int

    @property
    def verifies(self) -> bool:
        """Nobody knows what comes."""
        return False

    def chunks(self, cancelled: threading.Event) -> Iterator[bytes]:
        """Yield the bytes; stops with `Cancelled` soon after the event is set, even when nobody writes."""
        poller = None
        if not stat.S_ISREG(os.fstat(self.fd).st_mode):
            poller = select.poll()
            poller.register(self.fd, select.POLLIN)
        while True:
            while poller is not None and not poller.poll(_POLL):
                if cancelled.is_set():
                    raise Cancelled("cancelled")
            chunk = os.read(self.fd, CHUNK)
            if not chunk:
                return
            yield chunk


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """A layer that can be had. digest: of the stored form, None where nothing says (docker-archive)."""

    diff_id: str
    source: LayerSource
    digest: str | None
    media_type: str


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What came out: the unpacker's result, the digests and size that were seen on the way, the blob if it was kept."""

    result: core.UntarResult
    diff_id: str
    blob_digest: str
    blob_size: int
    kept: StagedBlob | None = None


class _Feeder(threading.Thread):
    """The thread before the channel."""

    def __init__(
        self,
        source: Source,
        channel: Channel,
        what: str,
        algorithms: tuple[str, str],
        cancelled: threading.Event,
        keeper: Keeper | None,
    ) -> None:
        super().__init__(name="pyrtc-inflate", daemon=True)
        self._source = source
        self._channel = channel
        self._what = what
        self._cancelled = cancelled
        self._blob_hash = None if source.verifies else hashlib.new(algorithms[0], usedforsecurity=False)
        self._diff_hash = hashlib.new(algorithms[1], usedforsecurity=False)
        self._algorithms = algorithms
        self._keeper = keeper
        self.size = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        """Read to the end, or to the first error; the channel is ended in any case."""
        try:
            for piece in decompress(self._hashed(), what=self._what):
                self._diff_hash.update(piece)
                if self._keeper is not None:
                    self._keeper.decompressed(piece)
                if self._cancelled.is_set() or not self._channel.put(piece):
                    raise Cancelled("cancelled")
        except BaseException as error:  # handed to the thread that waits
            self.error = error
        finally:
            self._channel.end()

    def _hashed(self) -> Iterator[bytes]:
        for chunk in self._source.chunks(self._cancelled):
            self.size += len(chunk)
            if self._blob_hash is not None:
                self._blob_hash.update(chunk)
            if self._keeper is not None:
                self._keeper.came(chunk)
            yield chunk

    @property
    def blob_digest(self) -> str | None:
        """Of everything that was read; None where the source has checked it."""
        if self._blob_hash is None:
            return None
        return f"{self._algorithms[0]}:{self._blob_hash.hexdigest()}"

    @property
    def diff_id(self) -> str:
        """Of everything that was written, trailing bytes included."""
        return f"{self._algorithms[1]}:{self._diff_hash.hexdigest()}"


@dataclass(frozen=True, slots=True)
class LayerWork:
    """One layer to unpack.

    what: names it in errors. blob_digest, diff_id: what the stored and the uncompressed form must hash to, None where
    it is not known. trees: the store's. cancelled: ends the work early. keep:
    directory and name of a file to keep the compressed form in. media_type: what the layer is said to be. put: the
    source's.
    """

    trees: Trees
    source: Source
    what: str
    cancelled: threading.Event
    blob_digest: str | None = None
    diff_id: str | None = None
    keep: tuple[int, str] | None = None
    media_type: str = ""
    put: Callable[[int, str], None] | None = None

    def unpack(self, root_fd: int, lower_fds: Sequence[int] = ()) -> Unpacked:
        """Unpack the layer into the empty directory root_fd, above the layers below (top first), and verify it.

        Raises
        ------
        DigestMismatch: the content is not what the digests say. ImageError: it is damaged, hostile or beyond the
        limits. Cancelled: the event was set.
        """
        unpacked = self._run(lambda stream: self.trees.untar(stream, root_fd, lower_fds=lower_fds))
        assert unpacked is not None
        return unpacked

    def unpack_alone(self, root_fd: int) -> Unpacked | None:
        """Do the same without the layers below; None, early, where they have a say. Raises as `unpack` does."""
        return self._run(lambda stream: self.trees.untar_alone(stream, root_fd))

    def _run(self, untar: _Untar) -> Unpacked | None:
        if self.keep is None:
            return self._stream(untar, None)
        keeper = Keeper(*self.keep, self.media_type, self.put)
        try:
            return self._stream(untar, keeper)
        finally:
            keeper.close()

    def _stream(self, untar: _Untar, keeper: Keeper | None) -> Unpacked | None:
        algorithms = tuple((digest or "sha256:").partition(":")[0] for digest in (self.blob_digest, self.diff_id))
        channel: Channel = PieceChannel() if self.trees.unpacks_here else PipeChannel()
        feeder = _Feeder(self.source, channel, self.what, (algorithms[0], algorithms[1]), self.cancelled, keeper)
        feeder.start()
        failure: PyrtcError | None = None
        cancelled: BaseException | None = None
        result: core.UntarResult | None = None
        try:
            result = untar(channel.source)
        except PyrtcError as error:
            failure = error
        finally:
            cancelled = feeder.error if isinstance(feeder.error, Cancelled) else None  # not by what comes next
            channel.stop()
            feeder.join()
            channel.close()
        if self.cancelled.is_set() or cancelled is not None:
            raise Cancelled("cancelled")
        if failure is None and result is None:
            return None
        # The unpacker sees a short stream whenever the feeder fails; the feeder knows why. One that was stopped does
        # not.
        if feeder.error is not None and not isinstance(feeder.error, Cancelled):
            if isinstance(feeder.error, OSError):
                raise StoreError(f"cannot read {self.what}: {feeder.error.strerror}") from feeder.error
            raise feeder.error
        if failure is not None:
            raise type(failure)(f"{self.what}: {failure}") from failure
        assert result is not None
        return self._verified(result, feeder, keeper)

    def _verified(self, result: core.UntarResult, feeder: _Feeder, keeper: Keeper | None) -> Unpacked:
        blob_digest = feeder.blob_digest or self.blob_digest
        assert blob_digest is not None
        if self.blob_digest not in (None, blob_digest):
            raise DigestMismatch(f"{self.what} has the digest {blob_digest}, not {self.blob_digest}")
        if self.diff_id not in (None, feeder.diff_id):
            raise DigestMismatch(
                f"{self.what} unpacks to the diffID {feeder.diff_id}, the image's config says {self.diff_id}"
            )
        kept = keeper.finish(blob_digest, feeder.size, feeder.diff_id) if keeper is not None else None
        return Unpacked(result, feeder.diff_id, blob_digest, feeder.size, kept)
