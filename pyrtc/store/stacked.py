"""What stacked layers show together, copied out of them."""

import os
from collections.abc import Sequence
from contextlib import ExitStack

from pyrtc import core
from pyrtc.errors import StoreError

__all__ = ["copy_from_layers", "tar_of_layers"]

_IN_IMAGE = core.RESOLVE_IN_ROOT | core.RESOLVE_NO_MAGICLINKS


def copy_from_layers(
    layers: Sequence[str], inner: str, target_fd: int, *, rootless: bool, own_user: bool, keep_owner: bool
) -> None:
    """Do what `pyrtc.store.trees.Trees.copy` says, in this process.

    `inner` is resolved inside the image (CVE-2022-23648).
    """
    with ExitStack() as owned:
        if len(layers) == 1:
            view = os.open(layers[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            view = core.mount_view(layers, userxattr=rootless, own_user=own_user)
        owned.callback(os.close, view)
        try:
            source = core.openat2(view, inner.strip("/") or ".", os.O_RDONLY | os.O_DIRECTORY, _IN_IMAGE)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise StoreError(f"cannot read {inner or '/'} of the image: {error.strerror}") from None
        owned.callback(os.close, source)
        target = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target_fd)
        owned.callback(os.close, target)
        core.copy_tree(source, target, keep_owner=keep_owner)


def tar_of_layers(
    layers: Sequence[str],
    stream_fd: int,
    *,
    rootless: bool,
    own_user: bool,
    no_owners: bool,
    left_out: Sequence[str],
    latest: int | None,
) -> "core.TardiffResult":
    """Do what `pyrtc.store.trees.Trees.write_tree` says, in this process."""
    view = core.mount_view(layers, userxattr=rootless, own_user=own_user)
    try:
        return core.tardiff(view, stream_fd, no_owners=no_owners, plain=True, left_out=left_out, latest=latest)
    finally:
        os.close(view)
