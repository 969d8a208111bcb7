"""`pyrtc network create`, `ls`, `connect`, `disconnect`, `rm` and `prune`."""

import sys
from typing import TYPE_CHECKING

from pyrtc.cli.each import complain
from pyrtc.cli.image_command import FAILED, HELP, image_command, parse_options
from pyrtc.cli.nouns import run_noun
from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import TRUTH, Group, Option, OptionError, nearest, pair
from pyrtc.cli.system import FILTER, FORCE, read_filter
from pyrtc.cli.tables import agreed, print_rows, printable
from pyrtc.errors import NetworkNotFound, PyrtcError, UsageError

if TYPE_CHECKING:
    from pyrtc.engine import Engine
    from pyrtc.store.network_records import Network

__all__ = ["connect", "create", "disconnect", "ls", "network", "prune", "rm"]

CREATE_OPTIONS = (
    Group(
        "Options",
        (
            Option("-d, --driver", "bridge|macvlan|overlay", "bridge unless told; overlay is for hosts of a cluster"),
            Option("--subnet", "CIDR", "the network's addresses, IPv4 or IPv6; a free subnet is picked", repeat=True),
            Option("--gateway", "ADDRESS", "this machine's address in it; else the first of the subnet", repeat=True),
            Option("--ip-range", "CIDR", "the part of the subnet that containers get addresses from", repeat=True),
            Option("--aux-address", "NAME=ADDRESS", "an address that no container gets: a router's, say", repeat=True),
            Option("--ipv6", "", "with IPv6: a unique local subnet unless --subnet says one"),
            Option("--internal", "", "no way out: containers on it reach one another only"),
            Option("--attachable", "", "of overlay networks: containers may join it"),
            Option("--encrypt", "", "of overlay networks: encrypt between hosts (WireGuard), as --opt encrypted"),
            Option(
                "-o, --opt",
                "NAME=VALUE",
                "of the driver: mtu, com.docker.network.bridge.name, parent, encrypted",
                repeat=True,
            ),
            Option("--label", "NAME[=VALUE]", "a label for the network", repeat=True),
            HELP,
        ),
    ),
)
LS_OPTIONS = (
    Group(
        "Options",
        (
            Option("-q, --quiet", "", "print ids only"),
            Option(
                "-f, --filter",
                "KEY=VALUE",
                "list some: driver=NAME, id=START, name=PART, label=NAME[=VALUE], scope=local, type=builtin|custom, "
                "dangling=true",
                repeat=True,
            ),
            Option(
                "--format",
                "FORMAT",
                "table, json, or a template of .ID .Name .Driver .Scope .CreatedAt .IPv4 .IPv6 .Internal .Labels, "
                ".Label NAME",
            ),
            Option("--no-trunc", "", "print whole ids"),
            HELP,
        ),
    ),
)
RM_OPTIONS = (Group("Options", (Option("-f, --force", "", "one that is missing is no failure"), HELP)),)
PRUNE_OPTIONS = (Group("Options", (FILTER, FORCE, HELP)),)
CONNECT_OPTIONS = (
    Group(
        "Options",
        (
            Option("--ip", "ADDRESS", "the container's IPv4 address on it"),
            Option("--ip6", "ADDRESS", "the container's IPv6 address on it"),
            Option("--mac-address", "ADDRESS", "of its device there"),
            Option("--alias", "NAME", "one more name that containers of that network find it by", repeat=True),
            HELP,
        ),
    ),
)
DISCONNECT_OPTIONS = (Group("Options", (Option("-f, --force", "", "one that is not on it is no failure"), HELP)),)
FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")
HEADINGS = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "CreatedAt": "CREATED AT",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
}
SHORT_ID = 12


