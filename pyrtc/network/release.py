"""What is given back of a container's networks at its end, whoever started it, and put right after who was killed.

What outlives a start are rows of the store, elements of the firewall and the attendant, which ends with the container.
Devices need no hand: they go with the namespace.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from pyrtc.network.attending import await_attendant
from pyrtc.network.detours import hardware_address, remove_detours, remove_device
from pyrtc.network.names import has_names, write_names
from pyrtc.network.published import port_of, publishing
from pyrtc.network_words import CONTAINER, SHARED
from pyrtc.store.owner import Owner

if TYPE_CHECKING:
    from pyrtc.options import Port
    from pyrtc.store import ContainerRecord, Store
    from pyrtc.store.networks import Endpoint

__all__ = ["reconcile", "release", "tell"]

T = TypeVar("T")


def tell(store: "Store", action: str, endpoints: "Iterable[Endpoint]") -> None:
    """Write an event for each: connect or disconnect."""
    from pyrtc.events import emit

    for endpoint in endpoints:
        network = endpoint.network
        about = {"container": endpoint.container_id, "name": network.name, "type": network.driver}
        emit(store, "network", action, network.id, about)


def release(store: "Store", container_id: str) -> "tuple[Endpoint, ...]":
    """Give back the ports and addresses of a container that has ended, and return what it had on its networks."""
    published = store.networks.ports_of(container_id)
    endpoints = store.networks.endpoints_of(container_id)
    if not store.rootless:
        remove_detours(endpoints)
    _take_from_guests(store, container_id, endpoints)
    if published and not store.rootless:
        from pyrtc.network.firewall import unpublish

        for endpoint in endpoints:
            unpublish([port_of(port) for port in published], endpoint)
    await_attendant(f"{store.containers.path}/{container_id}")
    store.networks.release(container_id)
    for endpoint in endpoints:
        if has_names(endpoint.network):
            write_names(store, endpoint.network)
    if any(endpoint.network.driver == "overlay" for endpoint in endpoints):
        from pyrtc.network.overlay.driver import released

        released(store, endpoints)
    return endpoints


def _take_from_guests(store: "Store", container_id: str, endpoints: "Iterable[Endpoint]") -> None:
    """Remove devices that stay where they are: in a namespace that others have joined, with addresses to be given back.

    Devices of other containers go with their namespace, which costs nothing.
    """
    try:
        os.unlink(f"{store.containers.path}/{container_id}/{SHARED}")
    except (FileNotFoundError, NotADirectoryError):
        return
    if store.rootless:
        from pyrtc.network.stand_in import find_stand_in

        stand_in = find_stand_in(store)
        if stand_in is not None:
            with stand_in:
                for endpoint in endpoints:
                    stand_in.remove_device(endpoint.host_device)
        return
    for endpoint in endpoints:
        if endpoint.network.driver == "macvlan":
            _take_inside(store, endpoint)
        else:
            remove_device(endpoint.host_device)


def _take_inside(store: "Store", endpoint: "Endpoint") -> None:
    """Remove a device that has no end on this host from wherever a guest has it."""
    import json

    for record in store.containers.list():
        mode = json.loads(record.options or b"{}").get("network", "none")
        if record.state != "running" or not mode.startswith(CONTAINER):
            continue
        try:
            fd = os.open(f"/proc/{record.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # it has ended
        try:
            if hardware_address(fd, endpoint.device) == endpoint.mac:
                remove_device(endpoint.device, fd)
                return
        finally:
            os.close(fd)


def reconcile(store: "Store") -> None:
    """Have the firewall say what the store says: after processes were killed, or when the table had been taken away."""
    from pyrtc.network.firewall import reconcile as put_right

    for container_id in store.networks.abandoned():
        with store.lives.hold_if_free(container_id) as held:
            if held and container_id in store.networks.abandoned():
                release(store, container_id)
    if store.rootless:
        return  # nothing of a container is in the firewall of a stand-in
    # Read when the firewall is locked: who publishes meanwhile has recorded it before, and comes after.
    put_right(_Fresh(store.networks.list), _Fresh(lambda: _published(store)))


class _Fresh(Generic[T]):
    """What is read anew each time that somebody goes through it."""

    def __init__(self, read: "Callable[[], Iterable[T]]") -> None:
        self._read = read

    def __iter__(self) -> "Iterator[T]":
        return iter(self._read())


def _published(store: "Store") -> "Iterator[tuple[Endpoint, Sequence[Port]]]":
    """Yield what the containers publish that run or are being started."""
    ports: dict[str, list[Port]] = {}
    for port in store.networks.ports():
        ports.setdefault(port.container_id, []).append(port_of(port))
    for record in store.containers.list():
        if record.id not in ports or not _is_under_way(record):
            continue
        where = publishing(store.networks.endpoints_of(record.id))
        if where is not None:
            yield where, ports[record.id]


def _is_under_way(record: "ContainerRecord") -> bool:
    if record.state == "running":
        return Owner(record.pid, record.start_time, record.owner.boot).alive()
    return record.state == "creating" and record.owner.alive()
