"""Where on the disk a file system puts what is made in a directory."""

import fcntl
import os
from contextlib import suppress

__all__ = ["new_name", "spread_over_disk"]

_GET_FLAGS = 0x80086601  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS of machines with 64 bits (linux/fs.h)
_SET_FLAGS = 0x40086602
_TOP_OF_HIERARCHIES = 0x00020000  # FS_TOPDIR_FL


def spread_over_disk(directory_fd: int) -> None:
    """Tell ext4 that each directory in this one begins a tree of its own (`chattr +T`).

    It then puts each into another group of blocks, chosen by the directory's name; else all go where their parent is.
    Layers that are unpacked at once do not wait for one another there, and not where thousands of files have just been
    removed: for minutes ext4 hands out their inodes again only when it finds no others, and looks at each of them for
    each new file (`recently_deleted`), which made unpacking ten times slower. Other file systems have no such mark.
    """
    with suppress(OSError):  # it is a hint
        flags = int.from_bytes(fcntl.ioctl(directory_fd, _GET_FLAGS, bytes(8))[:4], "little")
        if not flags & _TOP_OF_HIERARCHIES:
            fcntl.ioctl(directory_fd, _SET_FLAGS, (flags | _TOP_OF_HIERARCHIES).to_bytes(8, "little"))


def new_name(beginning: str) -> str:
    """Return a name that no other directory has had, so that it goes to another place."""
    return f"{beginning}-{os.urandom(4).hex()}"