@image_command
def create(argv: list[str]) -> int:
    """Run `pyrtc network create`."""
    usage = "pyrtc network create [OPTIONS] NETWORK"
    parsed = parse_options(argv, CREATE_OPTIONS, usage, "Make a network.")
    if parsed is None:
        return 0
    if len(parsed.arguments) != 1:
        raise UsageError(f"one name is needed: {usage}")
    with opened_engine() as engine:
        made = engine.networks.create(
            parsed.arguments[0],
            driver=parsed.word("--driver") or "bridge",
            subnet=parsed.words("--subnet"),
            gateway=parsed.words("--gateway"),
            ip_range=parsed.words("--ip-range"),
            aux_addresses=_pairs("an auxiliary address", parsed.words("--aux-address")),
            ipv6=parsed.flag("--ipv6"),
            internal=parsed.flag("--internal"),
            attachable=parsed.flag("--attachable"),
            encrypt=parsed.flag("--encrypt"),
            options=_pairs("an option", parsed.words("--opt")),
            labels=_pairs("a label", parsed.words("--label")),
        )
        print(made.id)
        _warn_of_obstacles(engine, made)
    return 0


def _warn_of_obstacles(engine: "Engine", made: "Network") -> None:
    """Tell what other firewalls drop of its packets; the network is made all the same."""
    try:
        obstacles = engine.networks.obstacles(made.id)
    except PyrtcError as error:
        complain(error)
        return
    for text in obstacles:
        print(f"pyrtc: warning: {printable(text)}", file=sys.stderr)


