"""Where a container's root comes from: layers under a R/W directory, or a copy of all of it.

overlay  the image's layers, shared and untouched, under one directory (or memory) that takes what the container writes.
copy     a full private copy, as a virtual machine's disk image is one: the baseline to compare with, and the way out
         where overlayfs is refused.
"""

import os
import stat
from contextlib import ExitStack, suppress
from functools import cache, lru_cache

from pyrtc import core
from pyrtc.errors import UnsupportedError
from pyrtc.ids import IdMaps
from pyrtc.options import Mount, RunOptions, Volume
from pyrtc.runtime.assembly import DirectoryRoot, HostRoot, MountRoot, OverlayRoot, Root
from pyrtc.runtime.host_root import Beneath, Link, Overlaid, Part, beneath_root, put_together
from pyrtc.store import Store

__all__ = ["HOST_LAYERS", "beneath", "describe", "fill_volumes", "needs_directory", "open_root", "visible_layers"]

HOST_LAYERS = ("/",)
_DIRECTORIES = ("dev", "etc", "proc", "sys")
_FILES = ("etc/hosts", "etc/hostname", "etc/resolv.conf")
_BENEATH = core.RESOLVE_BENEATH | core.RESOLVE_NO_SYMLINKS | core.RESOLVE_NO_MAGICLINKS


@lru_cache(maxsize=256)
def visible_layers(layers: tuple[str, ...]) -> tuple[str, ...]:
    """Return the layers down to the first with an opaque root, a mark that overlayfs heeds on other directories only.

    Parameters
    ----------
    layers: directories in the store from the top; a tree there does not change while a process may know its name.
    """
    for number, layer in enumerate(layers, start=1):
        for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
            try:
                if os.getxattr(layer, name, follow_symlinks=False) == b"y":
                    return layers[:number]
            except OSError:
                pass  # what is missing or unreadable is reported where it is used
    return layers


def in_memory(options: RunOptions) -> bool:
    """Whether the R/W layer is memory; on disk unless asked for."""
    return options.rw_layer == "memory" and options.driver == "overlay"


def needs_directory(options: RunOptions) -> bool:
    """Whether the container needs a directory in the store."""
    if options.rw_layer == "memory":
        if options.driver == "copy":
            raise UnsupportedError("--driver copy keeps its copy on disk; it cannot be combined with --rw-layer memory")
        if not options.remove:
            raise UnsupportedError(
                "a container that is kept needs its R/W layer on disk; use --rm with --rw-layer memory"
            )
        if options.userns == "auto":
            raise UnsupportedError("--userns auto needs the R/W layer on disk")
    return not in_memory(options)


def describe(layers: tuple[str, ...], options: RunOptions, rootless: bool) -> Root:
    """Return the root as `--plan` shows it, with placeholders for what is made at the start."""
    if options.driver == "copy":
        return DirectoryRoot("CONTAINER/upper")
    upper = None if in_memory(options) else "CONTAINER/upper"
    if layers == HOST_LAYERS and rootless:
        return HostRoot(put_together(), upper, upper and "CONTAINER/work", volatile=options.remove)
    return OverlayRoot(layers, upper, upper and "CONTAINER/work", volatile=options.remove, userxattr=rootless)


def open_root(
    store: Store,
    layers: tuple[str, ...],
    directory: str | None,
    options: RunOptions,
    maps: IdMaps | None,
    userns_fd: int,
    owned: ExitStack,
    *,
    again: bool = False,
) -> Root:
    """Return the root of a container.

    Parameters
    ----------
    layers: from the top. directory: the container's own, with upper and work, None for memory. again: it has run
    before, and the R/W part is what that left.
    maps, userns_fd: the user namespace of a root-owned container, by which owners of layers are mapped. owned: closes
    what is opened here.

    Raises
    ------
    UnsupportedError, StoreError: it cannot be made here; names what to do.
    """
    rootless = store.rootless
    if again and directory is not None:
        _clear_work(store, directory)
    if rootless and options.driver == "overlay":
        _check_marks(store, directory)
    if layers == HOST_LAYERS and options.driver == "copy":
        raise UnsupportedError("--driver copy would copy the whole system; import a root file system as an image")
    if layers == HOST_LAYERS and rootless:
        return _host_root(directory, options, again=again)
    about = os.stat(layers[0])
    if directory is None:
        mode, uid, gid = stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid
        if rootless:
            uid = gid = 0
        return OverlayRoot(layers, None, None, volatile=True, userxattr=rootless, mode=mode, uid=uid, gid=gid)
    upper, work = f"{directory}/upper", f"{directory}/work"
    if options.driver == "copy":
        if not again:
            store.trees.copy(layers, "", _directory(upper, owned))
        if userns_fd < 0:
            return DirectoryRoot(upper)
        return MountRoot(_mapped(upper, userns_fd, owned))
    if maps is None or rootless:
        if not again:
            _like_root(upper, about, rootless)
        lowers = layers if layers == HOST_LAYERS else _with_mount_points(layers, f"{store.path}/cache/mount-points")
        return OverlayRoot(lowers, upper, work, volatile=options.remove, userxattr=rootless)
    if not again:
        os.chown(upper, maps.uids[0].outside + about.st_uid, maps.gids[0].outside + about.st_gid)
        os.chmod(upper, stat.S_IMODE(about.st_mode))
    return MountRoot(_mapped_overlay(layers, directory, userns_fd, options.remove, owned))


