"""What Docker's `network inspect` says of a network."""

from typing import TYPE_CHECKING, Any

from pyrtc.cli.network_settings import endpoint_id
from pyrtc.cli.networks import scope_of

if TYPE_CHECKING:
    from pyrtc.networks import NetworkInspection
    from pyrtc.store.network_records import Network

__all__ = ["network_document"]


def network_document(found: "NetworkInspection") -> dict[str, Any]:
    """Return the document of one network, with the containers that are on it now."""
    from datetime import UTC, datetime

    item = found.network
    pools = (
        _pool(item, item.subnet4, item.range4, item.gateway4, 4),
        _pool(item, item.subnet6, item.range6, item.gateway6, 6),
    )
    return {
        "Name": item.name,
        "Id": item.id,
        "Created": datetime.fromtimestamp(item.created, UTC).isoformat().replace("+00:00", "Z"),
        "Scope": scope_of(item),
        "Driver": item.driver,
        "EnableIPv4": bool(item.subnet4),
        "EnableIPv6": bool(item.subnet6),
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [pool for pool in pools if pool["Subnet"]],
        },
        "Internal": item.internal,
        "Attachable": item.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            endpoint.container_id: {
                "Name": endpoint.container_name,
                "EndpointID": endpoint_id(endpoint),
                "MacAddress": endpoint.mac,
                "IPv4Address": f"{endpoint.ip4}/{endpoint.prefix4}" if endpoint.ip4 else "",
                "IPv6Address": f"{endpoint.ip6}/{endpoint.prefix6}" if endpoint.ip6 else "",
            }
            for endpoint in found.endpoints
        },
        "Options": dict(item.options),
        "Labels": dict(item.labels),
        **({"Device": item.device} if item.device else {}),
    }


def _pool(item: "Network", subnet: str, part: str, gateway: str, family: int) -> dict[str, Any]:
    auxiliary = {name: address for name, address in item.auxiliary if (":" in address) == (family == 6)}
    return {
        "Subnet": subnet,
        "IPRange": part,
        "Gateway": gateway,
        **({"AuxiliaryAddresses": auxiliary} if auxiliary else {}),
    }
