"""What one start of an ordinary user's container does with its network: a program of its own serves that."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyrtc.egress_words import names_in
from pyrtc.network.resolvers import host_resolvers
from pyrtc.network.rootless import Link, decide
from pyrtc.runtime.etc_files import HOST_GATEWAY, Names
from pyrtc.runtime.helper import helper_fd
from pyrtc.store.networks import Published

if TYPE_CHECKING:
    from pyrtc.options import Port, RunOptions
    from pyrtc.store import ContainerRecord, Store

__all__ = ["RootlessConnection"]


class RootlessConnection:
    """The counterpart of `pyrtc.network.plumbing.Connection` for an ordinary user.

    Attributes
    ----------
    names: what is written of the network in the container. netns_fd: None, process 1 makes its namespace itself.
    ports: what is published, with the numbers that were chosen. warnings: what the caller is to know, in words.
    sysctls: settings of the network namespace that the caller may override.
    """

    def __init__(
        self, store: "Store", record: "ContainerRecord", options: "RunOptions", ports: "Sequence[Port]"
    ) -> None:
        self._store = store
        self._record = record
        self._options = options
        names_host = any(address == HOST_GATEWAY for _name, address in options.add_host)
        self._network = decide(options.networks, publishes=bool(ports), names_host=names_host)
        self._link: Link | None = None
        self.ports = tuple(ports)
        self.netns_fd = None
        host = host_resolvers()
        self.names = Names(
            addresses=self._network.addresses or ("127.0.0.1",),
            gateway=self._network.gateway,
            nameservers=self._network.nameservers,
            search=host.search,
            options=host.options,
            resolver=bool(names_in(options.egress)),
        )
        self.warnings = self._network.warnings
        self.sysctls = self._network.sysctls

    def created(self, pid: int, pidfd: int) -> None:
        """Give process 1, which exists and waits to be let go, its network."""
        record = self._record
        assert record.directory is not None  # one in a network has a directory
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        directory_fd = os.open(record.directory, flags)
        try:
            namespaces = _open_namespaces(pid) if self._options.egress is not None else ()
            try:
                if namespaces:
                    self._restrict(*namespaces)
                self._link = self._network.connect(helper_fd(), pid, pidfd, self.ports, directory_fd=directory_fd)
                if namespaces and self.names.resolver:
                    self._attend(pidfd, *namespaces)
            finally:
                for fd in namespaces:
                    os.close(fd)
        finally:
            os.close(directory_fd)
        self.ports = self._link.ports
        if self.ports:
            self._store.networks.set_ports(
                record.id,
                [Published(record.id, port.protocol, port.ip, port.host, port.container) for port in self.ports],
            )

    def _restrict(self, netns_fd: int, userns_fd: int) -> None:
        from pyrtc.network.egress import restrict

        assert self._options.egress is not None
        restrict(netns_fd, self._options.egress, (), userns_fd=userns_fd)

    def _attend(self, pidfd: int, netns_fd: int, userns_fd: int) -> None:
        """Have names resolved inside, by who lets the container connect to what they resolve to."""
        from pyrtc.network.attending import attend

        assert self._record.directory is not None
        attend(
            self._store,
            self._record.directory,
            pidfd,
            (),
            netns_fd=netns_fd,
            userns_fd=userns_fd,
            reserved=None,
            name_server=True,
            resolvers=self._options.dns or host_resolvers(stub=True).nameservers,
            asked=names_in(self._options.egress),
            outward=True,
        )

    def close(self) -> None:
        """Let go of the program; it goes on with the container."""
        if self._link is not None:
            self._link.leave()

    def release(self) -> None:
        """Wait until the program and its ports are gone: the container has ended, or the start failed."""
        self.close()
        release(self._store, self._record)

    def tell(self, action: str) -> None:
        """Say nothing: it is on no network of the store."""


def _open_namespaces(pid: int) -> tuple[int, int]:
    """Return the network and the user namespace of a process that waits."""
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return network, os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except BaseException:
        os.close(network)
        raise


def release(store: "Store", record: "ContainerRecord") -> None:
    """Give back what a container had that has ended, whoever started it."""
    from pyrtc.network.attending import await_attendant
    from pyrtc.network.rootless import gone

    if record.directory is not None:
        await_attendant(record.directory)
        gone(record.directory)
    store.networks.release(record.id)
