"""The R/W layer of a container: what it changed, as an image, as a snapshot, and the whole root as a tar."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

from pyrtc import core
from pyrtc.errors import ContainerNotFound, StoreError, UnsupportedError
from pyrtc.options import RunOptions
from pyrtc.runtime import roots
from pyrtc.runtime.cgroups import Cgroup
from pyrtc.runtime.ids import mapped_namespace
from pyrtc.start_image import HOST_IMAGE, find_image
from pyrtc.states import is_alive
from pyrtc.store import ContainerRecord, Image, Store
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.engine import Engine
    from pyrtc.store.snapshots import SnapshotRecord

__all__ = ["Change", "RwLayer", "export_to", "merge_options"]

# Mounted over in every container.
_COVERED = ("/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")


@dataclass(frozen=True, slots=True)
class Change:
    """One path that a container changed: kind ``A`` (added), ``C`` (changed) or ``D`` (deleted)."""

    kind: Literal["A", "C", "D"]
    path: str


class RwLayer:
    """What one container has written, on the disk.

    Parameters
    ----------
    what: is to be done with it. whole: a full copy will do for that.

    Raises
    ------
    UnsupportedError: it is kept in memory, is a full copy, or stands on the running system.
    """

    def __init__(self, engine: "Engine", record: ContainerRecord, what: str, *, whole: bool = False) -> None:
        from pyrtc.store.records import load_options

        self._engine = engine
        self.store: Store = engine.store
        self.record = record
        self.options: RunOptions = load_options(record.spec) if record.spec is not None else RunOptions()
        if record.image_id == HOST_IMAGE:
            raise UnsupportedError(f"cannot {what} a container on the pseudo-image 'host': it stands on no image")
        if record.directory is None or roots.in_memory(self.options):
            raise UnsupportedError(
                f"cannot {what} a container with --rw-layer memory: what it writes is nowhere but in its own mounts"
            )
        if self.options.driver == "copy" and not whole:
            raise UnsupportedError(
                f"cannot {what} a container with --driver copy: it has a copy of all files instead of a R/W layer"
            )
        self.upper = f"{record.directory}/upper"
        self._first_id: int | None = None  # of the container's user namespace

    @property
    def image(self) -> Image:
        """The image below."""
        return self.store.image(self.record.image_id)

    @property
    def snapshots(self) -> "tuple[SnapshotRecord, ...]":
        """The snapshots between the image and the R/W layer, top first."""
        return self.store.snapshots.below(self.record.id)

    def stack(self) -> tuple[str, ...]:
        """Return the directories that the container's root consists of, top first."""
        image = find_image(self.store, self.record.image_id, None)
        below = self.store.with_own_directories(image.id, image.layers)
        return (self.upper, *roots.visible_layers((*(snapshot.path for snapshot in self.snapshots), *below)))

    def targets(self) -> tuple[str, ...]:
        """Return where something is mounted."""
        rows = self.store.database.rows(
            "SELECT target FROM container_volumes WHERE container_id = ? AND target != ''", (self.record.id,)
        )
        return (*_COVERED, *(mount.target for mount in self.options.mounts), *(row[0] for row in rows))

    def mount_points(self) -> tuple[str, ...]:
        """Return what is in the R/W layer only to be mounted on."""
        return tuple(self.store.trees.mount_points(self.stack(), self.targets(), shift=self._shift()))

    def _shift(self) -> int:
        """What ids of the R/W layer are above those of the image's layers: with --userns auto they are the host's."""
        if self.options.userns != "auto":
            return 0
        if self._first_id is None:
            self._first_id = self._find_first_id()
        return self._first_id

    def _find_first_id(self) -> int:
        if self.record.ids is not None:
            return self.record.ids
        try:
            with open(f"/proc/{self.record.pid}/uid_map") as file:  # noqa: PTH123  (no pathlib on the way to a start)
                return int(file.read().split()[1])
        except (OSError, IndexError):
            raise StoreError(
                f"nobody knows any more which user ids container {self.record.name} had: only while it runs can this "
                "be done with a container that goes when it ends"
            ) from None

    # ---- what can be done with it --------------------------------------------------------------------------------

    def changes(self) -> tuple[Change, ...]:
        """See `Container.diff`."""
        found = self.store.trees.changes(self.stack(), self.mount_points(), shift=self._shift())
        return tuple(Change(kind, path) for kind, path in found)  # type: ignore[arg-type]

    def commit(self, name: str | None, *, author: str, message: str, changes: Sequence[str], pause: bool) -> Image:
        """See `Container.commit`."""
        from pyrtc.image.changes import apply_changes
        from pyrtc.image.commit import History, NewLayer, commit_layers
        from pyrtc.image.images import chosen_name

        reference = chosen_name(name) if name is not None else None
        apply_changes({}, tuple(changes))  # what is wrong is told before anything stops

        def configure(config: dict[str, Any]) -> None:
            merge_options(config, self.options)
            apply_changes(config, tuple(changes))

        spec = find_image(self.store, self.record.image_id, None).config
        words = [*(self.options.entrypoint or spec.entrypoint or ()), *(self.options.command or spec.cmd or ())]
        history = History(author, message, " ".join(words))
        base = self.image
        with ExitStack() as owned, ExitStack() as paused:
            layers = [
                NewLayer(_directory(snapshot.path, owned), snapshot.mount_points)
                for snapshot in reversed(self.snapshots)
            ]
            if pause:
                changing = "stop it first, or take what is there while it changes with pause=False (--pause=false)"
                paused.enter_context(self.paused(changing))
            layers.append(NewLayer(self._tree(owned), self.mount_points()))
            return commit_layers(self.store, base, layers, reference, configure, history, paused.close)

    def _tree(self, owned: ExitStack) -> int:
        """Open the R/W layer with the owners that the image has."""
        fd = _directory(self.upper, owned)
        shift = self._shift()
        if not shift:
            return fd
        from pyrtc.ids import IdMaps, Range
        from pyrtc.runtime.helper import helper_fd
        from pyrtc.runtime.ids import AUTO_COUNT

        back = (Range(shift, 0, AUTO_COUNT),)
        userns_fd = mapped_namespace(IdMaps(back, back, privileged=True), helper_fd())
        try:
            mapped = core.clone_mount(fd, userns_fd=userns_fd)
        finally:
            os.close(userns_fd)
        owned.callback(os.close, mapped)
        return mapped

    def snapshot(self, name: str | None, *, stop: bool, timeout: float | None, durable: bool) -> "SnapshotRecord":
        """See `Container.snapshot`."""
        record, store = self.record, self.store
        durable = durable or not record.remove
        snapshots, asked = store.snapshots, self._asked()
        shift, whole = self._shift(), self.options.driver == "copy"  # while it runs, who may know its ids is there
        if is_alive(record) and record.state == "running" and not stop:
            with self.paused("stop it first, or with stop=True (--stop)"):
                return self._copied(asked, name, durable=durable)
        with self._stopped(timeout), store.lives.hold(record.id):
            if shift or whole:  # others need other owners; it goes on with its own copy
                return self._copied(asked, name, durable=durable)
            points = self.mount_points()
            return snapshots.take(record, asked, name=name, durable=durable, mount_points=points)

    def _copied(self, asked: str, name: str | None, *, durable: bool) -> "SnapshotRecord":
        with ExitStack() as owned:
            return self.store.snapshots.copy(
                self.record,
                asked,
                self._tree(owned),
                name=name,
                durable=durable,
                mount_points=self.mount_points(),
                whole=self.options.driver == "copy",
            )

    def _asked(self) -> str:
        import json

        said: str = json.loads(self.record.options or b"{}").get("image", self.record.image_id)
        return said

    @contextmanager
    def _stopped(self, timeout: float | None) -> Iterator[None]:
        """End the container, if it runs, and keep what it wrote from going with it."""
        from pyrtc.ending import remove, stop
        from pyrtc.store.container_rows import DETACHED, FOREGROUND
        from pyrtc.store.locks import try_lock_directory

        record, store = self.record, self.store
        if not (record.state == "running" and is_alive(record)):
            yield
            return
        # Whoever waits for a container in the foreground removes it at its end; a locked directory is left alone.
        lock = try_lock_directory(store.containers.fd, record.id) if record.detached == FOREGROUND else None
        try:
            stop(store, record, timeout=timeout, keep=True)
            yield
        finally:
            if lock is not None:
                lock.close()
            if record.remove and record.detached == DETACHED:
                remove(store, store.containers.get(record.id), force=True, volumes=True)
            elif record.detached == FOREGROUND:
                self._forget_directory()

    def _forget_directory(self) -> None:
        """Remove the rest of the directory of a container whose owner has removed the row meanwhile."""
        try:
            self.store.containers.get(self.record.id)
        except ContainerNotFound:
            self.store.staging.discard(self.store.containers.fd, self.record.id)

    def export(self, stream_fd: int) -> None:
        """See `Container.export`."""
        if not self._shift():
            self.store.trees.write_tree(self.stack(), stream_fd)
            return
        with ExitStack() as owned:
            view = core.mount_overlay(
                [self._tree(owned), *(_directory(path, owned) for path in self.stack()[1:])], -1, -1
            )
            owned.callback(os.close, view)
            core.tardiff(view, stream_fd, plain=True)

    @contextmanager
    def paused(self, instead: str) -> Iterator[None]:
        """Stop every process of the container for a block, if it runs and is not paused.

        Parameters
        ----------
        instead: what the caller can do where it cannot be paused.

        Raises
        ------
        UnsupportedError: there is no control group to do it with.
        """
        if not (self.record.state == "running" and is_alive(self.record)):
            yield
            return
        try:
            group = Cgroup.open(self.record.id)
        except ContainerNotFound:
            raise UnsupportedError(
                f"cannot pause container {self.record.name}: it has no control group (an ordinary user needs a "
                f"delegated one); {instead}"
            ) from None
        if group.frozen:
            yield
            return
        group.freeze()
        try:
            yield
        finally:
            group.thaw()


