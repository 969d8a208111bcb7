"""Trees of files on disk: unpacked, copied, moved and removed with the owners that this user can give them.

root                    every owner, by itself
ordinary user, no ids   everything belongs to the user (`OwnTrees`)
ordinary user with ids  id 0 is the user, id n the n-th of the subordinate ids (subuid(5)); what belongs to those is out
                        of the user's reach, so it is worked on from inside a user namespace (`MappedTrees`)
"""

import errno
import os
from collections.abc import Callable, Sequence

from pyrtc import core
from pyrtc.errors import StoreError
from pyrtc.ids import IdMaps, ordinary_user
from pyrtc.store.descriptors import Private
from pyrtc.store.stacked import copy_from_layers
from pyrtc.values import dataclass

__all__ = ["Fingerprint", "HashingReader", "MappedTrees", "OwnTrees", "Trees", "trees_for"]

_REFUSED = frozenset({errno.EACCES, errno.EPERM})


def trees_for(*, rootless: bool) -> "Trees":
    """Return what works on the trees of a store of this user."""
    if rootless and os.geteuid() != 0:
        maps = ordinary_user()
        return OwnTrees(maps) if maps.single else MappedTrees(maps)
    return Trees(rootless=rootless)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a tree is: a digest of every name and attribute in it, and of the sizes of its files, but not of their data.

    opaque: directories in it that hide what is below. entries, bytes: names, file data.
    """

    tree: str
    opaque: int
    entries: int
    bytes: int


class Trees:
    """Works on trees in this process.

    Attributes
    ----------
    rootless: the store is an ordinary user's: overlayfs's marks are user.* attributes, there are no devices.
    keeps_owners: files belong to whom their image says.
    unpacks_here: in this process, so that a stream in its memory will do; else only descriptors.
    """

    unpacks_here = True

    def __init__(self, *, rootless: bool) -> None:
        self.rootless = rootless

    @property
    def keeps_owners(self) -> bool:
        """Whether files belong to whom their image says."""
        return not self.rootless

    def close(self) -> None:
        """End what works for this object."""

    def untar(
        self, stream: "int | core.Pieces", root_fd: int, *, lower_fds: Sequence[int] = (), plain: bool = False
    ) -> "core.UntarResult":
        """Unpack a layer; see `pyrtc.core.untar`."""
        return core.untar(stream, root_fd, lower_fds=lower_fds, rootless=self.rootless, plain=plain)

    def untar_alone(self, stream: "int | core.Pieces", root_fd: int) -> "core.UntarResult | None":
        """Unpack a layer that depends on none below; see `pyrtc.core.untar_alone`."""
        return core.untar_alone(stream, root_fd, rootless=self.rootless)

    def tardiff(
        self,
        root_fd: int,
        stream_fd: int,
        *,
        headers_only: bool = False,
        latest: int | None = None,
        left_out: Sequence[str] = (),
    ) -> "core.TardiffResult":
        """Write a tree as a layer's tar; see `pyrtc.core.tardiff`."""
        return core.tardiff(
            root_fd,
            stream_fd,
            rootless=self.rootless,
            no_owners=not self.keeps_owners,
            headers_only=headers_only,
            latest=latest,
            left_out=left_out,
        )

    def copy_layer(self, source_fd: int, target_fd: int) -> None:
        """Copy a tree with all that hides what is below it; see `pyrtc.core.copy_tree`."""
        core.copy_tree(source_fd, target_fd, keep_owner=self.keeps_owners, layer=True)

    def mount_points(self, layers: Sequence[str], targets: Sequence[str], *, shift: int = 0) -> list[str]:
        """Say what is there only to be mounted on; see `pyrtc.store.differences.mount_points`."""
        from pyrtc.store.differences import mount_points

        return mount_points(layers, targets, rootless=self.rootless, own_user=self.rootless, shift=shift)

    def changes(self, layers: Sequence[str], left_out: Sequence[str], *, shift: int = 0) -> list[tuple[str, str]]:
        """Say what the top layer changes; see `pyrtc.store.differences.changes`."""
        from pyrtc.store.differences import changes

        return changes(layers, left_out, rootless=self.rootless, own_user=self.rootless, shift=shift)

    def write_tree(
        self, layers: Sequence[str], stream_fd: int, left_out: Sequence[str] = (), latest: int | None = None
    ) -> "core.TardiffResult":
        """Write what stacked layers (top first) show together as a plain tar."""
        from pyrtc.store.stacked import tar_of_layers

        return tar_of_layers(
            layers,
            stream_fd,
            rootless=self.rootless,
            own_user=self.rootless,
            no_owners=not self.keeps_owners,
            left_out=left_out,
            latest=latest,
        )

    def fingerprint(self, root_fd: int) -> Fingerprint:
        """Say what a tree is, to see later whether it is still that.

        Raises
        ------
        StoreError: it cannot be read.
        """
        reader = HashingReader()
        try:
            result = self.tardiff(root_fd, reader.write_fd, headers_only=True)
        finally:
            reader.finish()
        return Fingerprint(reader.digest, result.opaque, result.entries, result.bytes)

    def measure(self, parent_fd: int, name: str) -> int:
        """Return how many bytes a tree takes on the disk; see `pyrtc.core.measure_tree`."""
        return core.measure_tree(parent_fd, name)

    def remove(self, parent_fd: int, name: str) -> None:
        """Remove a tree; see `pyrtc.core.remove_tree`."""
        core.remove_tree(parent_fd, name)

    def move(self, name: str, new_name: str, *, source_fd: int, target_fd: int) -> None:
        """Move a directory to another one of this store.

        Raises
        ------
        OSError: as rename(2).
        """
        mode = os.stat(name, dir_fd=source_fd, follow_symlinks=False).st_mode
        # Moving a directory rewrites its "..", for which an ordinary user needs the right to write in it.
        locked_up = not mode & 0o200
        if locked_up:
            os.chmod(name, mode & 0o7777 | 0o200, dir_fd=source_fd)
        os.rename(name, new_name, src_dir_fd=source_fd, dst_dir_fd=target_fd)
        if locked_up:
            os.chmod(new_name, mode & 0o7777, dir_fd=target_fd)

    def copy(self, layers: Sequence[str], inner: str, target_fd: int) -> None:
        """Copy what stacked layers (top first) show in their directory `inner` into an empty one; missing is empty.

        Raises
        ------
        StoreError: it cannot be read or copied. UnsupportedError: the layers cannot be stacked here.
        """
        own_user = self.rootless and len(layers) > 1
        keep_owner = self.keeps_owners
        copy_from_layers(layers, inner, target_fd, rootless=self.rootless, own_user=own_user, keep_owner=keep_owner)


