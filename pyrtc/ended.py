"""What is due when a container that has a monitor has ended, done once by whoever comes first.

The monitor's end command does it (`pyrtc.cli.ended`), or whoever stopped the container, waited for it or removes it, or
the next command where all of these were killed (`put_right`). Each holds the container meanwhile and looks whether its
row still says that this run goes on.
"""

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from pyrtc.container import Completed, Outcome, Usage
from pyrtc.errors import ContainerError, ContainerNotFound
from pyrtc.runtime.cgroups import Cgroup
from pyrtc.states import Ended, has_monitor, is_alive, outcome_of, read_exit
from pyrtc.store import ContainerRecord, Store
from pyrtc.store.container_rows import OWNED
from pyrtc.store.owner import Owner, kill_process
from pyrtc.store.records import dump_usage, load_options

if TYPE_CHECKING:
    from pyrtc.engine import Engine
    from pyrtc.options import RestartPolicy

__all__ = [
    "UNKNOWN_CODE",
    "completed_of",
    "delay_of",
    "event_attributes",
    "finish",
    "is_owned",
    "leave_networks",
    "put_right",
    "restartable",
    "settle",
    "wants_restart",
]

UNKNOWN_CODE = 255
FIRST_DELAY, LONGEST_DELAY = 0.1, 60.0  # seconds before the next start; doubled from one to the next
MONITOR_PATIENCE = 30.0  # seconds for a monitor to write what is left of the output
STEADY_AFTER = 10.0  # seconds of running after which the first delay holds again


def finish(store: Store, record: ContainerRecord, *, keep: bool = False) -> Completed | None:
    """Do what is due after the end of a run; returns how it ended, None when somebody else has done it.

    Parameters
    ----------
    record: of the run, whose first process is gone. keep: do not remove the container, it is about to be started.

    Raises
    ------
    ContainerError: a process in its control group does not die. StoreError: what it wrote cannot be removed.
    """
    with store.lives.hold(record.id):
        try:
            now = store.containers.get(record.id)
        except ContainerNotFound:
            return None
        if now.state != "running" or not now.same_run(record):
            return None
        return _finish(store, now, keep=keep)


def settle(store: Store, record: ContainerRecord, *, keep: bool = False) -> None:
    """Do what is due of a run whose first process is gone, once its monitor has written how that ended.

    keep: see `finish`.
    """
    if record.state != "running" or not record.detached or is_alive(record):
        return
    from pyrtc.attaching import claim_end, connect

    monitor = connect(record, output=False)
    if monitor is not None:
        with monitor:
            claim_end(monitor)
            monitor.wait(MONITOR_PATIENCE)
    finish(store, record, keep=keep)


def _finish(store: Store, record: ContainerRecord, *, keep: bool) -> Completed:
    ended = read_exit(record)
    group = None
    with suppress(ContainerNotFound):
        group = Cgroup.open(record.id)
    done = _completed(record, ended, group)
    said = {
        "returncode": done.returncode,
        "outcome": done.outcome.value,
        "signal": done.signal,
        "delay": _next_delay(record, done.usage.wall_seconds),
    }
    finished = (record.started or 0.0) + done.usage.wall_seconds
    # The row first: a control group that is left over is empty and found later, a lost end is lost.
    store.lives.ended(record, json.dumps(said).encode(), dump_usage(done.usage), finished)
    if group is not None:
        group.remove()
    try:
        leave_networks(store, record)
    finally:  # what the firewall still has is put right later, by whoever comes
        _conclude(store, record, done, keep=keep)
    return done


def _conclude(store: Store, record: ContainerRecord, done: Completed, *, keep: bool) -> None:
    """Tell of the end, and remove what is to go."""
    from pyrtc.events import emit

    about = event_attributes(record)
    if done.outcome is Outcome.OOM_KILLED:
        emit(store, "container", "oom", record.id, about)
    emit(store, "container", "die", record.id, {**about, "exitCode": str(done.returncode)})
    if record.remove and not keep and not is_owned(record) and not wants_restart(record, done.returncode):
        store.containers.remove(record.id)
        emit(store, "container", "destroy", record.id, about)


def leave_networks(store: Store, record: ContainerRecord) -> None:
    """Give back the addresses and ports of a run that is over."""
    if "networks" not in json.loads(record.options or b"{}"):
        return
    if store.rootless and not store.networks.endpoints_of(record.id):
        from pyrtc.network.rootless_connection import release as release_program

        release_program(store, record)
        return
    from pyrtc.network.release import release, tell

    tell(store, "disconnect", release(store, record.id))


def is_owned(record: ContainerRecord) -> bool:
    """Whether the program whose `with` block it is in is there, and removes it when that ends."""
    return record.detached == OWNED and record.owner.alive()


