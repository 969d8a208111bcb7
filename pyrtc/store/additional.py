"""Other stores whose images and layers are used where they are, and which are never written.

Their owner says ``shared = true`` in ``config.toml`` of the store; whoever uses them names them in the setting
``additional_stores``. Root uses root's only: whoever owns a tree can change it at any time, and may not thereby decide
what root runs. An ordinary user may use anybody's, which is what naming it means.

An ordinary user sees the trees of another owner with that one's modes, as a stranger: what the image lets nobody but
root read or write cannot be read or written, and files that belong to an owner outside the user's ids show as nobody's.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from pyrtc.errors import StoreError
from pyrtc.store.blobs import Blobs
from pyrtc.store.database import Database
from pyrtc.store.images import Image, ImageTable
from pyrtc.store.layer_blobs import LayerBlobs
from pyrtc.store.layers import Layer, LayerRows
from pyrtc.values import replace

__all__ = ["AdditionalStore"]


class AdditionalStore:
    """A store that is read only.

    Parameters
    ----------
    root: its directory. rootless: the store that it is read for is an ordinary user's.

    Raises
    ------
    StoreError: it is none, may not be read or trusted, or is of another version.
    """

    def __init__(self, root: str, *, rootless: bool) -> None:
        self.root = root
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        self._fds: list[int] = []
        try:
            self._fds.append(os.open(root, flags))
            self._fds.append(os.open("blobs", flags, dir_fd=self._fds[0]))
            status = os.fstat(self._fds[0])
        except OSError as error:
            self.close()
            raise StoreError(
                f"cannot use the additional store {root}: {error.strerror}: its owner shares it with shared = true in "
                f"{root}/config.toml; or take it out of additional_stores"
            ) from error
        # The marks by which overlayfs hides directories are trusted.* attributes in root's store, user.* in others.
        self._same_marks = (status.st_uid != 0) == rootless
        self._check(status, rootless)
        self.database = Database(f"{root}/pyrtc.db", self._fds[0], read_only=True)
        self.blobs = Blobs(self._fds[1])
        self.layer_blobs = LayerBlobs(self.database, self.blobs)
        self.layers = LayerRows(f"{root}/layers", self.database)
        self.images = ImageTable(self.database, f"{root}/layers", self.blobs, place=root)

    def _check(self, status: os.stat_result, rootless: bool) -> None:
        wrong = ""
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            wrong = "anybody may write to it"
        elif not rootless and status.st_uid != 0:
            wrong = f"it belongs to user {status.st_uid}, who could change what root runs; root uses root's stores only"
        if wrong:
            self.close()
            raise StoreError(f"cannot use the additional store {self.root}: {wrong}")

    def close(self) -> None:
        """Close it."""
        if hasattr(self, "database"):
            self.database.close()
        while self._fds:
            os.close(self._fds.pop())

    def usable(self, found: Sequence[Layer | None]) -> list[Layer | None]:
        """Return layers of a stack with this store as their place; None for those that cannot be used from there."""
        usable: list[Layer | None] = []
        for position, layer in enumerate(found):
            hidden = layer is not None and position > 0 and layer.opaque != 0 and not self._same_marks
            there = layer is not None and Path(self.layers.directory(layer.key)).is_dir()
            usable.append(replace(layer, place=self.root) if layer is not None and there and not hidden else None)
        return usable

    def shown(self, image: Image) -> Image:
        """Return an image as the store sees it that this one is read for."""
        layers = self.layers.of_image(image.id)
        # Nothing lies below the bottom layer that it could hide.
        if not self._same_marks and any(layer.opaque for layer in layers[1:]):
            return replace(
                image,
                obstacle=f"it is in the additional store {self.root} of another kind of user, and hides directories of "
                "its own lower layers with marks that cannot be read from here: load or pull it into your own store",
            )
        return image
