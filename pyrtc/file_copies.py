"""The two sides of a copy between a container and this machine, and where it goes, by the rules of `docker cp`."""

import errno
import os
import stat
from contextlib import ExitStack
from typing import Any

from pyrtc import core
from pyrtc.errors import ContainerFileExists, ContainerFileNotADirectory, ContainerFileNotFound, UsageError
from pyrtc.runtime.container_root import RootSession
from pyrtc.values import dataclass

__all__ = ["Side", "in_container", "on_host", "plan_copy"]


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a copy. parent_fd, name: where it is, -1 and None for a path that ends with no name.

    directory_fd: the directory that it is, -1 if it is none. mode: of what is there, None where there is nothing.
    base: what a copy of it is called. contents: not it but what is in it is meant. slash: said to be a directory.
    """

    parent_fd: int
    name: str | None
    directory_fd: int
    mode: int | None
    base: str
    contents: bool
    slash: bool
    said: str

    @property
    def is_directory(self) -> bool:
        """Whether there is a directory."""
        return self.mode is not None and stat.S_ISDIR(self.mode)


def _words_of(path: str) -> tuple[str, bool, bool]:
    """Return the cleaned path, whether what is in it is meant, and whether it was said to be a directory."""
    contents = path == "." or path.endswith("/.")
    clean = os.path.normpath(f"/{path}").replace("//", "/")
    return clean, contents or clean == "/", contents or path.endswith("/") or clean == "/"


def in_container(
    session: RootSession,
    worker: Any,  # noqa: ANN401
    path: str,
    owned: ExitStack,
    *,
    follow: bool,
) -> Side:
    """Look a path of the container up as the caller means it. worker: reader or writer of the session."""
    clean, contents, slash = _words_of(path)
    answer, fds = worker.ask("entry", [session.root_fd], path=clean, follow=follow or contents or slash)
    for fd in fds:
        owned.callback(os.close, fd)
    about, name = answer["about"], answer["name"]
    mode = about["mode"] if about else None
    directory = fds[-1] if mode is not None and stat.S_ISDIR(mode) else -1
    return Side(
        fds[0] if name is not None else -1, name, directory, mode, clean.rpartition("/")[2], contents, slash, path
    )


def on_host(path: str, owned: ExitStack, *, follow: bool) -> Side:
    """Look a path of this machine up as the caller means it; only from here on nothing is followed."""
    if not path or "\0" in path:
        raise UsageError("a path must not be empty or hold a NUL byte")
    contents = path == "." or path.endswith("/.")
    slash = contents or path.endswith("/") or path == ".."
    clean = os.path.abspath(path)  # noqa: PTH100  (pathlib would lose what a trailing slash or dot says)
    base = clean.rpartition("/")[2]
    if (follow or slash) and os.path.islink(clean):  # noqa: PTH114
        clean = os.path.realpath(clean)
    if clean == "/":
        fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        owned.callback(os.close, fd)
        return Side(-1, None, fd, os.fstat(fd).st_mode, "", True, True, path)
    parent, name = os.path.split(clean)
    try:
        parent_fd = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ContainerFileNotFound(f"no such directory: {parent}", errno.ENOENT, parent) from None
    owned.callback(os.close, parent_fd)
    try:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    except FileNotFoundError:
        return Side(parent_fd, name, -1, None, base, contents, slash, path)
    owned.callback(os.close, fd)
    mode = os.fstat(fd).st_mode
    return Side(parent_fd, name, fd if stat.S_ISDIR(mode) else -1, mode, base, contents, slash, path)


def plan_copy(session: RootSession, source: Side, target: Side, *, archive: bool, inward: bool) -> dict[str, Any]:
    """Decide where a copy goes, by Docker's rules, and whose it is."""
    if source.slash and not source.is_directory:
        raise ContainerFileNotADirectory(f"{source.said}: not a directory", errno.ENOTDIR, source.said)
    if target.mode is not None and not target.is_directory:
        if not stat.S_ISREG(target.mode) and not stat.S_ISLNK(target.mode):
            raise ContainerFileExists(
                f'destination "{target.said}" must be a directory or a regular file', errno.EEXIST, target.said
            )
        if source.is_directory:
            raise ContainerFileNotADirectory("cannot copy directory", errno.ENOTDIR, target.said)
        if target.slash:
            raise ContainerFileNotADirectory(f"{target.said}: not a directory", errno.ENOTDIR, target.said)
    if target.mode is None and target.slash and not source.is_directory:
        raise ContainerFileNotFound(f"no such directory: {target.said}", errno.ENOENT, target.said)
    if target.is_directory:
        place = target.directory_fd, (None if source.contents else source.base)
    else:
        place = target.parent_fd, target.name
    origin = (source.directory_fd, None) if source.is_directory else (source.parent_fd, source.name)
    flags = core.COPY_CAPABILITIES if session.plain else 0
    uids, gids = (session.uids_in, session.gids_in) if inward else (session.uids_out, session.gids_out)
    if archive:
        flags |= core.COPY_DIRECTORIES
        if uids:
            flags |= core.COPY_OWNERS
        if os.geteuid() == 0:
            flags |= core.COPY_DEVICES
    return {
        "fds": (origin[0], place[0]),
        "source_name": origin[1],
        "target_name": place[1],
        "owner": session.root if inward else session.own,
        "uids": uids,
        "gids": gids,
        "flags": flags,
    }
