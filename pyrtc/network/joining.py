"""A network more, or one less, for a container that runs.

The caller holds the container, so that it neither ends nor starts meanwhile as far as the store knows. Its process may
die at any moment: then the devices are gone, and the kernel says so.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from pyrtc.core.network import detach, device_index
from pyrtc.egress_words import names_in
from pyrtc.errors import ContainerError, UnsupportedError
from pyrtc.network.claims import claim_more
from pyrtc.network.default_route import add_default_route
from pyrtc.network.detours import remove_detours
from pyrtc.network.moving import attend_elsewhere, name_elsewhere
from pyrtc.network.names import change_dns, has_names, write_names
from pyrtc.network.plumbing import limit_rates, link_of, make_sure, put, routed
from pyrtc.store.owner import process_start_time
from pyrtc.store.records import load_options

if TYPE_CHECKING:
    from pyrtc.network.stand_in import StandIn
    from pyrtc.options import RunOptions
    from pyrtc.runtime.cgroups import Limits
    from pyrtc.store import ContainerRecord, Store
    from pyrtc.store.networks import Endpoint, Network, Wish

__all__ = ["change_rates", "join", "leave"]


def join(store: "Store", record: "ContainerRecord", wish: "Wish") -> "Endpoint":
    """Give a container that runs a device on one more network.

    What goes outside goes on as before; where nothing did, it goes over the new device if that leads there.

    Raises
    ------
    NetworkError: an address is taken, or the kernel refuses; the container is as it was.
    """
    before = store.networks.endpoints_of(record.id)
    with _host(store, record) as stand_in:
        endpoint = claim_more(store, record.id, wish)
        try:
            _join(store, record, before, endpoint, stand_in)
        except BaseException:
            store.networks.release(record.id, endpoint.network.id)
            if has_names(endpoint.network):
                write_names(store, endpoint.network)
            raise
    _tell_names(store, record, endpoint.network)
    if endpoint.network.driver == "overlay":
        from pyrtc.network.overlay.driver import connected

        connected(store, (endpoint,))
    return endpoint


def _join(
    store: "Store",
    record: "ContainerRecord",
    before: "tuple[Endpoint, ...]",
    endpoint: "Endpoint",
    stand_in: "StandIn | None",
) -> None:
    after = (*before, endpoint)
    if stand_in is None:
        master = make_sure(store, endpoint)
    else:
        if not endpoint.internal:
            stand_in.lead_outside()
        master = stand_in.bridge(endpoint.network)
    led4, led6 = routed(before)
    new4, new6 = routed((endpoint,))
    ways = ("" if led4 else new4, "" if led6 else new6)
    with _network_of(record) as netns_fd, ExitStack() as undo:
        # Before there is a way: one that started on no network has no rules yet.
        _restrict(netns_fd, record, after, stand_in)
        undo.callback(_restrict, netns_fd, record, before, stand_in)
        put(netns_fd, link_of(endpoint, master, ways), stand_in)
        if stand_in is None:
            undo.callback(remove_detours, (endpoint,))
        undo.callback(_detach, netns_fd, endpoint, stand_in)
        _limit_rates(netns_fd, record, endpoint)
        if has_names(endpoint.network):
            write_names(store, endpoint.network)
        attend_elsewhere(store, record, netns_fd, before, after, stand_in)
        name_elsewhere(record, before, after)
        undo.pop_all()


def leave(store: "Store", record: "ContainerRecord", network: "Network") -> bool:
    """Take the device of a network from a container that runs; False when it has none there.

    Published ports, and what goes outside, change over to another of its networks where one leads outside.

    Raises
    ------
    NetworkError: the kernel refuses.
    """
    before = store.networks.endpoints_of(record.id)
    gone = next((endpoint for endpoint in before if endpoint.network.id == network.id), None)
    if gone is None:
        return False
    after = tuple(endpoint for endpoint in before if endpoint is not gone)
    with _host(store, record) as stand_in, _network_of(record) as netns_fd:
        _detach(netns_fd, gone, stand_in)
        try:
            if stand_in is None:
                remove_detours((gone,))
            _restrict(netns_fd, record, after, stand_in)
            # The route went with its device, if that was the first that leads outside.
            for family, device in enumerate(routed(after)):
                if device:
                    heir = next(endpoint for endpoint in after if endpoint.device == device)
                    userns_fd = stand_in.userns_fd if stand_in is not None else -1
                    add_default_route(netns_fd, device, (heir.gateway4, heir.gateway6)[family], userns_fd)
            attend_elsewhere(store, record, netns_fd, before, after, stand_in)
            name_elsewhere(record, before, after)
        finally:
            store.networks.release(record.id, network.id)
    _tell_names(store, record, network)
    if network.driver == "overlay":
        from pyrtc.network.overlay.driver import released

        released(store, (gone,))
    return True


def _detach(netns_fd: int, endpoint: "Endpoint", stand_in: "StandIn | None") -> None:
    """Remove a device: by its end on the host where it has one, which the container cannot give another name."""
    if stand_in is not None:
        stand_in.remove_device(endpoint.host_device)
        return
    if endpoint.network.driver == "macvlan":
        detach(netns_fd, endpoint.device)
        return
    if device_index(endpoint.host_device):  # the container may have removed its end, and this one with it
        detach(-1, endpoint.host_device)


@contextmanager
def _host(store: "Store", record: "ContainerRecord") -> "Iterator[StandIn | None]":
    """Open what stands in for the host where the container is an ordinary user's; None is the host itself.

    Raises
    ------
    UnsupportedError: the container was not born for one.
    """
    if not store.rootless:
        yield None
        return
    from pyrtc.network.stand_in import open_stand_in

    with open_stand_in(store) as stand_in:
        if not stand_in.has_born(record.pid):
            raise UnsupportedError(
                f"container {record.name} cannot join a network while it runs: the user namespace of an ordinary "
                "user's container was made for networks only if it was on one when it started; stop it, and start it "
                "again"
            )
        yield stand_in


def change_rates(store: "Store", record: "ContainerRecord", options: "RunOptions", before: "Limits") -> None:
    """Change the rates at which a container that runs may receive and send; options: what holds from now on.

    Raises
    ------
    UsageError: a network has nothing to limit. NetworkError, UnsupportedError: the kernel refuses.
    """
    with _network_of(record) as netns_fd:
        limit_rates(store.networks.endpoints_of(record.id), netns_fd, options, before)


def _restrict(
    netns_fd: int, record: "ContainerRecord", endpoints: "tuple[Endpoint, ...]", stand_in: "StandIn | None"
) -> None:
    """Say where the container may connect to, if not to everything: what is local has changed."""
    allowed = load_options(record.spec).egress if record.spec is not None else None
    if allowed is not None:
        from pyrtc.network.egress import restrict

        restrict(netns_fd, allowed, endpoints, userns_fd=stand_in.userns_fd if stand_in is not None else -1)


def _limit_rates(netns_fd: int, record: "ContainerRecord", endpoint: "Endpoint") -> None:
    """Limit a new device as the others are, or have none."""
    if record.spec is not None:
        limit_rates((endpoint,), netns_fd, load_options(record.spec))


def _tell_names(store: "Store", record: "ContainerRecord", network: "Network") -> None:
    """Have others find the container on a network that it joined or left, and it them, if it has a name server."""
    if has_names(network):
        write_names(store, network)
    if record.directory is not None:
        fd = os.open(record.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            asked = names_in(load_options(record.spec).egress) if record.spec is not None else None
            networks = [endpoint.network for endpoint in store.networks.endpoints_of(record.id)]
            change_dns(fd, networks, asked)
        finally:
            os.close(fd)


@contextmanager
def _network_of(record: "ContainerRecord") -> Iterator[int]:
    """Open the network namespace of a container."""
    gone = ContainerError(f"container {record.name} has just ended")
    try:
        fd = os.open(f"/proc/{record.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        raise gone from None
    try:
        # Looked at after it was opened: a number that was reused before has another time.
        if process_start_time(record.pid) != record.start_time:
            raise gone
        yield fd
    finally:
        os.close(fd)
