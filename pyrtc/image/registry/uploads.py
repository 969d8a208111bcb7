"""The verbs of the distribution spec (OCI distribution-spec 1.1, "Push") that write to one repository of one server."""

import hashlib
import re
from urllib.parse import quote, urljoin, urlsplit

from pyrtc.errors import DigestMismatch, RegistryError
from pyrtc.image.registry.addresses import Origin
from pyrtc.image.registry.client import Repository
from pyrtc.image.registry.response import Response
from pyrtc.image.registry.transport import Body

__all__ = ["Destination", "TooLarge"]

_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")


class TooLarge(RegistryError):
    """The registry takes no request of this size."""


class Destination(Repository):
    """One repository of one server, for reading and writing. Used by many threads."""

    actions = "pull,push"

    def _refuse(self, response: Response, what: str) -> RegistryError:
        refused = super()._refuse(response, what)
        return TooLarge(str(refused)) if response.status == 413 else refused

    def put_manifest(self, reference: str, content: bytes, media_type: str) -> str:
        """Send a manifest or index, byte for byte; returns its digest.

        Raises
        ------
        DigestMismatch: the registry stored something else. RegistryError: it refuses.
        """
        what = f"the manifest of {self.name}:{reference}"
        response = self._request(
            "PUT",
            self._path("manifests", reference),
            what,
            headers={"Content-Type": media_type},
            body=content,
            size=len(content),
        )
        if response.status not in (200, 201, 202):
            raise self._refuse(response, what)
        response.finish()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        stored = response.header("Docker-Content-Digest")
        if stored and stored.startswith("sha256:") and stored != digest:
            raise DigestMismatch(f"{what} has the digest {digest}; the registry stored {stored[:80]}")
        return digest

    def mount_blob(self, digest: str, source: str) -> str | None:
        """Take a blob over from another repository of the same registry.

        Returns None when that is done, else the address of an upload that the registry began instead.
        """
        what = f"the blob {digest} of {self.name}"
        path = f"{self._path('blobs', 'uploads')}/?mount={quote(digest, safe='')}&from={quote(source, safe='')}"
        scope = frozenset({f"repository:{source}:pull"})
        response = self._request("POST", path, what, size=0, scopes=scope)
        if response.status == 201:
            response.finish()
            return None
        if response.status == 202:
            response.finish()
            return self._location(response, what)
        raise self._refuse(response, what)

    def begin_upload(self, digest: str) -> str:
        """Begin an upload; returns the address that takes the bytes."""
        what = f"the blob {digest} of {self.name}"
        response = self._request("POST", f"{self._path('blobs', 'uploads')}/", what, size=0)
        if response.status != 202:
            raise self._refuse(response, what)
        response.finish()
        return self._location(response, what)

    def upload_offset(self, location: str, digest: str) -> tuple[str, int]:
        """Return where an upload goes on, and how many bytes of it the registry has."""
        what = f"the blob {digest} of {self.name}"
        response = self._request("GET", location, what)
        if response.status != 204:
            raise self._refuse(response, what)
        response.finish()
        match = _RANGE.fullmatch((response.header("Range") or "").strip())
        last = int(match[1]) if match is not None else 0
        # "0-0" is said of no byte and of one; going on from none is right for both.
        return self._location(response, what) if response.header("Location") else location, last + 1 if last else 0

    def send_part(self, location: str, digest: str, body: Body, offset: int, size: int) -> str:
        """Send bytes of an upload; returns where it goes on."""
        what = f"the blob {digest} of {self.name}"
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{offset}-{offset + size - 1}"}
        response = self._request("PATCH", location, what, headers=headers, body=body, size=size, persist=False)
        if response.status not in (201, 202, 204):
            raise self._refuse(response, what)
        response.finish()
        return self._location(response, what)

    def end_upload(self, location: str, digest: str, body: Body | None, size: int) -> None:
        """Send the last bytes of an upload, or all, and give the blob its digest.

        Raises
        ------
        RegistryError: the registry refuses, as when the bytes do not have the digest.
        """
        what = f"the blob {digest} of {self.name}"
        joint = "&" if urlsplit(location).query else "?"
        response = self._request(
            "PUT",
            f"{location}{joint}digest={quote(digest, safe='')}",
            what,
            headers={"Content-Type": "application/octet-stream"},
            body=body,
            size=size,
            persist=False,
        )
        if response.status != 201:
            raise self._refuse(response, what)
        response.finish()

    def _location(self, response: Response, what: str) -> str:
        location = response.header("Location")
        if not location:
            raise RegistryError(f"{what}: the registry does not say where the upload goes")
        url = urljoin(response.url, location)
        target = Origin.of(url)
        if self.origin.scheme == "https" and target.scheme == "http":
            raise RegistryError(f"{what}: {self.endpoint.domain} leads from https to {target.base}, which is refused")
        return url
