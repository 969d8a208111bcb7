"""Acting on containers from outside: signals, pausing, waiting for the end, removing.

Whoever makes an end of a container that has a monitor does what is due then itself (`pyrtc.ended`): it tells the
monitor so, which then needs no interpreter for it.
"""

import json
import os
import select
import signal as signals
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

from pyrtc import core
from pyrtc.attaching import claim_end, connect
from pyrtc.container import Completed
from pyrtc.ended import completed_of, event_attributes, finish, wants_restart
from pyrtc.errors import ContainerError, ContainerNotFound, StoreError, UnsupportedError
from pyrtc.events import emit
from pyrtc.quantities import signal_number
from pyrtc.runtime.attach import AttachedExit, Attachment
from pyrtc.runtime.cgroups import Cgroup
from pyrtc.states import has_monitor, is_alive, status_of
from pyrtc.store import ContainerRecord, Store
from pyrtc.store.owner import open_process

__all__ = ["Waiting", "kill", "pause", "remove", "stop", "unpause"]

PATIENCE = 10.0  # seconds for a killed process to be gone, and for its monitor to write so


def stop(
    store: Store,
    record: ContainerRecord,
    *,
    timeout: float | None = None,
    signal: str | int | None = None,
    keep: bool = False,
) -> None:
    """See `Container.stop`. keep: it is not removed at its end, whatever was said: it is about to be started."""
    if record.state in ("created", "exited", "restarting", "creating"):
        if record.state != "created":
            store.lives.stopped(record)
        return
    said = json.loads(record.options or b"{}")
    number = said.get("stop_signal", signals.SIGTERM) if signal is None else _number(signal)
    patience = said.get("stop_timeout", 10.0) if timeout is None else timeout
    _end(store, record, number, patience, keep=keep)
    emit(store, "container", "stop", record.id, event_attributes(record))


def _end(store: Store, record: ContainerRecord, number: int, patience: float, *, keep: bool = False) -> None:
    """End a run: a signal, time for it, SIGKILL; then what is due at the end, unless its owner does it."""
    about = event_attributes(record)
    store.lives.stopped(record)
    pidfd = open_process(record.pid, record.start_time)
    # The monitor is told that what is due at the end is this process's.
    monitor = connect(record, output=False)
    if monitor is not None:
        claim_end(monitor)
    try:
        if pidfd is not None:
            emit(store, "container", "kill", record.id, {**about, "signal": str(number)})
            _send(pidfd, number, record)
            _thaw(record)
            if number == signals.SIGKILL or not _wait_for(pidfd, patience):
                if number != signals.SIGKILL:
                    emit(store, "container", "kill", record.id, {**about, "signal": str(int(signals.SIGKILL))})
                _kill_all(record, pidfd)
                if not _wait_for(pidfd, PATIENCE):
                    raise ContainerError(
                        f"cannot stop container {record.name}: process {record.pid} does not end; it is stuck in the "
                        "kernel, or a command was put into it by a process that is stopped, and goes when that goes on"
                    )
        if monitor is not None:
            monitor.wait(PATIENCE)
    finally:
        if monitor is not None:
            monitor.close()
        if pidfd is not None:
            os.close(pidfd)
    if record.detached:
        finish(store, record, keep=keep)


def _number(signal: str | int) -> int:
    return signal_number(str(signal))


def _send(pidfd: int, number: int, record: ContainerRecord) -> None:
    try:
        signals.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass  # it has ended meanwhile
    except PermissionError as error:
        raise ContainerError(f"cannot signal container {record.name}: it is not yours") from error


def _kill_all(record: ContainerRecord, pidfd: int) -> None:
    _send(pidfd, signals.SIGKILL, record)
    with suppress(ContainerNotFound, UnsupportedError):  # with a pid namespace of its own, process 1 takes all along
        Cgroup.open(record.id).kill()


def _thaw(record: ContainerRecord) -> None:
    """Let a paused container see its signal."""
    with suppress(ContainerNotFound):
        group = Cgroup.open(record.id)
        if group.frozen:
            group.thaw()


def _wait_for(pidfd: int, seconds: float | None) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(core.poll(poller, None if seconds is None else seconds * 1000))


def kill(store: Store, record: ContainerRecord, signal: str | int) -> None:
    """See `Container.kill`."""
    number = _number(signal)
    pidfd = open_process(record.pid, record.start_time) if record.state == "running" else None
    if pidfd is None:
        raise ContainerError(f"cannot kill container: {record.name}: container {record.id} is not running")
    try:
        said = json.loads(record.options or b"{}")
        if number in (signals.SIGKILL, said.get("stop_signal")):
            store.lives.stopped(record)  # it is meant to end
        emit(store, "container", "kill", record.id, {**event_attributes(record), "signal": str(number)})
        if number == signals.SIGKILL:
            _kill_all(record, pidfd)
        else:
            _send(pidfd, number, record)
    finally:
        os.close(pidfd)


def pause(store: Store, record: ContainerRecord) -> None:
    """See `Container.pause`."""
    group = _running_group(record, "pause")
    if group.frozen:
        raise ContainerError(f"container {record.name} is already paused")
    group.freeze()
    emit(store, "container", "pause", record.id, event_attributes(record))


def unpause(store: Store, record: ContainerRecord) -> None:
    """See `Container.unpause`."""
    group = _running_group(record, "unpause")
    if not group.frozen:
        raise ContainerError(f"container {record.name} is not paused")
    group.thaw()
    emit(store, "container", "unpause", record.id, event_attributes(record))


