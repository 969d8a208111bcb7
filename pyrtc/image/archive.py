"""Image archives: docker-archives (`docker save`), OCI archives and OCI layout directories, from files, pipes or
compressed.

An archive becomes a sequence of `NewImage`: documents that are read, bounded and verified here, and places of layers
that `pyrtc.image.install` reads, verifies and unpacks.
"""

import hashlib
import os
import re
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from pyrtc.errors import DigestMismatch, ImageError, StoreError, UsageError
from pyrtc.image import model
from pyrtc.image.choice import choose, flatten
from pyrtc.image.compression import PLAIN, ExpansionLimits, decompress, detect
from pyrtc.image.install import NewImage, check_platform, new_image
from pyrtc.image.outer import OuterTar
from pyrtc.image.platform import Platform
from pyrtc.image.reference import Reference
from pyrtc.image.unpack import LayerBlob, Region, Stream
from pyrtc.store import Store
from pyrtc.values import dataclass

__all__ = ["Source", "open_archive", "open_source"]

Source = str | os.PathLike[str] | BinaryIO

_MAX_IMAGES = 1000  # in one archive
_SPOOL_LIMIT = 1 << 40  # bytes; the disk is full long before
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_HEX64 = re.compile(r"(?:^|[:/])([a-f0-9]{64})(?:\.json)?$")
# An annotation that is only a tag, as umoci and skopeo write it, when it cannot be meant as a name.
_BARE_TAG = re.compile(r"latest|v?[0-9][A-Za-z0-9_.-]*")


class _Blobs(Protocol):
    """Where blobs of an OCI layout lie."""

    def blob(self, digest: str) -> Region: ...
    def document(self, name: str) -> bytes: ...


@contextmanager
def open_archive(store: Store, source: Source, platform: Platform | None = None) -> Iterator[tuple[NewImage, ...]]:
    """Open an archive and give the images in it; their layers can be read until the block ends.

    Parameters
    ----------
    source: a path; ``oci:DIR[:NAME]`` for an OCI layout (all its images, or one); an open binary file or pipe.
    platform: which variant to take where an archive has several; None for this machine's.

    Raises
    ------
    ImageError: it is no archive, damaged, or has nothing for the platform. UsageError: there is no such file.
    """
    with ExitStack() as stack:
        if isinstance(source, str) and source.startswith("oci:"):
            directory, name = _split_layout(source.removeprefix("oci:"))
            yield _Layout(_Directory(directory, stack), platform, directory.resolve().name).images(name)
            return
        if isinstance(source, (str, os.PathLike)) and Path(source).is_dir():
            directory = Path(source)
            yield _Layout(_Directory(directory, stack), platform, directory.resolve().name).images(None)
            return
        fd, what = open_source(source, stack)
        tar = OuterTar(_seekable(store, fd, what, stack), what)
        if "oci-layout" in tar and "index.json" in tar:
            # `docker save` writes both forms since 25.0: this one has digests of everything, and all platforms.
            yield _Layout(_Tar(tar), platform, None, _repo_tags(tar)).images(None)
        elif "manifest.json" in tar:
            yield _docker_images(tar, what, platform)
        elif "repositories" in tar:
            raise ImageError(
                f"{what} was saved by Docker before 1.10 (it has repositories and no manifest.json): load and save it "
                "again with a newer Docker"
            )
        else:
            raise ImageError(
                f"{what} is no image archive: it has neither manifest.json nor oci-layout; a plain root file system is "
                "brought in with 'pyrtc import'"
            )


def _split_layout(text: str) -> tuple[Path, str | None]:
    if Path(text).is_dir():
        return Path(text), None
    directory, _, name = text.rpartition(":")
    # A name may have a tag of its own: oci:DIR:NAME:TAG.
    while directory and not Path(directory).is_dir() and ":" in directory:
        directory, _, rest = directory.rpartition(":")
        name = f"{rest}:{name}"
    if not directory or not Path(directory).is_dir():
        raise UsageError(f"no such directory: {text}: an OCI layout is given as oci:DIR or oci:DIR:NAME")
    return Path(directory), name


def open_source(source: Source, stack: ExitStack) -> tuple[int, str]:
    """Return the descriptor of a source, closed with the stack if it was opened here, and its name for errors.

    Raises
    ------
    UsageError: it cannot be opened.
    """
    if isinstance(source, (str, os.PathLike)):
        try:
            fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"cannot open {os.fspath(source)}: {error.strerror}") from error
        stack.callback(os.close, fd)
        return fd, os.fspath(source)
    try:
        return source.fileno(), str(getattr(source, "name", "the archive"))
    except OSError as error:  # io.UnsupportedOperation of what is a file in Python only
        raise UsageError("the archive is no open file of the system: give a path, a file or a pipe") from error


