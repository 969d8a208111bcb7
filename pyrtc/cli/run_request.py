"""The way of `pyrtc run`'s words into RunOptions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

from pyrtc import quantities
from pyrtc.cli import host_words, mount_words
from pyrtc.cli.environment import label, label_file, variable, variable_file
from pyrtc.cli.option_table import ArgumentError, Group, Parsed, parse
from pyrtc.cli.run_options import GROUPS, UNAVAILABLE
from pyrtc.cli.security_words import SecurityOptions, capability, sysctl
from pyrtc.errors import UsageError
from pyrtc.options import HealthCheck, LogOptions, NetworkAttachment, Port, RestartPolicy, RunOptions, Share
from pyrtc.runtime.cgroups import Limits

__all__ = ["Request", "read_request"]

T = TypeVar("T")

SHARES: dict[str, Share] = {"private": "private", "host": "host"}
USER_NAMESPACES: dict[str, Literal["host", "auto", "keep-id"]] = {"host": "host", "auto": "auto", "keep-id": "keep-id"}
DRIVERS: dict[str, Literal["overlay", "copy"]] = {"overlay": "overlay", "copy": "copy"}
LOG_DRIVERS: dict[str, Literal["local", "none"]] = {"local": "local", "json-file": "local", "none": "none"}
MAX_LOG_FILES = 1000
RW_LAYERS: dict[str, Literal["disk", "memory"]] = {"disk": "disk", "memory": "memory"}


class Request:
    """One `pyrtc run`, read.

    Parameters
    ----------
    image: its name, id, or `host`.
    options: what is asked of the container.
    plan: print what would be done instead of doing it.
    signal_proxy: pass signals on to the container.
    id_file: where to write the container's id.
    detach: leave it running.
    """

    __slots__ = ("detach", "id_file", "image", "options", "plan", "signal_proxy")

    def __init__(
        self, image: str, options: RunOptions, *, plan: bool, signal_proxy: bool, id_file: str | None, detach: bool
    ) -> None:
        self.image = image
        self.options = options
        self.plan = plan
        self.signal_proxy = signal_proxy
        self.id_file = id_file
        self.detach = detach


def read_request(
    argv: list[str], host_environment: Mapping[str, str], command: str = "run", groups: Sequence[Group] = GROUPS
) -> Request | None:
    """Read the words after `pyrtc run`, or another command with such options; None when help was asked for.

    Raises
    ------
    UsageError: names the option or argument that is wrong.
    """
    parsed = parse(argv, groups, unavailable=UNAVAILABLE)
    if parsed.flag("--help"):
        return None
    if not parsed.arguments:
        raise ArgumentError(f"the image is missing: pyrtc {command} [OPTIONS] IMAGE [COMMAND] [ARGUMENT...]")
    image, *words = parsed.arguments
    if not image:
        raise UsageError("the name of the image is empty")
    return Request(
        image=image,
        options=_run_options(parsed, tuple(words), host_environment),
        plan=parsed.flag("--plan"),
        signal_proxy=parsed.flag("--sig-proxy", default=True),
        id_file=parsed.word("--cidfile") or None,
        detach=parsed.flag("--detach"),
    )


def _run_options(parsed: Parsed, command: tuple[str, ...], host: Mapping[str, str]) -> RunOptions:
    entrypoint = parsed.word("--entrypoint")
    security = SecurityOptions()
    parsed.all("--security-opt", security.add)
    uts = parsed.one("--uts", choice(SHARES)) or "private"
    if uts == "host" and (parsed.word("--hostname") or parsed.word("--domainname")):
        raise UsageError("--uts=host shares the host's name: --hostname and --domainname cannot change it")
    stop_timeout = parsed.one("--stop-timeout", quantities.stop_timeout)
    variables = [
        *(pair for file in parsed.all("--env-file", lambda path: variable_file(path, host)) for pair in file),
        *(pair for pair in parsed.all("--env", lambda word: variable(word, host)) if pair is not None),
    ]
    labels = [
        *(pair for file in parsed.all("--label-file", label_file) for pair in file),
        *parsed.all("--label", label),
    ]
    ports, publish_all = _ports(parsed, "--publish"), parsed.flag("--publish-all")
    network, networks = _networks(parsed, publishes=bool(ports) or publish_all)
    return RunOptions(
        command=command or None,
        entrypoint=None if entrypoint is None else (entrypoint,) if entrypoint else (),
        name=parsed.one("--name", host_words.container_name),
        copy_up=parsed.words("--copy-up"),
        trace=parsed.flag("--trace"),
        remove=parsed.flag("--rm"),
        env=tuple(dict(variables).items()),
        workdir=parsed.one("--workdir", _workdir),
        user=parsed.word("--user") or None,
        group_add=parsed.words("--group-add"),
        hostname=parsed.one("--hostname", host_words.host_name),
        domainname=parsed.one("--domainname", host_words.host_name),
        mounts=(
            *parsed.all("--volume", mount_words.volume),
            *parsed.all("--mount", mount_words.mount),
            *parsed.all("--tmpfs", mount_words.tmpfs),
        ),
        read_only=parsed.flag("--read-only"),
        network=network,
        networks=networks,
        egress=_egress(parsed),
        ports=ports,
        publish_all=publish_all,
        expose=_ports(parsed, "--expose"),
        dns=parsed.all("--dns", host_words.ip_address),
        dns_search=parsed.all("--dns-search", host_words.search_domain),
        dns_option=parsed.words("--dns-option"),
        add_host=parsed.all("--add-host", host_words.extra_host),
        limits=_limits(parsed),
        best_effort=parsed.flag("--best-effort"),
        ulimits=parsed.all("--ulimit", quantities.ulimit),
        shm_size=parsed.one("--shm-size", quantities.size) or 64 << 20,
        oom_score_adj=parsed.one("--oom-score-adj", _oom_score),
        cap_add=parsed.all("--cap-add", capability),
        cap_drop=parsed.all("--cap-drop", capability),
        privileged=parsed.flag("--privileged"),
        seccomp=security.seccomp,
        no_new_privileges=security.no_new_privileges,
        systempaths=security.systempaths,
        mask=security.mask,
        unmask=security.unmask,
        sysctls=parsed.all("--sysctl", sysctl),
        devices=parsed.all("--device", mount_words.device),
        userns=parsed.one("--userns", choice(USER_NAMESPACES)),
        pid=parsed.one("--pid", choice(SHARES)) or "private",
        ipc=parsed.one("--ipc", choice(SHARES)) or "private",
        uts=uts,
        cgroupns=parsed.one("--cgroupns", choice(SHARES)) or "private",
        init=parsed.flag("--init"),
        stop_signal=parsed.one("--stop-signal", quantities.signal_name),
        stop_timeout=10.0 if stop_timeout is None else stop_timeout,
        timeout=parsed.one("--timeout", quantities.duration) or None,
        labels=tuple(dict(labels).items()),
        platform=parsed.one("--platform", host_words.platform),
        tty=parsed.flag("--tty"),
        interactive=parsed.flag("--interactive"),
        driver=parsed.one("--driver", choice(DRIVERS)) or "overlay",
        rw_layer=parsed.one("--rw-layer", choice(RW_LAYERS)),
        restart=parsed.one("--restart", quantities.restart_policy) or RestartPolicy(),
        log=_log(parsed),
        health=_health(parsed),
    )


def _health(parsed: Parsed) -> HealthCheck | None:
    command = parsed.word("--health-cmd")
    times = {
        name: parsed.one(f"--health-{name.replace('_', '-')}", _health_time) or 0.0
        for name in ("interval", "timeout", "start_period", "start_interval")
    }
    retries = parsed.one("--health-retries", _retries) or 0
    asked = bool(command or retries or any(times.values()))
    if parsed.flag("--no-healthcheck"):
        if asked:
            raise UsageError("--no-healthcheck conflicts with --health-* options")
        return HealthCheck(("NONE",))
    return HealthCheck(("CMD-SHELL", command) if command else (), retries=retries, **times) if asked else None


def _health_time(word: str) -> float:
    seconds = quantities.duration(word)
    if 0 < seconds < 0.001:
        raise UsageError("less than 1ms")
    return seconds


def _retries(word: str) -> int:
    number = quantities.integer(word)
    if not 0 <= number < 1 << 31:
        raise UsageError("it is a number of failures, 0 for the default")
    return number


def _log(parsed: Parsed) -> LogOptions:
    """Read where the output goes; `json-file`, Docker's default, means what is kept here."""
    driver = parsed.one("--log-driver", choice(LOG_DRIVERS)) or "local"
    sizes: dict[str, int] = {}
    for key, value in parsed.all("--log-opt", _log_option):
        sizes[key] = value
    if driver == "none" and sizes:
        raise UsageError("--log-driver none keeps nothing: --log-opt has no meaning then")
    return LogOptions(driver, **sizes)


