"""Reading and writing control files, relative to an open directory."""

import errno
import os
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Setting", "as_int", "keyed", "read", "write"]

# What reading a control file answers when it is not there, when its cgroup is being removed under the reader, and when
# the kernel has the file but not the feature.
_ABSENT = frozenset({errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP})


class Setting(NamedTuple):
    """One limit as the kernel takes it.

    Parameters
    ----------
    limit: the name of the field of `Limits` it comes from.
    choices: pairs of control file and text; the first file that exists gets its text.
    without: what to say when none of the files exists; "" where nothing is lost then.
    """

    limit: str
    choices: tuple[tuple[str, str], ...]
    without: str = "this kernel was built without it"


def read(directory: int, path: str) -> str | None:
    """Return the text of a control file, or None where this kernel or cgroup has no such file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
    try:
        chunks = [os.read(fd, 65536)]
        while chunks[-1]:
            chunks.append(os.read(fd, 65536))
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
    finally:
        os.close(fd)
    return b"".join(chunks).decode("ascii", "replace")


def write(directory: int, path: str, text: str) -> None:
    """Write one value to a control file in one system call, as the kernel wants it.

    Raises
    ------
    OSError: the kernel has no such file or refuses the value.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def keyed(text: str | None) -> dict[str, int]:
    """Read lines of ``key number``; lines of another form are left out."""
    found: dict[str, int] = {}
    for line in (text or "").splitlines():
        key, _, number = line.partition(" ")
        if number.isdecimal():
            found[key] = int(number)
    return found


def as_int(text: str | None, unlimited: Sequence[str] = ("max", "-1")) -> int | None:
    """Read a file with one number; None where it is absent or says that there is no limit."""
    text = (text or "").strip()
    return int(text) if text not in unlimited and text.lstrip("-").isdecimal() else None
