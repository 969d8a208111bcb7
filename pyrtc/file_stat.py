"""What a file in a container is, with owners as the container shows them."""

import stat
from collections.abc import Sequence
from typing import Any

from pyrtc.runtime.container_root import RootSession
from pyrtc.values import dataclass

__all__ = ["FileStat", "file_stat", "translate"]

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character_device",
    stat.S_IFBLK: "block_device",
}


@dataclass(frozen=True, slots=True)
class FileStat:
    """What a file in a container is.

    kind: ``file``, ``directory``, ``symlink``, ``fifo``, ``socket``, ``character_device`` or ``block_device``. mode:
    permissions, without the kind. size: bytes. uid, gid: as the container shows them. mtime: seconds since the epoch.
    links: how many names it has. target: where a symbolic link points, else None.
    """

    name: str
    kind: str
    mode: int
    size: int
    uid: int
    gid: int
    mtime: float
    links: int = 1
    target: str | None = None


def file_stat(session: RootSession, about: dict[str, Any]) -> FileStat:
    """Return what the worker said of a file, as a caller sees it."""
    uid, gid = (translate(ranges, about[key]) for ranges, key in ((session.uids, "uid"), (session.gids, "gid")))
    return FileStat(
        name=about["name"],
        kind=_KINDS[stat.S_IFMT(about["mode"])],
        mode=stat.S_IMODE(about["mode"]),
        size=about["size"],
        uid=65534 if uid is None else uid,
        gid=65534 if gid is None else gid,
        mtime=about["mtime_ns"] / 1e9,
        links=about["links"],
        target=about["target"],
    )


def translate(ranges: Sequence[tuple[int, int, int]], number: int) -> int | None:
    """Return an id by ranges of (first, other first, count); None where it is in none."""
    for first, other, count in ranges:
        if first <= number < first + count:
            return other + number - first
    return None
