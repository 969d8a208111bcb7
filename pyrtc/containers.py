"""The containers of a store, as `pyrtc ps` and `pyrtc rm` see them."""

import json
import os
import select
import signal
from contextlib import suppress

from pyrtc.errors import ContainerError, ContainerNotFound
from pyrtc.runtime.cgroups import Cgroup, sweep_abandoned
from pyrtc.store import ContainerRecord, Store
from pyrtc.store.containers import kill_process, open_process
from pyrtc.values import dataclass

__all__ = ["ContainerInfo", "Containers"]


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """One container in a list.

    image: as it was asked for. state: ``creating``, ``running`` or ``exited``. returncode: None where not known.
    image_id: ``sha256:...``, or another word for a root that is no image.
    """

    id: str
    name: str
    image: str
    command: tuple[str, ...]
    state: str
    created: float
    returncode: int | None
    labels: tuple[tuple[str, str], ...] = ()
    image_id: str = ""


class Containers:
    """The containers of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(self, *, all: bool = False) -> tuple[ContainerInfo, ...]:
        """Return the running containers, or all, the newest first. States are true: dead owners are found out first."""
        self.reap()
        found = (_info(record) for record in self._store.containers.list())
        return tuple(info for info in found if all or info.state == "running")

    def remove(self, name_or_id: str, *, force: bool = False) -> str:
        """Remove a container with what it wrote; returns its id. force: kill it first if it runs.

        Raises
        ------
        ContainerNotFound: there is none. ContainerError: it runs and force is false.
        """
        self.reap()
        record = self._store.containers.get(name_or_id)
        if record.state in {"running", "creating"}:
            if not force:
                raise ContainerError(
                    f"container {name_or_id} is {record.state}: end it first, or remove it with force (rm -f)"
                )
            _kill(record)
        with suppress(ContainerNotFound):
            Cgroup.open(record.id).remove()
        self._store.containers.remove(record.id)
        return record.id

    def stop(self, name_or_id: str, *, timeout: float | None = None) -> str:
        """Ask a running container to end, kill it if it does not, and return its id.

        Its stop signal is the one it was started with, else the image's, else SIGTERM. What has ended is no error.

        Parameters
        ----------
        timeout: seconds to wait before it is killed; None: the container's own stop timeout, 10 unless set.

        Raises
        ------
        ContainerNotFound: there is none. ContainerError: it does not end even so.
        """
        self.reap()
        record = self._store.containers.get(name_or_id)
        if record.state != "running":
            return record.id
        said = json.loads(record.options or b"{}")
        patience = said.get("stop_timeout", 10.0) if timeout is None else timeout
        pidfd = open_process(record.pid, record.start_time)
        if pidfd is not None:
            try:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, said.get("stop_signal", signal.SIGTERM))
                poller = select.poll()
                poller.register(pidfd, select.POLLIN)
                ended = bool(poller.poll(patience * 1000))
            finally:
                os.close(pidfd)
            if not ended:
                _kill(record)
        return record.id

    def reap(self) -> None:
        """Put right what killed processes left: rows, directories, control groups."""
        for reaped in self._store.reap():
            with suppress(ContainerNotFound):
                Cgroup.open(reaped.id).remove()
        sweep_abandoned()


def _kill(record: ContainerRecord) -> None:
    """Kill the container; the process that runs it sees that and cleans up."""
    if record.pid:
        kill_process(record.pid, record.start_time)
    with suppress(ContainerNotFound):
        Cgroup.open(record.id).kill()


def _info(record: ContainerRecord) -> ContainerInfo:
    said = json.loads(record.options or b"{}")
    ended = json.loads(record.exit) if record.exit else {}
    return ContainerInfo(
        id=record.id,
        name=record.name,
        image=said.get("image", record.image_id),
        command=tuple(said.get("command") or ()),
        state=record.state,
        created=record.created,
        returncode=ended.get("returncode"),
        labels=tuple((said.get("labels") or {}).items()),
        image_id=record.image_id,
    )
