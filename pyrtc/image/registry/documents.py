"""What registries and token servers say in JSON, read with care: strangers wrote it."""

from typing import TypeVar

import msgspec

from pyrtc.errors import ImageError, RegistryError
from pyrtc.image.media_types import INDEX_TYPES, MANIFEST_TYPES

__all__ = ["TokenDocument", "decode_tags", "decode_token", "media_type", "said_errors"]

_FIRST_SCHEMA = "application/vnd.docker.distribution.manifest.v1+"
_DAMAGE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class TokenDocument(msgspec.Struct, frozen=True):
    """A token server's answer."""

    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


class _ErrorLine(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""


class _ErrorDocument(msgspec.Struct, frozen=True):
    errors: list[_ErrorLine] = []


class _TagList(msgspec.Struct, frozen=True):
    tags: list[str] | None = None


class _TypeOnly(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str | None = None
    schema_version: int = 0
    manifests: msgspec.Raw = msgspec.Raw(b"")


_T = TypeVar("_T")


def _decode(content: bytes, kind: type[_T], what: str) -> _T:
    try:
        return msgspec.json.decode(content, type=kind)
    except _DAMAGE as error:
        raise RegistryError(f"{what} is damaged: {error}") from None


def decode_token(content: bytes, what: str) -> TokenDocument:
    """Read a token server's answer.

    Raises
    ------
    RegistryError: it is damaged.
    """
    return _decode(content, TokenDocument, what)


def decode_tags(content: bytes, what: str) -> list[str]:
    """Read a list of tags.

    Raises
    ------
    RegistryError: it is damaged.
    """
    return _decode(content, _TagList, what).tags or []


def said_errors(content: bytes) -> str:
    """Return what a registry says went wrong, in a line; empty when it says nothing that can be read."""
    try:
        lines = msgspec.json.decode(content, type=_ErrorDocument).errors[:3]
    except _DAMAGE:
        return ""
    return "; ".join(f"{line.code} {line.message}".strip()[:200] for line in lines)


def media_type(content: bytes, kind: str, what: str) -> str:
    """Return what a manifest is, from its own words and the registry's, which must agree (CVE-2021-41190).

    Parameters
    ----------
    kind: the registry's word, its Content-Type.

    Raises
    ------
    ImageError: it is damaged, claims to be two things, or is in the first schema.
    """
    try:
        document = msgspec.json.decode(content, type=_TypeOnly)
    except _DAMAGE as error:
        raise ImageError(f"{what} is damaged: {error}") from None
    if document.schema_version == 1 or kind.startswith(_FIRST_SCHEMA):
        raise ImageError(
            f"{what} is in Docker's schema 1, which was given up in 2017 and has no digests of what is in its layers: "
            "have whoever made the image push it again"
        )
    own = document.media_type or ""
    known = MANIFEST_TYPES | INDEX_TYPES
    if own and kind in known and own != kind:
        raise ImageError(f"{what} calls itself {own[:100]!r}, the registry calls it {kind!r} (CVE-2021-41190)")
    if own or kind in known:
        return own or kind
    # OCI manifests need not say what they are, and some registries do not either.
    index = bool(bytes(document.manifests))
    return f"application/vnd.oci.image.{'index' if index else 'manifest'}.v1+json"
