"""Who a container runs as: names looked up in the image's own files, or in those of a container that runs.

The files are hostile. An image's are read as data from the layers, one after the other as overlayfs would show them,
through openat2 without links; those of a running container through its root, which no link leads out of. A FIFO or a
file of gigabytes is refused, not waited for. A number is always an id and never a name (CVE-2016-3697), and a number
beyond 32 bits is an error (CVE-2024-40635).
"""

import os
import stat
from collections.abc import Sequence
from functools import lru_cache

from pyrtc import core
from pyrtc.errors import StartError, UsageError
from pyrtc.values import dataclass

__all__ = ["Identity", "identify", "identify_running"]

MAX_FILE = 4 << 20
MAX_ID = (1 << 32) - 2
_RESOLVE = core.RESOLVE_BENEATH | core.RESOLVE_NO_SYMLINKS | core.RESOLVE_NO_MAGICLINKS
_RESOLVE_RUNNING = core.RESOLVE_IN_ROOT | core.RESOLVE_NO_MAGICLINKS
_MAX_REMEMBERED = 64 << 10  # bytes of a file that a running container can change


@dataclass(frozen=True, slots=True)
class Identity:
    """Numeric ids of a process, the home directory of its user, and the supplementary groups.

    `added` are those of the groups that were asked for, not only found in the image's files.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    added: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def identify(user: str | None, group_add: Sequence[str], layers: tuple[str, ...]) -> Identity:
    """Return who `user` ("", "name", "uid", "name:group", "uid:gid") is in the image made of layers, top first.

    Raises
    ------
    StartError: the name is in none of the image's files.
    UsageError: a number is beyond what an id can be.
    """
    return _identify(user, group_add, _ImageNames(layers))


def identify_running(user: str | None, group_add: Sequence[str], root_fd: int) -> Identity:
    """Return who `user` is in a running container, by the files below its root; raises as `identify`."""
    return _identify(user, group_add, _RunningNames(root_fd))


class _ImageNames:
    """The accounts and groups of an image."""

    owner = "image"

    def __init__(self, layers: tuple[str, ...]) -> None:
        self._layers = layers

    def accounts(self) -> "tuple[_Account, ...]":
        return _accounts(self._layers, _version(self._layers, "passwd"))

    def groups(self) -> "tuple[_Group, ...]":
        return _groups(self._layers, _version(self._layers, "group"))


class _RunningNames:
    """The accounts and groups of a running container."""

    owner = "container"

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd

    def accounts(self) -> "tuple[_Account, ...]":
        content = self._read("etc/passwd")
        return _parse_accounts(content) if len(content) > _MAX_REMEMBERED else _known_accounts(content)

    def groups(self) -> "tuple[_Group, ...]":
        content = self._read("etc/group")
        return _parse_groups(content) if len(content) > _MAX_REMEMBERED else _known_groups(content)

    def _read(self, path: str) -> bytes:
        try:
            fd = core.openat2(self._root_fd, path, os.O_PATH, _RESOLVE_RUNNING)
        except (FileNotFoundError, NotADirectoryError):
            return b""
        except OSError as error:
            raise StartError(f"/{path} of the container cannot be read: {error.strerror}") from None
        try:
            return _read_regular(fd, f"/{path}", self.owner)
        finally:
            os.close(fd)


_Names = _ImageNames | _RunningNames


def _identify(user: str | None, group_add: Sequence[str], names: _Names) -> Identity:
    name, _, group = (user or "0").partition(":")
    name = name or "0"
    number = _number(name, "user")
    try:
        account = _find_account(name, number, names.accounts())
    except StartError:
        if number is None:
            raise
        account = None  # without a file that can be read a number is still a number
    uid = account.uid if account else number
    if uid is None:
        raise StartError(f"unable to find user {name}: no matching entries in the {names.owner}'s passwd file")
    gid = account.gid if account else 0
    groups: tuple[int, ...] = ()
    if group:
        gid = _group_id(group, names)
    elif account:
        try:
            groups = tuple(entry.gid for entry in names.groups() if account.name in entry.members and entry.gid != gid)
        except StartError:
            if number is None:
                raise
    extra = tuple(_group_id(word, names) for word in group_add)
    return Identity(uid, gid, tuple(dict.fromkeys((*groups, *extra))), account.home if account else "/", extra)


def _find_account(name: str, number: int | None, accounts: tuple[_Account, ...]) -> _Account | None:
    if number is not None:
        return next((account for account in accounts if account.uid == number), None)
    return next((account for account in accounts if account.name == name), None)


def _group_id(word: str, names: _Names) -> int:
    number = _number(word, "group")
    if number is not None:
        return number
    for group in names.groups():
        if group.name == word:
            return group.gid
    raise StartError(f"unable to find group {word}: no matching entries in the {names.owner}'s group file")


def _number(word: str, what: str) -> int | None:
    if not (word.isascii() and word.isdigit()):
        return None
    if len(word) > 10 or int(word) > MAX_ID:
        raise UsageError(f"{what} id {word[:20]} is beyond the range 0-{MAX_ID}")
    return int(word)


def _version(layers: tuple[str, ...], file: str) -> int:
    """Layers never change; the running system does."""
    try:
        return os.stat(f"/etc/{file}").st_mtime_ns if layers == ("/",) else 0
    except OSError:
        return 0


@lru_cache(maxsize=256)
def _accounts(layers: tuple[str, ...], _version: int) -> tuple[_Account, ...]:
    return _parse_accounts(read_image_file(layers, "etc", "passwd"))


def _parse_accounts(content: bytes) -> tuple[_Account, ...]:
    found = []
    for fields in _fields(content, 7):
        uid, gid = _number_or_none(fields[2]), _number_or_none(fields[3])
        if uid is not None and gid is not None:
            found.append(_Account(fields[0], uid, gid, fields[5] or "/"))
    return tuple(found)


@lru_cache(maxsize=256)
def _groups(layers: tuple[str, ...], _version: int) -> tuple[_Group, ...]:
    return _parse_groups(read_image_file(layers, "etc", "group"))


def _parse_groups(content: bytes) -> tuple[_Group, ...]:
    found = []
    for fields in _fields(content, 4):
        gid = _number_or_none(fields[2])
        if gid is not None:
            found.append(_Group(fields[0], gid, tuple(fields[3].split(","))))
    return tuple(found)


_known_accounts = lru_cache(maxsize=64)(_parse_accounts)
_known_groups = lru_cache(maxsize=64)(_parse_groups)


def _number_or_none(word: str) -> int | None:
    """Return an id, or None for a line that names none: such a line is no account."""
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 10 and int(word) <= MAX_ID else None


def _fields(content: bytes, count: int) -> list[list[str]]:
    text = content.decode(errors="surrogateescape")
    lines = (line.strip() for line in text.split("\n"))
    rows = (line.split(":") for line in lines if line and line[0] not in "#+-")
    return [row + [""] * (count - len(row)) for row in rows if len(row) >= count - 1]


def read_image_file(layers: tuple[str, ...], directory: str, name: str) -> bytes:
    """Return directory/name as the stacked layers show it; b"" where there is none.

    Raises
    ------
    StartError: it is not a regular file, or larger than 4 MiB.
    """
    for layer in layers:
        layer_fd = os.open(layer, os.O_PATH | os.O_DIRECTORY)
        try:
            answer = _read_in_layer(layer_fd, directory, name)
        finally:
            os.close(layer_fd)
        if answer is not None:
            return answer
    return b""


def _read_in_layer(layer_fd: int, directory: str, name: str) -> bytes | None:
    """Return the content, b"" when this layer says that there is none, None when it says nothing."""
    try:
        parent_fd = core.openat2(layer_fd, directory, os.O_PATH, _RESOLVE)
    except OSError as error:
        return None if isinstance(error, FileNotFoundError) else b""
    try:
        if not stat.S_ISDIR(os.fstat(parent_fd).st_mode):
            return b""  # a whiteout, or a file in the directory's place
        try:
            fd = core.openat2(parent_fd, name, os.O_PATH, _RESOLVE)
        except FileNotFoundError:
            return b"" if _is_opaque(parent_fd) else None
        except OSError as error:
            raise StartError(f"/{directory}/{name} of the image cannot be read: {error.strerror}") from None
        try:
            return _read_regular(fd, f"/{directory}/{name}")
        finally:
            os.close(fd)
    finally:
        os.close(parent_fd)


def _read_regular(fd: int, path: str, owner: str = "image") -> bytes:
    about = os.fstat(fd)
    if stat.S_ISCHR(about.st_mode) and about.st_rdev == 0:
        return b""  # a whiteout
    if not stat.S_ISREG(about.st_mode):
        raise StartError(f"{path} of the {owner} is not a regular file; give the user as a number")
    if about.st_size > MAX_FILE:
        raise StartError(
            f"{path} of the {owner} has {about.st_size} bytes, more than {MAX_FILE}; give the user as a number"
        )
    # Only now is it opened: to open a device node, such as a watchdog's, is to use it.
    try:
        with open(f"/proc/self/fd/{fd}", "rb", buffering=0) as file:
            return file.read(MAX_FILE)
    except OSError as error:
        raise StartError(f"{path} of the {owner} cannot be read: {error.strerror}") from None


def _is_opaque(parent_fd: int) -> bool:
    path = f"/proc/self/fd/{parent_fd}"
    for attribute in ("trusted.overlay.opaque", "user.overlay.opaque"):
        try:
            if os.getxattr(path, attribute) == b"y":
                return True
        except OSError:
            continue
    return False
