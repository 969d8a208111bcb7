"""The images of a store as one object: load, import, save, list, look up, tag, remove."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pyrtc.errors import ImageError, ImageNotFound, UsageError
from pyrtc.events import emit
from pyrtc.image.config import ImageConfig
from pyrtc.image.platform import Platform
from pyrtc.image.reference import Reference
from pyrtc.moments import created_at
from pyrtc.store import Image, Store
from pyrtc.values import dataclass

# What each method works with is imported there: a pull that finds nothing new needs no archives and no decompressors.
if TYPE_CHECKING:
    from pyrtc.image.archive import Source
    from pyrtc.image.install import OnEvent
    from pyrtc.image.registry.progress import OnTransfer, PullResult, PushResult
    from pyrtc.image.save import ArchiveFormat, Saved

__all__ = ["Images", "Removed", "chosen_name"]


@dataclass(frozen=True, slots=True)
class Removed:
    """What a removal did.

    untagged: names taken away. deleted: ids of images, then diffIDs of layers, that are gone. reclaimed: bytes of file
    data; of a prune: that the disk has back.
    """

    untagged: tuple[str, ...]
    deleted: tuple[str, ...]
    reclaimed: int


class Images:
    """The images of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def load(
        self, source: "Source", *, platform: str | None = None, on_event: "OnEvent | None" = None
    ) -> tuple[Image, ...]:
        """Bring in every image of an archive: docker-archive, OCI archive (compressed or not), or ``oci:DIR[:NAME]``.

        Parameters
        ----------
        source: a path or an open binary file; a pipe is copied into the store first. platform: ``linux/arm64``; which
        variant to take where there are several; None for this machine's. on_event: called from worker threads as
        layers proceed.

        Returns
        -------
        The images, in the order of the archive. Either an image is in the store, verified and durable, or nothing of
        it is.

        Raises
        ------
        ImageError: the archive is damaged, hostile, or has nothing for the platform.
        DigestMismatch: content is not what it is named after.
        StoreError: no space, no rights.
        """
        from pyrtc.image.archive import open_archive
        from pyrtc.image.install import install

        wanted = Platform.parse(platform) if platform else None
        ids = []
        with open_archive(self._store, source, wanted) as images:
            for image in images:
                ids.append(install(self._store, image, on_event).id)
                self._tell("load", ids[-1], ids[-1])
        # Looked up at the end: a later image of the archive may have taken a name from an earlier one.
        return tuple(self._store.image(image_id) for image_id in ids)

    def pull(
        self,
        name: str,
        *,
        platform: str | None = None,
        on_event: "OnTransfer | None" = None,
        downloads: int = 4,
    ) -> "PullResult":
        """Bring an image here from its registry: only the layers that the store lacks, and each of them once.

        An image that is here as the registry has it costs one request; one that was asked for by its digest none.

        Parameters
        ----------
        name: as Docker reads it, ``debian`` is ``docker.io/library/debian:latest``. platform: ``linux/arm64``; which
        variant to take where there are several; None for this machine's. on_event: called as layers proceed, from the
        threads that do the work, one at a time. downloads: layers that are fetched at once.

        Returns
        -------
        The image, and for each layer what came over the network for it.

        Raises
        ------
        ImageNotFound: the registry has no such image. RegistryUnreachable, RegistryBusy: it cannot be reached, or not
        now. RegistryDenied: it wants other credentials. RegistryError: it breaks its protocol. DigestMismatch: what
        came is not what was asked for. ImageError: it is no container image, or has nothing for the platform.
        StoreError: no space, no rights.
        """
        from pyrtc.image.registry.pull import pull

        wanted = Platform.parse(platform) if platform else None
        return pull(self._store, Reference.parse(name), platform=wanted, on_event=on_event, downloads=downloads)

    def tags(self, name: str) -> tuple[str, ...]:
        """Return the tags that a repository has at its registry, in the registry's order.

        Parameters
        ----------
        name: without a tag.

        Raises
        ------
        ImageNotFound: there is no such repository. UsageError: the name has a tag. RegistryUnreachable, RegistryBusy,
        RegistryDenied, RegistryError: as in `pull`.
        """
        from pyrtc.image.registry.inspect import list_tags

        return list_tags(Reference.parse(name))

    def push(self, name: str, *, on_event: "OnTransfer | None" = None, uploads: int = 4) -> "PushResult":
        """Send an image to the registry that its name says: only what that lacks.

        What other repositories of the registry are known to have is taken over from there. The manifest goes out byte
        for byte as it came, unless a layer is no longer kept in the form it came in; `PushResult.changed` says so.

        Parameters
        ----------
        name: a name of the image; its tag, ``latest`` without one, is what the registry gets. on_event: as in `pull`.
        uploads: layers that are sent at once.

        Raises
        ------
        ImageNotFound: the store has no such image. UsageError: the name has a digest. RegistryUnreachable,
        RegistryBusy, RegistryDenied, RegistryError: as in `pull`. StoreError: a layer cannot be read.
        """
        from pyrtc.image.registry.push import push

        _refuse_snapshot(name, "pushed")
        return push(self._store, Reference.parse(name), on_event=on_event, uploads=uploads)

    def import_(
        self,
        source: "Source",
        name: str | None = None,
        *,
        changes: Sequence[str] = (),
        message: str = "",
        platform: str | None = None,
    ) -> Image:
        """Make an image of one layer from a tar of a root file system, plain or compressed.

        Parameters
        ----------
        source: a path or an open binary file, read once from where it is. name: None for an image without a name.
        changes: lines in Dockerfile's words, ``CMD ["sh"]``, ``ENV A=b``; see `pyrtc.image.changes`. message: for the
        history. platform: what the files are built for; None for this machine's.

        Raises
        ------
        ImageError, UsageError, StoreError: as `load`.
        """
        reference = chosen_name(name) if name else None
        wanted = Platform.parse(platform) if platform else Platform.host()
        from pyrtc.image.rootfs import import_rootfs

        made = import_rootfs(self._store, source, reference, changes, message, wanted)
        self._tell("import", made.id, reference.familiar if reference is not None else made.id)
        return made

    def list(self) -> tuple[Image, ...]:
        """Return all images, the newest in the store first."""
        return self._store.images.list()

    def get(self, name_or_id: str) -> Image:
        """Find one image.

        Raises
        ------
        ImageNotFound: there is none.
        """
        return self._store.image(name_or_id)

    def documents(self, image: Image) -> tuple[bytes, bytes | None]:
        """Return an image's config document and, where it came with one, its manifest, byte for byte."""
        return self._store.images.documents(image)

    def layer_sizes(self, image: Image) -> tuple[int, ...]:
        """Return the bytes of file data in each layer, bottom first."""
        home = next((other for other in self._store.additional_stores() if other.root == image.place), self._store)
        return tuple(layer.size for layer in home.layers.of_image(image.id))

    def tag(self, name_or_id: str, name: str) -> None:
        """Give an image another name; if another image has it, it moves.

        Raises
        ------
        ImageNotFound: there is no such image. ImageError: the name is none. UsageError: it has a digest.
        """
        reference = chosen_name(name)
        if reference.digest is not None:
            raise UsageError(f"refusing to create a tag with a digest reference: {name}")
        image = self._own(name_or_id)
        with self._store.database.writing(durable=True) as connection:
            if not self._store.images.tag(connection, image.id, reference):
                raise ImageNotFound(f"No such image: {name_or_id}: it was removed meanwhile")
        self._tell("tag", image.id, reference.familiar)

    def save(
        self,
        names: Sequence[str],
        target: int | str | os.PathLike[str],
        *,
        format: "ArchiveFormat" = "docker-archive",
    ) -> "tuple[Saved, ...]":
        """Write images into one archive; a layer that several have is in it once.

        Parameters
        ----------
        names: names or ids; by an id an image is saved without a name. target: the path of a file, which appears whole
        or not at all, or an open descriptor, which may be a pipe. format: ``docker-archive`` or ``oci-archive``.

        Returns
        -------
        What is in the archive. An image whose layers are not kept in the form they came in may have another digest or
        id there; `Saved.changed` says so.

        Raises
        ------
        ImageNotFound: there is none of that name. StoreError: a layer is damaged, or the archive cannot be written.
        """
        from pyrtc.image.save import save

        for name in names:
            _refuse_snapshot(name, "saved")
        saved = save(self._store, names, target, format)
        for item in saved:
            self._tell("save", item.image.id, item.names[0] if item.names else item.image.id)
        return saved

    def remove(self, name_or_id: str, *, force: bool = False) -> Removed:
        """Remove an image, or one of its names.

        By a name of several, only that name goes. By its last name or its id the image goes, with every layer that no
        other image has. An id of an image with names in several repositories needs force, and so does one that a
        container which has ended stands on; then only its names go, and the image itself with its last container and
        the next removal.

        Raises
        ------
        ImageNotFound: there is none. ImageError: it needs force, or a container runs on it.
        """
        image = self._own(name_or_id)
        name = self._name_of(image, name_or_id)
        if name is not None and len(image.names) > 1:
            with self._store.database.writing(durable=True) as connection:
                self._store.images.untag(connection, name)
            self._tell("untag", image.id, name.familiar)
            return Removed((name.familiar,), (), 0)
        if name is None and not force and len({item.rpartition(":")[0] for item in image.names}) > 1:
            raise ImageError(
                f"conflict: unable to delete {_short(image)} (must be forced) - image is referenced in multiple "
                "repositories"
            )
        with self._store.database.writing(durable=True) as connection:
            # In the transaction: a container that is being made at this moment is either seen here, or sees no image.
            users = connection.execute(
                "SELECT id, state FROM containers WHERE image_id = ?1 "
                "UNION ALL SELECT id, 'snapshot' FROM snapshots WHERE image_id = ?1",
                (image.id,),
            ).fetchall()
            self._refuse_used(image, name, users, force)
            for item in image.names:
                self._store.images.untag(connection, Reference.parse(item))
            if not users:
                self._store.images.delete(connection, image.id)
        for item in image.names:
            self._tell("untag", image.id, item)
        if users:
            return Removed(image.names, (), 0)
        self._tell("delete", image.id, image.id)
        collected = self._store.collect()
        return Removed(image.names, (image.id, *collected.diff_ids), collected.size)

    def _own(self, name_or_id: str) -> Image:
        image = self._store.image(name_or_id)
        if image.place:
            raise ImageError(
                f"image {name_or_id} is in the additional store {image.place}, which is only read: load or pull it "
                "into your own store first"
            )
        return image

    def _name_of(self, image: Image, text: str) -> Reference | None:
        """Return the name that text means, None when it means the id."""
        try:
            reference = Reference.parse(text).with_default_tag()
        except ImageError:
            return None
        if reference.familiar in image.names:
            return reference
        if reference.digest is not None:  # name@digest: the name of that repository
            return next(
                (item for item in map(Reference.parse, image.names) if item.repository == reference.repository), None
            )
        return None

    def _refuse_used(self, image: Image, name: Reference | None, users: Sequence[tuple[str, str]], force: bool) -> None:
        for container_id, state in users:
            if state == "snapshot" and (not force or not image.names):
                raise ImageError(
                    f"conflict: unable to delete {_short(image)} (must be forced) - snapshot {container_id[:12]} "
                    "stands on it: remove that first (pyrtc snapshot rm)"
                )
            if state == "snapshot":
                continue
            if state not in ("created", "exited"):
                raise ImageError(
                    f"conflict: unable to delete {_short(image)} (cannot be forced) - image is being used by running "
                    f"container {container_id[:12]}"
                )
            if name is not None and not force:
                raise ImageError(
                    f'conflict: unable to remove repository reference "{name.familiar}" (must force) - container '
                    f"{container_id[:12]} is using its referenced image {_short(image)}"
                )
            if not force or not image.names:
                raise ImageError(
                    f"conflict: unable to delete {_short(image)} (must be forced) - image is being used by stopped "
                    f"container {container_id[:12]}"
                )

    def prune(
        self,
        *,
        all_unused: bool = False,
        passes: Callable[[float, Sequence[tuple[str, str]]], bool] = lambda created, labels: True,
    ) -> Removed:
        """Remove every image without a name that no container stands on; with all_unused those with names, too.

        passes: says of an image's time (seconds since the epoch) and labels whether it may go.
        """
        with self._store.database.writing(durable=True) as connection:
            condition = "" if all_unused else "id NOT IN (SELECT image_id FROM names) AND "
            rows = connection.execute(
                "SELECT id, config, created, loaded FROM images "  # noqa: S608
                f"WHERE {condition}id NOT IN (SELECT image_id FROM containers UNION SELECT image_id FROM snapshots)"
            ).fetchall()
            gone = [
                image_id
                for image_id, config, created, loaded in rows
                if passes(created_at(created, loaded), ImageConfig.loads(config).labels)
            ]
            untagged = []
            for image_id in gone:
                names = connection.execute("SELECT name FROM names WHERE image_id = ? ORDER BY name", (image_id,))
                untagged += [(image_id, Reference.parse(name).familiar) for (name,) in names]
                self._store.images.delete(connection, image_id)
        for image_id, name in untagged:
            self._tell("untag", image_id, name)
        for image_id in gone:
            self._tell("delete", image_id, image_id)
        collected = self._store.collect(measure=True)
        freed = collected.freed or 0
        emit(self._store, "image", "prune", "", {"reclaimed": str(freed)})
        return Removed(tuple(name for _, name in untagged), (*gone, *collected.diff_ids), freed)

    def _tell(self, action: str, id: str, name: str) -> None:
        emit(self._store, "image", action, id, {"name": name})


def chosen_name(name: str) -> Reference:
    """Read a name that somebody gives to an image; one that `run` would take for something else is refused."""
    reference = Reference.parse(name).with_default_tag()
    if reference.familiar == "host:latest":
        raise UsageError(f"the name {name} cannot be given: 'host' is this system's own root; choose another")
    if reference.familiar.startswith("snapshot:"):
        raise UsageError(f"the name {name} cannot be given: 'snapshot:NAME' means a snapshot; choose another")
    return reference


def _refuse_snapshot(name: str, what: str) -> None:
    if str(name).startswith("snapshot:"):
        raise UsageError(
            f"{name} cannot be {what}: a snapshot belongs to its store; commit a container that stands on it "
            "(pyrtc commit), which makes an image"
        )


def _short(image: Image) -> str:
    return image.id.removeprefix("sha256:")[:12]
