"""Reading what happened in a store, and hearing of what happens: the other end of `pyrtc.events`."""

import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress

from pyrtc.errors import StoreError, UsageError
from pyrtc.events import EARLIER, LOG, Event, HasRoot, event_of
from pyrtc.watch import CREATED, MODIFIED, MOVED_HERE, DirectoryWatch

__all__ = ["FILTERS", "EventFilter", "async_events", "events"]

FILTERS = ("container", "event", "image", "label", "network", "scope", "type", "volume")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20


class EventFilter:
    """Which events are wanted, in the words of ``docker events --filter``.

    Of values of one key any must fit, of labels all; of each key one.

    Raises
    ------
    UsageError: a key that there is not.
    """

    def __init__(self, wanted: Mapping[str, str | Sequence[str]] | None = None) -> None:
        self._wanted: dict[str, tuple[str, ...]] = {}
        for key, values in (wanted or {}).items():
            if key not in FILTERS:
                raise UsageError(f"invalid filter {key}: events are filtered by {', '.join(FILTERS)}")
            self._wanted[key] = (values,) if isinstance(values, str) else tuple(values)

    def passes(self, event: Event) -> bool:
        """Say whether an event is wanted."""
        return all(self._fits(key, values, event) for key, values in self._wanted.items())

    def _fits(self, key: str, values: tuple[str, ...], event: Event) -> bool:
        attributes = dict(event.attributes)
        match key:
            case "type":
                return event.kind in values
            case "scope":
                return "local" in values
            case "event":  # `health_status` also means `health_status: healthy`
                return event.action in values or event.action.partition(":")[0] in values
            case "label":
                return all(_has_label(attributes, value) for value in values)
            case "image":
                if event.kind not in ("image", "container"):
                    return False
                name = attributes.get("name" if event.kind == "image" else "image", "")
                names = {event.id, name, _without_tag(event.id), _without_tag(name)}
                return any(value in names or f"sha256:{value}" in names for value in values)
            case _:  # the kinds whose events name others of another kind in an attribute of that name
                if event.kind != key:
                    return attributes.get(key) in values
                names = {event.id, attributes.get("name", event.id)}
                return any(value and name.startswith(value) for value in values for name in names)


def _has_label(attributes: Mapping[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in attributes and (not equals or attributes[name] == value)


def _without_tag(name: str) -> str:
    before, colon, tag = name.rpartition(":")
    return before if colon and "/" not in tag and before != "sha256" else name


def events(
    store: HasRoot,
    *,
    since: float | None = None,
    until: float | None = None,
    filters: Mapping[str, str | Sequence[str]] | None = None,
    follow: bool = False,
) -> Iterator[Event]:
    """Return what happened, and with follow wait for what happens; see `pyrtc.engine.Engine.events`."""
    # Everything that is wrong is wrong now, and what happens from now on is heard, whenever the first is asked for.
    reading = _Reading(store, since, until, EventFilter(filters), follow=follow)
    return reading.run()


def async_events(
    store: HasRoot,
    *,
    since: float | None = None,
    until: float | None = None,
    filters: Mapping[str, str | Sequence[str]] | None = None,
    follow: bool = False,
) -> AsyncIterator[Event]:
    """Return the twin of `events` for a running event loop, which is never blocked by waiting."""
    return _Reading(store, since, until, EventFilter(filters), follow=follow).run_async()


class _Reading:
    """One reader: where it is in the files, and what it still wants."""

    def __init__(
        self, store: HasRoot, since: float | None, until: float | None, wanted: EventFilter, *, follow: bool
    ) -> None:
        self._since = int((since or 0.0) * 1e9)
        self._until = until
        self._wanted = wanted
        self._watch: DirectoryWatch | None = None
        self._log = _Log(store.root_fd)
        try:
            if follow:  # before the first look: what comes between the two is heard
                self._watch = DirectoryWatch(self._log.root_fd, MODIFIED | MOVED_HERE | CREATED)
            self._log.open(at_end=follow and since is None)
        except BaseException:
            self.close()
            raise

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open. May be called again."""
        self._log.close()
        if self._watch is not None and self._watch.fd >= 0:
            self._watch.close()

    def run(self) -> Iterator[Event]:
        """Yield events until there are no more."""
        try:
            while True:
                yield from self._new()
                left = self._left()
                if self._watch is None or left == 0:
                    return
                self._watch.wait(timeout=left)
                self._watch.changed()  # what it says does not matter: the files tell, also where it overflowed
        finally:
            self.close()

    async def run_async(self) -> AsyncIterator[Event]:
        """Do what `run` does; waiting is the event loop's."""
        import asyncio

        loop = asyncio.get_running_loop()
        try:
            while True:
                for event in self._new():
                    yield event
                left = self._left()
                if self._watch is None or left == 0:
                    return
                changed = asyncio.Event()
                loop.add_reader(self._watch.fd, changed.set)
                try:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), left)
                finally:
                    loop.remove_reader(self._watch.fd)
                self._watch.changed()
        finally:
            self.close()

    def _new(self) -> Iterator[Event]:
        for line in self._log.lines():
            event = event_of(line)
            if event is None or event.time_ns < self._since:
                continue
            if (self._until is None or event.time <= self._until) and self._wanted.passes(event):
                yield event

    def _left(self) -> float | None:
        """Seconds until there is nothing more to wait for; None: for ever."""
        return None if self._until is None else max(0.0, self._until - time.time())


