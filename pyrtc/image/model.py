"""The documents of an image as OCI (image-spec 1.1) and Docker (manifest schema 2, docker-archive) write them.

Everything here was written by strangers: sizes, counts and depths are bounded, digests are checked before anything
uses them as a path, and what a document says is data. Unknown fields are ignored, as both specifications ask.
"""

import hashlib
import re
from typing import Any, TypeVar

import msgspec

from pyrtc.errors import DigestMismatch, ImageError
from pyrtc.image.config import Healthcheck, ImageConfig
from pyrtc.image.media_types import CONFIG_TYPES, INDEX_TYPES, MANIFEST_TYPES
from pyrtc.image.platform import Platform
from pyrtc.image.reference import valid_digest

__all__ = [
    "CONFIG_TYPES",
    "INDEX_TYPES",
    "MANIFEST_TYPES",
    "MAX_DOCUMENT",
    "MAX_INDEX_DEPTH",
    "ArchiveEntry",
    "ConfigDocument",
    "Descriptor",
    "Index",
    "Manifest",
    "check_digest",
    "check_layout",
    "decode_archive_manifest",
    "decode_config",
    "decode_index",
    "decode_manifest",
]

MAX_DOCUMENT = 4 << 20  # bytes of one document, what registries and other engines allow (CVE-2020-1702)
MAX_LAYERS = 500  # OVL_MAX_STACK of the kernel
MAX_MANIFESTS = 4096  # in one index
MAX_INDEX_DEPTH = 4  # of indexes in indexes

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_LAYER_TYPE = re.compile(
    r"application/vnd\.oci\.image\.layer\.(?:nondistributable\.)?v1\.tar(?:\+gzip|\+zstd)?"
    r"|application/vnd\.docker\.image\.rootfs\.(?:diff|foreign\.diff)\.tar(?:[.+](?:gzip|zstd))?"
)

_ABSENT = msgspec.Raw(b"")


class _Camel(msgspec.Struct, frozen=True, rename="camel"):
    """Field names as OCI writes them: mediaType."""


class _Pascal(msgspec.Struct, frozen=True, rename="pascal"):
    """Field names as Go writes them: WorkingDir."""


class PlatformDocument(msgspec.Struct, frozen=True):
    """The platform of a manifest in an index."""

    os: str = ""
    architecture: str = ""
    variant: str | None = None


class Descriptor(_Camel, frozen=True):
    """What a document says about another blob: its digest, size and type."""

    digest: str
    size: int
    media_type: str = ""
    platform: PlatformDocument | None = None
    annotations: dict[str, str] | None = None
    data: str | None = None
    urls: list[str] | None = None

    @property
    def hash_name(self) -> str:
        """The algorithm: ``sha256``."""
        return self.digest.partition(":")[0]

    @property
    def is_attestation(self) -> bool:
        """Say whether it describes a build (BuildKit's attestations) instead of being an image."""
        return "vnd.docker.reference.type" in (self.annotations or {})


class Index(_Camel, frozen=True):
    """An image index, or Docker's manifest list."""

    manifests: list[Descriptor]
    schema_version: int = 0
    media_type: str | None = None
    layers: msgspec.Raw = _ABSENT
    config: msgspec.Raw = _ABSENT


class Manifest(_Camel, frozen=True):
    """An image manifest, OCI or Docker schema 2."""

    config: Descriptor
    layers: list[Descriptor]
    schema_version: int = 0
    media_type: str | None = None
    manifests: msgspec.Raw = _ABSENT


_MAX_HEALTH_TIME = 10 * 365 * 86400 * 10**9
_MAX_RETRIES = (1 << 31) - 1


class _HealthcheckDocument(_Pascal, frozen=True):
    test: list[str] | None = None
    interval: int | None = None
    timeout: int | None = None
    start_period: int | None = None
    start_interval: int | None = None
    retries: int | None = None


class _RunDocument(_Pascal, frozen=True):
    user: str | None = None
    exposed_ports: dict[str, Any] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | str | None = None
    cmd: list[str] | str | None = None
    volumes: dict[str, Any] | None = None
    working_dir: str | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    healthcheck: _HealthcheckDocument | None = None
    shell: list[str] | None = None


class _RootFs(msgspec.Struct, frozen=True):
    type: str = "layers"
    diff_ids: list[str] | None = None


class History(msgspec.Struct, frozen=True):
    """One line of an image's history."""

    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool | None = None


