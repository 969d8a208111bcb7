"""The engine: one store, and the containers that are started from it."""

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

from pyrtc.capture import DEFAULT_MAX_OUTPUT, Capture, Stream, open_pipes
from pyrtc.container import Completed, Running
from pyrtc.containers import Containers
from pyrtc.errors import ImageNotFound, StoreError, UnsupportedError, UsageError
from pyrtc.ids import IdMaps, keep_id, ordinary_user
from pyrtc.image.config import ImageConfig
from pyrtc.options import RunOptions, Volume
from pyrtc.quantities import signal_number
from pyrtc.runtime import roots
from pyrtc.runtime.assembly import Resources, assemble
from pyrtc.runtime.cgroups import Cgroup, Limits
from pyrtc.runtime.devices import allowed_rules, host_devices
from pyrtc.runtime.helper import helper_fd, release
from pyrtc.runtime.ids import automatic, mapped_namespace
from pyrtc.runtime.seccomp import cached_filter
from pyrtc.runtime.sources import open_sources
from pyrtc.runtime.spare_network import spare_networks
from pyrtc.runtime.spec import Spec, decide, host_config, mount_target
from pyrtc.runtime.start import Started, abandon, start
from pyrtc.store import Image, Store, default_root
from pyrtc.store.containers import new_id
from pyrtc.store.owner import process_start_time
from pyrtc.values import dataclass, replace

if TYPE_CHECKING:
    from pyrtc.image.images import Images
    from pyrtc.store.settings import BlobPolicy
    from pyrtc.system import System

__all__ = ["Engine"]

HOST_IMAGE = "host"
_ID_LOCKS = "/run/pyrtc/userns"  # root's: --userns auto is for root only


@dataclass(frozen=True, slots=True)
class _Image:
    """What a start needs of an image: id, config, layers from the top; root of the store that has it if not this."""

    id: str
    config: ImageConfig
    layers: tuple[str, ...]
    place: str = ""


class Engine:
    """Containers from one store. Safe to use from many threads; several engines may share a store.

    Parameters
    ----------
    root: directory of the store; None: ``$PYRTC_ROOT``, else /var/lib/pyrtc for root and ~/.local/share/pyrtc.
    blobs: ``keep`` the compressed form of layers that come in, or ``drop`` it. additional_stores: roots of other
    stores, whose images are used and which are never written. None: what the environment and the settings' files say,
    see `pyrtc.store.settings`.

    Raises
    ------
    StoreError: the directory cannot hold a store.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        blobs: "BlobPolicy | None" = None,
        additional_stores: Sequence[str | os.PathLike[str]] | None = None,
    ) -> None:
        self.store = Store(root, blobs=blobs, additional_stores=additional_stores)
        self.containers = Containers(self.store)
        self._cache = f"{self.store.path}/cache"
        self._host = _Image(HOST_IMAGE, host_config(), roots.HOST_LAYERS)
        self._reaped = False
        self._lock = threading.Lock()

    @cached_property
    def images(self) -> "Images":
        """The images of the store: load, import, list, inspect, remove."""
        from pyrtc.image.images import Images  # its parsers and decompressors are of no use to a start

        return Images(self.store)

    @cached_property
    def system(self) -> "System":
        """The store as a whole: what it takes, whether it is sound, freeing what nobody uses."""
        from pyrtc.system import System

        return System(self.store, self.containers, lambda: self.images)

    def close(self) -> None:
        """Close the store. Containers that run keep running."""
        self.store.close()

    def __enter__(self) -> "Engine":
        """Return the engine."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close it."""
        self.close()

    # ---- running -------------------------------------------------------------------------------------------------

    def run(
        self,
        image: str,
        options: RunOptions,
        *,
        input: bytes = b"",
        max_output: int = DEFAULT_MAX_OUTPUT,
        on_limit: Literal["truncate", "kill"] = "truncate",
        on_output: Callable[[Stream, bytes], object] | None = None,
    ) -> Completed:
        """Run a container to its end and capture what it writes; see `pyrtc.run`."""
        pipes = open_pipes(feed=bool(input))
        try:
            stdin, stdout, stderr = pipes.container
            running = self.start(image, options, stdin=stdin, stdout=stdout, stderr=stderr)
            try:  # not `with`: an exception out of a signal handler could come before its block
                pipes.close_container_ends()
                capture = Capture(running, pipes, input, max_output=max_output, on_limit=on_limit, on_output=on_output)
                return capture.run()
            finally:
                running.close()
        finally:
            pipes.close()

    def start(
        self,
        image: str,
        options: RunOptions,
        *,
        stdin: int | None = None,
        stdout: int | None = 1,
        stderr: int | None = 2,
        terminal_size: tuple[int, int] | None = None,
    ) -> Running:
        """Start a container in the foreground; returns when its command is executing.

        Parameters
        ----------
        stdin, stdout, stderr: descriptors for the container, which gets them as they are; None is /dev/null. With
            options.tty a terminal takes their place.
        terminal_size: rows and columns of that terminal.

        Raises
        ------
        PyrtcError: what is wrong with the image, an option or this machine; nothing is left behind.
        """
        self._reap_once()
        prepared = _Preparation(self, self._image(image, options.platform), image, options)
        try:
            return prepared.start((stdin, stdout, stderr), terminal_size or (0, 0))
        except BaseException:
            prepared.undo()
            raise

    def plan(self, image: str, options: RunOptions) -> str:
        """Return what would be done to start this container, one operation a line, without doing it."""
        found = self._image(image, options.platform)
        maps = _id_maps_for_plan(options)
        spec = decide("0" * 64, found.config, found.layers, options, maps)
        root = roots.describe(found.layers, options, self.store.rootless)
        resources = Resources(root=root, seccomp=self._filter(spec), devices=host_devices(options))
        plan = assemble(spec, resources, (-1, -1, -1))
        namespaces = f"namespaces      clone={spec.clone_flags:#x} late={spec.late_flags:#x}"
        sources = [f"source          {mount}" for mount in spec.mounts]
        limits = f"limits          {options.limits}"
        return "\n".join([namespaces, limits, *sources, plan.describe()])

    def _image(self, name: str, platform: str | None) -> _Image:
        if name == HOST_IMAGE:
            return self._host
        image = self.store.image(name)
        if image.obstacle:
            raise UnsupportedError(f"cannot use image {name}: {image.obstacle}")
        if image.damaged:
            raise StoreError(f"image {name} is damaged in the store {self.store.root}: load or pull it again")
        if not image.layers:
            raise UsageError(f"image {name} has no layers: there is nothing in it to run")
        if platform is not None:
            _check_platform(name, image, platform)
        return _Image(image.id, image.config, roots.visible_layers(image.layers), image.place)

    def _filter(self, spec: Spec) -> bytes | None:
        if spec.seccomp == "unconfined":
            return None
        return cached_filter(self._cache, spec.seccomp, capabilities=spec.bounding)

    def _reap_once(self) -> None:
        """Put right what killed processes left, once in the life of this engine."""
        if self._reaped:
            return
        with self._lock:
            if not self._reaped:
                self.containers.reap()
                self._reaped = True