class _Log:
    """The lines of both files in their order, also while they are renamed."""

    def __init__(self, root_fd: int) -> None:
        self.root_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)
        self._fd = -1  # what is being read
        self._next: list[int] = []  # what comes after it
        self._rest = b""  # of a line whose end has not come

    def close(self) -> None:
        for fd in (self._fd, *self._next, self.root_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self.root_fd = -1
        self._next.clear()

    def open(self, *, at_end: bool) -> None:
        """Begin with the oldest line, or after the newest."""
        # The newer file first: if it is renamed in between, it is the earlier one that is found then.
        self._fd = self._open(LOG)
        if at_end:
            if self._fd >= 0:
                os.lseek(self._fd, 0, os.SEEK_END)
            return
        earlier = self._open(EARLIER)
        if earlier >= 0 and self._fd >= 0 and os.path.samestat(os.fstat(earlier), os.fstat(self._fd)):
            os.close(earlier)
        elif earlier >= 0:
            if self._fd >= 0:
                self._next.append(self._fd)
            self._fd = earlier

    def lines(self) -> Iterator[bytes]:
        """Yield the whole lines that have not been read."""
        while True:
            if self._fd < 0:
                self._fd = self._open(LOG)
                if self._fd < 0:
                    return
            # First the question, then the reading: nothing is written to a file after its name was taken away.
            ended = bool(self._next) or not self._is(LOG)
            yield from self._read()
            if not ended:
                return
            self._advance()

    def _read(self) -> Iterator[bytes]:
        while chunk := os.read(self._fd, _CHUNK):
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            yield from whole

    def _advance(self) -> None:
        """Go on to the file after the one that was read to its end."""
        self._rest = b""
        if self._next:
            os.close(self._fd)
            self._fd = self._next.pop(0)
            return
        newest = self._open(LOG)
        earlier = self._open(EARLIER)
        # Renamed more than once since: what was written in between is the earlier file now.
        missed = earlier >= 0 and not any(
            fd >= 0 and os.path.samestat(os.fstat(earlier), os.fstat(fd)) for fd in (self._fd, newest)
        )
        os.close(self._fd)
        self._fd = newest
        if missed:
            self._fd = earlier
            if newest >= 0:
                self._next.append(newest)
        elif earlier >= 0:
            os.close(earlier)

    def _is(self, name: str) -> bool:
        try:
            there = os.stat(name, dir_fd=self.root_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))

    def _open(self, name: str) -> int:
        try:
            return os.open(name, _READ, dir_fd=self.root_fd)
        except FileNotFoundError:
            return -1
        except OSError as error:
            raise StoreError(f"cannot read the events of the store: {name}: {error.strerror}") from error