def _running_group(record: ContainerRecord, action: str) -> Cgroup:
    if record.state != "running" or not is_alive(record):
        raise ContainerError(f"container {record.name} is not running")
    try:
        return Cgroup.open(record.id)
    except ContainerNotFound:
        raise UnsupportedError(
            f"cannot {action} container {record.name}: it has no control group, because this user may not make any "
            "(with systemd, a login session or `systemd-run --user --scope -p Delegate=yes` gives the right)"
        ) from None


class Waiting:
    """Waiting for the end of a container's present run; begun before somebody looks whether it has ended.

    Attributes
    ----------
    fd: readable when it may have ended, None when it has.
    """

    def __init__(self, record: ContainerRecord) -> None:
        self._record = record
        self._monitor: Attachment | None = None
        self._pidfd: int | None = None
        if record.state in ("creating", "created"):
            raise ContainerError(f"container {record.name} has not been started")
        if record.state == "running":
            self._monitor = connect(record, output=False)
        if record.state == "running" and self._monitor is None:
            self._pidfd = open_process(record.pid, record.start_time)
        self.fd = self._monitor.fileno() if self._monitor is not None else self._pidfd

    def __enter__(self) -> "Waiting":
        """Return it."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close its descriptors."""
        if self._monitor is not None:
            self._monitor.close()
        if self._pidfd is not None:
            os.close(self._pidfd)

    def finish(self, store: Store, timeout: float | None = None) -> Completed:
        """Wait, and return how it ended; see `Container.wait`."""
        record = self._record
        if record.state != "running":
            return completed_of(record)
        deadline = None if timeout is None else time.monotonic() + timeout
        ended = None
        try:
            if self._monitor is not None:
                ended = self._monitor.wait(timeout)
        except TimeoutError:
            raise TimeoutError(f"container {record.name} still runs") from None
        if ended is None:
            self._wait_process(deadline)
        return _outcome(store, record, ended)

    def _wait_process(self, deadline: float | None) -> None:
        """Wait for process 1 of a container without a monitor, or whose monitor was killed."""
        pidfd = self._pidfd
        if pidfd is None:
            pidfd = self._pidfd = open_process(self._record.pid, self._record.start_time)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if pidfd is not None and not _wait_for(pidfd, left):
            raise TimeoutError(f"container {self._record.name} still runs")


def _outcome(store: Store, record: ContainerRecord, ended: AttachedExit | None) -> Completed:
    """Return how a run that is over ended; do what is due where nobody has."""
    if record.detached:
        code = 0 if ended is None else ended.code
        if not wants_restart(record, code) and (ended is not None or not has_monitor(record)):
            done = finish(store, record)
            if done is not None:
                return done
    deadline = time.monotonic() + PATIENCE
    with ExitStack() as stack:
        change = _changes(store, stack)
        while True:
            try:
                now = store.containers.get(record.id)
            except ContainerNotFound:
                if ended is None:
                    raise ContainerError(
                        f"container {record.name} has been removed; nobody can tell how it ended"
                    ) from None
                return _told(record, ended)
            if now.state != "running" or not now.same_run(record):
                return completed_of(now)
            left = deadline - time.monotonic()
            if left <= 0:
                raise ContainerError(f"container {record.name} has ended, and nobody records it")
            change(left)  # whoever ended it is writing so


def _changes(store: Store, stack: ExitStack) -> Callable[[float], None]:
    """Return what waits until the database may have changed, so many seconds at most."""
    from pyrtc.watch import MODIFIED, DirectoryWatch

    try:
        watch = stack.enter_context(DirectoryWatch(store.root_fd, MODIFIED))
    except StoreError:  # this user watches as much as the system allows
        return lambda seconds: time.sleep(min(seconds, 0.05))

    def wait(seconds: float) -> None:
        poller = select.poll()
        poller.register(watch.fd, select.POLLIN)
        if poller.poll(seconds * 1000):
            watch.changed()

    return wait


def _told(record: ContainerRecord, ended: AttachedExit) -> Completed:
    """What the monitor said of a container that is removed already; what it used went with it."""
    from pyrtc.container import Outcome, Usage

    wall = max(0.0, time.time() - (record.started or time.time()))
    return Completed(
        id=record.id,
        args=tuple(json.loads(record.options or b"{}").get("command") or ()),
        returncode=ended.code,
        outcome=Outcome.SIGNALED if ended.signal else Outcome.EXITED,
        usage=Usage(wall, 0.0, 0.0, 0.0),
        signal=ended.signal or None,
    )


def remove(store: Store, record: ContainerRecord, *, force: bool = False, volumes: bool = False) -> None:
    """See `Container.remove`."""
    status = status_of(record)
    if not force and (status in ("running", "paused", "restarting") or record.state == "creating"):
        raise ContainerError(
            f"cannot remove container {record.name}: container is {status}: stop the container before removing it, or "
            "force remove (rm -f)"
        )
    if record.state in ("running", "creating") and record.pid:
        _end(store, record, int(signals.SIGKILL), PATIENCE, keep=True)
    elif record.state == "restarting":
        store.lives.stopped(record)
    with store.lives.hold(record.id):
        try:
            now = store.containers.get(record.id)
        except ContainerNotFound:
            return  # the --rm of its own
        if now.state == "running" and not now.same_run(record) and is_alive(now):
            raise ContainerError(f"cannot remove container {record.name}: somebody has started it again")
        with suppress(ContainerNotFound):
            Cgroup.open(record.id).remove()
        store.containers.remove(record.id, volumes=volumes or now.remove)
    emit(store, "container", "destroy", record.id, event_attributes(record))
