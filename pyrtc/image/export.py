"""An image on its way out of the store: its documents, and the compressed form of each of its layers.

What was kept goes out byte for byte as it came. A layer whose compressed form is not in the store is made again from
its tree, the same way every time; its digest is another one then, so the image gets a new manifest, and where the tar
inside differs too (it does unless pyrtc wrote the first one) a new config and with it a new id. `ExportedImage.changed`
says so.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, BinaryIO, Literal

from pyrtc.errors import DigestMismatch, StoreError
from pyrtc.image.compression import CHUNK, GZIP, PLAIN, ZSTD, Format, decompress
from pyrtc.image.keep import Keeper, layer_type
from pyrtc.image.reproducible import latest_time
from pyrtc.store import Image, Layer, Store
from pyrtc.store.trees import HashingReader
from pyrtc.values import dataclass, replace

__all__ = ["ExportedImage", "ExportedLayer", "Exporter"]

_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"


@dataclass(frozen=True, slots=True)
class ExportedLayer:
    """One layer in the form in which it leaves.

    digest, size: of the compressed form. diff_id: of the tar in it. tar_size: bytes of that, -1 where not known.
    opener: opens the compressed form, None for one that only the target has.
    """

    digest: str
    size: int
    media_type: str
    diff_id: str
    tar_size: int
    opener: Callable[[], BinaryIO] | None

    @property
    def stored(self) -> bool:
        """Whether the store can give the bytes."""
        return self.opener is not None

    def open(self) -> BinaryIO:
        """Open the compressed form, which is not verified while it is read; `chunks` verifies."""
        if self.opener is None:
            raise StoreError(f"the compressed layer {self.digest} is not in the store")
        return self.opener()

    def chunks(self) -> Iterator[bytes]:
        """Yield the compressed form.

        Raises
        ------
        DigestMismatch: at its end, if it is damaged.
        """
        algorithm, _, value = self.digest.partition(":")
        digest = hashlib.new(algorithm, usedforsecurity=False)
        with self.open() as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                yield chunk
        if digest.hexdigest() != value:
            raise DigestMismatch(_damaged(f"the compressed layer {self.digest}"))

    def tar(self) -> Iterator[bytes]:
        """Yield the uncompressed tar. Raises as `chunks` does."""
        algorithm, _, value = self.diff_id.partition(":")
        digest = hashlib.new(algorithm, usedforsecurity=False)
        for piece in decompress(self.chunks(), what=f"the layer {self.digest}"):
            digest.update(piece)
            yield piece
        if digest.hexdigest() != value:
            raise DigestMismatch(_damaged(f"the layer {self.diff_id}"))


def _damaged(what: str) -> str:
    return f"{what} in the store is damaged: 'pyrtc system check --repair' takes it out, then load or pull it again"


@dataclass(frozen=True, slots=True)
class ExportedImage:
    """An image in the form in which it leaves.

    changed: how it differs from what came: ``""`` not at all; ``manifest``: the same image with the same id, its layers
    packed differently (or it came without a manifest); ``config``: other layers, so another id.
    """

    image: Image
    config: bytes
    config_digest: str
    manifest: bytes
    manifest_digest: str
    manifest_type: str
    layers: tuple[ExportedLayer, ...]
    changed: Literal["", "manifest", "config"]


class Exporter:
    """Makes images ready to leave; a context manager, whose exit ends the use of what it returned.

    Parameters
    ----------
    has: says whether the target has a blob already: its layer need not be made again then. None: it has none.
    """

    def __init__(self, store: Store, has: Callable[[str], bool] | None = None) -> None:
        self._store = store
        self._has = has or (lambda digest: False)
        self._open = ExitStack()
        self._staging: int | None = None
        self._made: dict[str, ExportedLayer] = {}  # by key

    def __enter__(self) -> "Exporter":
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was made."""
        self._open.close()

    def image(self, image: Image) -> ExportedImage:
        """Return an image's documents and layers; makes what is not kept, which takes as long as compressing it does.

        Raises
        ------
        StoreError: a layer has been removed meanwhile or cannot be read; no space to make it.
        """
        config, manifest = self._store.images.documents(image)
        home = next((other for other in self._store.additional_stores() if other.root == image.place), self._store)
        rows = home.layers.of_image(image.id)
        if image.place:
            rows = tuple(replace(row, place=image.place) for row in rows)
        described: list[dict[str, Any]] = json.loads(manifest)["layers"] if manifest is not None else []
        layers = tuple(
            self._layer(row, described[position] if described else None) for position, row in enumerate(rows)
        )
        exact = manifest is not None and all(
            layer.digest == descriptor["digest"] for layer, descriptor in zip(layers, described, strict=True)
        )
        if exact:
            assert manifest is not None and image.manifest is not None
            media_type = json.loads(manifest).get("mediaType") or _OCI_MANIFEST
            return ExportedImage(image, config, image.id, manifest, image.manifest, media_type, layers, "")
        new_config = _with_layers(config, layers)
        config_digest = image.id if new_config == config else _digest(new_config)
        new_manifest, media_type = _new_manifest(manifest, new_config, config_digest, layers)
        changed: Literal["manifest", "config"] = "manifest" if config_digest == image.id else "config"
        return ExportedImage(
            image, new_config, config_digest, new_manifest, _digest(new_manifest), media_type, layers, changed
        )

    def _layer(self, layer: Layer, descriptor: dict[str, Any] | None) -> ExportedLayer:
        wanted: str | None = descriptor["digest"] if descriptor else None
        kept = self._store.layer_blobs.find(layer.diff_id, wanted) if wanted else None
        if kept is None and descriptor is not None and self._has(descriptor["digest"]):
            return ExportedLayer(
                descriptor["digest"], descriptor["size"], descriptor["mediaType"], layer.diff_id, layer.tar_size, None
            )
        kept = kept or self._store.layer_blobs.find(layer.diff_id)
        if kept is not None:
            blob = kept
            return ExportedLayer(
                blob.digest,
                blob.size,
                descriptor["mediaType"] if descriptor and blob.digest == wanted else blob.media_type,
                layer.diff_id,
                layer.tar_size,
                lambda: self._store.layer_blobs.open(blob),
            )
        made = self._made.get(layer.key)
        if made is None:
            made = self._made[layer.key] = self._make(layer)
        return made

    def _make(self, layer: Layer) -> ExportedLayer:
        """Write the layer's tree as a compressed tar into staging."""
        if self._staging is None:
            self._staging = self._open.enter_context(self._store.staging.directory())
        staging, name = self._staging, layer.key
        path = self._store.layers.directory(layer.key, layer.place)
        try:
            root_fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise StoreError(
                f"cannot open the layer {layer.diff_id} at {path}: {error.strerror}: load or pull the image again"
            ) from error
        keeper = Keeper(staging, name, layer.media_type)
        try:
            reader = HashingReader(keeper.decompressed)
            try:
                result = self._store.trees.tardiff(root_fd, reader.write_fd, latest=latest_time())
            finally:
                reader.finish()
            staged = keeper.finish("", 0, reader.digest)
        finally:
            keeper.close()
            os.close(root_fd)

        def reopen() -> BinaryIO:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staging)
            return open(fd, "rb")  # noqa: PTH123  (a descriptor)

        return ExportedLayer(staged.digest, staged.size, staged.media_type, reader.digest, result.stream_bytes, reopen)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _write(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _with_layers(config: bytes, layers: Sequence[ExportedLayer]) -> bytes:
    """Return the config with these layers: the same bytes if they are its own."""
    document = json.loads(config)
    diff_ids = [layer.diff_id for layer in layers]
    if list(document["rootfs"].get("diff_ids") or ()) == diff_ids:
        return config
    document["rootfs"]["diff_ids"] = diff_ids
    return _write(document)


def _form(media_type: str) -> Format:
    return next((form for form in (GZIP, ZSTD) if media_type.endswith(form.name)), PLAIN)


def _new_manifest(
    original: bytes | None, config: bytes, config_digest: str, layers: Sequence[ExportedLayer]
) -> tuple[bytes, str]:
    """Return a manifest for these layers and its type, after the original's pattern where there is one."""
    document: dict[str, Any]
    if original is None:
        document = {
            "schemaVersion": 2,
            "mediaType": _OCI_MANIFEST,
            "config": {"mediaType": _OCI_CONFIG},
            "layers": [{} for _ in layers],
        }
    else:
        document = json.loads(original)
    manifest_type: str = document.get("mediaType") or _OCI_MANIFEST
    document["config"] |= {"digest": config_digest, "size": len(config)}
    document["config"].pop("data", None)
    for descriptor, layer in zip(document["layers"], layers, strict=True):
        if descriptor.get("digest") == layer.digest:
            continue
        # Where else the layer could be had, and what was said of its former bytes, says nothing of these.
        for key in ("urls", "data", "annotations"):
            descriptor.pop(key, None)
        media_type = layer_type(_form(layer.media_type), manifest_type)
        descriptor |= {"mediaType": media_type, "digest": layer.digest, "size": layer.size}
    return _write(document), manifest_type
