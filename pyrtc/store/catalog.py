"""The images of a store, read without opening the rest of it: for lists, which are to be there at once."""

import os

from pyrtc.errors import StoreError
from pyrtc.store.blobs import Blobs
from pyrtc.store.database import Database
from pyrtc.store.images import Image, ImageTable
from pyrtc.store.root import default_root
from pyrtc.store.settings import read_settings

__all__ = ["list_images"]


def list_images(root: str | os.PathLike[str] | None = None) -> tuple[Image, ...]:
    """Return what `ImageTable.list` does; where there is no store there are no images, and none is made.

    Raises
    ------
    StoreError: it cannot be read.
    """
    path = os.path.realpath(root if root is not None else default_root())
    settings = read_settings(path)
    if settings.additional_stores:
        from pyrtc.store.store import Store

        with Store(path) as store:
            return store.images.list()
    if not os.path.exists(f"{path}/pyrtc.db"):
        return ()
    try:
        root_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"cannot open the store {path}: {error.strerror}") from error
    try:
        database = Database(f"{path}/pyrtc.db", root_fd)
        try:
            return ImageTable(database, f"{path}/layers", Blobs(-1)).list()
        finally:
            database.close()
    finally:
        os.close(root_fd)
