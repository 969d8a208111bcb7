"""Blobs by digest below blobs/sha256/AA/: manifests, configs, and compressed layers where they are kept."""

import os
from collections.abc import Set
from contextlib import suppress
from typing import BinaryIO

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
    shared: bool = False  # other users may read them

    def publish(self, staging_fd: int, content: bytes, digest: str) -> frozenset[str]:
        """Give a document its digest, which the caller has checked, as name. One that is there stays.

        Returns the directories to `sync` before anything says that it is there.
        """
        directory, name = _place(digest)
        if self._exists(directory, name):
            return frozenset({directory})  # who gave it the name may not be that far yet
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=staging_fd)
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        return self.publish_file(staging_fd, name, digest)

    def publish_file(self, staging_fd: int, staged: str, digest: str) -> frozenset[str]:
        """Give a whole, verified and durable file of staging its digest as name; it replaces one that is there.

        Returns the directories to `sync`.
        """
        directory, name = _place(digest)
        changed = {directory}
        if self.shared:
            os.chmod(staged, 0o644, dir_fd=staging_fd)
        parent = ""
        for part in directory.split("/"):
            path = f"{parent}{part}"
            with suppress(FileExistsError):
                os.mkdir(path, 0o755 if self.shared else 0o700, dir_fd=self.fd)
                changed.add(parent or ".")
            parent = f"{path}/"
        os.rename(staged, f"{directory}/{name}", src_dir_fd=staging_fd, dst_dir_fd=self.fd)
        return frozenset(changed)

    def sync(self, directories: Set[str]) -> None:
        """Make the names in these directories durable."""
        for directory in directories:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def read(self, digest: str) -> bytes:
        """Return a document.

        Raises
        ------
        StoreError: it is not there.
        DigestMismatch: it is damaged.
        """
        with self.open(digest) as file:
            content = file.read()
        import hashlib  # milliseconds that no start needs

        algorithm, _, value = digest.partition(":")
        if hashlib.new(algorithm, content).hexdigest() != value:
            raise DigestMismatch(f"the document {digest} in the store is damaged: remove the image and load it again")
        return content

    def share(self) -> None:
        """Let others read every blob that is there."""
        for directory, digests in self.directories().items():
            for path in (directory.partition("/")[0], directory):
                os.chmod(path, 0o755, dir_fd=self.fd)  # noqa: S103  (that is what sharing means)
            for digest in digests:
                os.chmod("/".join(_place(digest)), 0o644, dir_fd=self.fd)

    def open(self, digest: str) -> BinaryIO:
        """Open a blob to be read; what comes out is not verified.

        Raises
        ------
        StoreError: it is not there.
        """
        directory, name = _place(digest)
        try:
            fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self.fd)
        except FileNotFoundError:
            raise StoreError(f"the store has lost the blob {digest}: load the image again, or pull it") from None
        return open(fd, "rb")

    def size(self, digest: str) -> int | None:
        """Return how many bytes a blob has, None when it is not there."""
        directory, name = _place(digest)
        try:
            return os.stat(f"{directory}/{name}", dir_fd=self.fd, follow_symlinks=False).st_size
        except FileNotFoundError:
            return None

    def remove(self, digest: str) -> None:
        """Remove a blob; missing is fine. The caller holds `Layers.collecting`."""
        directory, name = _place(digest)
        with suppress(FileNotFoundError):
            os.unlink(f"{directory}/{name}", dir_fd=self.fd)

    def collect(self, known: Set[str]) -> int:
        """Remove every blob but the known ones; return the bytes that frees. The caller holds `Layers.collecting`."""
        freed = 0
        for directory, digests in self.directories().items():
            for digest in digests:
                if digest not in known:
                    freed += self.allocated(digest)
                    self.remove(digest)
            size = os.stat(directory, dir_fd=self.fd).st_blocks * 512
            try:
                os.rmdir(directory, dir_fd=self.fd)
                freed += size
            except OSError:
                pass  # there is something left in it
        return freed

    def allocated(self, digest: str) -> int:
        """Return how many bytes a blob takes on the disk, 0 when it is not there."""
        directory, name = _place(digest)
        try:
            return os.stat(f"{directory}/{name}", dir_fd=self.fd, follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:
            return 0

    def directories(self) -> dict[str, tuple[str, ...]]:
        """Return the digests of all blobs by the directory (``sha256/AA``) that they are in."""
        found = {}
        for algorithm in os.listdir(self.fd):
            for part in self._names(algorithm):
                digests = [f"{algorithm}:{name}" for name in self._names(f"{algorithm}/{part}")]
                found[f"{algorithm}/{part}"] = tuple(digest for digest in digests if valid_digest(digest))
        return found

    def list(self) -> tuple[str, ...]:
        """Return the digests of all blobs."""
        return tuple(digest for digests in self.directories().values() for digest in digests)

    def _names(self, directory: str) -> tuple[str, ...]:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            return tuple(os.listdir(fd))
        finally:
            os.close(fd)

    def _exists(self, directory: str, name: str) -> bool:
        try:
            os.stat(f"{directory}/{name}", dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True
