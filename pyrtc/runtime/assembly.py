"""From a Spec to the plan that pyrtc-init executes: the order of the operations is the order of privilege.

First everything that needs rights over the new namespaces, then the pivot, then rights go one after the other, and the
system call filter is the last thing before the command.
"""

import os
import struct
from collections.abc import Sequence
from functools import lru_cache

from pyrtc._core import lib
from pyrtc.options import Device, Tmpfs
from pyrtc.runtime.host_root import Beneath, Bound, Link, Made, Overlaid, Part, can_make
from pyrtc.runtime.namespaces import NODEV, NOEXEC, NOSUID, RDONLY
from pyrtc.runtime.plan import Plan
from pyrtc.runtime.spec import Spec
from pyrtc.runtime.system import bind_host, device_operation, system_mounts
from pyrtc.runtime.users import Identity
from pyrtc.values import dataclass

__all__ = ["BoundMount", "DirectoryRoot", "MountRoot", "OverlayRoot", "Resources", "assemble"]


@dataclass(frozen=True, slots=True)
class OverlayRoot:
    """Layers (top first) under a R/W directory, mounted inside the container's mount namespace.

    upper, work: directories of the host, or None for memory; then mode, uid and gid are those of / and size limits it.
    """

    layers: tuple[str, ...]
    upper: str | None
    work: str | None
    volatile: bool
    userxattr: bool
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size: int | None = None


@dataclass(frozen=True, slots=True)
class DirectoryRoot:
    """A directory of the host that is the root, for this container alone."""

    path: str


@dataclass(frozen=True, slots=True)
class MountRoot:
    """A detached mount, made by the caller; the descriptor stays the caller's."""

    fd: int


@dataclass(frozen=True, slots=True)
class HostRoot:
    """The running system as an ordinary user can show it, put together in an empty directory.

    upper: a directory of the host that takes what is written, None for memory; work: a directory of it per overlay.
    """

    parts: tuple[Part, ...]
    upper: str | None
    work: str | None
    volatile: bool


Root = OverlayRoot | DirectoryRoot | MountRoot | HostRoot


@dataclass(frozen=True, slots=True)
class BoundMount:
    """A bind or volume whose source is known: a path with its device and inode, or a detached mount."""

    target: str
    read_only: bool
    recursive: bool
    path: str = ""
    device: int = 0
    inode: int = 0
    fd: int | None = None
    devices: bool = False  # nodes in it are devices


@dataclass(frozen=True, slots=True)
class Resources:
    """What was opened and found for one start."""

    root: Root
    beneath: Beneath | None = None  # what the host has mounted below the root, when that is the host's
    hidden: tuple[str, ...] = ()
    mounts: tuple[BoundMount | Tmpfs, ...] = ()
    tasks_fds: Sequence[int] = ()
    cgroup_mounts: tuple[tuple[str, str], ...] = ()
    devices: tuple[Device, ...] = ()
    seccomp: bytes | None = None
    network_fd: int | None = None  # a network namespace that was made ahead
    terminal_size: tuple[int, int] = (0, 0)


def assemble(spec: Spec, resources: Resources, stdio: Sequence[int]) -> Plan:
    """Return the plan of a container. stdio: descriptors for 0, 1 and 2; -1 leaves them to the terminal."""
    plan = Plan(stdio)
    _enter(plan, spec, resources)
    _root(plan, spec, resources.root)
    if resources.beneath is not None:
        _beneath(plan, resources.root, resources.beneath)
    for path in spec.copy_up:
        plan.add(lib.PLAN_COPY_UP, path)
    for path in resources.hidden:
        plan.add(lib.PLAN_MASK, path)
    _system(plan, spec, resources)
    _settings(plan, spec, resources)
    above = _above_files(spec, resources)
    for mount in resources.mounts[:above]:
        _mount(plan, mount)
    for file in spec.files:
        # What is mounted above it has the place for it, or is given one.
        if not above and isinstance(resources.root, HostRoot) and not can_make(file.target, resources.root.parts):
            continue
        plan.add(lib.PLAN_FILE, file.target, mode=file.mode, blob=file.content)
    for mount in resources.mounts[above:]:
        _mount(plan, mount)
    if spec.workdir != "/":
        uid, gid = (0, 0) if spec.id_maps is None else (spec.id_maps.init_uid, spec.id_maps.init_gid)
        plan.add(lib.PLAN_MKDIR, spec.workdir, a=uid, b=gid)
    if spec.terminal:
        rows, columns = resources.terminal_size
        plan.add(lib.PLAN_TERMINAL, a=rows, b=columns)
    plan.add(lib.PLAN_ENTRUSTED)
    if spec.read_only_root:
        for path in _mounts_of_root(resources):
            plan.add(lib.PLAN_ROOT_READONLY, path)
    plan.operations += _confined(
        spec.masked,
        spec.read_only_paths,
        spec.read_only_root,
        spec.ulimits,
        spec.workdir,
        spec.identity,
        spec.id_maps is not None and spec.id_maps.single,
        spec.bounding,
        spec.effective,
        spec.no_new_privileges,
        resources.seccomp,
    )
    if spec.reaper:
        plan.add(lib.PLAN_REAPER)
    plan.add(lib.PLAN_EXEC, *spec.argv, *spec.env, a=len(spec.argv))
    return plan


