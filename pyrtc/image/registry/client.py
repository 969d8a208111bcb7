"""The verbs of the distribution spec (OCI distribution-spec 1.1, "Endpoints") that read a repository of one server."""

import hashlib
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin

from pyrtc.errors import DigestMismatch, ImageError, RegistryBusy, RegistryDenied, RegistryError
from pyrtc.image.media_types import INDEX_TYPES, MANIFEST_TYPES
from pyrtc.image.reference import valid_digest
from pyrtc.image.registry.addresses import Origin
from pyrtc.image.registry.auth import Authorizer
from pyrtc.image.registry.response import Response
from pyrtc.image.registry.settings import Endpoint
from pyrtc.image.registry.transport import Body, Transport
from pyrtc.values import dataclass

# Most pulls find nothing new and read no document.
if TYPE_CHECKING:
    from pyrtc.image import model
    from pyrtc.image.registry.credentials import Credentials

__all__ = ["ManifestBytes", "NotThere", "Repository"]

ACCEPT = ", ".join(sorted(MANIFEST_TYPES | INDEX_TYPES))
_MAX_ERROR = 64 << 10
_MAX_LIST = 4 << 20
_MOST_PAGES = 1000
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(?:\d{1,18}|\*)")
_NEXT = re.compile(r'<([^<>]{1,4096})>\s*;\s*rel="?next"?')


class NotThere(RegistryError, LookupError):
    """The registry has no such manifest, blob or repository."""