class ConfigDocument(msgspec.Struct, frozen=True):
    """An image's config document."""

    rootfs: _RootFs
    architecture: str = ""
    os: str = ""
    variant: str | None = None
    created: str | None = None
    author: str | None = None
    config: _RunDocument | None = None
    history: list[History] | None = None

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The digests of the uncompressed layers, bottom first."""
        return tuple(self.rootfs.diff_ids or ())

    @property
    def created_text(self) -> str:
        """When it was made (RFC 3339); empty if it does not say so in that form."""
        return self.created if self.created and _TIME.fullmatch(self.created) else ""

    @property
    def platform(self) -> Platform:
        """Where it runs; an image that does not say is for Linux on this machine's architecture."""
        return Platform(self.os or "linux", self.architecture or Platform.host().architecture, self.variant or "")

    def extract(self) -> ImageConfig:
        """Return what matters for running it."""
        run = self.config or _RunDocument()
        return ImageConfig(
            env=tuple(_variable(entry) for entry in run.env or ()),
            entrypoint=_words(run.entrypoint),
            cmd=_words(run.cmd),
            user=_text(run.user),
            workdir=_text(run.working_dir),
            volumes=tuple(_text(path) for path in run.volumes or ()),
            labels=tuple((_text(key), _text(value)) for key, value in (run.labels or {}).items()),
            ports=tuple(_text(port) for port in run.exposed_ports or ()),
            stop_signal=run.stop_signal or None,
            shell=_words(run.shell),
            healthcheck=_healthcheck(run.healthcheck),
        )


class ArchiveEntry(_Pascal, frozen=True):
    """One image of a docker-archive's manifest.json."""

    config: str
    layers: list[str] | None = None
    repo_tags: list[str] | None = None


class _Layout(_Camel, frozen=True):
    image_layout_version: str


def _text(value: str | None) -> str:
    if value and "\0" in value:
        raise ImageError("the image's config has a NUL character in a value")
    return value or ""


def _words(value: list[str] | str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):  # Docker before 1.10 wrote a plain string; it is one word
        return (_text(value),) if value else None
    return tuple(_text(word) for word in value) or None


def _variable(entry: str) -> tuple[str, str]:
    name, _, value = entry.partition("=")
    if not name:
        raise ImageError(f"the image's config has an environment variable without a name: {entry!r}")
    # "NAME" alone is an empty value: it must never be looked up in the caller's environment (CVE-2026-57231).
    return _text(name), _text(value)


def _healthcheck(document: _HealthcheckDocument | None) -> Healthcheck | None:
    if document is None or not document.test:
        return None
    return Healthcheck(
        test=tuple(_text(word) for word in document.test),
        interval=_health_time(document.interval),
        timeout=_health_time(document.timeout),
        start_period=_health_time(document.start_period),
        retries=min(max(document.retries or 0, 0), _MAX_RETRIES),
        start_interval=_health_time(document.start_interval),
    )


def _health_time(nanoseconds: int | None) -> float:
    """An image's word, so within bounds: what is negative means nothing to Docker either."""
    return min(max(nanoseconds or 0, 0), _MAX_HEALTH_TIME) / 1e9


_T = TypeVar("_T")


def _decode(content: bytes, kind: type[_T], what: str) -> _T:
    if len(content) > MAX_DOCUMENT:
        raise ImageError(f"{what} has {len(content)} bytes; {MAX_DOCUMENT} are allowed")
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ImageError(f"{what} is damaged: {error}") from error


def _check_descriptor(descriptor: Descriptor, what: str) -> None:
    if not valid_digest(descriptor.digest):
        raise ImageError(
            f"{what} names a blob by {descriptor.digest[:160]!r}, which is no sha256, sha384 or sha512 digest"
        )
    if descriptor.size < 0:
        raise ImageError(f"{what} gives the blob {descriptor.digest} a negative size")
    if descriptor.data is not None:
        import base64
        import binascii

        try:
            content = base64.b64decode(descriptor.data, validate=True)
        except binascii.Error as error:
            raise ImageError(f"{what} embeds damaged data for {descriptor.digest}") from error
        check_digest(content, descriptor.digest, descriptor.size, f"the data embedded in {what}")


def check_digest(content: bytes, digest: str, size: int | None, what: str) -> None:
    """Hold content against its digest and, where it is known, its size.

    Raises
    ------
    DigestMismatch: it is something else.
    """
    if size is not None and len(content) != size:
        raise DigestMismatch(f"{what} has {len(content)} bytes, its descriptor says {size}")
    algorithm, _, value = digest.partition(":")
    actual = hashlib.new(algorithm, content).hexdigest()
    if actual != value:
        raise DigestMismatch(f"{what} has the digest {algorithm}:{actual}, not {digest}")


