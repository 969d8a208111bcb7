"""Everything decided about one container: the image's config and the caller's options merged into a Spec.

Nothing here changes anything. What is read besides: the image's passwd and group files for names of users, the host's
/etc/hosts and resolv.conf where its network is used, and what this process has in /proc. A Spec can be printed and
compared; `runtime.assembly` turns it into the plan for pyrtc-init.
"""

import os
import posixpath
from collections.abc import Sequence
from functools import cache, lru_cache

from pyrtc.errors import UsageError
from pyrtc.ids import IdMaps
from pyrtc.image.config import ImageConfig
from pyrtc.options import ExecOptions, Mount, RunOptions, Tmpfs, Volume
from pyrtc.quantities import signal_number
from pyrtc.runtime import capabilities, namespaces
from pyrtc.runtime.etc_files import Names, PrivateFile, one_word, private_files
from pyrtc.runtime.kernel_settings import decide_oom_score, decide_sysctls, decide_ulimit
from pyrtc.runtime.system import READ_ONLY, masked_paths
from pyrtc.runtime.users import Identity, identify
from pyrtc.values import dataclass, replace

__all__ = [
    "DEFAULT_PATH",
    "Spec",
    "command_of",
    "configured_user",
    "container_bounding",
    "decide",
    "decide_exec",
    "host_config",
    "mount_target",
]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What lxcfs and its like put there; anything else below /proc would decide what the engine itself reads and writes.
_PROC_FILES = frozenset(
    f"/proc/{name}" for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One container, decided. Sizes are bytes; paths are absolute, inside the container unless they say source."""

    argv: tuple[str, ...]
    env: tuple[str, ...]
    workdir: str
    identity: Identity
    hostname: str | None
    domainname: str | None
    clone_flags: int
    late_flags: int
    id_maps: IdMaps | None
    mounts: tuple[Mount, ...]
    files: tuple[PrivateFile, ...]
    masked: tuple[str, ...]
    read_only_paths: tuple[str, ...]
    read_only_root: bool
    copy_up: tuple[str, ...]
    shm_size: int
    privileged: bool
    sysctls: tuple[tuple[str, str], ...]
    bounding: int
    effective: int
    seccomp: str | None
    no_new_privileges: bool
    ulimits: tuple[tuple[str, int, int, int], ...]  # name, number, soft, hard
    oom_score_adj: int | None
    terminal: bool
    reaper: bool
    stop_signal: int

    @property
    def own_network(self) -> bool:
        """Whether the container has a network namespace of its own."""
        return bool(self.clone_flags & namespaces.CLONE_NEWNET)

    @property
    def own_pids(self) -> bool:
        """Whether the container has a pid namespace of its own."""
        return bool(self.clone_flags & namespaces.CLONE_NEWPID)

    @property
    def own_ipc(self) -> bool:
        """Whether the container has an IPC namespace of its own."""
        return bool(self.clone_flags & namespaces.CLONE_NEWIPC)


def decide(
    container_id: str,
    config: ImageConfig,
    layers: tuple[str, ...],
    options: RunOptions,
    id_maps: IdMaps | None,
    names: Names | None = None,
) -> Spec:
    """Merge what the image says and what the caller asks.

    Parameters
    ----------
    layers: directories of the image, top first, for names of users.
    id_maps: the user namespace, None for the host's. names: what its network says, None where it is not known yet, or
    says nothing.

    Raises
    ------
    UsageError: options that contradict each other or the image.
    StartError: a user or group that the image does not know.
    """
    common = _decide_common(config, layers, options, id_maps)
    hostname, domainname = _hostname(container_id, options), common.domainname
    if names is not None and names.files is not None and options.uts != "host":
        hostname, domainname = names.hostname, names.domainname
    return replace(
        common,
        hostname=hostname,
        domainname=domainname,
        env=_with_hostname(common.env, hostname),
        files=private_files(options, hostname, {mount_target(mount.target) for mount in options.mounts}, names),
    )


@lru_cache(maxsize=128)
def _decide_common(config: ImageConfig, layers: tuple[str, ...], options: RunOptions, id_maps: IdMaps | None) -> Spec:
    """Decide what is the same for every container with these options: a judge starts thousands of them."""
    return _decide_for(identify(configured_user(config, options), options.group_add, layers), config, options, id_maps)


def decide_exec(
    container_id: str,
    config: ImageConfig,
    options: RunOptions,
    asked: ExecOptions,
    identity: Identity,
    id_maps: IdMaps | None,
) -> Spec:
    """Merge what is asked of one more process in a container with what the container was made with.

    Parameters
    ----------
    config, options: the container's. identity: whom `asked` names, in the container as it is now. id_maps: the user
    namespace that it is in, None for the caller's.

    Raises
    ------
    UsageError: there is no command, or something that cannot be meant. UnsupportedError: privileged is out of reach.
    """
    if not asked.command:
        raise UsageError("no command specified: say what is to be executed in the container")
    wanted = replace(
        options,
        entrypoint=(),
        command=asked.command,
        env=(*options.env, *asked.env),
        workdir=asked.workdir or options.workdir,
        tty=asked.tty,
    )
    spec = _decide_for(identity, config, wanted, id_maps)
    if asked.privileged:
        everything = capabilities.resolve(privileged=True, user_namespace=id_maps is not None)
        spec = replace(spec, bounding=everything, effective=everything if identity.uid == 0 else 0)
    return replace(spec, env=_with_hostname(spec.env, _hostname(container_id, options)))


def container_bounding(options: RunOptions, id_maps: IdMaps | None) -> int:
    """Return the capabilities within reach of a container, as a bit mask."""
    # With raw sockets it would send past the rules that say where it may connect to.
    drop = options.cap_drop if options.egress is None else (*options.cap_drop, "NET_RAW")
    return capabilities.resolve(
        options.cap_add, drop, privileged=options.privileged, user_namespace=id_maps is not None
    )


def steers_network(options: RunOptions, *, user_namespace: bool) -> bool:
    """Whether what runs in a container may change its network devices and what filters its packets."""
    bounding = capabilities.resolve(
        options.cap_add, options.cap_drop, privileged=options.privileged, user_namespace=user_namespace
    )
    return bool(bounding & 1 << capabilities.NAMES.index("CAP_NET_ADMIN"))


def _decide_for(identity: Identity, config: ImageConfig, options: RunOptions, id_maps: IdMaps | None) -> Spec:
    _check_mapped(identity, id_maps)
    rates = options.limits.network_in is not None or options.limits.network_out is not None
    restricted = rates or options.egress is not None
    if options.network not in ("none", "host") or options.ports or options.publish_all or restricted:
        from pyrtc.network_words import check_networks

        check_networks(options)
    bounding = container_bounding(options, id_maps)
    own_net, own_ipc = _own_network(options), options.ipc != "host"
    return Spec(
        argv=command_of(config, options),
        env=_environment(config, options, identity),
        workdir=_absolute(options.workdir or config.workdir or "/", "the working directory"),
        identity=identity,
        hostname=None,
        domainname=None if options.domainname is None else _kernel_name(options.domainname, "domain name"),
        clone_flags=_clone_flags(options, id_maps),
        late_flags=_late_flags(options),
        id_maps=id_maps,
        mounts=_mounts(config, options),
        files=(),
        masked=_masked(options),
        read_only_paths=_read_only(options),
        read_only_root=options.read_only,
        copy_up=_copy_up(options),
        shm_size=_at_least_one(options.shm_size, "the size of /dev/shm"),
        privileged=options.privileged,
        sysctls=decide_sysctls(options, own_net=own_net, own_ipc=own_ipc, user_namespace=id_maps is not None),
        bounding=bounding,
        effective=bounding if identity.uid == 0 else 0,
        seccomp="unconfined" if options.privileged and options.seccomp is None else options.seccomp,
        no_new_privileges=options.no_new_privileges and not options.privileged,
        ulimits=tuple(decide_ulimit(limit.name, limit.soft, limit.hard) for limit in options.ulimits),
        oom_score_adj=decide_oom_score(options.oom_score_adj),
        terminal=options.tty,
        reaper=options.init,
        stop_signal=_signal(options.stop_signal or config.stop_signal or "SIGTERM"),
    )


def configured_user(config: ImageConfig, options: RunOptions) -> str | None:
    """Return the user that a container runs as, in words.

    With keep-id the caller, whatever the image says: to be oneself is what it is for.
    """
    if options.user is not None:
        return options.user
    return f"{os.geteuid()}:{os.getegid()}" if options.userns == "keep-id" else config.user


def command_of(config: ImageConfig, options: RunOptions) -> tuple[str, ...]:
    """Docker's rule: a new entrypoint drops the image's command; a new command keeps the image's entrypoint."""
    entrypoint = options.entrypoint if options.entrypoint is not None else config.entrypoint or ()
    command = options.command
    if command is None or command == ():
        command = () if options.entrypoint is not None else config.cmd or ()
    argv = (*entrypoint, *command)
    if not argv:
        raise UsageError("no command specified: the image names none, so one must be given")
    for word in argv:
        _no_nul(word, "the command")
    return argv


def _no_nul(text: str, what: str) -> str:
    if "\0" in text:
        raise UsageError(f"{what} holds a NUL byte")
    return text


def _environment(config: ImageConfig, options: RunOptions, identity: Identity) -> tuple[str, ...]:
    """The image's variables and the caller's over a few defaults; nothing of the host's own environment."""
    merged = {"PATH": DEFAULT_PATH}
    if options.tty:
        merged["TERM"] = "xterm"
    merged.update(config.env)
    for name, value in options.env:
        if not name or "=" in name:
            raise UsageError(f"invalid environment variable name: {name!r}")
        merged[name] = value
    merged.setdefault("HOME", identity.home)
    return tuple(_no_nul(f"{name}={value}", "the environment") for name, value in merged.items())


def _with_hostname(env: tuple[str, ...], hostname: str | None) -> tuple[str, ...]:
    """HOSTNAME is a default like the others: an image or a caller that sets it goes first."""
    if hostname is None or any(entry.startswith("HOSTNAME=") for entry in env):
        return env
    return (*env, f"HOSTNAME={hostname}")


def _absolute(path: str, what: str) -> str:
    _no_nul(path, what)
    if not path.startswith("/"):
        raise UsageError(f"{what} {path!r} must be an absolute path")
    return posixpath.normpath("/" + path.lstrip("/"))


def _hostname(container_id: str, options: RunOptions) -> str | None:
    if options.uts == "host":
        if options.hostname or options.domainname:
            raise UsageError("--hostname and --domainname cannot be set with --uts host: the name is the host's")
        return None
    return _kernel_name(options.hostname or container_id[:12], "hostname")


def _kernel_name(name: str, what: str) -> str:
    """A word of at most 64 bytes, as uname(2) holds; the hostname is also written to /etc/hosts."""
    if len(os.fsencode(name)) > 64:
        raise UsageError(f"{what} {name!r} is longer than 64 bytes")
    return one_word(name, what)


def _check_mapped(identity: Identity, id_maps: IdMaps | None) -> None:
    """With one id the kernel lets nobody set groups: the image's are left out then, one that was asked for is not."""
    if id_maps is None:
        return
    groups = identity.added if id_maps.single else identity.groups
    stranger = next((gid for gid in groups if not id_maps.has_gid(gid)), None)
    if not (id_maps.has_uid(identity.uid) and id_maps.has_gid(identity.gid)):
        text = f"user {identity.uid}:{identity.gid} is not mapped in this user namespace"
    elif stranger is not None:
        text = f"group {stranger} is not mapped in this user namespace"
    else:
        return
    if id_maps.single:
        raise UsageError(
            f"{text}, which has one id: an ordinary user needs a range in /etc/subuid and /etc/subgid for more, and "
            "the programs newuidmap and newgidmap"
        )
    counts = [sum(part.count for part in parts) for parts in (id_maps.uids, id_maps.gids)]
    raise UsageError(f"{text}, which has {counts[0]} user and {counts[1]} group ids; see /etc/subuid and /etc/subgid")


def _clone_flags(options: RunOptions, id_maps: IdMaps | None) -> int:
    flags = namespaces.CLONE_NEWNS
    if options.uts != "host":
        flags |= namespaces.CLONE_NEWUTS
    if options.ipc != "host":
        flags |= namespaces.CLONE_NEWIPC
    if options.pid != "host":
        flags |= namespaces.CLONE_NEWPID
    if _own_network(options):
        flags |= namespaces.CLONE_NEWNET
    if id_maps is not None:
        flags |= namespaces.CLONE_NEWUSER
    return flags


def _own_network(options: RunOptions) -> bool:
    return options.network != "host" and not options.network.startswith("container:")


def _late_flags(options: RunOptions) -> int:
    return _time_namespace() | (namespaces.CLONE_NEWCGROUP if options.cgroupns != "host" else 0)


@cache
def _time_namespace() -> int:
    """Its own clocks, which stand where the host's do, so that nobody else's can be set: where the kernel has them."""
    return namespaces.CLONE_NEWTIME if os.path.exists("/proc/self/ns/time") else 0


def _mounts(config: ImageConfig, options: RunOptions) -> tuple[Mount, ...]:
    """The caller's mounts and the image's anonymous volumes, outer ones first."""
    by_target: dict[str, Mount] = {}
    for target in config.volumes:
        path = mount_target(target, "a volume of the image")
        by_target[path] = Volume("", path)
    asked: set[str] = set()
    for mount in options.mounts:
        target = mount_target(mount.target)
        if target in asked:
            raise UsageError(f"duplicate mount point: {target}")
        asked.add(target)
        if isinstance(mount, Tmpfs):
            _check_tmpfs(mount, target)
        by_target[target] = mount if mount.target == target else replace(mount, target=target)
    return tuple(mount for _, mount in sorted(by_target.items(), key=lambda item: item[0].count("/")))


def _check_tmpfs(mount: Tmpfs, target: str) -> None:
    if mount.size is not None:
        _at_least_one(mount.size, f"the tmpfs on {target}")
    if not 0 <= mount.mode <= 0o7777:
        raise UsageError(f"the tmpfs on {target}: {mount.mode:#o} is not a mode")


def mount_target(path: str, what: str = "a mount's target") -> str:
    """Return the target of a mount or volume in its one form: absolute, without dots and double slashes.

    Raises
    ------
    UsageError: it is relative, the root itself, or in /proc.
    """
    target = _absolute(path, what)
    if target == "/":
        raise UsageError(f"{what} cannot be /, the root file system itself")
    if target == "/proc" or (target.startswith("/proc/") and target not in _PROC_FILES):
        raise UsageError(f"{what}: {target} cannot be mounted over: what is in /proc is the kernel's word")
    return target


def _masked(options: RunOptions) -> tuple[str, ...]:
    default: Sequence[str] = () if options.privileged or options.systempaths == "unconfined" else masked_paths()
    kept = [path for path in default if not _unmasked(path, options.unmask)]
    return (*kept, *(_absolute(path, "--security-opt mask") for path in options.mask))


def _copy_up(options: RunOptions) -> tuple[str, ...]:
    if options.copy_up and options.read_only:
        raise UsageError("--copy-up and --read-only contradict each other: nothing of this root can be written to")
    return tuple(_absolute(path, "--copy-up") for path in options.copy_up)


def _read_only(options: RunOptions) -> tuple[str, ...]:
    if options.privileged or options.systempaths == "unconfined":
        return ()
    return tuple(path for path in READ_ONLY if not _unmasked(path, options.unmask))


def _unmasked(path: str, unmask: Sequence[str]) -> bool:
    for word in unmask:
        if not word.startswith("/") and word.upper() != "ALL":
            raise UsageError(f"--security-opt unmask {word!r} is neither an absolute path nor ALL")
    return any(word.upper() == "ALL" or path == word or path.startswith(word.rstrip("/") + "/") for word in unmask)


def _at_least_one(size: int, what: str) -> int:
    """For tmpfs 0 is no limit at all."""
    if size < 1:
        raise UsageError(f"{what} cannot be {size} bytes")
    return size


def _signal(word: str) -> int:
    try:
        return signal_number(word)
    except UsageError as error:
        raise UsageError(f"stop signal {word!r}: {error}") from None


def host_config() -> ImageConfig:
    """Return the config of the pseudo-image `host`: the running system, started as a shell."""
    return ImageConfig(env=(("PATH", DEFAULT_PATH),), cmd=("/bin/sh",))
