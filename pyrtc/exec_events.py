"""Telling of commands that are executed in containers: `exec_create`, `exec_start` and `exec_die`."""

import os
from collections.abc import Callable, Sequence

from pyrtc.ended import event_attributes
from pyrtc.events import emit_several
from pyrtc.store import ContainerRecord, Store

__all__ = ["ExecEvents"]

_MOST = 1000  # characters of a command


class ExecEvents:
    """Tells of the commands in one container."""

    def __init__(self, store: Store, container_id: str, about: dict[str, str]) -> None:
        self._store = store
        self._container_id = container_id
        self._about = about

    @classmethod
    def of(cls, store: Store, record: ContainerRecord) -> "ExecEvents | None":
        """Return what tells of a container's commands; None for one of which nothing is told."""
        if record.remove and not record.detached:
            return None
        return cls(store, record.id, event_attributes(record))

    def begun(self, command: Sequence[str]) -> Callable[[int], None]:
        """Tell that a command is executing; return what tells, with its exit code, that it has ended."""
        words = " ".join(command).encode(errors="surrogateescape").decode(errors="replace")[:_MOST]
        about = {**self._about, "execID": os.urandom(32).hex()}
        # There is no moment between the two here; they are told as Docker tells them.
        actions = (f"exec_create: {words}", f"exec_start: {words}")
        emit_several(self._store, "container", self._container_id, actions, about)

        def ended(code: int) -> None:
            emit_several(self._store, "container", self._container_id, ("exec_die",), {**about, "exitCode": str(code)})

        return ended
