"""A copy of what etcd says of the cluster, kept true: listed once, then changed as etcd tells of changes.

A connection that carries news is silent most of the time, and one that was cut looks the same. So etcd is asked
something small every second, over the member that the news come from; where it does not answer, the news are taken from
another member, from a new list on.
"""

import threading
import time
from collections.abc import Callable

from pyrtc.errors import ClusterError, UsageError
from pyrtc.network.overlay.documents import PREFIX, host_key, live_key
from pyrtc.network.overlay.etcd import Compacted, Etcd, Item, Made, Put, Watch
from pyrtc.network.overlay.view import View, view_of

__all__ = ["LEASE", "Mirror"]

LEASE = 30  # seconds without a word after which a host counts as away
_RENEWAL = 10.0
_BEAT = 1.0
_PAUSE = 0.3  # before etcd is tried again


class Mirror:
    """The copy, and this host's lease.

    Parameters
    ----------
    etcd: its time-out should be about a second. own_id: of this host. changed: called, in a thread, when there is news.

    Attributes
    ----------
    problem: why etcd cannot be used now, empty when it can. failure: what ended a thread that should not have ended.
    """

    def __init__(self, etcd: Etcd, own_id: str, changed: Callable[[], object]) -> None:
        self._etcd, self._own_id, self._changed = etcd, own_id, changed
        self._lock = threading.Lock()
        self._items: dict[str, Item] = {}
        self._version = 0
        self._watch: Watch | None = None
        self._closing = threading.Event()
        self._lease = 0
        self.problem = ""
        self.failure: Exception | None = None
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), daemon=True) for work in (self._follow, self._beat)
        ]
        for thread in self._threads:
            thread.start()

    def view(self, seen: int) -> tuple[int, View] | None:
        """Return the copy and its number, None if it is the one that was seen (0: none)."""
        with self._lock:
            if self._version == seen:
                return None
            version, items = self._version, list(self._items.values())
        return version, view_of(items)

    def close(self) -> None:
        """End, and the lease with it."""
        self._closing.set()
        with self._lock:
            if self._watch is not None:
                self._watch.interrupt()
        for thread in self._threads:
            thread.join()
        if self._lease and not self.problem:
            try:
                self._etcd.revoke(self._lease)
            except ClusterError:
                return  # it ends by itself

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.failure = error
            self._changed()

    def _follow(self) -> None:
        while not self._closing.is_set():
            try:
                self._follow_once()
            except Compacted:
                continue
            except ClusterError as error:
                if self._closing.is_set():
                    return
                self._note_problem(str(error))
                self._closing.wait(_PAUSE)
                self._renew_certificates()

    def _renew_certificates(self) -> None:
        """It may be that they have been renewed, and that this is why etcd does not answer."""
        try:
            self._etcd.gateway.renew()
        except UsageError as error:
            self._note_problem(str(error))

    def _follow_once(self) -> None:
        listing = self._etcd.list(PREFIX)
        with self._lock:
            self._items = {item.key: item for item in listing.items}
            self._version += 1
            self.problem = ""
        self._changed()
        watch = self._etcd.watch(PREFIX, listing.revision + 1)
        with self._lock:
            self._watch = watch
            if self._closing.is_set():  # whoever closes may have looked for a watch before
                watch.interrupt()
        try:
            for _revision, changes in watch:
                if self._closing.is_set():
                    return
                if not changes:
                    continue
                with self._lock:
                    for change in changes:
                        if change.value is None:
                            self._items.pop(change.key, None)
                        else:
                            before = self._items.get(change.key)
                            created = before.created if before is not None else change.revision
                            self._items[change.key] = Item(change.key, change.value, created, change.revision)
                    self._version += 1
                self._changed()
        finally:
            with self._lock:
                self._watch = None
            watch.close()

    def _note_problem(self, text: str) -> None:
        self.problem = text
        self._changed()

    def _beat(self) -> None:
        due = time.monotonic()
        while not self._closing.is_set():
            try:
                alive = self._etcd.get(live_key(self._own_id)) is not None
                # At once where it has ended; where there can be none, now and then.
                if time.monotonic() >= due or (self._lease and not alive):
                    self._renew(alive=alive)
                    due = time.monotonic() + _RENEWAL
                place = self._etcd.gateway.member
                with self._lock:
                    if self._watch is not None and self._watch.place != place:
                        self._watch.interrupt()
            except ClusterError:
                with self._lock:
                    if self._watch is not None:
                        self._watch.interrupt()
            self._closing.wait(_BEAT)

    def _renew(self, *, alive: bool) -> None:
        if alive and self._lease and self._etcd.keep_alive(self._lease):
            return
        self._lease = self._etcd.grant(LEASE)
        put = Put(live_key(self._own_id), b"", self._lease)
        if not self._etcd.transact([Made(host_key(self._own_id))], [put]).done:
            self._etcd.revoke(self._lease)  # another host has removed this one
            self._lease = 0
