"""Starts in the foreground: of a container that ends with this process, which waits for it; see `Engine.start`."""

import os
from typing import TYPE_CHECKING

from pyrtc.container import Completed, Outcome, Running
from pyrtc.runtime.assembly import assemble
from pyrtc.runtime.helper import release
from pyrtc.runtime.start import start
from pyrtc.store.owner import process_start_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrtc.preparation import Preparation
    from pyrtc.runtime.trace import Tracing

__all__ = ["Foreground"]

Stdio = tuple[int | None, int | None, int | None]


class Foreground:
    """The life of one container in the foreground.

    Parameters
    ----------
    told: of that life, in events.
    """

    def __init__(self, prepared: "Preparation", *, told: bool) -> None:
        self._prepared = prepared
        self._told = told

    def start(self, stdio: Stdio, terminal_size: tuple[int, int]) -> Running:
        """Start it; whoever calls takes a start that fails back (`Preparation.undo`)."""
        prepared = self._prepared
        options, store = prepared.options, prepared.store
        tracing, mark = self._trace()
        maps, userns_fd = prepared.user_namespace()
        volumes = prepared.volumes()
        if mark is not None:
            mark("volumes and ids")
        record = prepared.allocate(volumes)
        if mark is not None:
            mark("row and directory")
        if prepared.range_fd >= 0 and maps is not None and not options.remove:
            store.lives.ids(record, maps.uids[0].outside)  # what it writes belongs to them when it is started again
        spec, resources = prepared.prepare(record, maps, userns_fd, volumes, terminal_size)
        cgroup, connection = prepared.cgroup, prepared.connection
        assert cgroup is not None
        if mark is not None:
            mark("groups, root, mounts and filter")
        plan = assemble(spec, resources, (-1, -1, -1) if options.tty else [self._descriptor(fd) for fd in stdio])
        if tracing is not None:
            tracing.join(plan)
            tracing.mark("plan")
        started = prepared.started = start(
            spec,
            plan,
            mark=mark,
            cgroup_fd=cgroup.into_fd,
            kill_fd=prepared.kill_fd(spec),
            network_ready=resources.network_fd is not None,
            userns_fd=prepared.userns_fd,
            parent=prepared.parent,
            on_created=prepared.created if connection is not None else None,
        )
        if tracing is not None:
            tracing.collect()
        if connection is not None:
            connection.close()
        running = prepared.running = Running(
            container_id=record.id,
            name=record.name,
            args=spec.argv,
            pid=started.pid,
            pidfd=started.pidfd,
            terminal_fd=started.terminal_fd,
            timeout=options.timeout,
            cgroup=cgroup,
            own_pids=spec.own_pids,
            on_end=self._ended,
            warnings=prepared.warnings,
            tracing=tracing,
        )
        prepared.owned.close()
        cgroup.close()
        store.containers.started(record.id, started.pid, process_start_time(started.pid) or 0)
        if self._told:
            self._tell(running, "create")
            if connection is not None:
                connection.tell("connect")
            self._tell(running, "start")
        if mark is not None:
            mark("say that it runs")
        return running

    def _trace(self) -> "tuple[Tracing | None, Callable[[str], object] | None]":
        if not self._prepared.options.trace:
            return None, None
        from pyrtc.runtime.trace import Tracing

        tracing = Tracing()
        self._prepared.owned.callback(tracing.close)
        return tracing, tracing.mark

    def _descriptor(self, fd: int | None) -> int:
        if fd is not None:
            return fd
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._prepared.owned.callback(os.close, null)
        return null

    def _ended(self, running: Running, completed: Completed | None) -> None:
        prepared = self._prepared
        store, removed = prepared.store, prepared.options.remove
        release(running.pidfd)
        try:
            prepared.release(removed=removed)
            if not removed and prepared.connection is None:
                from pyrtc.ended import leave_networks

                leave_networks(store, store.containers.get(running.id))  # which it got while it ran
        finally:  # it has ended, whatever of its own could not be given back
            if not removed and completed is not None:
                self._record(running, completed)
            if self._told:
                self._told = False  # this may be repeated
                self._tell_end(running, completed)

    def _record(self, running: Running, completed: Completed) -> None:
        from pyrtc.store.records import dump_usage

        text = f'{{"returncode": {completed.returncode}, "outcome": "{completed.outcome.value}"}}'
        usage = completed.usage
        self._prepared.store.containers.exited(running.id, text.encode(), dump_usage(usage), usage.wall_seconds)

    def _tell_end(self, running: Running, completed: Completed | None) -> None:
        if self._prepared.connection is not None:
            self._prepared.connection.tell("disconnect")
        if completed is not None and completed.outcome is Outcome.OOM_KILLED:
            self._tell(running, "oom")
        self._tell(running, "die", **({"exitCode": str(completed.returncode)} if completed is not None else {}))
        if self._prepared.options.remove:
            self._tell(running, "destroy")

    def _tell(self, running: Running, action: str, **more: str) -> None:
        from pyrtc.events import emit

        prepared = self._prepared
        about = {
            **dict(prepared.image.config.labels),
            **dict(prepared.options.labels),
            "image": prepared.image_name,
            "name": running.name,
            **more,
        }
        emit(prepared.store, "container", action, prepared.container_id, about)
