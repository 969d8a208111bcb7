"""Where a container's binds and volumes come from: each source is opened once and named by what was opened."""

import os
from collections.abc import Sequence
from contextlib import ExitStack

from pyrtc import core
from pyrtc.errors import UsageError
from pyrtc.ids import IdMaps, Range
from pyrtc.options import Bind, Mount, Tmpfs, Volume
from pyrtc.runtime.assembly import BoundMount
from pyrtc.runtime.namespaces import NODEV, RDONLY

__all__ = ["open_sources"]


def open_sources(
    mounts: Sequence[Mount],
    volume_paths: dict[str, str],
    *,
    owned: ExitStack,
    userns_fd: int,
    detached: bool,
    devices: bool = False,
) -> tuple[BoundMount | Tmpfs, ...]:
    """Return the mounts of a container with their sources looked at.

    Parameters
    ----------
    volume_paths: target -> directory of the volume that is mounted there.
    owned: closes what is opened here.
    userns_fd: maps the owners of volumes and of binds with idmap, -1 without a user namespace; then such a bind shows
    its source's owner as root (see `pyrtc.options.Bind`).
    devices: device nodes in them work: for privileged containers, which may use all.
    detached: make the mounts here, by descriptor; an ordinary user cannot, pyrtc-init then opens the path and compares.

    Raises
    ------
    UsageError: a source does not exist, is not absolute, or cannot be used.
    """
    opened: list[BoundMount | Tmpfs] = []
    for mount in mounts:
        if isinstance(mount, Tmpfs):
            opened.append(mount)
        elif isinstance(mount, Volume):
            path = volume_paths[mount.target]
            opened.append(_open(path, mount.target, mount.read_only, True, owned, userns_fd, detached, devices))
        else:
            _prepare(mount)
            mapped = userns_fd if mount.idmap else -1
            if mount.idmap and userns_fd < 0:
                mapped = _owner_namespace(mount.source, detached, owned)
            opened.append(
                _open(mount.source, mount.target, mount.read_only, mount.recursive, owned, mapped, detached, devices)
            )
    return tuple(opened)


def _prepare(mount: Bind) -> None:
    if "\0" in mount.source:
        raise UsageError(f"bind source {mount.source!r} holds a NUL byte")
    if not mount.source.startswith("/"):
        raise UsageError(f"bind source {mount.source!r} must be an absolute path")
    if mount.create and not os.path.lexists(mount.source):
        try:
            os.makedirs(mount.source, mode=0o755, exist_ok=True)
        except OSError as error:
            raise UsageError(f"bind source {mount.source} cannot be made: {error.strerror}") from None


def _owner_namespace(path: str, root: bool, owned: ExitStack) -> int:
    """Return a user namespace that shows the owner of a directory or file as root, and nobody else as root.

    All other ids stay what they are; what belongs to root of the host belongs to nobody in such a mount.
    """
    if not root:
        raise UsageError(
            f"idmap of {path} is for root: in an ordinary user's container root is that user anyway, so leave it out"
        )
    try:
        about = os.stat(path)
    except OSError as error:
        raise UsageError(f"bind source {path} cannot be used: {error.strerror}") from None
    if about.st_uid == 0 and about.st_gid == 0:
        raise UsageError(
            f"idmap of {path}: it belongs to root, as whom the container's root works anyway; give it the owner whom "
            "the container's root shall stand for, or use --userns auto"
        )
    from pyrtc.runtime.helper import helper_fd
    from pyrtc.runtime.ids import mapped_namespace

    maps = IdMaps(_as_root(about.st_uid), _as_root(about.st_gid), privileged=True)
    fd = mapped_namespace(maps, helper_fd())
    owned.callback(os.close, fd)
    return fd


def _as_root(number: int) -> tuple[Range, ...]:
    """Map an id to 0 and all others but 0 to themselves."""
    highest = (1 << 32) - 1  # is no id
    if number == 0:
        return (Range(0, 0, highest),)
    ranges = [Range(number, 0, 1), Range(1, 1, number - 1), Range(number + 1, number + 1, highest - number - 1)]
    return tuple(item for item in ranges if item.count)


def _open(
    path: str,
    target: str,
    read_only: bool,
    recursive: bool,
    owned: ExitStack,
    userns_fd: int,
    detached: bool,
    devices: bool,
) -> BoundMount:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UsageError(f"bind source path does not exist: {path}") from None
    except OSError as error:
        raise UsageError(f"bind source {path} cannot be used: {error.strerror}") from None
    owned.callback(os.close, fd)
    about = os.fstat(fd)
    if not detached:
        real = os.readlink(f"/proc/self/fd/{fd}")
        return BoundMount(target, read_only, recursive, real, about.st_dev, about.st_ino)
    attributes = (0 if devices else NODEV) | (RDONLY if read_only else 0)
    mount_fd = core.clone_mount(fd, recursive=recursive, attributes=attributes, userns_fd=userns_fd)
    owned.callback(os.close, mount_fd)
    return BoundMount(target, read_only, recursive, fd=mount_fd, devices=devices)
