"""What a caller asks of one container: decided Python values, before image and machine have their say.

The command line parses words into these, `pyrtc.run()` its keyword arguments; `runtime.spec` merges them with the
image's config into a Spec.
"""

from typing import Literal

from pyrtc.runtime.cgroups import Limits
from pyrtc.values import dataclass, field

__all__ = [
    "Bind",
    "Device",
    "ExecOptions",
    "HealthCheck",
    "LogOptions",
    "Mount",
    "NetworkAttachment",
    "Port",
    "RestartPolicy",
    "RunOptions",
    "Tmpfs",
    "Ulimit",
    "Volume",
]

Share = Literal["private", "host"]


@dataclass(frozen=True, slots=True)
class Bind:
    """A directory or file of the host (`-v /src:/dst[:ro]`, `--mount type=bind`).

    source: absolute path on the host. recursive: with the mounts below it. create: make a missing source directory, as
    `-v` does and `--mount` does not. propagation is always private: a mount inside never reaches the host.
    idmap: for root. With userns="auto" files keep their owners' numbers inside the user namespace. Without one the
    owner of the source is the container's root: what that makes there belongs to the owner on the host, what the owner
    has belongs to root inside; what belongs to the host's root belongs to nobody inside; other ids stay what they are.
    """

    source: str
    target: str
    read_only: bool = False
    recursive: bool = True
    create: bool = False
    idmap: bool = False


@dataclass(frozen=True, slots=True)
class Volume:
    """A named volume (`-v name:/dst`); name "" makes an anonymous one that goes with the container.

    copy: fill an empty volume from what the image holds at target.
    """

    name: str
    target: str
    read_only: bool = False
    copy: bool = True


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """Memory as a file system (`--tmpfs /dst:size=64m,mode=1777`). size: bytes, None for half of the memory."""

    target: str
    size: int | None = None
    mode: int = 0o1777
    read_only: bool = False
    exec: bool = False


Mount = Bind | Volume | Tmpfs


@dataclass(frozen=True, slots=True)
class Device:
    """A device node of the host (`--device /dev/x:/dev/y:rwm`)."""

    source: str
    target: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class NetworkAttachment:
    """A network that a container is attached to (`--network web`, `--network name=web,ip=172.18.0.9,alias=db`).

    network: its name or id. ip, ip6: the container's addresses there, "" for any free one. mac: of its device, "" for a
    random one. aliases: names that containers of that network find it by, beside its own.
    """

    network: str
    ip: str = ""
    ip6: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a container, and the port of the host that leads to it (`-p 127.0.0.1:8080:80/tcp`).

    container: in the container. host: on the host, 0 for any free one. host_last: any one that is free from host to
    this, 0 for host alone. ip: address of the host, "" for all of them, IPv4 and IPv6.
    """

    container: int
    protocol: str = "tcp"
    host: int = 0
    ip: str = ""
    host_last: int = 0


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A resource limit (`--ulimit nofile=1024:2048`); -1 is unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a detached container is started again after its end (`--restart on-failure:3`).

    name: ``no``, ``on-failure``: when it failed; ``always``; ``unless-stopped``: always, and after a reboot unless it
    had been stopped before. One that somebody stopped stays stopped. retries: of on-failure at most this many in a row,
    0 for any number.
    """

    name: Literal["no", "on-failure", "always", "unless-stopped"] = "no"
    retries: int = 0


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Where the output of a detached container goes (`--log-driver`, `--log-opt max-size=1m`).

    driver: ``local`` keeps it in the store, ``none`` drops it. max_size: bytes of one file, then the next is begun;
    0: it grows. max_files: how many are kept.
    """

    driver: Literal["local", "none"] = "local"
    max_size: int = 10 << 20
    max_files: int = 3


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A command that tells whether a detached container is well, executed in it by its monitor (`--health-cmd`).

    test: ``("CMD", program, argument...)``, ``("CMD-SHELL", line)`` for the image's shell, or ``("NONE",)``: do not
    check, whatever the image says. () and 0 mean: what the image says, else Docker's 30 s between checks, a timeout of
    30 s, no start period, 5 s between checks in it, and 3 failures in a row until it counts as unhealthy. Times are
    seconds. While the start period lasts and nothing has succeeded yet, failures do not count.
    """

    test: tuple[str, ...] = ()
    interval: float = 0.0
    timeout: float = 0.0
    start_period: float = 0.0
    start_interval: float = 0.0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Everything that can be said about one container; the defaults are Docker's, or stricter.

    Sizes are bytes, times seconds. None means: what the image says, else pyrtc's default.
    """

    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None  # () clears the image's
    name: str | None = None
    remove: bool = True
    env: tuple[tuple[str, str], ...] = ()
    workdir: str | None = None
    user: str | None = None
    group_add: tuple[str, ...] = ()
    hostname: str | None = None
    domainname: str | None = None
    mounts: tuple[Mount, ...] = ()
    read_only: bool = False
    network: str = "none"  # "none", "host", "container:NAME"; else the name of the first of networks
    networks: tuple[NetworkAttachment, ...] = ()  # the first that leads outside is where the default route goes
    ports: tuple[Port, ...] = ()
    publish_all: bool = False  # what the image exposes, and expose, on any free ports of the host
    expose: tuple[Port, ...] = ()
    egress: tuple[str, ...] | None = None  # subnets, names, "local": all it connects to; (): nothing; None: everything
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_option: tuple[str, ...] = ()
    add_host: tuple[tuple[str, str], ...] = ()  # (name, address or host-gateway)
    limits: Limits = field(default_factory=Limits)
    best_effort: bool = False
    accounting: bool = False  # count memory and processes also where no limit needs it
    copy_up: tuple[str, ...] = ()  # files and trees of the image that are in the R/W layer before the command runs
    trace: bool = False  # tell where the time of the start goes: `Completed.trace`
    ulimits: tuple[Ulimit, ...] = ()
    shm_size: int = 64 << 20
    oom_score_adj: int | None = None
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    seccomp: str | None = None  # None: the default profile; "unconfined"; else the path of a profile
    no_new_privileges: bool = True
    systempaths: Literal["masked", "unconfined"] = "masked"
    mask: tuple[str, ...] = ()
    unmask: tuple[str, ...] = ()  # paths, or "ALL"
    sysctls: tuple[tuple[str, str], ...] = ()
    devices: tuple[Device, ...] = ()
    userns: Literal["host", "auto", "keep-id"] | None = None
    pid: Share = "private"
    ipc: Share = "private"
    uts: Share = "private"
    cgroupns: Share = "private"
    init: bool = False
    stop_signal: str | None = None
    stop_timeout: float = 10.0
    timeout: float | None = None
    labels: tuple[tuple[str, str], ...] = ()
    platform: str | None = None
    tty: bool = False
    interactive: bool = False
    driver: Literal["overlay", "copy"] = "overlay"
    rw_layer: Literal["disk", "memory"] | None = None  # where what the container writes is kept; None: see runtime.spec
    restart: RestartPolicy = field(default_factory=RestartPolicy)  # of a detached container
    log: LogOptions = field(default_factory=LogOptions)  # of a detached container
    health: HealthCheck | None = None  # of a detached container


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecOptions:
    """What can be asked of one more process in a container; what is not said is as the container was made.

    privileged: every capability. detached: nobody waits for it, and it outlives its caller.
    """

    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    workdir: str | None = None
    user: str | None = None
    privileged: bool = False
    tty: bool = False
    detached: bool = False
