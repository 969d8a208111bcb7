"""The processes of a container, read from /proc on the host; nothing runs in the container for that.

What a process calls itself is its own to choose: names and arguments may hold anything and are bounded here.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from pyrtc.errors import ContainerError, ContainerNotFound
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.handle import Handle
    from pyrtc.store import ContainerRecord

__all__ = ["ProcessInfo", "processes"]

_MAX_ARGUMENTS = 64 << 10  # bytes that are read of one command line
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process of a container.

    pid, ppid: as this machine numbers them. uid: its effective user on this machine. name: of its program, at most 15
    bytes; command: with its arguments, or the name in brackets where it has none. state: one letter, as ps(1) shows it.
    started: seconds since the epoch. cpu_seconds: it has used. threads: it has. nice, priority: as ps(1) shows them.
    resident, virtual: bytes. tty: of its terminal, such as ``pts/0``, "" without.
    """

    pid: int
    ppid: int
    uid: int
    name: str
    command: str
    state: str
    started: float
    cpu_seconds: float
    threads: int
    nice: int
    priority: int
    resident: int
    virtual: int
    tty: str


def processes(container: "Handle") -> tuple[ProcessInfo, ...]:
    """See `Container.top`."""
    from pyrtc.states import is_alive

    record = container.record
    if record.state != "running" or not is_alive(record):
        raise ContainerError(f"container {record.name} is not running")
    try:
        pids: Iterable[int] = container.cgroup().process_ids()
    except ContainerNotFound:  # this user may not make control groups
        pids = _of_namespace(record)
    boot = _boot_time()
    found = []
    for pid in sorted(set(pids)):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            found.append(_read(pid, boot))
    return tuple(found)


def _of_namespace(record: "ContainerRecord") -> list[int]:
    """Return the processes that are in the pid namespace of process 1."""
    try:
        wanted = os.readlink(f"/proc/{record.pid}/ns/pid")
        if wanted == os.readlink("/proc/self/ns/pid"):
            raise ContainerError(
                f"cannot tell the processes of container {record.name} from others: it shares the host's pid namespace "
                "and has no control group"
            )
    except OSError as error:
        raise ContainerError(f"cannot look at the processes of container {record.name}: {error.strerror}") from None
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(OSError):  # another user's, or gone
                if os.readlink(f"/proc/{name}/ns/pid") == wanted:
                    found.append(int(name))
    return found


def _boot_time() -> float:
    with open("/proc/stat") as file:
        return float(next(line for line in file if line.startswith("btime ")).split()[1])


def _read(pid: int, boot: float) -> ProcessInfo:
    """Read one process (proc_pid_stat(5), proc_pid_cmdline(5)).

    Raises
    ------
    FileNotFoundError, ProcessLookupError: it has ended.
    """
    uid = os.stat(f"/proc/{pid}").st_uid
    with open(f"/proc/{pid}/stat", "rb") as file:
        text = file.read()
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        arguments = file.read(_MAX_ARGUMENTS)
    # The name is in parentheses and may hold anything, parentheses and spaces included.
    begin, end = text.index(b"("), text.rindex(b")")
    name = text[begin + 1 : end].decode(errors="replace")
    fields = text[end + 2 :].split()
    words = arguments.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return ProcessInfo(
        pid=pid,
        ppid=int(fields[1]),
        uid=_effective(pid, uid),
        name=name,
        command=words or f"[{name}]",
        state=fields[0].decode(),
        started=boot + int(fields[19]) / _TICKS,
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS,
        threads=int(fields[17]),
        nice=int(fields[16]),
        priority=int(fields[15]),
        resident=int(fields[21]) * _PAGE,
        virtual=int(fields[20]),
        tty=_terminal(int(fields[4])),
    )


def _effective(pid: int, owner: int) -> int:
    """Return the effective user; the owner of /proc/<pid> is root where the process may not be dumped."""
    with open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"Uid:"):
                return int(line.split()[2])
    return owner


def _terminal(number: int) -> str:
    """Return the name of a terminal by its device number as stat has it."""
    major, minor = number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00
    if not number:
        return ""
    if 136 <= major <= 143:
        return f"pts/{(major - 136) * 256 + minor}"
    return f"tty{minor}" if major == 4 and minor < 64 else f"{major}:{minor}"
