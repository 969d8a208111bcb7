"""The options of containers as keyword arguments, and what they mean."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, SupportsIndex, TypedDict, Unpack

from pyrtc.errors import UsageError
from pyrtc.options import (
    Bind,
    Device,
    HealthCheck,
    LogOptions,
    Mount,
    NetworkAttachment,
    Port,
    RestartPolicy,
    RunOptions,
    Share,
    Tmpfs,
    Ulimit,
    Volume,
)
from pyrtc.quantities import MAX_SECONDS, bit_rate, restart_policy, size
from pyrtc.runtime.cgroups import Limits

__all__ = ["ContainerKeywords", "ExecKeywords", "Keywords", "container_options", "make_options"]

Size = int | str
Rates = Iterable[tuple[str, Size]]
# Port of the container, as 80 or "53/udp"; port of the host, (address, port), None for any free port, or several.
Ports = Mapping[int | str, int | str | tuple[str, int] | list[int | tuple[str, int]] | None]


class Keywords(TypedDict, total=False):
    """The options of `pyrtc.run`; sizes are bytes or words like "64m", times are seconds."""

    entrypoint: Sequence[str]
    name: str
    remove: bool
    env: Mapping[str, str]
    workdir: str
    user: str | int
    group_add: Iterable[str | int]
    hostname: str
    domainname: str
    mounts: Iterable[Mount]
    read_only: bool
    network: str | NetworkAttachment | Sequence[str | NetworkAttachment]
    ip: str
    ip6: str
    mac_address: str
    network_aliases: Sequence[str]
    ports: Ports | Sequence[int | str | Port]
    publish_all: bool
    expose: Iterable[int | str]
    egress: str | Sequence[str]
    dns: Iterable[str]
    dns_search: Iterable[str]
    dns_option: Iterable[str]
    add_host: Mapping[str, str]
    memory: Size
    memory_swap: Size
    memory_reservation: Size
    cpus: float
    cpu_shares: int
    cpuset_cpus: str
    cpuset_mems: str
    pids: int
    blkio_weight: int
    device_read_bps: Rates
    device_write_bps: Rates
    device_read_iops: Iterable[tuple[str, int]]
    device_write_iops: Iterable[tuple[str, int]]
    network_in: int | str
    network_out: int | str
    best_effort: bool
    accounting: bool
    copy_up: Iterable[str]
    trace: bool
    ulimits: Iterable[Ulimit]
    shm_size: Size
    oom_score_adj: int
    cap_add: Iterable[str]
    cap_drop: Iterable[str]
    privileged: bool
    seccomp: str
    no_new_privileges: bool
    systempaths: str
    mask: Iterable[str]
    unmask: Iterable[str]
    sysctls: Mapping[str, str]
    devices: Iterable[Device]
    userns: str
    pid: Share
    ipc: Share
    uts: Share
    cgroupns: Share
    init: bool
    stop_signal: str
    stop_timeout: float
    timeout: float
    labels: Mapping[str, str]
    platform: str
    driver: str
    rw_layer: str


class ContainerKeywords(Keywords, total=False):
    """The options of `pyrtc.Container` and `Containers.run`: those of `pyrtc.run`, and what outlives a call.

    restart: "no", "on-failure", "on-failure:3", "always" or "unless-stopped". log: where its output goes. tty: it has a
    terminal. interactive: its standard input stays open for whoever attaches. health: the check of its health: a line
    for the shell, a program with its arguments, a `HealthCheck`; "NONE" for none.
    """

    restart: RestartPolicy | str
    log: LogOptions
    health: HealthCheck | Sequence[str] | str
    tty: bool
    interactive: bool


class ExecKeywords(TypedDict, total=False):
    """The options of commands in a running container; None is as if it were not given.

    env: variables over those of the image and the container. workdir: the container's unless given. user: name or id,
    with ":group" after it, looked up in the container's own files; the container's unless given. privileged: every
    capability that the container's user namespace has to give; the filter stays. tty: it has a terminal.
    """

    env: Mapping[str, str] | None
    workdir: str | None
    user: str | int | None
    privileged: bool
    tty: bool


_SIZES = frozenset({"memory", "memory_swap", "memory_reservation"})
RATES = frozenset({"device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops"})
BIT_RATES = frozenset({"network_in", "network_out"})
_LIMITS = _SIZES | RATES | BIT_RATES | {"cpus", "cpu_shares", "cpuset_cpus", "cpuset_mems", "pids", "blkio_weight"}
_WHOLE = frozenset({"cpu_shares", "pids", "blkio_weight", "oom_score_adj"})
_FLAGS = frozenset(
    {
        "remove",
        "read_only",
        "best_effort",
        "accounting",
        "trace",
        "privileged",
        "no_new_privileges",
        "init",
        "tty",
        "interactive",
        "publish_all",
    }
)
_TEXTS = frozenset(
    {
        "name",
        "workdir",
        "hostname",
        "domainname",
        "cpuset_cpus",
        "cpuset_mems",
        "seccomp",
        "stop_signal",
        "platform",
    }
)
_MAPPINGS = frozenset({"env", "add_host", "sysctls", "labels"})
_SEQUENCES = frozenset(
    {
        "entrypoint",
        "mounts",
        "dns",
        "dns_search",
        "dns_option",
        "ulimits",
        "cap_add",
        "cap_drop",
        "mask",
        "unmask",
        "devices",
        "group_add",
        "copy_up",
    }
)
_ITEMS: dict[str, tuple[type, ...]] = {"mounts": (Bind, Volume, Tmpfs), "ulimits": (Ulimit,), "devices": (Device,)}
_TIMES = frozenset({"timeout", "stop_timeout"})
_NETWORK = frozenset({"network", "ip", "ip6", "mac_address", "network_aliases", "ports", "expose"})
_CHOICES = {
    "userns": ("host", "auto", "keep-id"),
    "pid": ("private", "host"),
    "ipc": ("private", "host"),
    "uts": ("private", "host"),
    "cgroupns": ("private", "host"),
    "systempaths": ("masked", "unconfined"),
    "driver": ("overlay", "copy"),
    "rw_layer": ("disk", "memory"),
}
_KNOWN = frozenset(Keywords.__annotations__)
_KNOWN_OF_CONTAINERS = frozenset(ContainerKeywords.__annotations__)


def make_options(command: Sequence[str | os.PathLike[str]] | None, **keywords: Unpack[Keywords]) -> RunOptions:
    """Return the options that these keyword arguments of `run` mean; raises as `container_options` does."""
    return _make(command, _KNOWN, "run()", keywords)


def container_options(
    command: Sequence[str | os.PathLike[str]] | None, **keywords: Unpack[ContainerKeywords]
) -> RunOptions:
    """Return the options that these keyword arguments mean.

    Raises
    ------
    UsageError: a keyword, choice or value that cannot mean anything.
    TypeError: command is a string: a shell would be needed to take it apart.
    """
    return _make(command, _KNOWN_OF_CONTAINERS, "a container", keywords)


def _make(
    command: Sequence[str | os.PathLike[str]] | None, known: frozenset[str], what: str, keywords: Mapping[str, object]
) -> RunOptions:
    if isinstance(command, (str, bytes)):
        raise TypeError('command is a sequence of words, such as ["sh", "-c", "echo hello"]')
    limits: dict[str, object] = {}
    fields: dict[str, object] = {}
    networks: dict[str, Any] = {}
    for key, value in keywords.items():
        if key not in known:
            raise UsageError(f"{what} has no option {key!r}")
        if value is None:
            continue
        if key in _LIMITS:
            limits[key] = limit_value(key, value)
        elif key in _NETWORK:
            networks[key] = value
        else:
            fields[key] = _field(key, value)
    if networks.get("network") in ("none", "host") and len(networks) == 1 and "publish_all" not in fields:
        fields |= networks
    elif networks or fields.get("publish_all"):
        from pyrtc.network_keywords import network_fields

        fields |= network_fields(networks, publish_all=bool(fields.get("publish_all")))
    if limits:
        fields["limits"] = Limits(**limits)  # type: ignore[arg-type]
    words = None if command is None else tuple(os.fsdecode(word) for word in command)
    return RunOptions(command=words, **fields)  # type: ignore[arg-type]


def _whole_number(value: object) -> int | None:
    """Return an int of any library's, None for anything else."""
    return value.__index__() if isinstance(value, SupportsIndex) and not isinstance(value, bool) else None