def _above_files(spec: Spec, resources: Resources) -> int:
    """Return how many of the caller's mounts come before the container's files: up to the last that would hide them.

    As in Docker a volume at /etc does not take the container's names and resolvers away.
    """
    return max(
        (
            place
            for place, mount in enumerate(resources.mounts, 1)
            if any(file.target.startswith(f"{mount.target}/") for file in spec.files)
        ),
        default=0,
    )


def _enter(plan: Plan, spec: Spec, resources: Resources) -> None:
    plan.add(lib.PLAN_DEATH_SIGNAL)
    for fd in resources.tasks_fds:
        plan.add(lib.PLAN_TASKS, fd=fd)
    if spec.id_maps is not None:
        plan.add(lib.PLAN_AWAIT_MAPS, a=spec.id_maps.init_uid, b=spec.id_maps.init_gid)
    if resources.network_fd is not None:
        plan.add(lib.PLAN_NETWORK, fd=resources.network_fd)
    plan.add(lib.PLAN_UNSHARE, a=spec.late_flags)
    plan.add(lib.PLAN_KEYRING)


def _root(plan: Plan, spec: Spec, root: Root) -> None:
    devices = lib.PLAN_DEVICES if spec.privileged and spec.id_maps is None else 0
    if isinstance(root, MountRoot):
        plan.add(lib.PLAN_ROOT_SLOT, fd=root.fd)
    elif isinstance(root, DirectoryRoot):
        plan.add(lib.PLAN_ROOT_BIND, root.path, flags=devices)
    elif isinstance(root, HostRoot):
        _host_root(plan, spec, root)
    else:
        flags = devices | (lib.PLAN_VOLATILE if root.volatile else 0) | (lib.PLAN_USERXATTR if root.userxattr else 0)
        if root.upper is not None and root.work is not None:
            plan.add(lib.PLAN_ROOT_OVERLAY, root.upper, root.work, *root.layers, flags=flags)
        else:
            plan.add(
                lib.PLAN_ROOT_OVERLAY,
                "upper",
                "work",
                *root.layers,
                flags=flags | lib.PLAN_UPPER_TMPFS,
                mode=root.mode,
                a=root.uid,
                b=root.gid,
                blob=b"" if root.size is None else b"%d\0" % root.size,
            )


def _host_root(plan: Plan, spec: Spec, root: HostRoot) -> None:
    """Directories are made in the R/W layer before an overlay is mounted over it, so that they are part of both."""
    assert spec.id_maps is not None
    uid, gid = spec.id_maps.init_uid, spec.id_maps.init_gid
    flags = lib.PLAN_USERXATTR | (lib.PLAN_VOLATILE if root.volatile else 0)
    if root.upper is None:
        plan.add(lib.PLAN_ROOT_TMPFS, mode=0o755)
        flags |= lib.PLAN_UPPER_TMPFS
    else:
        plan.add(lib.PLAN_ROOT_BIND, root.upper, "")
    overlays = 0
    for part in root.parts:
        if isinstance(part, Made):
            plan.add(lib.PLAN_MKDIR, part.path, mode=part.mode, a=uid, b=gid)
        elif isinstance(part, Link):
            plan.add(lib.PLAN_SYMLINK, part.value, part.path)
        elif isinstance(part, Bound):
            _show(plan, part)
        else:
            upper = f"{root.upper or 'upper'}{part.path}"
            work = f"{root.work}/{overlays}" if root.work else f"work{overlays}"
            plan.add(lib.PLAN_OVERLAY, part.path, upper, work, part.path, flags=flags, mode=part.mode)
            overlays += 1
    plan.add(lib.PLAN_MKDIR, "/tmp", mode=0o1777, a=uid, b=gid)  # noqa: S108
    plan.add(lib.PLAN_MOUNT, "tmpfs", "/run", "mode=0755", mode=NOSUID | NODEV)


