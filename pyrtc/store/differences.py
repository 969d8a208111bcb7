"""What a container's R/W layer changes in the layers below it, and what in it is not the container's.

Works on trees in the form that overlayfs stacks, in the process that may read them. The upper tree is the container's:
names are opened one at a time beneath descriptors and without following links.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from pyrtc import core
from pyrtc.errors import StoreError

__all__ = ["changes", "mount_points"]

MAX_DEPTH = 256
_IN_IMAGE = core.RESOLVE_IN_ROOT | core.RESOLVE_NO_MAGICLINKS
_BENEATH = core.RESOLVE_BENEATH | core.RESOLVE_NO_SYMLINKS | core.RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def mount_points(
    layers: Sequence[str], targets: Sequence[str], *, rootless: bool, own_user: bool, shift: int = 0
) -> list[str]:
    """Return what is in the top layer only because something was mounted on it.

    A mount whose target the image lacks has an empty directory or file made for it. It is in the R/W layer, as are the
    directories made or copied up on the way there; what the container itself has put beside it makes those its own.

    Parameters
    ----------
    layers: the R/W layer and those below it, top first. targets: where things were mounted, as the container sees it.
    rootless: overlayfs's marks are user.* attributes. own_user: stack them in a user namespace. shift: what the ids of
    the R/W layer are above those of the others (`--userns auto`).

    Returns
    -------
    Paths relative to the root.
    """
    with ExitStack() as owned:
        upper, lower = _open_both(layers, rootless, own_user, owned)
        merged = core.mount_view(layers, userxattr=rootless, own_user=own_user)
        owned.callback(os.close, merged)
        found: set[str] = set()
        for target in targets:
            path = _resolved(merged, target)
            if path and path not in found and _state(lower, path) is None and _is_empty(upper, path):
                found.add(path)
        # Deepest first, so that a directory is looked at when all that could be in it is known.
        for path in sorted(found, key=lambda text: -text.count("/")):
            parent = os.path.dirname(path)
            while parent and parent not in found and _is_way(upper, lower, parent, found, rootless, shift):
                found.add(parent)
                parent = os.path.dirname(parent)
        return sorted(found)


def _open_both(layers: Sequence[str], rootless: bool, own_user: bool, owned: ExitStack) -> tuple[int, int]:
    upper = os.open(layers[0], _DIRECTORY)
    owned.callback(os.close, upper)
    if len(layers) > 2:
        lower = core.mount_view(layers[1:], userxattr=rootless, own_user=own_user)
    else:
        lower = os.open(layers[1], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    owned.callback(os.close, lower)
    return upper, lower


def _resolved(merged: int, target: str) -> str:
    """Return where a target is in the container's own tree, links resolved inside it; empty where there is nothing."""
    try:
        fd = core.openat2(merged, target.strip("/") or ".", os.O_PATH, _IN_IMAGE)
    except OSError:
        return ""
    try:
        return os.readlink(f"/proc/self/fd/{fd}").strip("/")
    finally:
        os.close(fd)


def _state(root: int, path: str) -> os.stat_result | None:
    try:
        fd = core.openat2(root, path, os.O_PATH | os.O_NOFOLLOW, _BENEATH)
    except OSError:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _names(root: int, path: str) -> list[str] | None:
    try:
        fd = core.openat2(root, path, _DIRECTORY, _BENEATH)
    except OSError:
        return None
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)


def _is_empty(upper: int, path: str) -> bool:
    about = _state(upper, path)
    if about is None:
        return False
    if stat.S_ISDIR(about.st_mode):
        return _names(upper, path) == []
    return stat.S_ISREG(about.st_mode) and about.st_size == 0 and about.st_nlink == 1


def _is_way(upper: int, lower: int, path: str, found: set[str], rootless: bool, shift: int) -> bool:
    """Whether a directory of the upper tree is there only because of what was found in it."""
    names = _names(upper, path)
    here, below = _state(upper, path), _state(lower, path)
    if names is None or here is None or any(f"{path}/{name}" not in found for name in names):
        return False
    fd = core.openat2(upper, path, _DIRECTORY, _BENEATH)
    try:
        if _is_opaque(fd, rootless) and below is not None:
            return False
    finally:
        os.close(fd)
    return below is None or _same(here, below, shift)


def _same(here: os.stat_result, below: os.stat_result, shift: int) -> bool:
    return (here.st_mode, here.st_uid - shift, here.st_gid - shift) == (below.st_mode, below.st_uid, below.st_gid)


