"""Words for names and addresses: container and host names, `--add-host`, `--dns`, `--platform`."""

import re

from pyrtc.errors import UsageError

__all__ = ["container_name", "extra_host", "host_name", "ip_address", "platform", "search_domain"]

ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386", "i686": "386"}


def container_name(word: str) -> str:
    """Read the name of a container."""
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}", word):
        raise UsageError("a name is 2 to 128 of [a-zA-Z0-9_.-], the first a letter or digit")
    return word


def host_name(word: str) -> str:
    """Read a host or domain name; the kernel holds 64 bytes."""
    if not re.fullmatch(r"[a-zA-Z0-9](?:[a-zA-Z0-9._-]{0,62}[a-zA-Z0-9])?", word):
        raise UsageError("a host name is up to 64 of [a-zA-Z0-9._-], the first and the last a letter or digit")
    return word


def ip_address(word: str) -> str:
    """Read an IPv4 or IPv6 address and return it in its usual form."""
    import ipaddress

    try:
        return str(ipaddress.ip_address(word))
    except ValueError:
        raise UsageError("not an IP address") from None


def extra_host(word: str) -> tuple[str, str]:
    """Read `NAME:ADDRESS` or `NAME=ADDRESS`; an IPv6 address may stand in brackets, `host-gateway` for the host's."""
    name, equals, address = word.partition("=")
    if not equals:
        name, colon, address = word.partition(":")
        if not colon:
            raise UsageError("write NAME:ADDRESS")
    if not re.fullmatch(r"[a-zA-Z0-9._-]+", name):
        raise UsageError(f"{name!r} is not a host name")
    if address == "host-gateway":
        return name, address
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    try:
        return name, ip_address(address)
    except UsageError:
        raise UsageError(f"{address!r} is not an IP address") from None


def search_domain(word: str) -> str:
    """Read a domain to search names in; `.` stands for none."""
    if word == ".":
        return word
    labels = word.removesuffix(".").split(".")
    if len(word) > 253 or not all(re.fullmatch(r"[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?", x) for x in labels):
        raise UsageError("not a domain")
    return word


def platform(word: str) -> str:
    """Read `linux/amd64`, `linux/arm64/v8` or an architecture alone; return it with Go's names, as images have it."""
    parts = word.lower().split("/")
    if len(parts) == 1:
        parts = ["linux", *parts]
    if len(parts) > 3 or not all(re.fullmatch(r"[a-z0-9_.-]+", part) for part in parts):
        raise UsageError("a platform is written OS/ARCHITECTURE[/VARIANT], for example linux/amd64")
    if parts[0] != "linux":
        raise UsageError("containers run on the kernel of this machine, which is linux")
    parts[1] = ARCHITECTURES.get(parts[1], parts[1])
    return "/".join(parts)