def _bytes(key: str, value: object) -> int:
    if isinstance(value, str):
        try:
            return size(value)
        except UsageError as error:
            raise UsageError(f"{key}={value!r}: {error}") from None
    if (number := _whole_number(value)) is not None:
        return number
    raise UsageError(f"{key}={value!r}: it is a number of bytes, or a word such as '64m'")


def _bits(key: str, value: object) -> int:
    if isinstance(value, str):
        try:
            return bit_rate(value)
        except UsageError as error:
            raise UsageError(f"{key}={value!r}: {error}") from None
    if (number := _whole_number(value)) is not None:
        return number
    raise UsageError(f"{key}={value!r}: it is a number of bits per second, or a word such as '10mbit'")


def limit_value(key: str, value: object) -> object:
    """Return what a keyword of `Limits` means; raises UsageError where it can mean nothing."""
    if key in _SIZES:
        return _bytes(key, value)
    if key in BIT_RATES:
        return _bits(key, value)
    if key in RATES:
        try:
            pairs = [(str(device), rate) for device, rate in value]  # type: ignore[attr-defined]
        except (TypeError, ValueError):
            raise UsageError(f"{key}={value!r}: it is a sequence of (device, rate)") from None
        return tuple((device, _bytes(key, rate)) for device, rate in pairs)
    if key == "cpus" and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise UsageError(f"cpus={value!r}: it is a number, such as 1.5")
    return _of_kind(key, value)


