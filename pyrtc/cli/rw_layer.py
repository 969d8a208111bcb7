"""`pyrtc diff`, `commit` and `export`, printing what Docker prints."""

import sys

from pyrtc.cli.image_command import HELP, image_command, parse_options
from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import Group, Option
from pyrtc.errors import UsageError

__all__ = ["commit", "diff", "export"]

DIFF_OPTIONS = (Group("Options", (HELP,)),)
COMMIT_OPTIONS = (
    Group(
        "Options",
        (
            Option("-a, --author", "TEXT", "who made it, for the image's history"),
            Option(
                "-c, --change",
                "LINE",
                "set CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR as "
                "a Dockerfile does",
                repeat=True,
            ),
            Option("-m, --message", "TEXT", "a comment for the image's history"),
            Option("-p, --pause", "", "stop every process while files are read (the default); --pause=false does not"),
            HELP,
        ),
    ),
)
EXPORT_OPTIONS = (Group("Options", (Option("-o, --output", "FILE", "write FILE instead of standard output"), HELP)),)


@image_command
def diff(argv: list[str]) -> int:
    """Run `pyrtc diff`."""
    from pyrtc.cli.tables import one_line

    usage = "pyrtc diff CONTAINER"
    ending = "A: added, C: changed, D: deleted. What is mounted in the container does not count."
    parsed = parse_options(
        argv, DIFF_OPTIONS, usage, "Show what a container changed in the files of its image.", ending
    )
    if parsed is None:
        return 0
    if len(parsed.arguments) != 1:
        raise UsageError(f"one container is needed: {usage}")
    with opened_engine() as engine:
        changes = engine.containers.get(parsed.arguments[0]).diff()
    for change in changes:
        print(one_line(f"{change.kind} {change.path}"))
    return 0


@image_command
def commit(argv: list[str]) -> int:
    """Run `pyrtc commit`."""
    usage = "pyrtc commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]"
    ending = (
        "The image's config is that of the container's image, with what the container was started with (command,\n"
        "variables, user, ...), then with the changes. SOURCE_DATE_EPOCH makes the same files give the same image."
    )
    parsed = parse_options(argv, COMMIT_OPTIONS, usage, "Make an image of a container's changes.", ending)
    if parsed is None:
        return 0
    if len(parsed.arguments) not in (1, 2):
        raise UsageError(f"a container is needed, and one name at most: {usage}")
    container, name = (*parsed.arguments, None)[:2]
    assert container is not None
    with opened_engine() as engine:
        image = engine.containers.get(container).commit(
            name,
            author=parsed.word("--author") or "",
            message=parsed.word("--message") or "",
            changes=parsed.words("--change"),
            pause=parsed.flag("--pause", default=True),
        )
    print(image.id)
    return 0


@image_command
def export(argv: list[str]) -> int:
    """Run `pyrtc export`."""
    usage = "pyrtc export [OPTIONS] CONTAINER"
    ending = "Files of the image and of the container together; of what is mounted only the empty places."
    parsed = parse_options(argv, EXPORT_OPTIONS, usage, "Write a container's files as a tar.", ending)
    if parsed is None:
        return 0
    if len(parsed.arguments) != 1:
        raise UsageError(f"one container is needed: {usage}")
    output = parsed.word("--output")
    if output in (None, "-") and sys.stdout is not None and sys.stdout.isatty():
        raise UsageError("refusing to write an archive to a terminal: name a file with -o, or redirect the output")
    with opened_engine() as engine:
        engine.containers.get(parsed.arguments[0]).export(1 if output in (None, "-") else str(output))
    return 0
