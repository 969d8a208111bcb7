"""`pyrtc port`: which ports of the host lead to a container."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pyrtc.cli.image_command import HELP, image_command, parse_options
from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import Group
from pyrtc.cli.port_texts import destinations, name
from pyrtc.errors import ContainerError, UsageError

if TYPE_CHECKING:
    from pyrtc.engine import Engine

    OpenEngine = Callable[[], AbstractContextManager[Engine]]

__all__ = ["port"]


@image_command
def port(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc port`."""
    usage = "pyrtc port CONTAINER [PORT[/PROTOCOL]]"
    parsed = parse_options(
        argv, (Group("Options", (HELP,)),), usage, "Print the ports of this machine that lead to a container."
    )
    if parsed is None:
        return 0
    if not 1 <= len(parsed.arguments) <= 2:
        raise UsageError(f"a container is needed: {usage}")
    with (open_engine or opened_engine)() as engine:
        container = engine.containers.get(parsed.arguments[0])
        ports = container.ports
        if len(parsed.arguments) == 1:
            for one in ports:
                for place in destinations(one):
                    print(f"{name(one)} -> {place}")
            return 0
        wanted, _, protocol = parsed.arguments[1].partition("/")
        if not wanted.isdecimal() or protocol not in ("", "tcp", "udp", "sctp"):
            raise UsageError(f"{parsed.arguments[1]} is no port: write 80, or 53/udp")
        wanted = f"{wanted}/{protocol or 'tcp'}"
        found = [place for one in ports if name(one) == wanted for place in destinations(one)]
        if not found:
            raise ContainerError(f"no public port '{wanted}' published for {container.name}")
        print("\n".join(found))
    return 0
