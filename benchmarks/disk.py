"""A file system of one's own to measure on: ext4 with a journal, in a file, seen by this process and its children only.

Whatever file system the machine has, containers are most often kept on this one; and a store's cost is mostly the file
system's.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["enter_private_mounts", "journaled_ext4"]

_INSIDE = "PYRTC_BENCHMARK_MOUNTS"
SIZE = 12 << 30  # bytes, sparse; a run uses about a third


def enter_private_mounts(*, network: bool = False) -> None:
    """Start this program again in a mount namespace of its own, so that its mounts end with it; needs root.

    network: in a network namespace of its own, too.
    """
    if os.environ.get(_INSIDE) == str(os.getpid()):
        return
    # exec keeps the process id, by which the second start knows itself.
    environment = {**os.environ, _INSIDE: str(os.getpid())}
    more = ["--net"] if network else []
    words = ["unshare", *more, "--mount", "--propagation", "private", sys.executable, *sys.orig_argv[1:]]
    os.execvpe(words[0], words, environment)  # noqa: S606  (no shell is wanted)


@contextmanager
def journaled_ext4(parent: Path, size: int = SIZE) -> Iterator[Path]:
    """Make the file system, in a file below parent that has no name any more once it is mounted. size: in bytes."""
    # The mount point's name is short: podman refuses a long one.
    with tempfile.TemporaryDirectory(prefix="pyrtc-bench-") as name:
        directory = Path(name)
        with tempfile.NamedTemporaryFile(prefix="pyrtc-benchmark-", dir=parent) as image:
            image.truncate(size)
            # Tables are written now and not by the kernel in the background, while something is being measured.
            options = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
            subprocess.run(["mkfs.ext4", "-q", "-F", "-E", options, image.name], check=True)
            subprocess.run(["mount", "-o", "loop", image.name, directory], check=True)
        try:
            yield directory
        finally:
            # With what others have mounted below: containers-storage mounts its directory onto itself.
            subprocess.run(["umount", "--recursive", directory], check=True)
