"""What a container's monitor tells the store when the health of the container changes: written for it beforehand.

The monitor (csrc/init/monitor_event.c) knows neither names nor labels. It puts the time and the new status into the
words of the file ``health.event`` in the container's directory: its first line comes before the status, the rest after.
"""

import os
from contextlib import suppress

from pyrtc.ended import event_attributes
from pyrtc.events import unfinished_line
from pyrtc.store import ContainerRecord

__all__ = ["renamed", "write_words"]

_FILE, _NEW = "health.event", "health.event.new"
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def write_words(record: ContainerRecord, directory_fd: int) -> None:
    """Write what is told of this container. The monitor sees the whole of it, or what was there before."""
    before, after = unfinished_line("container", "health_status: ", record.id, event_attributes(record))
    fd = os.open(_NEW, _WRITE, 0o600, dir_fd=directory_fd)
    try:
        os.write(fd, before + b"\n" + after)
    finally:
        os.close(fd)
    os.rename(_NEW, _FILE, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)


def renamed(record: ContainerRecord) -> None:
    """Let the monitor tell another name from now on, if it tells anything."""
    if record.directory is None:
        return
    with suppress(FileNotFoundError):  # it has no check, or has been removed
        directory_fd = os.open(record.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.stat(_FILE, dir_fd=directory_fd, follow_symlinks=False)
            write_words(record, directory_fd)
        finally:
            os.close(directory_fd)
