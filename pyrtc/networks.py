"""The networks of a store, and which containers are on them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pyrtc.errors import ContainerNotFound, NetworkError, NetworkNotFound, UsageError
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.containers import Containers
    from pyrtc.store import Store
    from pyrtc.store.network_records import Endpoint, Network

__all__ = ["NetworkInspection", "Networks"]


@dataclass(frozen=True, slots=True)
class NetworkInspection:
    """A network, and who is on it now: an endpoint for each container that runs, by the container's name."""

    network: "Network"
    endpoints: "tuple[Endpoint, ...]"


class Networks:
    """The networks of one store. ``bridge``, ``host`` and ``none`` are always there."""

    def __init__(self, store: "Store", containers: "Containers") -> None:
        self._store = store
        self._containers = containers

    def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnet: str | Sequence[str] = (),
        gateway: str | Sequence[str] = (),
        ip_range: str | Sequence[str] = (),
        aux_addresses: Mapping[str, str] | None = None,
        ipv6: bool = False,
        internal: bool = False,
        attachable: bool = False,
        encrypt: bool = False,
        mtu: int | None = None,
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> "Network":
        """Make a network.

        Parameters
        ----------
        driver: ``bridge``; ``macvlan``, on the device that options name as ``parent``; ``overlay``, on every host of
            the cluster.
        subnet, gateway, ip_range: one for IPv4, one for IPv6, or both. Without a subnet a free one is picked; without a
            gateway it is the subnet's first address; ip_range: the part that addresses are taken from.
        aux_addresses: by names, addresses in these subnets that are somebody else's: no container gets them.
        ipv6: IPv6, too; a subnet of IPv6 says the same. internal: containers on it reach one another only.
        attachable: said of overlay networks, which always are.
        encrypt: of overlay networks: encrypted between hosts, by WireGuard; the same as the option ``encrypted``.
        mtu: bytes. options: of the driver, in Docker's words.

        Raises
        ------
        UsageError: something that cannot be. NetworkError: the name or the subnet is taken, or the kernel refuses.
        UnsupportedError: this user, or this kernel, cannot have such a network.
        """
        from pyrtc.network.drivers import WantedNetwork
        from pyrtc.network.lifecycle import create

        said = {**(options or {}), **({} if mtu is None else {"mtu": str(mtu)})}
        if encrypt:
            if driver != "overlay":
                raise UsageError("only overlay networks are encrypted: those of one host send nothing to others")
            said["encrypted"] = ""
        wanted = WantedNetwork(
            name=name,
            driver=driver,
            subnets=_several(subnet),
            gateways=_several(gateway),
            ranges=_several(ip_range),
            auxiliary=tuple((aux_addresses or {}).items()),
            ipv6=ipv6,
            internal=internal,
            attachable=attachable,
            labels=tuple((labels or {}).items()),
            options=tuple(said.items()),
        )
        return create(self._store, wanted)

    def get(self, name_or_id: str) -> "Network":
        """Find a network by id, by name, or by an id prefix that only one has.

        Raises
        ------
        NetworkNotFound: there is none, nor in the cluster. NetworkError: the prefix fits several.
        """
        from pyrtc.network.lookup import find

        return find(self._store, name_or_id)

    def list(self) -> "tuple[Network, ...]":
        """Return all networks by name, those of the cluster among them; without etcd those that were known before."""
        from pyrtc.network.overlay.membership import joined

        if joined(self._store):
            from pyrtc.network.overlay.driver import refresh

            refresh(self._store)
        return self._store.networks.list()

    def inspect(self, name_or_id: str) -> NetworkInspection:
        """Return a network with who is on it; raises what `get` does."""
        self._put_right()
        network = self.get(name_or_id)
        return NetworkInspection(network, self._store.networks.endpoints_on(network.id))

    def obstacles(self, name_or_id: str) -> tuple[str, ...]:
        """Return what firewalls of other programs drop of a network's packets: a sentence each, with what to do.

        Raises
        ------
        NetworkNotFound: there is no such network. NetworkError, UnsupportedError: the firewall cannot be asked.
        """
        network = self.get(name_or_id)
        if network.driver not in ("bridge", "overlay") or self._store.rootless:
            return ()
        from pyrtc.network.obstacles import obstacles

        return obstacles(network)

    def remove(self, name_or_id: str, *, force: bool = False) -> None:
        """Remove a network, and its device from this host. force: one that is missing is fine.

        Raises
        ------
        NetworkNotFound: there is none. NetworkError: containers are on it, or every store has it.
        """
        from pyrtc.network.lifecycle import remove

        self._put_right()
        try:
            remove(self._store, name_or_id)
        except NetworkNotFound:
            if not force:
                raise

    def prune(self, passes: "Callable[[Network], bool] | None" = None) -> tuple[str, ...]:
        """Remove the networks that no container uses, whether it runs or not; return their names.

        Devices that nobody uses go, too, that of the default bridge among them; it comes back with its next container.

        Parameters
        ----------
        passes: which ones may go; None: all.
        """
        from pyrtc.network.lifecycle import prune

        self._put_right()
        return tuple(network.name for network in prune(self._store, passes or (lambda _network: True)))

    def connect(
        self,
        network: str,
        container: str,
        *,
        ip: str | None = None,
        ip6: str | None = None,
        mac_address: str | None = None,
        aliases: Sequence[str] = (),
    ) -> None:
        """Put a container on a network: at once if it runs, and whenever it starts.

        Parameters
        ----------
        network, container: names or ids. ip, ip6: its addresses there, None for any free ones. mac_address: of its
            device, None for a random one. aliases: names that containers of that network find it by, beside its own.

        Raises
        ------
        NetworkNotFound, ContainerNotFound: there is no such thing. NetworkError: it is on that network, has the network
        of the host or of another container, or its address is taken. UsageError: an address or a name that cannot be.
        """
        from pyrtc.attachments import connect
        from pyrtc.network_words import with_details
        from pyrtc.options import NetworkAttachment

        attachment = with_details(NetworkAttachment(network), ip, ip6, mac_address, _several(aliases))
        self._put_right()
        connect(self._store, network, container, attachment)

    def disconnect(self, network: str, container: str, *, force: bool = False) -> None:
        """Take a container from a network: at once if it runs, and for its next starts.

        Parameters
        ----------
        network, container: names or ids. force: a container that is missing, or is not on that network, is fine.

        Raises
        ------
        NetworkNotFound, ContainerNotFound: there is no such thing. NetworkError: it is not on that network.
        UnsupportedError: its network is a program's, as an ordinary user's `bridge` is.
        """
        from pyrtc.attachments import disconnect

        self._put_right()
        try:
            disconnect(self._store, network, container)
        except (ContainerNotFound, NetworkError):
            if not force:
                raise

    def _put_right(self) -> None:
        """Give back what containers had that ended while nobody looked."""
        self._containers.reap()
        if self._store.networks.abandoned():
            from pyrtc.network.release import reconcile

            reconcile(self._store)


def _several(words: str | Sequence[str]) -> tuple[str, ...]:
    return (words,) if isinstance(words, str) else tuple(words)
