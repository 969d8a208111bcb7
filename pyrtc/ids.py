"""User namespaces: which id inside is which id outside, and who may write that down.

Root writes any map itself. An ordinary user may map one id, the own one; a range needs newuidmap and newgidmap with
entries in /etc/subuid and /etc/subgid (subuid(5)).
"""

import os
from functools import cache

from pyrtc.errors import StartError, UsageError
from pyrtc.values import dataclass

__all__ = ["IdMaps", "Range", "keep_id", "ordinary_user", "write_maps"]


@dataclass(frozen=True, slots=True)
class Range:
    """count ids from inside on are those from outside on."""

    inside: int
    outside: int
    count: int


@dataclass(frozen=True, slots=True)
class IdMaps:
    """The maps of one user namespace.

    privileged: root writes them. single: only the caller's own id is mapped, supplementary groups cannot be set.
    """

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]
    privileged: bool

    @property
    def single(self) -> bool:
        """Whether only one id is mapped."""
        return not self.privileged and len(self.uids) == 1 and self.uids[0].count == 1

    @property
    def init_uid(self) -> int:
        """The uid pyrtc-init takes: 0 where that is mapped, else the only one."""
        return 0 if self.has_uid(0) else self.uids[0].inside

    @property
    def init_gid(self) -> int:
        """The gid pyrtc-init takes."""
        return 0 if self.has_gid(0) else self.gids[0].inside

    def has_uid(self, uid: int) -> bool:
        """Whether uid means somebody inside."""
        return any(part.inside <= uid < part.inside + part.count for part in self.uids)

    def has_gid(self, gid: int) -> bool:
        """Whether gid means some group inside."""
        return any(part.inside <= gid < part.inside + part.count for part in self.gids)


def ordinary_user() -> IdMaps:
    """Return the maps of an ordinary user's container: root inside is the caller, others are its subordinate ids."""
    uid, gid = os.geteuid(), os.getegid()
    subuids, subgids = _subordinate("/etc/subuid", uid), _subordinate("/etc/subgid", uid)
    if subuids is None or subgids is None or not _id_tools():
        return IdMaps((Range(0, uid, 1),), (Range(0, gid, 1),), privileged=False)
    return IdMaps((Range(0, uid, 1), Range(1, *subuids)), (Range(0, gid, 1), Range(1, *subgids)), privileged=False)


def keep_id() -> IdMaps:
    """Return maps in which the caller keeps its own uid and gid (`--userns keep-id`).

    Raises
    ------
    UsageError: the caller is root, whose ids are kept without any user namespace.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        raise UsageError("--userns keep-id is for ordinary users; root can use --userns auto or host")
    full = ordinary_user()
    if full.single:
        return IdMaps((Range(uid, uid, 1),), (Range(gid, gid, 1),), privileged=False)
    return IdMaps(_around(uid, full.uids[1]), _around(gid, full.gids[1]), privileged=False)


def _around(own: int, subordinate: Range) -> tuple[Range, ...]:
    """Map own to itself, and what is around it to the subordinate ids."""
    below = min(own, subordinate.count)
    parts = [Range(0, subordinate.outside, below), Range(own, own, 1)]
    if subordinate.count > below:
        parts.append(Range(own + 1, subordinate.outside + below, subordinate.count - below))
    return tuple(part for part in parts if part.count)


@cache
def _id_tools() -> bool:
    import shutil

    return bool(shutil.which("newuidmap") and shutil.which("newgidmap"))


@cache
def _subordinate(file: str, uid: int) -> tuple[int, int] | None:
    """Return the first range of subuid(5) for a user, by name or number."""
    import pwd

    try:
        names = {str(uid), pwd.getpwuid(uid).pw_name}
    except KeyError:
        names = {str(uid)}
    try:
        with open(file, errors="replace") as opened:  # noqa: PTH123  (pathlib costs an import on the start path)
            lines = opened.read().splitlines()
    except OSError:
        return None
    for line in lines:
        owner, first, count = [*line.split(":"), "", ""][:3]
        if owner in names and first.isdecimal() and count.isdecimal() and int(count) > 0:
            return int(first), int(count)
    return None


def write_maps(pid: int, maps: IdMaps) -> None:
    """Write the maps of the user namespace that process pid was born in.

    Raises
    ------
    StartError: the kernel or newuidmap refuses; says what it said.
    """
    if maps.privileged or maps.single:
        _write_directly(pid, maps)
        return
    _run_tools(pid, {"newuidmap": maps.uids, "newgidmap": maps.gids})


def _write_directly(pid: int, maps: IdMaps) -> None:
    try:
        if maps.single:
            _write(f"/proc/{pid}/setgroups", "deny")
        _write(f"/proc/{pid}/uid_map", _lines(maps.uids))
        _write(f"/proc/{pid}/gid_map", _lines(maps.gids))
    except OSError as error:
        raise StartError(
            f"cannot write the id maps of the user namespace: {error.strerror}",
            step="write id maps",
            errno=error.errno or 0,
        ) from None


def _lines(ranges: tuple[Range, ...]) -> str:
    return "".join(f"{part.inside} {part.outside} {part.count}\n" for part in ranges)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _run_tools(pid: int, wanted: dict[str, tuple[Range, ...]]) -> None:
    """Run both at once: each takes milliseconds, most of them in its start."""
    import subprocess
    from contextlib import ExitStack

    refusals = []
    with ExitStack() as running:
        # Not subprocess.DEVNULL: what it opens stays open when the pipe beside it cannot be made.
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        running.callback(os.close, null)
        started = []
        for tool, ranges in wanted.items():
            numbers = [str(number) for part in ranges for number in (part.inside, part.outside, part.count)]
            process = subprocess.Popen(
                [tool, str(pid), *numbers],
                stdin=null,
                stdout=null,
                stderr=subprocess.PIPE,
            )
            started.append((tool, running.enter_context(process)))
        for tool, process in started:
            said = process.communicate()[1].decode(errors="replace").strip()
            if process.returncode:
                refusals.append(f"{tool} refused the id map: {said}")
    if refusals:
        raise StartError(f"{'; '.join(refusals)}; check /etc/subuid and /etc/subgid", step="write id maps")
