"""Documents by digest: manifests and configs below blobs/sha256/AA/."""

import os
from collections.abc import Set
from contextlib import suppress

from pyrtc.errors import DigestMismatch, StoreError
from pyrtc.image.reference import valid_digest
from pyrtc.values import dataclass

__all__ = ["Blobs"]


def _place(digest: str) -> tuple[str, str]:
    if not valid_digest(digest):
        raise StoreError(f"{digest!r} is no digest")
    algorithm, _, value = digest.partition(":")
    return f"{algorithm}/{value[:2]}", value


@dataclass(frozen=True, slots=True)
class Blobs:
    """The blobs/ of one store."""

    fd: int

    def publish(self, staging_fd: int, content: bytes, digest: str) -> None:
        """Make a document durable under its digest, which the caller has checked. One that is there stays."""
        directory, name = _place(digest)
        if self._exists(directory, name):
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=staging_fd)
        with open(fd, "wb") as file:  # noqa: PTH123  (a descriptor)
            file.write(content)
            file.flush()
            os.fsync(fd)
        parent = ""
        for part in directory.split("/"):
            path = f"{parent}{part}"
            with suppress(FileExistsError):
                os.mkdir(path, 0o700, dir_fd=self.fd)
                self._sync(parent or ".")
            parent = f"{path}/"
        os.rename(name, f"{directory}/{name}", src_dir_fd=staging_fd, dst_dir_fd=self.fd)
        self._sync(directory)

    def read(self, digest: str) -> bytes:
        """Return a document.

        Raises
        ------
        StoreError: it is not there.
        DigestMismatch: it is damaged.
        """
        directory, name = _place(digest)
        try:
            fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self.fd)
        except FileNotFoundError:
            raise StoreError(f"the store has lost the document {digest}: load the image again") from None
        with open(fd, "rb") as file:  # noqa: PTH123
            content = file.read()
        import hashlib  # milliseconds that no start needs

        if hashlib.new(digest.partition(":")[0], content).hexdigest() != name:
            raise DigestMismatch(f"the document {digest} in the store is damaged: remove the image and load it again")
        return content

    def collect(self, known: Set[str]) -> int:
        """Remove every document but the known ones; return how many. The caller holds `Layers.collecting`."""
        unknown = [digest for digest in self.list() if digest not in known]
        for digest in unknown:
            directory, name = _place(digest)
            with suppress(FileNotFoundError):
                os.unlink(f"{directory}/{name}", dir_fd=self.fd)
        return len(unknown)

    def list(self) -> tuple[str, ...]:
        """Return the digests of all documents."""
        found = []
        for algorithm in os.listdir(self.fd):  # noqa: PTH208
            for part in self._names(algorithm):
                found += [f"{algorithm}:{name}" for name in self._names(f"{algorithm}/{part}")]
        return tuple(digest for digest in found if valid_digest(digest))

    def _names(self, directory: str) -> tuple[str, ...]:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            return tuple(os.listdir(fd))  # noqa: PTH208
        finally:
            os.close(fd)

    def _exists(self, directory: str, name: str) -> bool:
        try:
            os.stat(f"{directory}/{name}", dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _sync(self, directory: str) -> None:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
