"""The store: images, layers, containers and volumes on disk, shared by every process of one user without a daemon."""

from pyrtc.store.containers import ContainerRecord, Reaped
from pyrtc.store.images import Image
from pyrtc.store.layers import Layer
from pyrtc.store.owner import Owner, process_start_time
from pyrtc.store.store import Collected, Store, Swept, default_root
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
