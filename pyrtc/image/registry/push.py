"""Sending an image to a registry: only what it lacks, taken over from its other repositories where it can be."""

import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from io import BufferedIOBase
from typing import Any, BinaryIO, Literal, cast

from pyrtc.errors import RegistryError, RegistryUnreachable, UsageError
from pyrtc.events import emit
from pyrtc.image.cancelled import Cancelled
from pyrtc.image.export import ExportedImage, ExportedLayer, Exporter
from pyrtc.image.reference import Reference
from pyrtc.image.registry.client import NotThere
from pyrtc.image.registry.patience import Patience, Stop
from pyrtc.image.registry.progress import BlobTransfer, OnTransfer, PushResult, Reporter, TransferEvent
from pyrtc.image.registry.settings import Settings
from pyrtc.image.registry.transport import Transport
from pyrtc.image.registry.uploads import Destination, TooLarge
from pyrtc.store import Store

__all__ = ["UPLOADS", "push"]

UPLOADS = 4  # blobs that are sent at once
_PART = 64 << 20  # bytes of one part, for registries that take no whole blob


def push(
    store: Store,
    reference: Reference,
    *,
    on_event: OnTransfer | None = None,
    uploads: int = UPLOADS,
    part: int | None = None,
    settings: Settings | None = None,
    patience: Patience | None = None,
    stop: Stop | None = None,
) -> PushResult:
    """Push an image; see `pyrtc.image.images.Images.push`.

    Parameters
    ----------
    uploads: how many blobs are sent at once. part: bytes of one request; None sends each blob in one, and in parts of
    64 MiB where the registry wants that. settings, patience: None for the machine's, and the usual ones. stop: ends
    it early.
    """
    begin = time.monotonic()
    if reference.digest is not None:
        raise UsageError("cannot push a digest reference: name a tag")
    name = reference.with_default_tag()
    image = store.image(name.canonical)
    endpoint = (settings or Settings.load()).to_push(name)
    transport = Transport(patience)
    if stop is not None:
        stop.on_set(transport.abort)
    try:
        repository = Destination(transport, endpoint)
        with Exporter(store, repository.has_blob) as exporter:
            exported = exporter.image(image)
            sent = _Push(store, name, repository, Reporter(on_event), uploads, part).run(exported)
        digest = repository.put_manifest(name.tag or "", exported.manifest, exported.manifest_type)
    finally:
        transport.close()
    with store.database.writing() as connection:
        store.images.set_target(connection, name, digest if not exported.changed else None)
        store.repositories.record(connection, name.repository, [layer.digest for layer in sent])
    emit(store, "image", "push", name.familiar, {"name": name.familiar})
    return PushResult(name.familiar, digest, len(exported.manifest), sent, exported.changed, time.monotonic() - begin)


