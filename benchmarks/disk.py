"""A file system of one's own to measure on: ext4 with a journal, in a file, seen by this process and its children only.

Whatever file system the machine has, containers are most often kept on this one; and a store's cost is mostly the file
system's.
"""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["journaled_ext4"]

SIZE = 12 << 30  # bytes, sparse; a run uses about a third
# Short: podman refuses long names. The same for all runs, which have mount namespaces of their own.
POINT = Path("/run/pyrtc-benchmark")


@contextmanager
def journaled_ext4(parent: Path, size: int = SIZE) -> Iterator[Path]:
    """Make the file system, in a file below parent that never has a name. size: in bytes.

    It goes with its mount, and that with the mount namespace; but for an empty directory where it was mounted, which
    is removed in the end, or by the next run.
    """
    POINT.mkdir(exist_ok=True)
    # Removing a directory unmounts what other namespaces have mounted there: the last run does it.
    point = os.open(POINT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(point, fcntl.LOCK_SH)
    with tempfile.TemporaryFile(dir=parent) as image:
        image.truncate(size)
        name = f"/proc/self/fd/{image.fileno()}"
        # Tables are written now and not by the kernel in the background, while something is being measured.
        options = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
        kept = [image.fileno()]
        subprocess.run(["mkfs.ext4", "-q", "-F", "-E", options, name], check=True, pass_fds=kept)
        subprocess.run(["mount", "-o", "loop", name, POINT], check=True, pass_fds=kept)
    try:
        yield POINT
    finally:
        # With what others have mounted below: containers-storage mounts its directory onto itself.
        subprocess.run(["umount", "--recursive", POINT], check=True)
        with suppress(BlockingIOError):
            fcntl.flock(point, fcntl.LOCK_EX | fcntl.LOCK_NB)
            POINT.rmdir()
        os.close(point)
