"""Everything that is made before a container's first process: row, volumes, control groups, root, sources of mounts.

A `Preparation` is one start on its way. It serves starts in the foreground (`pyrtc.foreground`) and under a monitor
(`pyrtc.watched`), of new containers and of those that have run before.
"""

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pyrtc.container import Running
from pyrtc.description import describe_options, exposed_ports
from pyrtc.errors import UnsupportedError, UsageError
from pyrtc.ids import IdMaps, keep_id, ordinary_user
from pyrtc.options import RunOptions, Volume
from pyrtc.runtime import roots
from pyrtc.runtime.assembly import Resources
from pyrtc.runtime.cgroups import Cgroup, Limits
from pyrtc.runtime.devices import allowed_rules, host_devices
from pyrtc.runtime.etc_files import Names
from pyrtc.runtime.helper import helper_fd
from pyrtc.runtime.ids import Parent, automatic, mapped_namespace
from pyrtc.runtime.seccomp import cached_filter
from pyrtc.runtime.sources import open_sources
from pyrtc.runtime.spare_network import spare_networks
from pyrtc.runtime.spec import Spec, decide, mount_target
from pyrtc.runtime.start import Started, abandon
from pyrtc.start_image import StartImage
from pyrtc.store import ContainerRecord, Store, default_root
from pyrtc.store.container_rows import FOREGROUND
from pyrtc.store.containers import new_id
from pyrtc.values import replace

if TYPE_CHECKING:
    from pyrtc.network.plumbing import Connection
    from pyrtc.network.rootless_connection import RootlessConnection
    from pyrtc.network.stand_in import StandIn
    from pyrtc.snapshots import Snapshot

__all__ = ["Preparation", "seccomp_filter"]

CONTAINER, DEFAULT = "container:", "bridge"
_ID_LOCKS = "/run/pyrtc/userns"  # root's: --userns auto is for root only


def seccomp_filter(store: Store, spec: Spec) -> bytes | None:
    """Return the compiled filter of a container; None for one without."""
    if spec.seccomp == "unconfined":
        return None
    return cached_filter(f"{store.path}/cache", spec.seccomp, capabilities=spec.bounding)


