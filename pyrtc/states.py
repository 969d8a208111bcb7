"""What a container is doing now, found out from its row, its processes and what its monitor wrote: never stale."""

import json
import os
from typing import Any, Literal

from pyrtc.container import Outcome
from pyrtc.errors import StoreError
from pyrtc.runtime.cgroups.frozen import is_frozen
from pyrtc.store import ContainerRecord
from pyrtc.store.owner import Owner
from pyrtc.values import dataclass

__all__ = ["Ended", "Status", "exit_of", "has_monitor", "is_alive", "outcome_of", "read_exit", "status_of"]

Status = Literal["created", "running", "paused", "restarting", "exited", "dead"]
_EXIT_SIZE = 512


@dataclass(frozen=True, slots=True)
class Ended:
    """What the monitor wrote about an end.

    code: what process 1 exited with. signal: what killed it, 0 for none. oom: the kernel killed a process for want of
    memory. timed_out: it ran longer than it was to, and was killed. started, finished: seconds since the epoch. user,
    system: seconds of CPU time of process 1 and what it reaped.
    """

    code: int
    signal: int
    oom: bool
    started: float
    finished: float
    timed_out: bool = False
    user: float = 0.0
    system: float = 0.0

    @property
    def returncode(self) -> int:
        """128 + n after signal n, as Docker and shells tell it."""
        return 128 + self.signal if self.signal else self.code


def is_alive(record: ContainerRecord) -> bool:
    """Whether process 1 of a container's latest run is there; in a pid namespace that cannot be seen it counts so."""
    return bool(record.pid) and Owner(record.pid, record.start_time, record.owner.boot).alive()


def has_monitor(record: ContainerRecord) -> bool:
    """Whether the monitor of the latest run, or the end command that it becomes, is there."""
    return bool(record.monitor_pid) and Owner(record.monitor_pid, record.monitor_start, record.owner.boot).alive()


def status_of(record: ContainerRecord) -> Status:
    """Return what a container is doing, in Docker's words.

    ``dead``: what remains of one that was to be removed.
    """
    if record.state in ("creating", "created"):
        return "created"
    if record.state == "restarting":
        return "restarting" if record.owner.alive() else "exited"
    if record.state != "running":
        return "exited"
    if not is_alive(record):
        return "dead" if record.remove and not has_monitor(record) and record.detached else "exited"
    return "paused" if is_frozen(record.id) else "running"


def read_exit(record: ContainerRecord) -> Ended | None:
    """Return what the monitor wrote about the end of the latest run; None where it wrote nothing.

    The file of an earlier run does not count: it is removed before the next.

    Raises
    ------
    StoreError: it cannot be read; how the run ended is not lost then, and must not be recorded as unknown.
    """
    if record.directory is None:
        return None
    try:
        fd = os.open(f"{record.directory}/exit", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot read how container {record.name} ended: {error.strerror}") from None
    try:
        text = os.read(fd, _EXIT_SIZE).decode("ascii", errors="replace")
    finally:
        os.close(fd)
    said = dict(word.partition("=")[::2] for word in text.split())
    try:
        return Ended(
            code=int(said["code"]),
            signal=int(said["signal"]),
            oom=said["oom"] != "0",
            started=int(said["started"]) / 1e9,
            finished=int(said["finished"]) / 1e9,
            timed_out=said.get("timeout", "0") != "0",
            user=int(said.get("user_us", 0)) / 1e6,
            system=int(said.get("system_us", 0)) / 1e6,
        )
    except (KeyError, ValueError):
        return None


def exit_of(record: ContainerRecord) -> dict[str, Any]:
    """Return how the latest run ended, as the row tells it or, while nobody has written that, the monitor."""
    if record.exit is not None and record.state != "running":
        found: dict[str, Any] = json.loads(record.exit)
        return found
    ended = read_exit(record)
    return {} if ended is None else {"returncode": ended.returncode, "outcome": outcome_of(ended).value}


def outcome_of(ended: Ended) -> Outcome:
    """Return why a run ended."""
    if ended.timed_out:
        return Outcome.TIMEOUT
    if ended.oom and ended.returncode:
        return Outcome.OOM_KILLED
    return Outcome.SIGNALED if ended.signal else Outcome.EXITED
