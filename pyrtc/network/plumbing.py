"""Everything that one start of a container does with networks.

Root's containers get their devices before process 1 is made: it enters a namespace in which all is ready. One in a user
namespace of its own makes its network namespace itself, and is plumbed from outside before it is let go. An ordinary
user's go the same way; in the place of the host they have a stand-in (`pyrtc.network.stand_in`).

    connection = connect(store, container_id, options, exposed, own_namespace=False)
    connection.names, connection.netns_fd      # for /etc, and for the plan
    connection.created(pid, pidfd)             # process 1 exists and waits
    connection.release()                       # at the end, or when the start fails

What is given back at the end, whoever started it, is in `pyrtc.network.release`.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyrtc.core.network import Link, attach, device_index
from pyrtc.egress_words import LOCAL, names_in
from pyrtc.errors import UnsupportedError
from pyrtc.network.attending import attend
from pyrtc.network.claims import claim
from pyrtc.network.devices import ensure
from pyrtc.network.names import has_names, write_names
from pyrtc.network.published import PUBLISHING, published_on, recorded, wanted_ports
from pyrtc.network.release import reconcile, release, tell
from pyrtc.network.resolvers import host_resolvers
from pyrtc.options import Port
from pyrtc.runtime.etc_files import HOST_GATEWAY, Names
from pyrtc.runtime.spare_network import spare_networks
from pyrtc.store.networks import PREDEFINED
from pyrtc.values import replace

if TYPE_CHECKING:
    from pyrtc.network.ports import Reserved
    from pyrtc.network.rootless_connection import RootlessConnection
    from pyrtc.network.stand_in import StandIn
    from pyrtc.options import NetworkAttachment, RunOptions
    from pyrtc.runtime.cgroups import Limits
    from pyrtc.store import ContainerRecord, Store
    from pyrtc.store.networks import Endpoint

__all__ = ["Connection", "asked_resolvers", "connect", "limit_rates", "link_of", "make_sure", "put", "routed"]


class Connection:
    """One container on its way into its networks.

    Attributes
    ----------
    endpoints: what it has on each, by device. names: what is written of them in the container.
    netns_fd: the namespace that process 1 enters; None where it makes its own, for which `created` cares.
    ports: what is published, with the numbers that were chosen. warnings: what the caller is to know, in words.
    sysctls: settings of the network namespace that the caller may override.
    """

    def __init__(
        self, store: "Store", record: "ContainerRecord", options: "RunOptions", stand_in: "StandIn | None" = None
    ) -> None:
        self._store = store
        self._stand_in = stand_in
        self._id = record.id
        self._directory = record.directory
        self._options = options
        self._reserved: Reserved | None = None
        self._masters: dict[str, int] = {}  # by network id
        self.endpoints: tuple[Endpoint, ...] = ()
        self.names = Names()
        self.netns_fd: int | None = None
        self.ports: tuple[Port, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self.sysctls: tuple[tuple[str, str], ...] = ()

    def open(self, ports: "Sequence[Port]", *, own_namespace: bool) -> None:
        """Claim addresses and ports, and make what can be made before process 1."""
        self.endpoints = claim(self._store, self._id, _wishes(self._options))
        if self._stand_in is not None and any(not endpoint.internal for endpoint in self.endpoints):
            self.sysctls = self._stand_in.lead_outside().sysctls
        self.names = _names(self.endpoints, self._options, self._stand_in)
        if ports:
            self._reserve(ports)
        for endpoint in self.endpoints:
            if self._stand_in is not None:
                self._masters[endpoint.network.id] = self._stand_in.bridge(endpoint.network)
                continue
            is_new = not device_index(endpoint.network.device)
            self._masters[endpoint.network.id] = make_sure(self._store, endpoint)
            if is_new:
                self.warnings += _obstacles(endpoint)
        if not own_namespace:
            self.netns_fd = spare_networks.take_or_make()
            self._attach(self.netns_fd)

    def _reserve(self, ports: "Sequence[Port]") -> None:
        from pyrtc.network.ports import reserve

        published_on(self.endpoints)  # says why not
        self._reserved = reserve(ports)
        self.ports = self._reserved.ports
        self._store.networks.set_ports(self._id, recorded(self._id, self.ports))

    def _attach(self, netns_fd: int) -> None:
        ways = routed(self.endpoints)
        for endpoint in self.endpoints:
            put(netns_fd, link_of(endpoint, self._masters[endpoint.network.id], ways), self._stand_in)
        limit_rates(self.endpoints, netns_fd, self._options)
        if self._options.egress is not None:
            from pyrtc.network.egress import restrict

            userns_fd = self._stand_in.userns_fd if self._stand_in is not None else -1
            restrict(netns_fd, self._options.egress, self.endpoints, userns_fd=userns_fd)

    def created(self, pid: int, pidfd: int) -> None:
        """Finish the network of process 1, which exists and waits to be let go."""
        if self.netns_fd is None:
            self.netns_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            if self._stand_in is not None:
                self._stand_in.hold(pidfd)
            self._attach(self.netns_fd)
        if self.ports and self._stand_in is None:
            from pyrtc.network.firewall import publish

            publish(self.ports, published_on(self.endpoints))
        for endpoint in self.endpoints:
            if has_names(endpoint.network):
                write_names(self._store, endpoint.network)
        if any(endpoint.network.driver == "overlay" for endpoint in self.endpoints):
            from pyrtc.network.overlay.driver import connected

            connected(self._store, self.endpoints)
        if self.names.resolver or self._reserved is not None:
            assert self._directory is not None
            attend(
                self._store,
                self._directory,
                pidfd,
                self.endpoints,
                netns_fd=self.netns_fd,
                reserved=self._reserved,
                name_server=self.names.resolver,
                asked=names_in(self._options.egress),
                resolvers=self._options.dns or asked_resolvers(self._stand_in),
                stand_in=self._stand_in,
            )

    def close(self) -> None:
        """Let go of what this process holds and the container needs no more of it."""
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        if self.netns_fd is not None:
            os.close(self.netns_fd)
            self.netns_fd = None

    def release(self) -> None:
        """Give everything back: the container has ended, or the start failed."""
        self.close()
        release(self._store, self._id)

    def tell(self, action: str) -> None:
        """Write an event for each network: connect or disconnect."""
        tell(self._store, action, self.endpoints)


def connect(
    store: "Store",
    record: "ContainerRecord",
    options: "RunOptions",
    exposed: "Sequence[Port]",
    *,
    own_namespace: bool,
    stand_in: "StandIn | None" = None,
) -> "Connection | RootlessConnection":
    """Begin to connect a container whose row is there; see `Connection`.

    Parameters
    ----------
    exposed: ports that the image names. own_namespace: process 1 makes its network namespace itself. stand_in: for
        networks that an ordinary user has made.

    Raises
    ------
    NetworkNotFound: there is no such network. NetworkError: an address or port is taken, or the kernel refuses.
    UsageError: something contradicts itself. UnsupportedError: this user cannot have it. Nothing is left then.
    """
    if store.rootless:
        _refuse_rates(options)
    if store.rootless and stand_in is None:
        from pyrtc.network.rootless_connection import RootlessConnection

        if options.egress is not None and LOCAL in options.egress:
            raise UnsupportedError(
                "--egress local takes a network that was made: this container is alone on its own; name addresses, "
                "subnets or names"
            )
        return RootlessConnection(store, record, options, wanted_ports(options, exposed))
    connection = Connection(store, record, options, stand_in)
    try:
        connection.open(wanted_ports(options, exposed), own_namespace=own_namespace)
    except BaseException:
        connection.release()
        raise
    return connection


def _refuse_rates(options: "RunOptions") -> None:
    if options.limits.network_in is not None or options.limits.network_out is not None:
        raise UnsupportedError(
            "the network rates of an ordinary user's container cannot be limited: its packets go through a program "
            "of that user; as root, or without --network-rate-in and -out, it starts"
        )


def _wishes(options: "RunOptions") -> "list[NetworkAttachment]":
    """Return what is asked of the networks. A host name that was asked for is one more name in each that has names."""
    wishes = list(options.networks)
    if options.hostname:
        for index, wish in enumerate(wishes):
            if wish.network not in PREDEFINED:
                wishes[index] = replace(wish, aliases=tuple(dict.fromkeys((*wish.aliases, options.hostname))))
    return wishes


def make_sure(store: "Store", endpoint: "Endpoint") -> int:
    """Return the index of what the container's device stands on, and have the firewall let its network through."""
    from pyrtc.network.firewall import add_network

    index = ensure(endpoint.network, store)
    if add_network(endpoint.network):  # somebody has taken the table away: what others publish goes back into it
        reconcile(store)
    return index


