"""Containers that are put on a network, or taken from one, after they were made.

What a container is to have when it starts is in its options; one that runs gets or loses a device besides.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyrtc.errors import ContainerError, NetworkError, NetworkNotFound, UnsupportedError
from pyrtc.events import emit
from pyrtc.network.lookup import find
from pyrtc.options import NetworkAttachment
from pyrtc.states import is_alive
from pyrtc.store.endpoints import MAX_ENDPOINTS, check_wish
from pyrtc.values import replace

if TYPE_CHECKING:
    from pyrtc.options import RunOptions
    from pyrtc.store import ContainerRecord, Store
    from pyrtc.store.network_records import Network

__all__ = ["connect", "disconnect"]


def connect(store: "Store", network_name: str, container: str, attachment: "NetworkAttachment") -> None:
    """See `pyrtc.networks.Networks.connect`."""
    container_id = store.containers.get(container).id
    network = find(store, network_name)
    attachment = replace(attachment, network=network.name)
    check_wish(network, attachment)
    with store.lives.hold(container_id):
        record = store.containers.get(container_id)
        options = _options(record)
        _check_mode(store, record, network, options)
        if _is_on(store, record, options, network):
            raise NetworkError(f"endpoint with name {record.name} already exists in network {network.name}")
        if options is not None and len(options.networks) >= MAX_ENDPOINTS:
            raise NetworkError(
                f"container {record.name} is on {MAX_ENDPOINTS} networks, and more than that it cannot be"
            )
        if _runs(record):
            from pyrtc.network.joining import join

            join(store, record, attachment)
        if options is not None:
            _write(store, record, options, (*options.networks, attachment))
    _tell(store, "connect", network, record)


def disconnect(store: "Store", network_name: str, container: str) -> None:
    """See `pyrtc.networks.Networks.disconnect`."""
    container_id = store.containers.get(container).id
    network = _network(store, network_name)
    with store.lives.hold(container_id):
        record = store.containers.get(container_id)
        options = _options(record)
        asked = options.networks if options is not None else ()
        kept = tuple(one for one in asked if not _names(store, one.network, network_name, network))
        if kept != asked and store.rootless:
            _check_kept([one.network for one in asked if one not in kept])
        if options is not None and kept != asked:
            _write(store, record, options, kept)
        left = False
        if network is not None and _runs(record):
            from pyrtc.network.joining import leave

            left = leave(store, record, network)
        if network is None and kept == asked:
            raise NetworkNotFound(f"network {network_name} not found")
        if network is not None and kept == asked and not left:
            raise NetworkError(f"container {record.id} is not connected to network {network.name}")
    if network is not None:
        _tell(store, "disconnect", network, record)


def _options(record: "ContainerRecord") -> "RunOptions | None":
    """Return what a container will be started with; None for one that will not be started again."""
    if record.spec is None:
        if not _runs(record):
            raise ContainerError(f"container {record.name} does not run, and cannot be started again")
        return None
    from pyrtc.store.records import load_options

    return load_options(record.spec)


def _runs(record: "ContainerRecord") -> bool:
    return record.state == "running" and is_alive(record)


def _check_mode(store: "Store", record: "ContainerRecord", network: "Network", options: "RunOptions | None") -> None:
    mode = json.loads(record.options or b"{}").get("network", "none")
    if mode == "host" or mode.startswith("container:"):
        raise NetworkError(
            f"container {record.name} has the network {mode}: container sharing network namespace with another "
            "container or host cannot be connected to any other network"
        )
    if store.rootless:
        from pyrtc.network.stand_in import is_wanted

        if network.predefined:
            raise UnsupportedError(
                f"an ordinary user's network {network.name} is a program that a container gets when it is made: make "
                f"another one with --network {network.name}, or connect it to a network that was made"
            )
        is_wanted(store, (*(options.networks if options is not None else ()), NetworkAttachment(network.name)))


def _check_kept(names: "Sequence[str]") -> None:
    """Refuse to take a container from a network that is a program for it alone."""
    from pyrtc.network.rootless import NAMES

    name = next((name for name in names if name in NAMES), None)
    if name is not None:
        raise UnsupportedError(
            f"an ordinary user's container keeps the network {name}, which is a program for it alone: make another "
            "one with --network none, or with a network that was made"
        )


def _network(store: "Store", name: str) -> "Network | None":
    try:
        return store.networks.get(name)
    except NetworkNotFound:
        return None


def _names(store: "Store", word: str, name: str, network: "Network | None") -> bool:
    """Whether an attachment's word means the network; one that is gone is meant by its name."""
    meant = _network(store, word)
    if meant is None or network is None:
        return word == name
    return meant.id == network.id


def _is_on(store: "Store", record: "ContainerRecord", options: "RunOptions | None", network: "Network") -> bool:
    if any(_names(store, one.network, network.name, network) for one in (options.networks if options else ())):
        return True
    return _runs(record) and any(one.network.id == network.id for one in store.networks.endpoints_of(record.id))


def _write(
    store: "Store", record: "ContainerRecord", options: "RunOptions", networks: "tuple[NetworkAttachment, ...]"
) -> None:
    """Record what a container will be started with."""
    from pyrtc.store.records import dump_options

    names = [one.network for one in networks]
    # One that is on no network any more was not made for none: what else was said of it contradicts nothing.
    changed = replace(options, networks=networks, network=names[0] if names else options.network)
    described = json.loads(record.options or b"{}")
    described.update(network=changed.network, networks=names)
    store.lives.spec(record, dump_options(changed), json.dumps(described).encode())


def _tell(store: "Store", action: str, network: "Network", record: "ContainerRecord") -> None:
    about = {"container": record.id, "name": network.name, "type": network.driver}
    emit(store, "network", action, network.id, about)
