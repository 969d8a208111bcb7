"""An image from an image and trees above it: each tree becomes a layer.

A tree is written as a layer's tar, which is hashed and unpacked at the same time into a tree of the store; so the layer
is, file for file, what everybody gets who loads or pulls the image. Its compressed form is not made here, whatever the
setting `blobs` says: many commits are never pushed, and `push` and `save` make it, the same way every time.
"""

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pyrtc import core
from pyrtc.errors import ImageError, PyrtcError, StoreError
from pyrtc.image import model
from pyrtc.image.install import NewImage, layer_record, make_tree, publish
from pyrtc.image.reference import Reference
from pyrtc.image.reproducible import created_now, latest_time
from pyrtc.image.unpack import Unpacked
from pyrtc.store import Image, Layer, Store
from pyrtc.store.descriptors import Private
from pyrtc.store.layers import chain_ids
from pyrtc.store.placement import new_name
from pyrtc.store.trees import HashingReader
from pyrtc.values import dataclass

__all__ = ["History", "NewLayer", "commit_layers"]

_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_ATTEMPTS = 5
_PIPE_SIZE = 1 << 20
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class NewLayer:
    """A tree that becomes a layer. tree_fd: as overlayfs stacks it. left_out: paths in it that are not the layer's."""

    tree_fd: int
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class History:
    """What the image's history says of the new layers."""

    author: str = ""
    message: str = ""
    created_by: str = ""


def commit_layers(
    store: Store,
    base: Image,
    layers: Sequence[NewLayer],
    name: Reference | None,
    config: Callable[[dict[str, Any]], None],
    history: History,
    read: Callable[[], None] = lambda: None,
) -> Image:
    """Make an image.

    Parameters
    ----------
    base: what it stands on. layers: bottom first. config: changes the ``config`` part of its document. read: called
    when the trees are needed no longer.

    Raises
    ------
    ImageError: the image would have more layers than can be stacked. StoreError: a tree cannot be read or is one that
    no layer can be, no space, the base has gone.
    """
    latest = latest_time()
    base_document = json.loads(store.images.documents(base)[0])
    below = list(base_document["rootfs"].get("diff_ids") or ())
    if len(below) + len(layers) > model.MAX_LAYERS:
        raise ImageError(
            f"the image would have {len(below) + len(layers)} layers; the kernel stacks {model.MAX_LAYERS}"
        )
    with store.staging.directory() as staging:
        made: dict[str, tuple[str, Layer]] = {}  # by diffID: name in staging, row
        diff_ids = list(below)
        for position, layer in enumerate(layers):
            place = new_name(str(position))
            unpacked, tree = _make(store, layer, staging, place, latest)
            diff_ids.append(unpacked.diff_id)
            chain_id = chain_ids(diff_ids)[-1]
            made[unpacked.diff_id] = (
                place,
                layer_record(unpacked.diff_id, chain_id, unpacked, tree, _LAYER_TYPE),
            )
        read()
        document = _document(base_document, diff_ids[len(below) :], config, history)
        image = _new_image(document, diff_ids, name)
        with store.layers.locked(list(made)):
            core.sync_filesystem(staging)
            for _ in range(_ATTEMPTS):
                found = store.layers.find(diff_ids)
                if any(layer is None for layer in found[: len(below)]):
                    raise StoreError(f"a layer of the image {base.id} has been removed: load or pull it again")
                stack = [
                    layer if layer is not None else made[diff_id][1]
                    for layer, diff_id in zip(found, diff_ids, strict=True)
                ]
                new = {
                    made[diff_id][1].key: made[diff_id]
                    for layer, diff_id in zip(found, diff_ids, strict=True)
                    if layer is None
                }
                used = [layer.key for layer in found if layer is not None and not layer.place]
                if publish(store, staging, image, list(new.values()), stack, used).complete:
                    return store.image(image.config_digest)
    raise StoreError("other commands keep removing layers that this image needs: try again when they are done")


def _make(store: Store, layer: NewLayer, staging: int, name: str, latest: int | None) -> "tuple[Unpacked, Any]":
    """Make a tree of the store from another tree, by way of the layer's tar."""
    root_fd = make_tree(staging, name)
    try:
        unpacked = _through_tar(store, layer, root_fd, latest)
        return unpacked, store.trees.fingerprint(root_fd)
    finally:
        os.close(root_fd)


def _through_tar(store: Store, layer: NewLayer, root_fd: int, latest: int | None) -> Unpacked:
    """Write the tar in one thread, hash it in another, unpack it in this one."""
    read_end, write_end = (Private(fd) for fd in os.pipe2(os.O_CLOEXEC))
    failures: list[BaseException] = []
    reader = HashingReader(lambda piece: _write_all(write_end.fd, piece))
    for fd in (write_end.fd, reader.write_fd):
        with suppress(PermissionError):  # the user's pipes are at their limit: a small one is slower and right
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)

    def write() -> None:
        try:
            store.trees.tardiff(layer.tree_fd, reader.write_fd, latest=latest, left_out=layer.left_out)
        except BaseException as error:  # handed to the thread that waits
            failures.append(error)
        finally:
            try:
                reader.finish()
            except BaseException as error:
                failures.append(error)
            finally:
                write_end.close()

    writer = threading.Thread(target=write, name="pyrtc-tar", daemon=True)
    writer.start()
    result: core.UntarResult | None = None
    failure: PyrtcError | None = None
    try:
        result = store.trees.untar(read_end.fd, root_fd)
    except PyrtcError as error:
        failure = error
    finally:
        # Emptied rather than closed: a write into a pipe without a reader is a signal.
        while os.read(read_end.fd, _CHUNK):
            pass
        writer.join()
        read_end.close()
    if failures:
        raise failures[0]
    if failure is not None:
        raise failure
    assert result is not None
    if result.depends:
        raise StoreError("the R/W layer links to files that are not in it: this file system cannot be committed")
    return Unpacked(result, reader.digest, reader.digest, result.stream_bytes)


def _write_all(fd: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]


def _document(
    base: Mapping[str, Any], diff_ids: Sequence[str], config: Callable[[dict[str, Any]], None], history: History
) -> bytes:
    """Return the new config document. SOURCE_DATE_EPOCH makes it, and so the image's id, reproducible."""
    created = created_now()
    run = dict(base.get("config") or {})
    config(run)
    entry = {"created": created, "created_by": history.created_by, "author": history.author, "comment": history.message}
    entry = {key: value for key, value in entry.items() if value}
    # What an older Docker kept of the container that an image was made of is not this one's.
    document = {key: value for key, value in base.items() if key not in ("container", "container_config", "parent")}
    document |= {
        "created": created,
        "config": run,
        "rootfs": {**base["rootfs"], "diff_ids": [*(base["rootfs"].get("diff_ids") or ()), *diff_ids]},
        "history": [*(base.get("history") or ()), *(entry for _ in diff_ids)],
    }
    document.pop("author", None)
    if history.author:
        document["author"] = history.author
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _new_image(document: bytes, diff_ids: Sequence[str], name: Reference | None) -> NewImage:
    config = model.decode_config(document, "the new config", len(diff_ids))
    platform = config.platform
    return NewImage(
        names=(name,) if name else (),
        config=config.extract(),
        config_document=document,
        config_digest=f"sha256:{hashlib.sha256(document).hexdigest()}",
        manifest_document=None,
        manifest_digest=None,
        created=config.created_text,
        platform=(platform.os, platform.architecture, platform.variant),
        layers=(),
    )
