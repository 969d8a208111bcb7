"""`pyrtc.run` and what it shares with `pyrtc.aio.run`: the default engine."""

import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Unpack

from pyrtc.capture import DEFAULT_MAX_OUTPUT, Stream
from pyrtc.container import Completed
from pyrtc.engine import Engine
from pyrtc.keywords import ContainerKeywords, Keywords, container_options, make_options

if TYPE_CHECKING:
    from pyrtc.snapshots import Snapshot

__all__ = ["ContainerKeywords", "Keywords", "container_options", "default_engine", "make_options", "run"]

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
    image: "str | Snapshot",
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
    image: name or id of an image in the store; a `Snapshot`, or ``snapshot:`` and its name or id; or "host": the
        running system's own files, read-only under a R/W layer, with /run and /tmp empty and the store hidden. An
        ordinary user sees there what it may read, and can add and replace files in the upper directories (/etc,
        /usr/local/bin, /var/lib), but not change others' files in place; what is mounted, and what has mounts below it
        from the second level on, is read-only.
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