class OwnTrees(Trees):
    """Works on trees in which everything belongs to an ordinary user, who may still have no right to read it."""

    def __init__(self, maps: IdMaps) -> None:
        from pyrtc.store.subordinate import Subordinate

        super().__init__(rootless=True)
        self._inside = Subordinate(maps)

    def close(self) -> None:
        """End the process in the namespace."""
        self._inside.close()

    def tardiff(
        self,
        root_fd: int,
        stream_fd: int,
        *,
        headers_only: bool = False,
        latest: int | None = None,
        left_out: Sequence[str] = (),
    ) -> "core.TardiffResult":
        """Write a tree as a layer's tar, as root of a user namespace: files of mode 000 are read, too."""
        said = self._inside.ask(
            "tardiff",
            (root_fd, stream_fd),
            no_owners=not self.keeps_owners,
            headers_only=headers_only,
            latest=latest,
            left_out=list(left_out),
        )
        return core.TardiffResult(**said)

    def copy_layer(self, source_fd: int, target_fd: int) -> None:
        """Copy a tree with all that hides what is below it, as root of a user namespace."""
        self._inside.ask("copy_layer", (source_fd, target_fd), keep_owner=self.keeps_owners)

    def mount_points(self, layers: Sequence[str], targets: Sequence[str], *, shift: int = 0) -> list[str]:
        """Say what is there only to be mounted on, as root of a user namespace."""
        found: list[str] = self._inside.ask("mount_points", (), layers=list(layers), targets=list(targets))
        return found

    def changes(self, layers: Sequence[str], left_out: Sequence[str], *, shift: int = 0) -> list[tuple[str, str]]:
        """Say what the top layer changes, as root of a user namespace."""
        answer = os.memfd_create("pyrtc-changes", os.MFD_CLOEXEC)  # it may be longer than a message
        with open(answer, "rb") as file:
            self._inside.ask("changes", (answer,), layers=list(layers), left_out=list(left_out))
            file.seek(0)
            lines = file.read().split(b"\0")[:-1]
        return [(os.fsdecode(line[:1]), os.fsdecode(line[1:])) for line in lines]

    def write_tree(
        self, layers: Sequence[str], stream_fd: int, left_out: Sequence[str] = (), latest: int | None = None
    ) -> "core.TardiffResult":
        """Write what stacked layers show, as root of a user namespace."""
        said = self._inside.ask(
            "write_tree",
            (stream_fd,),
            layers=list(layers),
            no_owners=not self.keeps_owners,
            left_out=list(left_out),
            latest=latest,
        )
        return core.TardiffResult(**said)

    def measure(self, parent_fd: int, name: str) -> int:
        """Return how many bytes a tree takes on the disk, by itself where that goes."""
        try:
            return core.measure_tree(parent_fd, name)
        except StoreError as error:
            if getattr(error, "errno", 0) not in _REFUSED:
                raise
            size: int = self._inside.ask("measure", (parent_fd,), name=name)
            return size