def _seekable(store: Store, fd: int, what: str, stack: ExitStack) -> int:
    """Return a file that holds the plain tar: the given one, or a copy in staging when it is a pipe or compressed."""
    regular = stat.S_ISREG(os.fstat(fd).st_mode)
    if regular:
        if os.lseek(fd, 0, os.SEEK_CUR) == 0 and detect(os.pread(fd, 16, 0)) is PLAIN:
            return fd
    elif stat.S_ISDIR(os.fstat(fd).st_mode):
        raise UsageError(f"{what} is a directory; an OCI layout is given as oci:DIR")
    staging = stack.enter_context(store.staging.directory())
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    spool = os.open("archive", flags, 0o600, dir_fd=staging)
    stack.callback(os.close, spool)
    try:
        chunks = Stream(fd).chunks(threading.Event())
        for piece in decompress(chunks, what=what, limits=ExpansionLimits(size=_SPOOL_LIMIT)):
            view = memoryview(piece)
            while view:
                view = view[os.write(spool, view) :]
    except OSError as error:
        raise StoreError(f"cannot copy {what} into the store: {error.strerror}") from error
    return spool


# ---- OCI layouts ----------------------------------------------------------------------------------------------------


class _Directory:
    """An OCI layout in a directory of the caller."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path = path
        self._stack = stack

    def blob(self, digest: str) -> Region:
        algorithm, _, value = digest.partition(":")
        return self._open(f"blobs/{algorithm}/{value}")

    def document(self, name: str) -> bytes:
        return self._open(name).read(model.MAX_DOCUMENT)

    def _open(self, name: str) -> Region:
        path = self._path / name
        try:
            # Not blocking: a FIFO in the place of a blob must not hang the load.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            verb = "lacks" if isinstance(error, FileNotFoundError) else "cannot be read at"
            raise ImageError(f"the OCI layout {self._path} {verb} {name}: {error.strerror}") from error
        self._stack.callback(os.close, fd)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{path} is no regular file")
        return Region(fd, 0, status.st_size, str(path))


@dataclass(frozen=True, slots=True)
class _Tar:
    """An OCI layout in a tar."""

    tar: OuterTar

    def blob(self, digest: str) -> Region:
        algorithm, _, value = digest.partition(":")
        return self.tar.file(f"blobs/{algorithm}/{value}")

    def document(self, name: str) -> bytes:
        return self.tar.file(name).read(model.MAX_DOCUMENT)


class _Layout:
    """An OCI layout. directory: its name, for annotations that are only a tag. tags: names by config digest."""

    def __init__(
        self,
        blobs: _Blobs,
        platform: Platform | None,
        directory: str | None,
        tags: dict[str, tuple[Reference, ...]] | None = None,
    ) -> None:
        self._blobs = blobs
        self._platform = platform
        self._directory = directory
        self._tags = tags or {}

    def images(self, name: str | None) -> tuple[NewImage, ...]:
        """Return the image of this name, or all."""
        model.check_layout(self._blobs.document("oci-layout"))
        index = model.decode_index(self._blobs.document("index.json"), "index.json")
        groups: dict[str, list[model.Descriptor]] = {}
        for number, descriptor in enumerate(index.manifests):
            if not descriptor.is_attestation:
                # Manifests of one name are variants of one image; those without a name are images of their own.
                groups.setdefault(_annotated_name(descriptor) or f"\0{number}", []).append(descriptor)
        if len(groups) > _MAX_IMAGES:
            raise ImageError(f"index.json lists {len(groups)} images; {_MAX_IMAGES} are allowed")
        if name is not None:
            groups = self._select(groups, name)
        if not groups:
            raise ImageError("index.json lists no image")
        return tuple(self._image(key, descriptors) for key, descriptors in groups.items())

    def _select(self, groups: dict[str, list[model.Descriptor]], name: str) -> dict[str, list[model.Descriptor]]:
        wanted = self._reference(name)
        for key, descriptors in groups.items():
            if key == name or (wanted is not None and self._reference(key) == wanted):
                return {key: descriptors}
        known = ", ".join(sorted(key for key in groups if not key.startswith("\0"))) or "images without names only"
        raise ImageError(f"the OCI layout has no image {name!r}; it has {known}")

    def _reference(self, name: str) -> Reference | None:
        """Read an annotation as an image name; None when it is none."""
        if _BARE_TAG.fullmatch(name):
            if not self._directory:
                return None
            name = f"{self._directory.lower()}:{name}"
        try:
            return Reference.parse(name).with_default_tag()
        except ImageError:
            return None

    def _image(self, key: str, descriptors: Sequence[model.Descriptor]) -> NewImage:
        descriptor = self._choose(descriptors, key.strip("\0") or "the image")
        what = f"the manifest {descriptor.digest}"
        content = self._read(descriptor, what)
        manifest = model.decode_manifest(content, what)
        config_content = self._read(manifest.config, f"the config {manifest.config.digest}")
        config_what = f"the config {manifest.config.digest}"
        config = model.decode_config(config_content, config_what, len(manifest.layers))
        check_platform(config, self._platform, config_what, "the archive")
        reference = None if key.startswith("\0") else self._reference(key)
        names: tuple[Reference, ...] = (reference,) if reference else ()
        names += tuple(tag for tag in self._tags.get(manifest.config.digest, ()) if tag not in names)
        return new_image(
            names,
            config,
            config_content,
            manifest.config.digest,
            content,
            descriptor.digest,
            self._layers(manifest, config),
        )

    def _choose(self, descriptors: Sequence[model.Descriptor], what: str) -> model.Descriptor:
        """Follow indexes down to the one manifest that fits the platform."""
        candidates = flatten(descriptors, self._read, "the archive")
        if not candidates:
            raise ImageError(f"{what} lists no image manifest")
        if len(candidates) == 1 and self._platform is None:
            return candidates[0]
        return choose(candidates, self._platform or Platform.host(), "the archive")

    def _read(self, descriptor: model.Descriptor, what: str) -> bytes:
        if descriptor.size > model.MAX_DOCUMENT:
            raise ImageError(f"{what} has {descriptor.size} bytes; {model.MAX_DOCUMENT} are allowed")
        content = self._blobs.blob(descriptor.digest).read(model.MAX_DOCUMENT)
        model.check_digest(content, descriptor.digest, descriptor.size, what)
        return content

    def _layers(self, manifest: model.Manifest, config: model.ConfigDocument) -> tuple[LayerBlob, ...]:
        layers = []
        for descriptor, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            region = self._blobs.blob(descriptor.digest)
            if region.size != descriptor.size:
                raise DigestMismatch(
                    f"the layer {descriptor.digest} has {region.size} bytes, its descriptor says {descriptor.size}"
                )
            region = Region(region.fd, region.offset, region.size, f"the layer {descriptor.digest}")
            layers.append(LayerBlob(diff_id, region, descriptor.digest, descriptor.media_type))
        return tuple(layers)


def _annotated_name(descriptor: model.Descriptor) -> str | None:
    annotations = descriptor.annotations or {}
    return next((annotations[key] for key in _NAME_ANNOTATIONS if annotations.get(key)), None)


# ---- docker-archives ------------------------------------------------------------------------------------------------


def _docker_images(tar: OuterTar, what: str, platform: Platform | None) -> tuple[NewImage, ...]:
    entries = model.decode_archive_manifest(tar.file("manifest.json").read(model.MAX_DOCUMENT))
    if not entries:
        raise ImageError(f"{what} holds no image: its manifest.json is empty")
    if len(entries) > _MAX_IMAGES:
        raise ImageError(f"manifest.json lists {len(entries)} images; {_MAX_IMAGES} are allowed")
    images = []
    for entry in entries:
        content = tar.file(entry.config).read(model.MAX_DOCUMENT)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        named = _HEX64.search(entry.config)
        if named is not None and f"sha256:{named[1]}" != digest:
            raise DigestMismatch(f"{entry.config} in {what} has the digest {digest}, not the one it is named after")
        paths = entry.layers or []
        config = model.decode_config(content, f"{entry.config} in {what}", len(paths))
        check_platform(config, platform, f"{entry.config} in {what}", "the archive")
        layers = tuple(
            LayerBlob(diff_id, tar.file(path), None, "application/vnd.docker.image.rootfs.diff.tar")
            for path, diff_id in zip(paths, config.diff_ids, strict=True)
        )
        images.append(new_image(_references(entry.repo_tags), config, content, digest, None, None, layers))
    return tuple(images)


def _references(tags: Sequence[str] | None) -> tuple[Reference, ...]:
    return tuple(Reference.parse(tag).with_default_tag() for tag in tags or ())


def _repo_tags(tar: OuterTar) -> dict[str, tuple[Reference, ...]]:
    """Return the names that an archive of both forms gives in its manifest.json, by config digest."""
    if "manifest.json" not in tar:
        return {}
    tags = {}
    for entry in model.decode_archive_manifest(tar.file("manifest.json").read(model.MAX_DOCUMENT)):
        named = _HEX64.search(entry.config)
        if named is not None:
            tags[f"sha256:{named[1]}"] = _references(entry.repo_tags)
    return tags
