"""Files beneath the root directory of a container, for whoever has the rights: this process, or a file server.

Everything here is hostile. A path is resolved once, by the kernel, with the container's root for its root
(RESOLVE_IN_ROOT) and without magic links; from then on only descriptors are used, and single names that are not
followed. So whoever renames and links inside meanwhile changes which of the container's own files is meant, never more
(CVE-2018-15664). What is found is examined before it is opened: to open a FIFO is to wait, to open a device is to use
it. Nothing of the container's is executed or loaded, and no process enters it (CVE-2019-14271).

Each action takes descriptors, the first of them the root's, and words that JSON can say; it returns such words and
descriptors, which become the caller's.
"""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pyrtc import core

__all__ = ["ACTIONS", "Answer"]

Answer = tuple[Any, list[int]]

_IN_ROOT = core.RESOLVE_IN_ROOT | core.RESOLVE_NO_MAGICLINKS
_MAX_LINKS = 40  # as the kernel


def _find(root: int, path: str, flags: int = 0) -> int:
    return core.openat2(root, path or "/", os.O_PATH | flags, _IN_ROOT)


def _split(path: str) -> tuple[str, str | None]:
    """Return the directory and the last name, None where the path ends with something that is no name."""
    parent, _, name = path.rpartition("/")
    return parent or "/", None if name in ("", ".", "..") else name


def _about(status: os.stat_result, name: str, target: str | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "mode": status.st_mode,
        "size": status.st_size,
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mtime_ns": status.st_mtime_ns,
        "links": status.st_nlink,
        "device": status.st_rdev,
        "target": target,
    }


def _link_target(fd: int, status: os.stat_result) -> str | None:
    """Return where a link points. fd: it, opened with O_PATH."""
    return os.readlink("", dir_fd=fd) if stat.S_ISLNK(status.st_mode) else None


def _refuse(code: int, text: str, path: str) -> OSError:
    return OSError(code, text, path)


def _lookup(root: int, path: str, *, follow: bool) -> tuple[int, str | None, int]:
    """Return the descriptor of the directory, the name in it, and what it names (O_PATH; -1: nothing).

    Where the path ends with no name, the first two are -1 and None. Links are followed one by one, so that what a
    dangling one names can be made; each step is resolved from the root.
    """
    for _ in range(_MAX_LINKS):
        parent, name = _split(path)
        if name is None:
            return -1, None, _find(root, path, os.O_DIRECTORY)
        parent_fd = _find(root, parent, os.O_DIRECTORY)
        fd = -1
        try:
            with suppress(FileNotFoundError):
                fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
            if fd < 0 or not follow or not stat.S_ISLNK((status := os.fstat(fd)).st_mode):
                return parent_fd, name, fd
            target = _link_target(fd, status) or ""
        except BaseException:
            _close(parent_fd, fd)
            raise
        _close(parent_fd, fd)
        path = target if target.startswith("/") else f"{parent}/{target}"
    raise _refuse(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def _reopen(fd: int, flags: int) -> int:
    """Open what was found, by its descriptor: no name is looked up again."""
    return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC | os.O_NOCTTY)


def _require_data(fd: int, path: str, *, writing: bool) -> None:
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        raise _refuse(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise _refuse(errno.EINVAL, f"it is a {_kind(mode)}, which is never opened: no regular file", path)
    if writing and core.kernel_interface(fd):
        raise _refuse(errno.EPERM, "it is an interface of the kernel, no file to keep data in", path)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFCHR: "character device", stat.S_IFLNK: "link"}
    return kinds.get(stat.S_IFMT(mode), "block device")


# ---- actions ---------------------------------------------------------------------------------------------------------


def examine(fds: list[int], *, path: str, follow: bool) -> Answer:
    """Say what a path names."""
    fd = _find(fds[0], path, 0 if follow else os.O_NOFOLLOW)
    try:
        status = os.fstat(fd)
        return _about(status, os.path.basename(path.rstrip("/")) or "/", _link_target(fd, status)), []
    finally:
        os.close(fd)


def listing(fds: list[int], *, path: str, limit: int) -> Answer:
    """Say what is in a directory."""
    found = _find(fds[0], path, os.O_DIRECTORY)
    try:
        directory = core.openat2(found, ".", os.O_RDONLY | os.O_DIRECTORY, core.RESOLVE_BENEATH)
    finally:
        os.close(found)
    entries: list[dict[str, Any]] = []
    try:
        with os.scandir(directory) as names:
            for entry in names:
                if len(entries) >= limit:
                    raise _refuse(errno.EFBIG, f"the directory has more than {limit} entries", path)
                with suppress(FileNotFoundError):  # gone meanwhile
                    status = entry.stat(follow_symlinks=False)
                    target = os.readlink(entry.name, dir_fd=directory) if stat.S_ISLNK(status.st_mode) else None
                    entries.append(_about(status, entry.name, target))
    finally:
        os.close(directory)
    return sorted(entries, key=lambda about: str(about["name"])), []


def open_data(fds: list[int], *, path: str) -> Answer:
    """Open a regular file for reading; returns its size and descriptor."""
    found = _find(fds[0], path)
    try:
        _require_data(found, path, writing=False)
        fd = _reopen(found, os.O_RDONLY | os.O_NONBLOCK)
        return os.fstat(fd).st_size, [fd]
    finally:
        os.close(found)


