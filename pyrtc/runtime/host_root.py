"""The running system as a container's root: what of it is shown, and how.

Root mounts "/" as the lower layer of one overlay; the file systems mounted below it (a separate /usr or /home) are
added.

For an ordinary user the kernel refuses "/" as a lower layer: it would uncover what is below mount points. So the root
is an empty directory of the container's own, and each directory of "/" without mounts below it becomes an overlay; a
directory with mounts below it is taken apart once, and what is deeper is shown read-only as it is.

/dev, /proc and /sys are the container's own, and so are /run and /tmp: they are empty, for they hold the sockets of the
host's services.
"""

import os
import stat
from collections.abc import Iterator

from pyrtc.values import dataclass

__all__ = ["Beneath", "Bound", "Link", "Made", "Overlaid", "Part", "beneath_root", "can_make", "put_together"]

_FRESH = frozenset({"/dev", "/proc", "/run", "/sys", "/tmp"})  # noqa: S108
# File systems that overlayfs takes as a lower layer and that hold files, not states of the kernel.
_LAYERS = frozenset(
    {"9p", "bcachefs", "btrfs", "ceph", "erofs", "ext2", "ext3", "ext4", "f2fs", "hostfs", "jfs", "nfs", "nfs4",
     "overlay", "reiserfs", "squashfs", "tmpfs", "virtiofs", "xfs", "zfs"}
)  # fmt: skip
_FILES = _LAYERS | {"exfat", "fuse", "fuseblk", "iso9660", "ntfs3", "vfat"}
# Directories in which an installation or a service puts files; their direct subdirectories, too.
_WRITABLE = ("/usr", "/usr/local", "/var")
_MAX_ENTRIES = 512  # of one directory that is taken apart


