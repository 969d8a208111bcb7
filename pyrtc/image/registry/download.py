"""A layer on its way here: one thread fetches it into a file of staging, others read that file as it grows.

So the network never waits for the unpacker, a layer that has to be read twice is fetched once, and a broken connection
goes on where it broke, also when the process that had it was killed (`pyrtc.store.partials`).
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress

from pyrtc.errors import DigestMismatch, RegistryError, RegistryUnreachable, StoreError
from pyrtc.image.cancelled import Cancelled
from pyrtc.image.compression import CHUNK
from pyrtc.image.model import Descriptor
from pyrtc.image.registry.client import NotThere, Repository
from pyrtc.image.registry.progress import Reporter, TransferEvent
from pyrtc.store.descriptors import Private
from pyrtc.store.partials import Partials

__all__ = ["Download"]

_POLL = 0.2  # seconds between looks at `cancelled`
_PROGRESS = 64 << 10  # bytes a connection must bring to count as one that works


class Download:
    """The source of one layer (`pyrtc.image.unpack.LayerSource`).

    Parameters
    ----------
    sources: repositories that may have it, best first. partials: where the file goes, and what there may be of it.
    directory_fd, name: where it goes instead while another process is fetching the same. pool: runs the fetching
    thread, and bounds how many run at once.

    Attributes
    ----------
    fetched: bytes that came over the network. resumed: bytes that were there.
    """

    verifies = True

    def __init__(
        self,
        descriptor: Descriptor,
        sources: Sequence[Repository],
        partials: Partials,
        directory_fd: int,
        name: str,
        pool: Executor,
        reporter: Reporter,
    ) -> None:
        self.descriptor = descriptor
        self.what = f"the layer {descriptor.digest}"
        self.size = descriptor.size
        self.fetched = 0
        self.resumed = 0
        self._sources = sources
        self._partials = partials
        self._own = (directory_fd, name)
        self._place = self._own
        self._pool = pool
        self._stop = sources[0].transport.aborted
        self._reporter = reporter
        self._changed = threading.Condition()
        self._file: Private | None = None
        self._written = 0
        self._done = False
        self._error: BaseException | None = None

    def start(self) -> None:
        """Begin to fetch, when the pool has room."""
        with self._changed:
            if self._file is not None:
                return
            self._file = self._open()
            self._written, self._done, self._error = 0, False, None
        self._reporter.tell(TransferEvent(self.descriptor.digest, "waiting", 0, self.descriptor.size))
        self._pool.submit(self._run)

    def _open(self) -> Private:
        digest = self.descriptor.digest
        file = self._partials.open(digest)
        while file is not None and os.fstat(file.fd).st_size > self.size:
            self._partials.discard(digest)  # that is no part of it
            file.close()
            file = self._partials.open(digest)
        if file is None:
            self._place = self._own
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            return Private(os.open(self._own[1], flags, 0o600, dir_fd=self._own[0]))
        self._place = self._partials.fd, self._partials.name(digest)
        return file

    @property
    def put(self) -> Callable[[int, str], None]:
        """Puts the file under a name of another directory, too."""
        return self._put

    def _put(self, directory_fd: int, name: str) -> None:
        os.link(self._place[1], name, src_dir_fd=self._place[0], dst_dir_fd=directory_fd)

    def chunks(self, cancelled: threading.Event) -> Iterator[bytes]:
        """Yield the layer from its first byte on; ends when all of it has come and is verified.

        Raises
        ------
        DigestMismatch: it is not what its descriptor says. RegistryError: it could not be fetched.
        """
        self.start()
        offset, size = 0, self.descriptor.size
        while True:
            with self._changed:
                while self._written <= offset and not self._done and self._error is None:
                    self._changed.wait(_POLL)
                    if cancelled.is_set() or self._stop.is_set():
                        raise Cancelled("cancelled")
                if self._error is not None:
                    raise self._error
                written = self._written
                if offset == written:
                    return
            while offset < written:
                chunk = os.pread(self._fd, min(CHUNK, written - offset), offset)
                if not chunk:
                    raise StoreError(f"{self.what}: its file in the store was cut off by someone")
                offset += len(chunk)
                self._reporter.bytes(self.descriptor.digest, "unpacking", offset, size)
                yield chunk

    def release(self) -> None:
        """Give the file's space back once the layer is unpacked; who wants it again fetches it again."""
        self.close(keep=False)

    def close(self, *, keep: bool) -> None:
        """Close the file; nobody reads or fetches any more. keep: what has come of it is for the next that wants it."""
        with self._changed:
            file, self._file = self._file, None
        if file is None:
            return
        # Removed while it is locked: who comes then begins another. One that a blob of the store shares is not changed.
        if self._place is self._own or not keep or not self._written:
            with suppress(FileNotFoundError):
                os.unlink(self._place[1], dir_fd=self._place[0])
        file.close()

    @property
    def _fd(self) -> int:
        file = self._file
        return file.fd if file is not None else -1

    # ---- the fetching thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._fetch()
        except BaseException as error:  # handed to the threads that read
            with self._changed:
                self._error = Cancelled("cancelled") if self._stop.is_set() else error
                self._changed.notify_all()

    def _fetch(self) -> None:
        digest, size = self.descriptor.digest, self.descriptor.size
        running = hashlib.new(self.descriptor.hash_name, usedforsecurity=False)
        patience = self._sources[0].transport.patience
        sources = list(self._sources)
        self._take_over(running.update)
        failures, mark = 0, self._written
        while True:
            if self._stop.is_set():
                raise Cancelled("cancelled")
            try:
                self._connect(sources[0], running.update)
                break
            except RegistryUnreachable as error:
                if self._stop.is_set():
                    raise
                failures = 1 if self._written - mark >= _PROGRESS else failures + 1
                mark = self._written
                if failures < patience.attempts:
                    self._reporter.tell(TransferEvent(digest, "retrying", self._written, size, str(error)))
                    patience.wait(patience.delay(failures - 1), self._stop)
                    continue
                failure: RegistryError = error
            except (NotThere, RegistryError) as error:
                failure = error
            # The next that may have it goes on where this one ended: the digest covers all of it.
            del sources[0]
            failures = 0
            if not sources:
                raise failure
        actual = f"{self.descriptor.hash_name}:{running.hexdigest()}"
        if actual != digest:
            raise DigestMismatch(f"{self.what} from {sources[0].name} has the digest {actual}")
        self._reporter.tell(TransferEvent(digest, "downloaded", size, size))
        with self._changed:
            self._done = True
            self._changed.notify_all()

    def _take_over(self, hash_more: Callable[[bytes], None]) -> None:
        """Go on behind what a pull that was interrupted has left: it counts like what comes now."""
        left = os.fstat(self._fd).st_size
        offset = 0
        while offset < left and (chunk := os.pread(self._fd, CHUNK, offset)):
            if self._stop.is_set():
                raise Cancelled("cancelled")
            hash_more(chunk)
            offset += len(chunk)
        with self._changed:
            self.resumed = self._written = offset
            self._changed.notify_all()

    def _connect(self, source: Repository, hash_more: Callable[[bytes], None]) -> None:
        """Fetch what is missing over one connection.

        Raises
        ------
        RegistryUnreachable: it ended before the layer did. DigestMismatch: there is more than the descriptor says.
        """
        size = self.descriptor.size
        if self._written == size and size:
            return
        response, position = source.open_blob(self.descriptor.digest, self._written, self.what)
        try:
            announced = response.header("Content-Length") or ""
            if announced.isdigit() and position + int(announced) != size:
                raise DigestMismatch(
                    f"{self.what} has {position + int(announced)} bytes at {source.name}, its descriptor says {size}"
                )
            for piece in response.pieces():
                self.fetched += len(piece)
                # A registry that does not know Range begins from the start.
                new = memoryview(piece)[max(0, self._written - position) :]
                position += len(piece)
                if position > size:
                    raise DigestMismatch(f"{self.what} from {source.name} has more than its {size} bytes")
                if not new:
                    continue
                hash_more(bytes(new) if len(new) != len(piece) else piece)
                self._store(new)
                if self._stop.is_set():
                    raise Cancelled("cancelled")
        finally:
            response.close()
        if self._written < size:
            raise RegistryUnreachable(f"{self.what}: the connection broke after {self._written} of {size} bytes")

    def _store(self, piece: memoryview) -> None:
        offset = self._written
        try:
            while piece:
                done = os.pwrite(self._fd, piece, offset)
                offset += done
                piece = piece[done:]
        except OSError as error:
            raise StoreError(f"cannot store {self.what}: {error.strerror}") from error
        with self._changed:
            self._written = offset
            self._changed.notify_all()
        self._reporter.bytes(self.descriptor.digest, "downloading", offset, self.descriptor.size)
