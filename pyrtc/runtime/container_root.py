"""The root directory of a container, with whoever may work in it: a session, as long as it takes.

running  through /proc/PID/root, so with its mounts, volumes and tmpfs as it sees them
stopped  put together again in a process with mounts of its own, with its volumes and binds; its memory is gone
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from pyrtc import core
from pyrtc.errors import ContainerError, UnsupportedError, UsageError
from pyrtc.ids import IdMaps, Range, keep_id, ordinary_user
from pyrtc.options import Bind, RunOptions, Tmpfs, Volume
from pyrtc.runtime import roots
from pyrtc.runtime.assembly import DirectoryRoot, MountRoot, OverlayRoot
from pyrtc.runtime.helper import helper_fd
from pyrtc.runtime.ids import AUTO_COUNT, AUTO_FIRST, first_of_range, mapped_namespace
from pyrtc.runtime.namespaces import NODEV, RDONLY
from pyrtc.runtime.spec import mount_target
from pyrtc.store import ContainerRecord, Store, process_start_time
from pyrtc.store.file_server import FileServer, Here
from pyrtc.store.owner import open_process
from pyrtc.values import dataclass

__all__ = ["RootSession", "Stopped", "open_running", "open_stopped"]

Ranges = tuple[tuple[int, int, int], ...]
_EVERYBODY = 65534  # who is in no map is shown as this
_ALL = ((0, 0, (1 << 32) - 1),)


@dataclass(frozen=True, slots=True)
class RootSession:
    """A container's root and the ways to work in it.

    Attributes
    ----------
    root_fd: the directory, O_PATH. reader: reads there, and writes on the host. writer: writes there.
    uids, gids: (id as reader sees it, as the container shows it, count).
    own: ids, as reader sees them, of whom a copy on the host belongs to.
    root: ids, as writer sees them, of the container's root.
    uids_out, gids_out: from what reader sees to the host's numbers, empty where nobody's can be kept.
    uids_in, gids_in: from what writer sees on the host to what it calls the same number in the container.
    plain: ids mean the same on both sides, and this user is root.
    """

    root_fd: int
    reader: FileServer | Here
    writer: FileServer | Here
    uids: Ranges
    gids: Ranges
    own: tuple[int, int]
    root: tuple[int, int]
    uids_out: Ranges
    gids_out: Ranges
    uids_in: Ranges
    gids_in: Ranges
    plain: bool


@dataclass(frozen=True, slots=True)
class Stopped:
    """What the root of a stopped container is made of: layers from the top, and volumes: target -> path."""

    record: ContainerRecord
    layers: tuple[str, ...]
    options: RunOptions
    volumes: dict[str, str]


def _read_map(pid: int, kind: str) -> tuple[Range, ...]:
    with open(f"/proc/{pid}/{kind}_map") as file:
        rows = [tuple(int(word) for word in line.split()) for line in file]
    return tuple(Range(inside, outside, count) for inside, outside, count in rows)


def _inside(ranges: tuple[Range, ...], outside: int) -> int:
    for part in ranges:
        if part.outside <= outside < part.outside + part.count:
            return part.inside + outside - part.outside
    return _EVERYBODY


def _first(ranges: tuple[Range, ...]) -> Range:
    """Return the range of the container's root, or of the only id there is."""
    return next((part for part in ranges if part.inside == 0), ranges[0])


def _session(root_fd: int, maps: IdMaps | None, server: FileServer | None, owned: ExitStack) -> RootSession:
    """Tell the ids of both sides.

    Parameters
    ----------
    maps: of the container's user namespace, None where it is this process's. server: for an ordinary user one that is
    in the namespace.
    """
    here = Here()
    own = (os.geteuid(), os.getegid())
    if maps is None:
        return RootSession(root_fd, here, here, _ALL, _ALL, own, (0, 0), _ALL, _ALL, _ALL, _ALL, True)
    if own[0] == 0:
        if server is None:
            server = FileServer()
            owned.callback(server.close)
        root = (_first(maps.uids).outside, _first(maps.gids).outside)
        server.ask("make_as", (), uid=root[0], gid=root[1])
        out = (
            tuple((part.outside, part.inside, part.count) for part in maps.uids),
            tuple((part.outside, part.inside, part.count) for part in maps.gids),
        )
        into = (
            tuple((part.inside, part.outside, part.count) for part in maps.uids),
            tuple((part.inside, part.outside, part.count) for part in maps.gids),
        )
        return RootSession(root_fd, here, server, *out, own, root, *out, *into, False)
    assert server is not None
    seen = (_inside(maps.uids, own[0]), _inside(maps.gids, own[1]))
    root = (_first(maps.uids).inside, _first(maps.gids).inside)
    into = (_numbers(maps.uids, root[0]), _numbers(maps.gids, root[1]))
    return RootSession(root_fd, server, server, _ALL, _ALL, seen, root, (), (), *into, False)


def _numbers(ranges: tuple[Range, ...], root: int) -> Ranges:
    """Let a file of host id n be the container's id n, where it has one; the files of others are its root's."""
    kept = [
        (part.inside + number - part.outside, number, 1)
        for part in ranges
        if part.count == 1 and _mapped(ranges, number := part.outside)
    ]
    known = {first for first, _, _ in kept}
    rest = [(part.inside, root, 1) for part in ranges if part.count == 1 and part.inside not in known]
    return ((_EVERYBODY, root, 1), *kept, *rest)


def _mapped(ranges: tuple[Range, ...], inside: int) -> bool:
    return any(part.inside <= inside < part.inside + part.count for part in ranges)