def put(netns_fd: int, link: Link, stand_in: "StandIn | None") -> None:
    """Make a device in the namespace at netns_fd, with its other end on the host or what stands in for it."""
    if stand_in is None:
        attach(netns_fd, link)
    else:
        attach(netns_fd, link, host_netns_fd=stand_in.netns_fd, userns_fd=stand_in.userns_fd)


def asked_resolvers(stand_in: "StandIn | None") -> tuple[str, ...]:
    """Return whom an attendant asks for names that are none of containers."""
    if stand_in is None:
        return host_resolvers(stub=True).nameservers
    return stand_in.outside.nameservers if stand_in.outside is not None else ()


def _obstacles(endpoint: "Endpoint") -> tuple[str, ...]:
    """Return what firewalls of others drop of a network whose bridge has just been made: the first start tells."""
    from pyrtc.network.obstacles import obstacles

    return obstacles(endpoint.network) if endpoint.network.driver in PUBLISHING else ()


def limit_rates(
    endpoints: "Sequence[Endpoint]", netns_fd: int, options: "RunOptions", before: "Limits | None" = None
) -> None:
    """Have the rates that a container may receive and send at hold for its devices. before: what holds until now.

    Raises
    ------
    UsageError: a network has nothing to limit. NetworkError, UnsupportedError: the kernel refuses.
    """
    limits = options.limits
    if before is None and limits.network_in is None and limits.network_out is None:
        return
    from pyrtc.network.shaping import shape
    from pyrtc.runtime.spec import steers_network

    on_host = steers_network(options, user_namespace=options.userns not in (None, "host"))
    shape(endpoints, netns_fd, limits, on_host=on_host, before=before)