def _is_whiteout(about: os.stat_result) -> bool:
    return stat.S_ISCHR(about.st_mode) and about.st_rdev == 0


def _is_opaque(fd: int, rootless: bool) -> bool:
    try:
        return os.getxattr(fd, "user.overlay.opaque" if rootless else "trusted.overlay.opaque") == b"y"
    except OSError:
        return False


def changes(
    layers: Sequence[str], left_out: Sequence[str], *, rootless: bool, own_user: bool, shift: int = 0
) -> list[tuple[str, str]]:
    """Return what the top layer changes: ("A" | "C" | "D", absolute path) pairs, sorted by path.

    As Docker tells it: a directory in which anything changed has changed, too; of a tree that was removed only its root
    is told; a directory that was replaced shows what is no longer in it. Parameters are those of `mount_points`, whose
    result left_out is.

    Raises
    ------
    StoreError: a directory cannot be read, or lies deeper than 256 others.
    """
    with ExitStack() as owned:
        upper, lower = _open_both(layers, rootless, own_user, owned)
        found: dict[str, str] = {}
        passed = frozenset(left_out)
        _Walk(found, passed, rootless, shift).directory(os.dup(upper), _reopened(lower), "", hides=False, depth=0)
        return [(kind, f"/{path}") for path, kind in sorted(found.items(), key=lambda item: os.fsencode(item[0]))]


def _reopened(lower: int) -> int:
    return os.open(".", _DIRECTORY, dir_fd=lower)


class _Walk:
    def __init__(self, found: dict[str, str], left_out: frozenset[str], rootless: bool, shift: int) -> None:
        self._shift = shift
        self._found = found
        self._left_out = left_out
        self._rootless = rootless

    def directory(self, upper: int, lower: int | None, path: str, *, hides: bool, depth: int) -> bool:
        """Look through a directory that is in both, or in the upper tree only; say whether anything in it changed.

        Both descriptors are taken over. hides: nothing of the lower directory shows through: this one or one above it
        is opaque.
        """
        try:
            hides = hides or bool(path and _is_opaque(upper, self._rootless))
            if depth > MAX_DEPTH:
                raise StoreError(f"/{path} lies deeper than {MAX_DEPTH} directories")
            names = sorted(os.listdir(upper))
            any_changed = False
            for name in names:
                inner = f"{path}/{name}" if path else name
                if inner not in self._left_out and self._name(upper, lower, name, inner, hides, depth):
                    any_changed = True
            if lower is not None and hides:
                for inner in self._hidden(lower, names, path):
                    self._found[inner] = "D"
                    any_changed = True
            return any_changed
        except OSError as error:
            raise StoreError(f"cannot read /{path} of the R/W layer: {error.strerror}") from error
        finally:
            os.close(upper)
            if lower is not None:
                os.close(lower)

    def _hidden(self, lower: int, names: Sequence[str], path: str) -> Iterator[str]:
        present = set(names)
        return (f"{path}/{name}" for name in os.listdir(lower) if name not in present)

    def _name(self, upper: int, lower: int | None, name: str, path: str, hides: bool, depth: int) -> bool:
        here = os.stat(name, dir_fd=upper, follow_symlinks=False)
        below = None
        if lower is not None:
            try:
                below = os.stat(name, dir_fd=lower, follow_symlinks=False)
            except FileNotFoundError:
                below = None
            if below is not None and _is_whiteout(below):
                below = None  # of the bottom layer, where nothing is to be hidden
        if _is_whiteout(here):
            if below is not None:
                self._found[path] = "D"
            return below is not None
        if not stat.S_ISDIR(here.st_mode):
            self._found[path] = "A" if below is None else "C"
            return True
        inner_upper = os.open(name, _DIRECTORY, dir_fd=upper)
        inner_lower = None
        if below is not None and stat.S_ISDIR(below.st_mode):
            assert lower is not None
            try:
                inner_lower = os.open(name, _DIRECTORY, dir_fd=lower)
            except OSError:
                os.close(inner_upper)
                raise
        inside = self.directory(inner_upper, inner_lower, path, hides=hides, depth=depth + 1)
        if below is None:
            self._found[path] = "A"
        elif inside or not _same(here, below, self._shift) or here.st_mtime_ns != below.st_mtime_ns:
            self._found[path] = "C"
        return path in self._found
