"""`pyrtc system df`, `check` and `prune`, `pyrtc container prune`."""

from typing import TYPE_CHECKING

from pyrtc.cli.image_command import HELP, image_command, parse_options
from pyrtc.cli.nouns import run_noun
from pyrtc.cli.option_table import Group, Option, nearest, pair
from pyrtc.cli.tables import agreed, print_rows, size_text
from pyrtc.errors import UsageError

if TYPE_CHECKING:
    from pyrtc.engine import Engine
    from pyrtc.store.usage import DiskUsage, Use
    from pyrtc.system import Pruned, PruneFilter

__all__ = ["check", "container", "container_prune", "df", "print_pruned", "prune", "read_filter", "system"]

FILTER = Option(
    "--filter",
    "KEY=VALUE",
    "only some: until=24h (or a time), label=NAME[=VALUE], label!=NAME[=VALUE]",
    repeat=True,
)
FORCE = Option("-f, --force", "", "do not ask")
DF_OPTIONS = (
    Group(
        "Options",
        (
            Option("-v, --verbose", "", "list every image, container and volume"),
            Option("--format", "FORMAT", "table, json, or a template of .Type .TotalCount .Active .Size .Reclaimable"),
            HELP,
        ),
    ),
)
CHECK_OPTIONS = (
    Group(
        "Options",
        (
            Option("--deep", "", "read all data, too: takes as long as reading and unpacking every layer"),
            Option("--repair", "", "remove what is left over, take out what is damaged so that it can come again"),
            Option("-q, --quiet", "", "print problems only"),
            HELP,
        ),
    ),
)
PRUNE_OPTIONS = (
    Group(
        "Options",
        (
            Option("-a, --all", "", "remove every image that no container uses, not only those without a name"),
            Option("--volumes", "", "remove anonymous volumes that no container mounts, too"),
            FILTER,
            FORCE,
            HELP,
        ),
    ),
)
CONTAINER_PRUNE_OPTIONS = (Group("Options", (FILTER, FORCE, HELP)),)
HEADINGS = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}


def _engine() -> "Engine":
    from pyrtc.engine import Engine

    return Engine()


def _no_arguments(arguments: list[str]) -> None:
    if arguments:
        raise UsageError(f"unexpected argument: {arguments[0]}")


# ---- df -------------------------------------------------------------------------------------------------------------


@image_command
def df(argv: list[str]) -> int:
    """Run `pyrtc system df`."""
    ending = (
        "Sizes are what the file system counts, and RECLAIMABLE is what it has back after\n"
        "`pyrtc system prune --all --volumes` and `pyrtc volume prune --all`. Snapshots go with\n"
        "`pyrtc snapshot rm` only. Leftovers are of processes that were killed."
    )
    parsed = parse_options(argv, DF_OPTIONS, "pyrtc system df [OPTIONS]", "Tell what the store takes.", ending)
    if parsed is None:
        return 0
    _no_arguments(parsed.arguments)
    with _engine() as engine:
        usage = engine.system.df()
    if parsed.flag("--verbose"):
        if parsed.word("--format") not in (None, "table"):
            raise UsageError("--verbose and --format cannot be combined")
        _print_details(usage)
        return 0
    rows = [
        _row("Images", usage.images),
        _row("Containers", usage.containers),
        _row("Local Volumes", usage.volumes),
        _row("Snapshots", usage.snapshots),
        _row("Leftovers", usage.leftovers),
    ]
    print_rows(rows, parsed.word("--format") or "table", list(HEADINGS), HEADINGS)
    return 0


def _row(kind: str, use: "Use") -> dict[str, str]:
    share = f" ({use.reclaimable * 100 // use.size}%)" if use.size else ""
    return {
        "Type": kind,
        "TotalCount": str(use.total),
        "Active": str(use.active),
        "Size": size_text(use.size),
        "Reclaimable": f"{size_text(use.reclaimable)}{share}",
    }