def _log_option(word: str) -> tuple[str, int]:
    key, equals, value = word.partition("=")
    if key == "max-size" and equals:
        size = -1 if value == "-1" else quantities.size(value)
        if size == 0:
            raise UsageError("the size must be positive; -1 stands for unlimited")
        return "max_size", max(size, 0)
    if key == "max-file" and equals:
        count = quantities.integer(value)
        if not 1 <= count <= MAX_LOG_FILES:
            raise UsageError(f"the number of log files is from 1 to {MAX_LOG_FILES}")
        return "max_files", count
    raise UsageError("write max-size=SIZE or max-file=NUMBER")


def _limits(parsed: Parsed) -> Limits:
    return Limits(
        memory=parsed.one("--memory", quantities.limit_size),
        memory_swap=parsed.one("--memory-swap", quantities.swap_size),
        memory_reservation=parsed.one("--memory-reservation", quantities.limit_size),
        cpus=parsed.one("--cpus", quantities.cpus),
        cpu_shares=parsed.one("--cpu-shares", quantities.whole),
        cpuset_cpus=parsed.word("--cpuset-cpus") or None,
        cpuset_mems=parsed.word("--cpuset-mems") or None,
        pids=parsed.one("--pids-limit", quantities.whole),
        blkio_weight=parsed.one("--blkio-weight", quantities.whole),
        device_read_bps=parsed.all("--device-read-bps", quantities.device_rate),
        device_write_bps=parsed.all("--device-write-bps", quantities.device_rate),
        device_read_iops=parsed.all("--device-read-iops", quantities.device_count),
        device_write_iops=parsed.all("--device-write-iops", quantities.device_count),
        network_in=parsed.one("--network-rate-in", quantities.network_rate),
        network_out=parsed.one("--network-rate-out", quantities.network_rate),
    )