def export_to(layer: RwLayer, target: int | str | os.PathLike[str]) -> None:
    """Write the tar to a descriptor, or to a file of this name, which appears when everything is in it.

    Into a descriptor it goes by way of a pipe: a writer without a reader would be sent a signal in the middle of C.
    """
    from pyrtc.image.save import output
    from pyrtc.store.trees import HashingReader

    with output(target) as write:
        reader = HashingReader(write)
        try:
            layer.export(reader.write_fd)
        finally:
            reader.finish()


def _directory(path: str, owned: ExitStack) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    owned.callback(os.close, fd)
    return fd


def merge_options(config: dict[str, Any], options: RunOptions) -> None:
    """Put what a container was asked to be into its image's config, as `docker commit` does."""
    if options.entrypoint is not None:
        config["Entrypoint"] = list(options.entrypoint) or None
        config["Cmd"] = None
    if options.command:
        config["Cmd"] = list(options.command)
    for name, value in options.env:
        kept = [entry for entry in config.get("Env") or () if entry.partition("=")[0] != name]
        config["Env"] = [*kept, f"{name}={value}"]
    for key, word in (("User", options.user), ("WorkingDir", options.workdir), ("StopSignal", options.stop_signal)):
        if word is not None:
            config[key] = word
    if options.labels:
        config["Labels"] = {**(config.get("Labels") or {}), **dict(options.labels)}