@dataclass(frozen=True, slots=True)
class ManifestBytes:
    """A manifest or index as it came, verified. media_type: what it is."""

    content: bytes
    digest: str
    media_type: str

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests."""
        return self.media_type in INDEX_TYPES


class Repository:
    """One repository of one server, for reading (`Destination` of uploads: also for writing). Used by many threads."""

    actions = "pull"  # what tokens are asked for

    def __init__(self, transport: Transport, endpoint: Endpoint) -> None:
        self.transport = transport
        self.endpoint = endpoint
        self._scopes = frozenset({f"repository:{endpoint.path}:{self.actions}"} if endpoint.path else ())
        self._authorizer: Authorizer | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """``host[:port]/path``."""
        return self.endpoint.repository

    @property
    def origin(self) -> Origin:
        """Where the server is."""
        return self.transport.origin(self.endpoint)

    @property
    def authorizer(self) -> Authorizer:
        """What proves who is asking."""
        with self._lock:
            if self._authorizer is None:
                self._authorizer = Authorizer(self.transport, self.endpoint, self.origin, self._stored)
            return self._authorizer

    def _stored(self) -> "Credentials | None":
        from pyrtc.image.registry import credentials

        return credentials.find(self.endpoint.domain, self.endpoint.path)

    def use(self, given: "Credentials") -> None:
        """Prove oneself with these credentials, not the stored ones."""
        with self._lock:
            self._authorizer = Authorizer(self.transport, self.endpoint, self.origin, lambda: given)

    # ---- requests ------------------------------------------------------------------------------------------------

    def _request(
        self,
        method: str,
        path: str,
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        size: int | None = None,
        scopes: frozenset[str] = frozenset(),
        persist: bool = True,
    ) -> Response:
        """Make a request with authorization, again where that helps. path: below the repository, or a whole URL."""
        whole = "://" in path
        url = path if whole else f"{self.origin.base}/v2/{path}"
        # An upload goes where the registry says; its own origin alone gets the authorization.
        ours = Origin.of(url) == self.origin
        wanted = self._scopes | scopes

        def once() -> Response:
            used = self.authorizer.header(wanted) if ours else None
            send = partial(
                self.transport.send,
                method,
                url,
                what=what,
                endpoint=self.endpoint,
                headers=headers,
                body=body,
                size=size,
                led=whole,
            )
            response = send(authorization=used)
            # Twice: a token that has just run out, then one that is too narrow.
            for _ in range(2):
                if response.status != 401 or not ours:
                    break
                response.finish()
                used = self.authorizer.answer(response, wanted, used)
                response = send(authorization=used)
            return response

        return self.transport.persist(once, what) if persist else once()

    def _path(self, *parts: str) -> str:
        return "/".join((self.endpoint.path, *(quote(part, safe=":") for part in parts)))

    def _refuse(self, response: Response, what: str) -> RegistryError:
        """Return the error for an answer that is none of the good ones; the answer is read to its end."""
        from pyrtc.image.registry.documents import said_errors

        said = ""
        with response, suppress(RegistryError):
            said = said_errors(response.document(_MAX_ERROR))
        text = f"{what}: {said or f'the registry answers with {response.status}'}"
        if response.status in (401, 403):
            return RegistryDenied(text)
        if response.status == 404:
            return NotThere(text)
        if response.status == 429:
            return RegistryBusy(text)
        return RegistryError(text)

    def ping(self) -> None:
        """Ask whether this is a registry, and whether it knows who is asking.

        Raises
        ------
        RegistryDenied: it wants other credentials. RegistryError: it is no registry.
        """
        what = f"the registry {self.endpoint.domain}"
        response = self._request("GET", "", what)
        if response.status != 200:
            raise self._refuse(response, what)
        response.finish()

    # ---- manifests -----------------------------------------------------------------------------------------------

    def head_manifest(self, reference: str) -> str | None:
        """Return the digest that a tag or digest has, without fetching it; None when the registry does not say.

        Raises
        ------
        NotThere: there is no such manifest.
        """
        what = f"the manifest of {self.name}:{reference}"
        response = self._request("HEAD", self._path("manifests", reference), what, headers={"Accept": ACCEPT})
        response.finish()
        if response.status == 404:
            raise NotThere(f"{what} is not there")
        digest = response.header("Docker-Content-Digest") or ""
        return digest if response.status == 200 and valid_digest(digest) else None

    def manifest(self, reference: str, size: int | None = None) -> ManifestBytes:
        """Fetch a manifest or index by tag or digest and verify it.

        Parameters
        ----------
        size: what a descriptor says.

        Raises
        ------
        NotThere: there is none. DigestMismatch: it is not what its digest, its size or the registry's header says.
        ImageError: it is of a kind that is not read, or claims to be two things.
        """
        from pyrtc.image import model
        from pyrtc.image.registry.documents import media_type

        what = f"the manifest of {self.name}{'@' if ':' in reference else ':'}{reference}"
        response = self._request("GET", self._path("manifests", reference), what, headers={"Accept": ACCEPT})
        if response.status != 200:
            raise self._refuse(response, what)
        with response:
            content = response.document(model.MAX_DOCUMENT)
            claimed = response.header("Docker-Content-Digest")
            kind = (response.header("Content-Type") or "").partition(";")[0].strip().lower()
        if ":" in reference:
            model.check_digest(content, reference, size, what)
            digest = reference
        else:
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if claimed and claimed != digest:
            if not valid_digest(claimed):
                raise DigestMismatch(f"{what}: the registry calls it {claimed[:160]!r}, which is no digest")
            model.check_digest(content, claimed, None, what)
            digest = digest if ":" in reference else claimed
        return ManifestBytes(content, digest, media_type(content, kind, what))

    def tags(self) -> tuple[str, ...]:
        """Return all tags, page by page.

        Raises
        ------
        NotThere: there is no such repository.
        """
        from pyrtc.image.registry.documents import decode_tags

        what = f"the tags of {self.name}"
        found: list[str] = []
        path = self._path("tags", "list")
        for _ in range(_MOST_PAGES):
            response = self._request("GET", path, what)
            if response.status != 200:
                raise self._refuse(response, what)
            with response:
                found += decode_tags(response.document(_MAX_LIST), what)
                following = _NEXT.search(response.header("Link") or "")
            if following is None:
                return tuple(found)
            path = urljoin(response.url, following[1])
        raise RegistryError(f"{what} never end")

    # ---- blobs ---------------------------------------------------------------------------------------------------

    def blob(self, descriptor: "model.Descriptor", limit: int, what: str) -> bytes:
        """Fetch a small blob whole and verify it.

        Raises
        ------
        NotThere: there is none. DigestMismatch: it is not what the descriptor says. RegistryError: it is too large.
        """
        from pyrtc.image import model

        if descriptor.size > limit:
            raise ImageError(f"{what} has {descriptor.size} bytes; {limit} are allowed")
        response = self._request("GET", self._path("blobs", descriptor.digest), what)
        if response.status != 200:
            raise self._refuse(response, what)
        with response:
            content = response.document(limit)
        model.check_digest(content, descriptor.digest, descriptor.size, what)
        return content

    def open_blob(self, digest: str, offset: int, what: str) -> tuple[Response, int]:
        """Begin to fetch a blob from an offset on; returns the answer and where it really begins: there, or at 0.

        Raises
        ------
        NotThere: there is none.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response = self._request("GET", self._path("blobs", digest), what, headers=headers)
        if response.status == 200:
            return response, 0
        if response.status == 206 and offset:
            match = _CONTENT_RANGE.fullmatch((response.header("Content-Range") or "").strip())
            if match is not None and int(match[1]) == offset:
                return response, offset
            response.close()
            raise RegistryError(f"{what}: the registry gives another part than bytes {offset} and on")
        raise self._refuse(response, what)

    def has_blob(self, digest: str) -> bool:
        """Say whether the repository has a blob."""
        what = f"the blob {digest} of {self.name}"
        response = self._request("HEAD", self._path("blobs", digest), what)
        response.finish()
        if response.status == 200:
            return True
        if response.status == 404:
            return False
        raise self._refuse(response, what)
