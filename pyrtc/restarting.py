"""Starting containers again when they have ended, as their restart policies say."""

import json
import time

from pyrtc.container import Outcome
from pyrtc.ended import LONGEST_DELAY, delay_of, finish, wants_restart
from pyrtc.engine import Engine
from pyrtc.errors import ContainerNotFound, PyrtcError
from pyrtc.states import is_alive
from pyrtc.store import ContainerRecord
from pyrtc.watched import start_again

__all__ = ["end_of_monitor", "restart_after"]


def restart_after(engine: Engine, container_id: str) -> None:
    """Start a container again where its restart policy says so, after the delay; returns when it runs or stays ended.

    A start that fails counts as a run that failed.
    """
    while True:
        try:
            record = engine.store.containers.get(container_id)
        except ContainerNotFound:
            return
        if record.state != "exited" or record.exit is None:
            return
        if not wants_restart(record, json.loads(record.exit)["returncode"]):
            return
        if not engine.store.lives.restarting(record, record.restarts + 1):
            return
        time.sleep(delay_of(record))
        try:
            start_again(engine, container_id, by_policy=True)
        except ContainerNotFound:
            return
        except PyrtcError as error:
            if not engine.store.lives.failed_again(record, _failure(record, error)):
                return
        else:
            return


def end_of_monitor(root: str, container_id: str) -> None:
    """Do all that is due at the end of a container, as its monitor's end command."""
    engine = Engine(root)
    try:
        record = engine.store.containers.get(container_id)
    except ContainerNotFound:
        return
    if record.state == "running" and not is_alive(record):
        finish(engine.store, record)
    restart_after(engine, container_id)


def _failure(record: ContainerRecord, error: PyrtcError) -> bytes:
    said = {
        "returncode": error.exit_code,
        "outcome": Outcome.EXITED.value,
        "error": str(error),
        "delay": min(2.0 * delay_of(record), LONGEST_DELAY),
    }
    return json.dumps(said).encode()
