"""Everything that one start of a container does with networks, and how it is taken back.

Root's containers get their devices before process 1 is made: it enters a namespace in which all is ready. One in a user
namespace of its own makes its network namespace itself, and is plumbed from outside before it is let go.

    connection = connect(store, container_id, options, exposed, own_namespace=False)
    connection.names, connection.netns_fd      # for /etc, and for the plan
    connection.created(pid, pidfd)             # process 1 exists and waits
    connection.release()                       # at the end, or when the start fails

What outlives this process are rows of the store, elements of the firewall and the attendant, which ends with the
container. `release` gives back the first two of a container whoever started it; what a killed process left is put right
by `reconcile`. Devices need no hand: they go with the namespace.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from pyrtc.core.network import Link, attach, device_index
from pyrtc.errors import UnsupportedError, UsageError
from pyrtc.network.claims import claim
from pyrtc.network.detours import remove_detours, remove_device
from pyrtc.network.devices import ensure
from pyrtc.network.names import has_names, write_names
from pyrtc.network.resolvers import host_resolvers
from pyrtc.network_words import SHARED
from pyrtc.options import Port
from pyrtc.runtime.etc_files import Names
from pyrtc.runtime.spare_network import spare_networks
from pyrtc.store.containers import kill_process, open_process
from pyrtc.store.networks import PREDEFINED
from pyrtc.store.owner import Owner
from pyrtc.values import replace

if TYPE_CHECKING:
    from pyrtc.network.ports import Reserved
    from pyrtc.network.rootless_connection import RootlessConnection
    from pyrtc.options import NetworkAttachment, RunOptions
    from pyrtc.runtime.cgroups import Limits
    from pyrtc.store import ContainerRecord, Store
    from pyrtc.store.networks import Endpoint, Published

__all__ = [
    "Connection",
    "attend_anew",
    "connect",
    "end_attendant",
    "limit_rates",
    "link_of",
    "make_sure",
    "port_of",
    "publishing",
    "reconcile",
    "release",
    "routed",
    "tell",
]

T = TypeVar("T")

_NOTE = "attendant"  # in the container's directory: its pid and start time
_PATIENCE = 10.0  # seconds for an attendant to see that its container has ended
_PUBLISHING = ("bridge", "overlay")  # drivers whose networks ports of the host lead into


class Connection:
    """One container on its way into its networks.

    Attributes
    ----------
    endpoints: what it has on each, by device. names: what is written of them in the container.
    netns_fd: the namespace that process 1 enters; None where it makes its own, for which `created` cares.
    ports: what is published, with the numbers that were chosen. warnings: what the caller is to know, in words.
    sysctls: settings of the network namespace that the caller may override.
    """

    def __init__(self, store: "Store", record: "ContainerRecord", options: "RunOptions") -> None:
        self._store = store
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
        self.names = _names(self.endpoints, self._options)
        if ports:
            self._reserve(ports)
        for endpoint in self.endpoints:
            is_new = not device_index(endpoint.network.device)
            self._masters[endpoint.network.id] = make_sure(self._store, endpoint)
            if is_new:
                self.warnings += _obstacles(endpoint)
        if not own_namespace:
            self.netns_fd = spare_networks.take_or_make()
            self._attach(self.netns_fd)

    def _reserve(self, ports: "Sequence[Port]") -> None:
        from pyrtc.network.ports import reserve
        from pyrtc.store.networks import Published

        _published_on(self.endpoints)  # says why not
        self._reserved = reserve(ports)
        self.ports = self._reserved.ports
        self._store.networks.set_ports(
            self._id, [Published(self._id, port.protocol, port.ip, port.host, port.container) for port in self.ports]
        )

    def _attach(self, netns_fd: int) -> None:
        ways = routed(self.endpoints)
        for endpoint in self.endpoints:
            attach(netns_fd, link_of(endpoint, self._masters[endpoint.network.id], ways))
        limit_rates(self.endpoints, netns_fd, self._options)
        if self._options.egress is not None:
            from pyrtc.network.egress import restrict

            restrict(netns_fd, self._options.egress, self.endpoints)

    def created(self, pid: int, pidfd: int) -> None:
        """Finish the network of process 1, which exists and waits to be let go."""
        if self.netns_fd is None:
            self.netns_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self._attach(self.netns_fd)
        if self.ports:
            from pyrtc.network.firewall import publish

            publish(self.ports, _published_on(self.endpoints))
        for endpoint in self.endpoints:
            if has_names(endpoint.network):
                write_names(self._store, endpoint.network)
        if any(endpoint.network.driver == "overlay" for endpoint in self.endpoints):
            from pyrtc.network.overlay.driver import connected

            connected(self._store, self.endpoints)
        if self.names.resolver or self._reserved is not None:
            self._attend(pidfd, self.netns_fd)

    def _attend(self, pidfd: int, netns_fd: int) -> None:
        """Start what resolves names inside, and holds the ports outside."""
        from pyrtc.network.attendant import start_attendant

        assert self._directory is not None
        directory_fd = _open_directory(self._directory)
        try:
            attendant = start_attendant(
                self._store,
                pidfd,
                self.endpoints,
                netns_fd=netns_fd,
                directory_fd=directory_fd,
                name_server=self.names.resolver,
                forwards=self._options.egress is None,
                resolvers=self._options.dns or host_resolvers(stub=True).nameservers,
                held=self._reserved.held if self._reserved is not None else (),
                published_on=publishing(self.endpoints),
            )
            attendant.close()
            _note(directory_fd, attendant.pid, attendant.start_time)
        finally:
            os.close(directory_fd)

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
    store: "Store", record: "ContainerRecord", options: "RunOptions", exposed: "Sequence[Port]", *, own_namespace: bool
) -> "Connection | RootlessConnection":
    """Begin to connect a container whose row is there; see `Connection`.

    Parameters
    ----------
    exposed: ports that the image names. own_namespace: process 1 makes its network namespace itself.

    Raises
    ------
    NetworkNotFound: there is no such network. NetworkError: an address or port is taken, or the kernel refuses.
    UsageError: something contradicts itself. UnsupportedError: this user cannot have it. Nothing is left then.
    """
    if store.rootless:
        from pyrtc.network.rootless_connection import RootlessConnection

        if options.egress is not None:
            raise UnsupportedError(
                "--egress takes root: the network of an ordinary user's container is a program's; with --network none "
                "it reaches nothing"
            )
        if options.limits.network_in is not None or options.limits.network_out is not None:
            raise UnsupportedError(
                "the network rates of an ordinary user's container cannot be limited: its packets go through a program "
                "of that user; as root, or without --network-rate-in and -out, it starts"
            )

        return RootlessConnection(store, record, options, wanted_ports(options, exposed))
    connection = Connection(store, record, options)
    try:
        connection.open(wanted_ports(options, exposed), own_namespace=own_namespace)
    except BaseException:
        connection.release()
        raise
    return connection


def _wishes(options: "RunOptions") -> "list[NetworkAttachment]":
    """Return what is asked of the networks. A host name that was asked for is one more name in each that has names."""
    wishes = list(options.networks)
    if options.hostname:
        for index, wish in enumerate(wishes):
            if wish.network not in PREDEFINED:
                wishes[index] = replace(wish, aliases=tuple(dict.fromkeys((*wish.aliases, options.hostname))))
    return wishes


def wanted_ports(options: "RunOptions", exposed: "Sequence[Port]") -> "tuple[Port, ...]":
    """Return what is to be published. exposed: what the image names."""
    if not options.publish_all:
        return options.ports
    from pyrtc.network.ports import publish_all

    return publish_all(options.ports, (*options.expose, *exposed))


def make_sure(store: "Store", endpoint: "Endpoint") -> int:
    """Return the index of what the container's device stands on, and have the firewall let its network through."""
    from pyrtc.network.firewall import add_network

    index = ensure(endpoint.network, store)
    if add_network(endpoint.network):  # somebody has taken the table away: what others publish goes back into it
        reconcile(store)
    return index


