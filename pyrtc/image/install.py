"""Putting an image into the store: its missing layers unpacked side by side, everything durable, then named at once."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal

from pyrtc import core
from pyrtc.errors import ImageError, PyrtcError
from pyrtc.image.cancelled import Cancelled
from pyrtc.image.config import ImageConfig
from pyrtc.image.keep import StagedBlob
from pyrtc.image.model import ConfigDocument
from pyrtc.image.platform import Platform
from pyrtc.image.reference import Reference
from pyrtc.image.unpack import LayerBlob, LayerWork, Unpacked
from pyrtc.store import Image, Layer, Store
from pyrtc.store.layer_blobs import KeptBlob
from pyrtc.store.layers import chain_ids
from pyrtc.store.placement import new_name, spread_over_disk
from pyrtc.store.trees import Fingerprint
from pyrtc.values import dataclass

__all__ = [
    "ImageEvent",
    "LayerEvent",
    "NewImage",
    "OnEvent",
    "Published",
    "check_platform",
    "install",
    "layer_record",
    "make_tree",
    "new_image",
    "publish",
]

_MAX_WORKERS = 4  # layers at once: each keeps two threads busy
_ATTEMPTS = 5  # how often layers that were there may be removed by others while the rest is unpacked
_WRITE_EARLY = 32 << 20  # bytes of unpacked files after which the disk is told to begin
_ROUNDS = 1000  # how often others may make or remove layers while this one waits for its locks


@dataclass(frozen=True, slots=True)
class LayerEvent:
    """What happens to a layer. size: bytes of file data, known when it is done."""

    diff_id: str
    state: Literal["exists", "unpacking", "done"]
    size: int = 0


@dataclass(frozen=True, slots=True)
class ImageEvent:
    """An image is in the store. names: familiar ones that the archive gave it."""

    image_id: str
    names: tuple[str, ...]


Made = tuple[Unpacked, Fingerprint]
OnEvent = Callable[[LayerEvent | ImageEvent], None]


@dataclass(frozen=True, slots=True)
class NewImage:
    """A verified set of documents with the places of its layers.

    layers: bottom first, one per diffID of the config. repository, target: where it is pulled from
    (``host[:port]/path``), and the digest of the manifest or index that the names have there.
    """

    names: tuple[Reference, ...]
    config: ImageConfig
    config_document: bytes
    config_digest: str
    manifest_document: bytes | None
    manifest_digest: str | None
    created: str
    platform: tuple[str, str, str]
    layers: tuple[LayerBlob, ...]
    repository: str | None = None
    target: str | None = None

    @property
    def diff_ids(self) -> list[str]:
        """The digests of the uncompressed layers, bottom first."""
        return [layer.diff_id for layer in self.layers]


def new_image(
    names: tuple[Reference, ...],
    config: ConfigDocument,
    config_document: bytes,
    config_digest: str,
    manifest_document: bytes | None,
    manifest_digest: str | None,
    layers: tuple[LayerBlob, ...],
) -> NewImage:
    """Return the image that these verified documents describe."""
    platform = config.platform
    return NewImage(
        names=names,
        config=config.extract(),
        config_document=config_document,
        config_digest=config_digest,
        manifest_document=manifest_document,
        manifest_digest=manifest_digest,
        created=config.created_text,
        platform=(platform.os, platform.architecture, platform.variant),
        layers=layers,
    )


def check_platform(config: ConfigDocument, wanted: Platform | None, what: str, where: str) -> None:
    """Hold an image's config, named what, against the platform that was asked for; None is any.

    Raises
    ------
    ImageError: it is for another one.
    """
    if wanted is not None and wanted.rank(config.platform) is None:
        raise ImageError(f"no image for {wanted} in {where}; {what} is for {config.platform}")


def install(store: Store, image: NewImage, on_event: OnEvent | None = None) -> Image:
    """Unpack what the store lacks of an image and give it its names.

    If it fails or is killed at any moment, the image is not there, and what was unpacked is removed, by this call or
    by the next `Store.sweep`.

    Raises
    ------
    ImageError, DigestMismatch: the archive is not what it says. StoreError: no space, no rights.
    """
    report = on_event or (lambda event: None)
    attempts, rounds = _ATTEMPTS, _ROUNDS
    missing = _missing(image, store.layers.find(image.diff_ids))
    while attempts and rounds:
        published = Published(complete=False)
        # Whoever wants the same layers waits here, and finds them done. The last attempt keeps others from removing
        # layers; it makes them wait, so it is not the first.
        with store.layers.locked(missing), store.layers.publishing() if attempts == 1 else nullcontext():
            # From here on this look counts: a layer that goes after it is not made here, because its lock is not held.
            found = store.layers.find(image.diff_ids)
            if _missing(image, found) == missing:
                attempts -= 1
                published = _Installation(store, image, report).run(found)
        if published.replaced:
            store.collect_blobs()
        if published.complete:
            report(ImageEvent(image.config_digest, tuple(name.familiar for name in image.names)))
            return store.image(image.config_digest)
        # Others made or removed some: whoever waits for those that are made now need not wait for the rest, too.
        missing = _missing(image, store.layers.find(image.diff_ids))
        rounds -= 1
    raise ImageError("other commands keep removing layers that this image needs: try again when they are done")


def _missing(image: NewImage, found: Sequence[Layer | None]) -> list[str]:
    return [diff_id for diff_id, layer in zip(image.diff_ids, found, strict=True) if layer is None]


class _LowerGone(Exception):
    """A layer that was there has been removed; never seen outside."""


class _Installation:
    """One attempt; the caller holds the locks of the missing layers."""

    def __init__(self, store: Store, image: NewImage, report: OnEvent) -> None:
        self._store = store
        self._image = image
        self._report = report
        self._chain = chain_ids(image.diff_ids)
        self._cancelled = threading.Event()
        self._staging = -1
        self._made: dict[int, tuple[str, Layer]] = {}  # by position: (name in staging, layer)
        self._kept: dict[str, StagedBlob] = {}  # by diffID
        self._lowers: dict[int, int] = {}  # by position: the open tree of the store that others were unpacked above

    def run(self, found: Sequence[Layer | None]) -> "Published":
        """Do it; not complete when a layer that was there has been removed meanwhile.

        found: what was there when the locks of all others were held.
        """
        for layer in found:
            if layer is not None:
                self._report(LayerEvent(layer.diff_id, "exists", layer.size))
        missing = [position for position, layer in enumerate(found) if layer is None]
        with self._store.staging.directory() as self._staging, ExitStack() as opened:
            if missing:
                try:
                    self._unpack_all(found, opened)
                except _LowerGone:
                    return Published(complete=False)
                except PyrtcError:
                    if self._lowers_stayed(found):
                        raise
                    return Published(complete=False)  # it may have failed on what was being removed
                # One call for all trees. What is not on the disk has no row; what has a row survives a power failure.
                core.sync_filesystem(self._staging)
            return self._publish(found)

    def _unpack_all(self, found: Sequence[Layer | None], opened: ExitStack) -> None:
        """Unpack the missing layers, several at a time.

        Each is tried alone first, which is right for nearly all; those on which the layers below have a say follow when
        everything below them is there.
        """
        first: dict[str, list[int]] = {}
        for position, layer in enumerate(found):
            if layer is None:
                first.setdefault(self._image.diff_ids[position], []).append(position)
        workers = min(_MAX_WORKERS, os.cpu_count() or 1, len(first))
        running: dict[Future[Made | None], tuple[str, tuple[int, ...]]] = {}
        waiting: list[int] = []
        unwritten = 0
        with ThreadPoolExecutor(1, "pyrtc-sync") as syncing, ThreadPoolExecutor(workers, "pyrtc-unpack") as pool:
            try:
                # The largest first: one that begins last would be unpacked alone, and other processors idle meanwhile.
                order = sorted(first.values(), key=lambda positions: -self._image.layers[positions[0]].source.size)
                for positions in order:
                    self._image.layers[positions[0]].source.start()
                for positions in order:
                    name = new_name(str(positions[0]))
                    running[pool.submit(self._unpack, positions[0], name, None)] = (name, tuple(positions))
                while running:
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        name, positions_done = running.pop(future)
                        made = future.result()
                        if made is None:
                            waiting += positions_done
                            continue
                        for position in positions_done:
                            self._made[position] = (name, self._layer(position, *made))
                        if made[0].kept is not None:
                            self._kept[made[0].diff_id] = made[0].kept
                        unwritten += made[0].result.bytes
                    if unwritten >= _WRITE_EARLY and running:
                        # The disk works while the rest is unpacked; the sync that counts, at the end, finds it done.
                        syncing.submit(core.sync_filesystem, self._staging)
                        unwritten = 0
                    for position in self._ready(waiting, found):
                        waiting.remove(position)
                        lowers = [self._open_tree(below, found, opened) for below in reversed(range(position))]
                        name = new_name(f"{position}-above")
                        running[pool.submit(self._unpack, position, name, lowers)] = (name, (position,))
            except BaseException:
                self._cancelled.set()
                raise

    def _ready(self, waiting: Sequence[int], found: Sequence[Layer | None]) -> list[int]:
        """Return the layers that wait for nothing more."""
        return [
            position
            for position in waiting
            if all(found[below] is not None or below in self._made for below in range(position))
        ]

    def _open_tree(self, position: int, found: Sequence[Layer | None], stack: ExitStack) -> int:
        layer = found[position]
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        if layer is None:
            fd = os.open(self._made[position][0], flags, dir_fd=self._staging)
        elif position in self._lowers:
            return self._lowers[position]
        else:
            try:
                fd = os.open(self._store.layers.directory(layer.key, layer.place), flags)
            except FileNotFoundError:
                raise _LowerGone(layer.diff_id) from None
            self._lowers[position] = fd
        stack.callback(os.close, fd)
        return fd

    def _lowers_stayed(self, found: Sequence[Layer | None]) -> bool:
        """Say whether the trees that others were unpacked above are still the ones that have their names.

        One that was removed and made again meanwhile has a row as before; but what was unpacked above it may have seen
        it half removed. Its directory is another one then: this one is open, so its inode cannot have come back.
        """
        for position, fd in self._lowers.items():
            layer = found[position]
            assert layer is not None
            try:
                now = Path(self._store.layers.directory(layer.key, layer.place)).lstat()
            except FileNotFoundError:
                return False
            if not os.path.samestat(now, os.fstat(fd)):
                return False
        return True

    def _unpack(self, position: int, name: str, lowers: Sequence[int] | None) -> Made | None:
        """Unpack one layer above lowers; with None alone, giving up where it cannot be. The bottom one always can."""
        if self._cancelled.is_set():
            raise Cancelled("cancelled")
        blob = self._image.layers[position]
        self._report(LayerEvent(blob.diff_id, "unpacking"))
        work = LayerWork(
            self._store.trees,
            blob.source,
            blob.source.what,
            self._cancelled,
            blob.digest,
            blob.diff_id,
            keep=staged_blob(self._store, self._staging, position),
            media_type=blob.media_type,
            put=blob.source.put,
        )
        root_fd = make_tree(self._staging, name)
        try:
            unpacked = work.unpack_alone(root_fd) if lowers is None and position else work.unpack(root_fd, lowers or ())
            if unpacked is None:
                return None
            fingerprint = self._store.trees.fingerprint(root_fd)
        finally:
            os.close(root_fd)
        self._report(LayerEvent(blob.diff_id, "done", unpacked.result.bytes))
        return unpacked, fingerprint

    def _layer(self, position: int, unpacked: Unpacked, fingerprint: Fingerprint) -> Layer:
        chain_id = self._chain[position]
        depends = unpacked.result.depends
        name = unpacked.diff_id if depends == 0 else chain_id
        return layer_record(name, chain_id, unpacked, fingerprint, self._image.layers[position].media_type)

    def _publish(self, found: Sequence[Layer | None]) -> "Published":
        made = list({layer.key: (name, layer) for name, layer in self._made.values()}.values())
        stack = [layer if layer is not None else self._made[position][1] for position, layer in enumerate(found)]
        used = [layer.key for layer in found if layer is not None]
        kept = list(self._kept.values())
        stayed = partial(self._lowers_stayed, found)
        return publish(self._store, self._staging, self._image, made, stack, used, kept, stayed)


def staged_blob(store: Store, staging_fd: int, position: int) -> tuple[int, str] | None:
    """Return where the compressed form of a layer goes; None where it is not kept."""
    return (staging_fd, f"{position}.blob") if store.settings.blobs == "keep" else None


def layer_record(name: str, chain_id: str, unpacked: Unpacked, fingerprint: Fingerprint, media_type: str) -> Layer:
    """Return the row of a layer that was just unpacked; name: the digest that becomes its key."""
    algorithm, _, value = name.partition(":")
    return Layer(
        key=value if algorithm == "sha256" else f"{algorithm}-{value}",
        diff_id=unpacked.diff_id,
        chain_id=chain_id,
        depends=unpacked.result.depends,
        entries=unpacked.result.entries,
        size=unpacked.result.bytes,
        skipped=unpacked.result.skipped,
        blob_digest=unpacked.blob_digest,
        blob_size=unpacked.blob_size,
        media_type=media_type,
        tar_size=unpacked.result.stream_bytes,
        tree=fingerprint.tree,
        opaque=fingerprint.opaque,
    )


@dataclass(frozen=True, slots=True)
class Published:
    """What `publish` did.

    complete: everything has its name. replaced: the image had another manifest before, which nothing names now; it is
    for `Store.collect_blobs` once no lock of layers is held.
    """

    complete: bool
    replaced: bool = False


def publish(
    store: Store,
    staging_fd: int,
    image: NewImage,
    made: Sequence[tuple[str, Layer]],
    stack: Sequence[Layer],
    used: Sequence[str],
    kept: Sequence[StagedBlob] = (),
    stayed: Callable[[], bool] = lambda: True,
) -> Published:
    """Give durable trees, blobs and documents their names and write all rows in one transaction.

    made: trees in staging that are new; the caller holds their locks. stack: all layers of the image, bottom first.
    used: keys of layers that were there; if one has gone, nothing is published. kept: compressed layers in staging.
    stayed: says so of what else must not have changed, at a moment when nobody removes layers.
    """
    replaced = False
    with store.layers.publishing():
        try:
            store.layers.publish(staging_fd, made)
            changed = store.blobs.publish(staging_fd, image.config_document, image.config_digest)
            if image.manifest_document is not None and image.manifest_digest is not None:
                changed |= store.blobs.publish(staging_fd, image.manifest_document, image.manifest_digest)
            for blob in kept:
                changed |= store.blobs.publish_file(staging_fd, blob.name, blob.digest)
            # All names are on the disk before the rows are. Where there are trees, the file system was written a moment
            # ago: this is one more commit of its journal, where each directory by itself would be one, too.
            if made:
                core.sync_filesystem(staging_fd)
            else:
                store.blobs.sync(changed)
            with store.database.writing(durable=True) as connection:
                store.layers.borrow(connection, stack)
                complete = store.layers.exist(connection, used) and stayed()
                if complete:
                    store.layers.record(connection, [layer for _, layer in made])
                    store.layer_blobs.record(
                        connection, [KeptBlob(blob.digest, blob.diff_id, blob.size, blob.media_type) for blob in kept]
                    )
                    replaced = store.images.add(
                        connection,
                        image.config_digest,
                        manifest=image.manifest_digest,
                        config=image.config,
                        size=sum(layer.size for layer in stack),
                        created=image.created,
                        platform=image.platform,
                        layer_keys=[layer.key for layer in stack],
                        names=image.names,
                        target=image.target,
                    )
                    if image.repository is not None:
                        digests = [layer.digest for layer in image.layers if layer.digest is not None]
                        store.repositories.record(connection, image.repository, digests)
        except BaseException:
            store.layers.withdraw(made)
            raise
        if not complete:
            store.layers.withdraw(made)
    return Published(complete, replaced)


def make_tree(staging_fd: int, name: str) -> int:
    """Make the directory that becomes a layer: an image without an entry for its root has root's usual mode there.

    name: `new_name` makes one.
    """
    spread_over_disk(staging_fd)
    os.mkdir(name, 0o755, dir_fd=staging_fd)
    os.chmod(name, 0o755, dir_fd=staging_fd)  # noqa: S103  (whatever the umask says)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staging_fd)
