"""The directories of an image whose layers belong to somebody else, as the user's own.

In the user namespace of an ordinary user's container the owner of such layers is nobody, so the container's root could
not make a file in ``/etc``: nobody is not its to act for. A layer with the same directories, made once and laid on top,
gives every directory its owner in the image. It holds no file; the files below it are read where they are, with the
rights that their modes give to everybody.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress

from pyrtc.errors import StoreError
from pyrtc.store.database import Database
from pyrtc.store.locks import locked
from pyrtc.store.staging import Staging

__all__ = ["Skeletons"]

_MAX_DIRECTORIES = 1_000_000


class Skeletons:
    """The skeletons/ of one store: a tree for each image of another owner that a container stands on."""

    def __init__(self, root_fd: int, path: str, locks_fd: int, staging: Staging, database: Database) -> None:
        self._root_fd = root_fd
        self._path = f"{path}/skeletons"
        self._locks_fd = locks_fd
        self._staging = staging
        self._database = database

    def above(self, image_id: str, layers: Sequence[str]) -> tuple[str, ...]:
        """Return layers (top first) with the skeleton of their image on top.

        The caller has the row of a container on this image already, so that nobody takes the skeleton away.

        Raises
        ------
        StoreError: it cannot be made.
        """
        name = image_id.replace(":", "-")
        with locked(self._locks_fd, [f"skeleton-{name}"]):
            fd = self._open()
            try:
                if not _exists(fd, name):
                    self._make(fd, name, layers)
            finally:
                os.close(fd)
        return (f"{self._path}/{name}", *layers)

    def unused(self) -> tuple[str, ...]:
        """Return the names of those whose image no container stands on."""
        used = {row[0].replace(":", "-") for row in self._database.rows("SELECT image_id FROM containers")}
        try:
            present = os.listdir(self._path)
        except FileNotFoundError:
            return ()
        return tuple(name for name in present if name not in used)

    def sweep(self) -> None:
        """Remove those whose image no container stands on."""
        try:
            fd = os.open("skeletons", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._root_fd)
        except FileNotFoundError:
            return
        try:
            for name in self.unused():
                with locked(self._locks_fd, [f"skeleton-{name}"]):
                    query = "SELECT 1 FROM containers WHERE image_id = ?"
                    if self._database.row(query, (name.replace("-", ":", 1),)) is None:
                        self._staging.discard(fd, name)
        finally:
            os.close(fd)

    def _open(self) -> int:
        with suppress(FileExistsError):
            os.mkdir("skeletons", 0o700, dir_fd=self._root_fd)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open("skeletons", flags, dir_fd=self._root_fd)

    def _make(self, fd: int, name: str, layers: Sequence[str]) -> None:
        archive = os.memfd_create("pyrtc-skeleton", os.MFD_CLOEXEC)
        try:
            with open(os.dup(archive), "wb") as file:
                for header in _headers(layers):
                    file.write(header)
                file.write(bytes(1024))
            os.lseek(archive, 0, os.SEEK_SET)
            with self._staging.directory() as staging:
                os.mkdir(name, 0o755, dir_fd=staging)
                root_fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staging)
                try:
                    self._staging.trees.untar(archive, root_fd)
                finally:
                    os.close(root_fd)
                self._staging.trees.move(name, name, source_fd=staging, target_fd=fd)
        finally:
            os.close(archive)


def _exists(fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _headers(layers: Sequence[str]) -> Iterator[bytes]:
    """Yield the headers of a layer tar that holds the directories only."""
    import tarfile

    owner = os.stat(os.path.dirname(layers[-1])).st_uid
    for path, status, readable in _directories(layers):
        info = tarfile.TarInfo(path or ".")
        info.type = tarfile.DIRTYPE
        info.mode = stat.S_IMODE(status.st_mode)
        # In root's store ids are the image's; in another user's the image's root is that user.
        info.uid, info.gid = (status.st_uid, status.st_gid) if owner == 0 else (0, 0)
        info.mtime = int(status.st_mtime)
        yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if not readable:
            # What may not be read below must not be in the way of what the container puts there.
            marker = tarfile.TarInfo(f"{path}/.wh..wh..opq" if path else ".wh..wh..opq")
            yield marker.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _directories(layers: Sequence[str]) -> Iterator[tuple[str, os.stat_result, bool]]:
    """Yield every directory that stacked layers show: path, state, whether it may be read in all of them."""
    waiting: list[tuple[str, list[str]]] = [("", list(layers))]
    count = 0
    while waiting:
        path, places = waiting.pop()
        count += 1
        if count > _MAX_DIRECTORIES:
            raise StoreError(f"the image has more than {_MAX_DIRECTORIES} directories: load it into your own store")
        below, readable = _merge(places)
        yield path, os.lstat(places[0]), readable
        prefix = f"{path}/" if path else ""
        waiting += [(prefix + name, found) for name, found in sorted(below.items(), reverse=True)]


def _merge(places: Sequence[str]) -> tuple[dict[str, list[str]], bool]:
    """Return the directories in one directory, each with the places it is stacked from, top first."""
    found: dict[str, list[str]] = {}
    closed: set[str] = set()  # names that something above decides: a file, a whiteout
    for place in places:
        try:
            with os.scandir(place) as entries:
                here = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except PermissionError:
            return {}, False
        for name, is_directory in here:
            if name in closed:
                continue
            if is_directory:
                found.setdefault(name, []).append(f"{place}/{name}")
            else:
                closed.add(name)
    return found, True
