"""What is said about the networks of a container: read from words, put together, and held against the other options."""

import re
from collections.abc import Sequence

from pyrtc.errors import UsageError
from pyrtc.options import NetworkAttachment, RunOptions
from pyrtc.values import replace

__all__ = [
    "CONTAINER",
    "DEFAULT",
    "SHARED",
    "alias",
    "attachment",
    "check_networks",
    "container_of",
    "decide_networks",
    "is_mode",
    "mac_address",
    "with_details",
]

CONTAINER = "container:"
SHARED = "shared"  # a file in a container's directory: others have joined its network
DEFAULT = "bridge"  # where a port is published unless a network is named
_MODES = ("none", "host")
_LATER = {
    "driver-opt": "say it when the network is made",
    "gw-priority": "the default route goes into the first network that is named and leads outside",
    "link-local-ip": "the kernel picks link-local addresses",
}


def attachment(word: str) -> NetworkAttachment:
    """Read a value of `--network`: a name, or `name=NAME,ip=ADDRESS,ip6=ADDRESS,mac-address=MAC,alias=NAME`.

    Raises
    ------
    UsageError: it is none.
    """
    if "=" not in word:
        return _named(word)
    found: dict[str, str] = {}
    aliases: list[str] = []
    for field in word.split(","):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals or not value:
            raise UsageError(f"invalid field {field!r}: write name=NAME,ip=ADDRESS,alias=NAME")
        if key == "alias":
            aliases.append(alias(value))
        elif key in ("name", "ip", "ip6", "mac-address"):
            if key in found:
                raise UsageError(f"{key} is said twice")
            found[key] = value
        elif key in _LATER:
            raise UsageError(f"{key} is not available: {_LATER[key]}")
        else:
            raise UsageError(f"invalid field {key!r}: there are name, ip, ip6, mac-address and alias")
    if "name" not in found:
        raise UsageError("the name of the network is missing: name=NAME")
    return with_details(
        _named(found["name"]), found.get("ip"), found.get("ip6"), found.get("mac-address"), tuple(aliases)
    )


def _named(name: str) -> NetworkAttachment:
    if not name or "\0" in name or any(char.isspace() for char in name):
        raise UsageError(f"{name!r} is not the name of a network")
    if name == CONTAINER:
        raise UsageError("the name or id of the container is missing: container:NAME")
    return NetworkAttachment(DEFAULT if name == "default" else name)


def with_details(
    asked: NetworkAttachment,
    ip: str | None = None,
    ip6: str | None = None,
    mac: str | None = None,
    aliases: Sequence[str] = (),
) -> NetworkAttachment:
    """Return an attachment with what is said about it beside its name.

    Raises
    ------
    UsageError: something is no address, or was said already.
    """
    for what, earlier, later in (("--ip", asked.ip, ip), ("--ip6", asked.ip6, ip6), ("--mac-address", asked.mac, mac)):
        if earlier and later:
            raise UsageError(f"conflicting options: cannot specify both {what} and the same within --network")
    if asked.aliases and aliases:
        raise UsageError("conflicting options: cannot specify both --network-alias and per-network alias")
    return replace(
        asked,
        ip=_address(ip, 4) if ip else asked.ip,
        ip6=_address(ip6, 6) if ip6 else asked.ip6,
        mac=mac_address(mac) if mac else asked.mac,
        aliases=tuple(dict.fromkeys(alias(name) for name in aliases)) or asked.aliases,
    )


def _address(word: str, version: int) -> str:
    import ipaddress  # a millisecond, for the few who name addresses

    try:
        found = ipaddress.ip_address(word)
    except ValueError:
        raise UsageError(f"{word!r} is not an IPv{version} address") from None
    if found.version != version or getattr(found, "scope_id", None):
        raise UsageError(f"{word!r} is not an IPv{version} address of a network")
    if found.is_multicast or found.is_unspecified or found.is_loopback:
        raise UsageError(f"{word} cannot be the address of a container")
    return str(found)


def mac_address(word: str) -> str:
    """Read the hardware address of a device: six octets, that of one device.

    Raises
    ------
    UsageError: it is none.
    """
    found = word.lower().replace("-", ":")
    if not re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", found):
        raise UsageError(f"{word!r} is not a MAC address: write 02:42:ac:11:00:02")
    if int(found[:2], 16) & 1 or found == "00:00:00:00:00:00":
        raise UsageError(f"{word} is the address of no single device")
    return found


