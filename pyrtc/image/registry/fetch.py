"""The part of a pull that moves something: documents, then the layers that are missing, unpacked while they come."""

import base64
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Literal

from pyrtc.errors import ImageError, RegistryBusy, RegistryUnreachable, StoreError
from pyrtc.image import model
from pyrtc.image.cancelled import Cancelled
from pyrtc.image.choice import choose, flatten
from pyrtc.image.install import ImageEvent, LayerEvent, NewImage, check_platform, install, new_image
from pyrtc.image.platform import Platform
from pyrtc.image.reference import Reference
from pyrtc.image.registry.client import ManifestBytes, Repository
from pyrtc.image.registry.download import Download
from pyrtc.image.registry.progress import LayerTransfer, PullResult, Reporter, TransferEvent
from pyrtc.image.unpack import LayerBlob
from pyrtc.store import Store
from pyrtc.values import dataclass, replace

__all__ = ["Fetch"]

_MOST_INDEXES = 32  # indexes in one image's index: each is a request
_NOT_DISTRIBUTED = (".nondistributable.", ".foreign.")


@dataclass(frozen=True, slots=True)
class _Described:
    """An image's documents, and the digest that its name has at the registry."""

    target: str
    manifest: ManifestBytes
    layers: tuple[model.Descriptor, ...]
    config: model.ConfigDocument
    config_document: bytes
    config_digest: str


