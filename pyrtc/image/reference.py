"""Image names, read and written exactly as Docker does (github.com/distribution/reference).

``debian`` is short for ``docker.io/library/debian:latest``: the canonical form is what the store keeps, the familiar
form is what people type and read.
"""

import re

from pyrtc.errors import ImageError
from pyrtc.values import dataclass, replace

__all__ = ["DIGEST_LENGTHS", "Reference", "valid_digest"]

DEFAULT_DOMAIN = "docker.io"
LEGACY_DOMAIN = "index.docker.io"
OFFICIAL = "library/"
MAX_LENGTH = 255  # of the repository's path, and of the domain

DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}  # hexadecimal digits

_COMPONENT = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = rf"(?:{_COMPONENT}(?:\.{_COMPONENT})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_NAME = re.compile(
    rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_PATH}(?:/{_PATH})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>[A-Za-z0-9_+.:-]+))?"
)
_HEX64 = re.compile(r"[a-f0-9]{64}")
_DIGEST = re.compile(r"(?P<algorithm>[a-z0-9]+):(?P<hex>[a-f0-9]+)")


def valid_digest(text: str) -> bool:
    """Say whether text is a whole digest of an algorithm that pyrtc knows, so that it is safe as a file name."""
    match = _DIGEST.fullmatch(text)
    return match is not None and DIGEST_LENGTHS.get(match["algorithm"]) == len(match["hex"])


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised image name.

    domain: registry host with its port (``docker.io``). path: repository below it (``library/debian``).
    tag, digest: as given; both may be there, then the digest decides and the tag is for the reader.
    """

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read a name as Docker's command line does.

        Raises
        ------
        ImageError: it is no name; the text says which rule it breaks.
        """
        # The longest legal name: domain and path of 255, a tag of 128, a sha512 digest.
        if len(text) > 2 * MAX_LENGTH + 128 + 138:
            raise ImageError(f"invalid reference format: {text[:40]}... has {len(text)} characters")
        if _HEX64.fullmatch(text):
            raise ImageError(f"invalid repository name ({text}): 64 hexadecimal digits are an image id")
        first, slash, rest = text.partition("/")
        if not slash:
            domain, remote = DEFAULT_DOMAIN, text
        elif first == "localhost" or "." in first or ":" in first or first.lower() != first:
            domain, remote = first, rest
        else:
            domain, remote = DEFAULT_DOMAIN, text
        if domain == LEGACY_DOMAIN:
            domain = DEFAULT_DOMAIN
        name = re.split("[:@]", remote, maxsplit=1)[0]
        if name != name.lower():
            raise ImageError(f"invalid reference format: repository name ({name}) must be lowercase")
        if domain == DEFAULT_DOMAIN and "/" not in remote:
            remote = OFFICIAL + remote
        match = _NAME.fullmatch(f"{domain}/{remote}")
        if match is None or match["domain"] != domain:
            raise ImageError(
                f"invalid reference format: {text!r}: a name is [registry[:port]/]name[/name...][:tag][@digest], "
                "lower case letters, digits and single separators"
            )
        if len(match["path"]) > MAX_LENGTH or len(domain) > MAX_LENGTH:
            raise ImageError(f"repository name must not be more than {MAX_LENGTH} characters: {text[:40]}...")
        digest = match["digest"]
        if digest is not None and not valid_digest(digest):
            raise ImageError(f"invalid reference format: {digest} is no sha256, sha384 or sha512 digest")
        return cls(domain, match["path"], match["tag"], digest)

    @property
    def repository(self) -> str:
        """The canonical name without tag and digest: ``docker.io/library/debian``."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """The repository as people write it: ``debian``."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        short = self.path.removeprefix(OFFICIAL) if self.path.count("/") == 1 else self.path
        # docker.io/localhost/x and its like would be read back as another registry's: they keep their domain.
        head = short.partition("/")[0] if "/" in short else ""
        return self.repository if head == "localhost" or "." in head else short

    @property
    def canonical(self) -> str:
        """The whole name: ``docker.io/library/debian:latest``."""
        return self.repository + self._suffix

    @property
    def familiar(self) -> str:
        """The short form that means the same: ``debian:latest``."""
        return self.familiar_repository + self._suffix

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> "Reference":
        """Add ``latest`` where there is neither a tag nor a digest."""
        return self if self.tag or self.digest else replace(self, tag="latest")

    def __str__(self) -> str:
        """Return the familiar form."""
        return self.familiar
