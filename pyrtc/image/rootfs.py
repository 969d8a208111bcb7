"""An image from a plain root file system: one tar becomes one layer."""

import json
import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from pyrtc import core
from pyrtc.image import model
from pyrtc.image.archive import Source, open_source
from pyrtc.image.changes import apply_changes
from pyrtc.image.install import NewImage, layer_record, make_tree, publish, staged_blob
from pyrtc.image.platform import Platform
from pyrtc.image.reference import Reference
from pyrtc.image.reproducible import created_now
from pyrtc.image.unpack import LayerWork, Stream
from pyrtc.store import Image, Store
from pyrtc.store.placement import new_name

__all__ = ["import_rootfs"]

_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"


def import_rootfs(
    store: Store, source: Source, name: Reference | None, changes: Sequence[str], message: str, platform: Platform
) -> Image:
    """Unpack a tar as the only layer of a new image; see `pyrtc.image.images.Images.import_`."""
    run: dict[str, Any] = {}
    apply_changes(run, tuple(changes))
    with ExitStack() as stack:
        fd, what = open_source(source, stack)
        staging = stack.enter_context(store.staging.directory())
        tree = new_name("tree")
        root_fd = make_tree(staging, tree)
        stack.callback(os.close, root_fd)
        # As a layer, whiteouts and all: layers are known by their diffID, so this tree serves every image that has the
        # same tar as a layer, and what `save` writes of this image gives the same tree again.
        work = LayerWork(store.trees, Stream(fd), what, threading.Event(), keep=staged_blob(store, staging, 0))
        unpacked = work.unpack(root_fd)
        fingerprint = store.trees.fingerprint(root_fd)
        layer = layer_record(unpacked.diff_id, unpacked.diff_id, unpacked, fingerprint, _LAYER_TYPE)
        kept = [unpacked.kept] if unpacked.kept is not None else []
        document = _document(unpacked.diff_id, run, message, platform)
        config = model.decode_config(document, "the new config", 1)
        image = NewImage(
            names=(name,) if name else (),
            config=config.extract(),
            config_document=document,
            config_digest=_digest(document),
            manifest_document=None,
            manifest_digest=None,
            created=config.created_text,
            platform=(platform.os, platform.architecture, platform.variant),
            layers=(),
        )
        with store.layers.locked([layer.diff_id]):
            while True:
                known = store.layers.find([layer.diff_id])[0]
                if known is not None:
                    if publish(store, staging, image, (), (known,), (known.key,)).complete:
                        break
                    continue  # removed between the two looks
                core.sync_filesystem(staging)
                publish(store, staging, image, ((tree, layer),), (layer,), (), kept)
                break
    return store.image(image.config_digest)


def _digest(document: bytes) -> str:
    import hashlib

    return f"sha256:{hashlib.sha256(document).hexdigest()}"


def _document(diff_id: str, run: dict[str, Any], message: str, platform: Platform) -> bytes:
    """Return the config document. SOURCE_DATE_EPOCH makes it, and so the image's id, reproducible."""
    created = created_now()
    document: dict[str, Any] = {
        "created": created,
        "architecture": platform.architecture,
        **({"variant": platform.variant} if platform.variant else {}),
        "os": platform.os,
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "comment": message or "Imported from -"}],
    }
    return json.dumps(document, separators=(",", ":")).encode()