class Fetch:
    """One pull from one registry. repositories: the one that is asked, then others that may have its layers."""

    def __init__(
        self,
        store: Store,
        name: Reference,
        platform: Platform | None,
        reporter: Reporter,
        downloads: int,
        repositories: Sequence[Repository],
    ) -> None:
        self._store = store
        self._name = name
        self._platform = platform
        self._reporter = reporter
        self._at_once = downloads
        self._repositories = repositories
        self._repository = repositories[0]
        self.resumed = 0  # bytes of layers that were there already, of pulls that were interrupted

    def run(self, begin: float) -> PullResult:
        """Do it. begin: when the pull began, by time.monotonic()."""
        # Before the disk is looked at: what killed commands left is room for this one.
        self._store.sweep()
        described = self._describe()
        diff_ids = described.config.diff_ids
        before = self._store.layers.find(diff_ids)
        missing = {layer.digest: layer.size for layer, found in zip(described.layers, before, strict=True) if not found}
        there = sum(min(size, self._store.partials.size(digest)) for digest, size in missing.items())
        self._check_space(sum(missing.values()) - there)
        with self._downloads(described.layers) as downloads:
            image = replace(
                self._image(described, downloads), repository=self._name.repository, target=described.target
            )
            by_diff_id = {layer.diff_id: download for layer, download in zip(image.layers, downloads, strict=True)}
            drop = self._store.settings.blobs == "drop"

            def on_event(event: LayerEvent | ImageEvent) -> None:
                if isinstance(event, ImageEvent):
                    return
                download = by_diff_id[event.diff_id]
                digest, size = download.descriptor.digest, download.descriptor.size
                if event.state == "done":
                    if drop:
                        download.release()
                    self._reporter.tell(TransferEvent(digest, "done", size, size))
                elif event.state == "exists":
                    self._reporter.tell(TransferEvent(digest, "exists", size, size))

            installed = install(self._store, image, on_event)
            seen: set[str] = set()
            layers = []
            for layer, download, found in zip(image.layers, downloads, before, strict=True):
                came = download.fetched or download.resumed
                origin: Literal["fetched", "reused", "shared"] = "fetched" if came else "shared"
                if found is not None or layer.diff_id in seen:
                    origin = "reused"
                first = layer.diff_id not in seen
                fetched, resumed = (download.fetched, download.resumed) if first else (0, 0)
                seen.add(layer.diff_id)
                descriptor = download.descriptor
                layers.append(
                    LayerTransfer(descriptor.digest, layer.diff_id, descriptor.size, fetched, origin, resumed)
                )
        return PullResult(
            installed,
            self._name.familiar,
            described.target,
            self._repository.name,
            False,
            tuple(layers),
            time.monotonic() - begin,
        )

    # ---- documents -----------------------------------------------------------------------------------------------

    def _describe(self) -> _Described:
        asked = self._repository.manifest(self._name.digest or self._name.tag or "")
        manifest = asked
        if asked.is_index:
            what = f"the index of {self._name.familiar}"
            index = model.decode_index(asked.content, what)
            candidates = flatten(index.manifests, self._read, self._name.familiar, most_reads=_MOST_INDEXES)
            if not candidates:
                raise ImageError(f"{what} lists no image")
            chosen = choose(candidates, self._platform or Platform.host(), self._name.familiar)
            manifest = self._repository.manifest(chosen.digest, chosen.size)
        what = f"the manifest of {self._name.familiar}"
        if manifest.media_type not in model.MANIFEST_TYPES:
            raise ImageError(f"{what} is {manifest.media_type[:100]!r}, which is no container image")
        decoded = model.decode_manifest(manifest.content, what)
        for layer in decoded.layers:
            if layer.urls or any(word in layer.media_type for word in _NOT_DISTRIBUTED):
                raise ImageError(
                    f"{self._name.familiar} has a layer that its registry must not hand out and that lies elsewhere "
                    f"({layer.digest}): such layers, Windows base images mostly, are not fetched"
                )
        what = f"the config {decoded.config.digest}"
        content = self._config(decoded.config, what)
        config = model.decode_config(content, what, len(decoded.layers))
        check_platform(config, self._platform, what, self._name.familiar)
        return _Described(asked.digest, manifest, tuple(decoded.layers), config, content, decoded.config.digest)

    def _read(self, descriptor: model.Descriptor, what: str) -> bytes:
        return self._repository.manifest(descriptor.digest, descriptor.size).content

    def _config(self, descriptor: model.Descriptor, what: str) -> bytes:
        if descriptor.data is not None:
            return base64.b64decode(descriptor.data)  # held against the digest when it was decoded
        if self._store.blobs.size(descriptor.digest) == descriptor.size:
            return self._store.blobs.read(descriptor.digest)
        return self._repository.blob(descriptor, model.MAX_DOCUMENT, what)

    def _image(self, described: _Described, downloads: Sequence[Download]) -> NewImage:
        layers = tuple(
            LayerBlob(diff_id, download, download.descriptor.digest, download.descriptor.media_type)
            for diff_id, download in zip(described.config.diff_ids, downloads, strict=True)
        )
        return new_image(
            (self._name,),
            described.config,
            described.config_document,
            described.config_digest,
            described.manifest.content,
            described.manifest.digest,
            layers,
        )

    # ---- layers --------------------------------------------------------------------------------------------------

    def _check_space(self, size: int) -> None:
        status = os.fstatvfs(self._store.staging.fd)
        free = status.f_bavail * status.f_frsize
        if size > free:
            raise StoreError(
                f"no space for {self._name.familiar}: its missing layers have {size} bytes compressed, the file system "
                f"of {self._store.root} has {free} left"
            )

    @contextmanager
    def _downloads(self, descriptors: Sequence[model.Descriptor]) -> Iterator[list[Download]]:
        """Give a source for each layer; the same one for the same blob."""
        transport = self._repository.transport
        with ExitStack() as stack:
            staging = stack.enter_context(self._store.staging.directory())
            pool = ThreadPoolExecutor(self._at_once, "pyrtc-download")
            by_digest: dict[str, Download] = {}
            for descriptor in descriptors:
                name = descriptor.digest.replace(":", "-")
                if descriptor.digest not in by_digest:
                    by_digest[descriptor.digest] = Download(
                        descriptor,
                        self._repositories,
                        self._store.partials,
                        staging,
                        name,
                        pool,
                        self._reporter,
                    )
            interrupted = False
            try:
                yield [by_digest[descriptor.digest] for descriptor in descriptors]
            except (RegistryUnreachable, RegistryBusy, Cancelled, KeyboardInterrupt):
                interrupted = True
                raise
            finally:
                # Nobody waits for anything any more: what is still on its way is for a layer that another made.
                transport.abort()
                pool.shutdown(cancel_futures=True)
                self.resumed = sum(download.resumed for download in by_digest.values())
                for download in by_digest.values():
                    download.close(keep=interrupted)
