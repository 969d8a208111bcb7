"""One store: a directory that holds images, layers, containers and volumes, and the database that names them."""

import errno
import os
import stat
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING

from pyrtc.errors import StoreError
from pyrtc.store.blobs import Blobs
from pyrtc.store.containers import Containers, Reaped
from pyrtc.store.database import Database
from pyrtc.store.images import Image, ImageTable
from pyrtc.store.layer_blobs import LayerBlobs
from pyrtc.store.layers import Layers
from pyrtc.store.lives import Lives
from pyrtc.store.locks import try_lock_file
from pyrtc.store.partials import Partials
from pyrtc.store.repositories import Repositories
from pyrtc.store.root import default_root, is_rootless
from pyrtc.store.settings import BlobPolicy, read_settings
from pyrtc.store.skeletons import Skeletons
from pyrtc.store.snapshots import Snapshots
from pyrtc.store.specs import Specs
from pyrtc.store.staging import Staging
from pyrtc.store.trees import trees_for
from pyrtc.store.volumes import Volumes
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pathlib import Path

    from pyrtc.store.additional import AdditionalStore
    from pyrtc.store.networks import Networks

__all__ = ["Collected", "Store", "Swept"]

_DIRECTORIES = ("tmp", "locks", "blobs", "layers", "containers", "volumes", "partial")


@dataclass(frozen=True, slots=True)
class Swept:
    """What `Store.sweep` found: containers of dead owners, and how many unfinished or orphaned things it removed.

    freed: bytes that the disk has back, None if they were not to be measured.
    """

    reaped: tuple[Reaped, ...]
    removed: int
    freed: int | None = None


@dataclass(frozen=True, slots=True)
class Collected:
    """What `Store.collect` removed: diffIDs of layers, the bytes of file data in them, and how many trees in all.

    freed: bytes that the disk has back, None if they were not to be measured.
    """

    diff_ids: tuple[str, ...]
    size: int
    trees: int
    freed: int | None = None