class MappedTrees(OwnTrees):
    """Works on trees in a user namespace with all ids of an ordinary user, where this process has no right to."""

    unpacks_here = False

    @property
    def keeps_owners(self) -> bool:
        """Whether files belong to whom their image says."""
        return True

    def untar(
        self, stream: "int | core.Pieces", root_fd: int, *, lower_fds: Sequence[int] = (), plain: bool = False
    ) -> "core.UntarResult":
        """Unpack a layer; see `pyrtc.core.untar`."""
        assert isinstance(stream, int)  # as `unpacks_here` says
        said = self._inside.ask("untar", (stream, root_fd, *lower_fds), plain=plain)
        return core.UntarResult(**said)

    def untar_alone(self, stream: "int | core.Pieces", root_fd: int) -> "core.UntarResult | None":
        """Unpack a layer that depends on none below; see `pyrtc.core.untar_alone`."""
        assert isinstance(stream, int)
        said = self._inside.ask("untar_alone", (stream, root_fd))
        return core.UntarResult(**said) if said is not None else None

    def remove(self, parent_fd: int, name: str) -> None:
        """Remove a tree, by itself where that goes."""
        try:
            core.remove_tree(parent_fd, name)
        except StoreError as error:
            if getattr(error, "errno", 0) not in _REFUSED:
                raise
            self._inside.ask("remove", (parent_fd,), name=name)

    def move(self, name: str, new_name: str, *, source_fd: int, target_fd: int) -> None:
        """Move a directory, which another id may own."""
        try:
            super().move(name, new_name, source_fd=source_fd, target_fd=target_fd)
        except PermissionError:
            self._inside.ask("move", (source_fd, target_fd), name=name, new_name=new_name)

    def copy(self, layers: Sequence[str], inner: str, target_fd: int) -> None:
        """Copy with all owners."""
        self._inside.ask("copy", (target_fd,), layers=list(layers), inner=inner)


class HashingReader:
    """The reading end of a pipe, in a thread that hashes what comes out of it.

    Parameters
    ----------
    sink: gets every piece. What it raises comes out of `finish`; the pipe is read to its end all the same, because
    whoever writes into it must not find it without a reader.
    """

    def __init__(self, sink: Callable[[bytes], None] | None = None) -> None:
        import hashlib  # milliseconds that no start needs
        import threading

        self._sink = sink
        self._error: BaseException | None = None

        read_end, write_end = (Private(fd) for fd in os.pipe2(os.O_CLOEXEC))
        self._read, self._write = read_end, write_end
        self._hash = hashlib.sha256(usedforsecurity=False)
        self._thread = threading.Thread(target=self._run, name="pyrtc-hash", daemon=True)
        self._thread.start()

    @property
    def write_fd(self) -> int:
        """The writing end, which stays this object's."""
        return self._write.fd

    def _run(self) -> None:
        while chunk := os.read(self._read.fd, 1 << 18):
            self._hash.update(chunk)
            if self._sink is not None and self._error is None:
                try:
                    self._sink(chunk)
                except BaseException as error:  # handed to the thread that waits
                    self._error = error

    def finish(self) -> None:
        """Close the writing end and wait until everything is hashed."""
        self._write.close()
        self._thread.join()
        self._read.close()
        if self._error is not None:
            raise self._error

    @property
    def digest(self) -> str:
        """Of all that was written."""
        return f"sha256:{self._hash.hexdigest()}"
