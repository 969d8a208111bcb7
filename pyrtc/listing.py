"""Containers as a list shows them, read without anything that starts containers, and chosen by Docker's filters."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyrtc.errors import ContainerError, ContainerNotFound, UsageError
from pyrtc.health import read_status
from pyrtc.options import Port
from pyrtc.states import exit_of, status_of
from pyrtc.store.container_rows import ContainerRecord, list_records
from pyrtc.store.database import Database
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.states import Status

__all__ = ["FILTERS", "LIVE", "STATES", "ContainerFilter", "ContainerInfo", "Listing", "read_list", "read_listing"]

STATES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
HEALTH = ("starting", "healthy", "unhealthy", "none")
FILTERS = (
    "ancestor", "before", "exited", "expose", "health", "id", "label", "name", "network", "publish", "since", "status",
    "volume",
)  # fmt: skip
LIVE = ("running", "paused", "restarting")


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """One container in a list.

    image: as it was asked for. command: program and arguments. state: ``created``, ``running``, ``paused``,
    ``restarting``, ``exited`` or ``dead``. returncode: None where not known. image_id: ``sha256:...``, or another word
    for a root that is no image. created, started, finished: seconds since the epoch; the latter two of its last run,
    None before. network: what it was asked to be in; networks: all of them, where it has endpoints on some. ports: what
    leads to it while it runs, and what it is said to listen on, with host 0. mounts: (name of a volume or path on the
    host, path inside) pairs. health: ``starting``, ``healthy``, ``unhealthy``, or ``none`` where nothing checks it.
    """

    id: str
    name: str
    image: str
    command: tuple[str, ...]
    state: "Status"
    created: float
    returncode: int | None
    labels: tuple[tuple[str, str], ...] = ()
    image_id: str = ""
    started: float | None = None
    finished: float | None = None
    network: str = ""
    mounts: tuple[tuple[str, str], ...] = ()
    health: str = "none"
    networks: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """The containers of a store, the newest first. stale: processes were killed that nobody has tidied up after."""

    containers: tuple[ContainerInfo, ...]
    stale: bool


def read_list(root: str | os.PathLike[str]) -> Listing:
    """Return the containers of the store below root; where there is no store there are none, and none is made.

    Raises
    ------
    StoreError: it cannot be read.
    """
    path = os.path.realpath(root)
    if not os.path.exists(f"{path}/pyrtc.db"):
        return Listing((), stale=False)
    root_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        database = Database(f"{path}/pyrtc.db", root_fd)
        try:
            return read_listing(database, f"{path}/containers")
        finally:
            database.close()
    finally:
        os.close(root_fd)


def read_listing(database: Database, path: str) -> Listing:
    """Return the containers that a database names, whose directories are below path."""
    mounted: dict[str, list[tuple[str, str]]] = {}
    for container_id, volume, target in database.rows("SELECT container_id, volume, target FROM container_volumes"):
        mounted.setdefault(container_id, []).append((volume, target))
    ports: dict[str, list[Port]] = {}
    columns = "container_id, container_port, protocol, host_port, ip"
    for container_id, *row in database.rows(f"SELECT {columns} FROM ports ORDER BY container_port, host_port"):  # noqa: S608
        ports.setdefault(container_id, []).append(Port(*row))
    found, stale = [], False
    for record in list_records(database, path):
        state = status_of(record)
        stale = stale or _left_over(record, state)
        found.append(_info(record, state, mounted.get(record.id, ()), ports.get(record.id, ())))
    return Listing(tuple(found), stale)


def _left_over(record: ContainerRecord, state: str) -> bool:
    """Whether a row says that something goes on which does not."""
    if record.state == "creating":
        return not record.owner.alive()
    return record.state in ("running", "restarting") and state not in LIVE


def _info(
    record: ContainerRecord, state: "Status", volumes: Sequence[tuple[str, str]], ports: Sequence[Port]
) -> ContainerInfo:
    said: dict[str, Any] = json.loads(record.options or b"{}")
    runs = state in ("running", "paused")
    return ContainerInfo(
        id=record.id,
        name=record.name,
        image=said.get("image", record.image_id),
        command=tuple(said.get("command") or ()),
        state=state,
        created=record.created,
        returncode=exit_of(record).get("returncode") if state in ("exited", "dead", "restarting") else None,
        labels=tuple((said.get("labels") or {}).items()),
        image_id=record.image_id,
        # One in the foreground starts as it is made.
        started=record.started if record.started is not None or not runs else record.created,
        finished=record.finished,
        network=said.get("network", ""),
        networks=tuple(said.get("networks", ())),
        ports=_ports(ports, said.get("exposed", ())) if runs else (),
        health=read_status(record) if runs else "none",
        mounts=(*volumes, *((source, target) for source, target, _read_only in said.get("binds", ()))),
    )


def _ports(published: Sequence[Port], exposed: Sequence[str]) -> tuple[Port, ...]:
    from pyrtc.port_words import exposed as read_exposed

    known = {(port.container, port.protocol) for port in published}
    more = (port for word in exposed for port in read_exposed(word))
    return (*published, *(port for port in more if (port.container, port.protocol) not in known))


class ContainerFilter:
    """Which containers are wanted, in the words of ``docker ps --filter``.

    Of values of one key any must fit, of labels all; of each key one.

    Raises
    ------
    UsageError: a key or value that there is not.
    """

    def __init__(self, wanted: Mapping[str, str | Sequence[str]] | None = None) -> None:
        self._wanted: dict[str, tuple[str, ...]] = {}
        for key, values in (wanted or {}).items():
            self._wanted[key] = (values,) if isinstance(values, str) else tuple(values)
            for value in self._wanted[key]:
                _check(key, value)

    @property
    def wants_ended(self) -> bool:
        """Whether only containers that have ended, or not begun, can be meant."""
        return "status" in self._wanted or "exited" in self._wanted

    def choose(self, infos: Sequence[ContainerInfo]) -> tuple[ContainerInfo, ...]:
        """Return the containers that are wanted, of all that there are.

        Raises
        ------
        ContainerNotFound: before or since name one that there is not. ContainerError: they may mean several.
        """
        if not self._wanted:
            return tuple(infos)
        moments = {
            key: [_named(value, infos).created for value in self._wanted.get(key, ())] for key in ("before", "since")
        }
        return tuple(info for info in infos if self._passes(info, moments))

    def _passes(self, info: ContainerInfo, moments: Mapping[str, Sequence[float]]) -> bool:
        for key, values in self._wanted.items():
            if key == "before":
                passes = any(info.created < moment for moment in moments[key])
            elif key == "since":
                passes = any(info.created > moment for moment in moments[key])
            else:
                passes = (all if key == "label" else any)(_fits(info, key, value) for value in values)
            if not passes:
                return False
        return True


def _check(key: str, value: str) -> None:
    if key not in FILTERS:
        raise UsageError(f"invalid filter {key}: containers are filtered by {', '.join(FILTERS)}")
    if key == "status" and value not in STATES:
        raise UsageError(f"invalid filter status={value}: say {', '.join(STATES)}")
    if key == "health" and value not in HEALTH:
        raise UsageError(f"invalid filter health={value}: say {', '.join(HEALTH)}")
    if key == "exited" and not value.lstrip("-").isdecimal():
        raise UsageError(f"invalid filter exited={value}: say an exit code")
    if key in ("publish", "expose"):
        _port_range(key, value)


def _port_range(key: str, value: str) -> tuple[int, int, str]:
    """Return the first port, the last one and the protocol of ``80``, ``53/udp`` or ``8000-8080/tcp``."""
    numbers, slash, protocol = value.partition("/")
    first, dash, last = numbers.partition("-")
    words = (first, last if dash else first)
    # Lengths are looked at first: int refuses words of thousands of digits in its own way.
    if not all(word.isascii() and word.isdigit() and len(word) <= 5 for word in words):
        raise UsageError(f"invalid filter {key}={value}: say PORT, FIRST-LAST, PORT/udp")
    begin, end = (int(word) for word in words)
    if not 0 < begin <= end < 1 << 16 or (slash and protocol not in ("tcp", "udp", "sctp")):
        raise UsageError(f"invalid filter {key}={value}: say PORT, FIRST-LAST, PORT/udp")
    return begin, end, protocol or "tcp"


def _fits(info: ContainerInfo, key: str, value: str) -> bool:
    match key:
        case "id":
            return info.id.startswith(value)
        case "name":
            return _name_fits(info.name, value)
        case "status":
            return info.state == value
        case "exited":
            return info.state == "exited" and info.returncode == int(value)
        case "label":
            name, equals, wanted = value.partition("=")
            labels = dict(info.labels)
            return name in labels and (not equals or labels[name] == wanted)
        case "health":
            return info.health == value
        case "network":
            from pyrtc.network_words import is_mode

            return value in info.networks or (value == info.network and is_mode(value))
        case "publish" | "expose":
            first, last, protocol = _port_range(key, value)
            # As in Docker: of this machine, of the container; of the latter published ones as well.
            numbers = (port.host if key == "publish" else port.container
                       for port in info.ports if port.protocol == protocol)  # fmt: skip
            return any(first <= number <= last for number in numbers)
        case "volume":
            return any(value in pair for pair in info.mounts)
        case _:
            digits = info.image_id.partition(":")[2]
            by_id = len(value) >= 4 and digits.startswith(value.removeprefix("sha256:"))
            return by_id or info.image == value or _image_name(info.image) == _image_name(value)


def _name_fits(name: str, pattern: str) -> bool:
    """Docker's names begin with a slash and its filter is a regular expression; what is none is a part of the name."""
    import re

    try:
        return any(re.search(pattern, spelled) is not None for spelled in (name, f"/{name}"))
    except re.error:
        return pattern in name


def _image_name(text: str) -> str:
    from pyrtc.errors import ImageError
    from pyrtc.image.reference import Reference

    try:
        return Reference.parse(text).with_default_tag().canonical
    except ImageError:
        return text


def _named(text: str, infos: Sequence[ContainerInfo]) -> ContainerInfo:
    name = text.removeprefix("/")
    found = [info for info in infos if name in (info.id, info.name)] or [
        info for info in infos if name and info.id.startswith(name)
    ]
    if not found:
        raise ContainerNotFound(f"No such container: {text}")
    if len(found) > 1:
        raise ContainerError(f"container id {text} is ambiguous: several containers begin with it")
    return found[0]
