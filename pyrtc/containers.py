"""The containers of a store: found, listed, made, and put right when processes were killed."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Unpack

from pyrtc.runtime.cgroups import sweep_abandoned

if TYPE_CHECKING:
    from pyrtc.engine import Engine
    from pyrtc.keywords import ContainerKeywords
    from pyrtc.listing import ContainerInfo
    from pyrtc.live import Container
    from pyrtc.options import RunOptions

__all__ = ["Containers"]


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

    def list(
        self, *, all: bool = False, filters: "Mapping[str, str | Sequence[str]] | None" = None
    ) -> "tuple[Container, ...]":
        """Return the containers that run, or all, the newest first; filters as in `infos`."""
        from pyrtc.live import Container

        return tuple(Container.of(self._engine, info.id) for info in self.infos(all=all, filters=filters))

    def infos(
        self, *, all: bool = False, filters: "Mapping[str, str | Sequence[str]] | None" = None
    ) -> "tuple[ContainerInfo, ...]":
        """Return what a list shows of the containers that run, or of all, the newest first. States are true.

        Parameters
        ----------
        all: those that do not run, too; so does a filter on ``status`` or ``exited``.
        filters: words of ``docker ps --filter``, each with a value or several of which one must fit: ``id``, ``name``
            (regular expressions for names, beginnings of ids), ``status``, ``exited``, ``label`` (``NAME`` or
            ``NAME=VALUE``, all must fit), ``ancestor`` (an image), ``volume``, ``network``, ``health``, ``before``,
            ``since`` (a container), ``publish`` (ports of this machine: ``80``, ``8000-8080``, ``53/udp``),
            ``expose`` (ports of the container).

        Raises
        ------
        UsageError: a filter that there is not. ContainerNotFound: before or since name no container.
        """
        from pyrtc.listing import LIVE, ContainerFilter, read_listing  # a start has no use for it

        wanted = ContainerFilter(filters)
        self.reap()
        found = wanted.choose(read_listing(self._store.database, self._store.containers.path).containers)
        return tuple(info for info in found if all or wanted.wants_ended or info.state in LIVE)

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
        from pyrtc.live import Container
        from pyrtc.watched import create

        return Container.of(self._engine, create(self._engine, image, _kept_options(command, options)))

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
        from pyrtc.live import Container
        from pyrtc.watched import run

        made = run(self._engine, image, _kept_options(command, options))
        container = Container.of(self._engine, made.id)
        container.warnings = made.warnings
        return container

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
        """Put right what killed processes left: rows, directories, control groups, elements of the firewall."""
        reaped = self._store.reap()
        if any(container.networked for container in reaped):
            from pyrtc.network.release import reconcile

            reconcile(self._store)
        watched = self._store.containers.watched()
        if watched:
            from pyrtc.ended import put_right

            put_right(self._engine, watched)
        sweep_abandoned()


def _kept_options(command: Sequence[str | os.PathLike[str]] | None, keywords: "ContainerKeywords") -> "RunOptions":
    from pyrtc.keywords import container_options

    keywords.setdefault("remove", False)
    return container_options(command, **keywords)
