"""`Written`: a container's R/W layer, on its handle: what changed, and as an image, a snapshot or a tar."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyrtc.handle import Handle

if TYPE_CHECKING:
    from pyrtc.rw_layer import Change, RwLayer
    from pyrtc.snapshots import Snapshot
    from pyrtc.store import Image

__all__ = ["Written"]


class Written(Handle):
    """What a container wrote, and what can be made of it. See `pyrtc.Container`."""

    def diff(self) -> "tuple[Change, ...]":
        """Return what it changed in the files of its image, sorted by path; what is mounted does not count.

        A directory in which something changed has changed, too. Of a tree that was removed only its root is told.

        Raises
        ------
        UnsupportedError: its R/W layer is in memory, it has a copy of all files (driver="copy"), or it stands on
        "host". StoreError: a file cannot be read.
        """
        return self._rw_layer("tell what was changed by").changes()

    def commit(
        self,
        name: str | None = None,
        *,
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
    ) -> "Image":
        """Make an image of its image and what it wrote; a container that runs goes on afterwards.

        The image's config is that of the container's image, with the command, entrypoint, variables, user, workdir,
        stop signal and labels that the container was started with, and then with changes. What is mounted is not in it.
        The variable SOURCE_DATE_EPOCH (seconds) makes the same files give the same image.

        Parameters
        ----------
        name: None for an image without a name. author, message: for the history. changes: lines in Dockerfile's words:
        CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR. pause: every
        process is stopped while the files are read, so that they fit together.

        Raises
        ------
        UnsupportedError: as for `diff`; or it runs and cannot be paused. UsageError: a change cannot mean anything.
        StoreError: no space, or a file that no layer can hold (a name that begins with .wh.).
        """
        from pyrtc.ended import event_attributes
        from pyrtc.events import emit

        layer = self._rw_layer("commit")
        made = layer.commit(name, author=author, message=message, changes=changes, pause=pause)
        emit(self.engine.store, "container", "commit", self.id, {**event_attributes(layer.record), "imageID": made.id})
        return made

    def snapshot(
        self, name: str | None = None, *, stop: bool = False, timeout: float | None = None, durable: bool = False
    ) -> "Snapshot":
        """Freeze what it wrote, so that any number of containers can be started from there.

        With stop=True, or when it does not run, nothing is copied: its R/W layer becomes the snapshot, at the price of
        a rename however large it is, and the container itself stands on it with an empty one. Without, it is paused
        while its R/W layer is copied, which shares the data where the file system can (XFS, Btrfs, bcachefs: reflinks).
        With userns="auto" and driver="copy" it is copied in any case: files belong to user ids of this container's own,
        or are all of its root.

        Parameters
        ----------
        name: None for one without. stop: end it first; timeout: as for `stop`. durable: the snapshot survives when the
        machine goes down, which takes writing its data to the disk; one of a container that is kept always does.

        Raises
        ------
        UnsupportedError: it keeps its R/W layer in memory, or stands on the running system; it runs and cannot be
        paused. StoreError: the name is taken; nobody knows the ids that a container with userns="auto" had.
        ContainerError: it does not end.
        """
        from pyrtc.snapshots import snapshot_of

        return snapshot_of(
            self._rw_layer("make a snapshot of", whole=True).snapshot(name, stop=stop, timeout=timeout, durable=durable)
        )

    def export(self, target: int | str | os.PathLike[str]) -> None:
        """Write all files of its root as a tar: image and R/W layer together, nothing of what is mounted.

        It is not paused: what changes meanwhile may be in it as before or after.

        Parameters
        ----------
        target: a path, where the file appears whole or not at all, or an open descriptor, which may be a pipe.

        Raises
        ------
        UnsupportedError: as for `diff`. StoreError: a file cannot be read. UsageError: the target cannot be written.
        """
        from pyrtc.ended import event_attributes
        from pyrtc.events import emit
        from pyrtc.rw_layer import export_to

        layer = self._rw_layer("export")
        export_to(layer, target)
        emit(self.engine.store, "container", "export", self.id, event_attributes(layer.record))

    def _rw_layer(self, what: str, *, whole: bool = False) -> "RwLayer":
        from pyrtc.rw_layer import RwLayer

        return RwLayer(self.engine, self.record, what, whole=whole)
