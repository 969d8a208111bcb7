"""The firewall of this host's container networks: the table `inet pyrtc` of nftables, which all stores share.

Nothing else of nftables or iptables is ever changed. Every change is one transaction, made under a lock of the host, so
a process killed at any moment leaves the table as it was before or as it should be. Who flushes the whole rule set
(`nft flush ruleset`, a restart of nftables.service) takes the table away; the next start of a container makes it
anew. All calls are about the network namespace of the calling thread.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pyrtc.core import forget_flows
from pyrtc.errors import NetworkError, UnsupportedError, UsageError
from pyrtc.network import forwarding, nftables, ruleset
from pyrtc.network.host_lock import host_lock
from pyrtc.network.ruleset import LAYOUT, TABLE, Element

if TYPE_CHECKING:
    from pyrtc.options import Port
    from pyrtc.store.network_records import Endpoint, Network

__all__ = ["add_network", "ensure", "publish", "reconcile", "remove_network", "unpublish"]

_BRIDGED = ("bridge", "overlay")
_FAMILIES = (4, 6)
_EVERY = {4: "0.0.0.0", 6: "::"}  # noqa: S104  (words)
_SHORT_ID = 12


def ensure() -> bool:
    """Make sure of the table; an older one of pyrtc's is replaced, with its elements, in one transaction.

    Returns
    -------
    True: there was none. What other containers of this store publish is to be put back: `reconcile`.

    Raises
    ------
    NetworkError: no right to, no nftables, or a table of a newer pyrtc that does not serve this one.
    """
    with host_lock("firewall"):
        return _ensure()


def add_network(network: "Network") -> bool:
    """Let a network's packets through, and keep those of others away from it; once more does no harm.

    Its bridge is there, and is not yet up unless the network was added before.

    Returns
    -------
    True: the table was missing, as for `ensure`.

    Raises
    ------
    NetworkError: as for `ensure`; or forwarding cannot be turned on.
    """
    if network.driver not in _BRIDGED:
        return False
    with host_lock("firewall"):
        made = _add(_of_network(network))
        if not network.internal:
            for family in _FAMILIES:
                if _subnet(network, family):
                    _forward(family)
            forwarding.let_in_local(network.device)
    return made


def remove_network(network: "Network") -> None:
    """Forget a network and what is published on it; with the last network of this host the table goes."""
    if network.driver not in _BRIDGED:
        return
    with host_lock("firewall"):
        present = _elements()
        if present is not None:
            wanted = set(_of_network(network))
            gone = {element for element in present if element in wanted or element.bridge == network.device}
            _change(present, gone | _idle_holders(present, gone), ())


def publish(ports: "Sequence[Port]", endpoint: "Endpoint") -> None:
    """Let ports of this host, which are reserved, lead to a container.

    Whatever led somewhere from one of them was left by a container that was killed: nobody else can have reserved it.
    A port of an address of IPv6 leads to a container without one only by whoever holds the port, and so for IPv4.

    Raises
    ------
    UsageError: the network is internal.
    NetworkError: as for `ensure`.
    """
    if not ports:
        return
    if endpoint.network.internal:
        raise UsageError(f"the network {endpoint.network.name} is internal: no port of this machine can lead into it")
    wanted = list(_of_ports(ports, endpoint))
    barred = list(_barred(ports, endpoint, wanted))
    commands = (
        ruleset.add((*_of_network(endpoint.network), *_holders(wanted)))
        + ruleset.forbid(barred)
        + ruleset.create(wanted)
    )
    with host_lock("firewall"):
        try:
            nftables.run(commands)
        except nftables.Missing:
            _ensure()
            nftables.run(commands)
        except nftables.Taken:
            nftables.run(_without((*wanted, *barred)) + commands)
    _forget_flows(ports)


def unpublish(ports: "Sequence[Port]", endpoint: "Endpoint") -> None:
    """Take back what `publish` did for this container; what another one has published meanwhile stays."""
    own = list(_of_ports(ports, endpoint))
    if not own:
        return
    with host_lock("firewall"):
        try:
            nftables.run(ruleset.delete((*_holders(own), *own)))
        except nftables.Missing:
            present = set(_elements() or ())
            left = [element for element in (*_holders(own), *own) if element in present]
            if left:
                nftables.run(ruleset.delete(left))
    _forget_flows(ports)


def reconcile(networks: "Iterable[Network]", published: "Iterable[tuple[Endpoint, Sequence[Port]]]") -> None:
    """Make the table say what a store knows, after a crash or when the table had been taken away.

    Parameters
    ----------
    networks: all of the store. published: what its running containers publish. Both are read with the firewall locked.

    Elements of these networks that nobody wants go, and so do those of bridges that this host does not have any more.
    Those of other stores stay.
    """
    with host_lock("firewall"):
        bridges = set(forwarding.devices(4)) | set(forwarding.devices(6))
        bridged = [network for network in networks if network.driver in _BRIDGED]
        known = {network.device for network in bridged}
        wanted: set[Element] = set()
        for network in bridged:
            if network.device in bridges:
                wanted.update(_of_network(network))
        for endpoint, ports in published:
            if endpoint.network.device in bridges & known and not endpoint.network.internal:
                wanted.update(_of_ports(ports, endpoint))
        wanted |= _holders(wanted)
        present = _elements()
        if present is None:
            if not wanted:
                return
            _ensure()
            present = []
        ours = {
            element
            for element in present
            if element.bridge and (element.bridge in known or element.bridge not in bridges)
        }
        ours |= _subnets_of(ours, present)
        ours |= _idle_holders(present, ours)
        kept = [element for element in present if element in wanted or element not in ours]
        places = {(element.place, element.key) for element in kept}
        # What another store's container has is left to it: one of the two is not running, and that one's store knows.
        new = [element for element in wanted if (element.place, element.key) not in places]
        _change(present, ours - wanted, new)


def _of_network(network: "Network") -> Iterator[Element]:
    device = network.device
    yield Element("bridges", (device,))
    yield Element("within", (device, device))
    if network.internal:
        yield Element("internal", (device,))
    for family in _FAMILIES:
        subnet = _subnet(network, family)
        if subnet:
            yield Element(f"home{family}", (device, subnet))
            yield Element(f"subnets{family}", (subnet,))


def _subnet(network: "Network", family: int) -> str:
    return network.subnet4 if family == 4 else network.subnet6


def _of_ports(ports: "Iterable[Port]", endpoint: "Endpoint") -> Iterator[Element]:
    """Yield what leads from ports to a container: of the families that it has an address of."""
    for element in _covered(ports, endpoint):
        if element.value[0]:
            yield element


def _covered(ports: "Iterable[Port]", endpoint: "Endpoint") -> Iterator[Element]:
    """Yield an element for each family that a port is held of, also if there is nothing of it to lead to."""
    owner = f"{endpoint.network.device} {endpoint.container_id[:_SHORT_ID]}"
    for port in ports:
        for family, address in ((4, endpoint.ip4), (6, endpoint.ip6)):
            key = (port.protocol, str(port.host))
            value = (address, str(port.container))
            if port.ip in ("", _EVERY[family]):
                yield Element(f"pub{family}", key, value, owner)
            elif (":" in port.ip) == (family == 6) and port.ip not in _EVERY.values():
                yield Element(f"pub{family}_at", (port.ip, *key), value, owner)


def _barred(ports: "Iterable[Port]", endpoint: "Endpoint", wanted: Sequence[Element]) -> Iterator[Element]:
    """Yield what must not be there beside what is wanted, as it would lead to somebody else.

    That is what is held and leads nowhere, and, for a port of a single address, the same port of every address.
    """
    for element in _covered(ports, endpoint):
        family = 4 if element.place.startswith("pub4") else 6
        nowhere = (_EVERY[family], "0")
        if not element.value[0]:
            yield Element(element.place, element.key, nowhere)
        if element.place.endswith("_at"):
            every = Element(f"pub{family}", element.key[1:], nowhere)
            if all((other.place, other.key) != (every.place, every.key) for other in wanted):
                yield every


def _subnets_of(elements: Iterable[Element], present: Iterable[Element]) -> set[Element]:
    """Return the subnets of the bridges that elements are about."""
    homes = {element.key[1] for element in elements if element.place.startswith("home")}
    return {element for element in present if element.place.startswith("subnets") and element.key[0] in homes}


def _holders(elements: Iterable[Element]) -> set[Element]:
    return {holder for element in elements if (holder := element.holder) is not None}


def _idle_holders(present: Iterable[Element], gone: set[Element]) -> set[Element]:
    """Return the holders of which nothing is left when elements are gone."""
    busy = _holders(element for element in present if element not in gone)
    return {element for element in present if element.place == "held" and element not in busy}


# The rest is called with the lock held.


def _ensure() -> bool:
    try:
        listing = nftables.listing("table", family="inet", name="pyrtc")
    except nftables.Missing:
        _make()
        return True
    served = ruleset.layouts(listing)
    if LAYOUT in served:
        return False
    if max(served, default=0) > LAYOUT:
        raise NetworkError(
            f"the table {TABLE} of nftables is of a newer pyrtc, which does not serve this one: update it"
        )
    nftables.run(f"delete table {TABLE}\n{ruleset.TEXT}{ruleset.add(ruleset.elements_in(listing))}")
    return False


def _make() -> None:
    try:
        nftables.run(ruleset.TEXT)
    except nftables.Missing as error:  # for an expression, too, the kernel says that there is no such file
        raise UnsupportedError(f"{error}: {nftables.KERNEL}") from None


def _add(elements: Iterable[Element]) -> bool:
    commands = ruleset.add(elements)
    try:
        nftables.run(commands)
    except nftables.Missing:
        made = _ensure()
        nftables.run(commands)
        return made
    return False


def _change(present: Iterable[Element], gone: set[Element], new: Sequence[Element]) -> None:
    """Take elements away and add others; the table goes with its last bridge."""
    left = [element for element in present if element not in gone]
    if any(element.place == "bridges" for element in (*left, *new)):
        if gone or new:
            nftables.run(ruleset.delete(gone) + ruleset.create(new))
        return
    nftables.run(f"delete table {TABLE}\n")
    for family in _FAMILIES:
        shut = {element.key[0] for element in present if element.place == f"shut{family}"}
        # Forwarding was turned on here. Whatever came to this host since may rely on it: a bridge of another program.
        if shut and shut.issuperset(_foreign(forwarding.devices(family), present)):
            forwarding.turn_off(family)


def _forward(family: int) -> None:
    """Turn forwarding on, but not between the networks that this host itself is in."""
    if forwarding.is_on(family):
        return
    others = _foreign(forwarding.unforwarding(family), _elements() or ())
    # lo forwards nothing ever: it says that forwarding was off, also where there is no other device yet.
    nftables.run(ruleset.add(Element(f"shut{family}", (name,)) for name in ("lo", *others)))
    forwarding.turn_on(family)


def _foreign(names: Iterable[str], present: Iterable[Element]) -> list[str]:
    """Return the devices that are neither bridges of ours nor ends of their containers' devices."""
    bridges = {element.key[0] for element in present if element.place == "bridges"}
    return [name for name in names if name not in bridges and not name.startswith(("pyrtc-", "pv"))]


def _elements(name: str = "") -> list[Element] | None:
    """Return the elements of the table, or of one map of it; None when there is none."""
    try:
        listing = (
            nftables.listing("map", family="inet", table="pyrtc", name=name)
            if name
            else nftables.listing("table", family="inet", name="pyrtc")
        )
        return list(ruleset.elements_in(listing))
    except nftables.Missing:
        return None


def _without(elements: Iterable[Element]) -> str:
    """Return the commands that delete whatever has the key of one of these elements.

    Its holder goes, too, also if something of it is left at other addresses: when it is unpublished later, each of its
    elements is looked at.
    """
    places = {(element.place, element.key) for element in elements}
    present = _elements() or []
    stale = {element for element in present if (element.place, element.key) in places}
    return ruleset.delete(stale | _holders(stale).intersection(present))


def _forget_flows(ports: "Sequence[Port]") -> None:
    """Have what clients go on sending translated anew: datagrams of one connection stay where its first one went."""
    numbers = {port.host for port in ports if port.protocol == "udp"}
    if numbers:
        forget_flows("udp", numbers)