def _print_details(usage: "DiskUsage") -> None:
    from pyrtc.cli.tables import printable, table
    from pyrtc.image.reference import Reference

    rows: list[tuple[str, ...]] = [
        ("REPOSITORY", "TAG", "IMAGE ID", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS")
    ]
    for image in usage.image_details:
        sizes = (size_text(image.size), size_text(image.shared), size_text(image.unique), str(image.containers))
        digits = image.image.id.partition(":")[2][:12]
        names = [Reference.parse(name) for name in image.image.names]
        for name in names:
            rows.append((name.familiar_repository, name.tag or "<none>", digits, *sizes))
        if not names:
            rows.append(("<none>", "<none>", digits, *sizes))
    print(f"Images space usage:\n\n{printable(table(rows))}")
    rows = [("CONTAINER ID", "IMAGE", "SIZE", "STATUS", "NAMES")]
    for use in usage.container_details:
        record = use.container
        image_id = record.image_id.partition(":")[2][:12] or record.image_id
        rows.append((record.id[:12], image_id, size_text(use.size), record.state, record.name))
    print(f"\nContainers space usage:\n\n{printable(table(rows))}")
    rows = [("VOLUME NAME", "LINKS", "SIZE")]
    rows += [(use.volume.name, str(use.containers), size_text(use.size)) for use in usage.volume_details]
    print(f"\nLocal Volumes space usage:\n\n{printable(table(rows))}")
    left = usage.leftovers
    print(f"\nLeftovers usage: {size_text(left.size)} in {left.total}")


# ---- check ----------------------------------------------------------------------------------------------------------


@image_command
def check(argv: list[str]) -> int:
    """Run `pyrtc system check`: 0 if nothing is damaged, or all of it was repaired."""
    usage = "pyrtc system check [OPTIONS]"
    parsed = parse_options(argv, CHECK_OPTIONS, usage, "Check that everything in the store is there and sound.")
    if parsed is None:
        return 0
    _no_arguments(parsed.arguments)
    from pyrtc.cli.tables import printable

    with _engine() as engine:
        report = engine.system.check(deep=parsed.flag("--deep"), repair=parsed.flag("--repair"))
    for problem in report.problems:
        print(printable(f"{problem.kind} {problem.subject}: {problem.text}"))
    if not parsed.flag("--quiet"):
        print(f"Checked {report.images} images, {report.layers} layers and {report.blobs} compressed layers.")
        if report.unverified:
            print(f"Of {report.unverified} layers nothing tells whether their files hold what they should.")
        leftovers = sum(problem.kind == "leftover" and not problem.repaired for problem in report.problems)
        if leftovers:
            print(
                f"{leftovers} leftovers of killed processes take room; 'pyrtc system prune' or --repair removes them."
            )
        print("Everything is sound." if report.clean else "There is damage; --repair takes it out.")
    return 0 if report.clean else 1


# ---- prune ----------------------------------------------------------------------------------------------------------


def read_filter(words: tuple[str, ...]) -> "PruneFilter":
    """Read the values of --filter.

    Raises
    ------
    UsageError: one is none.
    """
    from pyrtc.moments import until
    from pyrtc.system import PruneFilter

    moment: float | None = None
    labels: list[tuple[str, str | None]] = []
    without: list[tuple[str, str | None]] = []
    for text in words:
        key, value = pair(text)
        if not value:
            raise UsageError(f"invalid filter {text!r}: write KEY=VALUE")
        if key == "until":
            try:
                moment = until(value)
            except ValueError:
                raise UsageError(f"invalid filter {text}: write a length of time like 24h, or a time") from None
        elif key in ("label", "label!"):
            name, has_value, wanted = value.partition("=")
            (labels if key == "label" else without).append((name, wanted if has_value else None))
        else:
            raise UsageError(f"invalid filter {text}{nearest(key, ('until', 'label', 'label!'))}")
    return PruneFilter(moment, tuple(labels), tuple(without))


@image_command
def prune(argv: list[str]) -> int:
    """Run `pyrtc system prune`."""
    usage = "pyrtc system prune [OPTIONS]"
    parsed = parse_options(argv, PRUNE_OPTIONS, usage, "Remove what nobody uses.")
    if parsed is None:
        return 0
    _no_arguments(parsed.arguments)
    only = read_filter(parsed.words("--filter"))
    every, volumes = parsed.flag("--all"), parsed.flag("--volumes")
    what = ["all containers that have ended", "all networks not used by at least one container"]
    what += ["all anonymous volumes not used by at least one container"] if volumes else []
    what += ["all images without at least one container that uses them" if every else "all dangling images"]
    what += ["what killed processes left"]
    if not parsed.flag("--force") and not agreed("".join(f"\n  - {item}" for item in what)):
        return 0
    with _engine() as engine:
        print_pruned(engine.system.prune(all_images=every, volumes=volumes, only=only))
    return 0


@image_command
def container_prune(argv: list[str]) -> int:
    """Run `pyrtc container prune`."""
    usage = "pyrtc container prune [OPTIONS]"
    parsed = parse_options(argv, CONTAINER_PRUNE_OPTIONS, usage, "Remove containers that have ended.")
    if parsed is None:
        return 0
    _no_arguments(parsed.arguments)
    only = read_filter(parsed.words("--filter"))
    if not parsed.flag("--force") and not agreed("all containers that have ended"):
        return 0
    with _engine() as engine:
        print_pruned(engine.system.prune_containers(only))
    return 0


def print_pruned(pruned: "Pruned") -> None:
    """Print what a prune removed, as Docker does."""
    parts = (
        ("Deleted Containers:", pruned.containers),
        ("Deleted Networks:", pruned.networks),
        ("Deleted Volumes:", pruned.volumes),
        (
            "Deleted Images:",
            (*(f"untagged: {name}" for name in pruned.untagged), *(f"deleted: {name}" for name in pruned.deleted)),
        ),
    )
    for title, lines in parts:
        if lines:
            print("\n".join([title, *lines, ""]))
    print(f"Total reclaimed space: {size_text(pruned.reclaimed)}")


# ---- the nouns ------------------------------------------------------------------------------------------------------

# The module and function that run it, what it does.
SYSTEM = {
    "check": ("pyrtc.cli.system", "check", "Check that everything in the store is there and sound"),
    "events": ("pyrtc.cli.events", "events", "Tell what happens in the store"),
    "df": ("pyrtc.cli.system", "df", "Tell what the store takes on the disk"),
    "prune": ("pyrtc.cli.system", "prune", "Remove what nobody uses"),
}
CONTAINER = {
    "ls": ("pyrtc.cli.containers", "ps", "List containers"),
    "prune": ("pyrtc.cli.system", "container_prune", "Remove containers that have ended"),
    "cp": ("pyrtc.cli.copy", "cp", "Copy files between a container and this machine"),
    "create": ("pyrtc.cli.run", "create", "Make a container without starting it"),
    "inspect": ("pyrtc.cli.inspect", "container_inspect", "Print everything about containers as JSON"),
    "port": ("pyrtc.cli.port", "port", "Print the ports of this machine that lead to a container"),
    "stats": ("pyrtc.cli.stats", "stats", "Show what containers use"),
    "top": ("pyrtc.cli.top", "top", "Show the processes of a container"),
    "update": ("pyrtc.cli.update", "update", "Change the limits of containers"),
    "kill": ("pyrtc.cli.lives", "kill", "Send a signal to containers"),
    "pause": ("pyrtc.cli.lives", "pause", "Stop all processes of containers where they are"),
    "rename": ("pyrtc.cli.lives", "rename", "Give a container another name"),
    "restart": ("pyrtc.cli.lives", "restart", "Stop containers and start them again"),
    "rm": ("pyrtc.cli.lives", "rm", "Remove containers"),
    "run": ("pyrtc.cli.run", "run", "Run a command in a new container"),
    "start": ("pyrtc.cli.lives", "start", "Start containers that have been made or have ended"),
    "stop": ("pyrtc.cli.lives", "stop", "Ask containers to end, then kill them"),
    "unpause": ("pyrtc.cli.lives", "unpause", "Let paused containers go on"),
    "wait": ("pyrtc.cli.lives", "wait", "Wait for the end of containers and print their exit codes"),
}


@image_command
def system(argv: list[str]) -> int:
    """Run `pyrtc system SUBCOMMAND`."""
    return run_noun("system", "The store as a whole.", SYSTEM, argv)


def container(argv: list[str]) -> int:
    """Run `pyrtc container SUBCOMMAND`."""
    return run_noun("container", "More about containers.", CONTAINER, argv)
