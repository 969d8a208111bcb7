"""`pyrtc snapshot create`, `ls` and `rm`."""

from pyrtc.cli.each import try_each
from pyrtc.cli.image_command import HELP, image_command, parse_options
from pyrtc.cli.nouns import run_noun
from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import Group, Option
from pyrtc.errors import UsageError

__all__ = ["create", "ls", "rm", "snapshot"]

CREATE_OPTIONS = (
    Group(
        "Options",
        (
            Option("-n, --name", "NAME", "a name for the snapshot"),
            Option("-s, --stop", "", "end the container first; then nothing is copied, however much it has written"),
            Option("-t, --time", "SECONDS", "with --stop: wait so long before it is killed"),
            Option("--durable", "", "write it to the disk, so that it survives when the machine goes down"),
            HELP,
        ),
    ),
)
LS_OPTIONS = (
    Group(
        "Options",
        (
            Option("-q, --quiet", "", "print ids only"),
            Option("--no-trunc", "", "print whole ids"),
            Option(
                "--format",
                "FORMAT",
                "table, json, or a template of .ID .Name .Image .Parent .Container .CreatedSince .CreatedAt .Durable "
                ".Size",
            ),
            HELP,
        ),
    ),
)
RM_OPTIONS = (Group("Options", (HELP,)),)
HEADINGS = {
    "ID": "SNAPSHOT ID",
    "Name": "NAME",
    "Image": "IMAGE",
    "Parent": "PARENT",
    "Container": "CONTAINER",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Durable": "DURABLE",
    "Size": "SIZE",
}
SHORT_ID = 12


@image_command
def create(argv: list[str]) -> int:
    """Run `pyrtc snapshot create`."""
    from pyrtc.quantities import stop_timeout

    usage = "pyrtc snapshot create [OPTIONS] CONTAINER"
    ending = (
        "Containers start from it with: pyrtc run snapshot:NAME-OR-ID. A container that runs is paused while its R/W\n"
        "layer is copied; with --stop, or when it does not run, the R/W layer itself becomes the snapshot."
    )
    parsed = parse_options(argv, CREATE_OPTIONS, usage, "Freeze what a container has written.", ending)
    if parsed is None:
        return 0
    if len(parsed.arguments) != 1:
        raise UsageError(f"one container is needed: {usage}")
    patience = parsed.word("--time")
    with opened_engine() as engine:
        made = engine.containers.get(parsed.arguments[0]).snapshot(
            parsed.word("--name"),
            stop=parsed.flag("--stop"),
            timeout=None if patience is None else stop_timeout(patience),
            durable=parsed.flag("--durable"),
        )
    print(made.id)
    return 0


@image_command
def ls(argv: list[str]) -> int:
    """Run `pyrtc snapshot ls`."""
    parsed = parse_options(argv, LS_OPTIONS, "pyrtc snapshot ls [OPTIONS]", "List snapshots.")
    if parsed is None:
        return 0
    if parsed.arguments:
        raise UsageError(f"unexpected argument: {parsed.arguments[0]}")
    length = None if parsed.flag("--no-trunc") else SHORT_ID
    with opened_engine() as engine:
        found = engine.snapshots.list()
        if parsed.flag("--quiet"):
            for item in found:
                print(item.id[:length])
            return 0
        from datetime import UTC, datetime

        from pyrtc.cli.images import since
        from pyrtc.cli.tables import print_rows, size_text

        form = parsed.word("--format") or "table"
        rows = []
        for item in found:
            created = datetime.fromtimestamp(item.created, UTC).isoformat(timespec="seconds")
            row = {
                "ID": item.id[:length],
                "Name": item.name or "",
                "Image": item.image,
                "Parent": (item.parent or "")[:length],
                "Container": item.container[:length],
                "CreatedSince": since(created),
                "CreatedAt": created,
                "Durable": "lost" if not item.usable else "yes" if item.durable else "no",
                "Size": size_text(engine.snapshots.size(item)),
            }
            rows.append(row)
    print_rows(rows, form, ["ID", "Name", "Image", "CreatedSince", "Durable", "Size"], HEADINGS)
    return 0


@image_command
def rm(argv: list[str]) -> int:
    """Run `pyrtc snapshot rm`: each is tried, whatever happens to the others."""
    from pyrtc.cli.tables import printable

    usage = "pyrtc snapshot rm SNAPSHOT..."
    parsed = parse_options(argv, RM_OPTIONS, usage, "Remove snapshots that nothing stands on.")
    if parsed is None:
        return 0
    if not parsed.arguments:
        raise UsageError(f"the snapshot is missing: {usage}")
    with opened_engine() as engine:

        def remove(name: str) -> None:
            engine.snapshots.remove(name.removeprefix("snapshot:"))
            print(printable(name))

        return try_each(parsed.arguments, remove)


SNAPSHOT = {
    "create": ("pyrtc.cli.snapshots", "create", "Freeze what a container has written"),
    "ls": ("pyrtc.cli.snapshots", "ls", "List snapshots"),
    "rm": ("pyrtc.cli.snapshots", "rm", "Remove snapshots that nothing stands on"),
}


@image_command
def snapshot(argv: list[str]) -> int:
    """Run `pyrtc snapshot SUBCOMMAND`."""
    return run_noun("snapshot", "R/W layers of containers, frozen, to start others from.", SNAPSHOT, argv)
