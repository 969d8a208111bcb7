"""The network of another container: what `--network container:NAME` joins, and the names that come with it.

As in Docker both have one set of devices, addresses and ports, one host name, and the same /etc/hosts, resolv.conf and
hostname, which are copied as they are when the second one starts. When the other one ends its addresses are given back,
and so its devices go, as with Docker; where that has been started again since, so has this one to be.
"""

import os
import stat

from pyrtc import core
from pyrtc.errors import ContainerError, UnsupportedError, UsageError
from pyrtc.ids import IdMaps, keep_id
from pyrtc.network_words import CONTAINER, SHARED, container_of
from pyrtc.options import RunOptions
from pyrtc.runtime.etc_files import ETC_FILES, Names, PrivateFile
from pyrtc.runtime.join import Target, has_ended, not_running, open_root, open_target
from pyrtc.store import ContainerRecord, Store
from pyrtc.store.records import load_options
from pyrtc.values import dataclass, replace

__all__ = ["SharedNetwork", "open_shared", "with_id"]

_IN_ROOT = core.RESOLVE_IN_ROOT | core.RESOLVE_NO_MAGICLINKS
_LARGEST = 1 << 20  # bytes of a file that is copied
_MOST = 32  # containers that each share the next one's


@dataclass(frozen=True, slots=True)
class SharedNetwork:
    """What is shared.

    fd: the network namespace, which becomes the caller's. names: what is written about it in the container. userns_fd,
    id_maps: of the user namespace that process 1 is to be born in: an ordinary user's networks each belong to one, and
    who is in another has no rights over them; -1 and None for root's.
    """

    fd: int
    names: Names
    userns_fd: int = -1
    id_maps: IdMaps | None = None


def with_id(store: Store, options: RunOptions) -> RunOptions:
    """Return the options with the id of the container whose network is shared, which names it whatever it is called.

    Raises
    ------
    ContainerNotFound: there is none of this name or id. UsageError: something contradicts sharing.
    """
    other = container_of(options.network)
    assert other is not None
    return replace(options, network=f"{CONTAINER}{store.containers.get(other).id}")


def open_shared(store: Store, container_id: str, options: RunOptions) -> SharedNetwork:
    """Open the network of the container that the options name.

    Raises
    ------
    ContainerError: it does not run. ContainerNotFound: it has been removed. UnsupportedError: this user may not enter.
    """
    other = container_of(options.network)
    assert other is not None
    record = store.containers.get(other)
    if record.id == container_id:
        raise UsageError("cannot join own network")
    if record.state != "running":
        raise ContainerError(f"cannot join network of a non running container: {record.id}")
    if record.spec is not None and load_options(record.spec).egress is not None:
        raise UsageError(
            f"conflicting options: container {record.name} may not connect to everything (--egress), and who shares "
            "its network could get around that"
        )
    try:
        target = open_target(record.name, record.pid, record.start_time)
    except ContainerError:
        raise ContainerError(f"cannot join network of a non running container: {record.id}") from None
    try:
        names = _names(store, record, target)
        if not store.rootless or store.networks.endpoints_of(record.id):
            _note(record)
        fd = _open_namespace(record, target, "net")
        if not store.rootless:
            return SharedNetwork(fd, names)
        try:
            _check_maps(record, target, options)
            return SharedNetwork(fd, names, _open_namespace(record, target, "user"), target.id_maps)
        except BaseException:
            os.close(fd)
            raise
    finally:
        os.close(target.pidfd)


def _note(record: ContainerRecord) -> None:
    """Say that the network may outlive the container that it is of; before it is looked whether that still runs."""
    if record.directory is not None:
        os.close(
            os.open(f"{record.directory}/{SHARED}", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        )


def _check_maps(record: ContainerRecord, target: Target, options: RunOptions) -> None:
    """Refuse another user namespace than the one that comes with the network."""
    maps = target.id_maps
    if options.userns is None or maps is None:
        return
    wanted = keep_id() if options.userns == "keep-id" else None
    if wanted is None or (wanted.uids, wanted.gids) != (maps.uids, maps.gids):
        raise UsageError(
            f"--userns {options.userns}: an ordinary user's containers that share a network share their user "
            f"namespace, and that of container {record.name} has other ids"
        )


def _open_namespace(record: ContainerRecord, target: Target, kind: str) -> int:
    try:
        fd = os.open(f"/proc/{target.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if has_ended(target.pidfd, 500):
            raise not_running(record.name) from None
        raise UnsupportedError(f"cannot join the network of container {record.name}: {error.strerror}") from None
    if has_ended(target.pidfd):  # then it may be another process's
        os.close(fd)
        raise not_running(record.name)
    return fd


def _names(store: Store, record: ContainerRecord, target: Target) -> Names:
    hostname, domainname = _host_name(store, record)
    root_fd = open_root(target, record.name)
    try:
        files = [PrivateFile(path, content) for path in ETC_FILES if (content := _read(root_fd, path)) is not None]
    finally:
        os.close(root_fd)
    return Names(hostname=hostname, domainname=domainname, files=tuple(files))


def _host_name(store: Store, record: ContainerRecord) -> tuple[str | None, str | None]:
    """Follow the containers that share one network to the one that it is of; None for the host's own name."""
    for _ in range(_MOST):
        options = load_options(record.spec) if record.spec is not None else RunOptions()
        other = container_of(options.network)
        if other is None:
            return (None if options.uts == "host" else options.hostname or record.id[:12]), options.domainname
        record = store.containers.get(other)
    raise UsageError(f"more than {_MOST} containers share one network through one another")


def _read(root_fd: int, path: str) -> bytes | None:
    """Read a file of the other container, which may be anything: what is no small file is not taken."""
    try:
        where = core.openat2(root_fd, path, os.O_PATH, _IN_ROOT)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(where).st_mode):
            return None
        fd = os.open(f"/proc/self/fd/{where}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    finally:
        os.close(where)
    try:
        content = os.read(fd, _LARGEST + 1)
        return content if len(content) <= _LARGEST else None
    except OSError:
        return None
    finally:
        os.close(fd)