def _clear_work(store: Store, directory: str) -> None:
    """Empty the directories that overlayfs works in: one mounted volatile leaves a mark there against a second mount.

    The mark is for a machine that went down in between; then what such a container wrote is gone with its row.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in os.listdir(fd):
            if name == "work" or name.startswith("beneath"):
                work = "work" if name == "work" else f"{name}/work"
                store.trees.remove(fd, work)
                os.mkdir(work, 0o700, dir_fd=fd)
    finally:
        os.close(fd)


def _with_mount_points(layers: tuple[str, ...], directory: str) -> tuple[str, ...]:
    """Return layers with a directory below them all that has what is mounted over in every container.

    Without it an image that lacks /etc/hosts would have /etc copied up and a file made in it for each container, and
    the R/W layer would not be what the container wrote.
    """
    if _has_mount_points(layers):
        return layers
    if not os.path.exists(f"{directory}/{_FILES[-1]}"):
        _make_mount_points(directory)
    return (*layers, directory)


@lru_cache(maxsize=256)
def _has_mount_points(layers: tuple[str, ...]) -> bool:
    return all(_has_name(layers, name) for name in (*_DIRECTORIES, *_FILES))


def _has_name(layers: tuple[str, ...], name: str) -> bool:
    """Whether a layer has this name, or says that there is none."""
    for layer in layers:
        layer_fd = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.close(core.openat2(layer_fd, name, os.O_PATH | os.O_NOFOLLOW, _BENEATH))
        except OSError:
            continue
        finally:
            os.close(layer_fd)
        return True
    return False


def _make_mount_points(directory: str) -> None:
    """Make it, or what is missing of it: two processes may be here at once. Modes do not depend on the umask."""
    os.makedirs(directory, mode=0o755, exist_ok=True)
    os.chmod(directory, 0o755)  # noqa: S103  (a directory of an image)
    for name in _DIRECTORIES:
        os.makedirs(f"{directory}/{name}", exist_ok=True)
        os.chmod(f"{directory}/{name}", 0o755)  # noqa: S103
    for name in _FILES:
        fd = os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        os.fchmod(fd, 0o644)
        os.close(fd)


def _check_marks(store: Store, directory: str | None) -> None:
    """Without user.* attributes overlayfs mounts, and fails later: when a directory takes a removed one's place."""
    if directory is None:
        if not _memory_has_attributes():
            raise UnsupportedError(
                "--rw-layer memory needs Linux 6.6 or newer for an ordinary user (user.* attributes on tmpfs): use "
                "--rw-layer disk, or --driver copy"
            )
    elif not store.has_attributes:
        raise UnsupportedError(
            f"the file system of the store {store.root} cannot hold the R/W layer of an ordinary user's container: it "
            "has no user.* attributes (tmpfs has them from Linux 6.6, NFS and FAT have none); move the store with "
            "--root, or use --rw-layer memory or --driver copy"
        )


@cache
def _memory_has_attributes() -> bool:
    fd = os.memfd_create("pyrtc-probe", os.MFD_CLOEXEC)  # of the same kind as a tmpfs
    try:
        os.setxattr(fd, "user.pyrtc", b"")
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _host_root(directory: str | None, options: RunOptions, *, again: bool) -> HostRoot:
    parts = put_together()
    if directory is None:
        return HostRoot(parts, None, None, volatile=True)
    if again:
        parts = _still_fitting(parts, f"{directory}/upper")
    for number in range(sum(isinstance(part, Overlaid) for part in parts)):
        os.mkdir(f"{directory}/work/{number}", 0o700)
    return HostRoot(parts, f"{directory}/upper", f"{directory}/work", volatile=options.remove)


def _still_fitting(parts: tuple[Part, ...], upper: str) -> tuple[Part, ...]:
    """Return the parts without the links that are there, and check the others against what the container left.

    Its R/W directory holds the directories that overlays are mounted with, so one that could unmount them could have
    put a link in the place of one, which would lead out. No process of it is left that could do so from now on.

    Raises
    ------
    UnsupportedError: it has.
    """
    fd = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for part in parts:
            if isinstance(part, Overlaid):
                try:
                    os.close(core.openat2(fd, part.path.lstrip("/"), os.O_PATH | os.O_DIRECTORY, _BENEATH))
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise UnsupportedError(
                        f"cannot start the container again: it has replaced its {part.path}, on which a part of the "
                        f"running system is shown: {error.strerror}; make a new one"
                    ) from None
        return tuple(part for part in parts if not isinstance(part, Link) or not _is_there(fd, part.path.lstrip("/")))
    finally:
        os.close(fd)


