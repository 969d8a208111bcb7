"""What the store knows of one container, as a value and as a row of the table."""

from typing import Any

from pyrtc.store.database import Database
from pyrtc.store.owner import Owner
from pyrtc.values import dataclass

__all__ = ["COLUMNS", "DETACHED", "FOREGROUND", "OWNED", "ContainerRecord", "list_records", "read_record"]

COLUMNS = (
    "id, name, image_id, state, remove, directory, created, owner_pid, owner_start, owner_boot, pid, pid_start, "
    "options, exit, detached, monitor_pid, monitor_start, started, finished, restarts, stopped, spec, usage, ids"
)
FOREGROUND, DETACHED, OWNED = range(3)  # ContainerRecord.detached


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """What the store knows of one container.

    state: ``creating``, ``created``, ``running``, ``restarting`` (its next start is waited for) or ``exited``; of one
    that runs without whoever started it `pyrtc.states` tells more. remove: it goes when it has ended. directory:
    absolute path of the directory with ``upper`` and ``work``, None where it has none. created: seconds since the
    epoch. owner: who started it last. pid, start_time: its first process on the host (clock ticks since boot), 0
    before it is there. options: what `allocate` was given, for lists. exit: how its last run ended, JSON, None before.

    detached: FOREGROUND: it belongs to its owner, which waits for it; DETACHED: it has a monitor and nobody; OWNED: it
    has a monitor and dies with its owner. monitor_pid, monitor_start: of that monitor. started, finished: its last run,
    seconds since the epoch. restarts: by its restart policy, since somebody started it. stopped: somebody asked for
    its end. spec: all its options (`pyrtc.store.records`), None for one that cannot be started again. usage: of its
    last run, JSON. ids: the range of user ids that was picked for it.
    """

    id: str
    name: str
    image_id: str
    state: str
    remove: bool
    directory: str | None
    created: float
    owner: Owner
    pid: int
    start_time: int
    options: bytes
    exit: bytes | None
    detached: int = FOREGROUND
    monitor_pid: int = 0
    monitor_start: int = 0
    started: float | None = None
    finished: float | None = None
    restarts: int = 0
    stopped: bool = False
    spec: bytes | None = None
    usage: bytes | None = None
    ids: int | None = None

    def same_run(self, other: "ContainerRecord") -> bool:
        """Whether both are of the same run of the container."""
        return (self.pid, self.start_time) == (other.pid, other.start_time)


def list_records(database: Database, path: str) -> tuple[ContainerRecord, ...]:
    """Return all containers that a database names, the newest first, without their options (`spec`).

    path: where their directories are.
    """
    rows = database.rows(f"SELECT {COLUMNS} FROM containers ORDER BY created DESC, id")  # noqa: S608
    return tuple(read_record(row, path, None) for row in rows)


def read_record(row: tuple[Any, ...], path: str, spec: bytes | None) -> ContainerRecord:
    """Return the record of a row of COLUMNS. path: as for `list_records`. spec: what the row keeps, or a file of it."""
    owner = Owner(row[7], row[8], row[9])
    return ContainerRecord(
        row[0], row[1], row[2], row[3], bool(row[4]), f"{path}/{row[0]}" if row[5] else None, row[6], owner, row[10],
        row[11], row[12], row[13], row[14], row[15], row[16], row[17], row[18], row[19], bool(row[20]), spec,
        row[22], row[23],
    )  # fmt: skip
