"""What a start needs of its image, which may be a snapshot on one, or the running system."""

from typing import TYPE_CHECKING

from pyrtc.errors import ImageNotFound, StoreError, UnsupportedError, UsageError
from pyrtc.image.config import ImageConfig
from pyrtc.runtime import roots
from pyrtc.runtime.spec import host_config
from pyrtc.store import Image, Store
from pyrtc.values import dataclass, replace

if TYPE_CHECKING:
    from pyrtc.snapshots import Snapshot

__all__ = ["HOST_IMAGE", "StartImage", "find_image"]

HOST_IMAGE = "host"
SNAPSHOT = "snapshot:"


@dataclass(frozen=True, slots=True)
class StartImage:
    """What a start needs of an image: id, config, layers from the top; root of the store that has it if not this.

    snapshot: id of one that lies on the image. above: the trees of it and of those below it, from the top.
    """

    id: str
    config: ImageConfig
    layers: tuple[str, ...]
    place: str = ""
    snapshot: str = ""
    above: tuple[str, ...] = ()


_host: StartImage | None = None


def find_image(store: Store, image: "str | Snapshot", platform: str | None) -> StartImage:
    """Return what a start needs of the image of this name or id, or of a snapshot (``snapshot:NAME``).

    Raises
    ------
    ImageNotFound, StoreError, UnsupportedError, UsageError: there is none, or it cannot be run.
    """
    name = str(image)
    if name.startswith(SNAPSHOT):
        return _find_snapshot(store, name.removeprefix(SNAPSHOT), platform)
    if name == HOST_IMAGE:
        global _host
        if _host is None:
            _host = StartImage(HOST_IMAGE, host_config(), roots.HOST_LAYERS)
        return _host
    found = store.image(name)
    if found.obstacle:
        raise UnsupportedError(f"cannot use image {name}: {found.obstacle}")
    if found.damaged:
        raise StoreError(f"image {name} is damaged in the store {store.root}: load or pull it again")
    if not found.layers:
        raise UsageError(f"image {name} has no layers: there is nothing in it to run")
    if platform is not None:
        _check_platform(name, found, platform)
    return StartImage(found.id, found.config, roots.visible_layers(found.layers), found.place)


def _find_snapshot(store: Store, name: str, platform: str | None) -> StartImage:
    record = store.snapshots.get(name)
    chain = store.snapshots.chain(record.id)
    store.snapshots.check(chain)
    image = find_image(store, record.image_id, platform)
    return replace(image, snapshot=record.id, above=tuple(item.path for item in chain))


def _check_platform(name: str, image: Image, platform: str) -> None:
    from pyrtc.image.platform import Platform

    offered = Platform(image.os, image.architecture, image.variant)
    if Platform.parse(platform).rank(offered) is None:
        raise ImageNotFound(f"image {name} was found but is for {offered}, not for {platform}: load that variant of it")