@contextmanager
def open_running(record: ContainerRecord) -> Iterator[RootSession | None]:
    """Give a session of a running container; None where its process is not there any more.

    Raises
    ------
    ContainerError: it is not this user's. UnsupportedError: its user namespace cannot be entered.
    """
    with ExitStack() as owned:
        pidfd = open_process(record.pid, record.start_time) if record.pid else None
        if pidfd is None:
            yield None
            return
        owned.callback(os.close, pidfd)
        try:
            root_fd = os.open(f"/proc/{record.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            owned.callback(os.close, root_fd)
            theirs = os.open(f"/proc/{record.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            owned.callback(os.close, theirs)
            ours = os.stat("/proc/self/ns/user")
            mapped = os.fstat(theirs).st_ino != ours.st_ino
            maps = None
            if mapped:
                maps = IdMaps(_read_map(record.pid, "uid"), _read_map(record.pid, "gid"), privileged=False)
        except (FileNotFoundError, ProcessLookupError):
            yield None
            return
        except OSError as error:
            raise ContainerError(f"cannot reach the root of container {record.name}: {error.strerror}") from None
        # Everything was read while the process was there: its number cannot have been another's.
        if process_start_time(record.pid) != record.start_time:
            yield None
            return
        server = None
        if maps is not None and os.geteuid() != 0:
            server = FileServer()
            owned.callback(server.close)
            server.ask("join", (theirs,))
        yield _session(root_fd, maps, server, owned)


@contextmanager
def open_stopped(store: Store, stopped: Stopped) -> Iterator[RootSession]:
    """Give a session of a container that does not run; the caller holds it, so that nobody starts it meanwhile.

    Raises
    ------
    UnsupportedError: its root cannot be put together; says why. UsageError: the source of a bind is missing.
    """
    record, options = stopped.record, stopped.options
    if record.directory is None or roots.in_memory(options):
        raise UnsupportedError(f"container {record.name} kept what it wrote in memory, which is gone: it has no files")
    if stopped.layers == roots.HOST_LAYERS:
        raise UnsupportedError(
            f"container {record.name} is of the running system (host), whose root is put together when it starts: "
            "start it first"
        )
    if record.started is None and (options.driver == "copy" or options.userns == "auto"):
        raise UnsupportedError(f"container {record.name} has never run, so it has no files yet: start it first")
    with ExitStack() as owned:
        maps, userns_fd = _stopped_maps(store, record, options, owned)
        again = record.started is not None
        root = roots.open_root(store, stopped.layers, record.directory, options, maps, userns_fd, owned, again=again)
        fds: list[int] = []
        if isinstance(root, OverlayRoot):
            place: tuple[Sequence[str], str, bool] = (root.layers, record.directory, store.rootless)
        elif isinstance(root, DirectoryRoot):
            place = ((), root.path, store.rootless)
        elif isinstance(root, MountRoot):
            place = ((), "", False)
            fds.append(root.fd)
        else:
            raise UnsupportedError(f"the root of container {record.name} cannot be put together while it is stopped")
        mounts = _mounts(stopped, fds, userns_fd, owned, rootless=store.rootless)
        server = FileServer(maps if store.rootless else None)
        owned.callback(server.close)
        words = {"stage": f"{store.path}/containers", "root": place, "mounts": mounts, "own_mounts": not store.rootless}
        _nothing, opened = server.ask("mount_root", fds, **words)
        owned.callback(os.close, opened[0])
        yield _session(opened[0], maps, server, owned)


def _stopped_maps(
    store: Store, record: ContainerRecord, options: RunOptions, owned: ExitStack
) -> tuple[IdMaps | None, int]:
    if store.rootless:
        return (keep_id() if options.userns == "keep-id" else ordinary_user()), -1
    if options.userns != "auto":
        return None, -1
    first = record.ids
    if first is None:  # an older row: "/" belongs to one of its ids; a copy has the image's, and any range shows them
        first = AUTO_FIRST if options.driver == "copy" else first_of_range(os.stat(f"{record.directory}/upper").st_uid)
    part = (Range(0, first, AUTO_COUNT),)
    maps = IdMaps(part, part, privileged=True)
    fd = mapped_namespace(maps, helper_fd())
    owned.callback(os.close, fd)
    return maps, fd


def _mounts(
    stopped: Stopped, fds: list[int], userns_fd: int, owned: ExitStack, *, rootless: bool
) -> list[tuple[str, str, bool, int]]:
    """Open volumes and binds; a tmpfs was memory, and is an empty directory now."""
    wanted = {target: (path, False, userns_fd) for target, path in stopped.volumes.items()}
    for mount in stopped.options.mounts:
        target = mount_target(mount.target)
        if isinstance(mount, Tmpfs):
            wanted.pop(target, None)
        elif isinstance(mount, Volume):
            wanted[target] = (stopped.volumes[target], mount.read_only, userns_fd)
        elif isinstance(mount, Bind):
            wanted[target] = (mount.source, mount.read_only, userns_fd if mount.idmap else -1)
    mounts = []
    for target, (path, read_only, mapping) in wanted.items():
        try:
            found = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"the source {path} of a mount cannot be used: {error.strerror}") from None
        owned.callback(os.close, found)
        if rootless:
            mounts.append((target, path, read_only, -1))
            continue
        attributes = NODEV | (RDONLY if read_only else 0)
        fd = core.clone_mount(found, recursive=True, attributes=attributes, userns_fd=mapping)
        owned.callback(os.close, fd)
        mounts.append((target, "", read_only, len(fds)))
        fds.append(fd)
    return mounts
