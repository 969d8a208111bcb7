"""The directories in which containers keep what they write: made, handed out, taken back.

Making one and removing it is a tenth of a short container's time, nearly all of it the file system's journal. A
container that has written nothing leaves its directory as it was; then the next container of this process gets it,
under its own name; meanwhile it lies below tmp/. "As it was" is not taken on trust: the change time of the upper
directory, which no program can set, must be the one it had before.
"""

import errno
import fcntl
import os
import threading
from typing import TYPE_CHECKING

from pyrtc.store.staging import Staging, Trash
from pyrtc.values import dataclass

if TYPE_CHECKING:
    import weakref

__all__ = ["RwDirectories"]

_MOST = 8  # spare directories of one process: as many as starts may end at once
_FS_IOC_GETFLAGS = 0x80086601  # chattr(1)'s flags; linux/fs.h
# What overlayfs keeps in its work directory after a mount that was not to be flushed (volatile); the next mount refuses
# to start where the mark is, and empties the rest itself.
_MARK = ("work/work/incompat/volatile/dirty", "work/work/incompat/volatile", "work/work/incompat")


@dataclass(frozen=True, slots=True)
class _Untouched:
    """What the upper directory of a spare is like as long as nobody has used it."""

    change_ns: int
    mode: int
    owner: tuple[int, int]
    flags: bytes


@dataclass(frozen=True, slots=True)
class _Spare:
    trash: Trash
    untouched: _Untouched


class RwDirectories:
    """The R/W directories of one store, made by this process."""

    def __init__(self, fd: int, staging: Staging) -> None:
        self._fd = fd
        self._staging = staging
        self._lock = threading.Lock()
        self._known: dict[str, _Untouched] = {}  # of directories in use
        self._spare: list[_Spare] = []
        self._maker = os.getpid()
        self._busy = False
        self._finalizer: weakref.finalize[..., RwDirectories] | None = None

    def make(self, name: str, *, passing: bool) -> None:
        """Make the directory name with ``upper`` (0755) and ``work``, or give it a spare one.

        Parameters
        ----------
        passing: this process will `remove` it when the container has ended.

        Raises
        ------
        OSError: the file system cannot hold it.
        """
        if (spare := self._take()) is not None:
            try:
                os.rename(spare.trash.name, name, src_dir_fd=self._staging.fd, dst_dir_fd=self._fd)
            finally:
                spare.trash.lock.close()
            if passing:
                self._known[name] = spare.untouched
            return
        os.mkdir(name, 0o700, dir_fd=self._fd)
        os.mkdir(f"{name}/upper", 0o700, dir_fd=self._fd)
        # The upper directory is the container's "/": its mode must not depend on the caller's umask.
        os.chmod(f"{name}/upper", 0o755, dir_fd=self._fd)  # noqa: S103  (the usual mode of /)
        os.mkdir(f"{name}/work", 0o700, dir_fd=self._fd)
        if passing and self._busy:
            untouched = self._look(name)
            assert untouched is not None
            self._known[name] = untouched
        self._busy = True  # a process that starts one container has no use for a spare directory

    def remove(self, name: str) -> None:
        """Take the directory back: keep it for the next container if nothing was written, else remove it."""
        before = self._known.pop(name, None)
        if before is None or len(self._spare) >= _MOST or self._maker != os.getpid() or not self._restore(name, before):
            self._staging.discard(self._fd, name)
            return
        trash = self._staging.take(self._fd, name)
        if trash is not None:
            with self._lock:
                self._spare.append(_Spare(trash, before))
            if self._finalizer is None:
                import weakref  # a millisecond that a process with one container does not have to spend

                self._finalizer = weakref.finalize(self, _destroy_all, self._staging, self._spare, self._maker)

    def close(self) -> None:
        """Remove the spare directories."""
        if self._finalizer is not None:
            self._finalizer()

    def _take(self) -> _Spare | None:
        if self._maker != os.getpid():  # a forked child: they are its parent's
            return None
        with self._lock:
            return self._spare.pop() if self._spare else None

    def _restore(self, name: str, before: _Untouched) -> bool:
        """Make the directory as it was, if what is to be seen of it from inside is untouched; say whether it is."""
        try:
            if self._look(name, empty=True) != before:
                return False
            os.unlink(f"{name}/{_MARK[0]}", dir_fd=self._fd)
            for mark in _MARK[1:]:
                os.rmdir(f"{name}/{mark}", dir_fd=self._fd)
        except OSError:  # it is not what it was; removing it will say what is wrong
            return False
        return True

    def _look(self, name: str, *, empty: bool = False) -> _Untouched | None:
        fd = os.open(f"{name}/upper", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            found = os.fstat(fd)
            if empty and os.listdir(fd):
                return None
            try:
                flags = fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(8))
            except OSError as error:
                if error.errno not in {errno.ENOTTY, errno.EOPNOTSUPP}:
                    raise
                flags = b""
        finally:
            os.close(fd)
        return _Untouched(found.st_ctime_ns, found.st_mode, (found.st_uid, found.st_gid), flags)


def _destroy_all(staging: Staging, spares: list[_Spare], maker: int) -> None:
    if maker != os.getpid():
        return
    while spares:
        staging.destroy(spares.pop().trash)
