"""Where a URL leads: origins, and addresses that a registry must not send anybody to."""

import ipaddress
import re
from urllib.parse import urlsplit

from pyrtc.errors import RegistryError
from pyrtc.values import dataclass

__all__ = ["Origin", "check_reach", "is_loopback", "reach"]

_PORTS = {"http": 80, "https": 443}
# Metadata services of clouds outside the link-local ranges: AWS over IPv6, Azure's wire server, Alibaba.
_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "168.63.129.16", "100.100.100.200")))
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_LONGEST_URL = 8192


@dataclass(frozen=True, slots=True)
class Origin:
    """What credentials are bound to: scheme, host and port (RFC 6454)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> "Origin":
        """Return the origin of an absolute URL.

        Raises
        ------
        RegistryError: it is none, of another scheme, or carries a user's name.
        """
        try:
            if len(url) > _LONGEST_URL or _CONTROL.search(url):
                raise ValueError
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise RegistryError(f"a registry gave an address that is no URL: {url[:120]!r}") from None
        if parts.scheme not in _PORTS or not host:
            raise RegistryError(f"a registry gave an address that is no http or https URL: {url[:120]!r}")
        if parts.username is not None or parts.password is not None:
            raise RegistryError(f"a registry gave a URL with a user name in it, which is refused: {host}")
        return cls(parts.scheme, host.lower(), port if port is not None else _PORTS[parts.scheme])

    @property
    def base(self) -> str:
        """The URL of its root, without the slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if _PORTS[self.scheme] == self.port else f":{self.port}")

    @property
    def loopback(self) -> bool:
        """Whether it is this machine by its name or literal address."""
        return is_loopback(self.host)

    @property
    def private(self) -> bool:
        """Whether nobody between can read what is sent: TLS, or a connection that does not leave the machine."""
        return self.scheme == "https" or self.loopback


def is_loopback(host: str) -> bool:
    """Say whether a host name or literal address is this machine."""
    return host == "localhost" or reach(host) == "loopback"


def reach(host: str) -> str:
    """Say what kind of place a literal address is: ``loopback``, ``link-local`` (metadata services too), or nothing.

    A name that is no address is nothing: it counts where it is connected to.
    """
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return "loopback" if host == "localhost" else ""
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        address = mapped
    if address.is_loopback or address.is_unspecified:
        return "loopback"
    if address.is_link_local or address in _METADATA:
        return "link-local"
    return "multicast" if address.is_multicast else ""


def check_reach(host: str, allowed: str, why: str) -> None:
    """Refuse an address that somebody else's answer must not lead to, unless the asked registry is such a place itself.

    Parameters
    ----------
    host: a name or a literal address. allowed: the `reach` of the registry. why: who led there, for the error.

    Raises
    ------
    RegistryError: it is this machine, a link-local address or a cloud's metadata service.
    """
    kind = reach(host)
    if kind and kind != allowed:
        raise RegistryError(f"{why} leads to {host}, a {kind} address, which is refused")
