"""The root of a container that does not run, mounted where only this process sees it."""

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack

from pyrtc import core

__all__ = ["put_together"]

_IN_ROOT = core.RESOLVE_IN_ROOT | core.RESOLVE_NO_MAGICLINKS
_RDONLY, _NODEV = 0x01, 0x04  # MOUNT_ATTR_*
_MAX_DEPTH = 256


def put_together(
    fds: Sequence[int],
    stage: str,
    root: tuple[Sequence[str], str, bool],
    mounts: Sequence[tuple[str, str, bool, int]],
) -> int:
    """Return a descriptor of the root, which becomes the caller's.

    Parameters
    ----------
    fds: detached mounts. stage: a directory to mount on, in this process's own mounts. root: layers from the top, the
    directory with upper and work, and whether they are an ordinary user's; no layers: a directory that is the root;
    neither: the first of fds is. mounts: target, path or "", read-only, index into fds or -1.

    Raises
    ------
    UnsupportedError: this user or kernel cannot mount it. OSError: a source or a target is missing.
    """
    layers, directory, userxattr = root
    with ExitStack() as owned:
        if layers:
            mount = _overlay(layers, directory, userxattr, owned)
        else:
            mount = _clone(directory, False, owned) if directory else fds[0]
        core.attach_mount(mount, _directory(stage, owned))
        root_fd = _directory(stage, owned)  # what is mounted there now
        for target, path, read_only, index in sorted(mounts, key=lambda mount: mount[0].count("/")):
            mount = fds[index] if index >= 0 else _clone(path, read_only, owned)
            core.attach_mount(mount, _place(root_fd, target, os.fstat(mount).st_mode, owned))
        return os.dup(root_fd)


def _directory(path: str, owned: ExitStack) -> int:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    owned.callback(os.close, fd)
    return fd


def _overlay(layers: Sequence[str], directory: str, userxattr: bool, owned: ExitStack) -> int:
    lowers = [_directory(layer, owned) for layer in layers]
    upper, work = (_directory(f"{directory}/{name}", owned) for name in ("upper", "work"))
    fd = core.mount_overlay(lowers, upper, work, userxattr=userxattr)
    owned.callback(os.close, fd)
    return fd


def _clone(path: str, read_only: bool, owned: ExitStack) -> int:
    found = os.open(path, os.O_PATH | os.O_CLOEXEC)
    owned.callback(os.close, found)
    fd = core.clone_mount(found, recursive=True, attributes=_NODEV | (_RDONLY if read_only else 0))
    owned.callback(os.close, fd)
    return fd


def _place(root: int, target: str, mode: int, owned: ExitStack) -> int:
    """Return the file or directory to mount on. It was made at the container's first start; without one it is now."""
    at = root
    parts = [part for part in target.split("/") if part]
    for number, part in enumerate(parts[:_MAX_DEPTH], start=1):
        path = "/".join(parts[:number])
        try:
            fd = core.openat2(root, path, os.O_PATH, _IN_ROOT)
        except FileNotFoundError:
            if number < len(parts) or stat.S_ISDIR(mode):
                os.mkdir(part, 0o755, dir_fd=at)
            else:
                os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=at))
            fd = core.openat2(root, path, os.O_PATH, _IN_ROOT)
        owned.callback(os.close, fd)
        at = fd
    return at
