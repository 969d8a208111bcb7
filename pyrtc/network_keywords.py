"""The keyword arguments that say what networks a container is in, and what they mean."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyrtc.errors import UsageError
from pyrtc.network_words import attachment, decide_networks, with_details
from pyrtc.options import NetworkAttachment, Port
from pyrtc.port_words import exposed, host_address, published
from pyrtc.values import replace

__all__ = ["network_fields"]


def network_fields(said: Mapping[str, Any], *, publish_all: bool) -> dict[str, object]:
    """Return the fields of RunOptions that these keyword arguments mean.

    Raises
    ------
    UsageError: one that can mean nothing, or some that contradict each other.
    """
    ports = _ports(said.get("ports", ()))
    asked = _attachments(said.get("network", ()))
    aliases = _sequence("network_aliases", said.get("network_aliases", ()), (str,))
    ip, ip6, mac = (_word(key, said.get(key)) for key in ("ip", "ip6", "mac_address"))
    if ip or ip6 or mac or aliases:
        if not asked:
            raise UsageError("ip, ip6, mac_address and network_aliases are about a network: name it with network=")
        asked[0] = with_details(asked[0], ip, ip6, mac, aliases)
    network, networks = decide_networks(asked, publishes=bool(ports) or publish_all)
    expose = [port for item in _sequence("expose", said.get("expose", ()), (int, str)) for port in exposed(str(item))]
    return {"network": network, "networks": networks, "ports": ports, "expose": tuple(dict.fromkeys(expose))}


def _word(key: str, value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{key}={value!r}: it is a word, a str")
    return value


def _sequence(key: str, value: object, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise UsageError(f"{key}={value!r}: it is a sequence, such as [{value!r}]")
    items = tuple(value)
    for item in items:
        if not isinstance(item, kinds) or isinstance(item, bool):
            raise UsageError(f"{key}: {item!r} is none")
    return items


def _attachments(said: object) -> list[NetworkAttachment]:
    items = (
        [said] if isinstance(said, (str, NetworkAttachment)) else _sequence("network", said, (str, NetworkAttachment))
    )
    return [_checked(item) if isinstance(item, NetworkAttachment) else attachment(item) for item in items]


def _checked(one: NetworkAttachment) -> NetworkAttachment:
    return with_details(attachment(f"name={one.network}"), one.ip, one.ip6, one.mac, one.aliases)


def _ports(said: object) -> tuple[Port, ...]:
    if isinstance(said, Mapping):
        found = [port for inside, outside in said.items() for port in _mapped(inside, outside)]
    else:
        found = []
        for item in _sequence("ports", said, (int, str, Port)):
            found += [_checked_port(item)] if isinstance(item, Port) else published(str(item))
    return tuple(dict.fromkeys(found))


def _checked_port(port: Port) -> Port:
    words = f"{port.container}/{port.protocol}"
    if port.host:
        words = f"{port.host}-{port.host_last}:{words}" if port.host_last else f"{port.host}:{words}"
    if port.ip:
        words = f"[{port.ip}]:{words}" if port.host else f"[{port.ip}]::{words}"
    try:
        return published(words)[0]
    except UsageError as error:
        raise UsageError(f"ports: {port!r}: {error}") from None


def _mapped(inside: object, outside: object) -> list[Port]:
    """Read one item of a mapping: 80 or "53/udp" to a port, (address, port), None, or a list of these."""
    if not isinstance(inside, (int, str)) or isinstance(inside, bool):
        raise UsageError(f"ports: {inside!r} is not a port of the container, such as 80 or '53/udp'")
    places: Sequence[object] = outside if isinstance(outside, list) else [outside]
    found: list[Port] = []
    for place in places:
        address, host = place if isinstance(place, tuple) and len(place) == 2 else ("", place)
        if host is not None and (not isinstance(host, (int, str)) or isinstance(host, bool)):
            raise UsageError(f"ports: {place!r} is not a port of the host, (address, port) or None")
        try:
            ports = published(f"{0 if host is None else host}:{inside}")
            found += [replace(port, ip=host_address(str(address)) if address else "") for port in ports]
        except UsageError as error:
            raise UsageError(f"ports: {inside!r}: {place!r}: {error}") from None
    return found