def _seconds(key: str, value: object) -> float:
    if isinstance(value, (int, float)) and 0 <= value < MAX_SECONDS:
        return float(value)
    raise UsageError(f"{key}={value!r}: it is a number of seconds")


def _egress(value: object) -> tuple[str, ...]:
    from pyrtc.egress_words import egress

    items = (value,) if isinstance(value, str) else value
    if not isinstance(items, Sequence) or not all(isinstance(item, str) for item in items):
        raise UsageError(f"egress={value!r}: it is 'none', or a sequence of addresses, subnets, names and 'local'")
    try:
        return tuple(dict.fromkeys(word for item in items for word in egress(item)))
    except UsageError as error:
        raise UsageError(f"egress={value!r}: {error}") from None


def _health(value: object) -> HealthCheck:
    if isinstance(value, HealthCheck):
        return value
    if isinstance(value, str) and value:
        return HealthCheck(("NONE",) if value == "NONE" else ("CMD-SHELL", value))
    words = () if isinstance(value, str) or not isinstance(value, Sequence) else tuple(value)
    if words and all(isinstance(word, str) for word in words):
        return HealthCheck(("CMD", *words))
    raise UsageError(f"health={value!r}: it is a line for the shell, a program with its arguments, or a HealthCheck")


def _of_kind(key: str, value: object) -> object:
    """Return a value that is taken as it is, if it is of the right kind: "no" for a flag would mean yes."""
    if key in _FLAGS and not isinstance(value, bool):
        raise UsageError(f"{key}={value!r}: it is True or False")
    if key in _WHOLE:
        if (number := _whole_number(value)) is None:
            raise UsageError(f"{key}={value!r}: it is a whole number")
        return number
    if key in _TEXTS and not isinstance(value, str):
        raise UsageError(f"{key}={value!r}: it is a word, a str")
    return value


def _field(key: str, value: object) -> object:
    choices = _CHOICES.get(key)
    if choices is not None and value not in choices:
        raise UsageError(f"{key}={value!r}: it is one of {', '.join(choices)}")
    if key in _MAPPINGS:
        if not isinstance(value, Mapping):
            raise UsageError(f"{key}={value!r}: it is a mapping, such as {{'NAME': 'value'}}")
        return tuple((str(name), str(text)) for name, text in value.items())
    if key in _SEQUENCES:
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            raise UsageError(f"{key}={value!r}: it is a sequence, such as [{value!r}]")
        if key == "group_add":
            return tuple(map(str, value))
        kinds = _ITEMS.get(key, (str,))
        items = tuple(value)
        for item in items:
            if not isinstance(item, kinds):
                named = " or ".join(f"pyrtc.{kind.__name__}" if kind is not str else "str" for kind in kinds)
                raise UsageError(f"{key}: {item!r} is no {named}")
        return items
    if key in _TIMES:
        return _seconds(key, value)
    if key == "egress":
        return _egress(value)
    if key == "user":
        return str(value)
    if key == "restart" and not isinstance(value, RestartPolicy):
        if not isinstance(value, str):
            raise UsageError(f"restart={value!r}: it is a word such as 'on-failure:3', or a pyrtc.RestartPolicy")
        return restart_policy(value)
    if key == "health":
        return _health(value)
    if key == "log" and not isinstance(value, LogOptions):
        raise UsageError(f"log={value!r}: it is a pyrtc.LogOptions")
    if key == "shm_size":
        return _bytes(key, value)
    return _of_kind(key, value)
