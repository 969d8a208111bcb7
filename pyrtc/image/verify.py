"""Holding a layer's files against the compressed form they came in, which is unpacked again to compare the trees."""

import os
import threading
from contextlib import ExitStack

from pyrtc.image.install import make_tree
from pyrtc.image.unpack import LayerWork, Region
from pyrtc.store import Layer, Store
from pyrtc.store.layer_blobs import KeptBlob
from pyrtc.store.placement import new_name
from pyrtc.store.trees import HashingReader

__all__ = ["same_as_it_came"]

_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def same_as_it_came(store: Store, layer: Layer) -> bool | None:
    """Say whether a layer's files are, byte for byte, what its kept blob unpacks to; None where no blob is kept.

    Takes the room of the layer once more, for a while.

    Raises
    ------
    ImageError, DigestMismatch: the blob is damaged. StoreError: no space.
    """
    blob = store.layer_blobs.find(layer.diff_id)
    lowers = _below(store, layer) if layer.depends else []
    if blob is None or lowers is None:
        return None
    with ExitStack() as stack:
        staging = stack.enter_context(store.staging.directory())
        root_fd = make_tree(staging, new_name("tree"))
        stack.callback(os.close, root_fd)
        lower_fds = []
        for path in lowers:
            lower_fds.append(os.open(path, _PATH))
            stack.callback(os.close, lower_fds[-1])
        _unpack(store, blob, layer, root_fd, lower_fds)
        there = os.open(store.layers.directory(layer.key), _PATH)
        stack.callback(os.close, there)
        return _digest(store, there) == _digest(store, root_fd)


def _below(store: Store, layer: Layer) -> list[str] | None:
    """Return the trees below a layer in an image that has it, top first; None if there is no image."""
    row = store.database.row("SELECT image_id, position FROM image_layers WHERE layer_key = ? LIMIT 1", (layer.key,))
    if row is None:
        return None
    image_id, position = row
    below = store.layers.of_image(image_id)[:position]
    return [store.layers.directory(other.key, other.place) for other in reversed(below)]


def _unpack(store: Store, blob: KeptBlob, layer: Layer, root_fd: int, lower_fds: list[int]) -> None:
    with store.layer_blobs.open(blob) as file:
        what = f"the blob {blob.digest}"
        source = Region(file.fileno(), 0, blob.size, what)
        work = LayerWork(store.trees, source, what, threading.Event(), blob.digest, layer.diff_id)
        work.unpack(root_fd, lower_fds)


def _digest(store: Store, root_fd: int) -> str:
    reader = HashingReader()
    try:
        store.trees.tardiff(root_fd, reader.write_fd)
    finally:
        reader.finish()
    return reader.digest