def _obstacles(endpoint: "Endpoint") -> tuple[str, ...]:
    """Return what firewalls of others drop of a network whose bridge has just been made: the first start tells."""
    from pyrtc.network.obstacles import obstacles

    return obstacles(endpoint.network) if endpoint.network.driver in _PUBLISHING else ()


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


def publishing(endpoints: "Sequence[Endpoint]") -> "Endpoint | None":
    """Return where published ports lead; None where no port can."""
    return next((one for one in endpoints if one.network.driver in _PUBLISHING and not one.internal), None)


def _published_on(endpoints: "Sequence[Endpoint]") -> "Endpoint":
    """Return where published ports lead, or say why none can."""
    found = publishing(endpoints)
    if found is not None:
        return found
    names = ", ".join(endpoint.network.name for endpoint in endpoints)
    raise UsageError(f"no port of this machine can lead into {names}: publishing takes a bridge that is not internal")


def _names(endpoints: "Sequence[Endpoint]", options: "RunOptions") -> Names:
    host = host_resolvers()
    gateways = [endpoint for endpoint in endpoints if endpoint.network.driver in _PUBLISHING]
    own = any(has_names(endpoint.network) for endpoint in endpoints)
    return Names(
        addresses=tuple(address for endpoint in endpoints for address in (endpoint.ip4, endpoint.ip6) if address),
        gateway=next((found for one in gateways if (found := one.gateway4 or one.gateway6)), ""),
        nameservers=host.elsewhere,
        search=host.search,
        options=host.options,
        # A resolver of its own knows the names of its networks; and asks those that only the host itself reaches.
        resolver=own or not (options.dns or host.elsewhere),
    )