def alias(word: str) -> str:
    """Read a name that containers of a network find another by; DNS holds 63 bytes between dots.

    Raises
    ------
    UsageError: it is none.
    """
    labels = word.removesuffix(".").split(".")
    if len(word) > 253 or not all(re.fullmatch(r"[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?", x) for x in labels):
        raise UsageError(f"{word!r} is not a name in a network: letters, digits, - and _, with dots between")
    return word.removesuffix(".")


def container_of(network: str) -> str | None:
    """Return the name or id of the container whose network `container:NAME` shares; None for other networks."""
    return network.removeprefix(CONTAINER) if network.startswith(CONTAINER) else None


def is_mode(network: str) -> bool:
    """Whether `RunOptions.network` names no network to be on: none, the host's, or that of another container."""
    return network in _MODES or network.startswith(CONTAINER)


def decide_networks(
    asked: Sequence[NetworkAttachment], *, publishes: bool
) -> tuple[str, tuple[NetworkAttachment, ...]]:
    """Return what `RunOptions.network` and `RunOptions.networks` are, of all that was named.

    publishes: ports are to be published; with no network named that takes one that leads outside.

    Raises
    ------
    UsageError: they contradict each other.
    """
    if not asked:
        return (DEFAULT, (NetworkAttachment(DEFAULT),)) if publishes else ("none", ())
    first = asked[0]
    shared = [one for one in asked if is_mode(one.network)]
    if not shared:
        names = [one.network for one in asked]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UsageError(f"the network {twice!r} is named twice")
        return first.network, tuple(asked)
    if len(asked) > 1:
        raise UsageError("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    if first != NetworkAttachment(first.network):
        what = "mac-address" if first.mac else "network-scoped aliases" if first.aliases else "a user specified address"
        raise UsageError(f"conflicting options: {what} and the network mode {first.network}")
    return first.network, ()


def _check_egress(options: RunOptions) -> None:
    if is_mode(options.network):
        raise UsageError(
            "conflicting options: --egress restricts a network of the container's own, and the network mode "
            f"{options.network} gives it none; name a network, such as --network bridge"
        )
    for name in options.cap_add:
        if name.upper().removeprefix("CAP_") in ("ALL", "NET_ADMIN", "NET_RAW"):
            raise UsageError(f"conflicting options: --egress and --cap-add {name}, with which it is got around")
    if options.privileged:
        raise UsageError("conflicting options: --egress and --privileged, with which it is got around")
    if options.egress:
        from pyrtc.egress_words import check_egress

        check_egress(options.egress)


def check_networks(options: RunOptions) -> None:
    """Refuse what contradicts the network that a container is in, in Docker's words.

    One that has been taken from each of its networks starts all the same: what was said about them waits for the next.

    Raises
    ------
    UsageError: says what.
    """
    mode = options.network
    limits = options.limits
    if is_mode(mode) and (limits.network_in is not None or limits.network_out is not None):
        raise UsageError(
            "conflicting options: --network-rate-in and -out limit network devices of the container's own, and the "
            f"network mode {mode} gives it none; name a network, such as --network bridge"
        )
    if options.egress is not None:
        _check_egress(options)
    if options.ports or options.publish_all:
        if mode == "none":
            raise UsageError("conflicting options: port publishing and the network mode none, which nothing reaches")
        if mode == "host":
            raise UsageError(
                "conflicting options: port publishing and the network mode host: what listens in the container listens "
                "on the host"
            )
    if not mode.startswith(CONTAINER):
        return
    if options.hostname or options.domainname:
        raise UsageError("conflicting options: hostname and the network mode")
    if options.dns or options.dns_search or options.dns_option:
        raise UsageError("conflicting options: dns and the network mode")
    if options.add_host:
        raise UsageError("conflicting options: custom host-to-IP mapping and the network mode")
    if options.ports or options.publish_all:
        raise UsageError("conflicting options: port publishing and the container type network mode")
    if options.expose:
        raise UsageError("conflicting options: port exposing and the container type network mode")