class _Push:
    """The blobs of one push."""

    def __init__(
        self,
        store: Store,
        name: Reference,
        repository: Destination,
        reporter: Reporter,
        uploads: int,
        part: int | None,
    ) -> None:
        self._store = store
        self._name = name
        self._repository = repository
        self._reporter = reporter
        self._at_once = uploads
        self._part = part
        self._stop = repository.transport.aborted

    def run(self, exported: ExportedImage) -> tuple[BlobTransfer, ...]:
        """Send everything that the manifest names; returns what became of the layers."""
        layers = list({layer.digest: layer for layer in exported.layers}.values())
        pool = ThreadPoolExecutor(self._at_once, "pyrtc-upload")
        try:
            jobs: list[Future[BlobTransfer]] = [pool.submit(self._layer, layer) for layer in layers]
            config = pool.submit(self._config, exported)
            everything: list[Future[Any]] = [*jobs, config]
            done, _ = wait(everything, return_when=FIRST_EXCEPTION)
            for job in done:
                job.result()
            return tuple(job.result() for job in jobs)
        except BaseException:
            self._repository.transport.abort()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _config(self, exported: ExportedImage) -> None:
        import io

        digest, content = exported.config_digest, exported.config
        if not self._repository.has_blob(digest):
            self._upload(digest, len(content), lambda: io.BytesIO(content), None)

    def _layer(self, layer: ExportedLayer) -> BlobTransfer:
        digest, size = layer.digest, layer.size
        if self._stop.is_set():
            raise Cancelled("cancelled")
        self._reporter.tell(TransferEvent(digest, "checking", 0, size))
        if not layer.stored or self._repository.has_blob(digest):
            self._reporter.tell(TransferEvent(digest, "exists", size, size))
            return BlobTransfer(digest, size, 0, "present")
        location = None
        for source in self._store.repositories.with_blob(digest, self._name.domain):
            if source == self._name.path:
                continue
            location = self._mount(digest, source)
            if location is None:
                self._reporter.tell(TransferEvent(digest, "mounted", size, size, source))
                return BlobTransfer(digest, size, 0, "mounted")
            # The registry began an upload instead. Another source would begin another one.
            break
        sent = self._upload(digest, size, layer.open, location)
        self._reporter.tell(TransferEvent(digest, "uploaded", size, size))
        return BlobTransfer(digest, size, sent, "sent")

    def _mount(self, digest: str, source: str) -> str | None:
        """Take a blob over; returns the address of an upload where that does not go."""
        try:
            return self._repository.mount_blob(digest, source)
        except RegistryUnreachable:
            raise
        except RegistryError:
            # Not for us to read, or gone: sending it works all the same.
            return self._repository.begin_upload(digest)

    def _upload(self, digest: str, size: int, opener: Callable[[], BinaryIO], location: str | None) -> int:
        """Send a blob, going on where a broken connection left off; returns the bytes that were sent in all."""
        patience = self._repository.transport.patience
        sent = _Counter()
        failures, offset, part = 0, 0, self._part
        where = location or self._repository.begin_upload(digest)
        while True:
            try:
                if part is None:
                    body = self._body(opener, digest, offset, size - offset, size, sent)
                    self._repository.end_upload(where, digest, body, size - offset)
                    return sent.bytes
                if offset < size:
                    length = min(part, size - offset)
                    body = self._body(opener, digest, offset, length, size, sent)
                    where = self._repository.send_part(where, digest, body, offset, length)
                    offset += length
                    continue
                self._repository.end_upload(where, digest, None, 0)
                return sent.bytes
            except RegistryUnreachable as error:
                if self._stop.is_set():
                    raise Cancelled("cancelled") from error
                failures += 1
                if failures >= patience.attempts:
                    raise
                self._reporter.tell(TransferEvent(digest, "retrying", offset, size, str(error)))
                patience.wait(patience.delay(failures - 1), self._stop)
                if self._repository.has_blob(digest):
                    return sent.bytes  # what was lost was the answer
            except TooLarge:
                if part is not None:
                    raise
                part = _PART
            where, offset = self._resume(where, digest)

    def _resume(self, where: str, digest: str) -> tuple[str, int]:
        """Return where an upload goes on, a new one where the registry has given the old one up."""
        try:
            return self._repository.upload_offset(where, digest)
        except RegistryUnreachable:
            raise
        except (NotThere, RegistryError):
            return self._repository.begin_upload(digest), 0

    def _body(
        self, opener: Callable[[], BinaryIO], digest: str, offset: int, length: int, size: int, sent: "_Counter"
    ) -> Callable[[], BinaryIO]:
        def opened() -> BinaryIO:
            file = opener()
            file.seek(offset)
            return cast(BinaryIO, _Part(file, length, self._count(digest, offset, size, sent)))

        return opened

    def _count(self, digest: str, offset: int, size: int, sent: "_Counter") -> Callable[[int], None]:
        position = offset

        def count(length: int) -> None:
            nonlocal position
            if self._stop.is_set():
                raise Cancelled("cancelled")
            position += length
            sent.bytes += length
            self._reporter.bytes(digest, "uploading", position, size)

        return count


class _Counter:
    """Bytes that went out for one blob."""

    bytes = 0


class _Part(BufferedIOBase):
    """A part of an open file, which tells what is read from it."""

    def __init__(self, file: BinaryIO, length: int, count: Callable[[int], None]) -> None:
        self._file = file
        self._left = length
        self._count = count

    def readable(self) -> Literal[True]:
        """It can be read."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes."""
        piece = self._file.read(self._left if size is None or size < 0 else min(size, self._left))
        self._left -= len(piece)
        self._count(len(piece))
        return piece

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
