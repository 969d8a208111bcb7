"""What Docker's `inspect` says of a container's networks and ports."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyrtc.cli.port_texts import bindings, name
from pyrtc.network_words import is_mode
from pyrtc.options import NetworkAttachment, Port, RunOptions

if TYPE_CHECKING:
    from pyrtc.inspection import Inspection
    from pyrtc.store.network_records import Endpoint

__all__ = ["endpoint_id", "exposed_ports", "network_settings", "port_bindings"]


def exposed_ports(image: Sequence[str], options: RunOptions) -> dict[str, Any]:
    """Return `Config.ExposedPorts`: what the image and the options name; nothing where that is none."""
    named = dict.fromkeys((*image, *(name(port) for port in (*options.expose, *options.ports))))
    return {"ExposedPorts": {port: {} for port in named}} if named else {}


def port_bindings(options: RunOptions) -> dict[str, list[dict[str, str]]]:
    """Return `HostConfig.PortBindings`: what was asked for."""
    found: dict[str, list[dict[str, str]]] = {}
    for port in options.ports:
        host = f"{port.host}-{port.host_last}" if port.host_last else str(port.host or "")
        found.setdefault(name(port), []).append({"HostIp": port.ip, "HostPort": host})
    return found


def network_settings(found: "Inspection", options: RunOptions) -> dict[str, Any]:
    """Return `NetworkSettings`."""
    endpoints = {endpoint.network.name: endpoint for endpoint in found.endpoints}
    known = {endpoint.network.id: endpoint for endpoint in found.endpoints}
    # A network may have been named by its id, and be a name's in the list.
    names = {one: known[one].network.name if one in known else one for one in _names(options)}
    asked = {names[one.network]: one for one in options.networks}
    first = next(iter(found.endpoints), None)
    image = found.image_config
    published = {(port.container, port.protocol) for port in found.ports}
    exposed = [port for port in (*options.expose, *options.ports) if (port.container, port.protocol) not in published]
    ports = bindings((*found.ports, *(Port(port.container, port.protocol) for port in exposed)))
    for word in image.ports if image is not None and found.endpoints else ():
        ports.setdefault(word if "/" in word else f"{word}/tcp", None)
    shared = options.network.startswith("container:")
    return {
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": f"/proc/{found.pid}/ns/net" if found.pid and found.endpoints else "",
        "Ports": ports if found.endpoints or found.ports else {},
        **_top(first),
        "Networks": {} if shared else {one: _network(endpoints.get(one), asked.get(one)) for one in names.values()},
    }


def _names(options: RunOptions) -> list[str]:
    return [one.network for one in options.networks] or [options.network] * is_mode(options.network)


def _top(endpoint: "Endpoint | None") -> dict[str, Any]:
    """Return what older clients read: the first network's."""
    found = _network(endpoint, None)
    keys = ("EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen")
    return {key: found[key] for key in (*keys, "IPv6Gateway", "MacAddress")}


def _network(endpoint: "Endpoint | None", asked: NetworkAttachment | None) -> dict[str, Any]:
    wanted = {}
    if asked is not None and asked.ip:
        wanted["IPv4Address"] = asked.ip
    if asked is not None and asked.ip6:
        wanted["IPv6Address"] = asked.ip6
    about = {
        "IPAMConfig": wanted or None,
        "Links": None,
        "Aliases": list(asked.aliases) if asked is not None and asked.aliases else None,
        "DriverOpts": None,
        "MacAddress": "",
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }
    if endpoint is None:
        return about
    named = [endpoint.container_name, *endpoint.aliases, endpoint.container_id[:12]]
    return {
        **about,
        "MacAddress": endpoint.mac,
        "NetworkID": endpoint.network.id,
        "EndpointID": endpoint_id(endpoint),
        "Gateway": endpoint.gateway4,
        "IPAddress": endpoint.ip4,
        "IPPrefixLen": endpoint.prefix4,
        "IPv6Gateway": endpoint.gateway6,
        "GlobalIPv6Address": endpoint.ip6,
        "GlobalIPv6PrefixLen": endpoint.prefix6,
        "DNSNames": named if endpoint.network.name != "bridge" else None,
    }


def endpoint_id(endpoint: "Endpoint") -> str:
    """Return 64 digits that are the endpoint's as long as it is there."""
    import hashlib

    return hashlib.sha256(f"{endpoint.network.id} {endpoint.container_id} {endpoint.host_device}".encode()).hexdigest()
