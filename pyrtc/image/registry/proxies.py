"""Which proxy a URL goes through: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, read as curl and Go read them."""

import ipaddress
import os

from pyrtc.errors import UsageError
from pyrtc.image.registry.addresses import Origin

__all__ = ["proxy_for"]


def proxy_for(origin: Origin) -> str | None:
    """Return the URL of the proxy for an origin, or None.

    This machine is never reached through a proxy. HTTP_PROXY in capitals is ignored inside a CGI program, whose
    visitors can set it (CVE-2016-5385).

    Raises
    ------
    UsageError: the variable names a proxy of a kind that is not spoken.
    """
    if origin.loopback or _excluded(origin):
        return None
    url = _variable(f"{origin.scheme}_proxy") or _variable("all_proxy")
    if not url:
        return None
    if "://" not in url:
        url = f"http://{url}"
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"the proxy {url.partition('@')[2] or url} is neither http:// nor https://")
    return url


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if value is None and not (name == "http_proxy" and "REQUEST_METHOD" in os.environ):
        value = os.environ.get(name.upper())
    return (value or "").strip()


def _excluded(origin: Origin) -> bool:
    try:
        address = ipaddress.ip_address(origin.host)
    except ValueError:
        address = None
    for entry in _variable("no_proxy").lower().split(","):
        name = entry.strip()
        if not name:
            continue
        if name == "*":
            return True
        if address is not None and "/" in name:
            try:
                if address in ipaddress.ip_network(name, strict=False):
                    return True
            except ValueError:
                pass
            continue
        host, _, port = name.rpartition(":")
        if host and port.isdigit() and ":" not in host.strip("[]"):
            if int(port) != origin.port:
                continue
            name = host
        name = name.strip("[]").removeprefix("*").lstrip(".")
        if origin.host == name or (address is None and origin.host.endswith(f".{name}")):
            return True
    return False
