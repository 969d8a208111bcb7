"""`pyrtc cp`: files between containers and this machine."""

import errno
import os
import sys

from pyrtc.cli.image_command import HELP, image_command, parse_options
from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import Group, Option
from pyrtc.errors import ContainerFileError, UsageError

__all__ = ["cp"]

OPTIONS = (
    Group(
        "Options",
        (
            Option("-a, --archive", "", "keep uid and gid, and device nodes"),
            Option("-L, --follow-link", "", "copy what SRC_PATH points to, if it is a link"),
            Option("-q, --quiet", "", "say nothing about what was copied; the default where no terminal reads it"),
            HELP,
        ),
    ),
)
USAGE = "pyrtc cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n        pyrtc cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH"
ABOUT = "Copy files between a container and this machine; - is a tar stream from stdin or to stdout."


def _split(word: str) -> tuple[str, str]:
    """Return container and path; "" for a path of this machine, which begins with / or . or has no colon."""
    container, colon, path = word.partition(":")
    if word.startswith(("/", ".")) or not colon or not container:
        return "", word
    return container, path


@image_command
def cp(argv: list[str]) -> int:
    """Run `pyrtc cp`."""
    parsed = parse_options(argv, OPTIONS, USAGE, ABOUT)
    if parsed is None:
        return 0
    if len(parsed.arguments) != 2:
        raise UsageError(f'"pyrtc cp" requires exactly 2 arguments: {USAGE.splitlines()[0]}')
    (source_container, source), (target_container, target) = (_split(word) for word in parsed.arguments)
    if source_container and target_container:
        raise UsageError("copying between containers is not supported")
    if not source_container and not target_container:
        raise UsageError("must specify at least one container source")
    if not source or not target:
        raise UsageError("source and destination cannot be empty")
    words = {"archive": parsed.flag("--archive"), "follow_link": parsed.flag("--follow-link")}
    quiet = parsed.flag("--quiet", default=not sys.stdout.isatty())
    from pyrtc.files import Files

    with opened_engine() as engine:
        engine.containers.reap()
        container_id = engine.store.containers.get(source_container or target_container).id
        files = Files(engine.store, container_id)
        if target == "-" and source_container:
            try:
                files.archive_out(source, sys.stdout.fileno(), follow_link=words["follow_link"])
            except ContainerFileError as error:
                if error.errno != errno.EPIPE:
                    raise
                raise BrokenPipeError from None  # who reads has enough, as after `pyrtc export NAME | head`
            return 0
        if source == "-" and target_container:
            files.archive_in(sys.stdin.fileno(), target)
            return 0
        copy = files.copy_out if source_container else files.copy_in
        copied = copy(source, target, **words)
    if copied.skipped:
        what = "files that are sockets, devices or only shown by the kernel"
        print(f"pyrtc: {copied.skipped} {what} were left out", file=sys.stderr)
    if not quiet:
        where = f"{target_container}:{target}" if target_container else os.path.abspath(target)  # noqa: PTH100
        print(f"Successfully copied {_size(copied.bytes)} to {where}", file=sys.stderr)
    return 0


def _size(count: int) -> str:
    """Write a size as Docker does: three digits that count, powers of a thousand."""
    size, units = float(count), iter(("B", "kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    for larger in units:
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g}{unit}"