def choice(values: Mapping[str, T]) -> Callable[[str], T]:
    """Return a reader of one of these words."""

    def read(word: str) -> T:
        if word not in values:
            raise UsageError(f"this version knows {' and '.join(values)}")
        return values[word]

    return read


def _egress(parsed: Parsed) -> tuple[str, ...] | None:
    if not parsed.words("--egress"):
        return None
    from pyrtc.egress_words import egress

    return tuple(dict.fromkeys(item for items in parsed.all("--egress", egress) for item in items))


def _networks(parsed: Parsed, *, publishes: bool) -> tuple[str, tuple[NetworkAttachment, ...]]:
    words = parsed.words("--network")
    details = (parsed.word("--ip"), parsed.word("--ip6"), parsed.word("--mac-address"), parsed.words("--network-alias"))
    if not publishes and not any(details) and words in ((), ("none",), ("host",)):
        return (words[0] if words else "none"), ()
    from pyrtc.network_words import attachment, decide_networks, with_details

    asked = list(parsed.all("--network", attachment))
    if any(details):
        if not asked:
            raise UsageError(
                "--ip, --ip6, --mac-address and --network-alias are about a network: name it with --network"
            )
        asked[0] = with_details(asked[0], *details)
    return decide_networks(asked, publishes=publishes)


def _ports(parsed: Parsed, option: str) -> tuple[Port, ...]:
    if not parsed.words(option):
        return ()
    from pyrtc.port_words import exposed, published

    found = parsed.all(option, published if option == "--publish" else exposed)
    return tuple(dict.fromkeys(port for ports in found for port in ports))


def _workdir(word: str) -> str | None:
    if word and not word.startswith("/"):
        raise UsageError("the working directory needs to be an absolute path")
    return word or None


def _oom_score(word: str) -> int:
    score = quantities.integer(word)
    if not -1000 <= score <= 1000:
        raise UsageError("it is from -1000 to 1000")
    return score
