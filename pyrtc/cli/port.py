"""`pyrtc port`: which ports of the host lead to a container."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pyrtc.cli.image_command import HELP, image_command, parse_options
from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import Group
from pyrtc.errors import ContainerError, UsageError

if TYPE_CHECKING:
    from pyrtc.engine import Engine

    OpenEngine = Callable[[], AbstractContextManager[Engine]]

__all__ = ["port"]


@image_command
def port(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc port`: containers have no published ports, so there is none to print."""
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
        if len(parsed.arguments) == 2:
            wanted, _, protocol = parsed.arguments[1].partition("/")
            if not wanted.isdecimal() or protocol not in ("", "tcp", "udp", "sctp"):
                raise UsageError(f"{parsed.arguments[1]} is no port: write 80, or 53/udp")
            raise ContainerError(f"no public port '{wanted}/{protocol or 'tcp'}' published for {container.name}")
    return 0