class Store:
    """An open store; may be used by any number of threads and processes at once.

    Parameters
    ----------
    root: its directory, made (0700) when missing; None: see `default_root`. blobs, additional_stores: see
    `pyrtc.store.settings`; None leaves them to the environment and the files.

    Raises
    ------
    StoreError: the directory is somebody else's, is not a store, or cannot hold one.

    Attributes
    ----------
    path, root, root_fd: absolute path without links, as a string and an object, and the open directory.
    rootless: it is an ordinary user's, so layers have no devices.
    trees: works on trees with the owners that this user can give them.
    settings: what was decided for it.
    images, layers, containers, lives, networks, snapshots, volumes, blobs, layer_blobs, partials, repositories,
    staging, database: its rooms.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        blobs: BlobPolicy | None = None,
        additional_stores: Sequence[str | os.PathLike[str]] | None = None,
    ) -> None:
        self._open = ExitStack()
        self._has_attributes: bool | None = None
        self._additional: tuple[AdditionalStore, ...] | None = None
        self._additional_lock = threading.Lock()
        with ExitStack() as on_failure:
            on_failure.callback(self.close)
            wanted = root if root is not None else default_root()
            try:
                self.path = os.path.realpath(wanted)
                self.settings = read_settings(self.path, blobs=blobs, additional_stores=additional_stores)
                self.root_fd = self._open_root()
                directories = {name: self._open_directory(name) for name in _DIRECTORIES}
            except OSError as error:
                raise StoreError(
                    f"cannot open the store {wanted}: {error.strerror}: {error.filename or ''}; "
                    "choose another with --root or PYRTC_ROOT"
                ) from error
            self.rootless = is_rootless()
            self.database = Database(f"{self.path}/pyrtc.db", self.root_fd)
            self._open.callback(self.database.close)
            path, locks = self.path, directories["locks"]
            self._locks_fd = locks
            self.trees = trees_for(rootless=self.rootless)
            self._open.callback(self.trees.close)
            self.staging = Staging(directories["tmp"], self.trees)
            self.blobs = Blobs(directories["blobs"], bool(self.settings.shared))
            self.partials = Partials(directories["partial"])
            others = self.additional_stores
            self.layer_blobs = LayerBlobs(self.database, self.blobs, others)
            self.layers = Layers(directories["layers"], f"{path}/layers", locks, self.staging, self.database, others)
            self.images = ImageTable(self.database, f"{path}/layers", self.blobs, others)
            self.repositories = Repositories(self.database)
            self.volumes = Volumes(directories["volumes"], f"{path}/volumes", locks, self.staging, self.database, self)
            self.containers = Containers(
                directories["containers"],
                f"{path}/containers",
                self.staging,
                self.database,
                self.volumes,
                Specs(self.root_fd, aside=bool(self.settings.shared)),
            )
            self._open.callback(self.containers.close)
            self.lives = Lives(self.containers, locks, self.database)
            self.skeletons = Skeletons(self.root_fd, path, locks, self.staging, self.database)
            self.snapshots = Snapshots(self.root_fd, path, self.staging, self.database, self.containers)
            self._share()
            on_failure.pop_all()

    @cached_property
    def networks(self) -> "Networks":
        """The networks, and who has what on them."""
        from pyrtc.store.networks import Networks  # what reads addresses is of no use to a start without a network

        return Networks(self.database)

    @property
    def root(self) -> "Path":
        """The directory as a path object; `path` is the same as a string."""
        from pathlib import Path  # three milliseconds that a start has no use for

        return Path(self.path)

    def with_own_directories(self, image_id: str, layers: tuple[str, ...]) -> tuple[str, ...]:
        """Return layers (top first) as this user's container can stand on them; see `pyrtc.store.skeletons`.

        The caller has the row of a container on this image already.
        """
        if not self.rootless or all(layer.startswith(f"{self.layers.path}/") for layer in layers):
            return layers
        if all(os.stat(os.path.dirname(layer)).st_uid == os.geteuid() for layer in layers):
            return layers
        return self.skeletons.above(image_id, layers)

    def additional_stores(self) -> "Sequence[AdditionalStore]":
        """Return the other stores that are read, opened when they are first asked for.

        Raises
        ------
        StoreError: one cannot be used.
        """
        if not self.settings.additional_stores:
            return ()
        with self._additional_lock:
            if self._additional is None:
                from pyrtc.store.additional import AdditionalStore

                opened = []
                for root in self.settings.additional_stores:
                    store = AdditionalStore(root, rootless=self.rootless)
                    self._open.callback(store.close)
                    opened.append(store)
                self._additional = tuple(opened)
            return self._additional

    @property
    def has_attributes(self) -> bool:
        """Whether files of the store can have user.* attributes."""
        if self._has_attributes is None:
            try:
                os.setxattr(self.root_fd, "user.pyrtc", b"")
                os.removexattr(self.root_fd, "user.pyrtc")
                self._has_attributes = True
            except OSError as error:
                self._has_attributes = error.errno != errno.EOPNOTSUPP
        return self._has_attributes

    def _open_root(self) -> int:
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open.callback(os.close, fd)
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            raise StoreError(
                f"the store {self.path} belongs to user {status.st_uid}, you are user {os.geteuid()}: "
                "choose another with --root or PYRTC_ROOT"
            )
        if self.settings.shared:
            self._check_sharing()
            os.fchmod(fd, 0o755)
        elif stat.S_IMODE(status.st_mode) & 0o077:
            # Layers hold set-uid programs: nobody but the owner may reach them from outside (CVE-2021-41091). A
            # directory with other things in it is not ours to close.
            names = set(os.listdir(fd))
            if names and "pyrtc.db" not in names:
                raise StoreError(f"{self.path} is not empty and is no store: choose another with --root or PYRTC_ROOT")
            os.fchmod(fd, 0o700)
        return fd

    def _check_sharing(self) -> None:
        """A program in a layer that is set-uid would be so for everybody who can reach it (CVE-2021-41091)."""
        if self.settings.shared != "trusted" and not os.statvfs(self.path).f_flag & os.ST_NOSUID:
            raise StoreError(
                f"the store {self.path} is to be shared, but set-uid programs in its layers would work for everybody "
                f"who can reach them: mount it with nosuid (mount -o bind,nosuid {self.path} {self.path}; containers "
                'are not affected), or write shared = "trusted" where every user of this machine is trusted'
            )

    def _open_directory(self, name: str) -> int:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self.root_fd)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=self.root_fd)
        self._open.callback(os.close, fd)
        if name in ("layers", "blobs"):
            open_to_others = bool(os.fstat(fd).st_mode & 0o005)
            if open_to_others != bool(self.settings.shared):
                os.fchmod(fd, 0o755 if self.settings.shared else 0o700)
        return fd

    def _share(self) -> None:
        """Let others read what was made before the store was shared."""
        path = f"{self.path}/pyrtc.db"
        if not self.settings.shared:
            return
        closed = not os.stat(path).st_mode & 0o004
        if closed or self.containers.specs.shows(self.database):
            self.containers.specs.hide(self.database)
        if closed:
            for suffix in ("", "-wal", "-shm"):  # SQLite gives the others the mode of the first when it makes them
                with suppress(FileNotFoundError):
                    os.chmod(f"{path}{suffix}", 0o644)
            self.blobs.share()

    def image(self, name_or_id: str) -> Image:
        """Find an image by name, id, or id prefix; cheap enough for every start (see `ImageTable.get`).

        Raises
        ------
        ImageNotFound: there is none; the text names similar ones.
        """
        return self.images.get(name_or_id)

    def reap(self) -> tuple[Reaped, ...]:
        """Put right what killed processes left of containers and unfinished work; cheap enough for every command."""
        self.snapshots.reap()
        reaped = self.containers.reap()
        with suppress(StoreError):  # what cannot be removed lies in tmp/, in nobody's way, and `sweep` says why
            self.staging.sweep()
            self.containers.sweep()
        return reaped

    def sweep(self, *, measure: bool = False, partials: bool = False) -> Swept:
        """Bring the whole store back to what its database says after processes were killed.

        measure: count what that frees on the disk. partials: remove what pulls that were interrupted have fetched, too,
        not only what is old.
        """
        freed = self._measure_leftovers() if measure else 0
        halves, of_halves = self.partials.sweep(**({"older": 0.0} if partials else {}))
        freed += of_halves
        snapshots = self.snapshots.sweep()
        reaped = self.containers.reap()
        removed = halves + snapshots + self.staging.sweep() + self.containers.sweep() + self.volumes.sweep()
        collected = self.collect(measure=measure)
        self.skeletons.sweep()
        self._sweep_locks(os.listdir(self._locks_fd))
        return Swept(reaped, removed + collected.trees, freed + (collected.freed or 0) if measure else None)

    def _measure_leftovers(self) -> int:
        abandoned = [record.id for record in self.containers.abandoned() if record.remove and record.directory]
        places = [(self.containers.fd, name) for name in (*abandoned, *self.containers.orphans())]
        places += [(self.root_fd, f"skeletons/{name}") for name in self.skeletons.unused()]
        places += [(self.root_fd, f"snapshots/{name}") for name in self.snapshots.orphans()]
        places += [(self.volumes.fd, name) for name in self.volumes.orphans()]
        places += [(self.staging.fd, name) for name in self.staging.abandoned()]
        freed = 0
        for parent_fd, name in places:
            with suppress(StoreError):  # gone, or nobody may read it
                freed += self.trees.measure(parent_fd, name)
        return freed

    def collect(self, *, measure: bool = False) -> Collected:
        """Remove layers that no image has, and trees and blobs that nothing names.

        measure: count what that frees on the disk, which takes a walk over the trees.
        """
        with self.layers.collecting():
            gone, trees = self.layers.collect()
            freed = self.blobs.collect(self.known_blobs())
        for tree in trees:
            if measure:
                freed += self.trees.measure(self.staging.fd, tree.name)
            self.staging.destroy(tree)
        return Collected(
            tuple(layer.diff_id for layer in gone),
            sum(layer.size for layer in gone),
            len(trees),
            freed if measure else None,
        )

    def collect_blobs(self) -> None:
        """Remove blobs that nothing names."""
        with self.layers.collecting():
            self.blobs.collect(self.known_blobs())

    def known_blobs(self) -> set[str]:
        """Return the digests of all blobs that something names."""
        rows = self.database.rows(
            "SELECT id FROM images UNION SELECT manifest FROM images UNION SELECT digest FROM layer_blobs"
        )
        return {row[0] for row in rows}

    def _sweep_locks(self, names: Sequence[str]) -> None:
        for name in names:
            lock = try_lock_file(self._locks_fd, name)
            if lock is not None:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._locks_fd)
                lock.close()

    def close(self) -> None:
        """Close the database and the directories. What others hold of this store stays valid on disk."""
        self._open.close()

    def __enter__(self) -> "Store":
        """Return the store."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()
