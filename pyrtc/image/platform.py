"""Which of an image's variants fits: os/architecture/variant, in the words of OCI (Go's GOOS, GOARCH, GOARM)."""

import os

from pyrtc.errors import UsageError
from pyrtc.values import dataclass

__all__ = ["Platform"]

_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
    "loongarch64": ("loong64", ""),
    "mips64": ("mips64le", ""),
}
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm", "i386": "386"}
# What an architecture means when no variant is named.
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7", "amd64": "v1"}


@dataclass(frozen=True, slots=True)
class Platform:
    """One platform; variant may be empty."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def host(cls) -> "Platform":
        """Return the platform of this machine."""
        architecture, variant = _MACHINES.get(os.uname().machine, (os.uname().machine, ""))
        return cls("linux", architecture, variant)

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """Read ``linux/arm64/v8``, ``linux/amd64`` or ``amd64``.

        Raises
        ------
        UsageError: it is none of these.
        """
        parts = text.lower().split("/")
        if not 1 <= len(parts) <= 3 or not all(part.replace("_", "").replace("-", "").isalnum() for part in parts):
            raise UsageError(f"invalid platform {text!r}: write os/architecture[/variant], for example linux/amd64")
        if len(parts) == 1:
            return cls("linux", _ALIASES.get(parts[0], parts[0]))
        return cls(parts[0], _ALIASES.get(parts[1], parts[1]), parts[2] if len(parts) == 3 else "")

    def rank(self, other: "Platform") -> int | None:
        """Say how well an image for other runs where self is wanted: 0 is best, None is not at all.

        A 32-bit ARM machine runs older variants, too; the nearest is best.
        """
        if (self.os, self.architecture) != (other.os, other.architecture):
            return None
        default = _DEFAULT_VARIANTS.get(self.architecture, "")
        wanted, offered = self.variant or default, other.variant or default
        if wanted == offered:
            return 0
        if self.architecture in ("arm", "amd64") and wanted[1:].isdigit() and offered[1:].isdigit():
            distance = int(wanted[1:]) - int(offered[1:])
            return distance if distance > 0 else None
        return None

    def __str__(self) -> str:
        """Return the form that `parse` reads."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)
