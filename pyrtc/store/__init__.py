"""The store: images, layers, containers and volumes on disk, shared by every process of one user without a daemon."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrtc.store.container_rows import ContainerRecord
    from pyrtc.store.containers import Reaped
    from pyrtc.store.images import Image
    from pyrtc.store.layers import Layer
    from pyrtc.store.owner import Owner, process_start_time
    from pyrtc.store.root import default_root
    from pyrtc.store.store import Collected, Store, Swept
    from pyrtc.store.volumes import Volume

__all__ = [
    "Collected",
    "ContainerRecord",
    "Image",
    "Layer",
    "Owner",
    "Reaped",
    "Store",
    "Swept",
    "Volume",
    "default_root",
    "process_start_time",
]

# A list of images must not pay for what starts containers.
_HOMES = {
    "Collected": "store",
    "ContainerRecord": "container_rows",
    "Image": "images",
    "Layer": "layers",
    "Owner": "owner",
    "Reaped": "containers",
    "Store": "store",
    "Swept": "store",
    "Volume": "volumes",
    "default_root": "root",
    "process_start_time": "owner",
}


def __getattr__(name: str) -> object:
    """Import a name at its first use."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"pyrtc.store.{_HOMES[name]}"), name)
    return value