def _id_maps_for_plan(options: RunOptions) -> IdMaps | None:
    if options.userns == "keep-id":
        return keep_id()
    return None if os.geteuid() == 0 and options.userns != "auto" else ordinary_user()


def _check_platform(name: str, image: Image, platform: str) -> None:
    from pyrtc.image.platform import Platform

    offered = Platform(image.os, image.architecture, image.variant)
    if Platform.parse(platform).rank(offered) is None:
        raise ImageNotFound(f"image {name} was found but is for {offered}, not for {platform}: load that variant of it")


class _Preparation:
    """One start on its way: what was made so far, and how to take it back."""

    def __init__(self, engine: Engine, image: _Image, name: str, options: RunOptions) -> None:
        self.engine = engine
        self.image = image
        self.image_name = name
        self.options = options
        self.store = engine.store
        self.cgroup: Cgroup | None = None
        self.container_id = new_id()
        self.started: Started | None = None
        self.running: Running | None = None
        self.owned = ExitStack()  # what the start needs open
        self.held = ExitStack()  # what the container needs for its life
        self.unclaimed: list[str] = []  # anonymous volumes that no row of a container names yet

    def start(self, stdio: tuple[int | None, int | None, int | None], terminal_size: tuple[int, int]) -> Running:
        options, store = self.options, self.store
        maps, userns_fd = self._user_namespace()
        volumes = self._volumes()
        kept = roots.needs_directory(options)
        record = store.containers.allocate(
            name=options.name,
            image_id=self.image.id,
            elsewhere=bool(self.image.place),
            options_json=_describe(self.image_name, options, self.image.config.stop_signal),
            directory=kept,
            remove=options.remove,
            volumes=tuple(volume for volume, _path in volumes.values()),
            container_id=self.container_id,
        )
        self.unclaimed.clear()
        host = self.image.layers == roots.HOST_LAYERS
        if not host:
            layers = store.with_own_directories(self.image.id, self.image.layers)
            self.image = replace(self.image, layers=layers)
        spec = decide(record.id, self.image.config, self.image.layers, options, maps)
        self.cgroup = self._make_cgroup(record.id, spec)
        root = roots.open_root(store, self.image.layers, record.directory, options, maps, userns_fd, self.owned)
        paths = {target: path for target, (_name, path) in volumes.items()}
        roots.fill_volumes(store, self.image.layers, spec.mounts, volumes)
        resources = Resources(
            root=root,
            beneath=roots.beneath(self.image.layers, root, record.directory, userns_fd, self.owned),
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
            seccomp=self.engine._filter(spec),
            network_fd=self._spare_network(spec),
            terminal_size=terminal_size,
        )
        plan = assemble(spec, resources, (-1, -1, -1) if options.tty else [self._descriptor(fd) for fd in stdio])
        started = self.started = start(
            spec,
            plan,
            cgroup_fd=self.cgroup.into_fd,
            kill_fd=self._kill_fd(spec),
            network_ready=resources.network_fd is not None,
        )
        self.running = Running(
            container_id=record.id,
            name=record.name,
            args=spec.argv,
            pid=started.pid,
            pidfd=started.pidfd,
            terminal_fd=started.terminal_fd,
            timeout=options.timeout,
            cgroup=self.cgroup,
            own_pids=spec.own_pids,
            on_end=self._ended,
            warnings=self.cgroup.warnings,
        )
        self.owned.close()
        self.cgroup.close()
        store.containers.started(record.id, started.pid, process_start_time(started.pid) or 0)
        return self.running

    def _user_namespace(self) -> tuple[IdMaps | None, int]:
        userns = self.options.userns
        if self.store.rootless:
            if userns == "host":
                raise UnsupportedError(
                    "--userns host needs root: an ordinary user has no rights outside a user namespace"
                )
            if userns == "auto":
                raise UnsupportedError("--userns auto needs root; an ordinary user's containers are in one anyway")
            return (keep_id() if userns == "keep-id" else ordinary_user()), -1
        if userns == "keep-id":
            keep_id()  # says why not
        if userns != "auto":
            return None, -1
        if self.options.privileged:
            raise UsageError("--privileged and --userns auto contradict each other")
        taken = automatic(_ID_LOCKS)
        self.held.callback(os.close, taken.lock_fd)
        fd = mapped_namespace(taken.maps, helper_fd())
        self.owned.callback(os.close, fd)
        return taken.maps, fd

    def _volumes(self) -> dict[str, tuple[str, str]]:
        """Target -> name and directory of each volume, made where it is missing."""
        found = {}
        wanted = {mount_target(target, "a volume of the image"): "" for target in self.image.config.volumes}
        for mount in self.options.mounts:
            target = mount_target(mount.target)
            wanted.pop(target, None)
            if isinstance(mount, Volume):
                wanted[target] = mount.name
        for target, name in wanted.items():
            volume = self.store.volumes.create(name)
            if not name:
                self.unclaimed.append(volume.name)
            found[target] = (volume.name, volume.path)
        return found

    def _make_cgroup(self, container_id: str, spec: Spec) -> Cgroup:
        limits: Limits = self.options.limits
        rules = allowed_rules(spec, self.options)
        if rules is not None:
            limits = replace(limits, devices=rules)
        return Cgroup.create(
            container_id, limits, best_effort=self.options.best_effort, accounting=self.options.accounting
        )

    def _shows_cgroups(self) -> bool:
        """On version 2 always; on version 1 only where the container has cgroups of its own."""
        assert self.cgroup is not None
        return self.options.cgroupns != "host" and (self.cgroup.hierarchy.mode == "v2" or bool(self.cgroup.tasks_fds))

    def _kill_fd(self, spec: Spec) -> int | None:
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

    def _spare_network(self, spec: Spec) -> int | None:
        """A network namespace made ahead belongs to the host's user namespace, so it is for containers that do."""
        if not spec.own_network or spec.id_maps is not None:
            return None
        fd = spare_networks.take()
        if fd is not None:
            self.owned.callback(os.close, fd)
        return fd

    def _descriptor(self, fd: int | None) -> int:
        if fd is not None:
            return fd
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.owned.callback(os.close, null)
        return null

    def _ended(self, running: Running, completed: Completed | None) -> None:
        release(running.pidfd)
        self._release(removed=self.options.remove)
        if not self.options.remove and completed is not None:
            text = f'{{"returncode": {completed.returncode}, "outcome": "{completed.outcome.value}"}}'
            self.store.containers.exited(running.id, text.encode())

    def undo(self) -> None:
        """Take back what a failed start made."""
        try:
            if self.running is not None:
                self.running.close()
            elif self.started is not None:
                abandon(self.started.pidfd)
        finally:
            self._release(removed=True)

    def _release(self, *, removed: bool) -> None:
        with self.held:
            self.owned.close()
            try:
                if self.cgroup is not None:
                    self.cgroup.close()
                    self.cgroup.remove()
            finally:
                if removed:
                    self.store.containers.remove(self.container_id)
                for volume in self.unclaimed:
                    self.store.volumes.remove(volume)


@lru_cache(maxsize=128)
def _describe(image: str, options: RunOptions, stop_signal: str | None) -> bytes:
    """What the store remembers of a container: enough to list it, and to stop it as it wants to be stopped."""
    import json

    words = {
        "image": image,
        "command": options.command,
        "labels": dict(options.labels),
        "stop_signal": signal_number(options.stop_signal or stop_signal or "TERM"),
        "stop_timeout": options.stop_timeout,
    }
    return json.dumps(words).encode(errors="surrogateescape")