class Preparation:
    """One start on its way: what was made so far, and how to take it back.

    Parameters
    ----------
    name: of the image, as it was asked for. record: of the container, where it is there already.
    """

    def __init__(
        self,
        store: Store,
        image: StartImage,
        name: "str | Snapshot",
        options: RunOptions,
        record: ContainerRecord | None = None,
    ) -> None:
        self.store = store
        self.image = image
        self.image_name = str(name)
        self.options = options
        self.record = record
        self.again = record is not None and record.started is not None
        self.cgroup: Cgroup | None = None
        self.container_id = new_id() if record is None else record.id
        self.is_new = record is None
        self.started: Started | None = None
        self.running: Running | None = None
        self.owned = ExitStack()  # what the start needs open
        self.held = ExitStack()  # what the container needs for its life
        self.unclaimed: list[str] = []  # anonymous volumes that no row of a container names yet
        self.range_fd = -1  # of the range of user ids that was picked, while this process holds it
        self.names: Names | None = None  # what its network says about names
        self._shared_fd = -1  # of the network of another container
        self.userns_fd = -1  # of the container whose network it shares, where it is born in that one's user namespace
        self._stand_in: StandIn | None = None  # of the host, in networks that an ordinary user has made
        self.parent: Parent | None = None  # of the user namespace of a container on one of these
        self.connection: Connection | RootlessConnection | None = None  # to its networks
        if options.network.startswith(CONTAINER) and self.is_new:
            from pyrtc.runtime.shared_network import with_id

            self.options = with_id(store, options)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the caller is to know of the container that was made."""
        limits = self.cgroup.warnings if self.cgroup is not None else ()
        return (*limits, *(self.connection.warnings if self.connection is not None else ()))

    def allocate(self, volumes: dict[str, tuple[str, str]], *, detached: int = FOREGROUND) -> ContainerRecord:
        """Give a new container its row and directory."""
        options = self.options
        from pyrtc.store.records import dump_options

        if self.image.snapshot:
            self._check_snapshot()
        record = self.store.containers.allocate(
            name=options.name,
            image_id=self.image.id,
            elsewhere=bool(self.image.place),
            options_json=describe_options(self.image_name, options, self.image.config),
            # A monitor keeps its log there, and an attendant what it serves.
            directory=roots.needs_directory(options) or bool(detached) or self._is_attended(),
            remove=options.remove,
            volumes=tuple(volume for volume, _path in volumes.values()),
            targets=tuple(volumes),
            container_id=self.container_id,
            detached=detached,
            spec=dump_options(options),
            snapshot=self.image.snapshot,
        )
        self.unclaimed.clear()
        return record

    def _check_snapshot(self) -> None:
        if self.options.driver == "copy":
            raise UnsupportedError("--driver copy cannot stand on a snapshot: commit the container to an image")
        if not self.options.remove:
            # What is kept must not stand on what is lost when the machine goes down.
            self.store.snapshots.make_durable(self.image.snapshot)

    def _is_attended(self) -> bool:
        """Whether somebody resolves names in the container, or holds its ports; see `pyrtc.network.plumbing`."""
        options = self.options
        if not options.networks:
            return False
        named = self.store.rootless or any(one.network != DEFAULT for one in options.networks)
        if named or options.ports or options.publish_all:
            return True
        from pyrtc.network.resolvers import host_resolvers

        return not (options.dns or host_resolvers().elsewhere)

    def check(self, record: ContainerRecord) -> None:
        """Decide everything that can be decided before the start, so that what is wrong is told now."""
        userns = self.options.userns
        maps = None if not self.store.rootless else keep_id() if userns == "keep-id" else ordinary_user()
        if self.store.rootless and userns in ("host", "auto"):
            self.user_namespace()  # says why not
        decide(record.id, self.image.config, self.image.layers, self.options, maps)

    def prepare(
        self,
        record: ContainerRecord,
        maps: IdMaps | None,
        userns_fd: int,
        volumes: dict[str, tuple[str, str]],
        terminal_size: tuple[int, int],
    ) -> tuple[Spec, Resources]:
        """Decide everything and make what the first process needs, control groups included."""
        options, store = self.options, self.store
        host = self.image.layers == roots.HOST_LAYERS
        if not host:
            layers = store.with_own_directories(self.image.id, self.image.layers)
            above = self.image.above
            if not self.is_new:
                chain = store.snapshots.below(record.id)
                store.snapshots.check(chain)
                above = tuple(item.path for item in chain)
            self.image = replace(self.image, layers=roots.visible_layers((*above, *layers)) if above else layers)
        network_fd = self._network(record, maps)
        if self.connection is not None and self.connection.sysctls:
            options = replace(options, sysctls=(*self.connection.sysctls, *options.sysctls))
        spec = decide(record.id, self.image.config, self.image.layers, options, maps, self.names)
        self.cgroup = self._make_cgroup(record, spec)
        directory = None if roots.in_memory(options) else record.directory
        root = roots.open_root(
            store, self.image.layers, directory, options, maps, userns_fd, self.owned, again=self.again
        )
        paths = {target: path for target, (_name, path) in volumes.items()}
        roots.fill_volumes(store, self.image.layers, spec.mounts, volumes)
        resources = Resources(
            root=root,
            beneath=roots.beneath(self.image.layers, root, directory, userns_fd, self.owned),
            hidden=tuple(sorted({store.path, default_root()})) if host else (),
            mounts=open_sources(
                spec.mounts,
                paths,
                owned=self.owned,
                userns_fd=userns_fd,
                detached=not store.rootless,
                devices=spec.privileged and maps is None,
            ),
            tasks_fds=self.cgroup.tasks_fds,
            cgroup_mounts=self.cgroup.mounts() if self._shows_cgroups() else (),
            devices=host_devices(options),
            seccomp=seccomp_filter(store, spec),
            network_fd=network_fd,
            terminal_size=terminal_size,
        )
        return spec, resources

    def user_namespace(self) -> tuple[IdMaps | None, int]:
        """Return the id maps that are asked for, None for none, and a namespace to map mounts with, -1 for none."""
        userns = self.options.userns
        if self.store.rootless:
            if self.options.network.startswith(CONTAINER):
                return self._share(), -1
            if userns == "host":
                raise UnsupportedError(
                    "--userns host needs root: an ordinary user has no rights outside a user namespace"
                )
            if userns == "auto":
                raise UnsupportedError("--userns auto needs root; an ordinary user's containers are in one anyway")
            if self.options.networks:
                self._open_stand_in()
            return (keep_id() if userns == "keep-id" else ordinary_user()), -1
        if userns == "keep-id":
            keep_id()  # says why not
        if userns != "auto":
            return None, -1
        if self.options.privileged:
            raise UsageError("--privileged and --userns auto contradict each other")
        record = self.record
        taken = automatic(_ID_LOCKS, self.store.containers.id_ranges(), None if record is None else record.ids)
        self.range_fd = taken.lock_fd
        self.held.callback(os.close, taken.lock_fd)
        fd = mapped_namespace(taken.maps, helper_fd())
        self.owned.callback(os.close, fd)
        return taken.maps, fd

    def volumes(self) -> dict[str, tuple[str, str]]:
        """Target -> name and directory of each volume, made where it is missing."""
        found = {}
        wanted = {mount_target(target, "a volume of the image"): "" for target in self.image.config.volumes}
        for mount in self.options.mounts:
            target = mount_target(mount.target)
            wanted.pop(target, None)
            if isinstance(mount, Volume):
                wanted[target] = mount.name
        earlier = {} if self.is_new else self.store.containers.anonymous_volumes(self.container_id)
        for target, name in wanted.items():
            name = name or earlier.get(target, "")
            volume = self.store.volumes.create(name)
            if not name:
                self.unclaimed.append(volume.name)
            found[target] = (volume.name, volume.path)
        return found

    def _make_cgroup(self, record: ContainerRecord, spec: Spec) -> Cgroup:
        limits: Limits = self.options.limits
        rules = allowed_rules(spec, self.options)
        if rules is not None:
            limits = replace(limits, devices=rules)
        # Somebody will want to see what one that lives uses (`Container.stats`).
        accounting = self.options.accounting or record.detached != FOREGROUND or not self.is_new
        return Cgroup.create(record.id, limits, best_effort=self.options.best_effort, accounting=accounting)

    def _shows_cgroups(self) -> bool:
        """On version 2 always; on version 1 only where the container has cgroups of its own."""
        assert self.cgroup is not None
        return self.options.cgroupns != "host" and (self.cgroup.hierarchy.mode == "v2" or bool(self.cgroup.tasks_fds))

    def kill_fd(self, spec: Spec) -> int | None:
        """Without a pid namespace only a cgroup knows all processes of a container."""
        assert self.cgroup is not None
        if spec.own_pids:
            return None
        if self.cgroup.into_fd is None:
            raise UnsupportedError(
                "--pid host needs a cgroup v2 directory, to find all its processes again; this user has none"
            )
        fd = os.open("cgroup.kill", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self.cgroup.into_fd)
        self.held.callback(os.close, fd)
        return fd

    def _network(self, record: ContainerRecord, maps: IdMaps | None) -> int | None:
        """Return the network namespace that process 1 enters; None where it makes its own or has the host's."""
        network = self.options.network
        if self.options.networks:
            return self._connect(record, maps)
        if network.startswith(CONTAINER):
            return self._shared_network(maps)
        if network == "host" or maps is not None:
            # One made ahead belongs to the host's user namespace, so it is for containers that do.
            return None
        fd = spare_networks.take()
        if fd is not None:
            self.owned.callback(os.close, fd)
        return fd

    def _open_stand_in(self) -> None:
        from pyrtc.network.stand_in import is_wanted, open_stand_in

        if is_wanted(self.store, self.options.networks):
            self._stand_in = open_stand_in(self.store)
            self.owned.callback(self._stand_in.close)
            self.parent = Parent(self._stand_in.userns_fd, self._stand_in.id_maps)

    def _connect(self, record: ContainerRecord, maps: IdMaps | None) -> int | None:
        from pyrtc.network.plumbing import connect

        exposed = exposed_ports(self.image.config) if self.options.publish_all else ()
        own = maps is not None
        self.connection = connect(self.store, record, self.options, exposed, own_namespace=own, stand_in=self._stand_in)
        self.names = self.connection.names
        return self.connection.netns_fd

    def created(self, pid: int, pidfd: int) -> None:
        """Do what is due when process 1 exists and waits to be let go."""
        if self.connection is not None:
            self.connection.created(pid, pidfd)

    def _shared_network(self, maps: IdMaps | None) -> int:
        if self._shared_fd < 0:
            if maps is not None:
                raise UnsupportedError(
                    "--network container:NAME and --userns contradict each other: who is in another user namespace has "
                    "no rights over that network"
                )
            self._share()
        return self._shared_fd

    def _share(self) -> IdMaps | None:
        """Open the network of another container; returns the maps of its user namespace where it is entered, too."""
        from pyrtc.runtime.shared_network import open_shared

        shared = open_shared(self.store, self.container_id, self.options)
        self.owned.callback(os.close, shared.fd)
        self._shared_fd, self.names = shared.fd, shared.names
        if shared.userns_fd >= 0:
            self.userns_fd = shared.userns_fd
            self.owned.callback(os.close, shared.userns_fd)
        return shared.id_maps

    def undo(self) -> None:
        """Take back what a failed start made."""
        try:
            if self.running is not None:
                self.running.close()
            elif self.started is not None:
                abandon(self.started.pidfd)
        finally:
            self.release(removed=self.is_new)

    def release(self, *, removed: bool) -> None:
        """Give back what the start needed and, with it, what the container was made of."""
        with self.held:
            self.owned.close()
            try:
                if self.cgroup is not None:
                    self.cgroup.close()
                    self.cgroup.remove()
            finally:
                try:
                    if self.connection is not None:
                        self.connection.release()
                finally:
                    if removed:
                        self.store.containers.remove(self.container_id)
                    for volume in self.unclaimed:
                        self.store.volumes.remove(volume)