def open_new(
    fds: list[int], *, path: str, append: bool, mode: int | None, owner: list[int] | None, parents: bool
) -> Answer:
    """Open a regular file for writing, empty or at its end, and make it where it is missing; returns its descriptor.

    mode, owner: of the file, None: what it has, or 0644 and the maker's.
    """
    if parents:
        _make_parents(fds[0], _split(path)[0])
    for _ in range(_MAX_LINKS):
        parent_fd, name, found = _lookup(fds[0], path, follow=True)
        try:
            if name is None:
                raise _refuse(errno.EISDIR, os.strerror(errno.EISDIR), path)
            fd = -1
            if found >= 0:
                _require_data(found, path, writing=True)
                fd = _reopen(found, os.O_WRONLY | os.O_NONBLOCK | (os.O_APPEND if append else os.O_TRUNC))
            else:
                if core.kernel_interface(parent_fd):
                    raise _refuse(errno.EPERM, "its directory is an interface of the kernel", path)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with suppress(FileExistsError):  # somebody was quicker: look again
                    fd = os.open(name, flags | (os.O_APPEND if append else 0), 0o600, dir_fd=parent_fd)
                    mode = 0o644 if mode is None else mode
            if fd >= 0:
                try:
                    if owner is not None:
                        os.fchown(fd, *owner)
                    if mode is not None:
                        os.fchmod(fd, mode)
                except BaseException:
                    os.close(fd)
                    raise
                return None, [fd]
        finally:
            _close(parent_fd, found)
    raise _refuse(errno.EAGAIN, "somebody makes and removes it all the time", path)


def set_mode(fds: list[int], *, mode: int) -> Answer:
    """Give an open file its mode: writing takes set-user-id bits from it."""
    os.fchmod(fds[0], mode)
    return None, []


def _make_parents(root: int, path: str) -> None:
    """Make a directory and those above it where they are missing."""
    try:
        os.close(_find(root, path, os.O_DIRECTORY))
    except FileNotFoundError:
        missing = []
        while True:
            path, name = _split(path.rstrip("/"))
            missing.append(name)
            with suppress(FileNotFoundError):
                at = _find(root, path, os.O_DIRECTORY)
                break
        for name in reversed(missing):
            if name is None:  # "." or "..", which a directory that was just made has
                continue
            try:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=at)
                    _set_mode(at, name, 0o755)
                below = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            finally:
                os.close(at)
            at = below
        os.close(at)


def _set_mode(directory: int, name: str, mode: int, owner: list[int] | None = None) -> None:
    """Give a directory its mode whatever the umask is."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if owner is not None:
            os.fchown(fd, *owner)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def make_directory(
    fds: list[int], *, path: str, mode: int, owner: list[int] | None, parents: bool, exist_ok: bool
) -> Answer:
    """Make a directory."""
    path = path.rstrip("/")
    if parents:
        _make_parents(fds[0], _split(path)[0])
    parent_fd, name, found = _lookup(fds[0], path, follow=True)
    try:
        if found >= 0:
            if exist_ok and stat.S_ISDIR(os.fstat(found).st_mode):
                return None, []
            raise _refuse(errno.EEXIST, os.strerror(errno.EEXIST), path or "/")
        assert name is not None
        os.mkdir(name, 0o700, dir_fd=parent_fd)
        _set_mode(parent_fd, name, mode, owner)
    finally:
        _close(parent_fd, found)
    return None, []


def remove(fds: list[int], *, path: str, recursive: bool) -> Answer:
    """Remove what has a name; a link itself, never what it names."""
    parent, name = _split(path.rstrip("/"))
    if name is None:
        raise _refuse(errno.EBUSY, "a path that ends with no name cannot be removed", path or "/")
    parent_fd = _find(fds[0], parent, os.O_DIRECTORY)
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent_fd)
        elif recursive:
            core.remove_tree(parent_fd, name)
        else:
            os.rmdir(name, dir_fd=parent_fd)
    finally:
        os.close(parent_fd)
    return None, []


def entry(fds: list[int], *, path: str, follow: bool) -> Answer:
    """Say what a path names, None for nothing; returns its directory's descriptor and, of a directory, its own.

    The words are the name in the directory (None: the path ends with none, and there is only one descriptor) and what
    it is.
    """
    parent_fd, name, found = _lookup(fds[0], path, follow=follow)
    try:
        status = os.fstat(found) if found >= 0 else None
        about = _about(status, name or "/", _link_target(found, status)) if status else None
    except BaseException:
        _close(parent_fd, found)
        raise
    opened = [fd for fd in (parent_fd,) if fd >= 0]
    if status is not None and stat.S_ISDIR(status.st_mode):
        opened.append(found)
    else:
        _close(found)
    return {"name": name, "about": about}, opened


def copy(fds: list[int], *, source_name: str | None, target_name: str | None, **words: Any) -> Answer:  # noqa: ANN401
    """Copy between two directories; see `pyrtc.core.copy_entry`."""
    result = core.copy_entry(fds[0], source_name, fds[1], target_name, **words)
    return [result.entries, result.bytes, result.reflinked, result.skipped], []


def unpack(fds: list[int], *, rootless: bool) -> Answer:
    """Unpack a plain tar stream into an empty directory, with its owners."""
    core.untar(fds[0], fds[1], rootless=rootless, keep_owners=True, plain=True)
    return None, []


def pack(fds: list[int], *, source_name: str | None, name: str, uids: list[list[int]], gids: list[list[int]]) -> Answer:
    """Write a file or tree as a tar to fds[1]; see `pyrtc.store.packing`."""
    from pyrtc.store.packing import pack_tree

    return pack_tree(fds[0], source_name, fds[1], name, uids, gids), []


ACTIONS: dict[str, Callable[..., Answer]] = {
    action.__name__: action
    for action in (copy, entry, examine, listing, make_directory, open_data, open_new, pack, remove, set_mode, unpack)
}