def _show(plan: Plan, part: Bound) -> None:
    device = os.major(part.device) << 32 | os.minor(part.device)
    flags = lib.PLAN_RECURSIVE | lib.PLAN_NO_LINKS
    plan.add(lib.PLAN_BIND, part.path, part.path, mode=NODEV | RDONLY, flags=flags, a=device, b=part.inode)


def _beneath(plan: Plan, root: Root, beneath: Beneath) -> None:
    """The host's file systems below "/"; /run and, where the R/W layer is memory, /tmp are new and empty."""
    memory = not isinstance(root, OverlayRoot) or root.upper is None
    for path, fd in beneath.cloned:
        flags = lib.PLAN_RECURSIVE | lib.PLAN_NO_LINKS
        plan.add(lib.PLAN_BIND_SLOT, path, fd=fd, mode=NODEV | RDONLY, flags=flags)
    for number, part in enumerate(beneath.overlaid):
        assert isinstance(root, OverlayRoot)
        if root.upper is None:
            places, flags = (f"upper{number}", f"work{number}"), lib.PLAN_VOLATILE | lib.PLAN_UPPER_TMPFS
        else:
            directory = f"{root.upper.removesuffix('/upper')}/beneath{number}"
            places, flags = (f"{directory}/upper", f"{directory}/work"), lib.PLAN_VOLATILE if root.volatile else 0
        operands = {"flags": flags, "mode": part.mode, "a": part.uid, "b": part.gid}
        plan.add(lib.PLAN_OVERLAY, part.path, *places, part.path, **operands)
    for bound in beneath.bound:
        _show(plan, bound)
    plan.add(lib.PLAN_MOUNT, "tmpfs", "/run", "mode=0755", mode=NOSUID | NODEV)
    if memory:
        plan.add(lib.PLAN_MOUNT, "tmpfs", "/tmp", "mode=1777", mode=NOSUID | NODEV)  # noqa: S108


def _mounts_of_root(resources: Resources) -> tuple[str, ...]:
    """Return where the root is more than one mount, but for what the caller's mounts cover, with all below it."""
    root, beneath = resources.root, resources.beneath
    paths = [part.path for part in root.parts if isinstance(part, Overlaid)] if isinstance(root, HostRoot) else []
    if beneath is not None:
        paths += [part.path for part in beneath.overlaid]
    if isinstance(root, HostRoot) or beneath is not None:
        paths.append("/run")
    if beneath is not None and (not isinstance(root, OverlayRoot) or root.upper is None):
        paths.append("/tmp")  # noqa: S108
    covered = tuple(mount.target.rstrip("/") + "/" for mount in resources.mounts)
    return tuple(path for path in paths if not f"{path}/".startswith(covered))


def _system(plan: Plan, spec: Spec, resources: Resources) -> None:
    plan.operations += system_mounts(
        own_pid=spec.own_pids,
        own_ipc=spec.own_ipc,
        own_net=spec.own_network or resources.network_fd is not None,
        user_namespace=spec.id_maps is not None,
        tty_group=spec.id_maps is None or spec.id_maps.has_gid(5),
        shm_size=spec.shm_size,
        privileged=spec.privileged,
    )
    if resources.cgroup_mounts:
        _show_cgroups(plan, resources.cgroup_mounts, privileged=spec.privileged)
    plan.operations += [device_operation(device) for device in resources.devices]


