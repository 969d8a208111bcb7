"""From a Spec to the plan that pyrtc-init executes: the order of the operations is the order of privilege.

First everything that needs rights over the new namespaces, then the pivot, then rights go one after the other, and the system
call filter is the last thing before the command.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from pyrtc._core import lib
from pyrtc.options import Bind, Device, Tmpfs
from pyrtc.runtime.namespaces import NODEV, NOEXEC, NOSUID, RDONLY
from pyrtc.runtime.plan import Plan, operation
from pyrtc.runtime.spec import Spec
from pyrtc.runtime.system import bind_host, device_operation, system_mounts

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
    """A detached mount, made by the caller; the descriptor stays the caller's. cover: a directory that nobody needs now."""

    fd: int
    cover: str


Root = OverlayRoot | DirectoryRoot | MountRoot


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
    devices: bool = False


@dataclass(frozen=True, slots=True)
class Resources:
    """What was opened and found for one start."""

    root: Root
    mounts: tuple[BoundMount | Tmpfs, ...] = ()
    tasks_fds: Sequence[int] = ()
    cgroup_mounts: tuple[tuple[str, str], ...] = ()
    devices: tuple[Device, ...] = ()
    seccomp: bytes | None = None
    network_fd: int | None = None  # a network namespace that was made ahead
    terminal_size: tuple[int, int] = (0, 0)
    die_with_caller: bool = True


def assemble(spec: Spec, resources: Resources, stdio: Sequence[int]) -> Plan:
    """Return the plan of a container. stdio: descriptors for 0, 1 and 2; -1 leaves them to the terminal."""
    plan = Plan(stdio)
    _enter(plan, spec, resources)
    _root(plan, spec, resources.root)
    _system(plan, spec, resources)
    _settings(plan, spec, resources)
    for file in spec.files:
        plan.add(lib.PLAN_FILE, file.target, mode=file.mode, blob=file.content)
    for mount in resources.mounts:
        _mount(plan, mount)
    if spec.workdir != "/":
        plan.add(lib.PLAN_MKDIR, spec.workdir, a=0, b=0)
    if spec.terminal:
        rows, columns = resources.terminal_size
        plan.add(lib.PLAN_TERMINAL, a=rows, b=columns)
    _cover(plan, spec)
    plan.add(lib.PLAN_PIVOT)
    _confine(plan, spec, resources.seccomp)
    if spec.reaper:
        plan.add(lib.PLAN_REAPER)
    plan.add(lib.PLAN_EXEC, *spec.argv, *spec.env, a=len(spec.argv))
    return plan


def _enter(plan: Plan, spec: Spec, resources: Resources) -> None:
    if resources.die_with_caller:
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
        plan.add(lib.PLAN_ROOT_SLOT, root.cover, fd=root.fd)
    elif isinstance(root, DirectoryRoot):
        plan.add(lib.PLAN_ROOT_BIND, root.path, flags=devices)
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


def _system(plan: Plan, spec: Spec, resources: Resources) -> None:
    plan.operations += system_mounts(
        own_pid=spec.own_pids,
        own_ipc=spec.own_ipc,
        own_net=spec.own_network,
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
    if isinstance(mount, Tmpfs):
        attributes = NOSUID | NODEV | (0 if mount.exec else NOEXEC) | (RDONLY if mount.read_only else 0)
        size = [] if mount.size is None else [f"size={mount.size}"]
        plan.add(lib.PLAN_MOUNT, "tmpfs", mount.target, f"mode={mount.mode:o}", *size, mode=attributes)
        return
    attributes = (0 if mount.devices else NODEV) | (RDONLY if mount.read_only else 0)
    flags = lib.PLAN_RECURSIVE if mount.recursive else 0
    if mount.fd is not None:
        plan.add(lib.PLAN_BIND_SLOT, mount.target, fd=mount.fd, mode=attributes, flags=flags)
        return
    device = os.major(mount.device) << 32 | os.minor(mount.device)
    plan.add(lib.PLAN_BIND, mount.path, mount.target, mode=attributes, flags=flags, a=device, b=mount.inode)


def _cover(plan: Plan, spec: Spec) -> None:
    for path in spec.masked:
        plan.add(lib.PLAN_MASK, path)
    for path in spec.read_only_paths:
        plan.add(lib.PLAN_READONLY, path)
    if spec.read_only_root:
        plan.add(lib.PLAN_ROOT_READONLY)


def _confine(plan: Plan, spec: Spec, seccomp: bytes | None) -> None:
    for name, number, soft, hard in spec.ulimits:
        plan.add(lib.PLAN_RLIMIT, name, mode=number, a=soft, b=hard)
    plan.add(lib.PLAN_UMASK, mode=0o022)
    plan.add(lib.PLAN_WORKDIR, spec.workdir)
    if seccomp is not None and not spec.no_new_privileges:
        # Without no_new_privs only CAP_SYS_ADMIN may load a filter, and that goes next.
        plan.operations.append(operation(lib.PLAN_SECCOMP, blob=seccomp))
    plan.add(lib.PLAN_BOUNDING, a=spec.bounding)
    identity = spec.identity
    keep = lib.PLAN_KEEP_GROUPS if spec.id_maps is not None and spec.id_maps.single else 0
    groups = struct.pack(f"={len(identity.groups)}I", *identity.groups)
    plan.add(lib.PLAN_USER, a=identity.uid, b=identity.gid, flags=keep, blob=groups)
    plan.add(lib.PLAN_CAPABILITIES, a=spec.effective)
    if spec.no_new_privileges:
        plan.add(lib.PLAN_NO_NEW_PRIVS)
        if seccomp is not None:
            plan.operations.append(operation(lib.PLAN_SECCOMP, blob=seccomp))
