"""Everything that is known of one container, as one value."""

import json
from typing import TYPE_CHECKING

from pyrtc.container import Completed
from pyrtc.ended import completed_of
from pyrtc.states import is_alive, status_of
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.live import Container
    from pyrtc.options import RunOptions

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True, slots=True)
class Inspection:
    """One container.

    image: as it was asked for. image_id: ``sha256:...`` or ``host``. status: as `Container.status`. pid: of its process
    1, None when it does not run. monitor_pid: of the process that keeps its log, None where there is none. created,
    started, finished: seconds since the epoch; of its last run, None before. restarts: by its restart policy, since
    somebody started it. last: how its last run ended, None before. error: why its last start failed. directory: where
    what it writes is kept, with ``upper``, ``log``. cgroup: directory of its control group. volumes: names of those it
    mounts. options: what it was asked to be, None where that is not kept. labels: (name, value) pairs.
    """

    id: str
    name: str
    image: str
    image_id: str
    command: tuple[str, ...]
    status: str
    pid: int | None
    monitor_pid: int | None
    created: float
    started: float | None
    finished: float | None
    restarts: int
    remove: bool
    last: Completed | None
    error: str
    directory: str | None
    cgroup: str | None
    volumes: tuple[str, ...]
    options: "RunOptions | None"
    labels: tuple[tuple[str, str], ...]


def inspect(container: "Container") -> Inspection:
    """See `Container.inspect`."""
    from pyrtc.store.records import load_options

    record = container.record
    said = json.loads(record.options or b"{}")
    runs = record.state == "running" and is_alive(record)
    users = container.engine.store.volumes.users()
    return Inspection(
        id=record.id,
        name=record.name,
        image=said.get("image", record.image_id),
        image_id=record.image_id,
        command=tuple(said.get("command") or ()),
        status=status_of(record),
        pid=record.pid if runs else None,
        monitor_pid=(record.monitor_pid or None) if runs else None,
        created=record.created,
        started=record.started,
        finished=None if runs else record.finished,
        restarts=record.restarts,
        remove=record.remove,
        last=completed_of(record) if record.exit is not None else None,
        error=json.loads(record.exit or b"{}").get("error", ""),
        directory=record.directory,
        cgroup=container.cgroup_path if runs else None,
        volumes=tuple(volume for volume, holders in users.items() if record.id in holders),
        options=load_options(record.spec) if record.spec else None,
        labels=tuple((said.get("labels") or {}).items()),
    )
