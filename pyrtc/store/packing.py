"""A file or tree as a plain tar stream, read beneath descriptors while somebody may change it."""

import errno
import os
import stat
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from pyrtc import core

if TYPE_CHECKING:
    import tarfile

__all__ = ["pack_tree"]

_MAX_DEPTH = 256  # directories that are open at once
_KINDS = {
    stat.S_IFREG: "0",
    stat.S_IFLNK: "2",
    stat.S_IFCHR: "3",
    stat.S_IFBLK: "4",
    stat.S_IFDIR: "5",
    stat.S_IFIFO: "6",
}


def pack_tree(
    source_fd: int,
    source_name: str | None,
    stream_fd: int,
    name: str,
    uids: Sequence[Sequence[int]],
    gids: Sequence[Sequence[int]],
) -> int:
    """Write source_name in source_fd (None: what is in it) under `name` and return how many files were left out.

    uids, gids: (id as it is seen here, id in the archive, count). Sockets, and below the first directory what the
    kernel only shows as files (/proc, /sys), are left out.

    Raises
    ------
    OSError: something cannot be read, or the stream has no reader any more.
    """
    import tarfile

    with (
        open(stream_fd, "wb", closefd=False) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive,
    ):
        packer = _Packer(archive, uids, gids)
        if source_name is None:
            packer.directory(core.openat2(source_fd, ".", os.O_RDONLY | os.O_DIRECTORY, 0), name, 0)
        else:
            packer.entry(source_fd, source_name, name, 0)
    return packer.skipped


class _Packer:
    """One archive on its way."""

    def __init__(
        self, archive: "tarfile.TarFile", uids: Sequence[Sequence[int]], gids: Sequence[Sequence[int]]
    ) -> None:
        self._archive = archive
        self._maps = (uids, gids)
        self._names: dict[tuple[int, int], str] = {}
        self.skipped = 0

    def entry(self, directory: int, name: str, path: str, depth: int) -> None:
        """Write what has a name, under another."""
        found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            status = os.fstat(found)
            if stat.S_ISDIR(status.st_mode):
                if depth and core.kernel_interface(found):
                    self.skipped += 1
                    self._header(status, path)
                    return
                inner = core.openat2(found, ".", os.O_RDONLY | os.O_DIRECTORY, 0)
                self.directory(inner, path, depth)
            elif stat.S_ISREG(status.st_mode):
                self._file(found, status, path)
            elif stat.S_IFMT(status.st_mode) in _KINDS:
                target = os.readlink("", dir_fd=found) if stat.S_ISLNK(status.st_mode) else ""
                self._header(status, path, target)
            else:
                self.skipped += 1
        finally:
            os.close(found)

    def directory(self, fd: int, path: str, depth: int) -> None:
        """Write a directory with what is in it. fd is taken over."""
        try:
            if depth > _MAX_DEPTH:
                raise OSError(errno.ELOOP, f"more than {_MAX_DEPTH} directories in one another", path)
            self._header(os.fstat(fd), f"{path}/")
            for name in sorted(os.listdir(fd)):
                try:
                    self.entry(fd, name, f"{path}/{name}", depth + 1)
                except FileNotFoundError:  # gone meanwhile
                    continue
        finally:
            os.close(fd)

    def _file(self, found: int, status: os.stat_result, path: str) -> None:
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in self._names:
            self._header(status, path, self._names[key], kind="1")
            return
        fd = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(fd, "rb") as data:
            self._header(os.fstat(fd), path, data=data)
        if status.st_nlink > 1:
            self._names[key] = path

    def _header(
        self, status: os.stat_result, path: str, target: str = "", *, kind: str = "", data: "IO[bytes] | None" = None
    ) -> None:
        import tarfile

        info = tarfile.TarInfo(path)
        info.type = (kind or _KINDS[stat.S_IFMT(status.st_mode)]).encode()
        info.mode = stat.S_IMODE(status.st_mode)
        info.uid, info.gid = _shown(status.st_uid, self._maps[0]), _shown(status.st_gid, self._maps[1])
        info.mtime = status.st_mtime_ns // 1_000_000_000
        info.linkname = target
        info.size = status.st_size if data is not None else 0
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        self._archive.addfile(info, data)


def _shown(number: int, ranges: Sequence[Sequence[int]]) -> int:
    for first, other, count in ranges:
        if first <= number < first + count:
            return other + number - first
    return 65534
