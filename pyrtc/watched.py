"""Starting containers under a monitor: detached ones, those of a `with` block, and those that have run before."""

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import lru_cache
from typing import TYPE_CHECKING

from pyrtc.ended import event_attributes, settle
from pyrtc.errors import ContainerError, ContainerNotFound, PyrtcError, UsageError
from pyrtc.events import emit
from pyrtc.preparation import Preparation
from pyrtc.runtime.assembly import assemble
from pyrtc.runtime.cgroups import Cgroup
from pyrtc.runtime.ids import hold_by
from pyrtc.runtime.join import has_ended
from pyrtc.runtime.monitor import EndCommand, Watched, open_streams, start_watched
from pyrtc.start_image import find_image
from pyrtc.states import is_alive
from pyrtc.store.container_rows import DETACHED, OWNED
from pyrtc.store.owner import Owner
from pyrtc.store.records import load_options
from pyrtc.values import dataclass, replace

if TYPE_CHECKING:
    from pyrtc.checking import Check
    from pyrtc.engine import Engine
    from pyrtc.ids import IdMaps
    from pyrtc.options import RunOptions
    from pyrtc.store import ContainerRecord, Store

__all__ = ["Made", "Owned", "create", "run", "run_owned", "start_again"]

# What the end command may need of the caller's environment; the rest, which may hold secrets, is not kept for it.
_ENVIRONMENT = ("DBUS_SESSION_BUS_ADDRESS", "HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "USER")


@dataclass(frozen=True, slots=True)
class Made:
    """A container that runs: its id, and the limits that were left out, in words."""

    id: str
    warnings: tuple[str, ...]


class Owned:
    """What keeps a container tied to this process: its warden kills it when the process is gone."""

    def __init__(self, watched: Watched, held: ExitStack) -> None:
        self._watched = watched
        self._held = held
        self._maker = os.getpid()

    def close(self) -> None:
        """Let go of it. In a forked child: do nothing."""
        if self._maker == os.getpid():
            with self._held:
                self._watched.close()


def create(engine: "Engine", image: str, options: "RunOptions") -> str:
    """Make a container and return its id; see `Containers.create`."""
    _check(options)
    engine.reap_once()
    store = engine.store
    prepared = Preparation(store, find_image(store, image, options.platform), image, options)
    with store.lives.hold(prepared.container_id):  # its name can be seen, and removed, as soon as its row is there
        try:
            record = prepared.allocate(prepared.volumes(), detached=DETACHED)
            prepared.check(record)
            store.lives.created(record.id)
        except BaseException:
            prepared.undo()
            raise
    emit(store, "container", "create", record.id, event_attributes(record))
    return record.id


def run(engine: "Engine", image: str, options: "RunOptions") -> Made:
    """Start a detached container; see `Containers.run`."""
    prepared, watched = _first(engine, image, options, DETACHED)
    with prepared.held:
        watched.close()
    return _made(prepared)


def run_owned(engine: "Engine", image: str, options: "RunOptions") -> tuple[Made, Owned]:
    """Start a container that dies with this process, or when what is returned beside it is closed and removed."""
    if options.restart.name != "no":
        raise UsageError("a container in a `with` block goes with it: it cannot have a restart policy")
    prepared, watched = _first(engine, image, replace(options, remove=True), OWNED)
    return _made(prepared), Owned(watched, prepared.held.pop_all())


def _made(prepared: Preparation) -> Made:
    return Made(prepared.container_id, prepared.warnings)


def _check(options: "RunOptions") -> None:
    if options.remove and options.restart.name != "no":
        raise UsageError("conflicting options: --restart and --rm: what is removed cannot be started again")
    if options.trace:
        raise UsageError("--trace is of a container in the foreground: this one would be left before there is a trace")
    if options.health is not None:
        from pyrtc.checking import check_words

        check_words(options.health)


def _first(engine: "Engine", image: str, options: "RunOptions", detached: int) -> tuple[Preparation, Watched]:
    """Make a container and start it."""
    _check(options)
    engine.reap_once()
    store = engine.store
    prepared = Preparation(store, find_image(store, image, options.platform), image, options)
    with store.lives.hold(prepared.container_id):
        try:
            maps_and_fd = prepared.user_namespace()
            volumes = prepared.volumes()
            record = prepared.allocate(volumes, detached=detached)
            watched = _launch(prepared, record, maps_and_fd, volumes, detached)
        except BaseException:
            prepared.undo()
            raise
    about = event_attributes(record)
    emit(store, "container", "create", record.id, about)
    if prepared.connection is not None:
        prepared.connection.tell("connect")
    emit(store, "container", "start", record.id, about)
    return prepared, watched


def start_again(
    engine: "Engine",
    container_id: str,
    *,
    by_policy: bool = False,
    on_created: Callable[[], object] | None = None,
) -> Owned | None:
    """Start a container that was made or has run before; one that runs is left alone.

    Parameters
    ----------
    by_policy: its restart policy wants it, unless somebody has stopped it meanwhile. on_created: see `Container.start`.

    Returns
    -------
    What ties it to this process, where it is in a `with` block of it.

    Raises
    ------
    ContainerError: it cannot be started again. PyrtcError: the start failed; it is what it was.
    """
    store = engine.store
    settle(store, store.containers.get(container_id), keep=True)
    with store.lives.hold(container_id):
        record = store.containers.get(container_id)
        if record.state == "running" and is_alive(record):
            return None
        if by_policy and (record.state != "restarting" or record.stopped):
            return None
        prepared = _prepare_again(store, record)
        try:
            with suppress(ContainerNotFound):
                Cgroup.open(record.id).remove()  # of a start that was killed
            maps_and_fd = prepared.user_namespace()
            restarts = record.restarts if by_policy else 0
            detached = OWNED if record.detached == OWNED else DETACHED
            watched = _launch(prepared, record, maps_and_fd, prepared.volumes(), detached, restarts, on_created)
        except BaseException as error:
            prepared.undo()
            with suppress(ContainerNotFound):
                store.lives.took_back(record, _failed(record, error))
            raise
        owned = Owned(watched, prepared.held.pop_all())
        if detached == DETACHED:
            owned.close()
    if prepared.connection is not None:
        prepared.connection.tell("connect")
    emit(store, "container", "start", record.id, event_attributes(record))
    return owned if detached == OWNED else None


def _prepare_again(store: "Store", record: "ContainerRecord") -> Preparation:
    if record.state not in ("created", "exited", "restarting"):
        raise ContainerError(f"cannot start container {record.name}: it is {record.state}")
    if record.detached == OWNED and record.owner != Owner.current():
        raise ContainerError(
            f"cannot start container {record.name}: it belongs to a block of the program with pid {record.owner.pid}"
        )
    if record.spec is None or record.directory is None:
        raise ContainerError(
            f"cannot start container {record.name} again: what it was asked to be is not kept, because it goes when it "
            "ends, or was made by an older pyrtc"
        )
    options = load_options(record.spec)
    image = find_image(store, record.image_id, None)
    return Preparation(store, image, record.image_id, options, record)


def _failed(record: "ContainerRecord", error: BaseException) -> bytes | None:
    """Return what a row says of an end once a start has failed: why, until the next that does not."""
    if not isinstance(error, PyrtcError):
        return record.exit
    import json

    return json.dumps({**json.loads(record.exit or b"{}"), "error": str(error)}).encode()


def _launch(
    prepared: Preparation,
    record: "ContainerRecord",
    maps_and_fd: "tuple[IdMaps | None, int]",
    volumes: dict[str, tuple[str, str]],
    detached: int,
    restarts: int = 0,
    on_created: Callable[[], object] | None = None,
) -> Watched:
    """Start the container that a preparation is for; its row says so before the first process is let go."""
    store, options = prepared.store, prepared.options
    maps, userns_fd = maps_and_fd
    spec, resources = prepared.prepare(record, maps, userns_fd, volumes, (0, 0))
    group = prepared.cgroup
    assert group is not None and record.directory is not None

    def record_run(watched: Watched) -> None:
        if prepared.range_fd >= 0 and maps is not None:
            hold_by(prepared.range_fd, watched.pid, watched.start_time)
            store.lives.ids(record, maps.uids[0].outside)
        monitor = (watched.monitor_pid, watched.monitor_start)
        store.lives.running(record, watched.pid, watched.start_time, monitor, detached=detached, restarts=restarts)
        prepared.created(watched.pid, watched.pidfd)
        if on_created is not None:
            on_created()

    streams = open_streams(tty=options.tty, interactive=options.interactive)
    prepared.owned.callback(streams.close)
    plan = assemble(spec, resources, (-1, -1, -1) if options.tty else streams.container)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory_fd = os.open(record.directory, flags)
    prepared.owned.callback(os.close, directory_fd)
    oom_fd = group.oom_events()
    if oom_fd is not None:
        prepared.owned.callback(os.close, oom_fd)
    watched = start_watched(
        spec,
        plan,
        streams,
        directory_fd=directory_fd,
        on_created=record_run,
        log=options.log,
        timeout=options.timeout,
        end_command=_end_command(store.path, record.id),
        cgroup_fd=group.into_fd,
        kill_fd=prepared.kill_fd(spec),
        oom_fd=oom_fd,
        network_ready=resources.network_fd is not None,
        userns_fd=prepared.userns_fd,
        parent=prepared.parent,
        entrusted=detached == OWNED,
        on_running=_on_running(prepared, record, directory_fd),
    )
    prepared.owned.close()
    if prepared.connection is not None:
        prepared.connection.close()
    group.close()
    return watched


def _check_of(prepared: Preparation) -> "Check | None":
    options, config = prepared.options, prepared.image.config
    if options.health is None and config.healthcheck is None:
        return None
    from pyrtc.checking import decide_check

    return decide_check(options, config)


def _on_running(
    prepared: Preparation, record: "ContainerRecord", directory_fd: int
) -> Callable[[Watched, int], object] | None:
    """Return what gives the monitor the check of the container's health; None where there is none."""
    check = _check_of(prepared)
    if check is None:
        return None

    def hand_over_check(watched: Watched, control_fd: int) -> None:
        from pyrtc.checking import hand_over
        from pyrtc.exec import Executor
        from pyrtc.health_event import write_words

        executor = None
        try:
            executor = Executor(
                container_id=record.id,
                name=record.name,
                pid=watched.pid,
                start_time=watched.start_time,
                options=prepared.options,
                config=prepared.image.config,
                cache=f"{prepared.store.path}/cache",
            )
            write_words(record, directory_fd)
            hand_over(check, executor, control_fd, directory_fd)
        except ContainerError:
            if has_ended(watched.pidfd):  # then there is nothing to check
                return
            raise
        finally:
            if executor is not None:
                executor.close()

    return hand_over_check


def _end_command(root: str, container_id: str) -> EndCommand | None:
    """Return what the monitor becomes; None in a program that is no plain interpreter: the next command does it."""
    interpreter = sys.executable or ""
    if getattr(sys, "frozen", False) or not interpreter.rpartition("/")[2].startswith(("python", "pypy")):
        return None
    environment = [f"{name}={os.environ[name]}" for name in _ENVIRONMENT if name in os.environ]
    environment += [f"{name}={value}" for name, value in os.environ.items() if name.startswith(("XDG_", "PYRTC_"))]
    return EndCommand((interpreter, "-I", "-c", _program(), root, container_id), tuple(environment))


@lru_cache(maxsize=1)
def _program() -> str:
    from pathlib import Path

    places = [str(Path(__file__).resolve().parents[1])]
    backend = getattr(sys.modules.get("_cffi_backend"), "__file__", None)
    if backend:
        places.append(str(Path(backend).resolve().parent))
    return f"import sys; sys.path[:0] = {places!r}; from pyrtc.cli.ended import main; main()"