def _completed(record: ContainerRecord, ended: Ended | None, group: Cgroup | None) -> Completed:
    finished = ended.finished if ended is not None else time.time()
    wall = max(0.0, finished - (record.started or finished))
    usage, oom = _usage(wall, ended, group)
    outcome = Outcome.UNKNOWN if ended is None else outcome_of(ended)
    if oom and ended is not None and ended.returncode and not ended.timed_out:
        outcome = Outcome.OOM_KILLED
    return Completed(
        id=record.id,
        args=_arguments(record),
        returncode=UNKNOWN_CODE if ended is None else ended.returncode,
        outcome=outcome,
        usage=usage,
        signal=(ended.signal or None) if ended is not None else None,
    )


def _usage(wall: float, ended: Ended | None, group: Cgroup | None) -> tuple[Usage, bool]:
    user, system = (ended.user, ended.system) if ended is not None else (0.0, 0.0)
    if group is None:
        return Usage(wall, user + system, user, system), False
    counted = group.stats()
    return (
        Usage(
            wall_seconds=wall,
            cpu_seconds=max(counted.cpu_usage or 0.0, user + system),
            user_seconds=counted.cpu_user or user,
            system_seconds=counted.cpu_system or system,
            memory_peak=counted.memory_peak,
            pids_peak=counted.pids_peak,
            read_bytes=counted.io_read_bytes or 0,
            written_bytes=counted.io_write_bytes or 0,
        ),
        bool(counted.oom_kills),
    )


def _arguments(record: ContainerRecord) -> tuple[str, ...]:
    said = json.loads(record.options or b"{}")
    return tuple(said.get("command") or ())


def completed_of(record: ContainerRecord) -> Completed:
    """Return how the latest run of a container ended, as its row tells it.

    Raises
    ------
    ContainerError: it has never run.
    """
    said = json.loads(record.exit or b"{}")
    if "returncode" not in said:  # there may be the error of a start
        raise ContainerError(f"container {record.name} has not run yet")
    wall = max(0.0, (record.finished or 0.0) - (record.started or 0.0))
    usage = Usage(**json.loads(record.usage)) if record.usage else Usage(wall, 0.0, 0.0, 0.0)
    return Completed(
        id=record.id,
        args=_arguments(record),
        returncode=said["returncode"],
        outcome=Outcome(said["outcome"]),
        usage=usage,
        signal=said.get("signal"),
    )


def event_attributes(record: ContainerRecord) -> dict[str, str]:
    """Return what events tell of a container, labels included."""
    said = json.loads(record.options or b"{}")
    return {**(said.get("labels") or {}), "image": said.get("image", record.image_id), "name": record.name}


# ---- starting again -------------------------------------------------------------------------------------------------


def policy_of(record: ContainerRecord) -> "RestartPolicy":
    """Return when a container is started again."""
    from pyrtc.options import RestartPolicy

    return load_options(record.spec).restart if record.spec else RestartPolicy()


def wants_restart(record: ContainerRecord, returncode: int) -> bool:
    """Whether the restart policy starts a container again that ended with this code."""
    if record.stopped:
        return False
    policy = policy_of(record)
    if policy.name == "on-failure":
        return returncode != 0 and (policy.retries == 0 or record.restarts < policy.retries)
    return policy.name in ("always", "unless-stopped")


def _next_delay(record: ContainerRecord, wall: float) -> float:
    before = json.loads(record.exit).get("delay") if record.exit and record.restarts else None
    if before is None or wall >= STEADY_AFTER:
        return FIRST_DELAY
    return min(2.0 * float(before), LONGEST_DELAY)


def delay_of(record: ContainerRecord) -> float:
    """Return the seconds to wait before a container is started again."""
    return float(json.loads(record.exit or b"{}").get("delay") or FIRST_DELAY)


def restartable(record: ContainerRecord) -> bool:
    """Whether a container's policy starts it after a reboot: it ran when the machine went down, or is always to run."""
    if record.state != "exited" or record.owner.alive() or record.owner.boot.partition(" ")[0] == _boot():
        return False
    policy = policy_of(record)
    if policy.name == "on-failure":
        return json.loads(record.exit or b"{}").get("returncode", UNKNOWN_CODE) != 0 and not record.stopped
    return policy.name == "always" or (policy.name == "unless-stopped" and not record.stopped)


def _boot() -> str:
    return Owner.current().boot.partition(" ")[0]


# ---- after kill -9 --------------------------------------------------------------------------------------------------


def put_right(engine: "Engine", watched: Iterable[ContainerRecord]) -> None:
    """Do what is due of containers whose monitors or end commands were killed, or whose machine was.

    Their restart policies rest: nobody knows whether they were meant to end.
    """
    for record in watched:
        if record.detached == OWNED and record.state in ("created", "exited"):
            if not record.owner.alive():
                engine.store.containers.remove(record.id)
            continue
        if record.state == "restarting":
            if not record.owner.alive():
                engine.store.lives.given_up(record)
            continue
        if is_alive(record):
            if record.detached != OWNED or record.owner.alive():
                continue
            kill_process(record.pid, record.start_time)  # its warden was killed, too
        if not has_monitor(record):
            finish(engine.store, record)
