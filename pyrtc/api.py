"""`pyrtc.run` and what it shares with `pyrtc.aio.run`: the default engine, keyword arguments to RunOptions."""

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from pyrtc.capture import DEFAULT_MAX_OUTPUT, Stream
from pyrtc.container import Completed
from pyrtc.engine import Engine
from pyrtc.errors import UsageError
from pyrtc.options import Device, LogOptions, Mount, Network, RestartPolicy, RunOptions, Share, Ulimit
from pyrtc.quantities import MAX_SECONDS, restart_policy, size
from pyrtc.runtime.cgroups import Limits

if TYPE_CHECKING:
    from pyrtc.snapshots import Snapshot

__all__ = ["ContainerKeywords", "Keywords", "container_options", "default_engine", "make_options", "run"]

Size = int | str
Rates = Iterable[tuple[str, Size]]


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
    network: Network
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
    best_effort: bool
    accounting: bool
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
    terminal. interactive: its standard input stays open for whoever attaches.
    """

    restart: RestartPolicy | str
    log: LogOptions
    tty: bool
    interactive: bool


_SIZES = frozenset({"memory", "memory_swap", "memory_reservation"})
_RATES = frozenset({"device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops"})
_LIMITS = _SIZES | _RATES | {"cpus", "cpu_shares", "cpuset_cpus", "cpuset_mems", "pids", "blkio_weight"}
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
    }
)
_TIMES = frozenset({"timeout", "stop_timeout"})
_CHOICES = {
    "network": ("none", "host"),
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
    for key, value in keywords.items():
        if key not in known:
            raise UsageError(f"{what} has no option {key!r}")
        if value is None:
            continue
        if key in _LIMITS:
            limits[key] = _limit(key, value)
        else:
            fields[key] = _field(key, value)
    if limits:
        fields["limits"] = Limits(**limits)  # type: ignore[arg-type]
    words = None if command is None else tuple(os.fsdecode(word) for word in command)
    return RunOptions(command=words, **fields)  # type: ignore[arg-type]


def _bytes(key: str, value: Size) -> int:
    try:
        return size(value) if isinstance(value, str) else value
    except UsageError as error:
        raise UsageError(f"{key}={value!r}: {error}") from None


def _limit(key: str, value: object) -> object:
    if key in _SIZES:
        return _bytes(key, value)  # type: ignore[arg-type]
    if key in _RATES:
        return tuple((device, _bytes(key, rate)) for device, rate in value)  # type: ignore[attr-defined]
    return value


def _seconds(key: str, value: object) -> float:
    if isinstance(value, (int, float)) and 0 <= value < MAX_SECONDS:
        return float(value)
    raise UsageError(f"{key}={value!r}: it is a number of seconds")


def _field(key: str, value: object) -> object:
    choices = _CHOICES.get(key)
    if choices is not None and value not in choices:
        raise UsageError(f"{key}={value!r}: it is one of {', '.join(choices)}")
    if key in _MAPPINGS:
        return tuple((str(name), str(text)) for name, text in value.items())  # type: ignore[attr-defined]
    if (key in _SEQUENCES or key == "group_add") and isinstance(value, (str, bytes)):
        raise UsageError(f"{key}={value!r}: it is a sequence, such as [{value!r}]")
    if key in _SEQUENCES:
        return tuple(value)  # type: ignore[arg-type]
    if key == "group_add":
        return tuple(str(group) for group in value)  # type: ignore[attr-defined]
    if key in _TIMES:
        return _seconds(key, value)
    if key == "user":
        return str(value)
    if key == "restart" and isinstance(value, str):
        return restart_policy(value)
    if key == "shm_size":
        return _bytes(key, value)  # type: ignore[arg-type]
    return value


_default: Engine | None = None
_default_lock = threading.Lock()


def default_engine() -> Engine:
    """Return the engine that the module's functions use, opened at the first call.

    Raises
    ------
    StoreError: the default store cannot be opened.
    """
    global _default
    if _default is None:
        with _default_lock:
            if _default is None:
                _default = Engine()
    return _default


def run(
    image: "str | Snapshot",
    command: Sequence[str | os.PathLike[str]] | None = None,
    *,
    input: bytes = b"",
    check: bool = False,
    max_output: int = DEFAULT_MAX_OUTPUT,
    on_limit: Literal["truncate", "kill"] = "truncate",
    on_output: Callable[[Stream, bytes], object] | None = None,
    engine: Engine | None = None,
    **options: Unpack[Keywords],
) -> Completed:
    """Run a command in a new container and wait for its end.

    The container is isolated as Docker's are or better, has no network but loopback unless asked for, and is gone with
    all that it wrote when this returns, raises, or when this process dies, however it dies.

    Parameters
    ----------
    image: name or id of an image in the store; a `Snapshot`, or ``snapshot:`` and its name or id; or "host": the
        running system's own files, read-only under a R/W layer, with /run and /tmp empty and the store hidden. An
        ordinary user sees there what it may read, and can add and replace files in the upper directories (/etc,
        /usr/local/bin, /var/lib), but not change others' files in place; what is mounted, and what has mounts below it
        from the second level on, is read-only.
    command: program and arguments; None: what the image says.
    input: bytes for its standard input, which is /dev/null without.
    check: raise ContainerFailed unless it exits with 0.
    max_output: bytes of stdout and stderr together that are kept, 10 MiB; on_limit says what happens beyond: "truncate"
        drops the rest and sets `truncated`, "kill" ends the container with Outcome.OUTPUT_LIMIT.
    on_output: called with ("stdout" | "stderr", bytes) as output arrives, instead of collecting it; what it raises ends
        the container and is passed on.
    engine: another engine than the default one.
    options: see `Keywords`; names and meanings are Docker's. timeout: seconds, then all its processes are killed.

    Returns
    -------
    Completed: exit code, outcome, output and use of resources. An exit code other than 0 is no exception unless check.

    Raises
    ------
    ImageNotFound: no such image. CommandNotFound, CommandNotExecutable: no such program in it.
    UsageError: options that cannot mean anything. LimitError: a limit that cannot be had.
    UnsupportedError: this kernel or user cannot do it; says what to do. StartError: anything else that failed on the
    way. ContainerFailed: with check=True.

    Any number of threads may call it at once. In a coroutine use `pyrtc.aio.run`.
    """
    done = (engine or default_engine()).run(
        image,
        make_options(command, **options),
        input=input,
        max_output=max_output,
        on_limit=on_limit,
        on_output=on_output,
    )
    return done.check() if check else done
