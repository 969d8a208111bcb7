"""The engine: one store, and the containers that are started from it."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from pyrtc.capture import DEFAULT_MAX_OUTPUT, Capture, Stream, open_pipes
from pyrtc.container import Completed, Running
from pyrtc.containers import Containers
from pyrtc.foreground import Foreground
from pyrtc.ids import IdMaps, keep_id, ordinary_user
from pyrtc.options import RunOptions
from pyrtc.preparation import Preparation, seccomp_filter
from pyrtc.runtime import roots
from pyrtc.runtime.assembly import Resources, assemble
from pyrtc.runtime.devices import host_devices
from pyrtc.runtime.spec import decide
from pyrtc.start_image import find_image
from pyrtc.store import Store

if TYPE_CHECKING:
    from pyrtc.events import Event
    from pyrtc.image.images import Images
    from pyrtc.network.overlay.cluster import Cluster
    from pyrtc.networks import Networks
    from pyrtc.snapshots import Snapshot, Snapshots
    from pyrtc.store.settings import BlobPolicy
    from pyrtc.system import System
    from pyrtc.volumes import Volumes

__all__ = ["Engine"]


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
        self.containers = Containers(self)
        # Containers in the foreground that go when they end are many and short: only the command line tells of them.
        self.tells_of_all = False
        self._reaped = False
        self._lock = threading.Lock()

    @cached_property
    def images(self) -> "Images":
        """The images of the store: load, import, list, inspect, remove."""
        from pyrtc.image.images import Images  # its parsers and decompressors are of no use to a start

        return Images(self.store)

    @cached_property
    def cluster(self) -> "Cluster":
        """The hosts that this one shares overlay networks with."""
        from pyrtc.network.overlay.cluster import Cluster

        return Cluster(self.store)

    @cached_property
    def networks(self) -> "Networks":
        """The networks of the store."""
        from pyrtc.networks import Networks

        return Networks(self.store, self.containers)

    @cached_property
    def snapshots(self) -> "Snapshots":
        """The snapshots of the store: frozen R/W layers of containers."""
        from pyrtc.snapshots import Snapshots

        return Snapshots(self.store)

    @cached_property
    def volumes(self) -> "Volumes":
        """The volumes of the store."""
        from pyrtc.volumes import Volumes

        return Volumes(self.store)

    @cached_property
    def system(self) -> "System":
        """The store as a whole: what it takes, whether it is sound, freeing what nobody uses."""
        from pyrtc.system import System

        return System(self.store, self.containers, lambda: self.images)

    def events(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        filters: "Mapping[str, str | Sequence[str]] | None" = None,
        follow: bool = False,
    ) -> "Iterator[Event]":
        """Return what happened in the store, whoever did it, and with follow wait for what happens.

        What this program runs in the foreground with remove, as `pyrtc.run` does, is not told of.

        Parameters
        ----------
        since, until: only events of this time, seconds since the epoch; None: from the oldest that is kept (the latest
            4 MiB at least) to the newest. With follow, None is from now, and until the iterator is closed; waiting ends
            at until.
        filters: words of ``docker events --filter``, each with a value or several of which one must fit: ``type``,
            ``event``, ``container`` (the beginning of an id or name), ``image``, ``volume``, ``network``, ``label``
            (``NAME`` or ``NAME=VALUE``, all must fit), ``scope``.

        Raises
        ------
        UsageError: a filter that there is not. StoreError: the events cannot be read, or this user watches as many
        directories as the system allows.
        """
        from pyrtc.event_stream import events

        return events(self.store, since=since, until=until, filters=filters, follow=follow)

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
        image: "str | Snapshot",
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
        image: "str | Snapshot",
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
        self.reap_once()
        prepared = Preparation(self.store, find_image(self.store, image, options.platform), image, options)
        foreground = Foreground(prepared, told=self.tells_of_all or not options.remove)
        try:
            return foreground.start((stdin, stdout, stderr), terminal_size or (0, 0))
        except BaseException:
            prepared.undo()
            raise

    def plan(self, image: "str | Snapshot", options: RunOptions) -> str:
        """Return what would be done to start this container, one operation a line, without doing it."""
        found = find_image(self.store, image, options.platform)
        layers = roots.visible_layers((*found.above, *found.layers)) if found.above else found.layers
        maps = _id_maps_for_plan(options)
        spec = decide("0" * 64, found.config, layers, options, maps)
        root = roots.describe(layers, options, self.store.rootless)
        resources = Resources(root=root, seccomp=seccomp_filter(self.store, spec), devices=host_devices(options))
        plan = assemble(spec, resources, (-1, -1, -1))
        namespaces = f"namespaces      clone={spec.clone_flags:#x} late={spec.late_flags:#x}"
        sources = [f"source          {mount}" for mount in spec.mounts]
        limits = f"limits          {options.limits}"
        egress = [] if options.egress is None else [f"egress          {' '.join(options.egress) or 'none'}"]
        return "\n".join([namespaces, limits, *egress, *sources, plan.describe()])

    def reap_once(self) -> None:
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