def _is_there(fd: int, path: str) -> bool:
    """Whether there is anything of this name; a link that the container has changed is the container's."""
    try:
        os.close(core.openat2(fd, path, os.O_PATH | os.O_NOFOLLOW, _BENEATH))
    except OSError:
        return False
    return True


def beneath(
    layers: tuple[str, ...], root: Root, directory: str | None, userns_fd: int, owned: ExitStack
) -> Beneath | None:
    """Return what the host has mounted below "/", with places for what is written there; None for an image.

    With owners mapped (userns_fd) it is read-only, and mounted here: the container's root may not go there.
    """
    if layers != HOST_LAYERS or isinstance(root, HostRoot):
        return None
    found = beneath_root()
    if isinstance(root, MountRoot):
        return Beneath((), (), tuple((path, _mapped_or_not(path, userns_fd, owned)) for path in found.topmost()))
    if isinstance(root, OverlayRoot) and directory is not None:
        # An opaque directory: the host's /tmp is not in it. One of an earlier run is what the container made of it.
        with suppress(FileExistsError):
            os.mkdir(f"{directory}/upper/tmp")
            os.chmod(f"{directory}/upper/tmp", 0o1777)  # noqa: S103  (the usual mode of /tmp)
            os.setxattr(f"{directory}/upper/tmp", "trusted.overlay.opaque", b"y")
        for number, part in enumerate(found.overlaid):
            with suppress(FileExistsError):
                os.mkdir(f"{directory}/beneath{number}")
            with suppress(FileExistsError):
                os.mkdir(f"{directory}/beneath{number}/work")
            try:
                os.mkdir(f"{directory}/beneath{number}/upper")
            except FileExistsError:
                continue
            os.chown(f"{directory}/beneath{number}/upper", part.uid, part.gid)
            os.chmod(f"{directory}/beneath{number}/upper", part.mode)
    return found


def _like_root(upper: str, about: os.stat_result, rootless: bool) -> None:
    """Give the R/W directory, which is seen as /, the attributes of the image's root directory."""
    if not rootless and (about.st_uid or about.st_gid):
        os.chown(upper, about.st_uid, about.st_gid)
    if stat.S_IMODE(about.st_mode) != 0o755:
        os.chmod(upper, stat.S_IMODE(about.st_mode))


def _directory(path: str, owned: ExitStack) -> int:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    owned.callback(os.close, fd)
    return fd


def _mapped(path: str, userns_fd: int, owned: ExitStack) -> int:
    fd = core.clone_mount(_directory(path, owned), userns_fd=userns_fd)
    owned.callback(os.close, fd)
    return fd


def _mapped_or_not(path: str, userns_fd: int, owned: ExitStack) -> int:
    """Where a file system cannot map owners, its files belong to nobody."""
    for mapping in (userns_fd, -1):
        try:
            fd = core.clone_mount(_directory(path, owned), recursive=True, userns_fd=mapping)
        except UnsupportedError:
            if mapping < 0:
                raise
            continue
        owned.callback(os.close, fd)
        return fd
    raise AssertionError


def _mapped_overlay(layers: tuple[str, ...], directory: str, userns_fd: int, volatile: bool, owned: ExitStack) -> int:
    """Each layer is shown with its owners mapped (mount_setattr IDMAP): no tree is chowned, layers stay shared.

    The R/W directory is not mapped: overlayfs writes to it as the process that mounted it, root of the host, whom a map
    would not know. Its files have the container's ids on disk, beginning with the directory itself.
    """
    lowers = [_mapped(layer, userns_fd, owned) for layer in layers]
    upper, work = _directory(f"{directory}/upper", owned), _directory(f"{directory}/work", owned)
    mount = core.mount_overlay(lowers, upper, work, volatile=volatile)
    owned.callback(os.close, mount)
    return mount


def fill_volumes(
    store: Store, layers: tuple[str, ...], mounts: tuple[Mount, ...], volumes: dict[str, tuple[str, str]]
) -> None:
    """Give new volumes what the image holds at their targets (Docker's rule), each once and by one process.

    Raises
    ------
    StoreError: the content cannot be copied.
    """
    for mount in mounts:
        if not isinstance(mount, Volume) or not mount.copy:
            continue
        name = volumes[mount.target][0]
        if store.volumes.get(name).filled:
            continue
        with store.volumes.filling(name) as path, ExitStack() as owned:
            if path is not None:
                store.trees.copy(layers, mount.target, _directory(path, owned))
