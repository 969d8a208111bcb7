"""The containers of a store: found, listed, made, and put right when processes were killed."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Unpack

from pyrtc.errors import ContainerNotFound
from pyrtc.runtime.cgroups import Cgroup, sweep_abandoned
from pyrtc.store import ContainerRecord
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.api import ContainerKeywords
    from pyrtc.engine import Engine
    from pyrtc.live import Container
    from pyrtc.options import RunOptions

__all__ = ["ContainerInfo", "Containers"]


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """One container in a list.

    image: as it was asked for. state: ``created``, ``running``, ``paused``, ``restarting``, ``exited`` or ``dead``.
    returncode: None where not known. image_id: ``sha256:...``, or another word for a root that is no image. started,
    finished: of its last run, seconds since the epoch.
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
    started: float | None = None
    finished: float | None = None


class Containers:
    """The containers of one store."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._store = engine.store

    # ---- finding -------------------------------------------------------------------------------------------------

    def get(self, name_or_id: str) -> "Container":
        """Find a container by id, by name, or by an id prefix that only one has.

        Raises
        ------
        ContainerNotFound: there is none. ContainerError: the prefix fits several.
        """
        from pyrtc.live import Container

        return Container.of(self._engine, self._store.containers.get(name_or_id).id)

    def list(self, *, all: bool = False) -> "tuple[Container, ...]":
        """Return the containers that run, or all, the newest first."""
        from pyrtc.live import Container

        return tuple(Container.of(self._engine, info.id) for info in self.infos(all=all))

    def infos(self, *, all: bool = False) -> "tuple[ContainerInfo, ...]":
        """Return what a list shows of the containers that run, or of all, the newest first. States are true."""
        self.reap()
        found = (_info(record) for record in self._store.containers.list())
        return tuple(info for info in found if all or info.state in ("running", "paused", "restarting"))

    # ---- making --------------------------------------------------------------------------------------------------

    def create(
        self,
        image: str,
        command: Sequence[str | os.PathLike[str]] | None = None,
        **options: "Unpack[ContainerKeywords]",
    ) -> "Container":
        """Make a container without starting it; parameters and exceptions are `pyrtc.run`'s.

        It is kept when it ends, unless remove=True is said.
        """
        from pyrtc.watched import create

        return create(self._engine, image, _kept_options(command, options))

    def run(
        self,
        image: str,
        command: Sequence[str | os.PathLike[str]] | None = None,
        **options: "Unpack[ContainerKeywords]",
    ) -> "Container":
        """Start a container that outlives this program; returns when its command executes.

        Its output is kept (`Container.logs`). Parameters and exceptions are `pyrtc.run`'s; it is kept when it ends,
        unless remove=True is said. When the start fails nothing is left of it.
        """
        from pyrtc.watched import run

        return run(self._engine, image, _kept_options(command, options))

    # ---- acting on one -------------------------------------------------------------------------------------------

    def remove(self, name_or_id: str, *, force: bool = False, volumes: bool = True) -> str:
        """Remove a container; see `Container.remove`. Returns its id."""
        self.reap()
        container = self.get(name_or_id)
        container.remove(force=force, volumes=volumes)
        return container.id

    def stop(self, name_or_id: str, *, timeout: float | None = None) -> str:
        """Ask a running container to end; see `Container.stop`. Returns its id."""
        self.reap()
        container = self.get(name_or_id)
        container.stop(timeout=timeout)
        return container.id

    def restartable(self) -> "tuple[Container, ...]":
        """Return the containers that are to be started after a reboot, as their restart policies say."""
        from pyrtc.ended import restartable
        from pyrtc.live import Container

        self.reap()
        return tuple(
            Container.of(self._engine, record.id)
            for record in self._store.containers.list()
            if record.detached and restartable(record)
        )

    # ---- putting right -------------------------------------------------------------------------------------------

    def reap(self) -> None:
        """Put right what killed processes left: rows, directories, control groups."""
        for reaped in self._store.reap():
            with suppress(ContainerNotFound):
                Cgroup.open(reaped.id).remove()
        watched = self._store.containers.watched()
        if watched:
            from pyrtc.ended import put_right

            put_right(self._engine, watched)
        sweep_abandoned()


def _kept_options(command: Sequence[str | os.PathLike[str]] | None, keywords: "ContainerKeywords") -> "RunOptions":
    from pyrtc.api import container_options

    keywords.setdefault("remove", False)
    return container_options(command, **keywords)


def _info(record: ContainerRecord) -> ContainerInfo:
    from pyrtc.states import exit_of, status_of

    said = json.loads(record.options or b"{}")
    state = status_of(record)
    return ContainerInfo(
        id=record.id,
        name=record.name,
        image=said.get("image", record.image_id),
        command=tuple(said.get("command") or ()),
        state=state,
        created=record.created,
        returncode=exit_of(record).get("returncode") if state == "exited" else None,
        labels=tuple((said.get("labels") or {}).items()),
        image_id=record.image_id,
        started=record.started,
        finished=record.finished,
    )
