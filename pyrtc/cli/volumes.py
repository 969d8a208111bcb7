"""`pyrtc volume ls`, `create`, `inspect`, `rm` and `prune`."""

from typing import TYPE_CHECKING

from pyrtc.cli.each import try_each
from pyrtc.cli.image_command import HELP, image_command, parse_options
from pyrtc.cli.nouns import run_noun
from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import TRUTH, Group, Option, OptionError, nearest, pair
from pyrtc.cli.system import FILTER, FORCE, print_pruned, read_filter
from pyrtc.cli.tables import agreed, print_rows
from pyrtc.errors import PyrtcError, UsageError

if TYPE_CHECKING:
    from pyrtc.store.volumes import Volume

__all__ = ["create", "ls", "prune", "rm", "volume"]

LS_OPTIONS = (
    Group(
        "Options",
        (
            Option("-q, --quiet", "", "print names only"),
            Option(
                "-f, --filter",
                "KEY=VALUE",
                "list some: name=PART, label=NAME[=VALUE], dangling=true, driver=local",
                repeat=True,
            ),
            Option(
                "--format",
                "FORMAT",
                "table, json, or a template of .Name .Driver .Mountpoint .Scope .Labels, .Label NAME",
            ),
            HELP,
        ),
    ),
)
RM_OPTIONS = (Group("Options", (Option("-f, --force", "", "one that is missing is no failure"), HELP)),)
PRUNE_OPTIONS = (Group("Options", (Option("-a, --all", "", "remove volumes with names, too"), FILTER, FORCE, HELP)),)
CREATE_OPTIONS = (
    Group(
        "Options",
        (
            Option("-d, --driver", "NAME", "local, the only one there is"),
            Option("--label", "NAME[=VALUE]", "a label for the volume", repeat=True),
            HELP,
        ),
    ),
)
NO_OPTIONS = (
    "a volume is a directory of the store; what is to be mounted otherwise is the container's to say: "
    "--tmpfs PATH, --mount type=bind,source=DIRECTORY,target=PATH, or a file system that is mounted on the host"
)
UNAVAILABLE = {"-o": NO_OPTIONS, "--opt": NO_OPTIONS}
FILTERS = ("dangling", "driver", "label", "name")
HEADINGS = {
    "Driver": "DRIVER",
    "Name": "VOLUME NAME",
    "Mountpoint": "MOUNTPOINT",
    "Scope": "SCOPE",
    "Labels": "LABELS",
}


@image_command
def create(argv: list[str]) -> int:
    """Run `pyrtc volume create`."""
    usage = "pyrtc volume create [OPTIONS] [NAME]"
    parsed = parse_options(
        argv, CREATE_OPTIONS, usage, "Make a volume; without a name an anonymous one.", unavailable=UNAVAILABLE
    )
    if parsed is None:
        return 0
    if len(parsed.arguments) > 1:
        raise UsageError(f"one name at a time: {' '.join(parsed.arguments)}")
    driver = parsed.word("--driver")
    if driver not in (None, "local"):
        raise UsageError(f"unknown volume driver {driver!r}: the only one there is is local")
    labels: dict[str, str] = {}
    for text in parsed.words("--label"):
        name, _, value = text.partition("=")
        if not name:
            raise OptionError(f"a label without a name: {text}")
        labels[name] = value
    with opened_engine() as engine:
        print(engine.volumes.create(*parsed.arguments, labels=labels).name)
    return 0


@image_command
def ls(argv: list[str]) -> int:
    """Run `pyrtc volume ls`."""
    parsed = parse_options(argv, LS_OPTIONS, "pyrtc volume ls [OPTIONS]", "List volumes.")
    if parsed is None:
        return 0
    if parsed.arguments:
        raise UsageError(f"unexpected argument: {parsed.arguments[0]}")
    filters = [pair(text) for text in parsed.words("--filter")]
    for key, value in filters:
        if key not in FILTERS:
            raise UsageError(f"invalid filter {key}{nearest(key, FILTERS)}")
        if key == "dangling" and value not in TRUTH:
            raise UsageError(f"invalid filter {key}={value}: say true or false")
    with opened_engine() as engine:
        users = engine.volumes.users()
        found = engine.volumes.list()
    rows = []
    for item in found:
        if all(_passes(item, item.name in users, key, value) for key, value in filters):
            labels = ",".join(f"{name}={value}" for name, value in item.labels)
            rows.append(
                {
                    "Driver": "local",
                    "Name": item.name,
                    "Mountpoint": item.path,
                    "Scope": "local",
                    "Labels": labels,
                }
            )
    if parsed.flag("--quiet"):
        for row in rows:
            print(row["Name"])
    else:
        print_rows(rows, parsed.word("--format") or "table", ["Driver", "Name"], HEADINGS)
    return 0


def _passes(item: "Volume", used: bool, key: str, value: str) -> bool:
    if key == "name":
        return value in item.name
    if key == "driver":
        return value == "local"
    if key == "dangling":
        return TRUTH[value] != used
    name, has_value, wanted = value.partition("=")
    labels = dict(item.labels)
    return name in labels and (not has_value or labels[name] == wanted)


@image_command
def rm(argv: list[str]) -> int:
    """Run `pyrtc volume rm`: each name is tried, whatever happens to the others."""
    usage = "pyrtc volume rm [OPTIONS] VOLUME..."
    parsed = parse_options(argv, RM_OPTIONS, usage, "Remove volumes with their data.")
    if parsed is None:
        return 0
    if not parsed.arguments:
        raise UsageError(f"the volume is missing: {usage}")
    with opened_engine() as engine:
        there = {item.name for item in engine.store.volumes.list()}

        def remove(name: str) -> None:
            try:
                engine.store.volumes.remove(name)
            except PyrtcError:
                if not parsed.flag("--force") or name in there:
                    raise
            else:
                print(name)

        return try_each(parsed.arguments, remove)


@image_command
def prune(argv: list[str]) -> int:
    """Run `pyrtc volume prune`."""
    usage = "pyrtc volume prune [OPTIONS]"
    parsed = parse_options(argv, PRUNE_OPTIONS, usage, "Remove anonymous volumes that no container mounts.")
    if parsed is None:
        return 0
    if parsed.arguments:
        raise UsageError(f"unexpected argument: {parsed.arguments[0]}")
    named = parsed.flag("--all")
    only = read_filter(parsed.words("--filter"))
    which = "all volumes" if named else "all anonymous volumes"
    if not parsed.flag("--force") and not agreed(f"{which} not used by at least one container"):
        return 0
    with opened_engine() as engine:
        print_pruned(engine.system.prune_volumes(named=named, only=only))
    return 0


VOLUME = {
    "create": ("pyrtc.cli.volumes", "create", "Make a volume"),
    "inspect": ("pyrtc.cli.inspect", "volume_inspect", "Print everything about volumes as JSON"),
    "ls": ("pyrtc.cli.volumes", "ls", "List volumes"),
    "prune": ("pyrtc.cli.volumes", "prune", "Remove volumes that no container mounts"),
    "rm": ("pyrtc.cli.volumes", "rm", "Remove volumes"),
}


@image_command
def volume(argv: list[str]) -> int:
    """Run `pyrtc volume SUBCOMMAND`."""
    return run_noun("volume", "Data that outlives containers.", VOLUME, argv)