# ---- at the end, whoever started it ----------------------------------------------------------------------------------


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
    remove_detours(endpoints)
    _take_from_guests(f"{store.containers.path}/{container_id}", endpoints)
    if published:
        from pyrtc.network.firewall import unpublish

        for endpoint in endpoints:
            unpublish([port_of(port) for port in published], endpoint)
    _await_attendant(f"{store.containers.path}/{container_id}")
    store.networks.release(container_id)
    for endpoint in endpoints:
        if has_names(endpoint.network):
            write_names(store, endpoint.network)
    if any(endpoint.network.driver == "overlay" for endpoint in endpoints):
        from pyrtc.network.overlay.driver import released

        released(store, endpoints)
    return endpoints


def _take_from_guests(directory: str, endpoints: "Iterable[Endpoint]") -> None:
    """Remove devices that stay where they are: in a namespace that others have joined, with addresses to be given back.

    Devices of other containers go with their namespace, which costs nothing.
    """
    try:
        os.unlink(f"{directory}/{SHARED}")
    except (FileNotFoundError, NotADirectoryError):
        return
    for endpoint in endpoints:
        remove_device(endpoint.host_device)


def attend_anew(
    store: "Store",
    directory: str,
    pidfd: int,
    endpoints: "Sequence[Endpoint]",
    *,
    netns_fd: int,
    reserved: "Reserved | None",
) -> None:
    """Start another attendant for a container that runs, in the place of one that was ended; see `end_attendant`."""
    from pyrtc.network.attendant import start_attendant

    directory_fd = _open_directory(directory)
    try:
        named = "dns" in os.listdir(directory_fd)
        if not named and reserved is None:
            return
        attendant = start_attendant(
            store,
            pidfd,
            endpoints,
            netns_fd=netns_fd,
            directory_fd=directory_fd,
            name_server=named,
            resolvers=None,
            held=reserved.held if reserved is not None else (),
            published_on=publishing(endpoints),
        )
        attendant.close()
        _note(directory_fd, attendant.pid, attendant.start_time)
    finally:
        os.close(directory_fd)


def end_attendant(directory: str) -> None:
    """End a container's attendant before the container does: its ports are free when this returns."""
    noted = _noted(directory)
    if noted is not None:
        kill_process(*noted)


def _open_directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _note(directory_fd: int, pid: int, start_time: int) -> None:
    """Write down who attends a container, so that whoever ends it can wait until its ports are free."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(_NOTE, flags, 0o600, dir_fd=directory_fd)
    try:
        os.write(fd, b"%d %d\n" % (pid, start_time))
    finally:
        os.close(fd)


def _noted(directory: str) -> tuple[int, int] | None:
    """Return pid and start time of who attends a container, or did; None for nobody."""
    try:
        fd = os.open(f"{directory}/{_NOTE}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        words = os.read(fd, 64).split()
    finally:
        os.close(fd)
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return None  # whoever wrote it was killed meanwhile, and the container with it
    return int(words[0]), int(words[1])


def _await_attendant(directory: str) -> None:
    """Wait until a container's attendant is gone, and with it what held its ports."""
    noted = _noted(directory)
    pidfd = open_process(*noted) if noted is not None else None
    if pidfd is None:
        return
    import select

    try:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        poller.poll(_PATIENCE * 1000)
    finally:
        os.close(pidfd)


def reconcile(store: "Store") -> None:
    """Have the firewall say what the store says: after processes were killed, or when the table had been taken away."""
    from pyrtc.network.firewall import reconcile as put_right

    for container_id in store.networks.abandoned():
        with store.lives.hold_if_free(container_id) as held:
            if held and container_id in store.networks.abandoned():
                release(store, container_id)
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


def port_of(published: "Published") -> Port:
    """Return what was published as it was asked for, with the port that was chosen."""
    return Port(published.container_port, published.protocol, published.host_port, published.ip)
