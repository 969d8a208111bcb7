"""The rows of containers that outlive whoever starts them: created, started, ended, started again.

Every step names the run that it belongs to, so one that comes too late changes nothing. Whoever takes a step holds the
container (`Lives.hold`): starts, ends and removals of one container follow one another.
"""

import sqlite3
import time
from contextlib import AbstractContextManager

from pyrtc.errors import ContainerError, ContainerNotFound
from pyrtc.store.container_rows import ContainerRecord
from pyrtc.store.containers import Containers
from pyrtc.store.database import Database
from pyrtc.store.locks import locked, locked_if_free
from pyrtc.store.owner import Owner

__all__ = ["Lives"]


class Lives:
    """What happens to the containers of one store in the course of their lives."""

    def __init__(self, containers: Containers, locks_fd: int, database: Database) -> None:
        self._containers = containers
        self._locks_fd = locks_fd
        self._database = database

    def hold(self, container_id: str) -> AbstractContextManager[None]:
        """Hold a container for a block; waits for who else does. The lock ends with its process."""
        return locked(self._locks_fd, [f"container-{container_id}"])

    def hold_if_free(self, container_id: str) -> AbstractContextManager[bool]:
        """Hold a container for a block, which is told False where somebody else holds it."""
        return locked_if_free(self._locks_fd, f"container-{container_id}")

    def created(self, container_id: str) -> None:
        """Record that a container is whole and may be started."""
        self._change("state = 'created'", "id = ? AND state = 'creating'", container_id)

    def running(
        self,
        record: ContainerRecord,
        pid: int,
        start_time: int,
        monitor: tuple[int, int],
        *,
        detached: int,
        restarts: int = 0,
    ) -> None:
        """Record a run: its first process, its monitor (pid and start time), and this process as its owner.

        Raises
        ------
        ContainerNotFound: the container has been removed.
        """
        me = Owner.current()
        self._change(
            "state = 'running', pid = ?, pid_start = ?, monitor_pid = ?, monitor_start = ?, owner_pid = ?, "
            "owner_start = ?, owner_boot = ?, detached = ?, restarts = ?, started = ?, finished = NULL, stopped = 0, "
            "usage = NULL",
            "id = ?",
            pid, start_time, *monitor, me.pid, me.start_time, me.boot, detached, restarts, time.time(),
            record.id,
        )  # fmt: skip

    def took_back(self, record: ContainerRecord, exit_json: bytes | None) -> None:
        """Record that a start of a container that exists failed: it is what it was, and exit_json says why."""
        self._change(
            "state = ?, pid = ?, pid_start = ?, monitor_pid = ?, monitor_start = ?, detached = ?, restarts = ?, "
            "started = ?, finished = ?, stopped = ?, usage = ?, exit = ?",
            "id = ?",
            record.state, record.pid, record.start_time, record.monitor_pid, record.monitor_start, record.detached,
            record.restarts, record.started, record.finished, record.stopped, record.usage, exit_json,
            record.id,
        )  # fmt: skip

    def ended(self, record: ContainerRecord, exit_json: bytes, usage_json: bytes | None, finished: float) -> bool:
        """Record how a run ended; False when somebody has done so."""
        return self._try(
            "state = 'exited', exit = ?, usage = ?, finished = ?",
            "id = ? AND state = 'running' AND pid = ? AND pid_start = ?",
            exit_json, usage_json, finished, record.id, record.pid, record.start_time,
        )  # fmt: skip

    def restarting(self, record: ContainerRecord, restarts: int) -> bool:
        """Record that this process is going to start a container again; False when it is not to be any more."""
        me = Owner.current()
        return self._try(
            "state = 'restarting', restarts = ?, owner_pid = ?, owner_start = ?, owner_boot = ?",
            "id = ? AND state = 'exited' AND stopped = 0 AND pid = ? AND pid_start = ?",
            restarts, me.pid, me.start_time, me.boot, record.id, record.pid, record.start_time,
        )  # fmt: skip

    def given_up(self, record: ContainerRecord) -> bool:
        """Record that a container is not started again; False when it was not about to."""
        return self._try("state = 'exited'", "id = ? AND state = 'restarting'", record.id)

    def failed_again(self, record: ContainerRecord, exit_json: bytes) -> bool:
        """Record that a start by the restart policy failed; False when the container is not to be started any more."""
        return self._try(
            "state = 'exited', exit = ?, finished = ?",
            "id = ? AND state = 'restarting' AND stopped = 0",
            exit_json, time.time(), record.id,
        )  # fmt: skip

    def stopped(self, record: ContainerRecord) -> None:
        """Record that somebody asked for the end: its restart policy rests until somebody starts it."""
        self._try("stopped = 1, state = CASE state WHEN 'restarting' THEN 'exited' ELSE state END", "id = ?", record.id)

    def ids(self, record: ContainerRecord, first: int) -> None:
        """Record which range of user ids a container has, whose files belong to it from now on."""
        self._try("ids = ?", "id = ?", first, record.id)

    def spec(self, record: ContainerRecord, spec: bytes, options_json: bytes) -> None:
        """Record changed options."""
        specs = self._containers.specs
        self._change("spec = ?, options = ?", "id = ?", specs.said(spec), options_json, record.id)
        specs.keep(record.id, spec, durable=not record.remove)

    def rename(self, record: ContainerRecord, name: str) -> None:
        """Give a container another name.

        Raises
        ------
        UsageError: the name breaks the rules. ContainerError: it is taken, or its own. ContainerNotFound: the
        container has been removed.
        """
        self._containers.check_name(name)
        if name == record.name:
            raise ContainerError(
                f"Renaming a container with the same name as its current name: {name}; choose another name"
            )
        try:
            self._change("name = ?", "id = ?", name, record.id)
        except sqlite3.IntegrityError:
            raise ContainerError(self._containers.conflict(name)) from None

    def _change(self, changes: str, where: str, *values: object) -> None:
        if not self._try(changes, where, *values):
            raise ContainerNotFound(f"No such container: {values[-1]}")

    def _try(self, changes: str, where: str, *values: object) -> bool:
        return bool(self._database.execute(f"UPDATE containers SET {changes} WHERE {where}", values))  # noqa: S608