def _check_type(claimed: str | None, allowed: frozenset[str], what: str) -> None:
    if claimed and claimed not in allowed:
        raise ImageError(f"{what} calls itself {claimed[:100]!r}, which is something else (CVE-2021-41190)")


def decode_index(content: bytes, what: str) -> Index:
    """Read an index and check it.

    Raises
    ------
    ImageError: it is damaged, beyond the limits, or a manifest at the same time.
    """
    index = _decode(content, Index, what)
    if bytes(index.layers) or bytes(index.config):
        raise ImageError(f"{what} is an index and a manifest at once, which no honest tool writes (CVE-2021-41190)")
    if index.schema_version != 2:
        raise ImageError(f"{what} has schema version {index.schema_version}; this pyrtc reads version 2")
    _check_type(index.media_type, INDEX_TYPES, what)
    if len(index.manifests) > MAX_MANIFESTS:
        raise ImageError(f"{what} lists {len(index.manifests)} manifests; {MAX_MANIFESTS} are allowed")
    for descriptor in index.manifests:
        _check_descriptor(descriptor, what)
    return index


def decode_manifest(content: bytes, what: str) -> Manifest:
    """Read a manifest and check it: an image's, with layers that can be unpacked.

    Raises
    ------
    ImageError: it is damaged, beyond the limits, an index at the same time, or no container image.
    """
    manifest = _decode(content, Manifest, what)
    if bytes(manifest.manifests):
        raise ImageError(f"{what} is an index and a manifest at once, which no honest tool writes (CVE-2021-41190)")
    if manifest.schema_version != 2:
        raise ImageError(f"{what} has schema version {manifest.schema_version}; this pyrtc reads version 2")
    _check_type(manifest.media_type, MANIFEST_TYPES, what)
    if manifest.config.media_type not in CONFIG_TYPES:
        kind = manifest.config.media_type[:100] or "of no type"
        raise ImageError(f"{what} is no container image: its config is {kind}")
    if manifest.config.size > MAX_DOCUMENT:
        raise ImageError(f"{what} has a config of {manifest.config.size} bytes; {MAX_DOCUMENT} are allowed")
    if len(manifest.layers) > MAX_LAYERS:
        raise ImageError(f"{what} has {len(manifest.layers)} layers; the kernel stacks {MAX_LAYERS}")
    _check_descriptor(manifest.config, what)
    for layer in manifest.layers:
        _check_descriptor(layer, what)
        if not _LAYER_TYPE.fullmatch(layer.media_type):
            raise ImageError(f"{what} has a layer of the type {layer.media_type[:100]!r}, which cannot be unpacked")
    return manifest


def decode_config(content: bytes, what: str, layer_count: int) -> ConfigDocument:
    """Read an image's config and check that it fits its layers.

    Raises
    ------
    ImageError: it is damaged, beyond the limits, or has another number of layers.
    """
    config = _decode(content, ConfigDocument, what)
    if config.rootfs.type != "layers":
        raise ImageError(f"{what} describes a root of the type {config.rootfs.type[:40]!r}, not layers")
    if len(config.diff_ids) != layer_count:
        raise ImageError(f"{what} has {len(config.diff_ids)} diffIDs for {layer_count} layers")
    for diff_id in config.diff_ids:
        if not valid_digest(diff_id):
            raise ImageError(f"{what} has the diffID {diff_id[:160]!r}, which is no digest")
    return config


def decode_archive_manifest(content: bytes) -> list[ArchiveEntry]:
    """Read the manifest.json of a docker-archive.

    Raises
    ------
    ImageError: it is damaged or beyond the limits.
    """
    entries = _decode(content, list[ArchiveEntry], "manifest.json")
    for entry in entries:
        if len(entry.layers or ()) > MAX_LAYERS:
            raise ImageError(
                f"an image in manifest.json has {len(entry.layers or ())} layers; the kernel stacks {MAX_LAYERS}"
            )
    return entries


def check_layout(content: bytes) -> None:
    """Check an oci-layout file.

    Raises
    ------
    ImageError: it is damaged or of a version that is not 1.
    """
    version = _decode(content, _Layout, "oci-layout").image_layout_version
    if version.partition(".")[0] != "1":
        raise ImageError(f"the OCI layout has version {version[:40]!r}; this pyrtc reads version 1")
