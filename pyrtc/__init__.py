"""Containers as a Python call: layered images, real kernel isolation, typed results, no daemon.

>>> import pyrtc
>>> done = pyrtc.run("host", ["python3", "-c", "print(6 * 7)"], timeout=5)
>>> done.returncode, done.stdout, done.outcome
(0, b'42\\n', <Outcome.EXITED: 'exited'>)

Everything public is named here; `pyrtc.aio` has the same for asyncio. Errors are one tree under `PyrtcError`.
"""

import os
import threading
from collections.abc import Callable, Sequence
from typing import Literal, Unpack

from pyrtc.api import Keywords, make_options
from pyrtc.capture import DEFAULT_MAX_OUTPUT, Stream
from pyrtc.container import Completed, Outcome, Running, Usage
from pyrtc.engine import Engine
from pyrtc.errors import (
    CommandNotExecutable,
    CommandNotFound,
    ContainerError,
    ContainerFailed,
    ContainerNotFound,
    DigestMismatch,
    ImageError,
    ImageNotFound,
    LimitError,
    PyrtcError,
    StartError,
    StoreError,
    UnsupportedError,
    UsageError,
)
from pyrtc.options import Bind, Device, RunOptions, Tmpfs, Ulimit, Volume
from pyrtc.runtime.cgroups import Limits

__all__ = [
    "Bind",
    "CommandNotExecutable",
    "CommandNotFound",
    "Completed",
    "ContainerError",
    "ContainerFailed",
    "ContainerNotFound",
    "Device",
    "DigestMismatch",
    "Engine",
    "ImageError",
    "ImageNotFound",
    "LimitError",
    "Limits",
    "Outcome",
    "PyrtcError",
    "RunOptions",
    "Running",
    "StartError",
    "StoreError",
    "Tmpfs",
    "Ulimit",
    "UnsupportedError",
    "Usage",
    "UsageError",
    "Volume",
    "default_engine",
    "run",
]

__version__ = "0.1.0"

_default: Engine | None = None
_default_lock = threading.Lock()


def default_engine() -> Engine:
    """Return the engine that the module's functions use, opened at the first call.

    Raises
    ------
    StoreError: the default store cannot be opened.
    """
    global _default
    if _default is None:
        with _default_lock:
            if _default is None:
                _default = Engine()
    return _default


def run(
    image: str,
    command: Sequence[str | os.PathLike[str]] | None = None,
    *,
    input: bytes = b"",
    check: bool = False,
    max_output: int = DEFAULT_MAX_OUTPUT,
    on_limit: Literal["truncate", "kill"] = "truncate",
    on_output: Callable[[Stream, bytes], object] | None = None,
    engine: Engine | None = None,
    **options: Unpack[Keywords],
) -> Completed:
    """Run a command in a new container and wait for its end.

    The container is isolated as Docker's are or better, has no network but loopback unless asked for, and is gone with
    all that it wrote when this returns, raises, or when this process dies, however it dies.

    Parameters
    ----------
    image: name or id of an image in the store, or "host": the running system's own files, read-only under a R/W layer.
    command: program and arguments; None: what the image says.
    input: bytes for its standard input, which is /dev/null without.
    check: raise ContainerFailed unless it exits with 0.
    max_output: bytes of stdout and stderr together that are kept, 10 MiB; on_limit says what happens beyond: "truncate"
        drops the rest and sets `truncated`, "kill" ends the container with Outcome.OUTPUT_LIMIT.
    on_output: called with ("stdout" | "stderr", bytes) as output arrives, instead of collecting it; what it raises ends
        the container and is passed on.
    engine: another engine than the default one.
    options: see `Keywords`; names and meanings are Docker's. timeout: seconds, then all its processes are killed.

    Returns
    -------
    Completed: exit code, outcome, output and use of resources. An exit code other than 0 is no exception unless check.

    Raises
    ------
    ImageNotFound: no such image. CommandNotFound, CommandNotExecutable: no such program in it.
    UsageError: options that cannot mean anything. LimitError: a limit that cannot be had.
    UnsupportedError: this kernel or user cannot do it; says what to do. StartError: anything else that failed on the
    way. ContainerFailed: with check=True.

    Any number of threads may call it at once. In a coroutine use `pyrtc.aio.run`.
    """
    done = (engine or default_engine()).run(
        image,
        make_options(command, **options),
        input=input,
        max_output=max_output,
        on_limit=on_limit,
        on_output=on_output,
    )
    return done.check() if check else done
