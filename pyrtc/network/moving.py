"""Published ports and names of a container that runs, when it is on other networks than before.

Its attendant carries connections to one address, and serves names or does not: where that changes another one takes
its place, and the ports are free for a moment.
"""

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pyrtc.egress_words import names_in
from pyrtc.errors import ContainerError
from pyrtc.network.attending import attend, end_attendant, has_name_server, lacks_attendant
from pyrtc.network.names import has_names
from pyrtc.network.plumbing import asked_resolvers
from pyrtc.network.published import port_of, publishing, recorded, wanted_ports
from pyrtc.store.owner import open_process
from pyrtc.store.records import load_options

if TYPE_CHECKING:
    from pyrtc.network.ports import Reserved
    from pyrtc.network.stand_in import StandIn
    from pyrtc.options import Port, RunOptions
    from pyrtc.store import ContainerRecord, Store
    from pyrtc.store.networks import Endpoint

__all__ = ["attend_elsewhere", "name_elsewhere"]


def attend_elsewhere(
    store: "Store",
    record: "ContainerRecord",
    netns_fd: int,
    before: "Sequence[Endpoint]",
    after: "Sequence[Endpoint]",
    stand_in: "StandIn | None" = None,
) -> None:
    """Have ports lead to where a container can be reached now, or nowhere, and names be resolved in it if it has any.

    Parameters
    ----------
    before, after: what it has had, and has by now, on networks whose names are written. stand_in: for the host, in an
        ordinary user's networks.

    Raises
    ------
    NetworkError: somebody has a port that is to be published; none of this container's is then.
    """
    options = load_options(record.spec) if record.spec is not None else None
    old, new = publishing(before), publishing(after)
    held = tuple(map(port_of, store.networks.ports_of(record.id)))
    ports = held or (_wanted(record, options) if old is None and new is not None else ())
    new_names = _lacks_names(record, options, after)
    # One that was killed is replaced whatever has changed: somebody is at work on this container's networks anyway.
    lost = record.directory is not None and lacks_attendant(record.directory)
    # There is somebody to ask for other names now, which depends on what leads outside.
    new_resolvers = stand_in is not None and old is None and new is not None
    if not (new_names or lost or new_resolvers) and (not ports or old == new):
        return
    with ExitStack() as stack:
        pidfd = open_process(record.pid, record.start_time)
        if pidfd is None:
            raise ContainerError(f"container {record.name} has just ended")
        stack.callback(os.close, pidfd)
        if held and old is not None and stand_in is None:
            from pyrtc.network.firewall import unpublish

            unpublish(held, old)
        if record.directory is not None:
            end_attendant(record.directory)
        reserved = None
        try:
            if new is not None and ports:
                reserved = _publish(store, record, ports, new, stack, stand_in)
        finally:
            if reserved is None:
                store.networks.set_ports(record.id, ())
            resolvers = None
            if new_names or new_resolvers:
                resolvers = (options.dns if options is not None else ()) or asked_resolvers(stand_in)
            _attend(store, record, options, pidfd, netns_fd, after, reserved, resolvers, stand_in)
    if new_names:
        from pyrtc.runtime.own_files import ask_own_resolver

        ask_own_resolver(record)


def name_elsewhere(record: "ContainerRecord", before: "Sequence[Endpoint]", after: "Sequence[Endpoint]") -> None:
    """Have a container's name stand beside its addresses of now in its /etc/hosts, as Docker does.

    Raises
    ------
    ContainerError: it has just ended.
    """
    options = load_options(record.spec) if record.spec is not None else None
    if options is None or options.uts == "host":
        return
    from pyrtc.runtime.etc_files import known_as
    from pyrtc.runtime.own_files import HOSTS, name_own_addresses

    if _is_mounted(options, HOSTS):
        return
    had, has = ([ip for one in some for ip in (one.ip4, one.ip6) if ip] for some in (before, after))
    name_own_addresses(record, had, has, known_as(options.hostname or record.id[:12], options.domainname))


def _is_mounted(options: "RunOptions", path: str) -> bool:
    """Whether the caller has put a file of their own there."""
    from pyrtc.runtime.spec import mount_target

    return any(mount_target(mount.target) == path for mount in options.mounts)


def _wanted(record: "ContainerRecord", options: "RunOptions | None") -> "tuple[Port, ...]":
    """Return what a container is to publish, of which nothing could lead anywhere until now."""
    if options is None or not (options.ports or options.publish_all):
        return ()
    from pyrtc.port_words import exposed

    words = json.loads(record.options or b"{}").get("exposed", ())
    return wanted_ports(options, [port for word in words for port in exposed(word)])


def _lacks_names(record: "ContainerRecord", options: "RunOptions | None", endpoints: "Sequence[Endpoint]") -> bool:
    """Whether a container is on a network with names and has no resolver that knows them."""
    if record.directory is None or has_name_server(record.directory):
        return False
    if not any(has_names(endpoint.network) for endpoint in endpoints):
        return False
    from pyrtc.runtime.own_files import RESOLV_CONF

    return options is None or not _is_mounted(options, RESOLV_CONF)


def _publish(
    store: "Store",
    record: "ContainerRecord",
    ports: "Sequence[Port]",
    where: "Endpoint",
    stack: ExitStack,
    stand_in: "StandIn | None",
) -> "Reserved":
    from pyrtc.network.firewall import publish
    from pyrtc.network.ports import reserve

    reserved = stack.enter_context(reserve(ports))
    store.networks.set_ports(record.id, recorded(record.id, reserved.ports))
    if stand_in is None:
        publish(reserved.ports, where)
    return reserved


def _attend(
    store: "Store",
    record: "ContainerRecord",
    options: "RunOptions | None",
    pidfd: int,
    netns_fd: int,
    endpoints: "Sequence[Endpoint]",
    reserved: "Reserved | None",
    resolvers: "Sequence[str] | None",
    stand_in: "StandIn | None",
) -> None:
    """Start another attendant in the place of the one that was ended, if there is anything for it to do.

    resolvers: whom it asks; None: whom the one before did.
    """
    if record.directory is None:
        return
    name_server = resolvers is not None or has_name_server(record.directory)
    if reserved is None and not name_server:
        return
    attend(
        store,
        record.directory,
        pidfd,
        endpoints,
        netns_fd=netns_fd,
        reserved=reserved,
        name_server=name_server,
        resolvers=resolvers,
        asked=names_in(options.egress) if options is not None else None,
        stand_in=stand_in,
    )