def _show_cgroups(plan: Plan, shown: tuple[tuple[str, str], ...], *, privileged: bool) -> None:
    """The container's own nodes, read-only: one at /sys/fs/cgroup, or a tmpfs with one directory a controller."""
    attributes = NOSUID | NODEV | NOEXEC | (0 if privileged else RDONLY)
    if len(shown) == 1 and shown[0][0] == "":
        plan.operations.append(bind_host(shown[0][1], "/sys/fs/cgroup", attributes))
        return
    plan.add(
        lib.PLAN_MOUNT,
        "tmpfs",
        "/sys/fs/cgroup",
        "mode=0755",
        "size=64k",
        mode=NOSUID | NODEV | NOEXEC,
        flags=lib.PLAN_NO_LINKS,
    )
    for name, path in shown:
        plan.operations.append(bind_host(path, f"/sys/fs/cgroup/{name}", attributes))


def _settings(plan: Plan, spec: Spec, resources: Resources) -> None:
    if spec.hostname is not None:
        plan.add(lib.PLAN_HOSTNAME, spec.hostname)
    if spec.domainname is not None:
        plan.add(lib.PLAN_DOMAINNAME, spec.domainname)
    if spec.own_network and resources.network_fd is None:
        plan.add(lib.PLAN_LOOPBACK)
    for name, value in spec.sysctls:
        plan.add(lib.PLAN_SYSCTL, name, value)
    if spec.oom_score_adj is not None:
        plan.add(lib.PLAN_OOM_SCORE, str(spec.oom_score_adj))


def _mount(plan: Plan, mount: BoundMount | Tmpfs) -> None:
    # Only what is named as it is may lie in /proc; see refuse_proc() in csrc/init/mounts.c.
    named = lib.PLAN_NO_LINKS if mount.target.startswith("/proc/") else 0
    if isinstance(mount, Tmpfs):
        attributes = NOSUID | NODEV | (0 if mount.exec else NOEXEC) | (RDONLY if mount.read_only else 0)
        size = [] if mount.size is None else [f"size={mount.size}"]
        plan.add(lib.PLAN_MOUNT, "tmpfs", mount.target, f"mode={mount.mode:o}", *size, mode=attributes, flags=named)
        return
    attributes = (0 if mount.devices else NODEV) | (RDONLY if mount.read_only else 0)
    flags = named | (lib.PLAN_RECURSIVE if mount.recursive else 0)
    if mount.fd is not None:
        plan.add(lib.PLAN_BIND_SLOT, mount.target, fd=mount.fd, mode=attributes, flags=flags)
        return
    device = os.major(mount.device) << 32 | os.minor(mount.device)
    plan.add(lib.PLAN_BIND, mount.path, mount.target, mode=attributes, flags=flags, a=device, b=mount.inode)


@lru_cache(maxsize=128)
def _confined(
    masked: tuple[str, ...],
    read_only_paths: tuple[str, ...],
    read_only_root: bool,
    ulimits: tuple[tuple[str, int, int, int], ...],
    workdir: str,
    identity: Identity,
    single_id: bool,
    bounding: int,
    effective: int,
    no_new_privileges: bool,
    seccomp: bytes | None,
) -> tuple[bytes, ...]:
    """Return the operations from the masks to the filter: the same for every container with the same options."""
    plan = Plan()
    for path in masked:
        plan.add(lib.PLAN_MASK, path)
    for path in read_only_paths:
        plan.add(lib.PLAN_READONLY, path)
    if read_only_root:
        plan.add(lib.PLAN_ROOT_READONLY)
    plan.add(lib.PLAN_PIVOT)
    for name, number, soft, hard in ulimits:
        plan.add(lib.PLAN_RLIMIT, name, mode=number, a=soft, b=hard)
    plan.add(lib.PLAN_UMASK, mode=0o022)
    plan.add(lib.PLAN_WORKDIR, workdir)
    if seccomp is not None and not no_new_privileges:
        # Without no_new_privs only CAP_SYS_ADMIN may load a filter, and that goes next.
        plan.add(lib.PLAN_SECCOMP, blob=seccomp)
    plan.add(lib.PLAN_BOUNDING, a=bounding)
    groups = struct.pack(f"={len(identity.groups)}I", *identity.groups)
    keep = lib.PLAN_KEEP_GROUPS if single_id else 0
    plan.add(lib.PLAN_USER, a=identity.uid, b=identity.gid, flags=keep, blob=groups)
    plan.add(lib.PLAN_CAPABILITIES, a=effective)
    if no_new_privileges:
        plan.add(lib.PLAN_NO_NEW_PRIVS)
        if seccomp is not None:
            plan.add(lib.PLAN_SECCOMP, blob=seccomp)
    return tuple(plan.operations)