def link_of(endpoint: "Endpoint", master_index: int, routed: "tuple[str, str]") -> Link:
    """Return the device that an endpoint is. routed: the devices that the default routes of IPv4 and IPv6 go over."""
    macvlan = endpoint.network.driver == "macvlan"
    return Link(
        host_device="" if macvlan else endpoint.host_device,
        master_index=master_index,
        mtu=endpoint.mtu,
        device=endpoint.device,
        mac=endpoint.mac,
        addresses4=(f"{endpoint.ip4}/{endpoint.prefix4}",) if endpoint.ip4 else (),
        addresses6=(f"{endpoint.ip6}/{endpoint.prefix6}",) if endpoint.ip6 else (),
        gateway4=endpoint.gateway4 if endpoint.device == routed[0] else "",
        gateway6=endpoint.gateway6 if endpoint.device == routed[1] else "",
        macvlan=endpoint.network.option("macvlan_mode", "bridge") if macvlan else "",
    )


def routed(endpoints: "Sequence[Endpoint]") -> tuple[str, str]:
    """Return the devices of the default routes: the first of each family that leads outside, "" for none."""
    outward = [endpoint for endpoint in endpoints if not endpoint.internal]
    return (
        next((endpoint.device for endpoint in outward if endpoint.gateway4), ""),
        next((endpoint.device for endpoint in outward if endpoint.gateway6), ""),
    )


def _names(endpoints: "Sequence[Endpoint]", options: "RunOptions", stand_in: "StandIn | None") -> Names:
    host = host_resolvers()
    gateways = [endpoint for endpoint in endpoints if endpoint.network.driver in PUBLISHING]
    own = any(has_names(endpoint.network) for endpoint in endpoints)
    gateway = next((found for one in gateways if (found := one.gateway4 or one.gateway6)), "")
    if stand_in is not None:  # its address in a network is not the host's
        gateway = stand_in.outside.gateway if stand_in.outside is not None else ""
        _check_host_gateway(options, gateway)
    return Names(
        addresses=tuple(address for endpoint in endpoints for address in (endpoint.ip4, endpoint.ip6) if address),
        gateway=gateway,
        nameservers=host.elsewhere,
        search=host.search,
        options=host.options,
        # A resolver of its own knows the names of its networks, and which it may connect to; and asks those that only
        # the host itself reaches.
        resolver=own or bool(names_in(options.egress)) or not (options.dns or host.elsewhere),
    )


def _check_host_gateway(options: "RunOptions", gateway: str) -> None:
    if not gateway and any(address == HOST_GATEWAY for _name, address in options.add_host):
        raise UnsupportedError(
            "host-gateway in an ordinary user's network needs one that is not internal, and a pasta of 2024_08_21 or "
            "newer (package passt): the host is not reached from it otherwise"
        )
