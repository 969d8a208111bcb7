"""`pyrtc cluster join`, `leave`, `ls`, `inspect` and `rm-host`."""

import sys

from pyrtc.cli.each import try_each
from pyrtc.cli.image_command import HELP, image_command, parse_options
from pyrtc.cli.nouns import run_noun
from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import Group, Option
from pyrtc.cli.tables import print_rows
from pyrtc.errors import UsageError

__all__ = ["cluster", "inspect", "join", "leave", "ls", "rm_host"]

JOIN_OPTIONS = (
    Group(
        "Options",
        (
            Option("--etcd", "URL[,URL]", "members of etcd, http://HOST:2379 or https://HOST:2379", repeat=True),
            Option("--advertise", "ADDRESS", "the address of this host that other hosts reach, or the device with it"),
            Option("--name", "NAME", "what lists call this host; its host name"),
            Option("--tls-ca", "FILE", "the CA that etcd's certificates are from"),
            Option("--tls-cert", "FILE", "this host's certificate for etcd"),
            Option("--tls-key", "FILE", "its key"),
            HELP,
        ),
    ),
)
LEAVE_OPTIONS = (Group("Options", (Option("-f, --force", "", "also when etcd cannot be reached"), HELP)),)
RM_OPTIONS = (Group("Options", (Option("-f, --force", "", "also a host that is alive"), HELP)),)
LS_OPTIONS = (
    Group(
        "Options",
        (
            Option("-q, --quiet", "", "print ids only"),
            Option("--no-trunc", "", "print whole ids"),
            Option(
                "--format",
                "FORMAT",
                "table, json, or a template of .ID .Name .Address .MTU .Version .Status .Containers .PublicKey .Self",
            ),
            HELP,
        ),
    ),
)
INSPECT_OPTIONS = (Group("Options", (HELP,)),)
HEADINGS = {
    "ID": "ID",
    "Name": "NAME",
    "Address": "ADDRESS",
    "MTU": "MTU",
    "Version": "VERSION",
    "Status": "STATUS",
    "Containers": "CONTAINERS",
    "PublicKey": "PUBLIC KEY",
    "Self": "SELF",
}
_SHORT = 12


@image_command
def join(argv: list[str]) -> int:
    """Run `pyrtc cluster join`."""
    usage = "pyrtc cluster join [OPTIONS] --etcd URL[,URL]"
    parsed = parse_options(argv, JOIN_OPTIONS, usage, "Share overlay networks with the hosts that use this etcd.")
    if parsed is None:
        return 0
    if parsed.arguments:
        raise UsageError(f"unexpected argument: {parsed.arguments[0]}")
    etcd = [url for words in parsed.words("--etcd") for url in words.split(",")]
    if not etcd:
        raise UsageError(f"etcd is missing: {usage}")
    with opened_engine() as engine:
        found = engine.cluster.join(
            etcd,
            tls_ca=parsed.word("--tls-ca") or "",
            tls_cert=parsed.word("--tls-cert") or "",
            tls_key=parsed.word("--tls-key") or "",
            advertise=parsed.word("--advertise") or "",
            name=parsed.word("--name") or "",
        )
    if any(url.startswith("http:") for url in found.etcd):
        print(
            "WARNING: etcd is spoken to without TLS: whoever can reach it can redirect what containers send",
            file=sys.stderr,
        )
    print(found.host_id)
    return 0


@image_command
def leave(argv: list[str]) -> int:
    """Run `pyrtc cluster leave`."""
    usage = "pyrtc cluster leave [OPTIONS]"
    parsed = parse_options(argv, LEAVE_OPTIONS, usage, "Give back this host's addresses and forget overlay networks.")
    if parsed is None:
        return 0
    if parsed.arguments:
        raise UsageError(f"unexpected argument: {parsed.arguments[0]}")
    with opened_engine() as engine:
        engine.cluster.leave(force=parsed.flag("--force"))
    return 0


@image_command
def ls(argv: list[str]) -> int:
    """Run `pyrtc cluster ls`."""
    parsed = parse_options(argv, LS_OPTIONS, "pyrtc cluster ls [OPTIONS]", "List the hosts of the cluster.")
    if parsed is None:
        return 0
    if parsed.arguments:
        raise UsageError(f"unexpected argument: {parsed.arguments[0]}")
    with opened_engine() as engine:
        found = engine.cluster.list()
    rows: list[dict[str, object]] = [
        {
            "ID": host.id if parsed.flag("--no-trunc") or parsed.flag("--quiet") else host.id[:_SHORT],
            "Name": host.name,
            "Address": host.address,
            "MTU": host.mtu,
            "Version": host.version,
            "Status": host.status,
            "Containers": host.containers,
            "PublicKey": host.key,
            "Self": "*" if host.own else "",
        }
        for host in found
    ]
    if parsed.flag("--quiet"):
        for row in rows:
            print(row["ID"])
    else:
        columns = ["ID", "Name", "Address", "Status", "Containers", "Self"]
        print_rows(rows, parsed.word("--format") or "table", columns, HEADINGS)
    return 0


@image_command
def inspect(argv: list[str]) -> int:
    """Run `pyrtc cluster inspect`."""
    usage = "pyrtc cluster inspect"
    parsed = parse_options(argv, INSPECT_OPTIONS, usage, "Print what this host takes part in as JSON.")
    if parsed is None:
        return 0
    if parsed.arguments:
        raise UsageError(f"unexpected argument: {parsed.arguments[0]}")
    with opened_engine() as engine:
        found = engine.cluster.inspect()
    import json

    document = {
        "ID": found.id,
        "Host": {
            "ID": found.host_id,
            "Name": found.host_name,
            "Address": found.address,
            "MTU": found.mtu,
            "PublicKey": found.key,
        },
        "Etcd": {
            "Endpoints": list(found.etcd),
            "Reachable": found.reachable,
            "TLS": {"CA": found.tls_ca, "Certificate": found.tls_cert, "Key": found.tls_key},
        },
        "State": found.state,
        "Networks": list(found.networks),
        "Blocks": [{"Network": network, "Block": block} for network, block in found.blocks],
        "Problems": list(found.problems),
    }
    print(json.dumps([document], indent=4))
    return 0


@image_command
def rm_host(argv: list[str]) -> int:
    """Run `pyrtc cluster rm-host`: each is tried, whatever happens to the others."""
    usage = "pyrtc cluster rm-host [OPTIONS] HOST..."
    parsed = parse_options(argv, RM_OPTIONS, usage, "Remove hosts that are gone; their addresses are free then.")
    if parsed is None:
        return 0
    if not parsed.arguments:
        raise UsageError(f"the host is missing: {usage}")
    force = parsed.flag("--force")
    with opened_engine() as engine:

        def remove(host: str) -> None:
            print(engine.cluster.remove_host(host, force=force).id)

        return try_each(parsed.arguments, remove)


CLUSTER = {
    "inspect": ("pyrtc.cli.cluster", "inspect", "Print what this host takes part in as JSON"),
    "join": ("pyrtc.cli.cluster", "join", "Share overlay networks with other hosts"),
    "leave": ("pyrtc.cli.cluster", "leave", "Share them no more"),
    "ls": ("pyrtc.cli.cluster", "ls", "List the hosts"),
    "rm-host": ("pyrtc.cli.cluster", "rm_host", "Remove hosts that are gone"),
}


@image_command
def cluster(argv: list[str]) -> int:
    """Run `pyrtc cluster SUBCOMMAND`."""
    return run_noun("cluster", "Hosts that share overlay networks.", CLUSTER, argv)