@dataclass(frozen=True, slots=True)
class Overlaid:
    """A directory of the host under a R/W layer."""

    path: str
    mode: int
    uid: int
    gid: int
    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class Bound:
    """A file, or a directory with all that is mounted below it, read-only."""

    path: str
    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link, copied."""

    path: str
    value: str


@dataclass(frozen=True, slots=True)
class Made:
    """A directory of the container's own. Below an overlaid one it is merged with the host's, and can be written to."""

    path: str
    mode: int


Part = Overlaid | Bound | Link | Made


@dataclass(frozen=True, slots=True)
class _Mounts:
    """Mount points and the types of their file systems, as this process sees them."""

    types: dict[str, str]

    def below(self, path: str) -> bool:
        start = path.rstrip("/") + "/"
        return any(point.startswith(start) for point in self.types)

    def type_at(self, path: str) -> str:
        while path not in self.types and path != "/":
            path = os.path.dirname(path)
        return self.types.get(path, "")


def _mounts() -> _Mounts:
    types = {}
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            # proc(5): id parent device root point options optional... - type source options
            fields, _, rest = line.partition(b" - ")
            point = fields.split(b" ", 5)[4]
            types[os.fsdecode(_unescape(point))] = rest.split(b" ", 1)[0].decode()
    return _Mounts(types)


def _unescape(text: bytes) -> bytes:
    if b"\\" not in text:
        return text
    for code, character in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        text = text.replace(code, character)
    return text


def put_together() -> tuple[Part, ...]:
    """Return the parts of an ordinary user's view of the host, in the order of their making.

    What the user may not read is an empty directory. In those that are `Made` files can be added, and those of
    others replaced or removed; the kernel does not let them be changed in place, renamed or given a new owner.
    """
    mounts = _mounts()
    return tuple(_take_apart("/", mounts, depth=0))


def can_make(path: str, parts: tuple[Part, ...]) -> bool:
    """Say whether a file can be put at path: it is there already, or its directory is not shown read-only."""
    bound = (part.path for part in parts if isinstance(part, Bound))
    return os.path.lexists(path) or not any(path.startswith(above + "/") for above in bound)


def _take_apart(directory: str, mounts: _Mounts, depth: int) -> Iterator[Part]:
    for entry in _entries(directory):
        if entry.path in _FRESH:
            continue
        if entry.is_symlink():
            yield Link(entry.path, os.readlink(entry.path))
        elif entry.is_dir(follow_symlinks=False):
            yield from _directory(entry.path, mounts, depth)
        elif entry.is_file(follow_symlinks=False):
            about = entry.stat(follow_symlinks=False)
            yield Bound(entry.path, about.st_dev, about.st_ino)


def _entries(directory: str) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _directory(path: str, mounts: _Mounts, depth: int) -> Iterator[Part]:
    try:
        about = os.stat(path, follow_symlinks=False)
    except OSError:  # a mount of a user's own, such as FUSE, that nobody else may look at
        return
    mode = stat.S_IMODE(about.st_mode)
    if not os.access(path, os.R_OK | os.X_OK) or not _entries(path):
        yield Made(path, mode)
    elif not mounts.below(path):
        if mounts.type_at(path) in _LAYERS:
            yield Made(path, mode)
            yield from _merged(path)
            yield Overlaid(path, mode, about.st_uid, about.st_gid, about.st_dev, about.st_ino)
        else:
            yield Bound(path, about.st_dev, about.st_ino)
    elif depth == 0 and len(_entries(path)) <= _MAX_ENTRIES:
        yield Made(path, mode)
        yield from _take_apart(path, mounts, depth + 1)
    else:
        yield Bound(path, about.st_dev, about.st_ino)


def _merged(path: str) -> Iterator[Made]:
    """Yield the writable subdirectories of an overlaid directory: the user owns them, not their files."""
    for directory in _WRITABLE:
        if (directory != path and not directory.startswith(path + "/")) or os.path.islink(directory):
            continue
        try:
            with os.scandir(directory) as entries:
                found = sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
        except OSError:
            continue
        for inner in found:
            if os.access(inner, os.R_OK | os.X_OK):
                yield Made(inner, stat.S_IMODE(os.stat(inner).st_mode))


@dataclass(frozen=True, slots=True)
class Beneath:
    """File systems mounted below "/": those directly in it or one directory deeper are overlaid, others bound.

    cloned: in their place, paths with detached mounts that the caller made.
    """

    overlaid: tuple[Overlaid, ...]
    bound: tuple[Bound, ...]
    cloned: tuple[tuple[str, int], ...] = ()

    def topmost(self) -> tuple[str, ...]:
        """Return the mount points that are in no other of these file systems."""
        paths = sorted([*(part.path for part in self.overlaid), *(part.path for part in self.bound)])
        return tuple(path for path in paths if not any(path.startswith(above + "/") for above in paths))


def beneath_root() -> Beneath:
    """Return the host's file systems besides that of "/", for root."""
    overlaid: list[Overlaid] = []
    bound: list[Bound] = []
    mounts = _mounts()
    for path in sorted(mounts.types):
        kind = mounts.types[path].split(".")[0]  # fuse.sshfs
        if path == "/" or kind not in _FILES or kind == "overlay" or _is_fresh(path):  # other engines' containers
            continue
        if any(path.startswith(done.path + "/") for done in bound):
            continue
        try:
            about = os.stat(path, follow_symlinks=False)
        except OSError:
            continue
        shallow = path.count("/") <= 2 and kind in _LAYERS and stat.S_ISDIR(about.st_mode)
        if shallow and not os.statvfs(path).f_flag & os.ST_RDONLY:
            mode = stat.S_IMODE(about.st_mode)
            overlaid.append(Overlaid(path, mode, about.st_uid, about.st_gid, about.st_dev, about.st_ino))
        else:
            bound.append(Bound(path, about.st_dev, about.st_ino))
    return Beneath(tuple(overlaid), tuple(bound))


def _is_fresh(path: str) -> bool:
    return any(path == fresh or path.startswith(fresh + "/") for fresh in _FRESH)
