"""What a store takes on the disk and what a prune would give back, in blocks as the file system counts them."""

from collections.abc import Iterable

from pyrtc.errors import StoreError
from pyrtc.store.container_rows import ContainerRecord
from pyrtc.store.images import Image
from pyrtc.store.store import Store
from pyrtc.store.volumes import Volume
from pyrtc.values import dataclass

__all__ = ["ContainerUse", "DiskUsage", "ImageUse", "Use", "VolumeUse", "disk_usage"]


@dataclass(frozen=True, slots=True)
class Use:
    """One kind of things. active: how many are in use. size: bytes on the disk; reclaimable: of those nobody uses."""

    total: int
    active: int
    size: int
    reclaimable: int


@dataclass(frozen=True, slots=True)
class ImageUse:
    """An image. size: bytes of all that it consists of; shared: of what other images have, too; unique: of the rest."""

    image: Image
    size: int
    shared: int
    unique: int
    containers: int


@dataclass(frozen=True, slots=True)
class ContainerUse:
    """A container, and the bytes of what it has written."""

    container: ContainerRecord
    size: int


@dataclass(frozen=True, slots=True)
class VolumeUse:
    """A volume, its bytes, and how many containers mount it."""

    volume: Volume
    size: int
    containers: int


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """What a store takes.

    images, containers, volumes: reclaimable is what `pyrtc image prune -a`, `container prune` and `volume prune -a`
    would free; anonymous volumes go with their containers. snapshots: active are those on which containers or other
    snapshots stand; no prune removes any. leftovers: what processes left that were killed, which the
    next prune, load or removal frees; layers that came half, too, which `pyrtc system prune` frees, and time.
    """

    images: Use
    containers: Use
    volumes: Use
    snapshots: Use
    leftovers: Use
    image_details: tuple[ImageUse, ...]
    container_details: tuple[ContainerUse, ...]
    volume_details: tuple[VolumeUse, ...]


@dataclass(frozen=True, slots=True)
class _Thing:
    """Something on the disk and the images that it is for; without any it is left over."""

    size: int
    images: frozenset[str]


def disk_usage(store: Store) -> DiskUsage:
    """Measure a store. It may change meanwhile; what vanishes counts nothing.

    Raises
    ------
    StoreError: something in it cannot be read.
    """
    images = store.images.list()
    containers = store.containers.list()
    standing: dict[str, int] = {}
    for record in containers:
        standing[record.image_id] = standing.get(record.image_id, 0) + 1
    things = [*_layers(store), *_blobs(store)]
    held = {snapshot.image_id for snapshot in store.snapshots.list()}
    unused = {image.id for image in images if image.id not in standing and image.id not in held}
    details = tuple(_image_use(image, things, standing.get(image.id, 0)) for image in images)
    of_images = Use(
        total=len(images),
        active=len(images) - len(unused),
        size=sum(thing.size for thing in things if thing.images),
        reclaimable=sum(thing.size for thing in things if thing.images and thing.images <= unused),
    )
    container_details = tuple(
        ContainerUse(record, _measure(store, store.containers.fd, record.id) if record.directory else 0)
        for record in containers
    )
    volume_details = tuple(_volumes(store))
    ended = {record.id for record in containers if record.state == "exited"}
    users = store.volumes.users()
    return DiskUsage(
        images=of_images,
        containers=Use(
            total=len(containers),
            active=sum(record.state != "exited" for record in containers),
            size=sum(use.size for use in container_details),
            reclaimable=sum(use.size for use in container_details if use.container.state == "exited"),
        ),
        volumes=Use(
            total=len(volume_details),
            active=sum(use.containers > 0 for use in volume_details),
            size=sum(use.size for use in volume_details),
            # Anonymous volumes go with the last container that mounts them.
            reclaimable=sum(
                use.size
                for use in volume_details
                if not use.containers or (use.volume.anonymous and ended.issuperset(users[use.volume.name]))
            ),
        ),
        snapshots=_snapshots(store),
        leftovers=_leftovers(store, things),
        image_details=details,
        container_details=container_details,
        volume_details=volume_details,
    )


def _measure(store: Store, parent_fd: int, name: str) -> int:
    try:
        return store.trees.measure(parent_fd, name)
    except StoreError as error:
        import errno

        if getattr(error, "errno", 0) in (errno.ENOENT, errno.ENOTDIR):
            return 0
        raise


def _layers(store: Store) -> Iterable[_Thing]:
    users: dict[str, set[str]] = {}
    for key, image_id in store.database.rows("SELECT layer_key, image_id FROM image_layers"):
        users.setdefault(key, set()).add(image_id)
    for layer in store.layers.all():
        if not layer.place:
            yield _Thing(_measure(store, store.layers.fd, layer.key), frozenset(users.get(layer.key, ())))


def _blobs(store: Store) -> Iterable[_Thing]:
    """Blobs, and the directories that go with their last one."""
    import os

    users: dict[str, set[str]] = {}
    for image_id, manifest in store.database.rows("SELECT id, manifest FROM images"):
        for digest in (image_id, manifest):
            if digest is not None:
                users.setdefault(digest, set()).add(image_id)
    rows = store.database.rows(
        "SELECT layer_blobs.digest, image_id FROM layer_blobs JOIN layers ON layers.diff_id = layer_blobs.diff_id "
        "JOIN image_layers ON layer_key = layers.key"
    )
    for digest, image_id in rows:
        users.setdefault(digest, set()).add(image_id)
    for directory, digests in store.blobs.directories().items():
        of_directory: set[str] = set()
        for digest in digests:
            images = users.get(digest, set())
            of_directory |= images
            yield _Thing(store.blobs.allocated(digest), frozenset(images))
        yield _Thing(os.stat(directory, dir_fd=store.blobs.fd).st_blocks * 512, frozenset(of_directory))


def _image_use(image: Image, things: Iterable[_Thing], containers: int) -> ImageUse:
    mine = [thing for thing in things if image.id in thing.images]
    unique = sum(thing.size for thing in mine if len(thing.images) == 1)
    size = sum(thing.size for thing in mine)
    return ImageUse(image, size, size - unique, unique, containers)


def _volumes(store: Store) -> Iterable[VolumeUse]:
    users = store.volumes.users()
    for volume in store.volumes.list():
        yield VolumeUse(volume, _measure(store, store.volumes.fd, volume.name), len(users.get(volume.name, ())))


def _snapshots(store: Store) -> Use:
    snapshots = store.snapshots.list()
    return Use(
        total=len(snapshots),
        active=sum(bool(store.snapshots.users(snapshot.id)) for snapshot in snapshots),
        size=sum(_measure(store, store.root_fd, f"snapshots/{snapshot.id}") for snapshot in snapshots),
        reclaimable=0,
    )


def _leftovers(store: Store, things: Iterable[_Thing]) -> Use:
    with store.layers.collecting():
        trees = store.layers.orphans()
    sizes = [_measure(store, store.staging.fd, name) for name in store.staging.abandoned()]
    sizes += [_measure(store, store.layers.fd, name) for name in trees]
    sizes += [_measure(store, store.containers.fd, name) for name in store.containers.orphans()]
    sizes += [_measure(store, store.volumes.fd, name) for name in store.volumes.orphans()]
    sizes += [_measure(store, store.root_fd, f"skeletons/{name}") for name in store.skeletons.unused()]
    sizes += [_measure(store, store.root_fd, f"snapshots/{name}") for name in store.snapshots.orphans()]
    sizes += store.partials.abandoned()
    sizes += [thing.size for thing in things if not thing.images]
    return Use(len(sizes), 0, sum(sizes), sum(sizes))
