"""`pyrtc update`: other limits, or another restart policy, for containers that are there."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from pyrtc import quantities
from pyrtc.cli.each import try_each
from pyrtc.cli.image_command import HELP, image_command, parse_options
from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import Group, Option, Parsed
from pyrtc.cli.run_options import CPU_TIME
from pyrtc.errors import UsageError

if TYPE_CHECKING:
    from pyrtc.engine import Engine

    OpenEngine = Callable[[], AbstractContextManager[Engine]]

__all__ = ["update"]

OPTIONS = (
    Group(
        "Options",
        (
            Option("-m, --memory", "SIZE", "memory: 512m, 1.5g; 0: unlimited"),
            Option("--memory-swap", "SIZE", "memory and swap together; -1: unlimited swap; 0: twice the memory"),
            Option("--memory-reservation", "SIZE", "memory to leave alone while others have some to give; 0: none"),
            Option("--cpus", "NUMBER", "CPUs' worth of time: 0.5, 2; 0: unlimited"),
            Option("-c, --cpu-shares", "NUMBER", "weight when CPUs are short; 0: the usual 1024"),
            Option("--cpuset-cpus", "LIST", 'run on these CPUs only: 0-2,5; "": on all'),
            Option("--cpuset-mems", "LIST", 'take memory from these nodes only; "": from all'),
            Option("--pids-limit", "NUMBER", "processes and threads; -1 or 0: unlimited"),
            Option("--blkio-weight", "NUMBER", "weight when a disk is busy, 10 to 1000; 0: the usual one"),
            Option(
                "--device-read-bps", "DEVICE:RATE", "bytes read per second: /dev/sda:10mb; 0: unlimited", repeat=True
            ),
            Option("--device-write-bps", "DEVICE:RATE", "bytes written per second", repeat=True),
            Option("--device-read-iops", "DEVICE:RATE", "reads per second: /dev/sda:1000", repeat=True),
            Option("--device-write-iops", "DEVICE:RATE", "writes per second", repeat=True),
            Option("--network-rate-in", "RATE", "bits per second received over each network device; 0: unlimited"),
            Option("--network-rate-out", "RATE", "bits per second sent over each network device; 0: unlimited"),
            Option("--restart", "POLICY", "no, on-failure[:N], always, unless-stopped"),
            HELP,
        ),
    ),
)
READERS: "dict[str, tuple[str, Callable[[str], Any]]]" = {
    "--memory": ("memory", quantities.limit_size),
    "--memory-swap": ("memory_swap", quantities.swap_size),
    "--memory-reservation": ("memory_reservation", quantities.limit_size),
    "--cpus": ("cpus", quantities.cpus),
    "--cpu-shares": ("cpu_shares", quantities.whole),
    "--cpuset-cpus": ("cpuset_cpus", lambda word: word or None),
    "--cpuset-mems": ("cpuset_mems", lambda word: word or None),
    "--pids-limit": ("pids", quantities.whole),
    "--blkio-weight": ("blkio_weight", quantities.whole),
    "--network-rate-in": ("network_in", quantities.network_rate),
    "--network-rate-out": ("network_out", quantities.network_rate),
    "--restart": ("restart", quantities.restart_policy),
}
RATES: "dict[str, tuple[str, Callable[[str], tuple[str, int]]]]" = {
    "--device-read-bps": ("device_read_bps", quantities.device_rate),
    "--device-write-bps": ("device_write_bps", quantities.device_rate),
    "--device-read-iops": ("device_read_iops", quantities.device_count),
    "--device-write-iops": ("device_write_iops", quantities.device_count),
}


@image_command
def update(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc update`: each container is tried, whatever happens to the others."""
    usage = "pyrtc update [OPTIONS] CONTAINER..."
    ending = "What a container runs with changes at once, and is what it is started with again."
    parsed = parse_options(argv, OPTIONS, usage, "Change the limits of containers.", ending, unavailable=CPU_TIME)
    if parsed is None:
        return 0
    if not parsed.arguments:
        raise UsageError(f"the container is missing: {usage}")
    changes = _changes(parsed)
    if not changes:
        raise UsageError(f"you must provide one or more options: {usage}")
    from pyrtc.cli.tables import printable

    with (open_engine or opened_engine)() as engine:

        def change(name: str) -> None:
            for warning in engine.containers.get(name).update(**changes):
                print(f"pyrtc: warning: {printable(warning)}", file=sys.stderr)
            print(name)

        return try_each(parsed.arguments, change)


def _changes(parsed: Parsed) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for option, (name, read) in READERS.items():
        if parsed.word(option) is not None:
            changes[name] = parsed.one(option, read, late=option == "--restart")
    for option, (name, read_rate) in RATES.items():
        if parsed.words(option):
            changes[name] = parsed.all(option, read_rate)
    return changes
