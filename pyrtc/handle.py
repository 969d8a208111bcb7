"""`Handle`: what can be seen of a container of a store, whoever started it."""

import os
from typing import TYPE_CHECKING, Literal, overload

from pyrtc.errors import ContainerError, ContainerNotFound
from pyrtc.states import Status, is_alive, status_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrtc.engine import Engine
    from pyrtc.files import Files
    from pyrtc.health import Health
    from pyrtc.image.config import ImageConfig
    from pyrtc.inspection import ContainerSize, Inspection
    from pyrtc.logs import LogLine, Moment
    from pyrtc.options import Port, RunOptions
    from pyrtc.processes import ProcessInfo
    from pyrtc.runtime.cgroups import Cgroup
    from pyrtc.stats import Stats
    from pyrtc.store import ContainerRecord

__all__ = ["Handle"]


class Handle:
    """What a container is and shows; nothing here changes it but through its files. See `pyrtc.Container`."""

    _engine: "Engine | None"
    _id: str | None

    @property
    def engine(self) -> "Engine":
        """The engine that it belongs to."""
        if self._engine is None:
            from pyrtc import default_engine

            self._engine = default_engine()
        return self._engine

    @property
    def id(self) -> str:
        """64 hexadecimal digits.

        Raises
        ------
        ContainerError: the `with` block, which makes the container, has not begun.
        """
        if self._id is None:
            raise ContainerError("the container is not made yet: that is what `with` does")
        return self._id

    @property
    def record(self) -> "ContainerRecord":
        """What the store knows of it now.

        Raises
        ------
        ContainerNotFound: it has been removed.
        """
        return self.engine.store.containers.get(self.id)

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name

    @property
    def status(self) -> Status:
        """What it is doing now: ``created``, ``running``, ``paused``, ``restarting``, ``exited``, ``dead``."""
        return status_of(self.record)

    @property
    def pid(self) -> int | None:
        """Its process 1 as this machine numbers it; None when it does not run."""
        record = self.record
        return record.pid if record.state == "running" and is_alive(record) else None

    @property
    def ports(self) -> "tuple[Port, ...]":
        """The ports of this machine that lead to it, with the numbers that were chosen; none when it does not run."""
        from pyrtc.options import Port

        if self.pid is None:
            return ()
        found = self.engine.store.networks.ports_of(self.id)
        return tuple(Port(one.container_port, one.protocol, one.host_port, one.ip) for one in found)

    def address(self, port: int | str) -> tuple[str, int]:
        """Return the address and port on this machine that lead to a port of it: 80, or "53/udp".

        Raises
        ------
        ContainerError: none is published for it, or it does not run. UsageError: it is no port.
        """
        from pyrtc.port_words import exposed

        wanted = exposed(str(port))[0]
        for one in self.ports:
            if (one.container, one.protocol) == (wanted.container, wanted.protocol):
                local = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (words)
                return local.get(one.ip, one.ip), one.host
        raise ContainerError(f"no public port '{wanted.container}/{wanted.protocol}' published for {self.name}")

    @property
    def options(self) -> "RunOptions":
        """What it was asked to be.

        Raises
        ------
        ContainerError: it goes when it ends, so nothing of that was kept.
        """
        from pyrtc.store.records import load_options

        spec = self.record.spec
        if spec is None:
            raise ContainerError(
                f"container {self.name} runs in the foreground and goes when it ends: its options are not kept"
            )
        return load_options(spec)

    @property
    def image_config(self) -> "ImageConfig":
        """The config of its image."""
        from pyrtc.start_image import find_image

        return find_image(self.engine.store, self.record.image_id, None).config

    def cgroup(self) -> "Cgroup":
        """Return its control groups.

        Raises
        ------
        ContainerNotFound: it has none now: it does not run, or this user may not make control groups.
        """
        from pyrtc.runtime.cgroups import Cgroup

        return Cgroup.open(self.id)

    @property
    def cgroup_path(self) -> str | None:
        """The directory of its control group in the unified hierarchy, or of the freezer; None where there is none."""
        try:
            return self.cgroup().path
        except ContainerNotFound:
            return None

    @property
    def files(self) -> "Files":
        """Its files, whether it runs or not: read, write, list, copy."""
        from pyrtc.files import Files

        return Files(self.engine.store, self.id)

    def root_fd(self) -> int:
        """Return a descriptor (O_PATH), which becomes the caller's, of the container's root directory as it sees it.

        What is below it is the container's to change at any moment: resolve names with openat2(RESOLVE_IN_ROOT).

        Raises
        ------
        ContainerError: it does not run.
        """
        from pyrtc.store.owner import open_process

        record = self.record
        pidfd = open_process(record.pid, record.start_time) if record.state == "running" else None
        if pidfd is None:
            raise ContainerError(f"container {record.name} is not running")
        try:
            try:
                fd = os.open(f"/proc/{record.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise ContainerError(f"cannot reach the root of container {record.name}: {error.strerror}") from None
            # Still the same process: the number cannot have been another's when the link was read.
            from pyrtc.store.owner import process_start_time

            if process_start_time(record.pid) != record.start_time:
                os.close(fd)
                raise ContainerError(f"container {record.name} is not running")
            return fd
        finally:
            os.close(pidfd)

    def logs(
        self,
        *,
        follow: bool = False,
        since: "Moment" = None,
        until: "Moment" = None,
        tail: int | None = None,
        stdout: bool = True,
        stderr: bool = True,
    ) -> "Iterator[LogLine]":
        """Iterate over the lines that it has written, the oldest first.

        >>> for line in container.logs(follow=True):
        ...     print(line.time, line.stream, line.text)

        Parameters
        ----------
        follow: go on with what it writes until its present run ends; closing the iterator ends that sooner.
        since, until: seconds since the epoch, a datetime, or words: ``"10m"`` ago, RFC 3339. until is not included.
        tail: only so many lines, the last of those that since and until let through.
        stdout, stderr: which stream; a container with a terminal has only stdout.

        Raises
        ------
        ContainerError: it keeps no log: it is in somebody's foreground, or was made with driver "none". UsageError: a
        moment that is none. StoreError: the log cannot be read.
        """
        from pyrtc.log_follow import follow_lines, log_directory, monitor_of, read_lines
        from pyrtc.logs import select_lines

        selection = select_lines(since, until, tail, stdout=stdout, stderr=stderr)
        record = self.record
        if follow:
            return follow_lines(log_directory(record), selection, monitor_of(record))
        return read_lines(log_directory(record), selection)

    def log_text(
        self, *, since: "Moment" = None, until: "Moment" = None, tail: int | None = None, timestamps: bool = False
    ) -> str:
        """Return what it has written as text; what is no UTF-8 is replaced.

        Parameters
        ----------
        since, until, tail: as for `logs`. timestamps: before each line when it was written, in RFC 3339.
        """
        from pyrtc.logs import format_time

        lines = self.logs(since=since, until=until, tail=tail)
        if not timestamps:
            return b"".join(line.data for line in lines).decode(errors="replace")
        return "".join(f"{format_time(line.time_ns)} {line.data.decode(errors='replace')}" for line in lines)

    @property
    def health(self) -> "Health | None":
        """How its health check finds it, and the last checks; None where nothing checks it.

        There is no event for a change: `wait_for` waits for one.
        """
        from pyrtc.health import read_health

        return read_health(self.record)

    @overload
    def stats(self, *, stream: Literal[False] = False, interval: float = 0.1) -> "Stats": ...
    @overload
    def stats(self, *, stream: Literal[True], interval: float = 1.0) -> "Iterator[Stats]": ...

    def stats(self, *, stream: bool = False, interval: float | None = None) -> "Stats | Iterator[Stats]":
        """Return what it uses now.

        Parameters
        ----------
        stream: return an iterator instead, which has a value each `interval` until the container has ended. interval:
            seconds between two values; without stream those that its share of the CPU is measured over, 0.1 unless
            given; with 0 the answer comes at once, and without a share.

        Raises
        ------
        ContainerError: it does not run.
        """
        from pyrtc.stats import stats
        from pyrtc.stats import stream as streamed

        if stream:
            return streamed(self, 1.0 if interval is None else interval)
        return stats(self, 0.1 if interval is None else interval)

    def top(self) -> "tuple[ProcessInfo, ...]":
        """Return its processes, as this machine numbers them; nothing runs in it for that.

        Raises
        ------
        ContainerError: it does not run, or nothing tells which processes are its own.
        """
        from pyrtc.processes import processes

        return processes(self)

    def size(self) -> "ContainerSize":
        """Measure what it has written, which takes a walk over that.

        Raises
        ------
        ContainerNotFound: it has been removed. StoreError: something in it cannot be read.
        """
        from pyrtc.inspection import size_of

        return size_of(self)

    def inspect(self) -> "Inspection":
        """Return everything that is known of it."""
        from pyrtc.inspection import inspect

        return inspect(self)
