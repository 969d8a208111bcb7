"""Files in a container, read, written and copied from outside, whether it runs or not."""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Any

from pyrtc import core
from pyrtc.errors import (
    ContainerError,
    ContainerFileDenied,
    ContainerFileError,
    ContainerFileExists,
    ContainerFileIsADirectory,
    ContainerFileNotADirectory,
    ContainerFileNotFound,
    PyrtcError,
    StoreError,
    UsageError,
)
from pyrtc.file_copies import in_container, on_host, plan_copy
from pyrtc.file_stat import FileStat, file_stat, translate
from pyrtc.runtime.container_root import RootSession, Stopped, open_running, open_stopped
from pyrtc.runtime.roots import HOST_LAYERS
from pyrtc.runtime.spec import mount_target
from pyrtc.runtime.users import identify_running
from pyrtc.start_image import find_image
from pyrtc.store import ContainerRecord, Store
from pyrtc.store.records import load_options
from pyrtc.values import dataclass

__all__ = ["Copied", "FileStat", "Files"]

Path = str | os.PathLike[str]

MAX_READ = 1 << 28
MAX_LIST = 100_000
MAX_ENTRIES = 10_000_000
_CHUNK = 1 << 20
_NO_LIMIT = (1 << 64) - 1
_ERRORS = {
    errno.ENOENT: ContainerFileNotFound,
    errno.EEXIST: ContainerFileExists,
    errno.EISDIR: ContainerFileIsADirectory,
    errno.ENOTDIR: ContainerFileNotADirectory,
    errno.EACCES: ContainerFileDenied,
    errno.EPERM: ContainerFileDenied,
}


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy moved: files and directories, bytes of data; skipped: sockets, devices, /proc, /sys and the like."""

    entries: int
    bytes: int
    skipped: int


def _error(error: OSError, what: str) -> ContainerFileError:
    code = error.errno or errno.EIO
    text = error.strerror or os.strerror(code)
    if code == errno.ELOOP:
        text = (
            "too many symbolic links, or one of the kernel's own (/proc/PID/root, /proc/PID/fd), which lead elsewhere"
        )
    kind = _ERRORS.get(code, ContainerFileError)
    return kind(f"{what}: {text[:1].lower()}{text[1:]}", code, str(error.filename or ""))


class Files:
    """The files of one container.

    Paths begin at the container's root, whatever its working directory is, and lead nowhere else: links in them are
    followed as in the container. A container that runs is seen as it sees itself, with its mounts; one that is stopped
    with its volumes and binds. Nothing is executed for this, neither in the container nor of what is in it. New files
    belong to the container's root unless a user is named.

    Every method raises ContainerNotFound when there is no such container any more, ContainerFileError (an OSError, of
    which ContainerFileNotFound is a FileNotFoundError, and so on) when the file cannot be used as asked, and
    UnsupportedError for a stopped container whose root cannot be put together.

    Parameters
    ----------
    store: where it is. container_id: which.
    """

    def __init__(self, store: Store, container_id: str) -> None:
        self._store = store
        self._id = container_id

    # ---- one file --------------------------------------------------------------------------------------------------

    def read(self, path: Path, *, max_bytes: int = MAX_READ) -> bytes:
        """Return what is in a regular file.

        Parameters
        ----------
        max_bytes: a larger one is refused (ContainerFileError with EFBIG), not cut.
        """
        said = _text(path)
        with self._session() as session, self._doing(f"cannot read {said}"):
            _size, (fd,) = session.reader.ask("open_data", [session.root_fd], path=_inner(said))
            with os.fdopen(fd, "rb", buffering=0) as file:
                parts, left = [], max_bytes + 1
                while left > 0 and (part := file.read(min(left, _CHUNK))):
                    parts.append(part)
                    left -= len(part)
                if left <= 0:
                    raise OSError(errno.EFBIG, f"the file is larger than max_bytes={max_bytes}")
                return b"".join(parts)

    def read_text(
        self, path: Path, *, encoding: str = "utf-8", errors: str = "strict", max_bytes: int = MAX_READ
    ) -> str:
        """Return what is in a regular file as text; as `read`."""
        return self.read(path, max_bytes=max_bytes).decode(encoding, errors)

    def write(
        self,
        path: Path,
        data: bytes | str,
        *,
        mode: int | None = None,
        user: str | int | None = None,
        parents: bool = True,
        append: bool = False,
    ) -> None:
        """Write a regular file, in place where it exists; what is no regular file is refused.

        Parameters
        ----------
        data: text is written as UTF-8. mode: permissions; None: those it has, 0644 for a new one. user: ``name``,
        ``uid``, ``name:group`` or ``uid:gid`` in the container, whose it becomes. parents: make directories that are
        missing (0755, root's). append: add to what is there.
        """
        said = _text(path)
        content = data.encode() if isinstance(data, str) else data
        with self._session() as session, self._doing(f"cannot write {said}"):
            words = {"mode": mode, "owner": self._owner(session, user), "parents": parents, "append": append}
            _nothing, (fd,) = session.writer.ask("open_new", [session.root_fd], path=_inner(said), **words)
            with os.fdopen(fd, "wb", buffering=0) as file:
                rest = memoryview(content)
                while rest:
                    rest = rest[file.write(rest) :]
                if mode is not None and mode & 0o6000:
                    session.writer.ask("set_mode", [fd], mode=mode)

    def append(self, path: Path, data: bytes | str) -> None:
        """Add to a regular file's end, and make it where it is missing."""
        self.write(path, data, append=True)

    # ---- names -----------------------------------------------------------------------------------------------------

    def stat(self, path: Path, *, follow_symlinks: bool = True) -> FileStat:
        """Say what a path names."""
        said = _text(path)
        with self._session() as session, self._doing(f"cannot examine {said}"):
            about, _ = session.reader.ask("examine", [session.root_fd], path=_inner(said), follow=follow_symlinks)
            return file_stat(session, about)

    def exists(self, path: Path, *, follow_symlinks: bool = True) -> bool:
        """Whether a path names something."""
        try:
            self.stat(path, follow_symlinks=follow_symlinks)
        except (ContainerFileNotFound, ContainerFileNotADirectory):
            return False
        return True

    def list(self, path: Path = "/", *, limit: int = MAX_LIST) -> tuple[FileStat, ...]:
        """Say what is in a directory, by name; one with more entries than `limit` is refused (EFBIG)."""
        said = _text(path)
        with self._session() as session, self._doing(f"cannot list {said}"):
            entries, _ = session.reader.ask("listing", [session.root_fd], path=_inner(said), limit=limit)
            return tuple(file_stat(session, about) for about in entries)

    def mkdir(
        self,
        path: Path,
        *,
        mode: int = 0o755,
        user: str | int | None = None,
        parents: bool = False,
        exist_ok: bool = False,
    ) -> None:
        """Make a directory; parents: those above it, too (0755, root's)."""
        said = _text(path)
        with self._session() as session, self._doing(f"cannot make the directory {said}"):
            words = {"mode": mode, "owner": self._owner(session, user), "parents": parents, "exist_ok": exist_ok}
            session.writer.ask("make_directory", [session.root_fd], path=_inner(said), **words)

    def remove(self, path: Path, *, recursive: bool = False, missing_ok: bool = False) -> None:
        """Remove a file, a link itself, or an empty directory; recursive: with all that is in it."""
        said = _text(path)
        try:
            with self._session() as session, self._doing(f"cannot remove {said}"):
                session.writer.ask("remove", [session.root_fd], path=_inner(said), recursive=recursive)
        except ContainerFileNotFound:
            if not missing_ok:
                raise

    # ---- copies ----------------------------------------------------------------------------------------------------

    def copy_in(
        self,
        source: Path,
        target: Path,
        *,
        archive: bool = False,
        follow_link: bool = False,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = _NO_LIMIT,
    ) -> Copied:
        """Copy a file or tree of this machine into the container, by the rules of `docker cp`.

        Where target is a directory the source is copied into it, else it becomes target; a directory is merged with one
        that exists. ``source/.`` means what is in it. Directories above target must exist.

        Parameters
        ----------
        archive: keep uid and gid, and device nodes; otherwise everything is the container's root's. follow_link: copy
        what source points to, if it is a link. max_entries, max_bytes: more is refused, with what was copied so far
        left.
        """
        said, place = os.fspath(source), _text(target)
        with self._session() as session, self._doing(f"cannot copy {said} to {place}"), ExitStack() as owned:
            from_here = on_host(said, owned, follow=follow_link)
            if from_here.mode is None:
                raise ContainerFileNotFound(f"lstat {said}: no such file or directory", errno.ENOENT, said)
            to_there = in_container(session, session.writer, place, owned, follow=True)
            words = plan_copy(session, from_here, to_there, archive=archive, inward=True)
            return self._copy(session.writer, words, max_entries, max_bytes)

    def copy_out(
        self,
        source: Path,
        target: Path,
        *,
        archive: bool = False,
        follow_link: bool = False,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = _NO_LIMIT,
    ) -> Copied:
        """Copy a file or tree of the container to this machine, by the rules of `docker cp`; see `copy_in`.

        The copy is the caller's. Links stay links: they are written, never followed, and no name in the tree leads out
        of the copy. Set-user-id and set-group-id bits come along only where the owner's number is the same on both
        sides.

        Parameters
        ----------
        archive: keep uid and gid as the container shows them, and device nodes (root only; for others it changes
        nothing).
        """
        said, place = _text(source), os.fspath(target)
        with self._session() as session, self._doing(f"cannot copy {said} to {place}"), ExitStack() as owned:
            from_there = in_container(session, session.reader, said, owned, follow=follow_link)
            if from_there.mode is None:
                raise self._not_found(said)
            to_here = on_host(place, owned, follow=True)
            words = plan_copy(session, from_there, to_here, archive=archive, inward=False)
            return self._copy(session.reader, words, max_entries, max_bytes)

    def archive_out(self, source: Path, stream: IO[bytes] | int, *, follow_link: bool = False) -> None:
        """Write a file or tree of the container as a tar stream, with owners as the container shows them.

        Parameters
        ----------
        stream: what has a descriptor: a file, a pipe, a socket; or that descriptor.
        """
        said = _text(source)
        fd = stream if isinstance(stream, int) else stream.fileno()
        with self._session() as session, self._doing(f"cannot copy {said}"), ExitStack() as owned:
            place = in_container(session, session.reader, said, owned, follow=follow_link)
            if place.mode is None:
                raise self._not_found(said)
            whole = place.is_directory
            fds = [place.directory_fd if whole else place.parent_fd, fd]
            name = "." if place.contents or not place.base else place.base
            words = {"source_name": None if whole else place.name, "name": name}
            session.reader.ask("pack", fds, uids=session.uids, gids=session.gids, **words)

    def archive_in(self, stream: IO[bytes] | int, target: Path, *, max_entries: int = MAX_ENTRIES) -> Copied:
        """Unpack an uncompressed tar stream into a directory of the container, with its owners.

        Directories that exist keep their attributes; a directory is not put in the place of something else, nor the
        other way round. The stream is unpacked beside the store first, so a damaged one changes nothing.
        """
        place = _text(target)
        fd = stream if isinstance(stream, int) else stream.fileno()
        rootless = self._store.rootless
        with self._session() as session, self._doing(f"cannot unpack to {place}"), ExitStack() as owned:
            there = in_container(session, session.writer, place, owned, follow=True)
            if not there.is_directory:
                raise ContainerFileNotADirectory(
                    f'destination "{self._name()}:{place}" must be a directory', errno.ENOTDIR, place
                )
            staged = owned.enter_context(self._store.staging.directory())
            session.reader.ask("unpack", [fd, staged], rootless=rootless)
            words: dict[str, Any] = {"fds": (staged, there.directory_fd), "source_name": None, "target_name": None}
            words |= {"owner": session.root, "flags": core.COPY_OWNERS | (core.COPY_DEVICES if session.plain else 0)}
            if rootless:
                words |= {"uids": ((0, 0, _NO_LIMIT >> 32),), "gids": ((0, 0, _NO_LIMIT >> 32),)}
            else:
                words |= {"uids": session.uids_in, "gids": session.gids_in}
            return self._copy(session.writer, words, max_entries, _NO_LIMIT)

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _copy(self, worker: Any, words: dict[str, Any], max_entries: int, max_bytes: int) -> Copied:  # noqa: ANN401
        fds = words.pop("fds")
        result, _ = worker.ask("copy", fds, max_entries=max_entries, max_bytes=max_bytes, **words)
        return Copied(result[0], result[1], result[3])

    def _not_found(self, path: str) -> ContainerFileNotFound:
        return ContainerFileNotFound(f"Could not find the file {path} in container {self._name()}", errno.ENOENT, path)

    def _name(self) -> str:
        with suppress(PyrtcError):
            return self._store.containers.get(self._id).name
        return self._id

    @contextmanager
    def _session(self) -> Iterator[RootSession]:
        record = self._store.containers.get(self._id)
        if record.state == "running":
            with open_running(record) as session:
                if session is not None:
                    yield session
                    return
        with self._store.lives.hold(self._id):
            record = self._store.containers.get(self._id)
            if record.state == "running":
                with open_running(record) as session:
                    if session is not None:
                        yield session
                        return
            with open_stopped(self._store, self._stopped(record)) as session:
                yield session

    def _stopped(self, record: ContainerRecord) -> Stopped:
        if record.state == "creating":
            raise ContainerError(f"container {record.name} is being made: it has no files yet")
        if record.spec is None:
            raise ContainerError(f"container {record.name} does not run, and goes with its files")
        options = load_options(record.spec)
        image = find_image(self._store, record.image_id, None)
        names = {mount_target(mount.target): mount.name for mount in options.mounts if hasattr(mount, "name")}
        names = {target: name for target, name in names.items() if name}
        names |= self._store.containers.anonymous_volumes(record.id)
        volumes = {target: self._store.volumes.get(name).path for target, name in names.items()}
        layers = image.layers
        if layers != HOST_LAYERS:
            layers = self._store.with_own_directories(image.id, layers)
        return Stopped(record, layers, options, volumes)

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        """Say what was being done, and where, when it fails."""
        try:
            yield
        except ContainerFileError:
            raise
        except OSError as error:
            raise _error(error, f"{what} in container {self._name()}") from None
        except StoreError as error:
            code = getattr(error, "errno", 0)
            if not code:
                raise
            raise _ERRORS.get(code, ContainerFileError)(f"{what}: {error}", code) from None

    def _owner(self, session: RootSession, user: str | int | None) -> "tuple[int, int] | None":
        """Return uid and gid as the writer calls them."""
        if user is None:
            return None
        who = identify_running(str(user), (), session.root_fd)
        if session.plain or session.writer is session.reader:
            return who.uid, who.gid
        ids = translate(session.uids_in, who.uid), translate(session.gids_in, who.gid)
        if None in ids:
            raise UsageError(f"user {user} has no id in the user namespace of container {self._name()}")
        return ids[0] or 0, ids[1] or 0


def _text(path: Path) -> str:
    said = os.fspath(path)
    if not isinstance(said, str):
        raise UsageError("a path in a container is text, or an os.PathLike of text")
    if not said or "\0" in said:
        raise UsageError("a path must not be empty or hold a NUL byte")
    return said


def _inner(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"