def _pairs(what: str, words: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        if not name:
            raise OptionError(f"{what} without a name: {word}")
        pairs[name] = value
    return pairs


@image_command
def ls(argv: list[str]) -> int:
    """Run `pyrtc network ls`."""
    parsed = parse_options(argv, LS_OPTIONS, "pyrtc network ls [OPTIONS]", "List networks.")
    if parsed is None:
        return 0
    if parsed.arguments:
        raise UsageError(f"unexpected argument: {parsed.arguments[0]}")
    filters = [_filter(text) for text in parsed.words("--filter")]
    with opened_engine() as engine:
        found = engine.networks.list()
        dangling = {item.id: not engine.store.networks.endpoints_on(item.id) for item in found} if filters else {}
    rows = []
    for item in found:
        if not _passes(item, filters, unused=dangling.get(item.id, False)):
            continue
        number = item.id if parsed.flag("--no-trunc") else item.id[:SHORT_ID]
        if parsed.flag("--quiet"):
            print(number)
            continue
        rows.append(_row(item, number))
    if not parsed.flag("--quiet"):
        print_rows(rows, parsed.word("--format") or "table", ["ID", "Name", "Driver", "Scope"], HEADINGS)
    return 0


def _row(item: "Network", number: str) -> dict[str, str]:
    from datetime import UTC, datetime

    return {
        "ID": number,
        "Name": item.name,
        "Driver": item.driver,
        "Scope": scope_of(item),
        "CreatedAt": datetime.fromtimestamp(item.created, UTC).strftime("%Y-%m-%d %H:%M:%S.%f +0000 UTC"),
        "IPv4": _truth(bool(item.subnet4) or item.predefined),
        "IPv6": _truth(bool(item.subnet6)),
        "Internal": _truth(item.internal),
        "Labels": ",".join(f"{name}={value}" for name, value in item.labels),
    }


def _truth(holds: bool) -> str:
    return "true" if holds else "false"


def scope_of(item: "Network") -> str:
    """Return how far a network reaches: ``global`` for all hosts of a cluster."""
    return "global" if item.driver == "overlay" else "local"


def _filter(text: str) -> tuple[str, str]:
    key, value = pair(text)
    if key not in FILTERS:
        raise UsageError(f"invalid filter {key}{nearest(key, FILTERS)}")
    if key == "dangling" and value not in TRUTH:
        raise UsageError(f"invalid filter {text}: say true or false")
    if key == "type" and value not in ("builtin", "custom"):
        raise UsageError(f"invalid filter {text}: say builtin or custom")
    return key, value


def _passes(item: "Network", filters: list[tuple[str, str]], *, unused: bool) -> bool:
    """Say whether all labels fit, and one value of each other key, as Docker has it."""
    labels = [value for key, value in filters if key == "label"]
    if not all(_fits(item, "label", value, unused=unused) for value in labels):
        return False
    keys = {key for key, _ in filters} - {"label"}
    return all(any(_fits(item, key, value, unused=unused) for said, value in filters if said == key) for key in keys)


def _fits(item: "Network", key: str, value: str, *, unused: bool) -> bool:
    if key == "dangling":
        return TRUTH[value] == (unused and not item.predefined)
    if key == "type":
        return (value == "builtin") == item.predefined
    if key == "label":
        name, has_value, wanted = value.partition("=")
        labels = dict(item.labels)
        return name in labels and (not has_value or labels[name] == wanted)
    return {
        "driver": item.driver == value,
        "id": item.id.startswith(value),
        "name": value in item.name,
        "scope": scope_of(item) == value,
    }[key]


@image_command
def rm(argv: list[str]) -> int:
    """Run `pyrtc network rm`: each is tried, whatever happens to the others."""
    usage = "pyrtc network rm [OPTIONS] NETWORK..."
    parsed = parse_options(argv, RM_OPTIONS, usage, "Remove networks that no running container is on.")
    if parsed is None:
        return 0
    if not parsed.arguments:
        raise UsageError(f"the network is missing: {usage}")
    code = 0
    with opened_engine() as engine:
        for name in parsed.arguments:
            try:
                engine.networks.remove(name)
            except PyrtcError as error:
                if parsed.flag("--force") and isinstance(error, NetworkNotFound):
                    continue
                complain(error)
                code = FAILED
            else:
                print(printable(name))
    return code


@image_command
def prune(argv: list[str]) -> int:
    """Run `pyrtc network prune`."""
    usage = "pyrtc network prune [OPTIONS]"
    parsed = parse_options(argv, PRUNE_OPTIONS, usage, "Remove networks that no container uses.")
    if parsed is None:
        return 0
    if parsed.arguments:
        raise UsageError(f"unexpected argument: {parsed.arguments[0]}")
    only = read_filter(parsed.words("--filter"))
    if not parsed.flag("--force") and not agreed("all custom networks not used by at least one container"):
        return 0
    with opened_engine() as engine:
        removed = engine.networks.prune(lambda item: only.passes(item.created, item.labels))
    if removed:
        print("\n".join(["Deleted Networks:", *removed, ""]))
    return 0


@image_command
def connect(argv: list[str]) -> int:
    """Run `pyrtc network connect`."""
    usage = "pyrtc network connect [OPTIONS] NETWORK CONTAINER"
    parsed = parse_options(argv, CONNECT_OPTIONS, usage, "Put a container on a network, whether it runs or not.")
    if parsed is None:
        return 0
    if len(parsed.arguments) != 2:
        raise UsageError(f"a network and a container are needed: {usage}")
    network, container = parsed.arguments
    with opened_engine() as engine:
        engine.networks.connect(
            network,
            container,
            ip=parsed.word("--ip"),
            ip6=parsed.word("--ip6"),
            mac_address=parsed.word("--mac-address"),
            aliases=parsed.words("--alias"),
        )
    return 0


@image_command
def disconnect(argv: list[str]) -> int:
    """Run `pyrtc network disconnect`."""
    usage = "pyrtc network disconnect [OPTIONS] NETWORK CONTAINER"
    parsed = parse_options(argv, DISCONNECT_OPTIONS, usage, "Take a container from a network, whether it runs or not.")
    if parsed is None:
        return 0
    if len(parsed.arguments) != 2:
        raise UsageError(f"a network and a container are needed: {usage}")
    network, container = parsed.arguments
    with opened_engine() as engine:
        engine.networks.disconnect(network, container, force=parsed.flag("--force"))
    return 0


NETWORK = {
    "connect": ("pyrtc.cli.networks", "connect", "Put a container on a network"),
    "create": ("pyrtc.cli.networks", "create", "Make a network"),
    "disconnect": ("pyrtc.cli.networks", "disconnect", "Take a container from a network"),
    "inspect": ("pyrtc.cli.inspect", "network_inspect", "Print everything about networks as JSON"),
    "ls": ("pyrtc.cli.networks", "ls", "List networks"),
    "prune": ("pyrtc.cli.networks", "prune", "Remove networks that no container uses"),
    "rm": ("pyrtc.cli.networks", "rm", "Remove networks"),
}


@image_command
def network(argv: list[str]) -> int:
    """Run `pyrtc network SUBCOMMAND`."""
    return run_noun("network", "What containers reach one another over.", NETWORK, argv)
