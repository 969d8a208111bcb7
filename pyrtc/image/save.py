"""Archives of images, written in one go: what `docker load`, `podman load`, skopeo and pyrtc read.

docker-archive  a config and uncompressed layers for each image, and manifest.json, as Docker writes since 1.10
oci-archive     an OCI image layout in a tar: manifests and layers as they came (image-spec, image-layout.md)

Either can go into a pipe: every member's size is known before its data. A layer that several images have is in the
archive once. Two saves of the same images give the same bytes.
"""

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from pyrtc.errors import ImageError, StoreError, UsageError
from pyrtc.image.export import ExportedImage, ExportedLayer, Exporter
from pyrtc.image.reference import Reference
from pyrtc.store import Image, Store
from pyrtc.values import dataclass

__all__ = ["ARCHIVE_FORMATS", "ArchiveFormat", "Saved", "output", "save"]

ArchiveFormat = Literal["docker-archive", "oci-archive"]
ARCHIVE_FORMATS: tuple[ArchiveFormat, ...] = ("docker-archive", "oci-archive")

_BLOCK = 512
_END = bytes(2 * _BLOCK)


@dataclass(frozen=True, slots=True)
class Saved:
    """One image in an archive.

    names: familiar ones that the archive gives it. image_id, digest: the id and the manifest's digest it has there.
    changed: how that differs from the store, as in `pyrtc.image.export.ExportedImage`; in a docker-archive, which has
    no manifests, only a new id counts.
    """

    image: Image
    names: tuple[str, ...]
    image_id: str
    digest: str
    changed: Literal["", "manifest", "config"]


def save(
    store: Store, names: Sequence[str], target: "int | str | os.PathLike[str]", form: ArchiveFormat
) -> tuple[Saved, ...]:
    """Write images into an archive; see `pyrtc.image.images.Images.save`."""
    if form not in ARCHIVE_FORMATS:
        raise UsageError(f"unknown archive format {form!r}: there are {' and '.join(ARCHIVE_FORMATS)}")
    if not names:
        raise UsageError("no image to save")
    chosen = _choose(store, names)
    with Exporter(store) as exporter:
        images = [(exporter.image(image), references) for image, references in chosen]
        with output(target) as write:
            archive = _Archive(write)
            try:
                (_write_docker if form == "docker-archive" else _write_oci)(archive, images)
                write(_END)
            except OSError as error:
                if isinstance(error, BrokenPipeError):
                    raise
                raise StoreError(f"cannot write the archive: {error.strerror}") from error
    return tuple(
        Saved(
            exported.image,
            tuple(reference.familiar for reference in references),
            exported.config_digest,
            exported.manifest_digest,
            "" if form == "docker-archive" and exported.changed == "manifest" else exported.changed,
        )
        for exported, references in images
    )


def _choose(store: Store, names: Sequence[str]) -> list[tuple[Image, list[Reference]]]:
    """Return each image once, with those of the words that are names of it."""
    chosen: dict[str, tuple[Image, list[Reference]]] = {}
    for name in names:
        image = store.image(name)
        references = chosen.setdefault(image.id, (image, []))[1]
        reference = _reference(name)
        # An id is no name, even one that could be read as such.
        if reference is not None and reference.familiar in image.names and reference not in references:
            references.append(reference)
    return list(chosen.values())


def _reference(text: str) -> Reference | None:
    try:
        return Reference.parse(text).with_default_tag()
    except ImageError:
        return None


@contextmanager
def output(target: "int | str | os.PathLike[str]") -> Iterator[Callable[[bytes], None]]:
    """Give what writes; a file of this name appears when everything is in it."""
    if isinstance(target, int):
        yield lambda data: _write_all(target, data)
        return
    path = Path(target)
    try:
        special = path.exists() and not stat.S_ISREG(path.stat().st_mode)
        staged = path if special else path.with_name(f".{path.name[:200]}.{os.urandom(4).hex()}")
        flags = os.O_WRONLY | os.O_CLOEXEC | (0 if special else os.O_CREAT | os.O_EXCL)
        fd = os.open(staged, flags, 0o666)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    try:
        try:
            yield lambda data: _write_all(fd, data)
        finally:
            os.close(fd)
        if not special:
            staged.rename(path)
    except BaseException:
        if not special:
            with suppress(OSError):
                staged.unlink()
        raise


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class _Archive:
    """A tar that is being written."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._names: set[str] = set()

    def has(self, name: str) -> bool:
        """Say whether there is such a member."""
        return name in self._names

    def add(self, name: str, content: bytes) -> None:
        """Write a member, once."""
        if not self.has(name):
            self.stream(name, len(content), (content,))

    def stream(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        """Write a member of this many bytes.

        Raises
        ------
        StoreError: it has another number of bytes.
        """
        import tarfile

        info = tarfile.TarInfo(name)
        info.size = size
        info.mode = 0o644
        self._write(info.tobuf(tarfile.PAX_FORMAT))
        left = size
        for chunk in chunks:
            left -= len(chunk)
            if left < 0:
                break
            self._write(chunk)
        if left:
            raise StoreError(f"{name} has another size than the store says: run 'pyrtc system check'")
        self._write(bytes(-size % _BLOCK))
        self._names.add(name)


_Images = Sequence[tuple[ExportedImage, Sequence[Reference]]]


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _write_docker(archive: _Archive, images: _Images) -> None:
    entries = []
    for exported, references in images:
        paths = []
        for layer in exported.layers:
            path = f"{layer.diff_id.partition(':')[2]}.tar"
            if not archive.has(path):
                archive.stream(path, _tar_size(layer), layer.tar())
            paths.append(path)
        config = f"{exported.config_digest.partition(':')[2]}.json"
        archive.add(config, exported.config)
        # Whole names: Podman takes a short one for localhost's.
        tags = [reference.canonical for reference in references if reference.tag]
        entries.append({"Config": config, "RepoTags": tags or None, "Layers": paths})
    archive.add("manifest.json", _json(entries))


def _tar_size(layer: ExportedLayer) -> int:
    """Return the uncompressed size, which an old row does not know."""
    return layer.tar_size if layer.tar_size >= 0 else sum(len(piece) for piece in layer.tar())


def _write_oci(archive: _Archive, images: _Images) -> None:
    manifests: list[dict[str, Any]] = []
    archive.add("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    for exported, references in images:
        for layer in exported.layers:
            path = _blob(layer.digest)
            if not archive.has(path):
                archive.stream(path, layer.size, layer.chunks())
        archive.add(_blob(exported.config_digest), exported.config)
        archive.add(_blob(exported.manifest_digest), exported.manifest)
        descriptor = {
            "mediaType": exported.manifest_type,
            "digest": exported.manifest_digest,
            "size": len(exported.manifest),
            "platform": _platform(exported.image),
        }
        # The first is containerd's and Docker's; the second is a whole name as Podman writes it, so that it is unique.
        manifests += [
            descriptor
            | {
                "annotations": {
                    "io.containerd.image.name": reference.canonical,
                    "org.opencontainers.image.ref.name": reference.canonical,
                }
            }
            for reference in references
        ] or [descriptor]
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests}
    archive.add("index.json", _json(index))


def _blob(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"


def _platform(image: Image) -> dict[str, str]:
    variant = {"variant": image.variant} if image.variant else {}
    return {"architecture": image.architecture, "os": image.os} | variant
